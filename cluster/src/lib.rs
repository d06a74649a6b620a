//! The control state, its store and its HTTP API.

//! The environment as a deterministic simulator.

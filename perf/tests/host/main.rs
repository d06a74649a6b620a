//! The host and the load generator against a target in this process.

mod client;
mod fake;
mod load;

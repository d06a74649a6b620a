//! The host, the initiator and the load generator against a target in this process.

mod client;
mod fake;
mod initiator;
mod load;
mod portal;
mod wires;

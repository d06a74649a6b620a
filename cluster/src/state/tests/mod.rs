//! Every rule of the state machine, each refusal included, and random sequences against the invariants.

mod codec;
mod devices;
mod groups;
mod hosts;
mod random;
mod snapshots;
mod targets;
mod volumes;

pub(crate) use codec::VERSION_1;

//! Every rule of the state machine, each refusal included, and random sequences against the invariants.

mod codec;
mod hosts;
mod random;
mod targets;
mod volumes;

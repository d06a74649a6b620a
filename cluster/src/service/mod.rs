//! The control plane of a node: what stands between requests and the state machine.

mod node;

pub use node::{BoxFuture, Live, LiveController, LiveTarget, Node};

//! The control state of an Ashlar node, its durable store, and the HTTP API over it.
//!
//! | Module | Holds | May use |
//! |---|---|---|
//! | [`state`] | the pure state machine: [`State`](state::State), [`Command`](state::Command), `apply` | nothing but data: no clock, no I/O, no randomness |
//! | [`store`] | the state on disk: a log of commands and a snapshot, in redb | files |
//! | [`service`] | the control task that owns both, and the [`Node`](service::Node) it drives | tokio |
//! | [`http`] | `/v1`, `/healthz`, `/readyz`, `/metrics` | sockets, tokio |
//! | [`api`] | request and response types shared by server and client | nothing |
//! | [`client`] | blocking client of `/v1` for the command line | sockets |
//!
//! A change travels one way: a request becomes an [`Action`](state::Action); the node prepares what
//! the action needs; the state machine accepts or refuses it on a copy; the store makes it durable;
//! only then is the copy published, the node told of the [`Event`](state::Event)s, and the caller
//! answered. Raft will take the place of the store without a change above or below it.

pub mod api;
pub mod client;
pub mod http;
pub mod metrics;
pub mod service;
pub mod state;
pub mod store;

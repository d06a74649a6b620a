//! A lane's log: records appended to a chain of replicated segments, acknowledged in order, found again after a crash.
//!
//! # Writing
//!
//! [`Log::append`] queues an operation at once; the order of calls is the order of the log. A task of the log (the
//! driver, `writer.rs`) packs what waits into a record ([`record`]) and sends it to every replica as soon as fewer than
//! [`LogConfig::window`] records are in flight: at depth 1 nothing is waited for, at depth 128 one record carries dozens
//! of operations. A record is *applied* when it and all before it are durable on every replica: the [`Sink`] is told of
//! each operation and its place, then those who wait are woken, both in log order.
//!
//! # Rolling
//!
//! The next segment is always made ahead. When a record does not fit, the last one of the segment is a *next* record: it
//! names the segment in which the log continues, and appends go on there at once. Nothing in the new segment is
//! acknowledged before the next record is durable on every replica, since records are applied in order; so whatever was
//! acknowledged is found by following the chain, whether or not the old segment was sealed. The seal is made in the
//! background once the segment's last record is applied. [`Log::settled`] tells when all segments before the present one
//! are sealed: from there a checkpoint may let recovery begin.
//!
//! # When a replica fails
//!
//! An append that fails, or takes longer than its bound, leaves its replica behind: no more is sent; what is in flight
//! on the others is waited for; then the [`Coordinator`] commits for each segment concerned where it ends, without which
//! replicas, and where the log continues; only then are the records in flight acknowledged, and the log goes on in a new
//! segment on the others. They need not be sent again: they are durable on all replicas that still count. With one
//! replica, or when all fail, the log fails for good ([`LogError::Failed`]).
//!
//! The same way it takes replicas in again ([`Log::widen`]): a new segment is made on more stores, the coordinator commits
//! that the log continues there, and only then anything in it is acknowledged.
//!
//! # When the pool is full
//!
//! The segment made ahead is the reserve. When the one after it cannot be made, operations with data fail with
//! [`LogError::Full`] and the rest of the present segment is left to those that free space: unmap, zero and control.
//! Each refused operation has the log try again to make a segment; once that works all goes on.

mod apply;
mod assemble;
mod config;
mod coordinator;
mod latency;
mod leave;
mod op;
pub mod record;
pub mod recover;
mod send;
mod spare;
mod state;
mod waiters;
mod watch;
mod writer;

pub use config::{LogConfig, Planted};
pub use coordinator::{CheckpointMin, Coordinator, Decision, LocalCoordinator, Refused};
pub use op::{Applied, AppliedOp, LogError, Op, Place, Position, Sink};
pub use record::BlockSum;
pub use recover::{Event, RecoverError, Recovered, recover};
pub use waiters::Append;
pub use writer::Log;

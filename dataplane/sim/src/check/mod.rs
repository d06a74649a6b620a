//! Checking histories.
//!
//! A library apart from the executor: pure code without I/O, so that the simulator, load generators against
//! real processes and property tests feed the very same checkers.
//!
//! * [`register`]: each unit is one linearizable register; the streaming form, for runs of any length.
//! * [`history`]: whole histories of one register, the same rule off-line, and an exhaustive search for small
//!   ones, against which both forms of the rule are tested.
//! * [`stamp`]: self-describing sectors.
//! * [`crash`]: what a unit may hold after a crash.
//! * [`ledger`]: all of them together, in commands over runs of blocks: what a host model or load generator uses.

pub mod crash;
pub mod history;
pub mod ledger;
pub mod register;
pub mod stamp;

/// A point in the order of events. Any clock does that never runs back and that all who feed one checker
/// share; a counter raised with each event is the sharpest. Starts at 1: 0 is before everything.
pub type Time = u64;

/// The value of a unit, unique per register among all writes of a run. See [`stamp::Stamp::value`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

impl Value {
    /// All zeros: the initial value, and what write-zeroes and deallocate write. The only value that may be
    /// written more than once.
    pub const ZERO: Self = Self(0);
}

/// A unit did what no correct disk does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A read returned a value that was never written to this unit, or whose writing has not begun.
    #[error("read {value:?}, which nobody has written here")]
    Phantom {
        /// what was read
        value: Value,
    },
    /// A read returned a value that was overwritten, or fenced off, before the read began.
    #[error("read {value:?}, which was overwritten or fenced off before the read began")]
    Stale {
        /// what was read
        value: Value,
    },
    /// Two values cannot be put into any order.
    #[error("{value:?} and {other:?} were each seen after the other was")]
    NoOrder {
        /// what was read last
        value: Value,
        /// what contradicts it
        other: Value,
    },
    /// A value survived a crash that may not have.
    #[error("found {value:?} after the crash, allowed were {allowed:?}")]
    NotAllowedAfterCrash {
        /// what was read
        value: Value,
        /// what would have been right
        allowed: Vec<Value>,
    },
}

//! Bugs planted on purpose: the simulator is tested, too.
//!
//! Each must be found by the checkers within a stated number of seeds (`tests/planted.rs`). They are switches
//! of the simulated world, so no production code carries them.

/// Which bugs the world has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// A FUA write is completed while it rests in the volatile cache.
    pub fua_stays_cached: bool,
    /// A flush completes without having moved anything.
    pub flush_does_nothing: bool,
    /// Now and then two neighbouring bytes of a stream change places.
    pub net_swaps_bytes: bool,
    /// Now and then a sector reads as it was before its last write.
    pub disk_reads_stale: bool,
    /// Now and then a write takes effect once more later.
    pub disk_repeats_write: bool,
}

//! Time.

use std::future::Future;
use std::time::Duration;

/// A point of monotonic time in nanoseconds since an arbitrary start. 64 bits last 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// A time no deadline ever reaches.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The time `after` later, or [`Self::FAR_FUTURE`] where that is beyond the range.
    #[must_use]
    pub const fn plus(self, after: Duration) -> Self {
        let nanos = after.as_nanos();
        if nanos > u64::MAX as u128 { Self::FAR_FUTURE } else { Self(self.0.saturating_add(nanos as u64)) }
    }

    /// How long ago `earlier` was, or zero where it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Monotonic time, wall-clock time and sleep.
pub trait Clock {
    /// The monotonic time. May be cached for the length of one turn of the reactor (tens of microseconds).
    fn now(&self) -> Instant;

    /// Milliseconds since 1970-01-01 00:00 UTC. For timestamps shown to people or hosts, never for decisions.
    fn wall_ms(&self) -> u64;

    /// Ends at or after `deadline`. Allocates; not for use once per I/O.
    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Unpin + 'static;
}

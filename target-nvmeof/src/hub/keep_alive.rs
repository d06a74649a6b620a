//! The keep-alive timer (Base, section 3.9), traffic-based; and the patience with idle controllers.
//!
//! Any command restarts the timer. I/O connections set a flag that the timer takes when it runs out, so the
//! host is given up between one and two timeouts after its last command: hosts that hold commands back for
//! three timeouts, as they must with traffic-based keep-alive, are safe.

use std::time::Duration;

use std::sync::atomic::Ordering;

use ashlar_env::clock::Instant;

use super::Hub;

/// The granularity of the timeout in units of 100 ms (KAS): one second.
pub(super) const KAS: u16 = 10;
const GRANULE_MS: u64 = KAS as u64 * 100;
/// The longest timeout; longer ones are cut to it.
const TIMEOUT_MS_MAX: u64 = 24 * 3600 * 1000;
/// How long a controller without keep-alive may be idle where idling has no use: discovery controllers, and
/// those never enabled or shut down.
const IDLE: Duration = Duration::from_secs(120);
/// A timer that is looked at so late shows that this node itself stood still; hosts are not to blame.
const PAUSE: Duration = Duration::from_millis(500);

/// The timer of one controller.
#[derive(Debug)]
pub(super) struct KeepAlive {
    /// KATO in force, milliseconds; 0 for none.
    pub timeout_ms: u32,
    /// When the host is given up.
    deadline: Instant,
    /// The controller's entry in the hub's timers.
    pub armed: Option<Instant>,
    /// Got one more timeout because the node stood still, and has not been heard of since.
    spared: bool,
}

impl KeepAlive {
    pub fn new(asked_ms: u32) -> Self {
        Self { timeout_ms: Self::round(asked_ms), deadline: Instant::FAR_FUTURE, armed: None, spared: false }
    }

    /// KATO rounded up to the granularity and cut to the longest.
    pub fn round(asked_ms: u32) -> u32 {
        let rounded = u64::from(asked_ms).next_multiple_of(GRANULE_MS);
        rounded.min(TIMEOUT_MS_MAX) as u32
    }
}

impl Hub {
    /// When to call [`Self::tick`]. May change with every other call.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.timers.first().map_or(Instant::FAR_FUTURE, |&(at, _)| at)
    }

    /// Gives up the hosts whose time is over.
    pub fn tick(&mut self, now: Instant) {
        let paused = now.since(self.next_deadline()) > PAUSE;
        // Every entry taken is put back in the future or gone for good, so this ends.
        while let Some(&(at, cntlid)) = self.timers.first() {
            if at > now {
                return;
            }
            self.timers.remove(&(at, cntlid));
            let controller = self.controller_mut(cntlid);
            controller.keep_alive.armed = None;
            if controller.keep_alive.deadline > now {
                self.arm(cntlid);
            } else if controller.shared.traffic.swap(false, Ordering::Relaxed) {
                self.note_life(cntlid, now);
            } else if paused && !controller.keep_alive.spared {
                self.note_life(cntlid, now);
                self.controller_mut(cntlid).keep_alive.spared = true;
            } else {
                self.end_controller(cntlid);
            }
        }
    }

    /// The host was heard of: the timer starts anew.
    pub(super) fn note_life(&mut self, cntlid: u16, now: Instant) {
        let controller = self.controller_mut(cntlid);
        let idle_is_useless = controller.discovery || !controller.shared.is_ready();
        let timeout = match controller.keep_alive.timeout_ms {
            0 if idle_is_useless => Some(IDLE),
            0 => None,
            ms => Some(Duration::from_millis(u64::from(ms))),
        };
        controller.keep_alive.spared = false;
        controller.keep_alive.deadline = timeout.map_or(Instant::FAR_FUTURE, |timeout| now.plus(timeout));
        self.arm(cntlid);
    }

    /// Sees to it that the timers have an entry not later than the deadline.
    fn arm(&mut self, cntlid: u16) {
        let keep_alive = &mut self.controllers.get_mut(&cntlid).expect("armed by its owner").keep_alive;
        let deadline = keep_alive.deadline;
        match keep_alive.armed {
            Some(at) if at <= deadline => return,
            Some(at) => {
                self.timers.remove(&(at, cntlid));
            }
            None => {}
        }
        keep_alive.armed = (deadline != Instant::FAR_FUTURE).then_some(deadline);
        if keep_alive.armed.is_some() {
            self.timers.insert((deadline, cntlid));
        }
    }
}

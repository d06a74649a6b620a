//! Which faults a run has, and how often.
//!
//! A profile is drawn from the seed alone ([`Profile::swarm`]), so a seed says everything. In a swarm each seed
//! draws which faults are on at all: leaving faults out finds more than having all of them in every run.

use std::time::Duration;

use ashlar_env::buf::PoolPlan;

use crate::rng::{Prng, Rate};

/// Which runnable task comes next. All are fair: one choice in eight is uniform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// any, each equally likely
    Uniform,
    /// mostly the one that has waited longest, as a real executor does
    Oldest,
    /// mostly the one that became runnable last
    Newest,
}

/// Scheduling and the bounds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Who comes next.
    pub policy: Policy,
    /// How often a poll is followed by another without cause, as futures must tolerate.
    pub spurious_poll: Rate,
    /// Polls and events after which the run counts as livelocked.
    pub steps_max: u64,
    /// The same without any passing of virtual time.
    pub steps_at_one_time_max: u64,
    /// Virtual time after which the run counts as hung.
    pub time_max: Duration,
    /// The largest deviation of a node's clock from the true rate, in parts per million, either way.
    pub clock_drift_ppm_max: u32,
}

/// What the network does. Loss is a delay or a reset: TCP hides the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetFaults {
    /// Mean one-way delay of a segment.
    pub delay_mean: Duration,
    /// Bytes that a direction of a connection holds between sender and receiver.
    pub window_bytes: usize,
    /// How often a send or receive moves less than it could.
    pub partial: Rate,
    /// How often a segment is cut at an arbitrary byte.
    pub split: Rate,
    /// How often a poll says "not now" although there is data or room.
    pub hesitate: Rate,
    /// How often a segment is lost and sent again: a delay of 200 ms to 1 s.
    pub loss: Rate,
    /// How often a segment breaks the connection, both ways.
    pub reset: Rate,
    /// How often a segment makes its direction stall.
    pub stall: Rate,
    /// The longest stall.
    pub stall_max: Duration,
    /// How often a connection is refused.
    pub refuse: Rate,
    /// How many connections wait for `accept`.
    pub backlog: usize,
}

/// What disks do, over and above taking time. See `disk` for the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// Mean time of an operation.
    pub latency_mean: Duration,
    /// How often an operation takes up to `slow_max`.
    pub slow: Rate,
    /// The longest a slow operation takes.
    pub slow_max: Duration,
    /// How often a read finds a sector that has become unreadable.
    pub latent_read_error: Rate,
    /// How often a write fails; the handle latches.
    pub write_error: Rate,
    /// Whether a write error stays with the medium when the disk is opened again.
    pub write_error_stays: bool,
    /// How often a flush fails; the handle latches.
    pub flush_error: Rate,
    /// How often a write is acknowledged and never happens.
    pub lost_write: Rate,
    /// How often a write lands elsewhere.
    pub misdirected_write: Rate,
    /// How often a sector turns a byte over while it is written.
    pub bit_rot: Rate,
    /// How often a flush and a FUA write say "durable" and are not.
    pub lying_flush: Rate,
    /// How often a sector that is pending at a crash is not kept whole; else it is kept.
    pub drop_at_crash: Rate,
}

/// All of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Scheduling and bounds.
    pub schedule: Schedule,
    /// The network.
    pub net: NetFaults,
    /// Disks.
    pub disk: DiskFaults,
    /// Mean delay of a message between reactors.
    pub mesh_delay_mean: Duration,
    /// Messages that a link between reactors holds.
    pub mesh_capacity: usize,
    /// The buffers of a reactor.
    pub pool: PoolPlan,
}

impl Profile {
    /// No faults: small delays, seeded order. Operations are still cut into pieces and reordered as the
    /// interfaces allow.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            schedule: Schedule {
                policy: Policy::Uniform,
                spurious_poll: Rate::percent(1),
                steps_max: 20_000_000,
                steps_at_one_time_max: 1_000_000,
                time_max: Duration::from_secs(24 * 3600),
                clock_drift_ppm_max: 0,
            },
            net: NetFaults {
                delay_mean: Duration::from_micros(50),
                window_bytes: 256 << 10,
                partial: Rate::percent(5),
                split: Rate::percent(5),
                hesitate: Rate::percent(1),
                loss: Rate::NEVER,
                reset: Rate::NEVER,
                stall: Rate::NEVER,
                stall_max: Duration::from_secs(1),
                refuse: Rate::NEVER,
                backlog: 128,
            },
            disk: DiskFaults {
                latency_mean: Duration::from_micros(80),
                slow: Rate::NEVER,
                slow_max: Duration::from_millis(500),
                latent_read_error: Rate::NEVER,
                write_error: Rate::NEVER,
                write_error_stays: false,
                flush_error: Rate::NEVER,
                lost_write: Rate::NEVER,
                misdirected_write: Rate::NEVER,
                bit_rot: Rate::NEVER,
                lying_flush: Rate::NEVER,
                drop_at_crash: Rate::percent(50),
            },
            mesh_delay_mean: Duration::from_micros(2),
            mesh_capacity: 64,
            pool: PoolPlan { limits: [64, 32, 16, 8, 4] },
        }
    }

    /// The swarm profile of `seed`: network trouble, slow disks, clock drift and tiny sizes, each on or off by
    /// draw. Everything a correct system must survive without losing anything: disks keep their promises.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut rng = Prng::split(seed, "profile", 0);
        let mut it = Self::calm();
        it.schedule.policy = match rng.below(10) {
            0..6 => Policy::Uniform,
            6..8 => Policy::Oldest,
            _ => Policy::Newest,
        };
        it.schedule.spurious_poll = draw(&mut rng, 10);
        it.schedule.clock_drift_ppm_max = if rng.hits(Rate::percent(50)) { 200 } else { 0 };
        it.net.swarm(&mut rng);
        it.disk.latency_mean = Duration::from_nanos(rng.between(1_000, 2_000_000));
        it.disk.slow = draw(&mut rng, 5);
        it.disk.drop_at_crash = Rate::percent(rng.between(20, 100) as u32);
        it.mesh_delay_mean = Duration::from_nanos(rng.between(0, 100_000));
        if rng.hits(Rate::percent(40)) {
            it.tiny(&mut rng);
        }
        it
    }

    /// [`Self::swarm`] with disks that err openly: unreadable sectors, failing writes and flushes.
    #[must_use]
    pub fn swarm_with_disk_errors(seed: u64) -> Self {
        let mut it = Self::swarm(seed);
        let mut rng = Prng::split(seed, "profile", 1);
        it.disk.latent_read_error = draw(&mut rng, 5);
        it.disk.write_error = draw(&mut rng, 2);
        it.disk.write_error_stays = rng.hits(Rate::percent(50));
        it.disk.flush_error = draw(&mut rng, 5);
        it
    }

    /// Small windows, queues and pools: corners are reached fast. Every buffer class keeps one at least.
    fn tiny(&mut self, rng: &mut Prng) {
        self.net.window_bytes = rng.between(1, 8192) as usize;
        self.net.backlog = rng.between(1, 4) as usize;
        self.mesh_capacity = rng.between(1, 4) as usize;
        self.pool = PoolPlan { limits: [6, 4, 3, 2, 2] };
    }
}

impl NetFaults {
    fn swarm(&mut self, rng: &mut Prng) {
        self.delay_mean = Duration::from_nanos(rng.between(0, 3_000_000));
        self.window_bytes = rng.between(4 << 10, 512 << 10) as usize;
        self.partial = draw(rng, 50);
        self.split = draw(rng, 50);
        self.hesitate = draw(rng, 20);
        self.loss = draw(rng, 5);
        self.reset = Rate(draw(rng, 1).0 / 4);
        self.stall = Rate(draw(rng, 1).0 / 2);
        self.stall_max = Duration::from_millis(rng.between(1, 20_000));
        self.refuse = draw(rng, 20);
    }
}

/// Off in half of the cases, else up to `percent_max`.
fn draw(rng: &mut Prng, percent_max: u32) -> Rate {
    let on = rng.hits(Rate::percent(50));
    let rate = rng.below(u64::from(percent_max) * 10_000 + 1) as u32;
    if on { Rate(rate) } else { Rate::NEVER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_profile_and_seeds_differ() {
        assert_eq!(Profile::swarm(1), Profile::swarm(1));
        let with_resets = (0..1000).filter(|&s| Profile::swarm(s).net.reset > Rate::NEVER).count();
        assert!((400..600).contains(&with_resets), "{with_resets}");
        assert!((0..1000).all(|s| Profile::swarm(s).disk.lost_write == Rate::NEVER));
    }
}

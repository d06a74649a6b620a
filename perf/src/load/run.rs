//! The loop that issues commands, takes their completions and counts.
//!
//! One thread polls all connections in turn and never sleeps. What one receive brings is handled as a batch:
//! one look at the clock, then as many new commands as there were completions, then one send. In the steady
//! state nothing is allocated.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::lanes::{Kind, Lane, Lanes, Op, setup, units};
use super::pattern::Random;
use super::port::{Failure, Finished};
use super::report::{Measured, Tally};
use super::shadow::{Fault, Known, SECTOR_BYTES, Shadow, check_sectors, fill_sectors};
use super::{Options, Report, cpu_time};
use crate::client::{ClientError, RX_BYTES};

/// How long commands in flight may take to finish once no more are issued.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Rounds between looks whether the time is up.
const ROUNDS_PER_LOOK: u32 = 8;
/// Pause between attempts to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The connection or the target failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A command failed for good.
    #[error("{kind} at byte {byte} failed with {failure}")]
    Command {
        /// Which command.
        kind: &'static str,
        /// Where.
        byte: u64,
        /// Its status.
        failure: Failure,
    },
    /// A read returned something else than was acknowledged.
    #[error("wrong data: {0}")]
    Data(Fault),
    /// The target was away for longer than allowed.
    #[error("no connection for {seconds:.0} s; the last attempt: {last}")]
    Away {
        /// How long it was tried.
        seconds: f64,
        /// Why the last attempt failed.
        last: ClientError,
    },
    /// Commands did not finish.
    #[error("{0} commands did not finish in {1:?}")]
    Stuck(usize, Duration),
    /// The process to be measured is not there.
    #[error("process {0}: {1}")]
    Target(u32, std::io::Error),
}

/// Runs the load and reports.
///
/// # Errors
/// As [`LoadError`] says.
pub fn run(options: &Options) -> Result<Report, LoadError> {
    let mut runner = Runner::new(options)?;
    runner.load_for(Duration::from_secs_f64(options.warm_up))?;
    runner.work.start_measuring(options);
    let cpu_before = target_cpu(options)?;
    let begun = Instant::now();
    runner.load_for(Duration::from_secs_f64(options.seconds))?;
    let elapsed = begun.elapsed();
    let target_cpu = target_cpu(options)?.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    runner.work.counting = false;
    runner.drain()?;
    runner.check_all()?;
    runner.lanes.close();
    let work = runner.work;
    let measured = Measured {
        elapsed,
        read: work.read,
        write: work.write,
        bytes: work.bytes,
        target_cpu,
        polls: work.polls,
        busy_polls: work.busy_polls,
        sectors_verified: work.sectors_verified,
        reconnects: work.reconnects,
    };
    Ok(Report::new(options, &measured))
}

fn target_cpu(options: &Options) -> Result<Option<Duration>, LoadError> {
    let Some(pid) = options.target_pid else { return Ok(None) };
    cpu_time(pid).map(Some).map_err(|error| LoadError::Target(pid, error))
}

/// What is issued now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The load asked for.
    Load,
    /// Nothing but what has to be repeated after a reconnect.
    Drain,
    /// A read of each unit written, from this one on.
    Check(u64),
}

struct Runner<'a> {
    options: &'a Options,
    lanes: Lanes,
    work: Work<'a>,
    rx: Vec<u8>,
    done: Vec<Finished>,
}

/// All but the connections.
struct Work<'a> {
    options: &'a Options,
    phase: Phase,
    counting: bool,
    started: Instant,
    random: Random,
    shadow: Option<Shadow>,
    run: u64,
    sequence: u64,
    unit_bytes: u32,
    units: u64,
    /// What was in flight when the connection was lost, or failed for now.
    repeat: Vec<Op>,
    read: Tally,
    write: Tally,
    bytes: u64,
    polls: u64,
    busy_polls: u64,
    sectors_verified: u64,
    reconnects: u64,
}

impl<'a> Runner<'a> {
    fn new(options: &'a Options) -> Result<Self, LoadError> {
        let lanes = Lanes::connect(options)?;
        let work = Work::new(options, &lanes)?;
        Ok(Self { options, lanes, work, rx: vec![0; RX_BYTES], done: Vec::with_capacity(4096) })
    }

    fn load_for(&mut self, duration: Duration) -> Result<(), LoadError> {
        self.work.phase = Phase::Load;
        let end_ns = self.work.now_ns() + duration.as_nanos() as u64;
        while self.work.now_ns() < end_ns {
            // The clock costs as much as an empty poll.
            for _ in 0..ROUNDS_PER_LOOK {
                self.round()?;
            }
        }
        Ok(())
    }

    /// Issues nothing new and waits for what is in flight.
    fn drain(&mut self) -> Result<(), LoadError> {
        self.work.phase = Phase::Drain;
        self.finish()
    }

    /// Reads everything that was written.
    fn check_all(&mut self) -> Result<(), LoadError> {
        if self.work.shadow.is_none() {
            return Ok(());
        }
        self.work.phase = Phase::Check(0);
        while matches!(self.work.phase, Phase::Check(next) if next < self.work.units) {
            self.round()?;
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        loop {
            let in_flight: usize = self.lanes.lanes.iter().map(|lane| lane.port.in_flight()).sum();
            let left = in_flight + self.work.repeat.len();
            if left == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(LoadError::Stuck(left, DRAIN_TIMEOUT));
            }
            self.round()?;
        }
    }

    /// One turn over all connections; a lost connection is made again if that is allowed.
    #[inline]
    fn round(&mut self) -> Result<(), LoadError> {
        match self.turn() {
            Err(LoadError::Client(error))
                if error.is_path_failure() && self.options.survive_reconnect > 0.0 =>
            {
                self.reconnect(error)
            }
            other => other,
        }
    }

    #[inline]
    fn turn(&mut self) -> Result<(), LoadError> {
        let work = &mut self.work;
        for lane in &mut self.lanes.lanes {
            let received = lane.port.poll(&mut self.rx, &mut self.done)?;
            work.polls += 1;
            work.busy_polls += u64::from(received > 0);
            if !self.done.is_empty() {
                let now_ns = work.now_ns();
                for completion in self.done.drain(..) {
                    work.complete(lane, completion, now_ns)?;
                }
            }
            work.refill(lane);
            lane.port.flush()?;
        }
        Ok(())
    }

    /// Connects again and arranges that what was in flight is repeated.
    fn reconnect(&mut self, lost: ClientError) -> Result<(), LoadError> {
        self.done.clear();
        for lane in &mut self.lanes.lanes {
            self.work.repeat.extend(lane.ops.iter_mut().filter_map(Option::take));
        }
        self.lanes.lanes.clear();
        let deadline = Instant::now() + self.options.reconnect_for();
        let mut last = lost;
        while Instant::now() < deadline {
            match Lanes::connect(self.options) {
                Ok(lanes) if lanes.extent == self.lanes.extent => {
                    self.lanes = lanes;
                    self.work.reconnects += 1;
                    return Ok(());
                }
                Ok(_) => return Ok(setup("the volume has changed its size".into())?),
                Err(error) if error.is_path_failure() => last = error,
                Err(error) => return Err(error.into()),
            }
            std::thread::sleep(RECONNECT_PAUSE);
        }
        Err(LoadError::Away { seconds: self.options.survive_reconnect, last })
    }
}

impl<'a> Work<'a> {
    fn new(options: &'a Options, lanes: &Lanes) -> Result<Self, LoadError> {
        let units = units(options, lanes.extent)?;
        let unit_bytes = options.block_size.get() as u32;
        let in_flight = u64::from(options.connections) * u64::from(options.depth);
        if options.verify && units < 2 * in_flight {
            setup(format!(
                "{units} blocks are too few to verify {in_flight} commands in flight; twice as many are needed"
            ))?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            options,
            phase: Phase::Drain,
            counting: false,
            started: Instant::now(),
            random: Random::new(options.seed),
            shadow: options.verify.then(|| Shadow::new(units)),
            run: now.as_nanos() as u64,
            sequence: 0,
            unit_bytes,
            units,
            repeat: Vec::with_capacity(in_flight as usize),
            read: Tally::new(),
            write: Tally::new(),
            bytes: 0,
            polls: 0,
            busy_polls: 0,
            sectors_verified: 0,
            reconnects: 0,
        })
    }

    fn start_measuring(&mut self, options: &Options) {
        (self.read, self.write, self.bytes) = (Tally::new(), Tally::new(), 0);
        (self.polls, self.busy_polls) = (0, 0);
        self.counting = options.seconds > 0.0;
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Fills the free slots of `lane`.
    #[inline]
    fn refill(&mut self, lane: &mut Lane) {
        if lane.port.room() == 0 {
            return;
        }
        let now_ns = self.now_ns();
        while lane.port.room() > 0 {
            let Some(op) = self.next(lane, now_ns) else { return };
            self.issue(lane, op);
        }
    }

    #[inline]
    fn next(&mut self, lane: &mut Lane, now_ns: u64) -> Option<Op> {
        if let Some(op) = self.repeat.pop() {
            return Some(op);
        }
        match self.phase {
            Phase::Load => self.next_of_load(lane, now_ns),
            Phase::Drain => None,
            Phase::Check(from) => self.next_to_check(from, now_ns),
        }
    }

    #[inline]
    fn next_of_load(&mut self, lane: &mut Lane, at_ns: u64) -> Option<Op> {
        let read = self.random.percent(self.options.mix);
        let kind = match read {
            true => Kind::Read,
            false if self.flush_is_due(lane) => Kind::Flush,
            false if self.random.percent(self.options.zero_percent) => Kind::Zero,
            false => Kind::Write,
        };
        if kind == Kind::Flush {
            return Some(Op { kind, unit: 0, sequence: 0, at_ns });
        }
        let mut unit = lane.cursor.advance(&mut self.random);
        if let Some(shadow) = &mut self.shadow {
            unit = shadow.claim(unit, kind != Kind::Read)?;
        }
        self.sequence += u64::from(kind != Kind::Read);
        Some(Op { kind, unit, sequence: self.sequence, at_ns })
    }

    #[inline]
    fn flush_is_due(&self, lane: &mut Lane) -> bool {
        if self.options.flush_every == 0 {
            return false;
        }
        if lane.writes_to_flush == 0 {
            lane.writes_to_flush = self.options.flush_every;
            return true;
        }
        lane.writes_to_flush -= 1;
        false
    }

    fn next_to_check(&mut self, from: u64, at_ns: u64) -> Option<Op> {
        let shadow = self.shadow.as_mut()?;
        let written = (from..self.units).find(|&unit| shadow.known(unit) != Known::Nothing);
        self.phase = Phase::Check(written.map_or(self.units, |unit| unit + 1));
        let unit = shadow.claim(written?, false)?;
        Some(Op { kind: Kind::Read, unit, sequence: 0, at_ns })
    }

    #[inline]
    fn issue(&mut self, lane: &mut Lane, op: Op) {
        if self.shadow.is_some()
            && op.kind == Kind::Write
            && let Some(slot) = lane.port.next_slot()
        {
            let first = self.first_sector(op.unit);
            let payload = &mut lane.port.payload_mut(slot)[..self.unit_bytes as usize];
            fill_sectors(payload, first, op.sequence, self.run);
        }
        match lane.port.issue(&op) {
            Some(slot) => lane.ops[usize::from(slot)] = Some(op),
            None => self.repeat.push(op),
        }
    }

    fn first_sector(&self, unit: u64) -> u64 {
        unit * u64::from(self.unit_bytes) / SECTOR_BYTES as u64
    }

    #[inline]
    fn complete(&mut self, lane: &mut Lane, done: Finished, now_ns: u64) -> Result<(), LoadError> {
        let Some(op) = lane.ops[usize::from(done.slot)].take() else { return Ok(()) };
        if let Some(failure) = done.failure {
            return self.failed(op, failure);
        }
        if self.counting {
            let latency_ns = now_ns - op.at_ns;
            match op.kind {
                Kind::Read => self.read.record(latency_ns),
                Kind::Write | Kind::Zero | Kind::Flush => self.write.record(latency_ns),
            }
            let moved = matches!(op.kind, Kind::Read | Kind::Write);
            self.bytes += u64::from(self.unit_bytes) * u64::from(moved);
        }
        if self.shadow.is_some() { self.note(lane, done.slot, op) } else { Ok(()) }
    }

    /// Checks what was read, remembers what was written.
    fn note(&mut self, lane: &Lane, slot: u16, op: Op) -> Result<(), LoadError> {
        let first = self.first_sector(op.unit);
        let Some(shadow) = &mut self.shadow else { return Ok(()) };
        match op.kind {
            Kind::Read => {
                let expected = shadow.known(op.unit);
                let payload = &lane.port.payload(slot)[..self.unit_bytes as usize];
                check_sectors(payload, first, expected, self.run).map_err(LoadError::Data)?;
                if expected != Known::Nothing {
                    self.sectors_verified += (payload.len() / SECTOR_BYTES) as u64;
                }
                shadow.was_read(op.unit);
            }
            Kind::Write => shadow.changed(op.unit, Known::Written(op.sequence)),
            Kind::Zero => shadow.changed(op.unit, Known::Zeros),
            Kind::Flush => {}
        }
        Ok(())
    }

    /// Repeats a command that may succeed later, if the load is to survive that; else ends the run.
    fn failed(&mut self, op: Op, failure: Failure) -> Result<(), LoadError> {
        let kind = match op.kind {
            Kind::Read => "Read",
            Kind::Write => "Write",
            Kind::Zero => "Write Zeroes",
            Kind::Flush => "Flush",
        };
        if failure.of(kind).is_path_failure() && self.options.survive_reconnect > 0.0 {
            // Repeated by a later turn, not at once: the pause keeps this from spinning on a refusal.
            std::thread::sleep(Duration::from_millis(1));
            self.repeat.push(op);
            return Ok(());
        }
        Err(LoadError::Command { kind, byte: op.unit * u64::from(self.unit_bytes), failure })
    }
}

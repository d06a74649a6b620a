//! Properties (Base, section 3.1.3) and the life of a controller that CC governs (Base, section 3.5).
//!
//! ```text
//!               EN = 1, fields sound             SHN != 0
//!   Disabled ------------------------> Ready ---------------> ShutDown
//!    ^    \                              |                       |
//!    |     +--- EN = 1, fields not ---> Failed                   |
//!    +------------- EN = 0 <-------------+-----------------------+
//! ```
//!
//! SHN together with EN = 0 shuts down as well.

use ashlar_env::clock::Instant;

use crate::limits::Limits;
use crate::wire::fabrics::property;
use crate::wire::{Sqe, Status};

use super::Hub;
use super::answer::{Answer, Outcome};

/// VS: 1.4.
pub(super) const VERSION: u32 = 0x0001_0400;

/// CC bits (Base, section 3.1.3.5).
mod cc {
    pub const ENABLE: u32 = 1;
    pub const COMMAND_SETS: u32 = 7 << 4;
    pub const PAGE_SIZE: u32 = 0xF << 7;
    pub const ARBITRATION: u32 = 7 << 11;
    pub const SHUTDOWN: u32 = 3 << 14;
    /// IOSQES and IOCQES: 2^6 and 2^4 bytes.
    pub const ENTRY_SIZES: u32 = 0xFF << 16;
    pub const ENTRY_SIZES_WANTED: u32 = 6 << 16 | 4 << 20;
}

/// CSTS bits (Base, section 3.1.3.6).
mod csts {
    pub const READY: u32 = 1;
    pub const FATAL: u32 = 1 << 1;
    pub const SHUTDOWN_COMPLETE: u32 = 2 << 2;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Disabled,
    Ready,
    Failed,
    ShutDown,
}

/// What a write to CC did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Enabled,
    ShutDown,
    Reset,
}

/// CC and CSTS of one controller.
#[derive(Debug)]
pub(super) struct Properties {
    configuration: u32,
    state: State,
    discovery: bool,
}

impl Properties {
    pub fn new(discovery: bool) -> Self {
        Self { configuration: 0, state: State::Disabled, discovery }
    }

    /// CSTS. Every other bit is zero at all times, so it never looks like a device that is gone (all ones).
    pub fn status(&self) -> u32 {
        match self.state {
            State::Disabled => 0,
            State::Ready => csts::READY,
            State::Failed => csts::FATAL,
            State::ShutDown => csts::SHUTDOWN_COMPLETE | self.configuration & cc::ENABLE,
        }
    }

    /// Writes CC.
    pub fn configure(&mut self, value: u32) -> Change {
        self.configuration = value;
        let enable = value & cc::ENABLE != 0;
        let shutdown = value & cc::SHUTDOWN != 0;
        match (self.state, enable) {
            (State::Disabled, true) if !self.is_sound(value) => {
                self.state = State::Failed;
                Change::None
            }
            (State::Disabled, true) => {
                self.state = State::Ready;
                Change::Enabled
            }
            (State::Ready | State::Failed, true) if shutdown => {
                self.state = State::ShutDown;
                Change::ShutDown
            }
            (State::Ready | State::Failed | State::ShutDown, true) => Change::None,
            (before, false) => {
                self.state = if shutdown { State::ShutDown } else { State::Disabled };
                if before == State::Disabled { Change::None } else { Change::Reset }
            }
        }
    }

    fn is_sound(&self, value: u32) -> bool {
        // Discovery controllers have no I/O queues whose entries could have a size.
        let entry_sizes = self.discovery || value & cc::ENTRY_SIZES == cc::ENTRY_SIZES_WANTED;
        entry_sizes && value & (cc::COMMAND_SETS | cc::PAGE_SIZE | cc::ARBITRATION) == 0
    }
}

/// CAP (Base, section 3.1.3.1).
fn capabilities(limits: &Limits) -> u64 {
    let mqes = u64::from(limits.io_queue_entries_max - 1);
    let contiguous_queues = 1 << 16;
    let timeout_500_ms = 15 << 24;
    let nvm_command_set = 1 << 37;
    mqes | contiguous_queues | timeout_500_ms | nvm_command_set
}

impl Hub {
    /// Property Get (Base, section 6.5).
    pub(super) fn property_get(&self, cntlid: u16, sqe: &Sqe) -> Outcome {
        let command = sqe.as_property();
        let properties = &self.controller(cntlid).properties;
        let value = match (command.attributes & 7, command.offset.get()) {
            (1, property::CAPABILITIES) => capabilities(&self.config.limits),
            (0, property::VERSION) => u64::from(VERSION),
            (0, property::CONFIGURATION) => u64::from(properties.configuration),
            (0, property::STATUS) => u64::from(properties.status()),
            _ => return Err(Status::INVALID_FIELD),
        };
        Ok(Answer { dw0: value as u32, dw1: (value >> 32) as u32, data: None }.into())
    }

    /// Property Set (Base, section 6.6): CC only.
    pub(super) fn property_set(&mut self, cntlid: u16, sqe: &Sqe, now: Instant) -> Outcome {
        let command = sqe.as_property();
        if command.attributes & 7 != 0 || command.offset.get() != property::CONFIGURATION {
            return Err(Status::INVALID_FIELD);
        }
        let controller = self.controller_mut(cntlid);
        match controller.properties.configure(command.value.get() as u32) {
            Change::None => {}
            Change::Enabled => controller.set_ready(true),
            Change::ShutDown => controller.set_ready(false),
            Change::Reset => {
                controller.set_ready(false);
                // The queues' commands may still be running: what comes after the reset is another session.
                self.close_io_queues(cntlid);
                let session = self.new_session();
                self.controller_mut(cntlid).reset(session, now);
            }
        }
        self.note_life(cntlid, now);
        Ok(Answer::DONE.into())
    }
}

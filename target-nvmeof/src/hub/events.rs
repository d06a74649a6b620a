//! Asynchronous events (Base, section 5.2).
//!
//! Of each kind at most one event waits. It goes out when a request is there; the next of its kind waits until
//! the host has read the log that tells of it with RAE = 0. An event during that time is not lost: it goes
//! out afterwards unless the read that ends it covered the whole log, which then showed it.

use std::collections::{BTreeSet, VecDeque};

use crate::limits::AERS_MAX;
use crate::wire::Status;
use crate::wire::log::lid;

use super::Hub;
use super::answer::{Outcome, Reply};

/// What a host is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Namespaces came, went or changed.
    Namespaces,
    /// States or members of ANA groups changed.
    Ana,
    /// The discovery log changed.
    Discovery,
    /// A reservation notification waits.
    Reservation,
}

/// The events a controller may be asked for (OAES and Asynchronous Event Configuration).
pub(super) const OAES_IO: u32 = 1 << 8 | 1 << 11;
/// The same of a discovery controller.
pub(super) const OAES_DISCOVERY: u32 = 1 << 31;
/// The SMART warnings, bits 7:0: every I/O controller must take them; there is nothing to warn of.
const SMART_WARNINGS: u32 = 0xFF;

const KINDS: [Event; 4] = [Event::Namespaces, Event::Ana, Event::Discovery, Event::Reservation];

impl Event {
    /// DW0 of the completion: log page, information, type (Base, figure "Asynchronous Event Request -
    /// Completion Queue Entry Dword 0").
    const fn result(self) -> u32 {
        match self {
            Self::Namespaces => 0x04_00_02,
            Self::Ana => 0x0C_03_02,
            Self::Discovery => 0x70_F0_02,
            Self::Reservation => 0x80_00_06,
        }
    }

    const fn log(self) -> u8 {
        match self {
            Self::Namespaces => lid::CHANGED_NAMESPACES,
            Self::Ana => lid::ANA,
            Self::Discovery => lid::DISCOVERY,
            Self::Reservation => lid::RESERVATION,
        }
    }

    /// The bit of the configuration that lets it through; reservations have a mask of their own.
    const fn bit(self) -> Option<u32> {
        match self {
            Self::Namespaces => Some(1 << 8),
            Self::Ana => Some(1 << 11),
            Self::Discovery => Some(1 << 31),
            Self::Reservation => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// An event waits to be told.
    pending: bool,
    /// One was told, and its log has not been read since.
    masked: bool,
}

/// The events and requests of one controller.
#[derive(Debug)]
pub(super) struct Events {
    discovery: bool,
    /// Asynchronous Event Configuration, feature 0Bh.
    pub configuration: u32,
    /// The requests outstanding: their CIDs, first come first.
    requests: VecDeque<u16>,
    slots: [Slot; KINDS.len()],
    pub changed: ChangedNamespaces,
}

impl Events {
    pub fn new(discovery: bool) -> Self {
        Self {
            discovery,
            configuration: 0,
            requests: VecDeque::with_capacity(usize::from(AERS_MAX)),
            slots: Default::default(),
            changed: ChangedNamespaces::default(),
        }
    }

    /// Sets the configuration.
    pub fn configure(&mut self, value: u32) -> Result<(), Status> {
        let known = if self.discovery { OAES_DISCOVERY } else { OAES_IO | SMART_WARNINGS };
        if value & !known != 0 {
            return Err(Status::INVALID_FIELD);
        }
        self.configuration = value;
        Ok(())
    }

    fn is_enabled(&self, event: Event) -> bool {
        event.bit().is_none_or(|bit| self.configuration & bit != 0)
    }

    /// Notes that `event` happened, if the host wants to know.
    pub fn raise(&mut self, event: Event) {
        if self.is_enabled(event) {
            self.slots[event as usize].pending = true;
        }
    }

    /// Notes that the log page `log` was read, and whether all of it.
    pub fn log_read(&mut self, log: u8, whole: bool) {
        for event in KINDS.into_iter().filter(|event| event.log() == log) {
            let slot = &mut self.slots[event as usize];
            slot.masked = false;
            slot.pending &= !whole;
        }
    }

    /// The request to complete now, and DW0.
    fn next(&mut self) -> Option<(u16, u32)> {
        let ready = |event: &Event| {
            let slot = self.slots[*event as usize];
            slot.pending && !slot.masked && self.is_enabled(*event)
        };
        let event = KINDS.into_iter().find(ready)?;
        let cid = self.requests.pop_front()?;
        self.slots[event as usize] = Slot { pending: false, masked: true };
        Some((cid, event.result()))
    }

    /// What a controller reset does. The requests stay outstanding: the admin queue lives on.
    pub fn reset(&mut self) {
        self.configuration = 0;
        self.slots = Default::default();
        self.changed = ChangedNamespaces::default();
    }
}

/// The changed namespaces list (Base, section 5.16.1.5): bounded, whatever changes.
#[derive(Debug, Default)]
pub(super) struct ChangedNamespaces {
    nsids: BTreeSet<u32>,
    overflow: bool,
}

impl ChangedNamespaces {
    /// Namespaces the log page has room for.
    pub const MAX: usize = 1024;

    pub fn add(&mut self, nsid: u32) {
        if self.overflow {
            return;
        }
        self.nsids.insert(nsid);
        if self.nsids.len() > Self::MAX {
            self.nsids.clear();
            self.overflow = true;
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The log page, up to its last entry.
    pub fn page(&self) -> Vec<u8> {
        if self.overflow {
            return u32::MAX.to_le_bytes().to_vec();
        }
        self.nsids.iter().flat_map(|nsid| nsid.to_le_bytes()).collect()
    }
}

impl Hub {
    /// Asynchronous Event Request (Base, section 5.2).
    pub(super) fn async_event_request(&mut self, cntlid: u16, cid: u16) -> Outcome {
        let requests = &mut self.controller_mut(cntlid).events.requests;
        if requests.len() >= usize::from(AERS_MAX) {
            return Err(Status::AER_LIMIT);
        }
        requests.push_back(cid);
        Ok(Reply::Later)
    }

    /// Completes requests with the events that wait.
    pub(super) fn deliver_events(&mut self, cntlid: u16) {
        let controller = self.controllers.get_mut(&cntlid).expect("events of a controller that lives");
        if !controller.shared.is_ready() {
            return;
        }
        let admin = controller.admin;
        while let Some((cid, result)) = self.controller_mut(cntlid).events.next() {
            self.complete(admin, cid, Status::SUCCESS, super::answer::Answer::value(result));
        }
    }
}

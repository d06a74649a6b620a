//! Get Log Page (Base, section 5.16): the pages that have no file of their own, and the reading of all.

use std::time::Duration;

use ashlar_env::clock::Instant;
use zerocopy::{FromZeros, IntoBytes};

use crate::wire::identify::CSI_NVM;
use crate::wire::log::{ANA_GROUPS_ONLY, GetLogPage, SmartLog, lid};
use crate::wire::{Sqe, Status, sqe};

use super::answer::{Answer, Outcome};
use super::controller::Controller;
use super::events::{ChangedNamespaces, Event};
use super::features::known_features;
use super::identify::{has_volatile_cache, padded};
use super::reservation::NSID_ALL;
use super::{Hub, ana, discovery};

/// Pages of I/O controllers.
const PAGES_IO: [u8; 9] = [
    lid::SUPPORTED,
    lid::ERRORS,
    lid::SMART,
    lid::FIRMWARE,
    lid::CHANGED_NAMESPACES,
    lid::EFFECTS,
    lid::ANA,
    lid::FEATURE_EFFECTS,
    lid::RESERVATION,
];
/// Pages of discovery controllers.
const PAGES_DISCOVERY: [u8; 3] = [lid::SUPPORTED, lid::ERRORS, lid::DISCOVERY];

/// The part of a page that was asked for, and the size of the whole.
struct Window {
    bytes: Vec<u8>,
    page_bytes: u64,
}

impl Hub {
    /// Get Log Page.
    pub(super) fn get_log_page(&mut self, cntlid: u16, sqe: &Sqe, now: Instant) -> Outcome {
        let command = sqe.as_get_log_page();
        let controller = self.controller(cntlid);
        let pages: &[u8] = if controller.discovery { &PAGES_DISCOVERY } else { &PAGES_IO };
        if !pages.contains(&command.lid) {
            return Err(Status::INVALID_LOG_PAGE);
        }
        if !command.offset.is_multiple_of(4) || command.offset_is_index {
            return Err(Status::INVALID_FIELD);
        }
        let window = self.window(controller, sqe, &command, now)?;
        if !command.retain_event {
            self.note_read(cntlid, &command, window.page_bytes);
        }
        Ok(Answer::data(&window.bytes, command.bytes as u32).into())
    }

    fn window(
        &self,
        controller: &Controller,
        sqe: &Sqe,
        command: &GetLogPage,
        now: Instant,
    ) -> Result<Window, Status> {
        // The data plan has bounded the length by MDTS.
        let (offset, bytes) = (command.offset, command.bytes as u32);
        if command.lid == lid::DISCOVERY {
            let records = discovery::records(&self.targets, &controller.host_nqn, controller.local);
            let page_bytes = discovery::log_bytes(records.len());
            if offset > page_bytes {
                return Err(Status::INVALID_FIELD);
            }
            let bytes = discovery::window(&records, self.discovery_generation, offset, bytes);
            return Ok(Window { bytes, page_bytes });
        }
        let page = self.page(controller, sqe, command, now)?;
        let page_bytes = page.len() as u64;
        // Hosts that read the ANA page piece by piece (nvme-cli) reckon with the size that Identify
        // Controller lets it grow to. Beyond what it is now there are zeros.
        let offset_max = if command.lid == lid::ANA { ana::PAGE_BYTES_MAX } else { page_bytes };
        if offset > offset_max {
            return Err(Status::INVALID_FIELD);
        }
        let end = offset.saturating_add(bytes.into()).min(page_bytes);
        let start = offset.min(end);
        Ok(Window { bytes: page[start as usize..end as usize].to_vec(), page_bytes })
    }

    /// A whole page.
    fn page(
        &self,
        controller: &Controller,
        sqe: &Sqe,
        command: &GetLogPage,
        now: Instant,
    ) -> Result<Vec<u8>, Status> {
        let subsystem = self.subsystem_of(controller.cntlid);
        Ok(match command.lid {
            lid::SUPPORTED if controller.discovery => supported(&PAGES_DISCOVERY),
            lid::SUPPORTED => supported(&PAGES_IO),
            lid::ERRORS => controller.errors.page(),
            lid::SMART if !matches!(sqe.nsid.get(), 0 | NSID_ALL) => return Err(Status::INVALID_FIELD),
            lid::SMART => self.smart(controller, now),
            lid::FIRMWARE => firmware(&self.config.firmware),
            lid::CHANGED_NAMESPACES => {
                let mut page = controller.events.changed.page();
                page.resize(ChangedNamespaces::MAX * 4, 0);
                page
            }
            lid::EFFECTS if command.csi != CSI_NVM => return Err(Status::INVALID_FIELD),
            lid::EFFECTS => effects(),
            lid::ANA => {
                let subsystem = subsystem.ok_or(Status::INVALID_LOG_PAGE)?;
                let state = self.subsystems.get(&controller.subsystem).ok_or(Status::INTERNAL_ERROR)?;
                ana::page(subsystem, state, command.specific & ANA_GROUPS_ONLY != 0)
            }
            lid::FEATURE_EFFECTS => feature_effects(subsystem.is_some_and(has_volatile_cache)),
            lid::RESERVATION => controller.notifications.page(),
            _ => return Err(Status::INVALID_LOG_PAGE),
        })
    }

    /// A read with RAE = 0 clears the event, and what the page showed where it shows things once.
    fn note_read(&mut self, cntlid: u16, command: &GetLogPage, page_bytes: u64) {
        let controller = self.controller_mut(cntlid);
        let end = command.offset.saturating_add(command.bytes);
        let whole = command.offset == 0 && end >= page_bytes;
        controller.events.log_read(command.lid, whole);
        match command.lid {
            lid::CHANGED_NAMESPACES if end >= controller.events.changed.page().len() as u64 => {
                controller.events.changed.clear();
            }
            // Count, kind and namespace lie in the first 16 bytes.
            lid::RESERVATION if command.offset == 0 && end >= 16 && controller.notifications.pop() => {
                controller.events.raise(Event::Reservation);
            }
            _ => {}
        }
    }

    /// SMART and health (Base, section 5.16.1.3), of the subsystem since this node started: hosts come and go
    /// with each connection, and so do controllers. There is no temperature, and no spare that could run out.
    fn smart(&self, controller: &Controller, now: Instant) -> Vec<u8> {
        const UNIT_BYTES: u64 = 512 * 1000;
        let hours = now.since(self.started).as_secs() / Duration::from_secs(3600).as_secs();
        let state = self.subsystems.get(&controller.subsystem);
        let mut traffic = state.map(|state| state.retired).unwrap_or_default();
        let mut media_errors = state.map_or(0, |state| state.retired_media_errors);
        for other in self.controllers.values().filter(|other| other.subsystem == controller.subsystem) {
            traffic.add(&other.shared);
            media_errors += other.errors.media;
        }
        let log = SmartLog {
            available_spare: 100,
            data_units_read: u128::from(traffic.bytes_read.div_ceil(UNIT_BYTES)).into(),
            data_units_written: u128::from(traffic.bytes_written.div_ceil(UNIT_BYTES)).into(),
            host_reads: u128::from(traffic.read_commands).into(),
            host_writes: u128::from(traffic.write_commands).into(),
            power_on_hours: u128::from(hours).into(),
            media_errors: u128::from(media_errors).into(),
            error_entries: u128::from(controller.errors.count).into(),
            ..SmartLog::new_zeroed()
        };
        log.as_bytes().to_vec()
    }
}

/// A page of 32-bit entries, by index.
fn table(entries: usize, set: impl IntoIterator<Item = (usize, u32)>) -> Vec<u8> {
    let mut page = vec![0; entries * 4];
    for (index, value) in set {
        page[index * 4..][..4].copy_from_slice(&u32::to_le_bytes(value));
    }
    page
}

/// Supported log pages (Base, section 5.16.1.1).
fn supported(pages: &[u8]) -> Vec<u8> {
    const LSUPP: u32 = 1;
    table(256, pages.iter().map(|&lid| (usize::from(lid), LSUPP)))
}

/// Firmware slots (Base, section 5.16.1.4): one, active.
fn firmware(revision: &str) -> Vec<u8> {
    let mut page = vec![0; 512];
    page[0] = 1;
    page[8..16].copy_from_slice(&padded::<8>(revision));
    page
}

/// Commands supported and their effects (Base, section 5.16.1.6): admin commands, then I/O commands.
fn effects() -> Vec<u8> {
    const CSUPP: u32 = 1;
    /// Changes the contents of blocks.
    const LBCC: u32 = 1 << 1;
    const IO: usize = 256;
    let admin = [
        sqe::admin::GET_LOG_PAGE,
        sqe::admin::IDENTIFY,
        sqe::admin::ABORT,
        sqe::admin::SET_FEATURES,
        sqe::admin::GET_FEATURES,
        sqe::admin::ASYNC_EVENT,
        sqe::admin::KEEP_ALIVE,
    ];
    let quiet = [
        sqe::io::FLUSH,
        sqe::io::READ,
        sqe::io::COMPARE,
        sqe::io::VERIFY,
        sqe::io::RESERVATION_REGISTER,
        sqe::io::RESERVATION_REPORT,
        sqe::io::RESERVATION_ACQUIRE,
        sqe::io::RESERVATION_RELEASE,
    ];
    let writing = [sqe::io::WRITE, sqe::io::WRITE_ZEROES, sqe::io::DATASET_MANAGEMENT, sqe::io::COPY];
    let entries = (admin.into_iter().map(|opcode| (usize::from(opcode), CSUPP)))
        .chain(quiet.into_iter().map(|opcode| (IO + usize::from(opcode), CSUPP)))
        .chain(writing.into_iter().map(|opcode| (IO + usize::from(opcode), CSUPP | LBCC)));
    table(1024, entries)
}

/// Features supported and their effects (Base, section 5.16.1.19).
fn feature_effects(volatile_cache: bool) -> Vec<u8> {
    const FSUPP: u32 = 1;
    table(256, known_features(volatile_cache).map(|feature| (usize::from(feature), FSUPP)))
}

//! What hosts learn of reservations by way of their controllers: notifications (Base, section 5.16.1.24 and
//! feature 82h, section 5.27.1.26) and persistence through power loss (feature 83h, section 5.27.1.27).

use std::collections::{BTreeMap, VecDeque};

use ashlar_env::clock::Instant;
use ashlar_env::reservation::{Notice, NoticeKind, ReservationAction};
use ashlar_env::volume::{Issuer, Outcome as VolumeOutcome};
use zerocopy::{FromZeros, IntoBytes};

use crate::limits::ADMIN_QUEUE_ENTRIES_MAX;
use crate::wire::log::ReservationNotification;
use crate::wire::{Sqe, Status};

use super::answer::{Answer, Outcome, Reply};
use super::events::Event;
use super::{ConnectionId, Effect, Hub, ana};

/// NSID for all namespaces.
pub(super) const NSID_ALL: u32 = u32::MAX;
/// Notifications kept for a controller; what comes on top is counted, so that the host sees the gap.
const NOTIFICATIONS_MAX: usize = 64;
/// Bits 3:1 of the notification mask, one per kind.
const MASK_BITS: u8 = 0b1110;

/// What a command of feature 83h asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Get Features.
    Get,
    /// Set Features.
    Set,
}

/// The notifications that wait for a controller's host.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    waiting: VecDeque<(u64, u32, NoticeKind)>,
    count: u64,
    /// Masks that are not 0, by NSID (feature 82h).
    masks: BTreeMap<u32, u8>,
}

const fn code(kind: NoticeKind) -> u8 {
    match kind {
        NoticeKind::RegistrationPreempted => 1,
        NoticeKind::ReservationReleased => 2,
        NoticeKind::ReservationPreempted => 3,
    }
}

impl Notifications {
    /// Adds one, unless it is masked; says whether it did.
    fn add(&mut self, nsid: u32, kind: NoticeKind) -> bool {
        if self.mask(nsid) & 1 << code(kind) != 0 {
            return false;
        }
        self.count += 1;
        if self.waiting.len() < NOTIFICATIONS_MAX {
            self.waiting.push_back((self.count, nsid, kind));
        }
        true
    }

    /// The log page: the oldest that waits, or zeros.
    pub fn page(&self) -> Vec<u8> {
        let mut page = ReservationNotification::new_zeroed();
        if let Some(&(count, nsid, kind)) = self.waiting.front() {
            page.count = count.into();
            page.kind = code(kind);
            page.available = (self.waiting.len() - 1) as u8;
            page.nsid = nsid.into();
        }
        page.as_bytes().to_vec()
    }

    /// Drops the one the log page showed; says whether more wait.
    pub fn pop(&mut self) -> bool {
        self.waiting.pop_front();
        !self.waiting.is_empty()
    }

    /// The mask of a namespace.
    pub fn mask(&self, nsid: u32) -> u8 {
        self.masks.get(&nsid).copied().unwrap_or(0)
    }

    fn set_mask(&mut self, nsid: u32, mask: u8) {
        if mask == 0 {
            self.masks.remove(&nsid);
        } else {
            self.masks.insert(nsid, mask);
        }
    }

    /// Forgets what concerns a namespace that is gone.
    pub fn forget(&mut self, nsid: u32) {
        self.masks.remove(&nsid);
    }
}

impl Hub {
    /// Tells the hosts concerned what became of their registrations and reservations.
    pub fn reservation_notices(&mut self, notices: &[Notice], _now: Instant) {
        for notice in notices {
            let concerned: Vec<u16> = (self.controllers.values())
                .filter(|controller| !controller.discovery && controller.host == notice.host)
                .map(|controller| controller.cntlid)
                .collect();
            for cntlid in concerned {
                self.notify(cntlid, notice);
            }
        }
    }

    fn notify(&mut self, cntlid: u16, notice: &Notice) {
        let Self { targets, controllers, .. } = self;
        let controller = controllers.get_mut(&cntlid).expect("just found");
        let Some(subsystem) = targets.subsystems.get(&controller.subsystem) else { return };
        for (nsid, namespace) in ana::shown(subsystem) {
            if namespace.volume.id == notice.volume && controller.notifications.add(nsid, notice.kind) {
                controller.events.raise(Event::Reservation);
            }
        }
        self.deliver_events(cntlid);
    }

    pub(super) fn get_reservation_mask(&self, cntlid: u16, nsid: u32) -> Outcome {
        self.active_namespace(cntlid, nsid)?;
        Ok(Answer::value(u32::from(self.controller(cntlid).notifications.mask(nsid))).into())
    }

    pub(super) fn set_reservation_mask(&mut self, cntlid: u16, sqe: &Sqe) -> Outcome {
        let mask = sqe.cdw11.get() as u8 & MASK_BITS;
        let nsids: Vec<u32> = match sqe.nsid.get() {
            NSID_ALL => {
                let subsystem = self.subsystem_of(cntlid).ok_or(Status::INVALID_NAMESPACE)?;
                ana::shown(subsystem).map(|(nsid, _)| nsid).collect()
            }
            nsid => {
                self.active_namespace(cntlid, nsid)?;
                vec![nsid]
            }
        };
        for nsid in nsids {
            self.controller_mut(cntlid).notifications.set_mask(nsid, mask);
        }
        Ok(Answer::DONE.into())
    }

    /// Get or Set Features 83h: the volume keeps it, so the answer comes by [`Self::reserved`].
    pub(super) fn reservation_persistence(&mut self, cntlid: u16, sqe: &Sqe, what: Persistence) -> Outcome {
        let volume = self.active_namespace(cntlid, sqe.nsid.get())?.volume.id;
        let cid = sqe.cid.get();
        let controller = self.controller_mut(cntlid);
        if controller.reserving.len() >= usize::from(ADMIN_QUEUE_ENTRIES_MAX) {
            return Err(Status::INTERNAL_ERROR);
        }
        if controller.reserving.insert(cid, what).is_some() {
            return Err(Status::COMMAND_ID_CONFLICT);
        }
        let (connection, host, session) = (controller.admin, controller.host, controller.session);
        let action = match what {
            Persistence::Get => ReservationAction::Report,
            Persistence::Set => ReservationAction::SetPersist(sqe.cdw11.get() & 1 != 0),
        };
        let issuer = Issuer { host, session };
        self.effects.push_back(Effect::Reserve { connection, cid, volume, issuer, action });
        Ok(Reply::Later)
    }

    /// The answer to [`Effect::Reserve`]: the volume's outcome, or the status its error maps to.
    pub fn reserved(
        &mut self,
        connection: ConnectionId,
        cid: u16,
        outcome: Result<VolumeOutcome, Status>,
        now: Instant,
    ) {
        let Some(queue) = self.queues.get(&connection).copied() else { return };
        let Some(what) = self.controller_mut(queue.cntlid).reserving.remove(&cid) else { return };
        match outcome {
            Ok(VolumeOutcome::Reservation { report, notices }) => {
                let persist = report.is_some_and(|report| report.persist);
                let value = u32::from(what == Persistence::Get && persist);
                self.complete(connection, cid, Status::SUCCESS, Answer::value(value));
                self.reservation_notices(&notices, now);
            }
            Ok(_) => self.complete(connection, cid, Status::SUCCESS, Answer::DONE),
            Err(status) => self.complete(connection, cid, status, Answer::DONE),
        }
    }
}

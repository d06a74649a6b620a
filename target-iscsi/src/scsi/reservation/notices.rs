//! Who learns of what others did to reservations: unit attentions here, and what carries the news elsewhere.

use std::fmt;
use std::sync::OnceLock;

use ashlar_env::reservation::{Notice, NoticeKind};

use crate::scsi::Shared;
use crate::scsi::sense::Asc;

type Carrier = Box<dyn Fn(&[Notice]) + Send + Sync>;

/// What carries notices of commands that came by iSCSI to the hosts of other protocols.
#[derive(Default)]
pub struct Elsewhere(OnceLock<Carrier>);

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "(carried elsewhere)" } else { "(not carried elsewhere)" })
    }
}

/// The unit attention for what befell a nexus (SPC-4, section 5.13.11).
const fn attention(kind: NoticeKind) -> Asc {
    match kind {
        NoticeKind::RegistrationPreempted => Asc::REGISTRATIONS_PREEMPTED,
        NoticeKind::ReservationReleased => Asc::RESERVATIONS_RELEASED,
        NoticeKind::ReservationPreempted => Asc::RESERVATIONS_PREEMPTED,
    }
}

impl Shared {
    /// Sets what carries notices to the hosts of other protocols. It is called on the reactor of the command, and must
    /// not wait. The first one stays.
    pub fn carry_notices(&self, carrier: impl Fn(&[Notice]) + Send + Sync + 'static) {
        let _ = self.elsewhere.0.set(Box::new(carrier));
    }

    /// Raises the unit attentions for what a command of another protocol did. Hosts that are no nexus here are passed
    /// over.
    pub fn tell(&self, notices: &[Notice]) {
        for notice in notices {
            self.raise(notice.volume, attention(notice.kind), |nexus| nexus.issuer.host == notice.host);
        }
    }

    /// The same for what a command of this protocol did, and the others learn of it as well.
    pub(super) fn tell_all(&self, notices: &[Notice]) {
        self.tell(notices);
        if let Some(carrier) = self.elsewhere.0.get().filter(|_| !notices.is_empty()) {
            carrier(notices);
        }
    }
}

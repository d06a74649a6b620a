//! The control state as the targets see it.

use std::net::SocketAddr;

pub(super) mod iscsi;
pub(super) mod nvmeof;

/// What to tell hosts instead of the `at`th address that is listened on: the advertised address of the same port, else
/// the one at the same place.
fn advertised(advertise: &[SocketAddr], at: usize, listen: SocketAddr) -> Option<SocketAddr> {
    let same_port = advertise.iter().find(|address| address.port() == listen.port());
    same_port.or_else(|| advertise.get(at)).copied()
}

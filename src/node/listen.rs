//! Listening for hosts, and where the targets are reached.

use std::fmt;
use std::net::SocketAddr;

use ashlar_cluster::state::State;

use super::RunningNode;
use super::reactor::here;
use super::view;

/// A protocol that hosts speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Nvme,
    Iscsi,
}

impl Protocol {
    /// Its table in the configuration.
    pub fn table(self) -> &'static str {
        match self {
            Self::Nvme => "[nvmeof]",
            Self::Iscsi => "[iscsi]",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nvme => "NVMe/TCP",
            Self::Iscsi => "iSCSI",
        })
    }
}

/// An address that is not to be had.
#[derive(Debug)]
pub(crate) struct CannotListen {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub why: String,
}

/// Where the node listens for hosts.
#[derive(Debug)]
pub(crate) struct Bound {
    pub nvme: Vec<SocketAddr>,
    pub iscsi: Vec<SocketAddr>,
}

impl RunningNode {
    /// Listens where the configuration says, and serves.
    ///
    /// # Errors
    /// The address, and why not.
    pub fn listen(&self, state: &State) -> Result<Bound, CannotListen> {
        let io = self.nvmeof.listen.len();
        let nvme: Vec<_> = self.nvmeof.listen.iter().chain(&self.nvmeof.discovery).copied().collect();
        let bound = Bound {
            nvme: self.listen_all(Protocol::Nvme, &nvme)?,
            iscsi: self.listen_all(Protocol::Iscsi, &self.iscsi.listen)?,
        };
        {
            let mut book = self.book.lock().expect("no panic while held");
            book.ports = view::nvmeof::ports(&bound.nvme[..io], &self.nvmeof);
            book.portals = view::iscsi::portals(&bound.iscsi, &self.iscsi);
        }
        futures_lite::future::block_on(self.follow(state));
        Ok(bound)
    }

    fn listen_all(
        &self,
        protocol: Protocol,
        addresses: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, CannotListen> {
        let listen = |&address: &SocketAddr| {
            let listening =
                self.reactors[0].call(move |_, _| async move { here().listen(protocol, address) }).wait();
            let listening = listening.unwrap_or_else(|error| Err(error.to_string()));
            listening.map_err(|why| CannotListen { protocol, address, why })
        };
        addresses.iter().map(listen).collect()
    }
}

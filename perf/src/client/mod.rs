//! An NVMe/TCP host in plain non-blocking sockets.
//!
//! It is strict: whatever the specification does not allow a controller to send ends the connection with an
//! error that says what was wrong, because its second use is to test the target. It asks for no more than the
//! target needs to answer: one outstanding R2T per command, data in order, digests only on request.
//!
//! Nothing here spawns a thread or sleeps while a [`Queue`] is polled; the waiting helpers
//! ([`Queue::call`] and all of [`Controller`]) yield the processor between polls and give up at a deadline.

mod controller;
pub(crate) mod error;
pub mod fabrics;
pub mod io;
mod queue;
pub mod raw;
mod rx;
pub(crate) mod tx;

pub use controller::{Controller, HostOptions, KeptAlive, Namespace};
pub use error::{ClientError, Result};
pub use queue::{Completion, Data, Queue, QueueOptions, Reply, Shape};
pub use rx::RX_BYTES;

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Which digests a connection carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// CRC32C over every header.
    pub header: bool,
    /// CRC32C over the data of every PDU that has any.
    pub data: bool,
}

impl Digests {
    /// No digests.
    pub const NONE: Self = Self { header: false, data: false };
    /// Both digests.
    pub const BOTH: Self = Self { header: true, data: true };

    /// The DGST field of ICReq and ICResp.
    #[must_use]
    pub const fn field(self) -> u8 {
        self.header as u8 | (self.data as u8) << 1
    }

    /// Bytes that a header digest adds.
    pub(crate) const fn header_bytes(self) -> usize {
        if self.header { 4 } else { 0 }
    }

    /// Bytes that a data digest adds.
    pub(crate) const fn data_bytes(self) -> usize {
        if self.data { 4 } else { 0 }
    }
}

/// Connects to `addr` within `timeout`, with Nagle's algorithm off.
///
/// # Errors
/// The name does not resolve, or no address of it accepts.
pub fn dial(addr: &str, timeout: Duration) -> Result<TcpStream> {
    let mut last = None;
    for to in addr.to_socket_addrs()? {
        match TcpStream::connect_timeout(&to, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| ClientError::Setup(format!("{addr} has no address")), ClientError::Io))
}

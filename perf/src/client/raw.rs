//! A connection that sends whatever bytes it is told to, for tests of what a target does with them.
//!
//! Nothing is checked on the way out. On the way in a PDU is split off by its length field alone, so a test can
//! look at everything the target said.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use ashlar_codec::crc32c;
use ashlar_nvmeof::wire::fabrics::ConnectData;
use ashlar_nvmeof::wire::pdu::{CapsuleCmd, CapsuleResp, Header, IcReq, TermReq, flags, kind};
use ashlar_nvmeof::wire::{Cqe, Sqe};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::fabrics::{self, sgl_in_capsule};
use super::{ClientError, Digests, Result, dial};

/// The largest PDU this reads, in bytes.
const PDU_BYTES_MAX: usize = 2 << 20;

/// A PDU as it was received, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPdu {
    /// All its bytes, the common header first.
    pub bytes: Vec<u8>,
}

impl RawPdu {
    /// The common header.
    ///
    /// # Panics
    /// Never: a PDU has at least 8 bytes.
    #[must_use]
    pub fn header(&self) -> Header {
        self.read::<Header>().expect("a PDU has 8 bytes")
    }

    /// The start of the PDU as a `T`. None if it is shorter.
    #[must_use]
    pub fn read<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(&self.bytes).ok().map(|(value, _)| value)
    }

    /// The completion, if this is a response capsule.
    #[must_use]
    pub fn cqe(&self) -> Option<Cqe> {
        if self.header().kind != kind::CAPSULE_RESP {
            return None;
        }
        self.read::<CapsuleResp>().map(|pdu| pdu.cqe)
    }

    /// Fatal error status and information, if this ends the connection.
    #[must_use]
    pub fn terminated(&self) -> Option<(u16, u32)> {
        if self.header().kind != kind::C2H_TERM {
            return None;
        }
        self.read::<TermReq>().map(|pdu| (pdu.fes.get(), pdu.fei.get()))
    }
}

/// What came of waiting for a PDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A PDU.
    Pdu(RawPdu),
    /// The target closed the connection, or reset it.
    Closed,
    /// Nothing came in time.
    Nothing,
}

/// A raw connection.
pub struct RawClient {
    stream: TcpStream,
    received: Vec<u8>,
}

impl RawClient {
    /// Connects to `addr`.
    ///
    /// # Errors
    /// The target does not accept within `timeout`.
    pub fn dial(addr: &str, timeout: Duration) -> Result<Self> {
        Ok(Self { stream: dial(addr, timeout)?, received: Vec::new() })
    }

    /// The socket, for what else a test wants to do to it.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends `bytes` as they are.
    ///
    /// # Errors
    /// The connection failed, or the target takes no more for 10 s.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends `bytes` one by one, each in a segment of its own as far as the kernel lets it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytewise(&mut self, bytes: &[u8]) -> Result<()> {
        bytes.iter().try_for_each(|byte| self.send(&[*byte]))
    }

    /// Closes the sending direction only.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn half_close(&self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Waits up to `timeout` for a PDU.
    ///
    /// # Errors
    /// The socket fails otherwise than by being closed, or the PDU says it is longer than 2 MiB or shorter
    /// than its header.
    pub fn hear(&mut self, timeout: Duration) -> Result<Heard> {
        let deadline = Instant::now() + timeout;
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(pdu) = self.split_off_pdu()? {
                return Ok(Heard::Pdu(pdu));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Nothing);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(len) => self.received.extend_from_slice(&chunk[..len]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(Heard::Nothing),
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Ok(Heard::Closed),
                    _ => return Err(error.into()),
                },
            }
        }
    }

    fn split_off_pdu(&mut self) -> Result<Option<RawPdu>> {
        let Ok((header, _)) = Header::ref_from_prefix(&self.received) else { return Ok(None) };
        let plen = header.plen.get() as usize;
        if !(size_of::<Header>()..=PDU_BYTES_MAX).contains(&plen) {
            return Err(ClientError::Protocol(format!("a PDU of {plen} bytes")));
        }
        if self.received.len() < plen {
            return Ok(None);
        }
        let rest = self.received.split_off(plen);
        Ok(Some(RawPdu { bytes: std::mem::replace(&mut self.received, rest) }))
    }

    /// Waits for a PDU that must come.
    ///
    /// # Errors
    /// As [`hear`](Self::hear), or none comes.
    pub fn expect_pdu(&mut self, timeout: Duration) -> Result<RawPdu> {
        match self.hear(timeout)? {
            Heard::Pdu(pdu) => Ok(pdu),
            Heard::Closed => Err(ClientError::Closed),
            Heard::Nothing => Err(ClientError::Timeout("a PDU")),
        }
    }

    /// Waits until the target has closed the connection, passing over what it sends before. The last
    /// C2HTermReq passed over is returned.
    ///
    /// # Errors
    /// As [`hear`](Self::hear), or it does not close in time.
    pub fn expect_close(&mut self, timeout: Duration) -> Result<Option<(u16, u32)>> {
        let deadline = Instant::now() + timeout;
        let mut terminated = None;
        loop {
            match self.hear(deadline.saturating_duration_since(Instant::now()))? {
                Heard::Pdu(pdu) => terminated = pdu.terminated().or(terminated),
                Heard::Closed => return Ok(terminated),
                Heard::Nothing => return Err(ClientError::Timeout("the close of the connection")),
            }
        }
    }

    /// ICReq and ICResp.
    ///
    /// # Errors
    /// No ICResp comes within `timeout`.
    pub fn negotiate(&mut self, digests: Digests, timeout: Duration) -> Result<RawPdu> {
        self.send(ic_req(digests).as_bytes())?;
        let pdu = self.expect_pdu(timeout)?;
        if pdu.header().kind == kind::IC_RESP { Ok(pdu) } else { Err(unexpected(&pdu)) }
    }

    /// Sends Connect for queue `qid` and waits for its completion.
    ///
    /// # Errors
    /// Something else than a completion comes, or nothing within `timeout`.
    pub fn connect(&mut self, qid: u16, data: &ConnectData, timeout: Duration) -> Result<Cqe> {
        let mut sqe = fabrics::connect(qid, 32, 0, 0);
        sqe.sgl = sgl_in_capsule(1024);
        self.send(&capsule(sqe, data.as_bytes(), Digests::NONE))?;
        let pdu = self.expect_pdu(timeout)?;
        pdu.cqe().ok_or_else(|| unexpected(&pdu))
    }
}

fn unexpected(pdu: &RawPdu) -> ClientError {
    ClientError::Protocol(format!("an unexpected PDU: {:?}", pdu.header()))
}

/// A well-formed ICReq, to be sent or spoilt.
#[must_use]
pub fn ic_req(digests: Digests) -> IcReq {
    let mut request = IcReq::new_zeroed();
    request.header = Header { kind: kind::IC_REQ, flags: 0, hlen: 128, pdo: 0, plen: U32::new(128) };
    request.dgst = digests.field();
    request
}

/// A well-formed command capsule with `data` in it, to be sent or spoilt. The SQE goes in as it is.
#[must_use]
pub fn capsule(sqe: Sqe, data: &[u8], digests: Digests) -> Vec<u8> {
    let hlen = size_of::<CapsuleCmd>();
    let header =
        Header { kind: kind::CAPSULE_CMD, flags: 0, hlen: hlen as u8, pdo: 0, plen: U32::new(hlen as u32) };
    pdu(CapsuleCmd { header, sqe }.as_bytes(), data, digests)
}

/// Completes a PDU: `header` (its own length is HLEN), then `data` if any, both with the digests wanted. Flags,
/// PDO and PLEN are set; everything else stays as given.
///
/// # Panics
/// If `header` is shorter than the common header.
#[must_use]
pub fn pdu(header: &[u8], data: &[u8], digests: Digests) -> Vec<u8> {
    let mut bytes = header.to_vec();
    let pdo = header.len() + digests.header_bytes();
    let with_data = !data.is_empty();
    let plen = pdo + if with_data { data.len() + digests.data_bytes() } else { 0 };
    if let Ok((common, _)) = Header::mut_from_prefix(&mut bytes) {
        common.flags |= if digests.header { flags::HDGST } else { 0 };
        common.flags |= if with_data && digests.data { flags::DDGST } else { 0 };
        common.pdo = if with_data { pdo as u8 } else { 0 };
        common.plen = U32::new(plen as u32);
    }
    if digests.header {
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    }
    bytes.extend_from_slice(data);
    if with_data && digests.data {
        bytes.extend_from_slice(&crc32c(data).to_le_bytes());
    }
    bytes
}

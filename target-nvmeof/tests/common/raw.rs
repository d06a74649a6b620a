//! A host that speaks bytes, in the simulator. Nothing is checked on the way out; on the way in a PDU is split off
//! by its length alone, so that a test sees all that the target said.

use std::future::{Future, poll_fn};
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ashlar_env::{Clock, Net, Stream};
use ashlar_nvmeof::wire::pdu::{CapsuleResp, DataPdu, Header, R2t, TermReq, kind};
use ashlar_nvmeof::wire::sqe::SGL_IN_CAPSULE;
use ashlar_nvmeof::wire::{Cqe, Sqe, Status};
use ashlar_sim::{SimEnv, SimStream};
use zerocopy::FromBytes;

use super::bytes::{self, Digests, Identity};

/// How long a well-behaved target may take to answer: the bound that no other host's doings may break.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What came of waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A PDU, whole.
    Pdu(Vec<u8>),
    /// The target closed the connection, or reset it.
    Closed,
    /// Nothing came in time.
    Nothing,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// The completion.
    pub cqe: Cqe,
    /// What came before it.
    pub data: Vec<u8>,
}

impl Done {
    /// The status.
    pub fn status(&self) -> Status {
        Status::from_field(self.cqe.status.get())
    }

    /// Fails unless the command succeeded.
    pub fn ok(self) -> Result<Self, String> {
        if self.status().is_success() { Ok(self) } else { Err(format!("refused: {:?}", self.status())) }
    }
}

/// One connection.
pub struct Raw {
    env: SimEnv,
    /// The socket, for what else a test wants to do to it.
    pub stream: SimStream,
    unread: Vec<u8>,
    /// What was negotiated.
    pub digests: Digests,
    /// Every byte in a segment of its own, as far as headers reach: the first 100 of what is sent at once.
    pub bytewise: bool,
}

impl Raw {
    /// A connection. `None` where the target refuses it.
    pub async fn dial(env: &SimEnv, address: SocketAddr) -> Result<Self, String> {
        let stream = env.connect(address).await.map_err(|error| error.to_string())?;
        Ok(Self { env: env.clone(), stream, unread: Vec::new(), digests: Digests::NONE, bytewise: false })
    }

    /// Sends `bytes`, all of them, or fails where the target has closed the connection or reads nothing.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (slow, fast) = bytes.split_at(if self.bytewise { bytes.len().min(100) } else { 0 });
        for piece in slow.chunks(1).chain([fast]) {
            let mut sent = 0;
            while sent < piece.len() {
                let mut timer = pin!(self.env.sleep_until(self.env.now().plus(Duration::from_secs(60))));
                let polled = poll_fn(|cx| match self.stream.poll_send(cx, &[IoSlice::new(&piece[sent..])]) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
                })
                .await;
                sent += polled.ok_or("the target reads nothing")?.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Waits for a PDU.
    pub async fn hear(&mut self, wait: Duration) -> Heard {
        let mut timer = pin!(self.env.sleep_until(self.env.now().plus(wait)));
        loop {
            if let Some(pdu) = self.split_off() {
                return Heard::Pdu(pdu);
            }
            let mut chunk = [0; 4096];
            let got = poll_fn(|cx| match self.stream.poll_recv(cx, &mut [IoSliceMut::new(&mut chunk)]) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
            })
            .await;
            match got {
                Some(Ok(len @ 1..)) => self.unread.extend(&chunk[..len]),
                Some(_) => return Heard::Closed,
                None => return Heard::Nothing,
            }
        }
    }

    fn split_off(&mut self) -> Option<Vec<u8>> {
        let (header, _) = Header::read_from_prefix(&self.unread).ok()?;
        let plen = (header.plen.get() as usize).max(8);
        (self.unread.len() >= plen).then(|| self.unread.drain(..plen).collect())
    }

    /// A PDU that must come.
    pub async fn expect(&mut self) -> Result<Vec<u8>, String> {
        match self.hear(PATIENCE).await {
            Heard::Pdu(pdu) => Ok(pdu),
            other => Err(format!("no PDU: {other:?}")),
        }
    }

    /// Waits until the target closes the connection; what it says before is returned.
    pub async fn expect_close(&mut self, wait: Duration) -> Result<Vec<Vec<u8>>, String> {
        let mut said = Vec::new();
        let until = self.env.now().plus(wait);
        loop {
            match self.hear(until.since(self.env.now())).await {
                Heard::Pdu(pdu) => said.push(pdu),
                Heard::Closed => return Ok(said),
                Heard::Nothing => return Err(format!("open after {wait:?}; said {said:?}")),
            }
        }
    }

    /// ICReq and ICResp.
    pub async fn initialize(&mut self, digests: Digests) -> Result<(), String> {
        self.send(&bytes::ic_req(digests)).await?;
        let response = self.expect().await?;
        if response.len() != 128 || response[0] != kind::IC_RESP || response[11] != digests.field() {
            return Err(format!("not the ICResp asked for: {response:?}"));
        }
        self.digests = digests;
        Ok(())
    }

    /// Connect; the command's identifier is FFF0h.
    pub async fn connect(
        &mut self,
        qid: u16,
        sqsize: u16,
        who: &Identity,
        cntlid: u16,
        kato_ms: u32,
    ) -> Result<Done, String> {
        let sqe = bytes::connect(0xFFF0, qid, sqsize, kato_ms);
        self.command(&sqe, &bytes::connect_data(who, cntlid)).await
    }

    /// Sends a command and waits for its end; `data` go in the capsule or by R2T, as the SGL says.
    pub async fn command(&mut self, sqe: &Sqe, data: &[u8]) -> Result<Done, String> {
        let in_capsule = sqe.sgl.identifier == SGL_IN_CAPSULE;
        let capsule = bytes::capsule(self.digests, sqe, if in_capsule { data } else { &[] });
        self.send(&capsule).await?;
        self.finish(sqe.cid.get(), data).await
    }

    /// Waits for the end of a command, giving its data where they are asked for. PDUs of other commands are
    /// passed over.
    pub async fn finish(&mut self, cid: u16, data: &[u8]) -> Result<Done, String> {
        let mut got = Vec::new();
        loop {
            let pdu = self.expect().await?;
            match pdu[0] {
                kind::R2T => {
                    let r2t = read::<R2t>(&pdu)?;
                    if r2t.cccid.get() == cid {
                        let bytes = bytes::h2c_data(self.digests, cid, r2t.ttag.get(), 0, data, true);
                        self.send(&bytes).await?;
                    }
                }
                kind::C2H_DATA => {
                    let header = read::<DataPdu>(&pdu)?;
                    if header.cccid.get() == cid {
                        let (at, len) = (usize::from(pdu[3]), header.length.get() as usize);
                        got.extend(pdu.get(at..at + len).ok_or("C2HData shorter than it says")?);
                    }
                }
                kind::CAPSULE_RESP => {
                    let cqe = read::<CapsuleResp>(&pdu)?.cqe;
                    if cqe.cid.get() == cid {
                        return Ok(Done { cqe, data: got });
                    }
                }
                _ => return Err(format!("unexpected: {:?}", said(&pdu))),
            }
        }
    }
}

/// The start of a PDU as a `T`.
pub fn read<T: FromBytes>(pdu: &[u8]) -> Result<T, String> {
    T::read_from_prefix(pdu).map(|(value, _)| value).map_err(|_| format!("a PDU of {} bytes", pdu.len()))
}

/// A PDU for people.
pub fn said(pdu: &[u8]) -> String {
    match pdu[0] {
        kind::C2H_TERM => read::<TermReq>(pdu)
            .map_or_else(|error| error, |term| format!("T {:02X}@{}", term.fes.get(), term.fei.get())),
        kind::CAPSULE_RESP => read::<CapsuleResp>(pdu).map_or_else(
            |error| error,
            |pdu| format!("{:?} for {}", Status::from_field(pdu.cqe.status.get()), pdu.cqe.cid.get()),
        ),
        kind => format!("PDU of type {kind:02X}h, {} bytes", pdu.len()),
    }
}

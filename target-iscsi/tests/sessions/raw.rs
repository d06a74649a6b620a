//! An initiator that does one thing after the other, right or wrong.

use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::time::Duration;

use ashlar_env::{Net, Stream};
use ashlar_iscsi::wire::bhs::FINAL;
use ashlar_iscsi::wire::request::{DataOut, Login, ScsiCommand, TaskManagement};
use ashlar_iscsi::wire::response::{LoginResponse, R2t, ScsiResponse};
use ashlar_iscsi::wire::{NO_TAG, opcode};
use ashlar_sim::conformance::{send_all, within};
use ashlar_sim::{SimEnv, SimStream};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::bytes::{self, Digests, Received};
use crate::node::TARGET;

pub struct Raw {
    env: SimEnv,
    pub stream: SimStream,
    rx: Vec<u8>,
    pub cmd_sn: u32,
    pub isid: [u8; 6],
}

impl Raw {
    pub async fn connect(env: &SimEnv, address: SocketAddr) -> Self {
        let stream = env.connect(address).await.expect("the target listens");
        Self { env: env.clone(), stream, rx: Vec::new(), cmd_sn: 1, isid: [0x40, 0, 0, 0, 0, 1] }
    }

    /// A session of `name` whose ISID ends with `isid`, ready for commands.
    pub async fn log_in(env: &SimEnv, address: SocketAddr, name: &str, isid: u8) -> Self {
        let mut raw = Self::connect(env, address).await;
        raw.isid[5] = isid;
        let keys = format!("InitiatorName={name} TargetName={TARGET} InitialR2T=Yes");
        let (status, _) = raw.login(0x87, 0, &keys).await.expect("an answer");
        assert_eq!(status, 0);
        while raw.test_unit_ready().await != (0, 0) {}
        raw
    }

    pub async fn send(&mut self, header: &(impl IntoBytes + Immutable), data: &[u8]) {
        // The other end may be gone.
        let _ = send_all(&self.stream, &bytes::pdu(Digests::default(), header, data)).await;
    }

    /// The next PDU; `None` when the connection has ended, or nothing comes for a minute.
    pub async fn receive(&mut self) -> Option<Received> {
        let env = self.env.clone();
        within(&env, Duration::from_secs(60), async {
            loop {
                while let Some(received) = bytes::take(Digests::default(), &mut self.rx) {
                    // Pings are for those who listen.
                    if received.bhs.kind() != opcode::NOP_IN {
                        return Some(received);
                    }
                }
                let mut buf = [0; 4096];
                let n =
                    poll_fn(|cx| self.stream.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)])).await.ok()?;
                if n == 0 {
                    return None;
                }
                self.rx.extend(&buf[..n]);
            }
        })
        .await
        .flatten()
    }

    #[track_caller]
    fn check(received: Option<Received>, kind: u8) -> Received {
        let received = received.unwrap_or_else(|| panic!("a PDU {kind:#x}"));
        assert_eq!(received.bhs.kind(), kind, "{received:?}");
        received
    }

    pub async fn take(&mut self, kind: u8) -> Received {
        Self::check(self.receive().await, kind)
    }

    /// One request of login: the status and the text that came back.
    pub async fn login(&mut self, flags: u8, tsih: u16, keys: &str) -> Option<(u16, String)> {
        let mut header = Login::new_zeroed();
        (header.opcode, header.flags, header.isid) = (0x43, flags, self.isid);
        (header.tsih, header.itt, header.cid) = (U16::new(tsih), U32::new(7), U16::new(1));
        header.cmd_sn = U32::new(self.cmd_sn);
        self.send(&header, &bytes::text(keys)).await;
        let received = self.receive().await?;
        let response: LoginResponse = received.header();
        Some((response.status.get(), received.text()))
    }

    pub async fn command(&mut self, tag: u32, flags: u8, cdb: &[u8], expected: u32) {
        self.command_with(tag, flags | 1, cdb, expected).await;
    }

    /// The same with a task attribute in the flags.
    pub async fn command_with(&mut self, tag: u32, flags: u8, cdb: &[u8], expected: u32) {
        let mut header = ScsiCommand::new_zeroed();
        (header.opcode, header.flags) = (opcode::SCSI_COMMAND, FINAL | flags);
        (header.lun, header.itt, header.cmd_sn) = (U64::new(1 << 48), U32::new(tag), U32::new(self.cmd_sn));
        header.expected_bytes = U32::new(expected);
        header.cdb[..cdb.len()].copy_from_slice(cdb);
        self.cmd_sn += 1;
        self.send(&header, &[]).await;
    }

    /// The status of the next response, and its additional sense code.
    pub async fn status(&mut self) -> (u8, u16) {
        let received = self.take(opcode::SCSI_RESPONSE).await;
        let response: ScsiResponse = received.header();
        let asc = received.data.get(14..16).map_or(0, |asc| u16::from_be_bytes([asc[0], asc[1]]));
        (response.status, asc)
    }

    pub async fn test_unit_ready(&mut self) -> (u8, u16) {
        self.command(1, 0, &[0; 6], 0).await;
        self.status().await
    }

    /// Begins a write of one block of 512 bytes at block 0; the R2T.
    pub async fn begin_write(&mut self, tag: u32) -> R2t {
        self.command(tag, ScsiCommand::WRITE, &[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512).await;
        self.take(opcode::R2T).await.header()
    }

    pub async fn data(&mut self, r2t: &R2t, data: &[u8], last: bool) {
        let mut header = DataOut::new_zeroed();
        (header.opcode, header.flags) = (opcode::DATA_OUT, if last { FINAL } else { 0 });
        (header.itt, header.ttt) = (r2t.itt, r2t.ttt);
        self.send(&header, data).await;
    }

    /// What block 0 holds.
    pub async fn read(&mut self) -> Vec<u8> {
        self.command(2, ScsiCommand::READ, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512).await;
        self.take(opcode::DATA_IN).await.data
    }

    pub async fn manage(&mut self, function: u8) -> u8 {
        let mut header = TaskManagement::new_zeroed();
        (header.opcode, header.function) = (opcode::TASK_MANAGEMENT | opcode::IMMEDIATE, FINAL | function);
        (header.lun, header.itt, header.referenced_tag) = (U64::new(1 << 48), U32::new(99), U32::new(NO_TAG));
        header.cmd_sn = U32::new(self.cmd_sn);
        self.send(&header, &[]).await;
        let received = self.take(opcode::TASK_MANAGEMENT_RESPONSE).await;
        received.bhs.specific[0]
    }
}

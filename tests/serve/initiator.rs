//! An iSCSI initiator of bare PDUs (RFC 7143), one command at a time.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use md5::{Digest, Md5};

use super::node::PATIENCE;

/// What a login came to: status class and detail.
pub type LoginStatus = (u8, u8);
pub const SUCCESS: LoginStatus = (0, 0);
pub const AUTHENTICATION_FAILED: LoginStatus = (2, 1);
pub const NOT_AUTHORIZED: LoginStatus = (2, 2);
pub const TARGET_NOT_FOUND: LoginStatus = (2, 3);

/// A user's name and secret.
pub type Credentials<'a> = (&'a str, &'a str);

/// One connection.
pub struct Initiator {
    stream: TcpStream,
    cmd_sn: u32,
    stat_sn: u32,
    task: u32,
}

/// A PDU as it came: its header and its data.
struct Pdu {
    header: [u8; 48],
    data: Vec<u8>,
}

impl Pdu {
    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().unwrap())
    }
}

/// How a SCSI command ended.
#[derive(Debug)]
pub struct Ended {
    pub status: u8,
    /// Sense key and additional sense code with qualifier, with CHECK CONDITION.
    pub sense: Option<(u8, u16)>,
    pub data: Vec<u8>,
}

pub const GOOD: u8 = 0x00;
pub const CHECK_CONDITION: u8 = 0x02;
pub const RESERVATION_CONFLICT: u8 = 0x18;

fn pairs(data: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8(data.to_vec()).unwrap();
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("0x").unwrap();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// CHAP's answer by MD5.
fn respond(id: u8, secret: &str, challenge: &[u8]) -> Vec<u8> {
    Md5::new().chain_update([id]).chain_update(secret).chain_update(challenge).finalize().to_vec()
}

impl Initiator {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, cmd_sn: 1, stat_sn: 0, task: 1 }
    }

    fn send(&mut self, mut header: [u8; 48], data: &[u8]) {
        header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        header[16..20].copy_from_slice(&self.task.to_be_bytes());
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        header[28..32].copy_from_slice(&self.stat_sn.to_be_bytes());
        let mut bytes = [&header[..], data].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).unwrap();
    }

    fn recv(&mut self) -> Pdu {
        let mut header = [0; 48];
        self.stream.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data).unwrap();
        data.truncate(length);
        Pdu { header, data }
    }

    /// One request of login, in `stage` and wanting to go on to `next`, and its answer.
    fn login_step(&mut self, stage: u8, next: u8, text: &str) -> Pdu {
        let mut header = [0; 48];
        header[0] = 0x43;
        header[1] = 0x80 | stage << 2 | next;
        // ISID: of a random kind, with a qualifier of its own.
        header[8..14].copy_from_slice(&[0x80, 0, 0, 1, 0, 1]);
        self.send(header, text.as_bytes());
        let answer = self.recv();
        assert_eq!(answer.header[0], 0x23, "no login response");
        self.stat_sn = answer.u32(24) + 1;
        answer
    }

    /// Logs in as `initiator`: to `target`, or for discovery without one.
    pub fn login(address: &str, initiator: &str, target: Option<&str>) -> Result<Self, LoginStatus> {
        let mut this = Self::connect(address);
        let kind = match target {
            Some(target) => format!("SessionType=Normal\0TargetName={target}\0"),
            None => "SessionType=Discovery\0".to_owned(),
        };
        let keys = "HeaderDigest=None\0DataDigest=None\0InitialR2T=Yes\0ImmediateData=Yes\0";
        let answer = this.login_step(1, 3, &format!("InitiatorName={initiator}\0{kind}{keys}"));
        this.finish(&answer)
    }

    fn finish(self, answer: &Pdu) -> Result<Self, LoginStatus> {
        let status = (answer.header[36], answer.header[37]);
        if status == SUCCESS { Ok(self) } else { Err(status) }
    }

    /// Logs in to `target` by CHAP; with `target_secret` the target must prove itself as well. Fails unless it does.
    pub fn login_chap(
        address: &str,
        (user, secret): Credentials<'_>,
        target: &str,
        target_secret: Option<&str>,
    ) -> Result<Self, LoginStatus> {
        let mut this = Self::connect(address);
        let first =
            format!("InitiatorName={user}\0SessionType=Normal\0TargetName={target}\0AuthMethod=CHAP\0");
        let answer = this.login_step(0, 1, &first);
        let status = (answer.header[36], answer.header[37]);
        if status != SUCCESS {
            return Err(status);
        }
        assert_eq!(pairs(&answer.data)["AuthMethod"], "CHAP");
        let challenge = pairs(&this.login_step(0, 1, "CHAP_A=5\0").data);
        let id = challenge["CHAP_I"].parse().unwrap();
        let response = respond(id, secret, &unhex(&challenge["CHAP_C"]));
        let mut text = format!("CHAP_N={user}\0CHAP_R={}\0", hex(&response));
        let own = [0x5A; 16];
        if target_secret.is_some() {
            text.push_str(&format!("CHAP_I=7\0CHAP_C={}\0", hex(&own)));
        }
        let answer = this.login_step(0, 1, &text);
        let mut this = this.finish(&answer)?;
        if let Some(secret) = target_secret {
            let proof = pairs(&answer.data);
            assert_eq!(proof["CHAP_N"], target);
            assert_eq!(
                unhex(&proof["CHAP_R"]),
                respond(7, secret, &own),
                "the target does not know its secret"
            );
        }
        let answer = this.login_step(1, 3, "HeaderDigest=None\0DataDigest=None\0");
        this.finish(&answer)
    }

    /// SendTargets=All: names with their addresses.
    pub fn send_targets(&mut self) -> Vec<String> {
        let mut header = [0; 48];
        header[0] = 0x04;
        header[1] = 0x80;
        header[20..24].fill(0xFF);
        self.send(header, b"SendTargets=All\0");
        let answer = self.recv();
        assert_eq!(answer.header[0], 0x24, "no text response");
        self.done(&answer);
        let text = String::from_utf8(answer.data).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    fn done(&mut self, answer: &Pdu) {
        self.stat_sn = answer.u32(24) + 1;
        self.cmd_sn += 1;
        self.task += 1;
    }

    /// A command of logical unit `lun` that sends `out` or takes up to `take` bytes.
    pub fn command(&mut self, lun: u16, cdb: &[u8], out: &[u8], take: u32) -> Ended {
        let mut header = [0; 48];
        let direction = if !out.is_empty() {
            0x20
        } else if take > 0 {
            0x40
        } else {
            0
        };
        // Final, and the task attribute "simple".
        (header[0], header[1]) = (0x01, 0x81 | direction);
        header[8..10].copy_from_slice(&lun.to_be_bytes());
        let expected = if out.is_empty() { take } else { out.len() as u32 };
        header[20..24].copy_from_slice(&expected.to_be_bytes());
        header[32..32 + cdb.len()].copy_from_slice(cdb);
        self.send(header, out);
        let mut data = Vec::new();
        loop {
            let answer = self.recv();
            match answer.header[0] {
                0x25 => {
                    data.extend_from_slice(&answer.data);
                    // The status came with the last data.
                    if answer.header[1] & 1 != 0 {
                        self.done(&answer);
                        return Ended { status: answer.header[3], sense: None, data };
                    }
                }
                0x21 => {
                    self.done(&answer);
                    let sense = answer.data.get(2..16).map(|sense| match sense[0] & 0x7F {
                        0x72 | 0x73 => (sense[1] & 15, u16::from_be_bytes([sense[2], sense[3]])),
                        _ => (sense[2] & 15, u16::from_be_bytes([sense[12], sense[13]])),
                    });
                    return Ended { status: answer.header[3], sense, data };
                }
                other => panic!("a PDU of opcode {other:#x} for a command"),
            }
        }
    }

    /// TEST UNIT READY until nothing is pending for this nexus.
    pub fn clear_attention(&mut self, lun: u16) {
        for _ in 0..8 {
            let ended = self.command(lun, &[0; 6], &[], 0);
            if ended.status == GOOD {
                return;
            }
            assert_eq!(ended.sense.map(|(key, _)| key), Some(6), "{ended:?}");
        }
        panic!("unit attentions without end");
    }

    /// WRITE (10) of one block.
    pub fn write(&mut self, lun: u16, lba: u32, block: &[u8]) -> Ended {
        self.command(lun, &transfer(0x2A, lba), block, 0)
    }

    /// READ (10) of one block of 512 bytes.
    pub fn read(&mut self, lun: u16, lba: u32) -> Vec<u8> {
        let ended = self.command(lun, &transfer(0x28, lba), &[], 512);
        assert_eq!(ended.status, GOOD, "{ended:?}");
        ended.data
    }
}

fn transfer(opcode: u8, lba: u32) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[8] = 1;
    cdb
}

//! Login without authentication (RFC 7143, sections 6 and 11.12): one stage, the operational one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use zerocopy::big_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use super::InitiatorOptions;
use super::text::Text;
use super::wire::{Answer, Request, answer, flags, padding, request};
use crate::client::error::protocol;
use crate::client::{ClientError, Digests, Result};

/// CSG = 1 (operational), NSG = 3 (full feature phase).
const STAGES: u8 = 1 << 2 | 3;
/// Requests of one login, at most.
const EXCHANGES_MAX: usize = 16;
/// Data of a login response, in bytes (section 6.1: MaxRecvDataSegmentLength has its default during login).
const TEXT_BYTES_MAX: u32 = 8192;
/// What a target takes in one data segment unless it says otherwise, in bytes.
const DATA_SEGMENT_DEFAULT: u32 = 8192;
/// The tag of the login.
const LOGIN_TAG: u32 = 0x4C6F_6769;
/// The CmdSN of the login and of the first command.
const FIRST_CMD_SN: u32 = 1;

/// What a session and its target agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Digests.
    pub digests: Digests,
    /// Data beyond the immediate ones wait for R2T.
    pub initial_r2t: bool,
    /// Data may travel with the command.
    pub immediate_data: bool,
    /// Unsolicited data of a command, at most, in bytes.
    pub first_burst_bytes: u32,
    /// Data of one R2T or one sequence of Data-In, at most, in bytes.
    pub max_burst_bytes: u32,
    /// Data of one PDU to the target, at most, in bytes.
    pub data_segment_bytes: u32,
}

/// Where the numbering of a session stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) cmd_sn: u32,
    pub(super) exp_stat_sn: u32,
    pub(super) max_cmd_sn: u32,
}

/// Logs in over `stream` as session `index` of this process. The stream is left blocking.
pub(super) fn log_in(
    stream: &TcpStream,
    options: &InitiatorOptions,
    index: u16,
) -> Result<(Agreed, Numbers)> {
    Login { stream, deadline: Instant::now() + options.timeout, isid: isid(index), exp_stat_sn: 0 }
        .run(options)
}

/// An ISID of the random format (section 11.12.5): bits of the process in the middle, `index` as the qualifier. A
/// process that connects again therefore takes the place of its earlier session.
fn isid(index: u16) -> [u8; 6] {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let [high, low] = index.to_be_bytes();
    [0x80, a, b, c, high, low]
}

struct Login<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
    isid: [u8; 6],
    exp_stat_sn: u32,
}

impl Login<'_> {
    fn run(mut self, options: &InitiatorOptions) -> Result<(Agreed, Numbers)> {
        let mut to_send = offer(options);
        let mut answers = Vec::new();
        let mut finish = true;
        for exchange in 0..EXCHANGES_MAX {
            self.send(&to_send, finish)?;
            to_send.clear();
            let (header, text) = self.receive()?;
            self.check(&header, exchange == 0)?;
            answers.extend_from_slice(&text);
            let goes_on = header.flags & flags::CONTINUE != 0;
            if header.flags & flags::FINAL != 0 {
                let numbers = Numbers {
                    cmd_sn: FIRST_CMD_SN,
                    exp_stat_sn: self.exp_stat_sn,
                    max_cmd_sn: header.max_cmd_sn.get(),
                };
                return Ok((agree(options, &answers)?, numbers));
            }
            finish = !goes_on;
        }
        protocol(format!("a login that is not over after {EXCHANGES_MAX} requests"))
    }

    fn send(&mut self, text: &[u8], finish: bool) -> Result<()> {
        let bits = if finish { flags::FINAL | STAGES } else { STAGES & !3 };
        let mut header = Request::new(request::LOGIN | request::IMMEDIATE, bits);
        header.set_data_bytes(text.len() as u32);
        header.lun[..6].copy_from_slice(&self.isid);
        header.itt = U32::new(LOGIN_TAG);
        header.cmd_sn = U32::new(FIRST_CMD_SN);
        header.exp_stat_sn = U32::new(self.exp_stat_sn);
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(text);
        bytes.resize(bytes.len() + padding(text.len() as u32) as usize, 0);
        self.stream.set_write_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.write_all(&bytes).map_err(late)
    }

    fn receive(&mut self) -> Result<(Answer, Vec<u8>)> {
        let mut header = Answer::new_zeroed();
        self.read(header.as_mut_bytes())?;
        let length = header.data_bytes();
        if header.opcode != answer::LOGIN || header.ahs_words != 0 || length > TEXT_BYTES_MAX {
            let opcode = header.opcode;
            return protocol(format!("opcode {opcode:#04x} with {length} bytes of data during login"));
        }
        let mut text = vec![0; (length + padding(length)) as usize];
        self.read(&mut text)?;
        text.truncate(length as usize);
        Ok((header, text))
    }

    fn read(&self, buffer: &mut [u8]) -> Result<()> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.read_exact(buffer).map_err(late)
    }

    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ClientError::Timeout("the login")) } else { Ok(left) }
    }

    fn check(&mut self, header: &Answer, first: bool) -> Result<()> {
        let [class, detail, ..] = header.sn.to_bytes();
        if class != 0 {
            return Err(ClientError::Login { class, detail });
        }
        let stages = header.flags & 0xF;
        let transits = header.flags & flags::FINAL != 0;
        let goes_on = header.flags & flags::CONTINUE != 0;
        if stages >> 2 != STAGES >> 2 || (transits && (stages != STAGES || goes_on)) {
            return protocol(format!("a login response with flags {:#04x}", header.flags));
        }
        if header.status != 0 || header.itt.get() != LOGIN_TAG || header.lun[..6] != self.isid {
            return protocol("a login response with another version, ITT or ISID");
        }
        let tsih = u16::from_be_bytes([header.lun[6], header.lun[7]]);
        if transits && tsih == 0 {
            return protocol("a session without a TSIH");
        }
        if !first && header.stat_sn.get() != self.exp_stat_sn {
            return protocol(format!("StatSN {} where {} is next", header.stat_sn, self.exp_stat_sn));
        }
        self.exp_stat_sn = header.stat_sn.get().wrapping_add(1);
        Ok(())
    }
}

/// A socket that gave up is a target that did not answer.
fn late(error: std::io::Error) -> ClientError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Timeout("the login"),
        ErrorKind::UnexpectedEof => ClientError::Closed,
        _ => error.into(),
    }
}

fn yes(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

fn digest(wanted: bool) -> &'static str {
    if wanted { "CRC32C" } else { "None" }
}

/// The keys this initiator sends, all in the first request.
fn offer(options: &InitiatorOptions) -> Vec<u8> {
    let mut text = Text::default();
    text.put("InitiatorName", &options.initiator);
    text.put("SessionType", "Normal");
    text.put("TargetName", &options.target);
    text.put("HeaderDigest", digest(options.digests.header));
    text.put("DataDigest", digest(options.digests.data));
    text.put("InitialR2T", yes(options.initial_r2t));
    text.put("ImmediateData", yes(options.immediate_data));
    text.put("MaxRecvDataSegmentLength", options.data_segment_bytes);
    text.put("MaxBurstLength", options.max_burst_bytes);
    text.put("FirstBurstLength", options.first_burst_bytes);
    for (key, value) in [
        ("MaxConnections", 1),
        ("MaxOutstandingR2T", 1),
        ("ErrorRecoveryLevel", 0),
        ("DefaultTime2Wait", 2),
        ("DefaultTime2Retain", 0),
    ] {
        text.put(key, value);
    }
    text.put("DataPDUInOrder", "Yes");
    text.put("DataSequenceInOrder", "Yes");
    text.into_bytes()
}

/// Makes of the target's answers what both must keep to. Keys it leaves out have their default where the offer
/// allows that (section 13).
fn agree(options: &InitiatorOptions, answers: &[u8]) -> Result<Agreed> {
    let mut agreed = Agreed {
        digests: options.digests,
        initial_r2t: true,
        immediate_data: options.immediate_data,
        first_burst_bytes: options.first_burst_bytes.min(65_536),
        max_burst_bytes: options.max_burst_bytes.min(262_144),
        data_segment_bytes: DATA_SEGMENT_DEFAULT,
    };
    let mut seen: Vec<&str> = Vec::new();
    for (key, value) in Text::parse(answers)? {
        if seen.contains(&key) {
            return protocol(format!("the key {key} twice"));
        }
        seen.push(key);
        agreed.take(options, key, value)?;
    }
    let wants_digest = options.digests != Digests::NONE;
    if wants_digest && !(seen.contains(&"HeaderDigest") && seen.contains(&"DataDigest")) {
        return Err(ClientError::Setup("the target did not answer the offer of digests".into()));
    }
    agreed.first_burst_bytes = agreed.first_burst_bytes.min(agreed.max_burst_bytes);
    Ok(agreed)
}

impl Agreed {
    /// Takes the target's answer, or declaration, of `key`.
    fn take(&mut self, options: &InitiatorOptions, key: &str, value: &str) -> Result<()> {
        let refusal = || ClientError::Protocol(format!("{key}={value}"));
        let wrong = || Err(refusal());
        let number = |low: u32, high: u32| match value.parse::<u32>() {
            Ok(number) if (low..=high).contains(&number) => Ok(number),
            _ => Err(refusal()),
        };
        let flag = || match value {
            "Yes" => Ok(true),
            "No" => Ok(false),
            _ => Err(refusal()),
        };
        match key {
            "HeaderDigest" => check_digest(key, options.digests.header, value)?,
            "DataDigest" => check_digest(key, options.digests.data, value)?,
            "InitialR2T" => self.initial_r2t = flag()? || options.initial_r2t,
            "ImmediateData" => self.immediate_data = flag()? && options.immediate_data,
            "MaxRecvDataSegmentLength" => self.data_segment_bytes = number(512, (1 << 24) - 1)?,
            "MaxBurstLength" => self.max_burst_bytes = number(512, options.max_burst_bytes)?,
            "FirstBurstLength" => self.first_burst_bytes = number(512, options.first_burst_bytes)?,
            "MaxConnections" | "MaxOutstandingR2T" => _ = number(1, 1)?,
            "ErrorRecoveryLevel" => _ = number(0, 0)?,
            "DefaultTime2Wait" => _ = number(2, 3600)?,
            "DefaultTime2Retain" => _ = number(0, 0)?,
            "DataPDUInOrder" | "DataSequenceInOrder" if !flag()? => return wrong(),
            "DataPDUInOrder" | "DataSequenceInOrder" => {}
            "TargetPortalGroupTag" => _ = number(0, 65_535)?,
            "TargetAlias" | "TargetAddress" => {}
            _ => return protocol(format!("the key {key}, which was not offered")),
        }
        Ok(())
    }
}

/// Checks the answer to the offer of one digest, or of none.
fn check_digest(key: &str, wanted: bool, value: &str) -> Result<()> {
    match value {
        _ if value == digest(wanted) => Ok(()),
        "None" | "Reject" => Err(ClientError::Setup(format!("the target does not agree to {key}=CRC32C"))),
        _ => protocol(format!("{key}={value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> InitiatorOptions {
        InitiatorOptions::new("127.0.0.1:3260", "iqn.2026-01.test:fake")
    }

    fn answers(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut text = Text::default();
        pairs.iter().for_each(|(key, value)| text.put(key, value));
        text.into_bytes()
    }

    #[test]
    fn what_is_not_answered_has_its_default() {
        let agreed = agree(&options(), &answers(&[("TargetPortalGroupTag", "1")])).unwrap();
        assert_eq!(agreed.digests, Digests::NONE);
        assert!(agreed.initial_r2t && agreed.immediate_data);
        assert_eq!((agreed.first_burst_bytes, agreed.max_burst_bytes), (65_536, 262_144));
        assert_eq!(agreed.data_segment_bytes, 8192);
    }

    #[test]
    fn the_targets_answers_are_the_result() {
        let pairs = [
            ("InitialR2T", "No"),
            ("ImmediateData", "No"),
            ("MaxRecvDataSegmentLength", "65536"),
            ("FirstBurstLength", "8192"),
            ("MaxBurstLength", "131072"),
        ];
        let agreed = agree(&options(), &answers(&pairs)).unwrap();
        assert!(!agreed.initial_r2t && !agreed.immediate_data);
        assert_eq!((agreed.first_burst_bytes, agreed.max_burst_bytes), (8192, 131_072));
        assert_eq!(agreed.data_segment_bytes, 65_536);
    }

    #[test]
    fn answers_that_no_offer_allows_are_refused() {
        for pair in [
            ("HeaderDigest", "CRC32C"),
            ("MaxBurstLength", "16777215"),
            ("MaxBurstLength", "511"),
            ("ErrorRecoveryLevel", "2"),
            ("MaxConnections", "4"),
            ("ImmediateData", "maybe"),
            ("DataPDUInOrder", "No"),
            ("IFMarker", "No"),
        ] {
            let error = agree(&options(), &answers(&[pair])).unwrap_err();
            assert!(matches!(error, ClientError::Protocol(_)), "{pair:?}: {error}");
        }
        let twice = answers(&[("MaxConnections", "1"), ("MaxConnections", "1")]);
        assert!(agree(&options(), &twice).is_err());
    }

    #[test]
    fn a_digest_asked_for_must_be_granted() {
        let asked = InitiatorOptions { digests: Digests::BOTH, ..options() };
        assert!(agree(&asked, &answers(&[])).is_err());
        let none = answers(&[("HeaderDigest", "None"), ("DataDigest", "CRC32C")]);
        assert!(matches!(agree(&asked, &none), Err(ClientError::Setup(_))));
        let both = answers(&[("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")]);
        assert_eq!(agree(&asked, &both).unwrap().digests, Digests::BOTH);
    }
}

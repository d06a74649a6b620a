//! The operational keys (RFC 7143, section 13).

use crate::limits::{BURST_BYTES_MAX, FIRST_BURST_BYTES_MAX, R2TS_MAX, RECV_SEGMENT_BYTES};
use crate::wire::LoginStatus;
use crate::wire::text;

/// How initiator and target talk in the full feature phase. The values before any agreement are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Headers have a digest.
    pub header_digest: bool,
    /// Data have a digest.
    pub data_digest: bool,
    /// No unsolicited Data-Out.
    pub initial_r2t: bool,
    /// Commands may bring data.
    pub immediate_data: bool,
    /// The initiator's MaxRecvDataSegmentLength, bytes.
    pub send_segment_bytes: u32,
    /// MaxBurstLength, bytes.
    pub burst_bytes: u32,
    /// FirstBurstLength, bytes.
    pub first_burst_bytes: u32,
    /// MaxOutstandingR2T.
    pub r2ts: u32,
    /// DefaultTime2Wait, seconds.
    pub time_to_wait: u16,
    /// DefaultTime2Retain, seconds.
    pub time_to_retain: u16,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            initial_r2t: true,
            immediate_data: true,
            send_segment_bytes: 8192,
            burst_bytes: 256 << 10,
            first_burst_bytes: 64 << 10,
            r2ts: 1,
            time_to_wait: 2,
            time_to_retain: 20,
        }
    }
}

/// Seconds that this target wants an initiator to wait before it comes back.
const TIME_TO_WAIT: u32 = 2;
/// The range of lengths of data (section 13.12 and others), bytes.
const LENGTHS: std::ops::RangeInclusive<u32> = 512..=(1 << 24) - 1;
const REJECT: &str = "Reject";

impl Parameters {
    /// Deals with one key: its answer goes to `out`.
    ///
    /// # Errors
    /// Where the key may not come from an initiator in login, or its value is none that can be answered.
    pub fn negotiate(
        &mut self,
        key: &str,
        value: &str,
        discovery: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), LoginStatus> {
        if key == "MaxRecvDataSegmentLength" {
            let bytes = text::number(value).filter(|bytes| LENGTHS.contains(bytes));
            self.send_segment_bytes = bytes.ok_or(LoginStatus::InitiatorError)?;
            return Ok(());
        }
        // Answers to what this target declared.
        if matches!(value, "NotUnderstood" | "Irrelevant" | "Reject") {
            return Ok(());
        }
        if matches!(
            key,
            "TargetPortalGroupTag" | "TargetAlias" | "TargetAddress" | "SendTargets" | "AuthMethod"
        ) || key.starts_with("CHAP_")
        {
            return Err(LoginStatus::InitiatorError);
        }
        let answer = if discovery && is_of_normal_sessions(key) {
            "Irrelevant".to_owned()
        } else {
            self.agree(key, value).unwrap_or_else(|| REJECT.to_owned())
        };
        text::push(out, key, &answer);
        Ok(())
    }

    /// The answer to a key, which is in force from then on; `None` where the value is out of range.
    fn agree(&mut self, key: &str, value: &str) -> Option<String> {
        match key {
            "HeaderDigest" => digest(&mut self.header_digest, value),
            "DataDigest" => digest(&mut self.data_digest, value),
            "MaxConnections" => least(value, 1..=65535, 1).map(|n| n.to_string()),
            "InitialR2T" => {
                self.initial_r2t = boolean(value)?;
                Some(yes_or_no(self.initial_r2t))
            }
            "ImmediateData" => {
                self.immediate_data = boolean(value)?;
                Some(yes_or_no(self.immediate_data))
            }
            "MaxBurstLength" => {
                self.burst_bytes = least(value, LENGTHS, BURST_BYTES_MAX)?;
                Some(self.burst_bytes.to_string())
            }
            "FirstBurstLength" => {
                self.first_burst_bytes = least(value, LENGTHS, FIRST_BURST_BYTES_MAX)?;
                Some(self.first_burst_bytes.to_string())
            }
            "MaxOutstandingR2T" => {
                self.r2ts = least(value, 1..=65535, R2TS_MAX)?;
                Some(self.r2ts.to_string())
            }
            "DefaultTime2Wait" => {
                let seconds = text::number(value).filter(|seconds| *seconds <= 3600)?;
                self.time_to_wait = seconds.max(TIME_TO_WAIT) as u16;
                Some(self.time_to_wait.to_string())
            }
            "DefaultTime2Retain" => {
                self.time_to_retain = least(value, 0..=3600, 20)? as u16;
                Some(self.time_to_retain.to_string())
            }
            "ErrorRecoveryLevel" => least(value, 0..=2, 0).map(|n| n.to_string()),
            "DataPDUInOrder" | "DataSequenceInOrder" => boolean(value).map(|_| yes_or_no(true)),
            "IFMarker" | "OFMarker" => Some(yes_or_no(false)),
            "IFMarkInt" | "OFMarkInt" => Some("Irrelevant".to_owned()),
            _ => Some("NotUnderstood".to_owned()),
        }
    }

    /// What the target declares of itself.
    pub fn declare(&self, out: &mut Vec<u8>) {
        text::push(out, "MaxRecvDataSegmentLength", &RECV_SEGMENT_BYTES.to_string());
    }

    /// The values in force.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { first_burst_bytes: self.first_burst_bytes.min(self.burst_bytes), ..*self }
    }
}

/// Section 13: keys that a discovery session has no use for.
fn is_of_normal_sessions(key: &str) -> bool {
    matches!(
        key,
        "MaxConnections"
            | "InitialR2T"
            | "ImmediateData"
            | "MaxBurstLength"
            | "FirstBurstLength"
            | "MaxOutstandingR2T"
            | "DataPDUInOrder"
            | "DataSequenceInOrder"
    )
}

fn least(value: &str, range: std::ops::RangeInclusive<u32>, ours: u32) -> Option<u32> {
    text::number(value).filter(|number| range.contains(number)).map(|number| number.min(ours))
}

fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

fn yes_or_no(value: bool) -> String {
    if value { "Yes" } else { "No" }.to_owned()
}

/// Takes the first of a list of digests that is known here.
fn digest(on: &mut bool, list: &str) -> Option<String> {
    let chosen = list.split(',').find(|name| matches!(*name, "CRC32C" | "None"))?;
    *on = chosen == "CRC32C";
    Some(chosen.to_owned())
}

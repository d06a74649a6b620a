//! Reservations through the whole device server.

mod attentions;
mod cluster;
mod suite;
mod unit;

use ashlar_env::Volume;
use ashlar_env::volume::Operation;

use crate::scsi::testing::bench::{CONFLICT, verdict};
use crate::scsi::testing::{Bench, Host, block_on};

/// Service actions of PERSISTENT RESERVE OUT.
pub const REGISTER: u8 = 0x00;
pub const RESERVE: u8 = 0x01;
pub const RELEASE: u8 = 0x02;
pub const CLEAR: u8 = 0x03;
pub const PREEMPT: u8 = 0x04;
pub const PREEMPT_AND_ABORT: u8 = 0x05;
pub const REGISTER_AND_IGNORE: u8 = 0x06;

/// Types, as SCSI has them.
pub const TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];
/// Write Exclusive, Registrants Only: what failover clusters use.
pub const WE_RO: u8 = 5;

/// What became of a command: nothing where GOOD.
pub type Verdict = Option<(u8, u8, u8)>;

impl Bench {
    /// PERSISTENT RESERVE OUT to unit 1.
    pub fn out(&self, host: &Host, action: u8, kind: u8, key: u64, second: u64) -> Verdict {
        self.out_flagged(host, action, kind, key, second, 0)
    }

    pub fn out_flagged(
        &self,
        host: &Host,
        action: u8,
        kind: u8,
        key: u64,
        second: u64,
        flags: u8,
    ) -> Verdict {
        let mut list = [key.to_be_bytes(), second.to_be_bytes(), [0; 8]].concat();
        list[20] = flags;
        verdict(&self.send(host, 1, &[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], &list))
    }

    /// PERSISTENT RESERVE IN of unit 1.
    pub fn read(&self, host: &Host, action: u8, allocation: u16) -> Result<Vec<u8>, Verdict> {
        let [high, low] = allocation.to_be_bytes();
        let answer = self.send(host, 1, &[0x5E, action, 0, 0, 0, 0, 0, high, low, 0], &[]);
        match verdict(&answer) {
            None => Ok(answer.data.gather().to_vec()),
            why => Err(why),
        }
    }

    /// PRGENERATION and the keys registered.
    pub fn keys(&self, host: &Host) -> (u32, Vec<u64>) {
        let bytes = self.read(host, 0, 0x4000).unwrap();
        let generation = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        let keys = bytes[8..].chunks(8).map(|key| u64::from_be_bytes(key.try_into().unwrap()));
        (generation, keys.collect())
    }

    /// Key and type of the reservation.
    pub fn held(&self, host: &Host) -> Option<(u64, u8)> {
        let bytes = self.read(host, 1, 0x4000).unwrap();
        (bytes.len() > 8).then(|| (u64::from_be_bytes(bytes[8..16].try_into().unwrap()), bytes[21]))
    }

    /// READ (10) of a block of unit 1.
    pub fn try_read(&self, host: &Host) -> Verdict {
        verdict(&self.send(host, 1, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[]))
    }

    /// WRITE (10) of a block of unit 1.
    pub fn try_write(&self, host: &Host) -> Verdict {
        verdict(&self.send(host, 1, &[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0x5A; 512]))
    }
}

/// An operation of an NVMe host on unit 1.
pub fn nvme(bench: &Bench, host: u8, operation: Operation) -> Result<(), ashlar_env::VolumeError> {
    block_on(bench.stores[0].execute(crate::scsi::testing::issuer(host), operation)).map(drop)
}

/// Whether it may: nothing, or a conflict.
pub fn may(allowed: bool) -> Verdict {
    if allowed { None } else { CONFLICT }
}

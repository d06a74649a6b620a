//! ROD tokens (SPC-4, section 5.16.6; SBC-3, section 6.6.10), and those that are valid now.
//!
//! A token stands for blocks of a unit as they are when they are copied (access upon reference): nothing is kept for
//! it, and what is written to the source meanwhile is copied, too. It is 512 bytes, of which 384 are random.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use ashlar_env::Instant;
use ashlar_env::units::{BlockRange, VolumeId};
use ashlar_env::volume::VolumeInfo;

use crate::scsi::copy::list::CSCD_BY_DESIGNATOR;
use crate::scsi::copy::world::World;
use crate::scsi::sense::{Asc, Failure, Sense};
use crate::scsi::{lock, vpd};

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 512;
/// ROD TYPE: access upon reference.
pub const ACCESS_UPON_REFERENCE: u32 = 0x0001_0000;
/// ROD TYPE: the token of a device of zeros, which anybody can make.
pub const ZEROS: u32 = 0xFFFF_0001;
/// ROD TOKEN LENGTH: bytes that follow it.
const LENGTH: u16 = (TOKEN_BYTES - 8) as u16;
/// Where the random bytes begin.
const SECRET: usize = 128;

/// How many tokens a nexus may have; making one more revokes its oldest.
pub const OF_NEXUS_MAX: usize = 64;
/// How many tokens there may be on a node.
pub const TOKENS_MAX: usize = 1024;

/// The bytes of a token.
pub type Token = [u8; TOKEN_BYTES];

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rod {
    /// The volume.
    pub volume: VolumeId,
    /// Its blocks, in order; none of them empty.
    pub ranges: Box<[BlockRange]>,
}

#[derive(Debug)]
struct Entry {
    token: Box<Token>,
    rod: Rod,
    /// The nexus that made it.
    session: u64,
    timeout: Duration,
    used: Instant,
}

/// The tokens of a node.
#[derive(Debug, Default)]
pub struct Tokens {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: BTreeMap<u64, Entry>,
    made: u64,
}

/// What a token that a host sends is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// blocks of a unit
    Blocks(Rod),
    /// zeros without end
    Zeros,
}

const fn refused(qualifier: u8) -> Failure {
    Failure::Check(Sense::illegal(Asc(0x23, qualifier)))
}

/// INVALID TOKEN OPERATION, UNSUPPORTED TOKEN TYPE.
const UNSUPPORTED: Failure = refused(0x01);
/// INVALID TOKEN OPERATION, TOKEN UNKNOWN.
pub const UNKNOWN: Failure = refused(0x04);
/// INVALID TOKEN OPERATION, TOKEN CORRUPT.
const CORRUPT: Failure = refused(0x05);
/// INVALID TOKEN OPERATION, TOKEN REVOKED.
pub const REVOKED: Failure = refused(0x06);
/// INVALID TOKEN OPERATION, TOKEN EXPIRED.
const EXPIRED: Failure = refused(0x07);
/// INVALID TOKEN OPERATION, INVALID TOKEN LENGTH.
const WRONG_LENGTH: Failure = refused(0x0A);

impl Tokens {
    /// Makes a token.
    ///
    /// # Errors
    /// INSUFFICIENT RESOURCES TO CREATE ROD TOKEN.
    pub fn make(
        &self,
        world: &World,
        session: u64,
        info: &VolumeInfo,
        ranges: Box<[BlockRange]>,
        timeout: Duration,
    ) -> Result<Box<Token>, Failure> {
        let now = world.now();
        let mut table = lock(&self.table);
        table.make_room(session, now)?;
        table.made += 1;
        let id = table.made;
        let token = write(world, id, info, &ranges);
        let rod = Rod { volume: info.id, ranges };
        table.by_id.insert(id, Entry { token: token.clone(), rod, session, timeout, used: now });
        Ok(token)
    }

    /// What a token stands for. Using it keeps it from expiring; where `delete` is set, it is used for the last time.
    ///
    /// # Errors
    /// INVALID TOKEN OPERATION, with why.
    pub fn find(&self, token: &Token, now: Instant, delete: bool) -> Result<Found, Failure> {
        let kind = u32::from_be_bytes([token[0], token[1], token[2], token[3]]);
        if u16::from_be_bytes([token[6], token[7]]) != LENGTH {
            return Err(WRONG_LENGTH);
        }
        match kind {
            ZEROS => return Ok(Found::Zeros),
            ACCESS_UPON_REFERENCE => {}
            _ => return Err(UNSUPPORTED),
        }
        let id = token[8..16].iter().fold(0, |id, &byte| id << 8 | u64::from(byte));
        let mut table = lock(&self.table);
        let made = table.made;
        let Some(entry) = table.by_id.get_mut(&id) else {
            // Numbers are no secret: one that was given out once is known to be gone.
            return Err(if (1..=made).contains(&id) { REVOKED } else { UNKNOWN });
        };
        if !same(&entry.token, token) {
            return Err(CORRUPT);
        }
        if entry.is_expired(now) {
            table.by_id.remove(&id);
            return Err(EXPIRED);
        }
        entry.used = now;
        let rod = entry.rod.clone();
        if delete {
            table.by_id.remove(&id);
        }
        Ok(Found::Blocks(rod))
    }

    /// Revokes the tokens for a volume that is served no more.
    pub fn revoke(&self, volume: VolumeId) {
        lock(&self.table).by_id.retain(|_, entry| entry.rod.volume != volume);
    }

    /// How many tokens there are. For metrics and tests.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.table).by_id.len()
    }
}

impl Entry {
    fn is_expired(&self, now: Instant) -> bool {
        now.since(self.used) > self.timeout
    }
}

impl Table {
    fn make_room(&mut self, session: u64, now: Instant) -> Result<(), Failure> {
        let own = |table: &Self| -> Vec<u64> {
            table.by_id.iter().filter(|(_, entry)| entry.session == session).map(|(id, _)| *id).collect()
        };
        let of_session = own(self);
        if of_session.len() >= OF_NEXUS_MAX {
            self.by_id.remove(&of_session[0]);
        }
        if self.by_id.len() >= TOKENS_MAX {
            self.by_id.retain(|_, entry| !entry.is_expired(now));
        }
        if self.by_id.len() >= TOKENS_MAX {
            return Err(Sense::illegal(Asc::NO_TOKEN_RESOURCES).into());
        }
        Ok(())
    }
}

/// Compares without telling by its duration where two tokens differ.
fn same(one: &Token, other: &Token) -> bool {
    one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn write(world: &World, id: u64, info: &VolumeInfo, ranges: &[BlockRange]) -> Box<Token> {
    let mut token = Box::new([0; TOKEN_BYTES]);
    token[..4].copy_from_slice(&ACCESS_UPON_REFERENCE.to_be_bytes());
    token[6..8].copy_from_slice(&LENGTH.to_be_bytes());
    token[8..16].copy_from_slice(&id.to_be_bytes());
    // The unit, as in EXTENDED COPY: binary, NAA.
    token[16] = CSCD_BY_DESIGNATOR;
    token[20..24].copy_from_slice(&[0x01, 0x03, 0, 16]);
    token[24..40].copy_from_slice(&vpd::naa(info.id));
    token[45..48].copy_from_slice(&info.block_size.bytes().to_be_bytes()[1..]);
    let blocks: u64 = ranges.iter().map(|range| range.blocks()).sum();
    token[56..64].copy_from_slice(&(blocks << info.block_size.shift()).to_be_bytes());
    // As READ CAPACITY (16) has it, without the first field.
    token[96..100].copy_from_slice(&info.block_size.bytes().to_be_bytes());
    world.fill(&mut token[SECRET..]);
    token
}

/// The token of zeros (SBC-3, section 6.6.10.3).
#[must_use]
pub fn zeros() -> Box<Token> {
    let mut token = Box::new([0; TOKEN_BYTES]);
    token[..4].copy_from_slice(&ZEROS.to_be_bytes());
    token[6..8].copy_from_slice(&LENGTH.to_be_bytes());
    token
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use ashlar_env::Volume;
    use ashlar_env::units::{BlockSize, Lba};

    use super::*;
    use crate::scsi::testing::Store;

    /// A world whose time is set by hand.
    fn world() -> (World, Rc<Cell<u64>>) {
        let now = Rc::new(Cell::new(0));
        let (clock, dice) = (Rc::clone(&now), Cell::new(1_u64));
        let random = move || {
            dice.set(dice.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            dice.get()
        };
        (World::new(move || Instant(clock.get()), random, |_| panic!("no tasks here")), now)
    }

    fn info() -> VolumeInfo {
        Store::new(9, BlockSize::B512, 64).info()
    }

    fn ranges() -> Box<[BlockRange]> {
        Box::from([BlockRange::new(Lba(3), 5).unwrap()])
    }

    #[test]
    fn a_token_is_found_until_it_expires() {
        let (world, now) = world();
        let tokens = Tokens::default();
        let token = tokens.make(&world, 1, &info(), ranges(), Duration::from_secs(10)).unwrap();
        let rod = Rod { volume: info().id, ranges: ranges() };
        for second in [0, 9, 18] {
            now.set(second * 1_000_000_000);
            assert_eq!(tokens.find(&token, world.now(), false), Ok(Found::Blocks(rod.clone())));
        }
        now.set(29 * 1_000_000_000);
        assert_eq!(tokens.find(&token, world.now(), false), Err(EXPIRED));
        assert_eq!(tokens.find(&token, world.now(), false), Err(REVOKED));
        let last = tokens.make(&world, 1, &info(), ranges(), Duration::from_secs(10)).unwrap();
        assert_eq!(tokens.find(&last, world.now(), true), Ok(Found::Blocks(rod)));
        assert_eq!(tokens.find(&last, world.now(), true), Err(REVOKED));
    }

    #[test]
    fn every_forged_byte_is_noticed() {
        let (world, _) = world();
        let tokens = Tokens::default();
        let token = tokens.make(&world, 1, &info(), ranges(), Duration::from_secs(10)).unwrap();
        for at in 0..TOKEN_BYTES {
            let mut forged = token.clone();
            forged[at] ^= 1;
            let want = match at {
                0..4 => UNSUPPORTED,
                6 | 7 => WRONG_LENGTH,
                8..15 => UNKNOWN,
                // There never was a token 0.
                15 => UNKNOWN,
                _ => CORRUPT,
            };
            assert_eq!(tokens.find(&forged, world.now(), false), Err(want), "{at}");
        }
        assert!(tokens.find(&token, world.now(), false).is_ok());
        assert_eq!(tokens.find(&zeros(), world.now(), false), Ok(Found::Zeros));
        assert_eq!(tokens.find(&[0; TOKEN_BYTES], world.now(), false), Err(WRONG_LENGTH));
    }

    #[test]
    fn no_two_are_alike_and_their_number_is_bounded() {
        let (world, now) = world();
        let tokens = Tokens::default();
        let make = |session| tokens.make(&world, session, &info(), ranges(), Duration::from_secs(10));
        let (first, second) = (make(0).unwrap(), make(0).unwrap());
        assert!(
            first[SECRET..] != second[SECRET..] && first[SECRET..].windows(64).all(|part| part != [0; 64])
        );
        for _ in 0..OF_NEXUS_MAX {
            make(0).unwrap();
        }
        assert_eq!(tokens.count(), OF_NEXUS_MAX);
        assert_eq!(tokens.find(&first, world.now(), false), Err(REVOKED));
        for session in 1..(TOKENS_MAX / OF_NEXUS_MAX) as u64 {
            (0..OF_NEXUS_MAX).for_each(|_| drop(make(session).unwrap()));
        }
        assert_eq!(tokens.count(), TOKENS_MAX);
        assert_eq!(make(99).unwrap_err(), Sense::illegal(Asc::NO_TOKEN_RESOURCES).into());
        now.set(11 * 1_000_000_000);
        make(99).unwrap();
        assert_eq!(tokens.count(), 1);
        tokens.revoke(info().id);
        assert_eq!(tokens.count(), 0);
    }
}

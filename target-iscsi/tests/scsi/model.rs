//! Random commands against a list of bytes that does the same.

use ashlar_env::units::BlockSize;
use ashlar_iscsi::scsi::Status;
use proptest::prelude::*;

use crate::world::{World, cdb_16, info};

const BLOCKS: u64 = 64;

#[derive(Clone, Debug)]
enum Act {
    Read(u64, u32),
    Write(u64, u32, u8),
    CompareAndWrite(u64, u8, u8, u8),
    Or(u64, u32, u8),
    Same(u64, u32, u8),
    Unmap(Vec<(u64, u32)>),
    Verify(u64, u32, u8),
}

fn acts() -> impl Strategy<Value = Act> {
    // Ranges that reach beyond the end now and then.
    let range = || (0..BLOCKS + 2, 0..10_u32);
    let byte = || prop_oneof![2 => Just(0_u8), 3 => 0..4_u8];
    prop_oneof![
        range().prop_map(|(lba, blocks)| Act::Read(lba, blocks)),
        (range(), byte()).prop_map(|((lba, blocks), byte)| Act::Write(lba, blocks, byte)),
        (0..BLOCKS + 2, 0..4_u8, byte(), byte())
            .prop_map(|(lba, n, old, new)| Act::CompareAndWrite(lba, n, old, new)),
        (range(), byte()).prop_map(|((lba, blocks), byte)| Act::Or(lba, blocks, byte)),
        (range(), byte()).prop_map(|((lba, blocks), byte)| Act::Same(lba, blocks, byte)),
        proptest::collection::vec(range(), 0..4).prop_map(Act::Unmap),
        (range(), byte()).prop_map(|((lba, blocks), byte)| Act::Verify(lba, blocks, byte)),
    ]
}

/// What the command should come to: its status (or sense key), and the bytes afterwards.
struct Model {
    bytes: Vec<u8>,
    size: usize,
}

/// GOOD is 0, a sense key is itself.
type Ending = u8;

impl Model {
    fn range(&self, lba: u64, blocks: u64) -> Option<std::ops::Range<usize>> {
        let end = lba.checked_add(blocks).filter(|end| *end <= BLOCKS)?;
        Some(lba as usize * self.size..end as usize * self.size)
    }

    fn fill(&mut self, lba: u64, blocks: u64, change: impl Fn(u8) -> u8) -> Ending {
        let Some(range) = self.range(lba, blocks) else { return 5 };
        self.bytes[range].iter_mut().for_each(|byte| *byte = change(*byte));
        0
    }

    fn apply(&mut self, act: &Act) -> Ending {
        match *act {
            Act::Read(lba, blocks) => self.fill(lba, blocks.into(), |byte| byte),
            Act::Write(lba, blocks, byte) => self.fill(lba, blocks.into(), |_| byte),
            Act::Or(lba, blocks, bits) => self.fill(lba, blocks.into(), |byte| byte | bits),
            Act::Same(_, 0, _) => 5,
            Act::Same(lba, blocks, byte) => self.fill(lba, blocks.into(), |_| byte),
            Act::Unmap(ref ranges) => {
                if ranges.iter().any(|(lba, blocks)| self.range(*lba, (*blocks).into()).is_none()) {
                    return 5;
                }
                ranges.iter().for_each(|(lba, blocks)| {
                    self.fill(*lba, (*blocks).into(), |_| 0);
                });
                0
            }
            Act::Verify(lba, blocks, byte) => match self.range(lba, blocks.into()) {
                None => 5,
                Some(range) if self.bytes[range.clone()].iter().all(|it| *it == byte) => 0,
                Some(_) => 0xE,
            },
            Act::CompareAndWrite(lba, blocks, old, new) => match self.range(lba, blocks.into()) {
                None => 5,
                Some(range) if self.bytes[range.clone()].iter().all(|it| *it == old) => {
                    self.bytes[range].fill(new);
                    0
                }
                Some(_) => 0xE,
            },
        }
    }
}

fn perform(world: &World, size: usize, act: &Act) -> (Ending, Vec<u8>) {
    let fill = |blocks: u32, byte: u8| vec![byte; blocks as usize * size];
    let (cdb, out) = match *act {
        Act::Read(lba, blocks) => (cdb_16(0x88, lba, blocks).to_vec(), vec![]),
        Act::Write(lba, blocks, byte) => (cdb_16(0x8A, lba, blocks).to_vec(), fill(blocks, byte)),
        Act::Or(lba, blocks, byte) => (cdb_16(0x8B, lba, blocks).to_vec(), fill(blocks, byte)),
        Act::Same(lba, blocks, byte) => (cdb_16(0x93, lba, blocks).to_vec(), fill(1, byte)),
        Act::Verify(lba, blocks, byte) => {
            let mut cdb = cdb_16(0x8F, lba, blocks).to_vec();
            cdb[1] = 0x02;
            (cdb, fill(blocks, byte))
        }
        Act::CompareAndWrite(lba, blocks, old, new) => {
            let mut cdb = cdb_16(0x89, lba, 0).to_vec();
            cdb[13] = blocks;
            (cdb, [fill(blocks.into(), old), fill(blocks.into(), new)].concat())
        }
        Act::Unmap(ref ranges) => {
            let len = ranges.len() as u16 * 16;
            let mut list = [(len + 6).to_be_bytes(), len.to_be_bytes(), [0; 2], [0; 2]].concat();
            for (lba, blocks) in ranges {
                list.extend(lba.to_be_bytes());
                list.extend(blocks.to_be_bytes());
                list.extend([0; 4]);
            }
            let [high, low] = (list.len() as u16).to_be_bytes();
            (vec![0x42, 0, 0, 0, 0, 0, 0, high, low, 0], list)
        }
    };
    let answer = world.run(&cdb, &out);
    let ending = if answer.status == Status::Good { 0 } else { answer.sense.as_ref().unwrap()[2] };
    (ending, answer.data.gather().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_unit_is_what_the_commands_made_it(acts in proptest::collection::vec(acts(), 1..40), large in any::<bool>()) {
        let size = if large { BlockSize::B4096 } else { BlockSize::B512 };
        let world = World::new(info(size, BLOCKS));
        let mut model = Model { bytes: world.memory.bytes(), size: size.bytes() as usize };
        for act in &acts {
            let want = model.apply(act);
            let (ending, data) = perform(&world, model.size, act);
            prop_assert_eq!(ending, want, "{:?}", act);
            if let (Act::Read(lba, blocks), 0) = (act, ending) {
                let range = model.range(*lba, (*blocks).into()).unwrap();
                prop_assert_eq!(&data[..], &model.bytes[range]);
            }
            prop_assert!(world.memory.bytes() == model.bytes, "{:?}", act);
        }
    }
}

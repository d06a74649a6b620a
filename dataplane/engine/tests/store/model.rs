//! What a store has been asked and has acknowledged, and what it may therefore show after a crash.

use std::collections::BTreeMap;

use ashlar_engine::chunks::{Chunk, Chunks, Seal, StoreError};
use ashlar_engine::ids::{ChunkId, Epoch, GroupId, LaneId, SegmentId, SegmentKind};
use ashlar_engine::store::ChunkStore;
use ashlar_env::{Disk, Env};

/// The chunk of a group's segment.
pub fn id(group: u64, segment: u32) -> ChunkId {
    let lane = LaneId { group: GroupId(group), lane: 0 };
    ChunkId { lane, segment: SegmentId(segment), kind: SegmentKind::Log, shard: 0 }
}

/// The byte at `at` of what is written to a chunk: all chunks and granules differ.
fn byte(id: ChunkId, life: u64, at: u32) -> u8 {
    let seed = id.lane.group.0 * 31 + u64::from(id.segment.0) * 7 + life * 131 + u64::from(at / 512) * 17;
    (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// Fills what is written to a chunk from `at`.
pub fn fill(id: ChunkId, life: u64, at: u32, bytes: &mut [u8]) {
    for (offset, to) in (at..).zip(bytes) {
        *to = byte(id, life, offset);
    }
}

/// A wish, and whether it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish<T> {
    None,
    Asked(T),
    Granted(T),
}

#[derive(Clone, Debug)]
struct Known {
    epoch: u64,
    /// Tells two chunks of one name apart that lived one after the other.
    life: u64,
    created: Wish<()>,
    /// Acknowledged appends by offset.
    appended: BTreeMap<u32, u32>,
    sealed: Wish<Seal>,
    deleted: Wish<()>,
}

/// All that is known.
#[derive(Clone, Default)]
pub struct Model {
    chunks: BTreeMap<ChunkId, Known>,
    fences: BTreeMap<u64, (u64, u64)>,
    lives: u64,
    /// Acknowledgements that a crash was held against.
    pub checked: u64,
}

impl Model {
    pub fn create(&mut self, id: ChunkId, epoch: u64) -> u64 {
        self.lives += 1;
        let known = Known {
            epoch,
            life: self.lives,
            created: Wish::Asked(()),
            appended: BTreeMap::new(),
            sealed: Wish::None,
            deleted: Wish::None,
        };
        self.chunks.insert(id, known);
        self.lives
    }

    fn known(&mut self, id: ChunkId) -> &mut Known {
        self.chunks.get_mut(&id).expect("the model knows the chunk")
    }

    pub fn created(&mut self, id: ChunkId) {
        self.known(id).created = Wish::Granted(());
    }

    pub fn appended(&mut self, id: ChunkId, at: u32, len: u32) {
        self.known(id).appended.insert(at, len);
    }

    pub fn seal(&mut self, id: ChunkId, seal: Seal) {
        self.known(id).sealed = Wish::Asked(seal);
    }

    pub fn sealed(&mut self, id: ChunkId, seal: Seal) {
        self.known(id).sealed = Wish::Granted(seal);
    }

    pub fn delete(&mut self, id: ChunkId) {
        self.known(id).deleted = Wish::Asked(());
    }

    pub fn deleted(&mut self, id: ChunkId) {
        self.known(id).deleted = Wish::Granted(());
    }

    pub fn fence(&mut self, group: u64, epoch: u64) {
        self.fences.entry(group).or_default().1 = epoch;
    }

    pub fn fenced(&mut self, group: u64, epoch: u64) {
        self.fences.entry(group).or_default().0 = epoch;
    }

    /// Compares a store with what it has acknowledged. What it shows is settled from then on.
    pub async fn check<E: Env, D: Disk>(&mut self, env: &E, store: &ChunkStore<E, D>) -> Result<(), String> {
        if !store.lost().is_empty() {
            return Err(format!("lost slots: {:?}", store.report()));
        }
        let found = store.list(None);
        for stat in &found {
            if !self.chunks.contains_key(&stat.id) {
                return Err(format!("{:?} was never created", stat.id));
            }
        }
        for (&id, known) in &mut self.chunks {
            match (store.open(id), known.created, known.deleted) {
                (None, Wish::Granted(()), Wish::None) => return Err(format!("{id:?} is gone")),
                (Some(_), _, Wish::Granted(())) => return Err(format!("{id:?} is back")),
                (None, ..) => known.deleted = Wish::Granted(()),
                (Some(chunk), ..) => {
                    (known.created, known.deleted) = (Wish::Granted(()), Wish::None);
                    self.checked += check_chunk(env, id, known, &chunk, store).await?;
                }
            }
        }
        self.chunks.retain(|_, known| known.deleted == Wish::None);
        let free = store.info().slots - found.len() as u32;
        if store.info().free != free {
            return Err(format!("{} slots are free and should be {free}", store.info().free));
        }
        self.check_fences(store).await
    }

    async fn check_fences<E: Env, D: Disk>(&mut self, store: &ChunkStore<E, D>) -> Result<(), String> {
        let fences: BTreeMap<u64, u64> =
            store.fences().into_iter().map(|entry| (entry.group.0, entry.epoch.0)).collect();
        for (group, (granted, asked)) in &mut self.fences {
            let fence = fences.get(group).copied().unwrap_or(0);
            if !(*granted..=*asked).contains(&fence) {
                return Err(format!("the fence of {group} is {fence}, granted {granted}, asked {asked}"));
            }
            (*granted, *asked) = (fence, fence);
            if fence > 0 {
                let ghost = store.create(id(*group, 9999), Epoch(fence - 1)).await;
                if ghost.err() != Some(StoreError::Fenced { fence }) {
                    return Err(format!("a writer below the fence of {group} was let in"));
                }
            }
            self.checked += 1;
        }
        Ok(())
    }
}

async fn check_chunk<E: Env, D: Disk>(
    env: &E,
    id: ChunkId,
    known: &mut Known,
    chunk: &<ChunkStore<E, D> as Chunks>::Chunk,
    store: &ChunkStore<E, D>,
) -> Result<u64, String> {
    let stat = store.stat(id).ok_or("a chunk without a stat")?;
    if stat.epoch != Epoch(known.epoch) {
        return Err(format!("{id:?} has epoch {:?}", stat.epoch));
    }
    match (stat.sealed, known.sealed) {
        (None, Wish::None | Wish::Asked(_)) => known.sealed = Wish::None,
        (Some(seal), Wish::Asked(asked)) if seal == asked => known.sealed = Wish::Granted(seal),
        (Some(seal), Wish::Granted(granted)) if seal == granted => {}
        (found, wish) => return Err(format!("{id:?} is sealed {found:?}, and was: {wish:?}")),
    }
    let end = stat.sealed.map_or(u32::MAX, |seal| seal.length);
    for (&at, &len) in known.appended.range(..end) {
        let len = len.min(end - at);
        let buf = env.buffers().alloc(len as usize).await;
        let data = chunk.read(at, buf).await.map_err(|error| format!("{id:?}: {error}"))?;
        let mut wanted = vec![0; len as usize];
        fill(id, known.life, at, &mut wanted);
        if data[..] != wanted[..] {
            return Err(format!("{id:?} has other data at {at}"));
        }
    }
    Ok(known.appended.len() as u64 + 2)
}

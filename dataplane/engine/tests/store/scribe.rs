//! A writer that tells the model of everything it asks of a store, before and after.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;

use ashlar_engine::chunks::{Chunk, Chunks, Seal, StoreError};
use ashlar_engine::ids::{ChunkId, Epoch, GroupId, SegmentId};
use ashlar_engine::store::{ChunkStore, LocalChunk};
use ashlar_env::Env;
use ashlar_env::buf::Buf;
use ashlar_sim::SimEnv;

use crate::model::{Model, fill};
use crate::tap::Tap;
use crate::{Boxed, join};

pub type Store = ChunkStore<SimEnv, Tap>;
pub type Handle = LocalChunk<SimEnv, Tap>;

/// The script's view of the store: every step is told to the model before and after.
#[derive(Clone)]
pub struct Scribe {
    pub env: SimEnv,
    pub store: Store,
    pub model: Rc<RefCell<Model>>,
}

impl Scribe {
    pub fn model(&self) -> RefMut<'_, Model> {
        self.model.borrow_mut()
    }

    pub async fn create(&self, id: ChunkId, epoch: u64) -> Result<(Handle, u64), StoreError> {
        let life = self.model().create(id, epoch);
        let chunk = self.store.create(id, Epoch(epoch)).await?;
        self.model().created(id);
        Ok((chunk, life))
    }

    fn data(&self, id: ChunkId, life: u64, at: u32, len: u32) -> Buf {
        let mut buf = self.env.buffers().try_alloc(len as usize).expect("the pool suffices");
        fill(id, life, at, &mut buf);
        buf.freeze()
    }

    /// Appends of these many granules each, all in flight together.
    pub async fn append(
        &self,
        (chunk, life): &(Handle, u64),
        mut at: u32,
        granules: &[u32],
    ) -> Result<u32, StoreError> {
        let (id, epoch) = (chunk.stat().id, chunk.stat().epoch);
        let mut flying: Vec<Boxed<Result<(), StoreError>>> = Vec::new();
        for granules in granules {
            let len = granules * 512;
            let data = self.data(id, *life, at, len);
            let cut = data.len() / 1024 * 512;
            let append = chunk.append(epoch, at, &[data.slice(0, cut), data.slice(cut, data.len() - cut)]);
            let scribe = self.clone();
            flying.push(Box::pin(async move {
                append.await?;
                scribe.model().appended(id, at, len);
                Ok(())
            }));
            at += len;
        }
        join(flying).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(at)
    }

    pub async fn seal(&self, it: &(Handle, u64), length: u32, next: Option<u32>) -> Result<(), StoreError> {
        self.seal_as(it.0.stat().epoch, it, length, next).await
    }

    /// Seals in the name of another writer.
    pub async fn seal_as(
        &self,
        epoch: Epoch,
        (chunk, _): &(Handle, u64),
        length: u32,
        next: Option<u32>,
    ) -> Result<(), StoreError> {
        let id = chunk.stat().id;
        let seal = Seal { length, next: next.map(SegmentId) };
        self.model().seal(id, seal);
        chunk.seal(epoch, seal).await?;
        self.model().sealed(id, seal);
        Ok(())
    }

    pub async fn delete(&self, id: ChunkId, epoch: u64) -> Result<(), StoreError> {
        self.model().delete(id);
        self.store.delete(id, Epoch(epoch)).await?;
        self.model().deleted(id);
        Ok(())
    }

    pub async fn fence(&self, group: u64, epoch: u64) -> Result<(), StoreError> {
        self.model().fence(group, epoch);
        self.store.fence(GroupId(group), Epoch(epoch)).await?;
        self.model().fenced(group, epoch);
        Ok(())
    }

    /// Ends what an earlier life has left, as a new owner does.
    pub async fn clear(&self, epoch: u64) -> Result<(), StoreError> {
        for stat in self.store.list(None) {
            if stat.sealed.is_none() {
                let seal = Seal { length: 512, next: None };
                self.model().seal(stat.id, seal);
                self.store.open(stat.id).expect("it is listed").seal(Epoch(epoch), seal).await?;
                self.model().sealed(stat.id, seal);
            }
            self.delete(stat.id, epoch).await?;
        }
        Ok(())
    }
}

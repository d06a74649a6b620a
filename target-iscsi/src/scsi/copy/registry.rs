//! Copies by list identifier: what RECEIVE COPY RESULTS and RECEIVE ROD TOKEN INFORMATION tell of (SPC-4, section
//! 5.16.4).
//!
//! A list identifier is the nexus' own, per unit. What has ended is kept until the identifier is used again, the nexus
//! ends, or the nexus has begun [`KEPT_MAX`] others since; what is under way is bounded by [`RUNNING_MAX`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ashlar_env::units::VolumeId;

use crate::scsi::sense::{Failure, Sense};
use crate::scsi::token::rod::Token;
use crate::scsi::{Status, lock};

/// How many copies may be under way on this node; beyond that, hosts are told to try again.
pub const RUNNING_MAX: usize = 64;

/// How many ended copies of one nexus are remembered.
pub const KEPT_MAX: usize = 32;

/// Whose list identifier it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListKey {
    /// The nexus' session.
    pub session: u64,
    /// The unit that the command was for.
    pub unit: VolumeId,
    /// The identifier.
    pub id: u32,
}

/// How a copy ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Why it failed, where it did.
    pub failure: Option<Failure>,
    /// The token made (POPULATE TOKEN).
    pub token: Option<Box<Token>>,
}

/// One copy.
#[derive(Debug)]
pub struct Job {
    /// The service action of the command.
    pub action: u8,
    /// Whether the command has been answered before the end.
    pub background: bool,
    /// Bytes moved so far.
    moved: AtomicU64,
    /// Segments (or ranges) done so far.
    segments: AtomicU16,
    cancelled: AtomicBool,
    ending: Mutex<Option<Ending>>,
}

impl Job {
    fn new(action: u8, background: bool) -> Self {
        Self {
            action,
            background,
            moved: AtomicU64::new(0),
            segments: AtomicU16::new(0),
            cancelled: AtomicBool::new(false),
            ending: Mutex::new(None),
        }
    }

    /// Takes note of bytes moved. Whether to go on.
    pub fn moved(&self, bytes: u64) -> bool {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        !self.cancelled.load(Ordering::Relaxed)
    }

    /// Takes note of a segment done.
    pub fn segment_done(&self) {
        self.segments.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes moved so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Segments done so far.
    #[must_use]
    pub fn segments(&self) -> u16 {
        self.segments.load(Ordering::Relaxed)
    }

    /// How it ended; `None` while it is under way.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        lock(&self.ending).clone()
    }
}

/// All copies of a node.
#[derive(Debug, Default)]
pub struct Registry {
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    /// Each with the number of its beginning.
    by_key: BTreeMap<ListKey, (u64, Arc<Job>)>,
    begun: u64,
    running: usize,
}

/// A copy under way. Dropping it before [`Self::end`] ends it as one that was aborted.
#[derive(Debug)]
pub struct Running {
    registry: Arc<Registry>,
    key: Option<ListKey>,
    job: Arc<Job>,
}

impl Registry {
    /// Begins a copy under `key`, or under none, where nobody will ask. What is remembered under the key is forgotten.
    ///
    /// # Errors
    /// INVALID FIELD IN PARAMETER LIST where the identifier is in use, TASK SET FULL where too many are under way.
    pub fn begin(
        self: &Arc<Self>,
        key: Option<ListKey>,
        action: u8,
        background: bool,
    ) -> Result<Running, Failure> {
        let mut lists = lock(&self.lists);
        if let Some((_, job)) = key.and_then(|key| lists.by_key.get(&key))
            && job.ending().is_none()
        {
            return Err(Sense::parameter(0).into());
        }
        if lists.running == RUNNING_MAX {
            return Err(Status::TaskSetFull.into());
        }
        lists.running += 1;
        lists.begun += 1;
        let job = Arc::new(Job::new(action, background));
        if let Some(key) = key {
            let begun = lists.begun;
            lists.by_key.insert(key, (begun, Arc::clone(&job)));
            lists.forget_oldest(key.session);
        }
        Ok(Running { registry: Arc::clone(self), key, job })
    }

    /// The copy under this key.
    #[must_use]
    pub fn find(&self, key: ListKey) -> Option<Arc<Job>> {
        lock(&self.lists).by_key.get(&key).map(|(_, job)| Arc::clone(job))
    }

    /// Forgets an ended copy.
    pub fn forget(&self, key: ListKey) {
        let mut lists = lock(&self.lists);
        if lists.by_key.get(&key).is_some_and(|(_, job)| job.ending().is_some()) {
            lists.by_key.remove(&key);
        }
    }

    /// Forgets all of a nexus that ends, and cancels what is under way.
    pub fn end_session(&self, session: u64) {
        lock(&self.lists).by_key.retain(|key, (_, job)| {
            if key.session == session {
                job.cancelled.store(true, Ordering::Relaxed);
            }
            key.session != session
        });
    }

    /// How many copies are under way, and how many are remembered at all. For metrics and tests.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let lists = lock(&self.lists);
        (lists.running, lists.by_key.len())
    }
}

impl Lists {
    /// Keeps no more than [`KEPT_MAX`] ended copies of a session.
    fn forget_oldest(&mut self, session: u64) {
        let ended = |(key, (begun, job)): (&ListKey, &(u64, Arc<Job>))| {
            (key.session == session && job.ending().is_some()).then_some((*begun, *key))
        };
        let mut ended: Vec<_> = self.by_key.iter().filter_map(ended).collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(KEPT_MAX);
        for (_, key) in ended.into_iter().take(surplus) {
            self.by_key.remove(&key);
        }
    }
}

impl Running {
    /// The copy.
    #[must_use]
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// Ends it. Where `keep` is not set, it is forgotten at once.
    pub fn end(self, ending: Ending, keep: bool) {
        *lock(&self.job.ending) = Some(ending);
        if let Some(key) = self.key.filter(|_| !keep) {
            self.registry.forget_job(key, &self.job);
        }
    }
}

impl Registry {
    /// Forgets this copy, unless the key is another's by now.
    fn forget_job(&self, key: ListKey, job: &Arc<Job>) {
        let mut lists = lock(&self.lists);
        if lists.by_key.get(&key).is_some_and(|(_, there)| Arc::ptr_eq(there, job)) {
            lists.by_key.remove(&key);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let failure = Some(Failure::from(Status::TaskAborted));
        lock(&self.job.ending).get_or_insert(Ending { failure, token: None });
        lock(&self.registry.lists).running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(session: u64, id: u32) -> ListKey {
        ListKey { session, unit: VolumeId(uuid::Uuid::from_u128(1)), id }
    }

    #[test]
    fn an_identifier_is_used_once_at_a_time() {
        let registry = Arc::new(Registry::default());
        let first = registry.begin(Some(key(1, 7)), 0, false).unwrap();
        assert_eq!(registry.begin(Some(key(1, 7)), 0, false).unwrap_err(), Sense::parameter(0).into());
        let other = registry.begin(Some(key(2, 7)), 0, false).unwrap();
        assert!(first.job().moved(100));
        first.end(Ending::default(), true);
        let job = registry.find(key(1, 7)).unwrap();
        assert!(job.ending().unwrap().failure.is_none());
        assert_eq!(job.bytes(), 100);
        registry.begin(Some(key(1, 7)), 0, false).unwrap().end(Ending::default(), false);
        assert!(registry.find(key(1, 7)).is_none());
        drop(other);
        let aborted = registry.find(key(2, 7)).unwrap().ending().unwrap();
        assert_eq!(aborted.failure, Some(Status::TaskAborted.into()));
        assert_eq!(registry.counts(), (0, 1));
    }

    #[test]
    fn what_is_kept_and_what_runs_is_bounded() {
        let registry = Arc::new(Registry::default());
        for id in 0..1000 {
            registry.begin(Some(key(1, id)), 0, false).unwrap().end(Ending::default(), true);
        }
        assert_eq!(registry.counts(), (0, KEPT_MAX + 1));
        assert!(registry.find(key(1, 999)).is_some() && registry.find(key(1, 900)).is_none());
        let running: Vec<_> =
            (0..RUNNING_MAX as u32).map(|id| registry.begin(Some(key(2, id)), 0, true).unwrap()).collect();
        assert_eq!(registry.begin(None, 0, false).unwrap_err(), Status::TaskSetFull.into());
        registry.end_session(2);
        assert!(running.iter().all(|running| !running.job().moved(0)));
        drop(running);
        registry.end_session(1);
        assert_eq!(registry.counts(), (0, 0));
    }
}

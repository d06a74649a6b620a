//! Requests of other threads to a reactor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::doorbell::Doorbell;
use crate::env::ReactorEnv;
use crate::mesh::MeshEnd;
use crate::reply::NoReply;

/// Something to do on a reactor.
pub(crate) type Job<M> = Box<dyn FnOnce(&ReactorEnv, &MeshEnd<M>) + Send>;

/// The requests that wait for one reactor.
pub(crate) struct Inbox<M> {
    jobs: ArrayQueue<Job<M>>,
    stop: AtomicBool,
    ended: AtomicBool,
    doorbell: Arc<Doorbell>,
}

impl<M> Inbox<M> {
    pub(crate) fn new(capacity: usize, doorbell: Arc<Doorbell>) -> Self {
        Self {
            jobs: ArrayQueue::new(capacity.max(1)),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            doorbell,
        }
    }

    /// Hands a request in.
    pub(crate) fn push(&self, job: Job<M>) -> Result<(), NoReply> {
        if self.ended.load(Ordering::SeqCst) {
            return Err(NoReply::Ended);
        }
        self.jobs.push(job).map_err(|_| NoReply::Busy)?;
        self.doorbell.ring();
        if self.ended.load(Ordering::SeqCst) {
            self.clear();
        }
        Ok(())
    }

    /// Asks the reactor to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.doorbell.ring();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.jobs.is_empty() || self.stopped()
    }

    /// Begins what waits; `true` if there was anything.
    pub(crate) fn turn(&self, env: &ReactorEnv, mesh: &MeshEnd<M>) -> bool {
        let mut worked = false;
        // No more than waited at the start, so that one who keeps asking does not hold the reactor.
        for _ in 0..self.jobs.len() {
            let Some(job) = self.jobs.pop() else { break };
            job(env, mesh);
            worked = true;
        }
        worked
    }

    /// The reactor has ended: whoever waits for an answer learns of it.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.clear();
    }

    fn clear(&self) {
        while self.jobs.pop().is_some() {}
    }
}

//! The task that owns the state and the store, and the handle through which everybody else reaches it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::metrics::ControlMetrics;
use super::{Live, Node, storage};
use crate::api::Phase;
use crate::state::{
    Action, Backing, Command, DEVICE_BYTES_MIN, Event, Name, Refusal, RefusalKind, State, VolumeId,
};
use crate::store::{Store, StoreError};

/// Actions that may wait for the control task; a submitter beyond waits for room.
const QUEUE_MAX: usize = 256;
/// Longest wait for what goes on in the node, before a reply is made without it.
const LIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// An action that was carried out.
#[derive(Debug, Clone)]
pub struct Done {
    /// The state that contains it.
    pub state: Arc<State>,
    /// What it changed; empty if it asked for what was so already.
    pub events: Arc<[Event]>,
}

/// Stands for one more than the generation that is saved when the action's turn comes.
const NEXT_GENERATION: u64 = 0;

type Reply = oneshot::Sender<Result<Done, Refusal>>;

struct Job {
    action: Action,
    reply: Reply,
}

/// Opens the control state in `path`, and gives the node its identity or its new name if need be.
///
/// # Errors
///
/// A refusal that names the file; nothing was overwritten.
pub fn open(path: &Path, name: &Name) -> Result<(Store, State), Refusal> {
    let what = format!("open the control state in {}", path.display());
    let (mut store, mut state) = Store::open(path).map_err(|e| e.refuse(&what, true))?;
    let action = match state.node() {
        None => Some(Action::InitNode { id: Uuid::new_v4(), name: name.clone() }),
        Some(node) if node.name != *name => Some(Action::RenameNode { name: name.clone() }),
        Some(_) => None,
    };
    if let Some(action) = action {
        let command = Command { time_ms: now_ms(), action };
        let before = state.clone();
        state.apply(&command)?;
        store.append(&command, &before, &state).map_err(|e| e.refuse(&what, false))?;
    }
    Ok((store, state))
}

/// Milliseconds since 1970 UTC; 0 on a machine whose clock is before that.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Reaches the control task from any thread and any executor. Cheap to clone.
#[derive(Clone)]
pub struct ControlHandle {
    jobs: mpsc::Sender<Job>,
    saves: mpsc::Sender<Job>,
    state: watch::Receiver<Arc<State>>,
    node: Arc<dyn Node>,
    metrics: ControlMetrics,
}

impl std::fmt::Debug for ControlHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlHandle").finish_non_exhaustive()
    }
}

impl ControlHandle {
    /// Has `action` carried out, and waits until it is durable and the node has followed it.
    ///
    /// Works in any executor: nothing here needs tokio's runtime. A future that is dropped does not
    /// take back an action that is already in the queue.
    pub async fn submit(&self, action: Action) -> Result<Done, Refusal> {
        let what = action.describe();
        let (reply, answer) = oneshot::channel();
        let is_save = matches!(action, Action::SetReservation { .. } | Action::NoteLane { .. });
        let queue = if is_save { &self.saves } else { &self.jobs };
        if queue.send(Job { action, reply }).await.is_err() {
            return Err(stopped(what));
        }
        answer.await.unwrap_or_else(|_| Err(stopped(what)))
    }

    /// Keeps the persistent reservation state of a volume through power loss; durable when it returns.
    ///
    /// Saves of one volume are kept in the order in which they were asked for, also when the future of
    /// an earlier one was dropped. They do not wait for what people ask for. Works in any executor, in
    /// every phase of the node.
    pub async fn save_reservation(&self, volume: VolumeId, blob: Vec<u8>) -> Result<(), Refusal> {
        self.submit(Action::SetReservation { volume, generation: NEXT_GENERATION, blob }).await.map(drop)
    }

    /// The state that is in force.
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// The node.
    pub fn node(&self) -> &Arc<dyn Node> {
        &self.node
    }

    /// What the control plane counts.
    pub fn metrics(&self) -> &ControlMetrics {
        &self.metrics
    }

    /// What goes on in the node. Needs tokio's runtime; a node that does not answer in time is
    /// reported as such.
    pub async fn live(&self, state: &Arc<State>) -> Live {
        match tokio::time::timeout(LIVE_TIMEOUT, self.node.live(state)).await {
            Ok(live) => live,
            Err(_) => {
                let seconds = LIVE_TIMEOUT.as_secs();
                let attention = vec![format!("the data path did not answer within {seconds} s")];
                Live { attention, ..Live::default() }
            }
        }
    }
}

fn stopped(what: String) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, what, "the node is stopping")
        .next("ask again when the node is back, or ask another node")
}

/// The control task, before it runs.
pub struct ControlPlane {
    handle: ControlHandle,
    /// What people ask for.
    jobs: mpsc::Receiver<Job>,
    /// Reservations to save, and what the engine must know of its logs. A host waits for each, so they go on while the
    /// node prepares or follows something else.
    saves: mpsc::Receiver<Job>,
    publish: watch::Sender<Arc<State>>,
    /// Gone while a blocking thread writes to it.
    store: Option<Store>,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").field("store", &self.store).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// A control plane over what [`open`] yielded.
    pub fn new(store: Store, state: State, node: Arc<dyn Node>, metrics: ControlMetrics) -> Self {
        let (to_jobs, jobs) = mpsc::channel(QUEUE_MAX);
        let (to_saves, saves) = mpsc::channel(QUEUE_MAX);
        let (publish, receiver) = watch::channel(Arc::new(state));
        let handle = ControlHandle { jobs: to_jobs, saves: to_saves, state: receiver, node, metrics };
        ControlPlane { handle, jobs, saves, publish, store: Some(store) }
    }

    /// A handle to it.
    pub fn handle(&self) -> ControlHandle {
        self.handle.clone()
    }

    /// Carries actions out, one after the other, until `stop` completes and the queues are empty.
    /// Needs tokio's runtime.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.jobs.close();
                    self.saves.close();
                }
                Some(job) = self.saves.recv() => self.save(job).await,
                Some(Job { action, reply }) = self.jobs.recv() => {
                    let (what, label) = (action.describe(), action.label());
                    let result = self.carry_out(action).await;
                    self.answer(&what, label, reply, result);
                }
                else => return,
            }
        }
    }

    /// Counts, logs and answers.
    fn answer(&self, what: &str, label: &'static str, reply: Reply, result: Result<Done, Refusal>) {
        self.handle.metrics.count_action(label, result.as_ref().err().map(|refusal| refusal.kind));
        match &result {
            Ok(done) if done.events.is_empty() => tracing::debug!(what, "nothing to change"),
            // The engine says such things with every checkpoint.
            Ok(done) if label == "note_lane" => {
                tracing::debug!(what, change = done.state.applied(), "control state changed");
            }
            Ok(done) => tracing::info!(what, change = done.state.applied(), "control state changed"),
            Err(refusal) => tracing::warn!(what, kind = refusal.kind.as_str(), why = refusal.why, "refused"),
        }
        // Whoever asked may have gone away; the action stands all the same.
        let _ = reply.send(result);
    }

    async fn carry_out(&mut self, mut action: Action) -> Result<Done, Refusal> {
        self.check_phase(&action)?;
        let before = self.handle.state();
        // What the state machine refuses anyway must not make the node open or grow a file first.
        let command = Command { time_ms: 0, action: provisional(&before, &action) };
        let (expected, events) = apply_to_copy(&before, &command)?;
        if events.is_empty() {
            return Ok(Done { state: before, events: events.into() });
        }
        let node = self.handle.node.clone();
        self.saving(node.prepare(&before, &mut action)).await?;
        if let Err(refusal) = self.saving(storage::prepare(node.storage(), &expected, &mut action)).await {
            self.saving(node.abandoned(&action)).await;
            return Err(refusal);
        }
        let command = Command { time_ms: now_ms(), action };
        match self.keep(&command).await {
            Ok(done) => {
                self.saving(node.changed(&done.state, &done.events)).await;
                self.saving(storage::follow(node.storage(), &done.state, &done.events)).await;
                Ok(done)
            }
            Err(refusal) => {
                self.saving(storage::abandon(node.storage(), &expected, &command.action)).await;
                self.saving(node.abandoned(&command.action)).await;
                Err(refusal)
            }
        }
    }

    /// Waits for `work`, and saves reservations meanwhile.
    async fn saving<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(job) = self.saves.recv() => self.save(job).await,
                done = &mut work => return done,
            }
        }
    }

    /// Saves a reservation, or what the engine must know. It has nothing to prepare, and the node need not be told what it
    /// asked for.
    async fn save(&mut self, Job { mut action, reply }: Job) {
        if let Action::SetReservation { volume, generation, .. } = &mut action
            && *generation == NEXT_GENERATION
        {
            *generation = next_generation(&self.handle.state(), *volume);
        }
        let (what, label) = (action.describe(), action.label());
        let result = self.keep(&Command { time_ms: now_ms(), action }).await;
        self.answer(&what, label, reply, result);
    }

    /// A node that starts or stops takes no changes from people; what the node itself has to say, and hosts'
    /// reservations, are kept until the last command is answered.
    fn check_phase(&self, action: &Action) -> Result<(), Refusal> {
        let own = matches!(
            action,
            Action::FailDevice { .. } | Action::FinishOperation { .. } | Action::RebuildCopies
        );
        if own {
            return Ok(());
        }
        let why = match self.handle.node.phase() {
            Phase::Ready => return Ok(()),
            Phase::Starting => "the node is starting",
            Phase::Draining => "the node is stopping",
        };
        Err(Refusal::new(RefusalKind::Unavailable, action.describe(), why)
            .next("ask again when `ashlar status` says ready"))
    }

    /// Applies `command` to a copy of the state, makes it durable, and puts the copy in force.
    async fn keep(&mut self, command: &Command) -> Result<Done, Refusal> {
        let before = self.handle.state();
        let (after, events) = apply_to_copy(&before, command)?;
        if events.is_empty() {
            return Ok(Done { state: before, events: events.into() });
        }
        let after = Arc::new(after);
        let mut store = self.store.take().ok_or_else(|| stopped(command.action.describe()))?;
        let (job_command, job_after) = (command.clone(), after.clone());
        // On a thread of its own: a slow disk must not keep `/healthz` from answering.
        let written = tokio::task::spawn_blocking(move || {
            let result = store.append(&job_command, &before, &job_after);
            (store, result)
        })
        .await;
        let Ok((store, result)): Result<(Store, Result<(), StoreError>), _> = written else {
            return Err(Refusal::new(RefusalKind::Failed, command.action.describe(), "the store has failed")
                .next("restart the node: it checks the control state when it starts"));
        };
        self.store = Some(store);
        result.map_err(|e| e.refuse(command.action.describe(), false))?;
        self.publish.send_replace(after.clone());
        Ok(Done { state: after, events: events.into() })
    }
}

fn next_generation(state: &State, volume: VolumeId) -> u64 {
    let saved = state.volumes().get(&volume).and_then(|volume| volume.reservation.as_ref());
    saved.map_or(0, |reservation| reservation.generation) + 1
}

fn apply_to_copy(state: &State, command: &Command) -> Result<(State, Vec<Event>), Refusal> {
    let mut copy = state.clone();
    let events = copy.apply(command)?;
    Ok((copy, events))
}

/// `action` with possible values where the node has yet to fill in the real ones.
fn provisional(state: &State, action: &Action) -> Action {
    let mut action = action.clone();
    match &mut action {
        Action::CreateVolume(new) if matches!(new.backing, Backing::Image { .. }) => {
            let block_size_bytes = *new.block_size_bytes.get_or_insert(512);
            new.size_bytes.get_or_insert(u64::from(block_size_bytes));
        }
        Action::AddDevice(new) => {
            new.size_bytes.get_or_insert(DEVICE_BYTES_MIN);
        }
        Action::CreateSnapshot { snapshot, id } => {
            let group = state.groups().get(&snapshot.group);
            let last = group.and_then(|group| group.snapshots.last_key_value());
            *id = Some(last.map_or(0, |(last, _)| *last) + 1);
        }
        _ => {}
    }
    action
}

#[cfg(test)]
mod tests;

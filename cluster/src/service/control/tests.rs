//! The control task on a disk that fills up.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use super::*;
use crate::service::{BoxFuture, Diff, DiffQuery, LiveStorage, LogVolume, SnapshotSpace, Storage};
use crate::state::testing::{id_of, log_volume, name, new_device, new_volume, snapshot_name, volume_name};
use crate::state::{GroupId, NewClone, NewDevice, Policy, Reason};
use crate::store::{Faults, store_with_faults};

/// Notes what it is told, in order, and can be made to wait for a save whenever it is told something.
#[derive(Default)]
struct Notebook {
    notes: Mutex<Vec<&'static str>>,
    saves: Mutex<Option<(ControlHandle, VolumeId)>>,
    engine_refuses: AtomicBool,
    cuts: AtomicU64,
}

impl Notebook {
    async fn note(&self, what: &'static str) {
        self.notes.lock().unwrap().push(what);
        let saves = self.saves.lock().unwrap().clone();
        if let Some((control, volume)) = saves {
            control.save_reservation(volume, what.into()).await.unwrap();
        }
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }
}

impl Node for Notebook {
    fn prepare<'a>(&'a self, _: &'a Arc<State>, _: &'a mut Action) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async {
            self.note("prepare").await;
            Ok(())
        })
    }
    fn abandoned<'a>(&'a self, _: &'a Action) -> BoxFuture<'a, ()> {
        Box::pin(self.note("abandoned"))
    }
    fn changed<'a>(&'a self, _: &'a Arc<State>, _: &'a [Event]) -> BoxFuture<'a, ()> {
        Box::pin(self.note("changed"))
    }
    fn live<'a>(&'a self, _: &'a Arc<State>) -> BoxFuture<'a, Live> {
        Box::pin(async { Live::default() })
    }
    fn storage(&self) -> &dyn Storage {
        self
    }
    fn phase(&self) -> Phase {
        Phase::Ready
    }
    fn metrics(&self) -> String {
        String::new()
    }
}

impl Notebook {
    fn done<T: Send + 'static>(&self, what: &'static str, value: T) -> BoxFuture<'_, T> {
        Box::pin(async move {
            self.note(what).await;
            value
        })
    }

    /// What the engine answers: refusals while it is told to refuse.
    fn answer<T: Send + 'static>(&self, what: &'static str, value: T) -> BoxFuture<'_, Result<T, Reason>> {
        let refusal = Reason::new(RefusalKind::NoSpace, "the devices are full");
        let refused = self.engine_refuses.load(Ordering::Relaxed);
        self.done(what, if refused { Err(refusal) } else { Ok(value) })
    }
}

/// The number of every snapshot that this engine makes comes from a counter.
impl Storage for Notebook {
    fn add_device<'a>(&'a self, new: &'a mut NewDevice) -> BoxFuture<'a, Result<(), Reason>> {
        new.size_bytes.get_or_insert(1 << 40);
        self.answer("add_device", ())
    }
    fn close_device(&self, _: Uuid) -> BoxFuture<'_, ()> {
        self.done("close_device", ())
    }
    fn check_drain(&self, _: Uuid) -> BoxFuture<'_, Result<(), Reason>> {
        self.answer("check_drain", ())
    }
    fn drain_device(&self, _: Uuid, _: u64) -> BoxFuture<'_, ()> {
        self.done("drain_device", ())
    }
    fn create_volume(&self, _: LogVolume) -> BoxFuture<'_, Result<(), Reason>> {
        self.answer("create_volume", ())
    }
    fn delete_volume(&self, _: GroupId, _: VolumeId) -> BoxFuture<'_, ()> {
        self.done("delete_volume", ())
    }
    fn set_policy(&self, _: GroupId, _: Policy) -> BoxFuture<'_, ()> {
        self.done("set_policy", ())
    }
    fn create_snapshot(&self, _: GroupId) -> BoxFuture<'_, Result<u64, Reason>> {
        self.answer("create_snapshot", self.cuts.fetch_add(1, Ordering::Relaxed) + 10)
    }
    fn delete_snapshot(&self, _: GroupId, _: u64) -> BoxFuture<'_, ()> {
        self.done("delete_snapshot", ())
    }
    fn restore_snapshot(&self, _: GroupId, _: u64) -> BoxFuture<'_, Result<(), Reason>> {
        self.answer("restore_snapshot", ())
    }
    fn clone_volume(
        &self,
        _: GroupId,
        _: u64,
        _: VolumeId,
        _: VolumeId,
    ) -> BoxFuture<'_, Result<(), Reason>> {
        self.answer("clone_volume", ())
    }
    fn diff(&self, _: DiffQuery) -> BoxFuture<'_, Result<Diff, Reason>> {
        self.answer("diff", Diff::default())
    }
    fn snapshot_space(&self, _: GroupId, _: Vec<u64>) -> BoxFuture<'_, BTreeMap<u64, SnapshotSpace>> {
        self.done("snapshot_space", BTreeMap::new())
    }
    fn report(&self) -> BoxFuture<'_, LiveStorage> {
        self.done("report", LiveStorage::default())
    }
}

struct Bench {
    control: ControlHandle,
    node: Arc<Notebook>,
    faults: Faults,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let (store, state) = store_with_faults(directory.path(), &faults);
        let node = Arc::new(Notebook::default());
        let plane = ControlPlane::new(store, state, node.clone(), ControlMetrics::default());
        let control = plane.handle();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(plane.run(async {
            let _ = stopped.await;
        }));
        Bench { control, node, faults, stop, task, _directory: directory }
    }

    async fn create(&self, name: &str) -> Result<Done, Refusal> {
        self.control.submit(Action::CreateVolume(new_volume(name))).await
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_keeps_the_rest() {
    let bench = Bench::start();
    bench.create("a").await.unwrap();
    assert_eq!(bench.node.take(), ["prepare", "changed"]);
    let before = bench.control.state();

    bench.faults.fill_after(0);
    for _ in 0..3 {
        let refusal = bench.create("b").await.unwrap_err();
        assert_eq!((refusal.kind, refusal.kind.http_status()), (RefusalKind::NoSpace, 507));
        assert_eq!(refusal.what, "create volume b");
        assert!(refusal.not_lost.contains("everything before it is kept"), "{refusal:?}");
        assert_eq!(bench.node.take(), ["prepare", "abandoned"]);
        assert_eq!(bench.control.state(), before);
    }
    bench.faults.clear();
    bench.create("b").await.unwrap();
    assert_eq!(bench.control.state().volumes().len(), 2);
}

#[tokio::test]
async fn what_changes_nothing_is_not_kept() {
    let bench = Bench::start();
    bench.create("a").await.unwrap();
    bench.node.take();
    let before = bench.control.state();
    // The disk would refuse it.
    bench.faults.fill_after(0);
    let same = Action::ResizeVolume { volume: volume_name("a"), size_bytes: 1 << 20, allow_shrink: false };
    let done = bench.control.submit(same).await.unwrap();
    assert!(done.events.is_empty());
    assert_eq!(done.state, before);
    assert_eq!(bench.node.take(), Vec::<&str>::new());
}

#[tokio::test]
async fn reservations_are_kept_without_asking_the_node() {
    let bench = Bench::start();
    let done = bench.create("a").await.unwrap();
    bench.node.take();
    let volume: VolumeId = *done.state.volumes().keys().next().unwrap();
    let save = |generation| Action::SetReservation { volume, generation, blob: vec![9] };
    bench.control.submit(save(1)).await.unwrap();
    assert_eq!(bench.node.take(), Vec::<&str>::new());
    bench.faults.fill_after(0);
    assert_eq!(bench.control.submit(save(2)).await.unwrap_err().kind, RefusalKind::NoSpace);
    assert_eq!(bench.node.take(), Vec::<&str>::new());
    assert_eq!(bench.control.state().volumes()[&volume].reservation.as_ref().unwrap().generation, 1);
}

#[tokio::test]
async fn the_last_save_asked_for_wins_even_if_nobody_waits_for_the_others() {
    let bench = Bench::start();
    let done = bench.create("a").await.unwrap();
    let volume: VolumeId = *done.state.volumes().keys().next().unwrap();
    for blob in 1..=5 {
        let mut save = Box::pin(bench.control.save_reservation(volume, vec![blob]));
        // Enters the queue, and is dropped before it is done.
        assert!(std::future::poll_fn(|cx| Poll::Ready(save.as_mut().poll(cx))).await.is_pending());
    }
    bench.control.save_reservation(volume, vec![6]).await.unwrap();
    let state = bench.control.state();
    let saved = state.volumes()[&volume].reservation.as_ref().unwrap();
    assert_eq!((saved.generation, saved.blob.as_slice()), (6, &[6][..]));
    let missing = VolumeId(Uuid::from_u128(77));
    assert_eq!(
        bench.control.save_reservation(missing, vec![]).await.unwrap_err().kind,
        RefusalKind::NotFound
    );
}

#[tokio::test]
async fn a_node_that_waits_for_a_save_does_not_hold_it_up() {
    let bench = Bench::start();
    let done = bench.create("a").await.unwrap();
    let volume: VolumeId = *done.state.volumes().keys().next().unwrap();
    *bench.node.saves.lock().unwrap() = Some((bench.control.clone(), volume));
    bench.create("b").await.unwrap();
    let state = bench.control.state();
    assert_eq!(state.volumes().len(), 2);
    let saved = state.volumes()[&volume].reservation.as_ref().unwrap();
    assert_eq!((saved.generation, saved.blob.as_slice()), (2, &b"changed"[..]));
}

#[tokio::test]
async fn stopping_carries_out_what_is_in_the_queue() {
    let bench = Bench::start();
    let submitted: Vec<_> = (0..20)
        .map(|i| {
            let control = bench.control.clone();
            tokio::spawn(
                async move { control.submit(Action::CreateVolume(new_volume(&format!("v{i}")))).await },
            )
        })
        .collect();
    // Lets each of them enter the queue.
    tokio::task::yield_now().await;
    bench.stop.send(()).unwrap();
    bench.task.await.unwrap();
    for outcome in submitted {
        outcome.await.unwrap().unwrap();
    }
    assert_eq!(bench.control.state().volumes().len(), 20);
    let late = bench.control.submit(Action::CreateVolume(new_volume("late"))).await;
    assert_eq!(late.unwrap_err().kind, RefusalKind::Unavailable);
}

/// Actions of which the engine does something first, each possible after those before it.
fn engine_actions() -> Vec<(Action, &'static str, Option<&'static str>)> {
    let clone = NewClone {
        id: VolumeId(id_of("db/clone")),
        from: "db@a".parse().unwrap(),
        name: volume_name("db/clone"),
    };
    vec![
        (Action::AddDevice(new_device("/d1")), "add_device", Some("close_device")),
        (Action::CreateVolume(log_volume("db")), "create_volume", Some("delete_volume")),
        (
            Action::CreateSnapshot { snapshot: snapshot_name("db@a"), id: None },
            "create_snapshot",
            Some("delete_snapshot"),
        ),
        (Action::RestoreSnapshot { snapshot: snapshot_name("db@a"), force: false }, "restore_snapshot", None),
        (Action::CloneVolume(clone), "clone_volume", Some("delete_volume")),
    ]
}

#[tokio::test]
async fn the_engine_goes_first_and_takes_back_what_is_not_kept() {
    let bench = Bench::start();
    for (action, done, taken_back) in engine_actions() {
        let before = bench.control.state();
        bench.faults.fill_after(0);
        let refusal = bench.control.submit(action.clone()).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NoSpace, "{refusal:?}");
        let mut notes = vec!["prepare", done];
        notes.extend(taken_back);
        notes.push("abandoned");
        assert_eq!(bench.node.take(), notes);
        bench.faults.clear();

        bench.node.engine_refuses.store(true, Ordering::Relaxed);
        let refusal = bench.control.submit(action.clone()).await.unwrap_err();
        assert_eq!((refusal.what, refusal.why.as_str()), (action.describe(), "the devices are full"));
        assert_eq!(bench.node.take(), ["prepare", done, "abandoned"]);
        assert_eq!(bench.control.state(), before);
        bench.node.engine_refuses.store(false, Ordering::Relaxed);

        bench.control.submit(action).await.unwrap();
        assert_eq!(bench.node.take(), ["prepare", done, "changed"]);
    }
    let state = bench.control.state();
    // Two numbers went to snapshots that were not kept.
    assert_eq!(state.groups()[&name("db")].snapshots.keys().copied().collect::<Vec<_>>(), [12]);
    assert_eq!(state.devices()[&id_of("/d1")].size_bytes, 1 << 40);
}

#[tokio::test]
async fn the_engine_drops_only_what_the_state_has_dropped() {
    let bench = Bench::start();
    for (action, ..) in engine_actions() {
        bench.control.submit(action).await.unwrap();
    }
    let second = Action::AddDevice(new_device("/d2"));
    bench.control.submit(second).await.unwrap();
    bench.node.take();
    let policy =
        Action::SetGroupPolicy { group: name("db"), compression: Some(crate::state::Compression::Lz4) };
    let drained = Action::FinishOperation { operation: 1, failure: None };
    for (action, notes) in [
        (policy, &["prepare", "changed", "set_policy"][..]),
        (Action::DeleteVolume { volume: volume_name("db/clone") }, &["prepare", "changed", "delete_volume"]),
        (
            Action::DeleteSnapshot { snapshot: snapshot_name("db@a") },
            &["prepare", "changed", "delete_snapshot"],
        ),
        (Action::DeleteVolume { volume: volume_name("db") }, &["prepare", "changed", "delete_volume"]),
        (
            Action::DrainDevice { device: id_of("/d1") },
            &["prepare", "check_drain", "changed", "drain_device"],
        ),
        (drained, &["prepare", "changed", "close_device"]),
    ] {
        bench.faults.fill_after(0);
        bench.control.submit(action.clone()).await.unwrap_err();
        let before = bench.node.take();
        assert!(before.iter().all(|note| notes[..notes.len() - 2].contains(note) || *note == "abandoned"));
        bench.faults.clear();
        bench.control.submit(action).await.unwrap();
        assert_eq!(bench.node.take(), notes);
    }
}

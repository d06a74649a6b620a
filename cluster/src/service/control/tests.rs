//! The control task on a disk that fills up.

use std::sync::Mutex;
use std::task::Poll;

use super::*;
use crate::service::BoxFuture;
use crate::state::testing::{new_volume, volume_name};
use crate::store::{Faults, store_with_faults};

/// Notes what it is told, in order, and can be made to wait for a save whenever it is told something.
#[derive(Default)]
struct Notebook {
    notes: Mutex<Vec<&'static str>>,
    saves: Mutex<Option<(ControlHandle, VolumeId)>>,
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
    fn phase(&self) -> Phase {
        Phase::Ready
    }
    fn metrics(&self) -> String {
        String::new()
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

//! The chunk store on the simulator's disk.

mod crash;
mod damage;
mod gate;
mod model;
mod order;
mod pool;
mod rules;
mod scribe;
mod swarm;
mod tap;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use ashlar_engine::store::FormatOptions;
use ashlar_sim::{DiskGeometry, Profile, Sim, SimEnv};
use uuid::Uuid;

/// A slot of 32 KiB: 24 KiB of data.
const SLOT_BYTES: u32 = 32 << 10;
const SLOTS: u64 = 6;

fn options() -> FormatOptions {
    let options = FormatOptions::new(Uuid::from_u128(1), Uuid::from_u128(2));
    FormatOptions { slot_bytes: SLOT_BYTES, fence_entries: 10, ..options }
}

/// A disk with room for `SLOTS` slots.
fn geometry() -> DiskGeometry {
    DiskGeometry::of_bytes((SLOTS + 1) * u64::from(SLOT_BYTES) + 4096)
}

/// Runs `test` alone in a calm world.
fn calmly<F: Future<Output = ()> + 'static>(test: impl FnOnce(SimEnv, ashlar_sim::DiskId) -> F) {
    let sim = Sim::new(1, Profile::calm());
    let node = sim.node("node", 1);
    let disk = sim.disk("disk", geometry());
    sim.goal_on(node, 0, |env| test(env, disk));
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// All outputs, in order.
async fn join<T>(futures: Vec<Boxed<T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (future, None)).collect();
    poll_fn(|cx| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let Poll::Ready(ended) = future.as_mut().poll(cx)
            {
                *output = Some(ended);
            }
        }
        let is_done = futures.iter().all(|(_, output)| output.is_some());
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

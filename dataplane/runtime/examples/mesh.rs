//! Measures a message's round trip between two reactors on two cores, spinning and asleep.
//!
//! `cargo run --release -p ashlar-runtime --example mesh`

use std::future::poll_fn;
use std::time::Duration;

use ashlar_env::{Clock, Mesh, ReactorId};
use ashlar_runtime::{MeshEnd, Runtime, RuntimeConfig, Spin, usable_cores};

const ROUNDS: u64 = 20_000;
const BATCHES: usize = 20;

async fn pass(mesh: &MeshEnd<u64>, to: ReactorId, message: u64) {
    while mesh.try_send(to, message).is_err() {
        poll_fn(|cx| mesh.poll_room(cx, to)).await;
    }
}

fn main() {
    let cores = usable_cores();
    for (name, spin) in [("spinning", Spin::Adaptive(Duration::from_millis(1))), ("asleep", Spin::NEVER)] {
        let config =
            RuntimeConfig { cores: vec![cores[0], cores[1 % cores.len()]], spin, ..RuntimeConfig::default() };
        let runtime = Runtime::<u64>::start(config).expect("the runtime starts");
        let answering = runtime.reactors()[1].spawn(|_, mesh| async move {
            loop {
                let (from, message) = poll_fn(|cx| mesh.poll_recv(cx)).await;
                pass(&mesh, from, message).await;
            }
        });
        answering.expect("the reactor takes a task");
        let times = runtime.reactors()[0].call(|env, mesh| async move {
            let mut times = Vec::new();
            for _ in 0..BATCHES {
                let start = env.now();
                for message in 0..ROUNDS {
                    pass(&mesh, ReactorId(1), message).await;
                    poll_fn(|cx| mesh.poll_recv(cx)).await;
                }
                times.push(env.now().since(start).as_nanos() as u64 / ROUNDS);
            }
            times.sort_unstable();
            times
        });
        let times = times.wait().expect("the reactor answers");
        println!("{name}: best {} ns, median {} ns a round trip", times[0], times[BATCHES / 2]);
    }
}

//! The network model does what it says: each fault happens, and only where it is asked for.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::net::NetError;
use ashlar_env::{Clock, Listener, Net, Stream};
use ashlar_sim::conformance::{Signal, fill, first_difference, receive, send_all, sleep, within};
use ashlar_sim::{Control, Crash, NodeId, Profile, Rate, Sim, SimEnv, SimStream};

const PORT: u16 = 4420;

fn address(node: NodeId) -> SocketAddr {
    SocketAddr::new(node.ip(0), PORT)
}

/// Accepts one connection after the other; each is given to `serve`.
async fn serve_each<F: Future<Output = ()> + 'static>(env: SimEnv, serve: impl Fn(SimEnv, SimStream) -> F) {
    let listener = env.listen(([0, 0, 0, 0], PORT).into()).expect("the port is free");
    loop {
        let (accepted, _) = listener.accept().await.expect("accept");
        if let Ok(stream) = env.adopt(accepted) {
            ashlar_env::Spawn::spawn(&env, serve(env.clone(), stream));
        }
    }
}

/// Receives until the end and throws it away.
async fn swallow(_: SimEnv, stream: SimStream) {
    let mut buf = [0; 4096];
    while let Ok(1..) = receive(&stream, &mut buf).await {}
}

/// Holds a connection and never reads.
async fn ignore(env: SimEnv, stream: SimStream) {
    sleep(&env, Duration::from_secs(100_000)).await;
    drop(stream);
}

struct Scene {
    sim: Sim,
    server: NodeId,
    host: NodeId,
    control: Control,
}

fn scene(seed: u64, change: impl FnOnce(&mut Profile)) -> Scene {
    let mut profile = Profile::calm();
    change(&mut profile);
    let sim = Sim::new(seed, profile);
    let (server, host) = (sim.node("server", 1), sim.node("host", 1));
    let control = sim.control();
    Scene { sim, server, host, control }
}

fn run(sim: &Sim) {
    if let Err(failure) = sim.run() {
        panic!("{failure}");
    }
}

/// Sends until the stream fails; gives the error and how many bytes were taken.
async fn send_until_error(stream: &SimStream) -> (NetError, usize) {
    let mut sent = 0;
    loop {
        match poll_fn(|cx| stream.poll_send(cx, &[IoSlice::new(&[7; 1000])])).await {
            Ok(count) => sent += count,
            Err(error) => return (error, sent),
        }
    }
}

#[test]
fn resets_come_in_mid_stream() {
    for seed in 0..20 {
        let it = scene(seed, |profile| profile.net.reset = Rate::percent(1));
        let to = address(it.server);
        it.sim.spawn_on(it.server, 0, |env| serve_each(env, swallow));
        it.sim.goal_on(it.host, 0, move |env| async move {
            let stream = env.connect(to).await.expect("a connection");
            assert_eq!(send_until_error(&stream).await.0, NetError::Reset);
        });
        run(&it.sim);
        assert!(it.sim.marks().count("net: reset in mid-stream") > 0);
    }
}

#[test]
fn loss_delays_and_changes_nothing() {
    for seed in 0..10 {
        let it = scene(seed, |profile| {
            profile.net.loss = Rate::percent(20);
            profile.net.split = Rate::percent(50);
            profile.net.partial = Rate::percent(50);
        });
        let to = address(it.server);
        let done = Signal::default();
        let signal = done.clone();
        it.sim.spawn_on(it.server, 0, |env| {
            serve_each(env, move |_, stream| {
                let signal = signal.clone();
                async move {
                    let mut got = vec![0; 20_000];
                    assert_eq!(receive(&stream, &mut got).await, Ok(20_000));
                    assert_eq!(first_difference(9, 0, &got), None);
                    signal.set();
                }
            })
        });
        it.sim.goal_on(it.host, 0, move |env| async move {
            let stream = loop {
                match env.connect(to).await {
                    Ok(stream) => break stream,
                    Err(error) => assert!(matches!(error, NetError::Unreachable(_))),
                }
            };
            let mut bytes = vec![0; 20_000];
            fill(9, 0, &mut bytes);
            for chunk in bytes.chunks(500) {
                send_all(&stream, chunk).await.expect("a send");
            }
            done.wait().await;
        });
        run(&it.sim);
        assert!(it.sim.time().0 > 200_000_000, "seed {seed}: nothing was retransmitted");
    }
}

#[test]
fn a_refused_connection_says_so() {
    let it = scene(1, |profile| profile.net.refuse = Rate::ALWAYS);
    let to = address(it.server);
    it.sim.spawn_on(it.server, 0, |env| serve_each(env, swallow));
    it.sim.goal_on(it.host, 0, move |env| async move {
        assert!(matches!(env.connect(to).await, Err(NetError::Unreachable(why)) if why.contains("refused")));
        let nowhere = env.connect(([203, 0, 113, 1], 1).into()).await;
        assert!(matches!(nowhere, Err(NetError::Unreachable(why)) if why.contains("route")));
    });
    run(&it.sim);
}

#[test]
fn a_partition_stops_everything_and_ends_in_a_time_out() {
    let it = scene(2, |_| ());
    let (to, control) = (address(it.server), it.control.clone());
    let (server, host) = (it.server, it.host);
    it.sim.spawn_on(it.server, 0, |env| serve_each(env, swallow));
    it.sim.goal_on(it.host, 0, move |env| async move {
        let stream = env.connect(to).await.expect("a connection");
        control.set_partition(host, server, true);
        let start = env.true_time();
        let refused = env.connect(to).await;
        assert!(matches!(refused, Err(NetError::Unreachable(why)) if why.contains("no answer")));
        send_all(&stream, b"into the void").await.expect("the window takes it");
        let mut byte = [0];
        assert_eq!(receive(&stream, &mut byte).await, Err(NetError::Reset));
        assert!(env.true_time().since(start) > Duration::from_secs(60));
        control.set_partition(host, server, false);
        env.connect(to).await.expect("a connection after the partition");
    });
    run(&it.sim);
}

#[test]
fn a_healed_partition_loses_nothing() {
    let it = scene(3, |_| ());
    let (to, control) = (address(it.server), it.control.clone());
    let (server, host) = (it.server, it.host);
    let got = Rc::new(Cell::new(0));
    let seen = Rc::clone(&got);
    it.sim.spawn_on(it.server, 0, |env| {
        serve_each(env, move |_, stream| {
            let seen = Rc::clone(&seen);
            async move {
                let mut bytes = [0; 1000];
                assert_eq!(receive(&stream, &mut bytes).await, Ok(1000));
                assert_eq!(first_difference(4, 0, &bytes), None);
                seen.set(seen.get() + 1);
            }
        })
    });
    it.sim.goal_on(it.host, 0, move |env| async move {
        let stream = env.connect(to).await.expect("a connection");
        let mut bytes = [0; 1000];
        fill(4, 0, &mut bytes);
        send_all(&stream, &bytes[..400]).await.expect("a send");
        control.set_cut(host, server, Some(0), true);
        send_all(&stream, &bytes[400..]).await.expect("a send");
        sleep(&env, Duration::from_secs(20)).await;
        assert_eq!(got.get(), 0, "bytes crossed a cut");
        control.set_cut(host, server, Some(0), false);
        sleep(&env, Duration::from_secs(20)).await;
        assert_eq!(got.get(), 1);
    });
    run(&it.sim);
}

#[test]
fn a_host_without_power_is_silent_until_it_is_back() {
    for (how, silent) in [(Crash::Power, true), (Crash::Process, false)] {
        let it = scene(4, |_| ());
        let (to, control, server) = (address(it.server), it.control.clone(), it.server);
        it.sim.spawn_on(it.server, 0, |env| serve_each(env, ignore));
        it.sim.goal_on(it.host, 0, move |env| async move {
            let stream = env.connect(to).await.expect("a connection");
            sleep(&env, Duration::from_millis(10)).await;
            control.crash(server, how);
            let mut byte = [0];
            let heard = within(&env, Duration::from_secs(5), receive(&stream, &mut byte)).await;
            assert_eq!(heard.is_none(), silent, "{how:?}: {heard:?}");
            control.restart(server);
            if silent {
                let (error, _) = send_until_error(&stream).await;
                assert_eq!(error, NetError::Reset, "a node that is back knows no old connections");
            }
            let refused = env.connect(to).await;
            assert!(refused.is_err(), "nobody listens after a restart");
        });
        run(&it.sim);
        assert_eq!(it.sim.connection_count(it.server), 0);
    }
}

#[test]
fn a_half_closed_connection_still_carries_the_other_way() {
    let it = scene(5, |_| ());
    let to = address(it.server);
    it.sim.spawn_on(it.server, 0, |env| {
        serve_each(env, |_, stream| async move {
            let mut buf = [0; 64];
            let count = receive(&stream, &mut buf).await.expect("a question");
            send_all(&stream, &buf[..count]).await.expect("an answer after the end of the questions");
        })
    });
    it.sim.goal_on(it.host, 0, move |env| async move {
        let stream = env.connect(to).await.expect("a connection");
        send_all(&stream, b"question").await.expect("a send");
        stream.finish_sending();
        let mut buf = [0; 64];
        assert_eq!(receive(&stream, &mut buf).await, Ok(8));
        assert_eq!(&buf[..8], b"question");
    });
    run(&it.sim);
}

#[test]
fn a_full_backlog_makes_hosts_wait() {
    let it = scene(6, |profile| profile.net.backlog = 1);
    let to = address(it.server);
    let open = Signal::default();
    let gate = open.clone();
    it.sim.spawn_on(it.server, 0, |env| async move {
        let listener = env.listen(to).expect("the port is free");
        gate.wait().await;
        loop {
            let _ = listener.accept().await;
        }
    });
    let connected = Rc::new(Cell::new(0));
    for _ in 0..4 {
        let count = Rc::clone(&connected);
        it.sim.goal_on(it.host, 0, move |env| async move {
            env.connect(to).await.expect("a connection in the end");
            count.set(count.get() + 1);
        });
    }
    it.sim.goal_on(it.host, 0, move |env| async move {
        sleep(&env, Duration::from_millis(500)).await;
        assert_eq!(connected.get(), 1, "more connections than the backlog holds");
        open.set();
    });
    run(&it.sim);
    assert!(it.sim.marks().count("net: backlog full") >= 3);
}

#[test]
fn a_stall_holds_one_direction_up() {
    let it = scene(7, |profile| {
        profile.net.stall = Rate::ALWAYS;
        profile.net.stall_max = Duration::from_secs(10);
    });
    let (to, control) = (address(it.server), it.control.clone());
    it.sim.spawn_on(it.server, 0, |env| {
        serve_each(env, |_, stream| async move {
            let mut byte = [0];
            let _ = receive(&stream, &mut byte).await;
            let _ = send_all(&stream, &byte).await;
        })
    });
    it.sim.goal_on(it.host, 0, move |env| async move {
        let stream = env.connect(to).await.expect("a connection");
        let start = env.now();
        send_all(&stream, b"x").await.expect("a send");
        let mut byte = [0];
        assert_eq!(receive(&stream, &mut byte).await, Ok(1));
        assert!(env.now().since(start) > Duration::from_millis(100), "two stalls went unnoticed");
        control.calm_network();
        let stream = env.connect(to).await.expect("a connection");
        let start = env.now();
        send_all(&stream, b"x").await.expect("a send");
        assert_eq!(receive(&stream, &mut byte).await, Ok(1));
        assert!(env.now().since(start) < Duration::from_millis(100), "a calm network stalls");
    });
    run(&it.sim);
}

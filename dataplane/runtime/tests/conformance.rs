//! The conformance suite, the same that the simulator passes, on Linux.

mod common;

use std::net::SocketAddr;

use ashlar_env::{Disk, Mesh};
use ashlar_runtime::{Device, OpenDevice, OpenOptions, ReactorEnv, Runtime, RuntimeConfig, Spin};
use ashlar_sim::conformance::{buffers, clock, disk, mesh, net, spawn};
use common::{SHORT, runtime};

/// Runs `test` as a task of a reactor of its own, asleep whenever it can and spinning for a while.
fn on_reactor<F: Future<Output = ()> + 'static>(test: impl FnOnce(ReactorEnv) -> F + Copy + Send + 'static) {
    for spin in [Spin::NEVER, SHORT] {
        let runtime = runtime::<()>(1, spin);
        runtime.reactors()[0].call(move |env, _| test(env)).wait().unwrap();
    }
}

#[test]
fn clock_and_tasks() {
    on_reactor(|env| async move {
        clock::all(env.clone()).await;
        spawn::all(env).await;
    });
}

#[test]
fn buffers_on_a_slab() {
    on_reactor(buffers::all);
}

#[test]
fn network() {
    on_reactor(|env| net::all(env, SocketAddr::from(([127, 0, 0, 1], 0))));
    // A machine without IPv6 has no such loopback address.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        on_reactor(|env| net::all(env, "[::1]:0".parse().unwrap()));
    }
}

async fn resizable(env: ReactorEnv, device: Device) {
    disk::all(env.clone(), device.clone()).await;
    disk::resizes(env, device).await;
}

#[test]
fn memory_disk() {
    on_reactor(|env| async move {
        let device = Device::memory(disk::BYTES_MIN);
        assert_eq!(device.info().size_bytes, disk::BYTES_MIN);
        resizable(env, device).await;
    });
}

#[test]
fn file_disks() {
    for direct in [true, false] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = OpenOptions { direct, ..OpenOptions::default() };
        for (name, ring_depth) in [("deep", 512), ("shallow", 2)] {
            let open = OpenDevice::create(&folder.path().join(name), disk::BYTES_MIN, options).unwrap();
            let config = RuntimeConfig { ring_depth, buffer_bytes: 16 << 20, ..RuntimeConfig::default() };
            let runtime = Runtime::<()>::start(config).unwrap();
            let answer = runtime.reactors()[0].call(|env, _| {
                let device = open.attach(&env).unwrap();
                resizable(env, device)
            });
            answer.wait().unwrap();
        }
    }
}

#[test]
fn links() {
    for (reactors, spin) in [(1, SHORT), (2, Spin::NEVER), (3, SHORT)] {
        let runtime = runtime::<u64>(reactors, spin);
        let answers: Vec<_> = runtime
            .reactors()
            .iter()
            .map(|reactor| {
                reactor.call(|env, end| async move {
                    mesh::participate(env, end.clone()).await;
                    end.here()
                })
            })
            .collect();
        for (answer, reactor) in answers.into_iter().zip(runtime.reactors()) {
            assert_eq!(answer.wait(), Ok(reactor.id()));
        }
        runtime.reactors()[0].call(|_, end| mesh::links_are_bounded(end)).wait().unwrap();
    }
}

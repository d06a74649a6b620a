//! A process that is killed while it changes the control state, again and again.
//!
//! The parent runs this very test program as a child, which creates volumes and says which ones have
//! been acknowledged. Whatever it said before it was killed must be there afterwards.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use ashlar_cluster::state::{Action, Backing, Command, NewVolume, State, VolumeId};
use ashlar_cluster::store::Store;

const FILE_OF_CHILD: &str = "ASHLAR_TEST_KILL_FILE";

fn create(index: u64) -> Command {
    let id = VolumeId(uuid::Uuid::from_u128(u128::from(index) + 1));
    let new = NewVolume {
        id,
        name: format!("v{index}").parse().unwrap(),
        backing: Backing::Memory,
        size_bytes: Some(4096),
        block_size_bytes: None,
        read_only: false,
        compression: None,
        copies: None,
    };
    Command { time_ms: index, action: Action::CreateVolume(new) }
}

/// The child: does nothing when it is run as a test of its own.
#[test]
fn child() {
    let Some(path) = std::env::var_os(FILE_OF_CHILD) else { return };
    let (mut store, mut state) = Store::open(Path::new(&path)).unwrap();
    // Ends by itself if the parent does not kill it.
    for _ in 0..5_000 {
        let command = create(state.applied());
        let before = state.clone();
        state.apply(&command).unwrap();
        store.append(&command, &before, &state).unwrap();
        // The test harness captures `println!`, not this.
        let mut out = std::io::stdout().lock();
        if writeln!(out, "acknowledged {}", state.applied()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kills() {
    if std::env::var_os(FILE_OF_CHILD).is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.redb");
    let mut total = 0;
    for round in 0..8u64 {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(FILE_OF_CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        let parse = |line: String| line.rsplit_once("acknowledged ").and_then(|(_, n)| n.parse::<u64>().ok());
        // Lets it work for a while, different in each round, and kills it at whatever it is doing.
        while acknowledged < total + 5 {
            let line = lines.next().expect("the child lives").unwrap();
            acknowledged = parse(line).unwrap_or(acknowledged);
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged = parse(line).unwrap_or(acknowledged);
        }

        let (store, state) = Store::open(&path).unwrap();
        // The command in flight may be there as well.
        assert!(
            state.applied() == acknowledged || state.applied() == acknowledged + 1,
            "{} kept, {acknowledged} acknowledged",
            state.applied()
        );
        let mut expected = State::default();
        for index in 0..state.applied() {
            expected.apply(&create(index)).unwrap();
        }
        assert_eq!(state.hash(), expected.hash());
        total = state.applied();
        drop(store);
    }
    assert!(total >= 40);
}

//! Signals that must not end a node, and a log that nobody reads any more.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ashlar_cluster::client::Client;

use super::node::{PATIENCE, Place};

#[test]
fn hangup_says_that_nothing_is_reloaded_and_changes_nothing() {
    let place = Place::new();
    let mut node = place.start();
    node.signal("HUP");
    let deadline = Instant::now() + PATIENCE;
    while !node.log().contains("restart") {
        assert!(Instant::now() < deadline, "{}", node.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    node.assert_well();
    node.stop();
}

/// Whoever read the log may go away; each further line then fails to be written.
#[test]
fn a_closed_log_ends_nothing() {
    let place = Place::new();
    let mut child = place.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = child.stderr.take().unwrap();
    let mut text = String::new();
    while !text.contains(" ready ") || !text.ends_with('\n') {
        let mut byte = [0];
        assert_eq!(log.read(&mut byte).unwrap(), 1, "{text}");
        text.push(byte[0] as char);
    }
    drop(log);
    let line = text.lines().last().unwrap();
    let api = line.split_once("api=").unwrap().1.split_whitespace().next().unwrap();
    let client = Client::new(api);
    // Each refusal is a line of the log, from the control thread.
    for _ in 0..3 {
        assert_eq!(client.delete_volume("nothing").unwrap_err().exit_code, 3);
    }
    let kill = std::process::Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
    assert!(kill.unwrap().success());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
}

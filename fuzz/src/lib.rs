//! The fuzz targets of what is read from files, disks and the API, as functions. `examples/seeds.rs` writes the
//! corpora.

use ashlar_cluster::api::{
    AddDeviceRequest, AllowHostRequest, AnaStateRequest, AttachVolumeRequest, CloneVolumeRequest,
    CreateHostRequest, CreateSnapshotRequest, CreateTargetRequest, CreateVolumeRequest,
    RestoreSnapshotRequest, UpdateGroupRequest, UpdateTargetRequest, UpdateVolumeRequest,
};
use ashlar_cluster::state::{Command, SnapshotName, SnapshotVolumeName, State};
use ashlar_config::{Bytes, Config, duration};
use ashlar_env::reservation::{HostId, ReservationAction, ReservationType};
use ashlar_volume::Reservations;
use serde_json::Value;

/// A node's file: accepted or refused with lines that exist, never a panic. Its lines, one by one, are sizes and
/// durations as well.
///
/// # Panics
/// If the parser breaks a rule.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse("node.toml", text) {
        Ok(config) => drop(config.warnings()),
        Err(error) => assert!(error.to_string().starts_with("error: "), "{error}"),
    }
    for line in text.lines() {
        if let Ok(bytes) = line.parse::<Bytes>() {
            assert_eq!(bytes.to_string().parse::<Bytes>().ok(), Some(bytes), "{line}");
        }
        if let Ok(time) = duration::parse(line) {
            assert_eq!(duration::parse(&duration::display(time)).ok(), Some(time), "{line}");
        }
    }
}

/// A stored reservation state: what is accepted survives the round trip, and so does what becomes of it by the
/// actions that follow the first line.
///
/// # Panics
/// If a state that was accepted, or made, could not be read back.
pub fn reservation_record(data: &[u8]) {
    let (record, actions) = data.iter().position(|byte| *byte == b'\n').map_or((data, &[][..]), |at| {
        let (record, rest) = data.split_at(at);
        (record, &rest[1..])
    });
    let Ok(mut state) = serde_json::from_slice::<Reservations>(record) else { return };
    read_back(&state);
    for action in actions.chunks_exact(4).take(600) {
        let before = state.clone();
        let host = HostId([action[0] & 7; 16]);
        let acted = state.apply(host, self::action(action[1], u64::from(action[2]), action[3]));
        assert!(acted.is_ok() || state == before, "what fails changes nothing");
        read_back(&state);
    }
}

fn read_back(state: &Reservations) {
    let text = serde_json::to_vec(state).expect("a record is JSON");
    assert_eq!(&serde_json::from_slice::<Reservations>(&text).expect("what was written is read"), state);
}

fn action(which: u8, key: u64, more: u8) -> ReservationAction {
    use ReservationAction as A;
    let other = u64::from(more >> 4);
    let kind = ReservationType::from_code(1 + (more & 15) % 6).expect("1 to 6");
    let ignore_key = more & 1 != 0;
    let persist = [None, Some(false), Some(true)][usize::from(more >> 1 & 3) % 3];
    match which % 9 {
        0 => A::Register { key: key.max(1), persist },
        1 => A::Unregister { key, ignore_key, persist },
        2 => A::Replace { key, new_key: other.max(1), ignore_key, persist },
        3 => A::Acquire { key, kind },
        4 => A::Preempt { key, victim: other, kind, abort: ignore_key },
        5 => A::Release { key, kind },
        6 => A::Clear { key },
        7 => A::SetPersist(ignore_key),
        _ => A::Report,
    }
}

/// Bodies of requests and stored commands: the first byte says which. What is accepted survives the round trip;
/// commands, one a line, go on to a state, which must keep its own rules and be readable afterwards.
///
/// # Panics
/// If a rule is broken.
pub fn api_request(data: &[u8]) {
    let Some((&which, body)) = data.split_first() else { return };
    match which % 16 {
        0 => round_trip::<CreateVolumeRequest>(body),
        1 => round_trip::<UpdateVolumeRequest>(body),
        2 => round_trip::<CreateTargetRequest>(body),
        3 => round_trip::<UpdateTargetRequest>(body),
        4 => round_trip::<AttachVolumeRequest>(body),
        5 => round_trip::<AllowHostRequest>(body),
        6 => round_trip::<AnaStateRequest>(body),
        7 => round_trip::<CreateHostRequest>(body),
        8 => {
            if let Ok(state) = State::decode(body) {
                assert_eq!(State::decode(&state.encode()).as_ref(), Ok(&state));
            }
        }
        9 => commands(body),
        10 => round_trip::<UpdateGroupRequest>(body),
        11 => round_trip::<CreateSnapshotRequest>(body),
        12 => round_trip::<RestoreSnapshotRequest>(body),
        13 => round_trip::<CloneVolumeRequest>(body),
        14 => round_trip::<AddDeviceRequest>(body),
        _ => snapshot_names(body),
    }
}

/// Names, one a line: what is accepted is written as it was read.
fn snapshot_names(body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    for line in text.lines().take(100) {
        match SnapshotName::parse(line) {
            Ok(name) => assert_eq!(name.to_string(), line),
            // Two names are quoted, each of 80 characters that have 10 bytes when they are escaped.
            Err(error) => assert!(error.to_string().len() < 2000, "{error}"),
        }
        if let Ok(name) = SnapshotVolumeName::parse(line) {
            assert_eq!(name.to_string(), line);
        }
    }
}

fn round_trip<T>(body: &[u8])
where
    T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
{
    if let Ok(request) = serde_json::from_slice::<T>(body) {
        let value: Value = serde_json::to_value(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_value::<T>(value).expect("what was written is read"), request);
    }
}

fn commands(body: &[u8]) {
    let mut state = State::default();
    for line in body.split(|byte| *byte == b'\n').take(100) {
        let Ok(command) = serde_json::from_slice::<Command>(line) else { continue };
        let before = state.clone();
        if state.apply(&command).is_err() {
            assert_eq!(state, before, "what is refused changes nothing");
        } else {
            assert_eq!(State::decode(&state.encode()).as_ref(), Ok(&state), "{command:?}");
        }
    }
}

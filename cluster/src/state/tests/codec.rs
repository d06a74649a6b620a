//! The serialized form: the same everywhere, and refused when it is not ours.

use crate::state::testing::*;
use crate::state::*;

fn secret(text: &str) -> Option<ChapSecret> {
    Some(ChapSecret::parse(text).unwrap())
}

fn sample() -> State {
    let mut state = State::default();
    let volume = VolumeId(id_of("shop/db"));
    run(
        &mut state,
        [
            Action::InitNode { id: id_of("node"), name: name("rack1-a") },
            Action::CreateVolume(new_volume("shop/db")),
            Action::CreateTarget(new_target("vmware")),
            Action::CreateHost(new_host("esx1")),
            Action::AttachVolume { target: name("vmware"), volume: volume_name("shop/db"), nsid: Some(5) },
            Action::AllowHost { target: name("vmware"), host: name("esx1") },
            Action::SetAnaState {
                target: name("vmware"),
                group: name("shop"),
                state: AnaState::NonOptimized,
            },
            Action::SetReservation { volume, generation: 3, blob: vec![0, 0xff, 7] },
            Action::AddDevice(new_device("/dev/nvme1n1")),
            Action::AddDevice(new_device("/dev/nvme2n1")),
            Action::CreateVolume(NewVolume { compression: Some(Compression::Lz4), ..log_volume("vm/boot") }),
            Action::CreateSnapshot { snapshot: snapshot_name("vm@a"), id: Some(4) },
            Action::CloneVolume(NewClone {
                id: VolumeId(id_of("vm/test")),
                from: "vm@a".parse().unwrap(),
                name: volume_name("vm/test"),
            }),
            Action::DrainDevice { device: id_of("/dev/nvme1n1") },
        ],
    );
    state
}

/// The same, with a host that has CHAP in both directions.
fn sample_with_chap() -> State {
    let mut state = sample();
    let host = Action::CreateHost(chap_host("win1", "twelve-chars"));
    let mutual = Action::SetChap { host: name("win1"), secret: None, mutual: secret("the-other-way") };
    run(&mut state, [host, mutual]);
    state
}

#[test]
fn decoding_gives_back_what_was_encoded() {
    for state in [State::default(), sample(), sample_with_chap()] {
        let decoded = State::decode(&state.encode()).unwrap();
        assert_eq!(decoded, state);
        assert_eq!(decoded.hash(), state.hash());
        assert_eq!(decoded.volume_names(), state.volume_names());
    }
}

/// The form on disk must not change without a new version: this hash was computed once and stays.
#[test]
fn the_hash_of_a_known_state_is_known() {
    assert_eq!(
        sample().hash().to_string(),
        "9e39e61aee14bc5eb9ccc9806ce02232284fbf64efd5e1187d88c2eeb6b52aef"
    );
    assert_eq!(
        sample_with_chap().hash().to_string(),
        "76e23e4dcb5c64bdde9661545b77b0fce1671c699e6a6b113214bea5c15dae7b"
    );
}

#[test]
fn another_version_is_refused_as_such() {
    let text = String::from_utf8(sample().encode()).unwrap();
    let other = text.replacen("\"format_version\":2", "\"format_version\":3", 1);
    // Its other fields may be anything: only the version is looked at.
    for text in [other.as_str(), "{\"format_version\":3}", "{\"format_version\":3,\"x\":[]}"] {
        let error = State::decode(text.as_bytes()).unwrap_err();
        assert_eq!(error, DecodeError::Version { found: 3 });
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let text = String::from_utf8(sample_with_chap().encode()).unwrap();
    for (from, to, why) in [
        ("\"block_size_bytes\":512", "\"block_size_bytes\":513", "block size"),
        ("\"ana_group_id\":1", "\"ana_group_id\":0", "ANA group id 0"),
        ("\"groups\":{\"shop\"", "\"groups\":{\"shap\"", "has no group"),
        ("\"namespaces\":{\"5\"", "\"namespaces\":{\"0\"", "number 0"),
        ("\"hosts\":[\"esx1\"]", "\"hosts\":[\"esx2\"]", "no host"),
        ("\"non-optimized\"", "\"optimized\"", "optimized"),
        ("\"serial\":\"", "\"serial\":\"x", "serial number"),
        ("\"the-other-way\"", "\"twelve-chars\"", "the same"),
        ("\"iqn\":\"iqn.1998-01.com.vmware:win1\"", "\"nqn\":\"nqn.1998-01.com.vmware:win1\"", "no IQN"),
        ("\"name\":\"vmware\"", "\"name\":\"vmwarf\"", "is filed as vmware"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        match State::decode(changed.as_bytes()) {
            Err(DecodeError::Inconsistent(found)) => assert!(found.contains(why), "{to}: {found}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}

#[test]
fn what_is_no_state_is_refused() {
    let bytes = sample().encode();
    for length in (0..bytes.len()).step_by(7) {
        assert!(State::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
    let text = String::from_utf8(bytes).unwrap();
    for (from, to) in [
        ("\"applied\":14", "\"applied\":-1"),
        ("\"applied\":14", "\"applied\":14,\"surprise\":1"),
        ("\"name\":\"esx1\"", "\"name\":\"e sx1\""),
        ("\"blob\":\"00ff07\"", "\"blob\":\"00ff0\""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert!(matches!(State::decode(changed.as_bytes()), Err(DecodeError::Malformed(_))), "{to}");
    }
}

#[test]
fn commands_survive_the_log() {
    let action = Action::SetReservation { volume: VolumeId(id_of("db")), generation: 9, blob: vec![1, 2, 3] };
    for action in [
        action,
        Action::CreateVolume(new_volume("db")),
        Action::CreateTarget(new_target("t")),
        Action::AttachVolume { target: name("t"), volume: volume_name("db"), nsid: None },
        Action::AddDevice(NewDevice { size_bytes: None, force: true, ..new_device("/d") }),
        Action::CreateVolume(NewVolume {
            backing: Backing::Log { thick: true },
            compression: Some(Compression::None),
            copies: Some(2),
            ..new_volume("db")
        }),
        Action::CreateSnapshot { snapshot: snapshot_name("db@a"), id: Some(u64::MAX) },
        Action::RestoreSnapshot { snapshot: snapshot_name("db@a"), force: true },
        Action::CloneVolume(NewClone {
            id: VolumeId(id_of("c")),
            from: "db@a/db".parse().unwrap(),
            name: volume_name("db/c"),
        }),
        Action::SetGroupPolicy { group: name("db"), compression: Some(Compression::Lz4) },
        Action::CreateHost(chap_host("win1", "twelve-chars")),
        Action::SetChap { host: name("win1"), secret: None, mutual: secret("the-other-way") },
        Action::FinishOperation { operation: 7, failure: Some("stopped".into()) },
    ] {
        let command = command(action);
        let bytes = serde_json::to_vec(&command).unwrap();
        assert_eq!(serde_json::from_slice::<Command>(&bytes).unwrap(), command);
    }
}

/// What a release wrote that knew version 1 only.
pub const VERSION_1: &str = include_str!("version1.json");

#[test]
fn version_1_is_brought_up_to_date() {
    let state = State::decode(VERSION_1.as_bytes()).unwrap();
    assert!(State::is_outdated(VERSION_1.as_bytes()) && !State::is_outdated(&state.encode()));
    assert_eq!(State::decode(&state.encode()).unwrap(), state);
    let group = &state.groups()[&name("shop")];
    assert_eq!((group.ana_group_id, group.policy), (1, Policy::default()));
    assert!(group.snapshots.is_empty() && state.devices().is_empty() && state.operations().is_empty());
    let volume = state.volume(&volume_name("shop/db")).unwrap();
    assert_eq!(volume.origin, None);
    // As if this release had made it.
    let mut made = State::default();
    run(&mut made, [Action::CreateVolume(new_volume("shop/db"))]);
    assert_eq!(made.groups()[&name("shop")].id, group.id);
}

/// The store hashes commands as they are written, so old ones must be written as they were.
#[test]
fn commands_of_version_1_are_written_as_they_were() {
    for text in [
        r#"{"time_ms":1790000000000,"action":{"do":"create_volume","id":"c2e5b92a-5ac4-540e-a804-8109c876bf45","name":"db","backing":{"type":"memory"},"size_bytes":1048576,"block_size_bytes":null,"read_only":false}}"#,
        r#"{"time_ms":1790000000000,"action":{"do":"create_host","id":"89121da0-2e55-5d5f-a79a-2cb81e4676f3","name":"esx1","nqn":"nqn.2014-08.org.example:esx1","iqn":null}}"#,
        r#"{"time_ms":1790000000000,"action":{"do":"create_volume","id":"9cfb3b4b-4565-537a-acc9-eaaa3d589ede","name":"shop/img","backing":{"type":"image","path":"/srv/a.raw"},"size_bytes":1048576,"block_size_bytes":null,"read_only":false}}"#,
    ] {
        let command: Command = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&command).unwrap(), text);
    }
}

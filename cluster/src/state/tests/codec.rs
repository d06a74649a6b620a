//! The serialized form: the same everywhere, and refused when it is not ours.

use crate::state::testing::*;
use crate::state::*;

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
        ],
    );
    state
}

#[test]
fn decoding_gives_back_what_was_encoded() {
    for state in [State::default(), sample()] {
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
        "f68bb592da6eb263c966b5109ca1585bb99850d62bf98d1505d23e76b47bd0f0"
    );
}

#[test]
fn another_version_is_refused_as_such() {
    let text = String::from_utf8(sample().encode()).unwrap();
    let other = text.replacen("\"format_version\":1", "\"format_version\":2", 1);
    // Its other fields may be anything: only the version is looked at.
    for text in [other.as_str(), "{\"format_version\":2}", "{\"format_version\":2,\"x\":[]}"] {
        let error = State::decode(text.as_bytes()).unwrap_err();
        assert_eq!(error, DecodeError::Version { found: 2 });
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let text = String::from_utf8(sample().encode()).unwrap();
    for (from, to, why) in [
        ("\"block_size_bytes\":512", "\"block_size_bytes\":513", "block size"),
        ("\"ana_group_id\":1", "\"ana_group_id\":0", "ANA group id 0"),
        ("\"groups\":{\"shop\"", "\"groups\":{\"shap\"", "has no group"),
        ("\"namespaces\":{\"5\"", "\"namespaces\":{\"0\"", "number 0"),
        ("\"hosts\":[\"esx1\"]", "\"hosts\":[\"esx2\"]", "no host"),
        ("\"non-optimized\"", "\"optimized\"", "optimized"),
        ("\"serial\":\"", "\"serial\":\"x", "serial number"),
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
        ("\"applied\":8", "\"applied\":-1"),
        ("\"applied\":8", "\"applied\":8,\"surprise\":1"),
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
    ] {
        let command = command(action);
        let bytes = serde_json::to_vec(&command).unwrap();
        assert_eq!(serde_json::from_slice::<Command>(&bytes).unwrap(), command);
    }
}

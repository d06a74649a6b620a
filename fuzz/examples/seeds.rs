//! Writes the corpora anew: `cargo run --example seeds` in this folder.

use std::path::Path;
use std::{fs, io};

use ashlar_cluster::api::{AllowHostRequest, CreateHostRequest, CreateTargetRequest};
use ashlar_cluster::state::{
    Action, Backing, Command, Compression, NewClone, NewDevice, NewHost, NewTarget, NewVolume, State,
};
use serde_json::{Value, json};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = [("api_request", requests()), ("config", configs(root)?), ("reservation_record", records())];
    for (target, seeds) in all {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

type Seeds = Vec<(String, Vec<u8>)>;

/// The defaults, and the files of the crate's own tests.
fn configs(root: &Path) -> io::Result<Seeds> {
    let mut seeds = vec![("defaults".to_owned(), ashlar_config::DEFAULTS.as_bytes().to_vec())];
    for entry in fs::read_dir(root.join("../config/tests/errors"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            seeds.push((name, fs::read(path)?));
        }
    }
    seeds.push(("units".to_owned(), b"1GiB\n1.5 MiB\n512\n30s\n1m 30s\n100ms\n0\n-1\n".to_vec()));
    Ok(seeds)
}

fn records() -> Seeds {
    let host = |n: u8| vec![n; 16];
    let record = |kind: Value, holder: Value| {
        let record = json!({
            "generation": 3, "persist": true, "kind": kind, "holder": holder,
            "registrants": [[host(1), 10], [host(2), 20]],
        });
        serde_json::to_vec(&record).expect("JSON")
    };
    let mut actions = record(Value::Null, Value::Null);
    actions.push(b'\n');
    for which in 0..9 {
        actions.extend([1, which, 10, 0x14, 2, which, 20, 0xA1]);
    }
    vec![
        ("held".into(), record(json!(1), json!(host(1)))),
        ("all-hold".into(), record(json!(5), Value::Null)),
        ("impossible".into(), record(json!(1), json!(host(9)))),
        ("actions".into(), actions),
    ]
}

fn requests() -> Seeds {
    let name = |text: &str| text.parse().expect("a name");
    let mut seeds = Seeds::new();
    let mut one = |title: &str, which: u8, value: Value| {
        let body = serde_json::to_vec(&value).expect("JSON");
        seeds.push((title.to_owned(), [vec![which], body].concat()));
    };
    one("volume", 0, json!({ "name": "db/data", "backing": { "type": "memory" }, "size_bytes": 1 << 30 }));
    one("resize", 1, json!({ "size_bytes": 4096, "allow_shrink": true }));
    let listen = vec!["192.0.2.1:4420".parse().expect("an address")];
    let target = CreateTargetRequest { name: "one".into(), listen, ..CreateTargetRequest::default() };
    one("target", 2, json!(target));
    one("target-change", 3, json!({ "any_host": true, "listen": ["[::1]:4420"] }));
    one("attach", 4, json!({ "volume": "db/data", "nsid": 7 }));
    one("allow", 5, json!(AllowHostRequest { host: "esx1".into() }));
    one("ana", 6, json!({ "state": "non_optimized" }));
    let host = CreateHostRequest { name: "esx1".into(), nqn: Some("nqn.2014-08.x:y".into()), iqn: None };
    one("host", 7, json!(host));
    one("group", 10, json!({ "compression": "lz4" }));
    one("snapshot", 11, json!({ "name": "vm42@before-upgrade" }));
    one("restore", 12, json!({ "force": true }));
    one("clone", 13, json!({ "from": "vm42@before-upgrade/boot", "name": "test" }));
    one("device", 14, json!({ "path": "/dev/nvme1n1", "size_bytes": 1_u64 << 40, "force": false }));
    seeds.push(("snapshot-names".into(), b"\x0fvm42@a\nvm42@a/boot\nvm42/boot@a\n@\nvm42@a@b".to_vec()));
    let log = |number: u8, text: &str| {
        Action::CreateVolume(NewVolume {
            id: serde_json::from_value(json!(uuid(number))).expect("an id"),
            name: serde_json::from_value(json!(text)).expect("a name"),
            backing: Backing::Log { thick: number == 6 },
            size_bytes: Some(1 << 30),
            block_size_bytes: None,
            read_only: false,
            compression: Some(Compression::Lz4),
        })
    };
    let cut = |text: &str, id: u64| Action::CreateSnapshot {
        snapshot: text.parse().expect("a name"),
        id: Some(id),
    };
    let device = |number: u8, path: &str| {
        let size_bytes = Some(1 << 40);
        Action::AddDevice(NewDevice { id: uuid(number), path: path.into(), size_bytes, force: false })
    };
    let commands = [
        Action::InitNode { id: uuid(1), name: name("node") },
        Action::CreateVolume(NewVolume {
            id: serde_json::from_value(json!(uuid(2))).expect("an id"),
            name: serde_json::from_value(json!("db/data")).expect("a name"),
            backing: serde_json::from_value(json!({ "type": "memory" })).expect("a backing"),
            size_bytes: Some(1 << 30),
            block_size_bytes: Some(512),
            read_only: false,
            compression: None,
            copies: None,
        }),
        Action::CreateTarget(NewTarget {
            id: uuid(3),
            name: name("one"),
            nqn: None,
            iqn: None,
            listen: Default::default(),
            any_host: false,
        }),
        Action::CreateHost(NewHost {
            id: uuid(4),
            name: name("esx1"),
            nqn: Some(serde_json::from_value(json!("nqn.2014-08.org.nvmexpress:uuid:x")).expect("an NQN")),
            iqn: None,
        }),
        Action::AllowHost { target: name("one"), host: name("esx1") },
        device(10, "/dev/nvme1n1"),
        device(11, "/dev/nvme2n1"),
        log(5, "vm/boot"),
        log(6, "vm/data"),
        cut("vm@a", 3),
        cut("vm@b", 4),
        Action::CloneVolume(NewClone {
            id: serde_json::from_value(json!(uuid(7))).expect("an id"),
            from: "vm@a/boot".parse().expect("a name"),
            name: serde_json::from_value(json!("vm/test")).expect("a name"),
        }),
        Action::RestoreSnapshot { snapshot: "vm@b".parse().expect("a name"), force: false },
        Action::SetGroupPolicy { group: name("vm"), compression: Some(Compression::None) },
        Action::DeleteSnapshot { snapshot: "vm@b".parse().expect("a name") },
        Action::DrainDevice { device: uuid(10) },
        Action::FailDevice { device: uuid(11), why: "it burns".into() },
        Action::FinishOperation { operation: 1, failure: None },
        Action::RemoveDevice { device: uuid(10), force: false },
    ];
    let mut state = State::default();
    let mut lines = vec![9];
    for action in commands {
        let command = Command { time_ms: 1_767_225_600_000, action };
        state.apply(&command).expect("a sound command");
        lines.extend(serde_json::to_vec(&command).expect("JSON"));
        lines.push(b'\n');
    }
    seeds.push(("commands".into(), lines));
    seeds.push(("state".into(), [vec![8], state.encode()].concat()));
    let version_1 = include_bytes!("../../cluster/src/state/tests/version1.json");
    seeds.push(("state-1".into(), [&[8], version_1.as_slice()].concat()));
    seeds
}

fn uuid(n: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([n; 16])
}

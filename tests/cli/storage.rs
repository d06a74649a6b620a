//! Commands of log-structured volumes: devices, groups, snapshots, clones, operations.

use serde_json::{Value, json};

use super::node::{ashlar, run, run_with};

const UUID: &str = "00000000-0000-0000-0000-000000000009";

fn unknown_space() -> Value {
    json!({ "logical_bytes": null, "stored_bytes": null, "shared_bytes": null, "compressed_bytes": null,
            "physical_bytes": null })
}

fn space() -> Value {
    json!({ "logical_bytes": 3_u64 << 30, "stored_bytes": 1 << 30, "shared_bytes": 1 << 30,
            "compressed_bytes": 1 << 30, "physical_bytes": 5_u64 << 29 })
}

fn volume(name: &str, space: Value) -> Value {
    json!({
        "id": UUID, "name": name, "group": "vm", "size_bytes": 10_u64 << 30, "block_size_bytes": 4096,
        "backing": { "type": "log", "thick": false }, "read_only": false, "created_ms": 0, "attached": [],
        "snapshots": 2, "origin": "vm@a", "space": space,
    })
}

fn snapshot(name: &str) -> Value {
    json!({
        "name": name, "group": "vm", "id": 7, "created_ms": 0, "clones": ["vm/test"],
        "volumes": [{ "volume": "vm/boot", "volume_id": UUID, "size_bytes": 1 << 30 },
                    { "volume": "vm/data", "volume_id": UUID, "size_bytes": 2_u64 << 30 }],
        "exclusive_bytes": 1 << 20, "shared_bytes": null,
    })
}

fn device(state: &str) -> Value {
    json!({
        "id": UUID, "path": "/dev/nvme1n1", "size_bytes": 1_u64 << 40, "state": state, "added_ms": 0,
        "space": { "used_bytes": 1_u64 << 39, "free_bytes": null },
    })
}

fn operation(state: &str, done: u64) -> Value {
    let ended = (state != "running").then_some(61_000);
    let mut view = json!({
        "id": 3, "what": "drain device /dev/nvme1n1", "state": state, "started_ms": 0, "ended_ms": ended,
        "done_bytes": done, "total_bytes": 4_u64 << 30,
    });
    if state == "failed" {
        view["failure"] = json!("the other devices are full");
    }
    view
}

#[test]
fn a_volume_is_log_structured_unless_told_otherwise() {
    let created = || vec![(201, volume("vm/boot", unknown_space()))];
    let arguments = ["volume", "create", "boot", "--size", "10GiB", "--group", "vm", "--compress", "lz4"];
    let (stdout, _, seen) = run_with(&arguments, created(), 0);
    assert_eq!(stdout, "created vm/boot: 10 GiB, blocks of 4 KiB, log\n");
    let expected = json!({
        "name": "vm/boot", "backing": { "type": "log", "thick": false }, "size_bytes": 10_u64 << 30,
        "read_only": false, "compression": "lz4",
    });
    assert_eq!(seen[0], ("POST /v1/volumes".to_owned(), expected));
    let (_, _, seen) = run_with(&["volume", "create", "db", "--size", "1G", "--thick"], created(), 0);
    assert_eq!(seen[0].1["backing"], json!({ "type": "log", "thick": true }));
}

#[test]
fn a_clone_is_a_volume() {
    let reply = vec![(201, volume("vm/test", unknown_space()))];
    let (stdout, _, seen) = run_with(&["volume", "clone", "vm@a/boot", "test"], reply, 0);
    assert_eq!(stdout, "cloned vm@a/boot to vm/test: 10 GiB, blocks of 4 KiB, log\n");
    assert_eq!(seen[0], ("POST /v1/clones".to_owned(), json!({ "from": "vm@a/boot", "name": "test" })));
}

#[test]
fn space_is_shown_where_it_is_known() {
    let list = json!({ "volumes": [volume("db", space()), volume("vm/boot", unknown_space())] });
    let (stdout, _, _) = run_with(&["volume", "list"], vec![(200, list)], 0);
    let expected = "\
NAME       SIZE  BLOCK  BACKING  LOGICAL  STORED  SHARED  COMPRESSED  PHYSICAL  STATE  ATTACHED
db       10 GiB   4096  log        3 GiB   1 GiB   1 GiB       1 GiB   2.5 GiB  ok     -
vm/boot  10 GiB   4096  log            -       -       -           -         -  ok     -
";
    assert_eq!(stdout, expected);
    let (stdout, _, _) = run_with(&["volume", "show", "db"], vec![(200, volume("db", space()))], 0);
    for line in ["Snapshots    2\n", "Cloned from  vm@a\n", "Compressed   1 GiB\n", "Physical     2.5 GiB\n"]
    {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
    let (stdout, _, _) = run_with(&["volume", "show", "db"], vec![(200, volume("db", unknown_space()))], 0);
    assert!(!stdout.contains("Physical"), "{stdout}");
}

#[test]
fn groups_are_shown_and_changed() {
    let group = json!({
        "name": "vm", "ana_group_id": 2, "compression": "lz4", "volumes": ["vm/boot", "vm/data"],
        "size_bytes": 3_u64 << 30, "snapshots": 4, "space": space(),
    });
    let (stdout, _, _) = run_with(&["group", "ls"], vec![(200, json!({ "groups": [group] }))], 0);
    let expected = "\
NAME  VOLUMES   SIZE  SNAPSHOTS  COMPRESSION  COPIES  LOGICAL  PHYSICAL
vm          2  3 GiB          4  lz4          1         3 GiB   2.5 GiB
";
    assert_eq!(stdout, expected);
    let mut short = group.clone();
    (short["copies"], short["degraded"]) = (json!(2), json!(true));
    let (stdout, _, _) = run_with(&["group", "show", "vm"], vec![(200, short)], 0);
    assert!(stdout.contains("Copies       2, degraded\n"), "{stdout}");
    let (stdout, _, _) = run_with(&["group", "show", "vm"], vec![(200, group.clone())], 0);
    assert!(stdout.contains("ANA group    2\n") && stdout.contains("Stored       1 GiB\n"), "{stdout}");
    let set = ["group", "set", "vm", "--compress", "lz4"];
    let (stdout, _, seen) = run_with(&set, vec![(200, group)], 0);
    assert_eq!(stdout, "vm is now compressed with: lz4\n");
    assert_eq!(seen[0], ("PATCH /v1/groups/vm".to_owned(), json!({ "compression": "lz4" })));
}

#[test]
fn snapshots_are_made_shown_and_deleted() {
    let one = || (200, snapshot("vm@a"));
    let (stdout, _, seen) = run_with(&["snapshot", "create", "vm@a"], vec![one()], 0);
    assert_eq!(stdout, "created vm@a of 2 volumes\n");
    assert_eq!(seen[0], ("POST /v1/snapshots".to_owned(), json!({ "name": "vm@a" })));
    let list = || vec![(200, json!({ "snapshots": [snapshot("vm@a")] }))];
    let (stdout, _, seen) = run_with(&["snapshot", "list"], list(), 0);
    assert!(stdout.starts_with("NAME  CREATED") && stdout.contains("1 MiB       -  vm/test"), "{stdout}");
    assert_eq!(seen[0].0, "GET /v1/snapshots");
    let (_, _, seen) = run_with(&["snapshot", "list", "vm"], list(), 0);
    assert_eq!(seen[0].0, "GET /v1/snapshots?group=vm");
    let (stdout, _, seen) = run_with(&["snapshot", "show", "vm@a"], vec![one()], 0);
    assert!(stdout.contains("Volumes    vm/boot (1 GiB)\n           vm/data (2 GiB)\n"), "{stdout}");
    assert_eq!(seen[0].0, "GET /v1/snapshots/vm%40a");

    let (_, stderr, seen) = run_with(&["snapshot", "delete", "vm@a"], vec![one()], 2);
    assert!(stderr.contains("--yes") && seen.len() == 1, "{stderr}");
    let sure = ["snapshot", "rm", "vm@a", "-y"];
    let (stdout, _, seen) = run_with(&sure, vec![one(), (204, Value::Null)], 0);
    assert_eq!(stdout, "deleted vm@a; 1 MiB come back\n");
    assert_eq!(seen[1].0, "DELETE /v1/snapshots/vm%40a");
}

#[test]
fn a_restore_says_what_is_lost() {
    let one = || (200, snapshot("vm@a"));
    let (_, stderr, seen) = run_with(&["snapshot", "restore", "vm@a"], vec![one()], 2);
    assert!(stderr.contains("What was written to vm/boot, vm/data since "), "{stderr}");
    assert!(stderr.contains("nothing was done") && seen.len() == 1, "{stderr}");
    let sure = ["snapshot", "restore", "vm@a", "--force", "--yes"];
    let (stdout, _, seen) = run_with(&sure, vec![one(), one()], 0);
    assert_eq!(stdout, "vm/boot, vm/data are as in vm@a again\n");
    assert_eq!(seen[1], ("POST /v1/snapshots/vm%40a/restore".to_owned(), json!({ "force": true })));
}

#[test]
fn a_difference_is_put_together() {
    let part = |volume: &str, offset: u64, next: Option<u64>| {
        let extents = json!([{ "offset_bytes": offset, "length_bytes": 4096 }]);
        let view = json!({ "volume": volume, "from": "vm@a", "to": null, "extents": extents,
                           "next_offset_bytes": next });
        (200, view)
    };
    let replies = vec![
        (200, snapshot("vm@a")),
        part("vm/boot", 0, Some(8192)),
        part("vm/boot", 8192, None),
        part("vm/data", 65536, None),
    ];
    let (stdout, _, seen) = run_with(&["snapshot", "diff", "vm@a"], replies, 0);
    let expected = "\
VOLUME   OFFSET  LENGTH
vm/boot       0    4096
vm/boot    8192    4096
vm/data   65536    4096
vm/boot: 8 KiB in 2 extents
vm/data: 4 KiB in 1 extent
";
    assert_eq!(stdout, expected);
    let asked: Vec<&str> = seen.iter().skip(1).map(|(line, _)| line.as_str()).collect();
    let diff = |rest: &str| format!("GET /v1/snapshots/vm%40a/diff?offset_bytes={rest}");
    assert_eq!(asked, [diff("0&volume=boot"), diff("8192&volume=boot"), diff("0&volume=data")]);

    // One that goes round in circles is left.
    let replies = vec![part("vm/boot", 0, Some(4096)), part("vm/boot", 4096, Some(4096))];
    let one = ["snapshot", "diff", "vm@a/boot", "vm@b", "--output", "json"];
    let (stdout, _, seen) = run_with(&one, replies, 0);
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["volumes"][0]["extents"].as_array().unwrap().len(), 2);
    assert_eq!(seen[0].0, diff("0&to=vm%40b&volume=boot"));
}

#[test]
fn devices_are_added_and_removed() {
    let add = ["device", "add", "/dev/nvme1n1"];
    let (stdout, _, seen) = run_with(&add, vec![(201, device("active"))], 0);
    assert_eq!(stdout, "added /dev/nvme1n1: 1 TiB\n");
    assert_eq!(seen[0].1, json!({ "path": "/dev/nvme1n1", "force": false }));
    let make = ["device", "add", "/srv/disk0", "--size", "64GiB"];
    let (_, _, seen) = run_with(&make, vec![(201, device("active"))], 0);
    assert_eq!(seen[0].1["size_bytes"], 64_u64 << 30);
    let (_, stderr) = run(ashlar(&["device", "add", "/dev/x", "--force"]), 2);
    assert!(stderr.contains("What /dev/x holds is lost") && stderr.contains("--yes"), "{stderr}");

    let list = json!({ "devices": [device("active"), device("failed")] });
    let (stdout, _, _) = run_with(&["device", "list"], vec![(200, list)], 0);
    let expected = "\
PATH           SIZE     USED  FREE  STATE
/dev/nvme1n1  1 TiB  512 GiB     -  active
/dev/nvme1n1  1 TiB  512 GiB     -  failed
";
    assert_eq!(stdout, expected);

    let remove = ["device", "remove", "/dev/nvme1n1"];
    let (_, stderr, _) = run_with(&remove, vec![(200, device("active"))], 2);
    assert!(stderr.contains("emptied and closed; volumes go on"), "{stderr}");
    let sure = [&remove[..], &["--yes"]].concat();
    let replies = vec![(200, device("active")), (202, operation("running", 0))];
    let (stdout, _, seen) = run_with(&sure, replies, 0);
    assert!(stdout.contains("ashlar operation show 3 --watch"), "{stdout}");
    assert_eq!(seen[0].0, "GET /v1/devices/%2Fdev%2Fnvme1n1");
    assert_eq!(seen[1].0, format!("DELETE /v1/devices/{UUID}?force=false"));
    let (stdout, _, _) = run_with(&sure, vec![(200, device("removed")), (204, Value::Null)], 0);
    assert_eq!(stdout, "forgot /dev/nvme1n1\n");
    let force = [&sure[..], &["--force"]].concat();
    let (_, _, seen) = run_with(&force, vec![(200, device("failed")), (204, Value::Null)], 0);
    assert!(seen[1].0.ends_with("?force=true"), "{seen:?}");
    // A device may be named by its identity.
    let (_, _, seen) = run_with(&["device", "show", UUID], vec![(200, device("active"))], 0);
    assert_eq!(seen[0].0, format!("GET /v1/devices/{UUID}"));
}

#[test]
fn an_operation_is_watched_to_its_end() {
    let list = json!({ "operations": [operation("running", 1 << 30), operation("failed", 0)] });
    let (stdout, _, _) = run_with(&["operation", "list"], vec![(200, list)], 0);
    assert!(stdout.contains("25 % of 4 GiB") && stdout.contains("the other devices are full"), "{stdout}");

    let watch = ["operation", "show", "3", "--watch"];
    let replies = [1_u64 << 30, (1 << 30) + 1, 3 << 30].map(|done| (200, operation("running", done)));
    let end = |state: &str| [&replies[..], &[(200, operation(state, 4 << 30))]].concat();
    let (stdout, stderr, _) = run_with(&watch, end("done"), 0);
    assert_eq!(stdout, "drain device /dev/nvme1n1: done, after 1 min 1 s\n");
    let lines: Vec<&str> = stderr.lines().collect();
    let line = |percent: u8| format!("drain device /dev/nvme1n1: {percent} % of 4 GiB");
    assert_eq!(lines, [line(25), line(75)], "a line for each percent, not for each look");
    let (_, stderr, _) = run_with(&watch, end("failed"), 1);
    assert!(stderr.contains("operation 3 did not drain device /dev/nvme1n1: the other"), "{stderr}");

    let remove = ["device", "remove", "/dev/nvme1n1", "--yes", "--watch", "--output", "json"];
    let mut replies = vec![(200, device("active")), (202, operation("running", 0))];
    replies.extend(end("done"));
    let (stdout, _, _) = run_with(&remove, replies, 0);
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), operation("done", 4 << 30));
}

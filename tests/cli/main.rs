//! The built binary as scripts and people meet it: exit codes, what goes to which stream, what is asked of a
//! node. The node is a stand-in that answers each request with a prepared reply.

mod host;
mod node;
mod storage;

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use node::{Node, ashlar, run, run_with};
use serde_json::{Value, json};

fn volume(name: &str, size: u64) -> Value {
    json!({
        "id": "00000000-0000-0000-0000-000000000001", "name": name, "group": name, "size_bytes": size,
        "block_size_bytes": 512, "backing": { "type": "image", "path": "/srv/disk.raw" }, "read_only": false,
        "created_ms": 0, "snapshots": 0, "attached": [{ "target": "vm", "nsid": 1 }],
        "space": { "logical_bytes": null, "stored_bytes": null, "shared_bytes": null, "compressed_bytes": null,
                   "physical_bytes": null },
    })
}

fn target(name: &str) -> Value {
    json!({
        "id": "00000000-0000-0000-0000-000000000002", "name": name,
        "nqn": format!("nqn.2026-11.io.ashlar:{name}"), "iqn": format!("iqn.2026-11.io.ashlar:{name}"),
        "serial": "0123456789ABCDEF0123",
        "namespaces": [{ "nsid": 1, "volume": "db", "volume_id": "00000000-0000-0000-0000-000000000001",
                         "size_bytes": 1 << 30 }],
        "any_host": false, "hosts": ["esx1"], "listen": [], "nvme_addresses": ["10.0.0.11:4420"],
        "iscsi_addresses": ["10.0.0.11:3260"],
        "groups": [{ "group": "db", "ana_group_id": 1, "state": "optimized" }],
        "created_ms": 0, "connections": 0, "controllers": [],
    })
}

fn status(phase: &str) -> Value {
    json!({
        "node": {
            "id": "00000000-0000-0000-0000-000000000003", "name": "a", "version": "0.1.0", "phase": phase,
            "uptime_ms": 61_000, "created_ms": 0, "reactors": 2, "nvme_listen": ["127.0.0.1:4420"],
            "iscsi_listen": ["127.0.0.1:3260"],
            "changes": 1, "state_hash": "00",
        },
        "counts": { "volumes": 1, "targets": 1, "hosts": 0, "connections": 3, "controllers": 1, "sessions": 2 },
        "capacity": { "provisioned_bytes": 1u64 << 30 }, "attention": ["one", "two"],
    })
}

fn refusal(kind: &str) -> Value {
    json!({ "error": {
        "kind": kind, "what": "delete volume db", "why": "because of \u{1b}[31mred",
        "not_lost": "nothing was changed", "next": "detach it first",
    }})
}

#[test]
fn wrong_usage_is_2_and_names_the_word() {
    for (arguments, word) in [
        (&["volum"][..], "volume"),
        (&["volume", "create", "db"], "--size"),
        (&["volume", "create", "db", "--size", "1G", "--memory", "--thick"], "--thick"),
        (&["volume", "create", "db", "--null", "--size", "1G", "--compress", "lz4"], "--compress"),
        (&["volume", "create", "db", "--size", "1G", "--compress", "zip"], "none, lz4"),
        (&["volume", "create", "a/db", "--size", "1G", "--group", "b"], "leave one of them out"),
        (&["volume", "clone", "vm@a"], "<NAME>"),
        (&["snapshot", "create"], "<SNAPSHOT>"),
        (&["snapshot", "diff", "vm"], "GROUP@SNAPSHOT"),
        (&["group", "set", "vm"], "--compress"),
        (&["device", "add"], "<PATH>"),
        (&["debug", "check"], "--device"),
        (&["debug", "dump", "--device", "x", "segment", "7"], "GROUP/LANE/SEGMENT"),
        (&["device", "add", "x", "--size", "big"], "not a size"),
        (&["operation", "show", "x"], "invalid digit"),
        (&["volume", "create", "db", "--memory"], "--size"),
        (&["volume", "create", "db", "--image", "x", "--size", "1G"], "--size"),
        (&["volume", "create", "db", "--null", "--size", "big"], "not a size"),
        (&["volume", "create", "db", "--null", "--size", "1G", "--block-size", "1000"], "512 or 4096"),
        (&["volume", "resize", "db"], "--size"),
        (&["target", "ana", "vm", "db", "best"], "non-optimized"),
        (&["target", "allow", "vm"], "--any-host"),
        (&["target", "create", "vm", "--listen", "somewhere"], "--listen"),
        (&["host", "add", "esx1"], "--nqn"),
        (&["host", "add", "esx1"], "--iqn"),
        (&["host", "rotate", "esx1", "--chap", "--no-chap"], "--no-chap"),
        (&["completions", "cmd"], "fish"),
        (&["man", "nothing"], "no command"),
        (&["status", "--output", "xml"], "json"),
    ] {
        let (stdout, stderr) = run(ashlar(arguments), 2);
        assert_eq!(stdout, "", "{arguments:?}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
}

#[test]
fn no_node_is_5_for_every_command_that_needs_one() {
    // A port that was free a moment ago and that nobody listens on.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for arguments in [
        &["status"][..],
        &["volume", "create", "db", "--image", "disk.raw"],
        &["volume", "list"],
        &["volume", "show", "db"],
        &["volume", "resize", "db", "--size", "1G"],
        &["volume", "rename", "db", "db2"],
        &["volume", "delete", "db", "--yes"],
        &["volume", "create", "db", "--size", "1G"],
        &["volume", "clone", "vm@a/boot", "test"],
        &["group", "list"],
        &["group", "show", "vm"],
        &["group", "set", "vm", "--compress", "lz4"],
        &["snapshot", "create", "vm@a"],
        &["snapshot", "list"],
        &["snapshot", "show", "vm@a"],
        &["snapshot", "diff", "vm@a"],
        &["snapshot", "restore", "vm@a", "--yes"],
        &["snapshot", "delete", "vm@a", "--yes"],
        &["device", "add", "/dev/x"],
        &["device", "list"],
        &["device", "show", "/dev/x"],
        &["device", "remove", "/dev/x", "--yes"],
        &["operation", "list"],
        &["operation", "show", "1"],
        &["operation", "show", "1", "--watch"],
        &["target", "create", "vm"],
        &["target", "attach", "vm", "db"],
        &["target", "detach", "vm", "db"],
        &["target", "allow", "vm", "esx1"],
        &["target", "deny", "vm", "esx1"],
        &["target", "list"],
        &["target", "show", "vm"],
        &["target", "delete", "vm", "--yes"],
        &["target", "connect-help", "vm"],
        &["target", "ana", "vm", "db", "inaccessible"],
        &["host", "add", "esx1", "--nqn", "nqn.2014-08.org.example:esx1"],
        &["host", "add", "win1", "--iqn", "iqn.1991-05.com.microsoft:win1", "--chap", "--mutual"],
        &["host", "rotate", "win1"],
        &["host", "rotate", "win1", "--mutual"],
        &["host", "rotate", "win1", "--no-chap", "--yes"],
        &["host", "list"],
        &["host", "show", "esx1"],
        &["host", "remove", "esx1", "--yes"],
    ] {
        let mut command = ashlar(arguments);
        command.args(["--api", &free]);
        let (stdout, stderr) = run(command, 5);
        assert_eq!(stdout, "", "{arguments:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains(&free), "{stderr}");
        assert!(stderr.contains("nothing was changed") && stderr.contains("ashlar serve"), "{stderr}");
    }
}

#[test]
fn a_refusal_has_its_own_code_and_is_told_in_full() {
    let kinds = [("failed", 1), ("invalid", 2), ("not_found", 3), ("in_use", 4), ("conflict", 4)];
    for (kind, code) in kinds {
        let (stdout, stderr, _) = run_with(&["volume", "show", "db"], vec![(409, refusal(kind))], code);
        assert_eq!(stdout, "");
        let expected = "\
error: cannot delete volume db: because of  [31mred
  nothing was changed
  help: detach it first
";
        assert_eq!(stderr, expected);
    }
}

#[test]
fn an_answer_that_is_no_answer_is_1() {
    run_with(&["volume", "show", "db"], vec![(200, json!("hello"))], 1);
    run_with(&["volume", "show", "db"], vec![(500, json!({}))], 1);
}

#[test]
fn volumes_are_listed_as_table_and_as_json() {
    let list = json!({ "volumes": [volume("db", 10 << 30), volume("logs", 1_000_204_886_016)] });
    let (stdout, _, seen) = run_with(&["volume", "list"], vec![(200, list.clone())], 0);
    let expected = "\
NAME        SIZE  BLOCK  BACKING              LOGICAL  STORED  SHARED  COMPRESSED  PHYSICAL  STATE  ATTACHED
db        10 GiB    512  image /srv/disk.raw        -       -       -           -         -  ok     vm:1
logs  931.51 GiB    512  image /srv/disk.raw        -       -       -           -         -  ok     vm:1
";
    assert_eq!(stdout, expected);
    assert_eq!(seen[0].0, "GET /v1/volumes");
    let (stdout, _, _) = run_with(&["volume", "list", "--output", "json"], vec![(200, list.clone())], 0);
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), list);
}

#[test]
fn an_image_is_named_by_its_absolute_path() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::new(vec![(201, volume("lab", 1 << 20))]);
    let mut command = ashlar(&["volume", "create", "lab", "--image", "disk.raw", "--api", &node.address]);
    command.current_dir(folder.path());
    let (stdout, _) = run(command, 0);
    assert_eq!(stdout, "created lab: 1 MiB, blocks of 512 B, image /srv/disk.raw\n");
    let (line, body) = node.seen().remove(0);
    assert_eq!(line, "POST /v1/volumes");
    let path = folder.path().canonicalize().unwrap().join("disk.raw");
    assert_eq!(body["backing"], json!({ "type": "image", "path": path }));
}

#[test]
fn sizes_are_sent_in_bytes() {
    let arguments = ["volume", "create", "t", "--memory", "--size", "1.5TB", "--block-size", "4KiB"];
    let (_, _, seen) = run_with(&arguments, vec![(201, volume("t", 1_500_000_000_000))], 0);
    let expected = json!({
        "name": "t", "backing": { "type": "memory" }, "size_bytes": 1_500_000_000_000u64,
        "block_size_bytes": 4096, "read_only": false,
    });
    assert_eq!(seen[0].1, expected);
}

#[test]
fn nothing_is_deleted_without_a_yes() {
    for (arguments, view, delete) in [
        (["volume", "delete", "db"], volume("db", 1 << 30), "DELETE /v1/volumes/db"),
        (["target", "delete", "vm"], target("vm"), "DELETE /v1/targets/vm?force=false"),
    ] {
        let (_, stderr, seen) = run_with(&arguments, vec![(200, view.clone())], 2);
        assert!(stderr.contains("--yes") && stderr.contains("nothing was done"), "{stderr}");
        assert_eq!(seen.len(), 1);

        let sure = [&arguments[..], &["--yes"]].concat();
        let (stdout, _, seen) = run_with(&sure, vec![(200, view), (204, Value::Null)], 0);
        assert!(stdout.starts_with("deleted "), "{stdout}");
        assert_eq!(seen[1].0, delete);
    }
}

#[test]
fn a_volume_shrinks_only_when_told_twice() {
    let view = || (200, volume("db", 2 << 30));
    // The node decides on a shrink that was not asked for.
    let grow = ["volume", "resize", "db", "--size", "1GiB"];
    let (_, _, seen) = run_with(&grow, vec![view(), (409, refusal("conflict"))], 4);
    assert_eq!(seen[1].1, json!({ "size_bytes": 1 << 30, "allow_shrink": false }));

    let shrink = ["volume", "resize", "db", "--size", "1GiB", "--shrink"];
    let (_, stderr, seen) = run_with(&shrink, vec![view()], 2);
    assert!(stderr.contains("from 2 GiB to 1 GiB"), "{stderr}");
    assert_eq!(seen.len(), 1);

    let sure = [&shrink[..], &["-y"]].concat();
    let (_, _, seen) = run_with(&sure, vec![view(), (200, volume("db", 1 << 30))], 0);
    assert_eq!(seen[1].1, json!({ "size_bytes": 1 << 30, "allow_shrink": true }));
}

#[test]
fn targets_are_given_volumes_and_hosts() {
    let ok = || (200, target("vm"));
    let (stdout, _, seen) = run_with(&["target", "attach", "vm", "db"], vec![ok()], 0);
    assert_eq!(stdout, "attached db to vm as namespace 1\n");
    assert_eq!(seen[0], ("POST /v1/targets/vm/volumes".to_owned(), json!({ "volume": "db" })));
    let (stdout, _, seen) = run_with(&["target", "allow", "vm", "esx1"], vec![ok()], 0);
    assert_eq!(stdout, "vm now lets in: esx1\n");
    assert_eq!(seen[0].1, json!({ "host": "esx1" }));
    let (_, _, seen) = run_with(&["target", "allow", "vm", "--any-host"], vec![ok()], 0);
    assert_eq!(seen[0], ("PATCH /v1/targets/vm".to_owned(), json!({ "any_host": true })));
    let (_, _, seen) = run_with(&["target", "deny", "vm", "esx1"], vec![(204, Value::Null), ok()], 0);
    assert_eq!(seen[0].0, "DELETE /v1/targets/vm/hosts/esx1");
    let ana = ["target", "ana", "vm", "shop/db", "inaccessible"];
    let (_, _, seen) = run_with(&ana, vec![(200, volume("db", 512)), ok()], 0);
    let asked: Vec<&str> = seen.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(asked, ["GET /v1/volumes/shop%2Fdb", "PUT /v1/targets/vm/ana/db"]);
}

#[test]
fn connect_help_prints_commands_to_paste() {
    let hosts = json!({ "hosts": [host::view("esx1", "mutual"), host::view("other", "none")] });
    let replies = vec![(200, target("vm")), (200, hosts)];
    let (stdout, _, _) = run_with(&["target", "connect-help", "vm"], replies, 0);
    for line in [
        "  nvme connect -t tcp -a 10.0.0.11 -s 4420 -n nqn.2026-11.io.ashlar:vm\n",
        "  iscsiadm -m discovery -t sendtargets -p 10.0.0.11:3260\n",
        "  Set-IscsiChapSecret -ChapSecret 'TARGET-SECRET'\n",
        "--direction=uni --level=required --authname=iqn.1998-01.com.vmware:esx1 --secret='HOST-SECRET'\n",
    ] {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
    assert!(!stdout.contains("note:"), "{stdout}");
}

#[test]
fn status_succeeds_only_when_the_node_is_ready() {
    let (stdout, _, _) = run_with(&["status"], vec![(200, status("ready"))], 0);
    let expected = "\
Node       a, ready, for 1 min 1 s
Version    0.1.0, 2 reactors
NVMe/TCP   127.0.0.1:4420
iSCSI      127.0.0.1:3260
Volumes    1, 1 GiB provisioned
Devices    none
Targets    1
Hosts      0; 1 controller, 2 sessions, 3 connections
Attention  one
           two
";
    assert_eq!(stdout, expected);
    for phase in ["starting", "draining"] {
        let (stdout, _, _) = run_with(&["status"], vec![(200, status(phase))], 1);
        assert!(stdout.contains(phase), "{stdout}");
    }
}

#[test]
fn a_wrong_configuration_is_2_with_every_position() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[node]\nnam = \"a\"\n\n[reactors]\n  spin = 50\n").unwrap();
    let path = file.to_str().unwrap();
    for arguments in [&["config", "check", path][..], &["serve", "--config", path]] {
        let (stdout, stderr) = run(ashlar(arguments), 2);
        assert_eq!(stdout, "");
        for part in [&format!("{path}:2:1"), &format!("{path}:5:10"), "did you mean `name`?", "2 errors"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
    }
    let (stdout, stderr) = run(ashlar(&["config", "check", path, "--output", "json"]), 2);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let errors = report["errors"].as_array().unwrap();
    let places: Vec<_> = errors.iter().map(|error| (&error["line"], &error["column"])).collect();
    assert_eq!(places, [(&json!(2), &json!(1)), (&json!(5), &json!(10))]);
    assert!(stderr.contains("2 errors"), "{stderr}");
}

#[test]
fn a_missing_configuration_is_3() {
    for arguments in [["config", "check", "/nowhere/node.toml"], ["serve", "--config", "/nowhere/node.toml"]]
    {
        let (_, stderr) = run(ashlar(&arguments), 3);
        assert!(stderr.contains("/nowhere/node.toml") && stderr.contains("help: "), "{stderr}");
    }
}

#[test]
fn printed_defaults_pass_the_check() {
    let (defaults, _) = run(ashlar(&["config", "defaults"]), 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, &defaults).unwrap();
    check_is_valid(file.path(), "");
    std::fs::write(&file, "[api]\nlisten = \"0.0.0.0:7070\"\n").unwrap();
    check_is_valid(file.path(), "warning: the API on 0.0.0.0:7070");
}

fn check_is_valid(file: &Path, warning: &str) {
    let (stdout, stderr) = run(ashlar(&["config", "check", file.to_str().unwrap()]), 0);
    assert!(stdout.ends_with(": valid\n") && stdout.starts_with(warning), "{stdout}");
    assert_eq!(stderr, "");
}

#[test]
fn shells_and_manual_readers_are_served() {
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = run(ashlar(&["completions", shell]), 0);
        assert!(script.contains("connect-help"), "{shell}");
    }
    for (arguments, word) in
        [(&["man"][..], "ashlar"), (&["man", "target", "connect-help"], "connect\\-help")]
    {
        let (page, _) = run(ashlar(arguments), 0);
        assert!(page.contains(".TH ") && page.contains(word), "{page}");
    }
    let (version, _) = run(ashlar(&["--version"]), 0);
    assert_eq!(version, format!("ashlar {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut command = ashlar(&["config", "defaults"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_full_disk_under_the_output_is_1() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = ashlar(&["config", "defaults"]);
    let output = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("error: cannot write to standard output: "), "{stderr}");
}

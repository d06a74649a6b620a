//! `ashlar host`: secrets are sent, shown once where they were drawn, and never otherwise.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::node::{Node, ashlar, run, run_with};

/// A host as the API has it.
pub fn view(name: &str, chap: &str) -> Value {
    json!({
        "id": "00000000-0000-0000-0000-000000000004", "name": name,
        "iqn": format!("iqn.1998-01.com.vmware:{name}"), "targets": ["vm"], "controllers": 0, "chap": chap,
        "sessions": 2, "created_ms": 0,
    })
}

const IQN: &str = "iqn.1998-01.com.vmware:esx1";

/// The string at `key` of what was asked of the node.
fn sent<'a>(body: &'a Value, key: &str) -> &'a str {
    body[key].as_str().unwrap_or_else(|| panic!("no {key} in {body}"))
}

#[test]
fn a_host_needs_one_of_its_names() {
    let arguments = ["host", "add", "esx1", "--iqn", IQN];
    let (stdout, _, seen) = run_with(&arguments, vec![(201, view("esx1", "none"))], 0);
    assert_eq!(stdout, "added esx1; let it in with: ashlar target allow TARGET esx1\n");
    assert_eq!(seen[0].1, json!({ "name": "esx1", "iqn": IQN }));
}

#[test]
fn drawn_secrets_are_shown_once_and_differ() {
    let arguments = ["host", "add", "esx1", "--iqn", IQN, "--chap", "--mutual"];
    let (stdout, stderr, seen) = run_with(&arguments, vec![(201, view("esx1", "mutual"))], 0);
    let (chap, mutual) = (sent(&seen[0].1, "chap_secret"), sent(&seen[0].1, "mutual_chap_secret"));
    assert!(chap.len() == 16 && mutual.len() == 16 && chap != mutual, "{chap} {mutual}");
    let lines = [
        "Note this now, it is shown this once:\n".to_owned(),
        format!("  CHAP user           {IQN}\n  CHAP secret         {chap}\n"),
        format!("  mutual CHAP secret  {mutual}\n"),
    ];
    for line in lines {
        assert!(stdout.contains(&line), "{line} in {stdout}");
    }
    assert_eq!(stderr, "");

    let json = [&arguments[..], &["--output", "json"]].concat();
    let (stdout, _, seen) = run_with(&json, vec![(201, view("esx1", "mutual"))], 0);
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(shown["chap_secret"], seen[0].1["chap_secret"]);
    assert_eq!(shown["mutual_chap_secret"], seen[0].1["mutual_chap_secret"]);
    assert_eq!(shown["name"], "esx1");
}

/// A node that refuses has not kept the secret, so nobody needs to see it.
#[test]
fn a_secret_that_was_not_kept_is_not_shown() {
    let refusal = json!({ "error": {
        "kind": "exists", "what": "add host esx1", "why": "it exists", "not_lost": "", "next": "",
    }});
    let arguments = ["host", "add", "esx1", "--iqn", IQN, "--chap"];
    let (stdout, stderr, seen) = run_with(&arguments, vec![(409, refusal)], 4);
    let secret = sent(&seen[0].1, "chap_secret");
    assert!(!stdout.contains(secret) && !stderr.contains(secret), "{stdout}{stderr}");
}

#[test]
fn secrets_of_files_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "from-a-file-1\n").unwrap();
    let arguments =
        ["host", "add", "esx1", "--iqn", IQN, "--chap-secret-file", path, "--mutual-secret-file", "-"];
    let node = Node::new(vec![(201, view("esx1", "mutual"))]);
    let mut command = ashlar(&arguments);
    command.env("ASHLAR_API", &node.address);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from-standard-input").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (_, body) = node.seen().remove(0);
    let both = (sent(&body, "chap_secret"), sent(&body, "mutual_chap_secret"));
    assert_eq!(both, ("from-a-file-1", "from-standard-input"));
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("warning: a CHAP secret of 19 characters"), "{said}");
    assert!(!said.contains(both.0) && !said.contains(both.1), "{said}");

    std::fs::write(&file, "elevenchars").unwrap();
    let bad = ["host", "add", "esx1", "--iqn", IQN, "--chap-secret-file", path];
    let (_, stderr) = run(ashlar(&bad), 2);
    assert!(stderr.contains("12 to 255") && !stderr.contains("elevenchars"), "{stderr}");
    let missing = ["host", "rotate", "esx1", "--chap-secret-file", "/nowhere/secret"];
    run(ashlar(&missing), 3);
    let twice = ["host", "rotate", "esx1", "--chap-secret-file", "-", "--mutual-secret-file", "-"];
    run(ashlar(&twice), 2);
}

#[test]
fn rotation_makes_new_secrets_for_what_there_is() {
    let ok = |chap: &str| (200, view("esx1", chap));
    let (stdout, _, seen) = run_with(&["host", "rotate", "esx1"], vec![ok("mutual"), ok("mutual")], 0);
    assert_eq!(seen[1].0, "PUT /v1/hosts/esx1/chap");
    assert!(stdout.contains(sent(&seen[1].1, "chap_secret")), "{stdout}");
    assert!(stdout.contains(sent(&seen[1].1, "mutual_chap_secret")), "{stdout}");
    let (_, _, seen) = run_with(&["host", "rotate", "esx1"], vec![ok("none"), ok("one-way")], 0);
    assert!(seen[1].1["mutual_chap_secret"].is_null());
    let (_, _, seen) = run_with(&["host", "rotate", "esx1", "--mutual"], vec![ok("mutual")], 0);
    assert!(seen[0].1["chap_secret"].is_null() && seen[0].1["mutual_chap_secret"].is_string());

    let off = ["host", "rotate", "esx1", "--no-chap"];
    let (_, stderr, seen) = run_with(&off, vec![], 2);
    assert!(stderr.contains("--yes") && seen.is_empty(), "{stderr}");
    let sure = [&off[..], &["--yes"]].concat();
    let (stdout, _, seen) = run_with(&sure, vec![(204, Value::Null), ok("none")], 0);
    assert_eq!(
        (stdout.as_str(), seen[0].0.as_str()),
        ("esx1 needs no CHAP now\n", "DELETE /v1/hosts/esx1/chap")
    );
}

#[test]
fn a_host_shows_what_is_asked_of_it() {
    let (stdout, _, _) = run_with(&["host", "show", "esx1"], vec![(200, view("esx1", "one-way"))], 0);
    for line in ["IQN          iqn.1998-01.com.vmware:esx1\n", "CHAP         one-way\n", "Sessions     2\n"] {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
}

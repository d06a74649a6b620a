//! iSCSI as an initiator meets it: what is served, to whom, and what becomes of secrets.

use ashlar_cluster::api::{ChapMode, ChapRequest, CreateHostRequest, RefusalKind};
use ashlar_cluster::state::ChapSecret;
use ashlar_nvmeof::wire::Status;
use ashlar_nvmeof::wire::sqe::io as opcode;
use ashlar_perf::client::{Data, io};

use super::initiator::*;
use super::node::{Host, Node, Place};

const WIN1: &str = "iqn.1991-05.com.microsoft:win1";
const STRANGER: &str = "iqn.2014-08.org.example:stranger";

fn iqn(target: &str) -> String {
    format!("iqn.2026-11.io.ashlar:{target}")
}

fn secret(text: &str) -> Option<ChapSecret> {
    Some(ChapSecret::parse(text).unwrap())
}

/// A node with target "vm", whose LUN 1 is an image of 1 MiB, for our NVMe host and `WIN1`.
fn serve(place: &Place, chap: Option<ChapSecret>) -> Node {
    let node = place.start();
    node.image("db", &place.image("db.raw", 1 << 20));
    node.target("vm", &["db"]);
    let request = CreateHostRequest {
        name: "win1".into(),
        iqn: Some(WIN1.into()),
        chap_secret: chap,
        ..CreateHostRequest::default()
    };
    node.client.create_host(&request).unwrap();
    node.client.allow_host("vm", "win1").unwrap();
    node
}

fn login(node: &Node, initiator: &str, target: &str) -> Result<Initiator, LoginStatus> {
    Initiator::login(&node.iscsi, initiator, Some(&iqn(target)))
}

#[test]
fn both_protocols_serve_the_same_blocks() {
    let place = Place::new();
    let node = serve(&place, None);
    let mut initiator = login(&node, WIN1, "vm").unwrap();
    initiator.clear_attention(1);
    let mut host = node.connect("vm");
    assert_eq!(initiator.write(1, 5, &[0xA5; 512]).status, GOOD);
    assert_eq!(host.read(1, 5, 512), [0xA5; 512]);
    assert_eq!(host.write(1, 6, &[0x3C; 512]), Status::SUCCESS);
    assert_eq!(initiator.read(1, 6), [0x3C; 512]);
    // What both did is counted together.
    let io = node.client.volume("db").unwrap().io.unwrap();
    assert_eq!((io.reads, io.writes, io.read_bytes, io.written_bytes), (2, 2, 1024, 1024));
    let metrics = node.metrics();
    for line in
        ["ashlar_iscsi_reads_total 1", "ashlar_iscsi_written_bytes_total 512", "ashlar_nvme_reads_total 1"]
    {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn sessions_are_shown_while_they_last() {
    let place = Place::new();
    let node = serve(&place, None);
    let initiator = login(&node, WIN1, "vm").unwrap();
    let target = node.client.target("vm").unwrap();
    assert_eq!(target.iscsi_addresses[0].to_string(), node.iscsi);
    let [session] = &target.sessions[..] else { panic!("{:?}", target.sessions) };
    assert_eq!((session.initiator.as_str(), session.host.as_deref()), (WIN1, Some("win1")));
    assert_eq!((session.isid.as_str(), session.portal), ("800000010001", 1));
    let host = node.client.host("win1").unwrap();
    assert_eq!((host.sessions, host.chap), (1, ChapMode::None));
    let counts = node.client.status().unwrap().counts;
    assert_eq!((counts.sessions, counts.connections), (1, 1));
    drop(initiator);
    node.wait_until("the session is gone", || node.client.target("vm").unwrap().sessions.is_empty());
}

#[test]
fn only_hosts_that_are_allowed_log_in() {
    let place = Place::new();
    let node = serve(&place, None);
    assert_eq!(login(&node, STRANGER, "vm").err(), Some(NOT_AUTHORIZED));
    assert_eq!(login(&node, WIN1, "none").err(), Some(TARGET_NOT_FOUND));
    // Names compare without regard to case.
    login(&node, &WIN1.to_uppercase().replace("IQN.", "iqn."), "vm").unwrap();
    let seen = |who: &str| Initiator::login(&node.iscsi, who, None).unwrap().send_targets();
    let records = [format!("TargetName={}", iqn("vm")), format!("TargetAddress={},1", node.iscsi)];
    assert_eq!(seen(WIN1), records);
    assert_eq!(seen(STRANGER), Vec::<String>::new());

    node.client.set_any_host("vm", true).unwrap();
    login(&node, STRANGER, "vm").unwrap();
    node.client.set_any_host("vm", false).unwrap();
    assert_eq!(login(&node, STRANGER, "vm").err(), Some(NOT_AUTHORIZED));
}

#[test]
fn chap_is_asked_for_in_either_direction() {
    let place = Place::new();
    let node = serve(&place, secret("first-secret-1"));
    let chap =
        |secret, mutual| Initiator::login_chap(&node.iscsi, (WIN1, secret), &iqn("vm"), mutual).map(drop);
    assert_eq!(login(&node, WIN1, "vm").err(), Some(AUTHENTICATION_FAILED));
    assert_eq!(chap("first-secret-1", None), Ok(()));
    assert_eq!(chap("wrong-secret-1", None), Err(AUTHENTICATION_FAILED));
    // One way only: the target has nothing to prove itself by.
    assert_eq!(chap("first-secret-1", Some("second-secret-2")), Err(AUTHENTICATION_FAILED));

    let mutual = ChapRequest { mutual_chap_secret: secret("second-secret-2"), ..ChapRequest::default() };
    node.client.set_chap("win1", &mutual).unwrap();
    assert_eq!(chap("first-secret-1", Some("second-secret-2")), Ok(()));
    let rotated = ChapRequest { chap_secret: secret("third-secret-3"), ..ChapRequest::default() };
    node.client.set_chap("win1", &rotated).unwrap();
    assert_eq!(chap("first-secret-1", None), Err(AUTHENTICATION_FAILED));
    assert_eq!(chap("third-secret-3", Some("second-secret-2")), Ok(()));
    node.client.clear_chap("win1").unwrap();
    login(&node, WIN1, "vm").unwrap();
}

/// Secrets outlive a restart, in a file that nobody else reads, and are in nothing that people read.
#[test]
fn secrets_are_kept_and_shown_nowhere() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let text = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), text + "[log]\nlevel = \"trace\"\n").unwrap();
    let node = serve(&place, None);
    let both =
        ChapRequest { chap_secret: secret("first-secret-1"), mutual_chap_secret: secret("second-secret-2") };
    node.client.set_chap("win1", &both).unwrap();
    let (code, said) = node.cli(&["host", "rotate", "win1", "--mutual-secret-file", "/dev/null"]);
    assert_eq!(code, 2, "{said}");
    node.stop();
    let mode = std::fs::metadata(place.data().join("control.redb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let node = place.start();
    let login = |secret| {
        Initiator::login_chap(&node.iscsi, (WIN1, secret), &iqn("vm"), Some("second-secret-2")).map(drop)
    };
    assert_eq!(login("first-secret-1"), Ok(()));
    assert_eq!(login("wrong-secret-1"), Err(AUTHENTICATION_FAILED));
    let mut seen = node.metrics();
    for command in [
        &["host", "show", "win1"][..],
        &["host", "list", "--output", "json"],
        &["target", "show", "vm"],
        &["target", "connect-help", "vm"],
        &["status", "--output", "json"],
    ] {
        let (code, said) = node.cli(command);
        assert_eq!(code, 0, "{said}");
        seen.push_str(&said);
    }
    seen.push_str(&std::fs::read_to_string(place.path("log")).unwrap());
    assert!(seen.contains("give host win1 CHAP secrets") && seen.contains("HOST-SECRET"), "{seen}");
    for word in ["first-secret-1", "second-secret-2", "wrong-secret-1"] {
        assert!(!seen.contains(word), "{word} in {seen}");
    }
}

#[test]
fn a_node_stops_with_initiators_logged_in() {
    let place = Place::new();
    let node = serve(&place, None);
    let mut initiator = login(&node, WIN1, "vm").unwrap();
    initiator.clear_attention(1);
    assert_eq!(initiator.write(1, 0, &[7; 512]).status, GOOD);
    node.stop();
    let node = place.start();
    let mut initiator = login(&node, WIN1, "vm").unwrap();
    initiator.clear_attention(1);
    assert_eq!(initiator.read(1, 0), [7; 512]);
}

#[test]
fn a_denied_host_is_cut_off() {
    let place = Place::new();
    let node = serve(&place, None);
    let _initiator = login(&node, WIN1, "vm").unwrap();
    let error = node.client.delete_host("win1").unwrap_err();
    assert_eq!(error.refusal.kind, RefusalKind::InUse);
    node.client.deny_host("vm", "win1").unwrap();
    node.wait_until("the session is gone", || node.client.target("vm").unwrap().sessions.is_empty());
    assert_eq!(login(&node, WIN1, "vm").err(), Some(NOT_AUTHORIZED));
}

/// PERSISTENT RESERVE OUT with this service action and type.
fn reserve_out(initiator: &mut Initiator, action: u8, kind: u8, key: u64, action_key: u64) {
    let cdb = [0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0];
    let list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
    let ended = initiator.command(1, &cdb, &list, 0);
    assert_eq!(ended.status, GOOD, "action {action}: {ended:?}");
}

/// An NVMe reservation command with two keys.
fn reserve(host: &mut Host, opcode: u8, cdw10: u32, keys: [u64; 2]) {
    let mut sqe = io::flush(1);
    (sqe.opcode, sqe.cdw10) = (opcode, cdw10.into());
    let keys = keys.map(u64::to_le_bytes).concat();
    assert_eq!(host.call(sqe, Data::ToController(16), &keys).0, Status::SUCCESS);
}

/// One reservation holds for both protocols, and who loses it to the other hears of it.
#[test]
fn reservations_hold_across_protocols() {
    const WRITE_EXCLUSIVE: u8 = 1;
    let place = Place::new();
    let node = serve(&place, None);
    let mut initiator = login(&node, WIN1, "vm").unwrap();
    initiator.clear_attention(1);
    let mut host = node.connect("vm");
    reserve_out(&mut initiator, 0, 0, 0, 0x11);
    reserve_out(&mut initiator, 1, WRITE_EXCLUSIVE, 0x11, 0);
    assert_eq!(initiator.write(1, 0, &[1; 512]).status, GOOD);
    assert_eq!(host.write(1, 0, &[2; 512]), Status::RESERVATION_CONFLICT);
    assert_eq!(host.read(1, 0, 512), [1; 512]);

    reserve(&mut host, opcode::RESERVATION_REGISTER, 0, [0, 0x22]);
    let preempt = 1 | u32::from(WRITE_EXCLUSIVE) << 8;
    reserve(&mut host, opcode::RESERVATION_ACQUIRE, preempt, [0x22, 0x11]);
    assert_eq!(host.write(1, 0, &[2; 512]), Status::SUCCESS);
    let told = initiator.command(1, &[0; 6], &[], 0);
    assert_eq!((told.status, told.sense.map(|(key, _)| key)), (CHECK_CONDITION, Some(6)), "{told:?}");
    assert!(matches!(told.sense, Some((6, 0x2A03 | 0x2A05))), "{told:?}");
    initiator.clear_attention(1);
    assert_eq!(initiator.write(1, 0, &[3; 512]).status, RESERVATION_CONFLICT);
    assert_eq!(initiator.read(1, 0), [2; 512]);
}

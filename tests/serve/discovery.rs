//! What discovery tells hosts, at the ports for I/O and at those for discovery alone.

use ashlar_nvmeof::view::DISCOVERY_NQN;
use ashlar_nvmeof::wire::Status;
use ashlar_perf::client::{ClientError, Controller, HostOptions};

use super::node::{Host, Node, Place, nqn};

/// LID of the discovery log.
const DISCOVERY_LOG: u8 = 0x70;

/// A node with a port for discovery alone, and that port's address.
fn start(place: &Place, referrals: &[&str]) -> (Node, String) {
    let text = std::fs::read_to_string(place.config()).unwrap();
    let more = format!("discovery = [\"127.0.0.1:0\"]\nreferrals = {referrals:?}");
    std::fs::write(place.config(), text.replace("discovery = []", &more)).unwrap();
    let node = place.start();
    let log = node.log();
    let (_, bound) = log.split_once("nvme=[").unwrap();
    let bound: Vec<&str> = bound.split_once(']').unwrap().0.split(", ").collect();
    assert_eq!((bound.len(), bound[0]), (2, node.nvme.as_str()), "{log}");
    let discovery = bound[1].to_owned();
    (node, discovery)
}

/// SUBTYPE, address and NQN of each record that a host sees which asks at `addr`.
fn discover(addr: &str) -> Vec<(u8, String, String)> {
    let mut controller = Controller::connect(&HostOptions::new(addr, DISCOVERY_NQN)).unwrap();
    let log = controller.log_page(DISCOVERY_LOG, 0, 4096).unwrap();
    let records = u64::from_le_bytes(log[8..16].try_into().unwrap()) as usize;
    let text = |field: &[u8]| {
        let end = field.iter().position(|&byte| byte == 0 || byte == b' ').unwrap_or(field.len());
        String::from_utf8(field[..end].to_vec()).unwrap()
    };
    let record = |record: &[u8]| {
        let address = format!("{}:{}", text(&record[512..768]), text(&record[32..64]));
        (record[2], address, text(&record[256..512]))
    };
    log[1024..].chunks_exact(1024).take(records).map(record).collect()
}

#[test]
fn the_log_names_targets_and_other_discovery_services() {
    let place = Place::new();
    let (node, discovery) = start(&place, &["10.1.2.3:8009", "10.1.2.4:4420"]);
    node.target("vm", &[]);
    let target = (2, node.nvme.clone(), nqn("vm"));
    let referral = |address: &str| (1, address.to_owned(), DISCOVERY_NQN.to_owned());
    let referrals = [referral("10.1.2.3:8009"), referral("10.1.2.4:4420")];
    for addr in [&node.nvme, &discovery] {
        let seen = discover(addr);
        assert_eq!(seen[0], target, "{addr}");
        assert_eq!(seen[1..3], referrals, "{addr}");
    }
}

#[test]
fn a_port_for_discovery_serves_no_volume() {
    let place = Place::new();
    let (node, discovery) = start(&place, &[]);
    node.target("vm", &[]);
    let refused = Host::connect(&HostOptions { addr: discovery.clone(), ..node.host("vm") });
    match refused.map(drop) {
        Err(ClientError::Status { status, .. }) => assert_eq!(status, Status::CONNECT_PARAMETER),
        other => panic!("{other:?}"),
    }
    node.connect("vm");
    assert_eq!(discover(&discovery)[0].2, nqn("vm"));
}

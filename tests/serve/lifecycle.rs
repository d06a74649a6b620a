//! From an empty directory to volumes with data, and back after a clean end and after a crash.

use ashlar_cluster::api::{HostList, TargetView, UpdateTargetRequest, VolumeView};
use ashlar_cluster::state::Backing;
use ashlar_nvmeof::wire::Status;
use ashlar_nvmeof::wire::sqe::io as opcode;
use ashlar_perf::client::fabrics::command;
use ashlar_perf::client::{Data, HostOptions};
use zerocopy::little_endian::U32;

use super::node::{Host, Node, Place, volume};

const MIB: u64 = 1 << 20;

/// Everything that must be the same after a restart: what the control state says, without what goes on now.
#[derive(Debug, PartialEq)]
struct Kept {
    node: uuid::Uuid,
    changes: u64,
    state_hash: String,
    volumes: Vec<VolumeView>,
    targets: Vec<TargetView>,
    hosts: HostList,
}

impl Kept {
    fn of(node: &Node) -> Self {
        let status = node.client.status().unwrap();
        let mut volumes = node.client.volumes().unwrap().volumes;
        for volume in &mut volumes {
            assert_eq!(volume.fault, None);
            assert!(volume.io.is_some(), "{} is not served", volume.name);
            volume.io = None;
        }
        let mut targets = node.client.targets().unwrap().targets;
        for target in &mut targets {
            target.nvme_addresses.clear();
            target.iscsi_addresses.clear();
        }
        let hosts = node.client.hosts().unwrap();
        let (id, changes, state_hash) = (status.node.id, status.node.changes, status.node.state_hash);
        Self { node: id, changes, state_hash, volumes, targets, hosts }
    }
}

#[test]
fn what_was_made_is_there_after_a_stop_and_after_a_crash() {
    let place = Place::new();
    let node = place.start();
    let image = place.image("disk.raw", 4 * MIB);
    let first = node.image("disk", &image);
    assert_eq!((first.size_bytes, first.fault), (4 * MIB, None));
    node.client.create_volume(&volume("ram", Backing::Memory, Some(MIB))).unwrap();
    node.client.create_volume(&volume("lab/null", Backing::Null, Some(1 << 40))).unwrap();
    let target = node.target("vm", &["disk", "ram", "lab/null"]);
    assert_eq!(target.serial.len(), 20);
    let block = first.block_size_bytes;

    let mut host = node.connect("vm");
    let nsids = [1, 2, 3].map(|nsid| host.controller.namespace(nsid).unwrap());
    assert_eq!(
        nsids.map(|namespace| namespace.blocks * u64::from(namespace.block_bytes)),
        [4 * MIB, MIB, 1 << 40]
    );
    let uuids = [1, 2, 3].map(|nsid| host.controller.identify(3, nsid).unwrap());
    for (nsid, fill) in [(1, 0xA1), (2, 0xA2)] {
        let data = vec![fill; nsids[nsid as usize - 1].block_bytes as usize];
        assert_eq!(host.write(nsid, 5, &data), Status::SUCCESS);
        assert_eq!(host.flush(nsid), Status::SUCCESS);
        assert_eq!(host.read(nsid, 5, data.len() as u32), data);
    }
    let null_bytes = nsids[2].block_bytes;
    assert_eq!(host.write(3, 5, &vec![1; null_bytes as usize]), Status::SUCCESS);
    assert_eq!(host.read(3, 5, null_bytes), vec![0; null_bytes as usize]);
    let io = node.client.volume("disk").unwrap().io.unwrap();
    assert_eq!((io.reads, io.writes, io.written_bytes, io.flushes), (1, 1, u64::from(block), 1));
    drop(host);
    while node.client.status().unwrap().counts.connections > 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let before = Kept::of(&node);
    assert_eq!((before.volumes.len(), before.targets.len(), before.hosts.hosts.len()), (3, 1, 1));
    node.stop();

    let node = place.start();
    assert_eq!(Kept::of(&node), before);
    let mut host = node.connect("vm");
    assert_eq!([1, 2, 3].map(|nsid| host.controller.identify(3, nsid).unwrap()), uuids);
    assert_eq!(host.read(1, 5, block), vec![0xA1; block as usize]);
    // Memory is lost with its node.
    assert_eq!(host.read(2, 5, nsids[1].block_bytes), vec![0; nsids[1].block_bytes as usize]);
    assert_eq!(host.write(1, 6, &vec![0xB1; block as usize]), Status::SUCCESS);
    assert_eq!(host.flush(1), Status::SUCCESS);
    node.crash();

    let node = place.start();
    let mut host = node.connect("vm");
    assert_eq!(host.read(1, 5, block), vec![0xA1; block as usize]);
    assert_eq!(host.read(1, 6, block), vec![0xB1; block as usize]);
    drop(host);
    while node.client.status().unwrap().counts.connections > 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(Kept::of(&node), before);
    node.stop();
}

#[test]
fn a_host_that_is_not_allowed_is_refused_until_it_is() {
    let place = Place::new();
    let node = place.start();
    node.client.create_volume(&volume("ram", Backing::Memory, Some(MIB))).unwrap();
    node.target("vm", &["ram"]);
    let stranger = HostOptions { hostnqn: "nqn.2014-08.org.example:stranger".into(), ..node.host("vm") };
    let refused = Host::connect(&stranger).err().unwrap().to_string();
    assert!(refused.contains("Connect of the admin queue"), "{refused}");
    let (code, said) = node.cli(&["target", "allow", "vm", "--any-host"]);
    assert_eq!(code, 0, "{said}");
    Host::connect(&stranger).unwrap();
    let (code, said) = node.cli(&["target", "deny", "vm", "--any-host"]);
    assert_eq!(code, 0, "{said}");
    Host::connect(&stranger).err().unwrap();
    node.stop();
}

#[test]
fn a_target_is_served_where_it_listens() {
    let place = Place::new();
    place.configure(&["127.0.0.1:0", "127.0.0.2:0"], "127.0.0.1:0");
    let node = place.start();
    let bound = node.client.status().unwrap().node.nvme_listen;
    node.client.create_volume(&volume("ram", Backing::Memory, Some(MIB))).unwrap();
    node.target("vm", &["ram"]);
    assert_eq!(node.client.target("vm").unwrap().nvme_addresses, bound);
    let at = |address: std::net::SocketAddr| HostOptions { addr: address.to_string(), ..node.host("vm") };
    let hosts = [bound[0], bound[1]].map(|address| Host::connect(&at(address)).unwrap());

    let listen = |listen: &[std::net::SocketAddr]| {
        let request = UpdateTargetRequest { any_host: None, listen: Some(listen.to_vec()) };
        node.client.update_target("vm", &request).unwrap()
    };
    assert_eq!(listen(&bound[1..]).nvme_addresses, bound[1..]);
    let [mut gone, mut kept] = hosts;
    assert!(gone.controller.namespace(1).is_err(), "the controller at the other address has ended");
    kept.controller.namespace(1).unwrap();
    Host::connect(&at(bound[0])).err().unwrap();
    Host::connect(&at(bound[1])).unwrap();
    let elsewhere = listen(&["127.0.0.3:1".parse().unwrap()]);
    assert_eq!(elsewhere.nvme_addresses, []);
    let attention = node.client.status().unwrap().attention;
    assert!(attention.iter().any(|line| line.contains("target vm")), "{attention:?}");
    node.stop();
}

fn keys(first: u64, second: u64) -> [u8; 16] {
    let mut keys = [0; 16];
    keys[..8].copy_from_slice(&first.to_le_bytes());
    keys[8..].copy_from_slice(&second.to_le_bytes());
    keys
}

/// Register (RREGA 0), with CPTPL 11b where it is to last through power loss.
fn register(host: &mut Host, key: u64, persist: bool) -> Status {
    let mut sqe = command(opcode::RESERVATION_REGISTER, 1);
    sqe.cdw10 = U32::new(if persist { 3 << 30 } else { 0 });
    host.call(sqe, Data::ToController(16), &keys(0, key)).0
}

/// Acquire (RACQA 0) of Write Exclusive (RTYPE 1).
fn acquire(host: &mut Host, key: u64) -> Status {
    let mut sqe = command(opcode::RESERVATION_ACQUIRE, 1);
    sqe.cdw10 = U32::new(1 << 8);
    host.call(sqe, Data::ToController(16), &keys(key, 0)).0
}

/// Two hosts register; the first holds the reservation. After a crash of the node it still does.
#[test]
fn a_persistent_reservation_survives_a_crash() {
    let place = Place::new();
    let image = place.image("disk.raw", MIB);
    let node = place.start();
    let block = node.image("disk", &image).block_size_bytes as usize;
    node.target("vm", &["disk"]);
    let other = |node: &Node| HostOptions { host_id: [7; 16], ..node.host("vm") };
    let mut holder = node.connect("vm");
    let mut second = Host::connect(&other(&node)).unwrap();
    assert_eq!(register(&mut holder, 0xA1, true), Status::SUCCESS);
    assert_eq!(register(&mut second, 0xB2, true), Status::SUCCESS);
    assert_eq!(acquire(&mut holder, 0xA1), Status::SUCCESS);
    assert_eq!(second.write(1, 0, &vec![1; block]), Status::RESERVATION_CONFLICT);
    node.crash();

    let node = place.start();
    let mut holder = node.connect("vm");
    let mut second = Host::connect(&other(&node)).unwrap();
    assert_eq!(second.write(1, 0, &vec![1; block]), Status::RESERVATION_CONFLICT);
    assert_eq!(holder.write(1, 0, &vec![2; block]), Status::SUCCESS);
    // Only a registrant may acquire, so both are still registered.
    assert_eq!(acquire(&mut second, 0xB2), Status::RESERVATION_CONFLICT);
    assert_eq!(acquire(&mut holder, 0xA1), Status::SUCCESS);
    let mut report = command(opcode::RESERVATION_REPORT, 1);
    (report.cdw10, report.cdw11) = (U32::new(256 / 4 - 1), U32::new(1));
    let (status, data) = holder.call(report, Data::FromController(256), &[]);
    assert_eq!(status, Status::SUCCESS);
    assert_eq!((data[4], u16::from_le_bytes([data[5], data[6]]), data[9]), (1, 2, 1));
    node.stop();
}

/// Without persistence through power loss, a crash takes the reservation with it.
#[test]
fn a_passing_reservation_ends_with_its_node() {
    let place = Place::new();
    let image = place.image("disk.raw", MIB);
    let node = place.start();
    let block = node.image("disk", &image).block_size_bytes as usize;
    node.target("vm", &["disk"]);
    let mut holder = node.connect("vm");
    assert_eq!(register(&mut holder, 0xA1, false), Status::SUCCESS);
    assert_eq!(acquire(&mut holder, 0xA1), Status::SUCCESS);
    node.crash();
    let node = place.start();
    let mut second = Host::connect(&HostOptions { host_id: [7; 16], ..node.host("vm") }).unwrap();
    assert_eq!(second.write(1, 0, &vec![1; block]), Status::SUCCESS);
    node.stop();
}

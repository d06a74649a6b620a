//! Sequences of real hosts, replayed: the validation of a Windows failover cluster, and VMFS.

use super::*;
use crate::scsi::sense::Asc;

#[test]
fn a_failover_cluster_validates_its_disk() {
    let bench = Bench::new();
    let (one, two) = (bench.login("node1"), bench.login("node2"));
    let (key_1, key_2) = (0x0001_6345_0000_0001, 0x0001_6345_0000_0002);
    // Whatever a former cluster left is cleared by registering over it.
    assert_eq!(bench.out(&one, REGISTER_AND_IGNORE, 0, 0, key_1), None);
    assert_eq!(bench.out(&one, CLEAR, 0, key_1, 0), None);
    // Both register, the first reserves, and sees it at once.
    assert_eq!(bench.out(&one, REGISTER_AND_IGNORE, 0, 0, key_1), None);
    assert_eq!(bench.out(&two, REGISTER, 0, 0, key_2), None);
    assert_eq!(bench.out(&one, RESERVE, WE_RO, key_1, 0), None);
    assert_eq!(bench.held(&one), Some((key_1, WE_RO)));
    // The challenger cannot have it, but it is registered and may write.
    assert_eq!(bench.out(&two, RESERVE, WE_RO, key_2, 0), CONFLICT);
    assert_eq!(bench.try_write(&two), None);
    // The defender renews and changes its key; a wrong one is refused.
    assert_eq!(bench.out(&one, REGISTER, 0, key_2, 9), CONFLICT);
    assert_eq!(bench.out(&one, RESERVE, WE_RO, key_1, 0), None);
    // The challenger finds the defender gone, and takes over.
    assert_eq!(bench.out(&two, PREEMPT, WE_RO, key_2, key_1), None);
    assert_eq!(bench.held(&two), Some((key_2, WE_RO)));
    assert_eq!(bench.attention(&one, 1), Some(Asc::REGISTRATIONS_PREEMPTED));
    assert_eq!(bench.try_write(&one), CONFLICT);
    assert_eq!(bench.try_read(&one), None);
    assert_eq!(bench.out(&one, RESERVE, WE_RO, key_1, 0), CONFLICT);
    // It comes back by its session's reset and registers again.
    bench.reset(&one, 1);
    assert_eq!(bench.attention(&two, 1), Some(Asc::DEVICE_RESET));
    assert_eq!(bench.held(&one), Some((key_2, WE_RO)), "a reset does not end it");
    assert_eq!(bench.out(&one, REGISTER, 0, 0, key_1), None);
    assert_eq!(bench.try_write(&one), None);
    // Orderly failover: released, and taken by the other.
    assert_eq!(bench.out(&two, RELEASE, WE_RO, key_2, 0), None);
    assert_eq!(bench.attention(&one, 1), Some(Asc::RESERVATIONS_RELEASED));
    assert_eq!(bench.out(&one, RESERVE, WE_RO, key_1, 0), None);
    // The end: all is cleared.
    assert_eq!(bench.out(&two, CLEAR, 0, key_2, 0), None);
    assert_eq!(bench.attention(&one, 1), Some(Asc::RESERVATIONS_PREEMPTED));
    assert_eq!((bench.held(&one), bench.keys(&one).1), (None, vec![]));
}

#[test]
fn all_paths_of_a_node_go_with_their_key() {
    let bench = Bench::new();
    let paths = [bench.login_at("node1", 1), bench.login_at("node1", 2)];
    let other = bench.login("node2");
    for path in &paths {
        assert_eq!(bench.out(path, REGISTER_AND_IGNORE, 0, 0, 1), None);
    }
    bench.out(&other, REGISTER, 0, 0, 2);
    assert_eq!(bench.keys(&other).1.len(), 3);
    bench.out(&paths[0], RESERVE, WE_RO, 1, 0);
    assert_eq!(bench.out(&other, PREEMPT, WE_RO, 2, 1), None);
    for path in &paths {
        assert_eq!(bench.attention(path, 1), Some(Asc::REGISTRATIONS_PREEMPTED));
        assert_eq!(bench.try_write(path), CONFLICT);
    }
    assert_eq!(bench.keys(&other).1, [2]);
}

#[test]
fn vmfs_without_ats_and_with_it() {
    let bench = Bench::new();
    let (one, two) = (bench.login("esx1"), bench.login("esx2"));
    // Format: the unit is reserved, written, and released.
    let unit = |host: &Host, opcode| verdict(&bench.send(host, 1, &[opcode, 0, 0, 0, 0, 0], &[]));
    assert_eq!(unit(&one, 0x16), None);
    assert_eq!(bench.try_write(&one), None);
    assert_eq!(unit(&two, 0x16), CONFLICT);
    // ATS of the other is stopped by it.
    let ats = |host: &Host, from: u8, to: u8| {
        let mut cdb = [0; 16];
        (cdb[0], cdb[9], cdb[13]) = (0x89, 8, 1);
        verdict(&bench.send(host, 1, &cdb, &[[from; 512], [to; 512]].concat()))
    };
    assert_eq!(ats(&two, 0, 2), CONFLICT);
    assert_eq!(unit(&one, 0x17), None);
    // Heartbeats: each sees its own, and learns of the other's by a miscompare.
    assert_eq!(ats(&one, 0, 1), None);
    assert_eq!(ats(&two, 0, 2), Some((0xE, 0x1D, 0)));
    assert_eq!(ats(&two, 1, 2), None);
    // Zeroes by WRITE SAME (16), and reclaim by UNMAP.
    let mut zero = [0; 16];
    (zero[0], zero[12]) = (0x93, 0x10);
    assert_eq!(verdict(&bench.send(&one, 1, &zero, &[0; 512])), None);
    assert!(bench.stores[0].bytes()[..0x1000 * 512].iter().all(|&byte| byte == 0));
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend(64_u64.to_be_bytes());
    list.extend(64_u32.to_be_bytes());
    list.extend([0; 4]);
    assert_eq!(verdict(&bench.send(&two, 1, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list)), None);
}

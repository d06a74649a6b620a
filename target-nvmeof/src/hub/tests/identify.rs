//! Identify, byte by byte at the specification's offsets.

use super::*;

fn le(data: &[u8], offset: usize, bytes: usize) -> u128 {
    data[offset..offset + bytes].iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte))
}

fn page(bench: &mut Bench, connection: ConnectionId, cns: u8, nsid: u32) -> Box<[u8]> {
    let done = bench.run(connection, &identify(cns, nsid));
    assert_eq!(done.status, Status::SUCCESS, "CNS {cns:X} NSID {nsid:X}");
    let data = done.data.expect("data");
    assert_eq!(data.len(), 4096);
    data
}

#[test]
fn an_io_controller_at_the_specifications_offsets() {
    let mut bench = Bench::new();
    let (connection, granted) = bench.enabled(&Wish::admin());
    let data = page(&mut bench, connection, 1, 0);
    assert_eq!(&data[4..24], b"SERIAL-1            ");
    assert_eq!(&data[24..64], format!("{:40}", "Ashlar").as_bytes());
    assert_eq!(&data[64..72], b"0.1.0   ");
    assert_ne!(le(&data, 0, 2), 0, "VID");
    assert_ne!(le(&data, 73, 3), 0, "IEEE");
    let fields = [
        ("CMIC", 76, 1, 0b1011),
        ("MDTS", 77, 1, 8),
        ("CNTLID", 78, 2, u128::from(granted.cntlid)),
        ("VER", 80, 4, 0x0001_0400),
        ("OAES", 92, 4, 0x900),
        ("CTRATT", 96, 4, 0x41),
        ("CNTRLTYPE", 111, 1, 1),
        ("CRDT1-3", 128, 6, 0),
        ("OACS", 256, 2, 0),
        ("ACL", 258, 1, 3),
        ("AERL", 259, 1, 3),
        ("FRMW", 260, 1, 3),
        ("LPA", 261, 1, 6),
        ("ELPE", 262, 1, 63),
        ("KAS", 320, 2, 10),
        ("ANATT", 342, 1, 10),
        ("ANACAP", 343, 1, 0x1F),
        ("ANAGRPMAX", 344, 4, 2048),
        ("NANAGRPID", 348, 4, 2048),
        ("SQES", 512, 1, 0x66),
        ("CQES", 513, 1, 0x44),
        ("MAXCMD", 514, 2, 1024),
        ("NN", 516, 4, 4096),
        ("ONCS", 520, 2, 0x1FD),
        ("FUSES", 522, 2, 1),
        ("VWC", 525, 1, 4),
        ("AWUN", 526, 2, 0),
        ("AWUPF", 528, 2, 0),
        ("NWPC", 531, 1, 0),
        ("ACWU", 532, 2, 0),
        ("Copy formats", 534, 2, 1),
        ("SGLS", 536, 4, 0x0030_0001),
        ("MNAN", 540, 4, 4096),
        ("IOCCSZ", 1792, 4, 516),
        ("IORCSZ", 1796, 4, 1),
        ("ICDOFF", 1800, 2, 0),
        ("FCATT", 1802, 1, 0),
        ("MSDBD", 1803, 1, 1),
        ("OFCS", 1804, 2, 0),
    ];
    for (name, offset, bytes, value) in fields {
        assert_eq!(le(&data, offset, bytes), value, "{name}");
    }
    let name = SUBSYSTEM.as_bytes();
    assert_eq!(&data[768..768 + name.len()], name);
    assert!(data[768 + name.len()..1792].iter().all(|&byte| byte == 0));
    let ana_log = 16 + 32 * le(&data, 348, 4) + 4 * le(&data, 540, 4);
    assert!(ana_log <= 128 << 10, "the ANA log fits into the smallest MDTS");
}

#[test]
fn mdts_follows_the_limits() {
    for (bytes, mdts) in [(128 << 10, 5), (256 << 10, 6), (1 << 20, 8)] {
        let limits = Limits { max_transfer_bytes: bytes, ..Limits::default() };
        let mut bench = Bench::with(limits, targets());
        let (connection, _) = bench.enabled(&Wish::admin());
        assert_eq!(page(&mut bench, connection, 1, 0)[77], mdts);
    }
}

#[test]
fn a_discovery_controller_says_so() {
    let mut bench = Bench::new();
    let (connection, granted) = bench.enabled(&Wish::discovery());
    let data = page(&mut bench, connection, 1, 0);
    assert_eq!(data[111], 2, "CNTRLTYPE");
    assert_eq!(le(&data, 92, 4), 1 << 31, "OAES");
    assert_eq!(le(&data, 78, 2), u128::from(granted.cntlid));
    assert_eq!(&data[768..768 + 38], b"nqn.2014-08.org.nvmexpress.discovery\0\0");
    assert_eq!(le(&data, 516, 4), 0, "NN");
    assert!(data[261] & 4 != 0, "LPA b2");
    assert_eq!(le(&data, 536, 4), 0x0030_0001, "SGLS");
    for cns in [0, 2, 3, 5, 6, 7, 8, 0x1C] {
        assert_eq!(bench.run(connection, &identify(cns, 1)).status, Status::INVALID_FIELD, "CNS {cns:X}");
    }
}

#[test]
fn what_the_host_first_read_of_the_volatile_cache_counts() {
    let mut bench = Bench::new();
    let (early, early_granted) = bench.enabled(&Wish::admin());
    let announced = |granted: &Granted| {
        granted.shared.volatile_cache_announced.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(page(&mut bench, early, 1, 0)[525], 4);
    bench.change(|targets| {
        let subsystem = targets.subsystems.get_mut(SUBSYSTEM).unwrap();
        subsystem.namespaces.get_mut(&2).unwrap().volume.volatile_cache = true;
    });
    let (late, late_granted) = bench.enabled(&Wish::admin());
    assert!(!announced(&late_granted), "not before the host has read it");
    assert_eq!(page(&mut bench, late, 1, 0)[525], 5);
    assert!(announced(&late_granted));

    assert_eq!(page(&mut bench, early, 1, 0)[525], 5, "the truth, for tools");
    assert!(!announced(&early_granted), "but its driver does not flush");
    bench.run(early, &property_set(0x14, 0, 0));
    bench.run(early, &property_set(0x14, 0, u64::from(CC_ENABLE)));
    page(&mut bench, early, 1, 0);
    assert!(announced(&early_granted), "a reset makes it read anew");
}

#[test]
fn a_namespace_at_the_specifications_offsets() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let data = page(&mut bench, connection, 0, 2);
    let fields = [
        ("NSZE", 0, 8, 1000),
        ("NCAP", 8, 8, 1000),
        ("NUSE", 16, 8, 1000),
        ("NSFEAT", 24, 1, 0b1_0011),
        ("NLBAF", 25, 1, 0),
        ("FLBAS", 26, 1, 0),
        ("NMIC", 30, 1, 1),
        ("RESCAP", 31, 1, 0xFF),
        ("DLFEAT", 33, 1, 9),
        ("NAWUN", 34, 2, 7),
        ("NAWUPF", 36, 2, 7),
        ("NVMCAP", 48, 16, 4_096_000),
        ("NPWG", 64, 2, 3),
        ("NPWA", 66, 2, 3),
        ("NPDG", 68, 2, 15),
        ("NPDA", 70, 2, 15),
        ("NOWS", 72, 2, 3),
        ("MSSRL", 74, 2, 256),
        ("MCL", 76, 4, 4096),
        ("MSRC", 80, 1, 127),
        ("ANAGRPID", 92, 4, 1),
        ("NSATTR", 99, 1, 0),
        ("EUI64", 120, 8, 0),
        ("LBAF0.MS", 128, 2, 0),
        ("LBAF0.LBADS", 130, 1, 12),
    ];
    for (name, offset, bytes, value) in fields {
        assert_eq!(le(&data, offset, bytes), value, "{name}");
    }
    assert_eq!(data[104..120], (2_u128 << 64 | 0xABCD).to_be_bytes(), "NGUID");
    assert!(data[132..].iter().all(|&byte| byte == 0));
}

#[test]
fn the_geometry_shows() {
    let mut targets = targets();
    let volume = &mut targets.subsystems.get_mut(SUBSYSTEM).unwrap().namespaces.get_mut(&1).unwrap().volume;
    volume.block_size = BlockSize::B512;
    volume.read_only = true;
    volume.thin = false;
    volume.unmap_granularity_blocks = 0;
    volume.preferred_write_blocks = 0;
    volume.atomic_write_blocks = 1 << 20;
    let mut bench = Bench::with(Limits::default(), targets);
    let (connection, _) = bench.enabled(&Wish::admin());
    let data = page(&mut bench, connection, 0, 1);
    assert_eq!(data[130], 9, "LBADS");
    assert_eq!(data[99], 1, "NSATTR");
    assert_eq!(data[24], 0b1_0010, "NSFEAT");
    assert_eq!(le(&data, 34, 2), 0xFFFF, "NAWUN is cut to its field");
    assert_eq!((le(&data, 64, 2), le(&data, 68, 2)), (0, 0), "NPWG, NPDG");
    assert_eq!((le(&data, 74, 2), le(&data, 76, 4)), (2048, 32768), "MSSRL, MCL");
    let data = page(&mut bench, connection, 8, 1);
    assert_eq!(data[..4], [0b1_0010, 1, 0xFF, 0], "NSFEAT, NMIC, RESCAP, FPI");
    assert_eq!((le(&data, 4, 4), data[8], data[14]), (2, 1, 1), "ANAGRPID, NSATTR, NSTAT");
}

#[test]
fn descriptors_name_a_namespace() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let data = page(&mut bench, connection, 3, 3);
    let id = (3_u128 << 64 | 0xABCD).to_be_bytes();
    assert_eq!(data[..4], [2, 16, 0, 0]);
    assert_eq!(data[4..20], id);
    assert_eq!(data[20..24], [3, 16, 0, 0]);
    assert_eq!(data[24..40], id);
    assert_eq!(data[40..48], [4, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn lists_ascend_above_the_nsid_given() {
    let mut bench = Bench::new();
    bench.change(|targets| {
        let subsystem = targets.subsystems.get_mut(SUBSYSTEM).unwrap();
        subsystem.namespaces.insert(4096, namespace(4096, 1));
        subsystem.namespaces.insert(4097, namespace(4097, 1));
        subsystem.namespaces.insert(9, namespace(9, 2049));
    });
    let (connection, _) = bench.enabled(&Wish::admin());
    for cns in [2, 7] {
        for (above, expected) in [(0, &[1, 2, 3, 4096][..]), (2, &[3, 4096]), (4096, &[]), (0xFFFF_FFFD, &[])]
        {
            let data = page(&mut bench, connection, cns, above);
            let list: Vec<u128> = (0..1024).map(|i| le(&data, i * 4, 4)).take_while(|&id| id != 0).collect();
            assert_eq!(list, expected, "above {above:X}");
        }
    }
}

#[test]
fn a_list_holds_1024() {
    let mut targets = targets();
    let subsystem = targets.subsystems.get_mut(SUBSYSTEM).unwrap();
    subsystem.namespaces = (1..=3000).map(|nsid| (nsid, namespace(nsid, 1))).collect();
    let mut bench = Bench::with(Limits::default(), targets);
    let (connection, _) = bench.enabled(&Wish::admin());
    let data = page(&mut bench, connection, 2, 1000);
    assert_eq!((le(&data, 0, 4), le(&data, 4092, 4)), (1001, 2024));
}

#[test]
fn what_is_not_there_is_zeros_or_an_error() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    for cns in [0, 5, 8] {
        assert!(page(&mut bench, connection, cns, 77).iter().all(|&byte| byte == 0), "inactive, CNS {cns}");
    }
    assert!(page(&mut bench, connection, 6, 0).iter().all(|&byte| byte == 0), "no limits");
    let this_controller = Sqe { cdw10: 0xFFFF_001C.into(), ..identify(0x1C, 0) };
    let command_sets = bench.run(connection, &this_controller).data.unwrap();
    assert_eq!(command_sets[..9], [1, 0, 0, 0, 0, 0, 0, 0, 0]);

    let command_set = |cns: u8, csi: u32| Sqe { cdw11: (csi << 24).into(), ..identify(cns, 1) };
    let other_controller = Sqe { cdw10: (0x1C | 5 << 16).into(), ..identify(0x1C, 0) };
    let cases = [
        (identify(0, 0), Status::INVALID_NAMESPACE),
        (identify(0, 4097), Status::INVALID_NAMESPACE),
        (identify(0, 0xFFFF_FFFE), Status::INVALID_NAMESPACE),
        (identify(0, 0xFFFF_FFFF), Status::INVALID_NAMESPACE),
        (identify(2, 0xFFFF_FFFE), Status::INVALID_NAMESPACE),
        (identify(2, 0xFFFF_FFFF), Status::INVALID_NAMESPACE),
        (identify(3, 0), Status::INVALID_NAMESPACE),
        (identify(3, 77), Status::INVALID_NAMESPACE),
        (identify(5, 0), Status::INVALID_NAMESPACE),
        (identify(8, 0xFFFF_FFFF), Status::INVALID_NAMESPACE),
        (command_set(5, 2), Status::INVALID_FIELD),
        (command_set(6, 2), Status::INVALID_FIELD),
        (command_set(7, 2), Status::INVALID_FIELD),
        (other_controller, Status::INVALID_FIELD),
        (identify(4, 0), Status::INVALID_FIELD),
        (identify(0x10, 0), Status::INVALID_FIELD),
        (identify(0xFF, 0), Status::INVALID_FIELD),
    ];
    for (command, status) in cases {
        let done = bench.run(connection, &command);
        assert_eq!((done.status, done.data), (status, None), "{command:?}");
    }
}

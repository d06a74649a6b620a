//! Writes the corpora: `cargo run --example seeds`, in this folder.

use std::fs;
use std::path::Path;

use ashlar_iscsi_fuzz::script::push;
use ashlar_iscsi_fuzz::{login, scsi};

fn save(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the folder of the corpus");
    fs::write(folder.join(name), bytes).expect("an input");
    match target {
        "iscsi_login" => login::run(bytes),
        _ => scsi::run(bytes),
    }
}

/// A login of these requests: flags, and text with newlines for the ends of pairs.
fn login(name: &str, requests: &[(u8, &str)]) {
    let mut script = vec![0];
    for (flags, text) in requests {
        push(&mut script, *flags, text.as_bytes());
    }
    save("iscsi_login", name, &script);
}

fn logins() {
    let who = |target: &str| {
        format!("InitiatorName={}\nSessionType=Normal\nTargetName={target}\n", login::INITIATOR)
    };
    let keys = "HeaderDigest=CRC32C,None\nDataDigest=None\nInitialR2T=No\nImmediateData=Yes\nMaxBurstLength=262144\n\
                FirstBurstLength=0x10000\nMaxConnections=1\nMaxOutstandingR2T=1\nDefaultTime2Wait=2\n\
                DefaultTime2Retain=0\nDataPDUInOrder=Yes\nDataSequenceInOrder=Yes\nErrorRecoveryLevel=0\n\
                MaxRecvDataSegmentLength=8192\nX-other=1\nIFMarker=No\n";
    login("straight", &[(0x87, &(who(login::OPEN) + keys))]);
    login("two-stages", &[(0x81, &(who(login::OPEN) + "AuthMethod=None\n")), (0x87, keys)]);
    login("discovery", &[(0x87, &format!("InitiatorName={}\nSessionType=Discovery\n", login::INITIATOR))]);
    login("continued", &[(0x44, &who(login::OPEN)), (0x87, keys)]);
    let chap = [
        (0x01, who(login::CLOSED) + "AuthMethod=CHAP,None\n"),
        (0x01, "CHAP_A=7,5\n".into()),
        (
            0x81,
            format!(
                "CHAP_N={}\nCHAP_R=\r\nCHAP_I=7\nCHAP_C=0x00112233445566778899aabbccddeeff\n",
                login::INITIATOR
            ),
        ),
        (0x87, keys.into()),
    ];
    login("chap-mutual", &chap.each_ref().map(|(flags, text)| (*flags, text.as_str())));
    let wrong = [
        chap[0].clone(),
        chap[1].clone(),
        (0x81, format!("CHAP_N={}\nCHAP_R=0b{}=\n", login::INITIATOR, "A".repeat(43))),
    ];
    login("chap-wrong", &wrong.each_ref().map(|(flags, text)| (*flags, text.as_str())));
    login("nobody", &[(0x87, "SessionType=Normal\n")]);
    login("not-text", &[(0x87, "InitiatorName\n=\n\n\n")]);
}

/// One command: the nexus, what is to be sent and taken, the CDB, the data.
fn command(script: &mut Vec<u8>, nexus: u8, (out, take): (u16, u16), cdb: &[u8], data: &[u8]) {
    let mut record = vec![1];
    record.extend(out.to_le_bytes());
    record.extend(take.to_le_bytes());
    record.push(cdb.len() as u8);
    record.extend(cdb);
    record.extend(data);
    push(script, nexus, &record);
}

type Row<'a> = (u8, (u16, u16), &'a [u8], &'a [u8]);

fn commands(name: &str, rows: &[Row<'_>]) {
    let mut script = vec![];
    // Each nexus hears first that it is new.
    for nexus in [0, 1] {
        command(&mut script, nexus, (0, 0), &[0; 6], &[]);
    }
    for (nexus, lengths, cdb, data) in rows {
        command(&mut script, *nexus, *lengths, cdb, data);
    }
    save("scsi_command", name, &script);
}

fn inquiries() {
    let pages = [0x00, 0x80, 0x83, 0x86, 0x8F, 0xB0, 0xB1, 0xB2, 0xB7];
    let cdbs: Vec<[u8; 6]> = pages.iter().map(|page| [0x12, 1, *page, 1, 0, 0]).collect();
    let mut rows: Vec<Row<'_>> = cdbs.iter().map(|cdb| (0, (0, 256), &cdb[..], &[][..])).collect();
    rows.push((0, (0, 96), &[0x12, 0, 0, 0, 96, 0], &[]));
    rows.push((0, (0, 64), &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[]));
    rows.push((0, (0, 32), &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], &[]));
    rows.push((0, (0, 255), &[0x1A, 0, 0x3F, 0xFF, 255, 0], &[]));
    rows.push((0, (0, 512), &[0xA3, 0x0C, 0x80, 0, 0, 0, 0, 0, 2, 0, 0, 0], &[]));
    rows.push((0, (0, 64), &[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[]));
    rows.push((0, (0, 64), &[0x4D, 0, 0x4C, 0, 0, 0, 0, 0, 64, 0], &[]));
    rows.push((0, (0, 252), &[0x03, 1, 0, 0, 252, 0], &[]));
    commands("inquiries", &rows);
}

fn blocks() {
    let unmap = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0];
    commands(
        "blocks",
        &[
            (0, (1024, 0), &[0x2A, 8, 0, 0, 0, 4, 0, 0, 2, 0], b"data"),
            (1, (0, 1024), &[0x28, 0, 0, 0, 0, 4, 0, 0, 2, 0], &[]),
            (0, (0, 1024), &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0], &[]),
            (0, (1024, 0), &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0], b"data"),
            (0, (512, 0), &[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0], b"same"),
            (0, (512, 0), &[0x41, 8, 0, 0, 0, 8, 0, 0, 16, 0], &[0]),
            (0, (24, 0), &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &unmap),
            (0, (512, 0), &[0x8B, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], b"or"),
            (0, (512, 0), &[0x2E, 0, 0, 0, 0, 1, 0, 0, 1, 0], b"verified"),
            (0, (512, 0), &[0x2F, 2, 0, 0, 0, 1, 0, 0, 1, 0], b"verified"),
            (0, (0, 0), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]),
            (0, (0, 64), &[0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[]),
            (0, (0, 512), &[0x28, 0, 0, 0, 1, 0, 0, 0, 1, 0], &[]),
            (0, (0, 512), &[0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1, 0, 0], &[]),
            (0, (512, 0), &[0x0A, 0, 0, 3, 1, 0], b"six"),
        ],
    );
}

fn modes() {
    let control = [0, 0, 0, 0, 0x0A, 10, 6, 0, 8, 0, 0, 0, 0, 0, 0, 0];
    commands(
        "modes",
        &[
            (0, (16, 0), &[0x15, 0x10, 0, 0, 16, 0], &control),
            (1, (0, 255), &[0x5A, 0, 0x0A, 0, 0, 0, 0, 0, 255, 0], &[]),
            (0, (512, 0), &[0x2A, 0, 0, 0, 0, 4, 0, 0, 1, 0], b"refused"),
        ],
    );
}

fn reservations() {
    let key = |own: u8, new: u8| {
        let mut list = [0; 24];
        (list[7], list[15]) = (own, new);
        list
    };
    let out = |action: u8, kind: u8| [0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0];
    let (register, reserve, preempt, clear) = (out(0, 0), out(1, 5), out(4, 5), out(3, 0));
    let (mine, held, theirs, taken) = (key(0, 0xA1), key(0xA1, 0), key(0, 0xB2), key(0xB2, 0xA1));
    let read = |action: u8| [0x5E, action, 0, 0, 0, 0, 0, 1, 0, 0];
    let reads = [read(0), read(1), read(2), read(3)];
    let mut rows: Vec<Row<'_>> = vec![
        (0, (24, 0), &register, &mine),
        (0, (24, 0), &reserve, &held),
        (1, (512, 0), &[0x2A, 0, 0, 0, 0, 4, 0, 0, 1, 0], b"kept out"),
        (1, (24, 0), &register, &theirs),
        (1, (24, 0), &preempt, &taken),
    ];
    rows.extend(reads.iter().map(|cdb| (0, (0, 256), &cdb[..], &[][..])));
    let last = key(0xB2, 0);
    rows.push((1, (24, 0), &clear, &last));
    rows.push((0, (0, 0), &[0x16, 0, 0, 0, 0, 0], &[]));
    rows.push((1, (0, 0), &[0x17, 0, 0, 0, 0, 0], &[]));
    commands("reservations", &rows);
}

fn copies() {
    let mut list = vec![0; 16];
    (list[1], list[3], list[11]) = (0, 64, 28);
    for _ in 0..2 {
        let mut descriptor = [0; 32];
        (descriptor[0], descriptor[4], descriptor[5], descriptor[7]) = (0xE4, 1, 3, 16);
        descriptor[29] = 2;
        list.extend(descriptor);
    }
    let mut segment = [0; 28];
    (segment[0], segment[3], segment[7], segment[11], segment[19], segment[27]) = (2, 24, 1, 8, 0, 16);
    list.extend(segment);
    let length = list.len() as u8;
    commands(
        "copies",
        &[
            (0, (length.into(), 0), &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, length, 0, 0], &list),
            (0, (0, 256), &[0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[]),
            (0, (0, 256), &[0x84, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[]),
            (0, (0, 600), &[0x84, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 88, 0, 0], &[]),
            (
                0,
                (32, 0),
                &[0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 32, 0, 0],
                &[
                    0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0,
                    0, 0, 0,
                ],
            ),
        ],
    );
}

fn main() {
    logins();
    inquiries();
    blocks();
    modes();
    reservations();
    copies();
}

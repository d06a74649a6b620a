//! Writes the corpora: `cargo run --example seeds`, in this folder.

use std::fs;
use std::path::Path;

use ashlar_iscsi_fuzz::connection::{self, op};
use ashlar_iscsi_fuzz::script::push;
use ashlar_iscsi_fuzz::{login, scsi};

fn save(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the folder of the corpus");
    fs::write(folder.join(name), bytes).expect("an input");
    match target {
        "iscsi_login" => login::run(bytes),
        "iscsi_connection" => connection::run(bytes),
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

/// A header: opcode, flags, task, and what else is not zero.
fn header(opcode: u8, flags: u8, task: u8, rest: &[(usize, u8)]) -> [u8; 48] {
    let mut header = [0; 48];
    (header[0], header[1], header[19]) = (opcode, flags, task);
    header[9] = if opcode & 0x3F == 1 { 1 } else { 0 };
    for &(at, byte) in rest {
        header[at] = byte;
    }
    header
}

fn pdu(script: &mut Vec<u8>, header: [u8; 48], data: &[u8]) {
    push(script, op::PDU, &[&[0, 0x80], &header[..], data].concat());
}

/// A little of everything a session does.
fn session(script: &mut Vec<u8>, ended_by_script: bool) {
    let complete = |script: &mut Vec<u8>| {
        if ended_by_script {
            push(script, op::COMPLETE, &[0]);
        }
    };
    // The nexus is new; then a write with immediate data, one that is asked for, and a read.
    pdu(script, header(0x01, 0x81, 1, &[]), &[]);
    pdu(script, header(0x01, 0xA1, 2, &[(22, 2), (32, 0x2A), (40, 1)]), &[5; 512]);
    complete(script);
    pdu(script, header(0x01, 0xA1, 3, &[(21, 1), (32, 0x2A), (39, 0), (40, 128)]), &[]);
    push(script, op::ANSWER, &[0, 9]);
    complete(script);
    pdu(script, header(0x01, 0xC1, 4, &[(21, 1), (32, 0x28), (40, 128)]), &[]);
    complete(script);
    // A ping, text, task management, an unknown opcode.
    pdu(script, header(0x40, 0x80, 5, &[(20, 255), (21, 255), (22, 255), (23, 255)]), b"ping");
    pdu(script, header(0x04, 0x80, 6, &[(20, 255), (21, 255), (22, 255), (23, 255)]), b"SendTargets=\0");
    pdu(script, header(0x42, 0x81, 7, &[(23, 4)]), &[]);
    pdu(script, header(0x42, 0x85, 8, &[(9, 1)]), &[]);
    pdu(script, header(0x1C, 0x80, 9, &[]), &[]);
    push(script, op::WAIT, &1000u16.to_le_bytes());
}

fn connections() {
    for digests in 0..4 {
        for (name, how, piece) in [("whole", 0, 0), ("bytes", 0, 1), ("slow-disk", 8, 0)] {
            let mut script = vec![digests | how, piece];
            session(&mut script, how != 0);
            save("iscsi_connection", &format!("session-{name}-{digests}"), &script);
        }
    }
    let mut logout = vec![0, 0];
    session(&mut logout, false);
    pdu(&mut logout, header(0x46, 0x80, 10, &[]), &[]);
    save("iscsi_connection", "logout", &logout);
    let mut reinstated = vec![0, 0];
    session(&mut reinstated, false);
    for _ in 0..3 {
        push(&mut reinstated, op::DIAL, &[1]);
    }
    push(&mut reinstated, op::LEAVE, &[0, 1]);
    push(&mut reinstated, op::WAIT, &30_000u16.to_le_bytes());
    push(&mut reinstated, op::WAIT, &40_000u16.to_le_bytes());
    save("iscsi_connection", "several", &reinstated);
    let mut unread = vec![0, 0];
    push(&mut unread, op::READ, &[0, 0, 0]);
    for task in 1..60 {
        pdu(&mut unread, header(0x01, 0xC1, task, &[(21, 1), (32, 0x28), (40, 128)]), &[]);
    }
    push(&mut unread, op::READ, &[0, 0xFF, 0xFF]);
    push(&mut unread, op::WAIT, &60_000u16.to_le_bytes());
    save("iscsi_connection", "unread", &unread);
    let mut starved = vec![0, 0];
    for _ in 0..8 {
        push(&mut starved, op::STARVE, &1u16.to_le_bytes());
    }
    session(&mut starved, false);
    push(&mut starved, op::STARVE, &[0, 0]);
    save("iscsi_connection", "starved", &starved);
    let mut stranger = vec![4, 0];
    push(&mut stranger, op::RAW, &[&[0], &[0x41; 200][..]].concat());
    save("iscsi_connection", "stranger", &stranger);
    let mut silent = vec![4, 0];
    push(&mut silent, op::WAIT, &20_000u16.to_le_bytes());
    save("iscsi_connection", "silent", &silent);
}

fn main() {
    connections();
    logins();
    inquiries();
    blocks();
    modes();
    reservations();
    copies();
}

//! Cases of more than one step: N04b, N16, N18, N19, N22, N26, N31 and N33, and the memory before Connect. More of
//! N19, N22 and N32 is in `life`.

use std::time::Duration;

use ashlar_nvmeof::limits::AERS_MAX;
use ashlar_nvmeof::transport::{RECEIVING_BYTES_MAX, STAGING_BYTES_BEFORE_CONNECT};
use ashlar_nvmeof::wire::Status;
use ashlar_nvmeof::wire::pdu::{CapsuleResp, TermReq, kind};
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, admin, io as opcode};

use crate::bench::{Arena, CASE_BLOCKS, CULPRIT, admin_queue, identity, io_queue, limits};
use crate::bytes::{self, Digests, Identity};
use crate::raw::{Done, Heard, Raw, read, said};
use crate::rows::{Given, R2T_BLOCKS, prepare};

pub type Outcome = Result<(), String>;

/// Fails unless the command ended so.
pub fn is(done: &Done, sct: u8, sc: u8) -> Outcome {
    let status = done.status();
    if (status.sct(), status.sc()) == (sct, sc) {
        Ok(())
    } else {
        Err(format!("{status:?}, not {sct}/{sc:02X}h"))
    }
}

/// N19: Connect with anything wrong.
pub async fn connects(arena: Arena) -> Outcome {
    let who = identity(CULPRIT);
    let good = || bytes::connect_data(&who, 0xFFFF);
    let with = |at: usize, with: &[u8]| {
        let mut data = good();
        data[at..at + with.len()].copy_from_slice(with);
        data
    };
    let one = async |name: &str, sqe, data: Vec<u8>, sct, sc, dw0: Option<u32>| {
        let play = async {
            let mut raw = Raw::dial(&arena.env, arena.address).await?;
            raw.initialize(Digests::NONE).await?;
            let done = raw.command(&sqe, &data).await?;
            is(&done, sct, sc)?;
            match dw0 {
                Some(dw0) if done.cqe.dw0.get() != dw0 => Err(format!("DW0 {:X}h", done.cqe.dw0.get())),
                _ => Ok(()),
            }
        };
        arena.case(name, play).await
    };
    let connect = |qid, sqsize| bytes::connect(1, qid, sqsize, 0);
    for len in [512_usize, 1023, 4096] {
        let mut sqe = connect(0, 31);
        sqe.sgl.length = (len as u32).into();
        one("N19a data of another length", sqe, vec![0; len], 0, 0xF, None).await?;
    }
    one("N19b a host NQN without NUL", connect(0, 31), with(512, &[b'n'; 256]), 1, 0x82, Some(0x1_0200))
        .await?;
    one("N19b a subsystem NQN without NUL", connect(0, 31), with(256, &[b'n'; 256]), 1, 0x82, Some(0x1_0100))
        .await?;
    let mut sqe = connect(0, 31);
    sqe.cdw10 = 1.into();
    one("N19c RECFMT 1", sqe, good(), 1, 0x80, None).await?;
    one("N19d SQSIZE 0", connect(0, 0), good(), 1, 0x82, Some(44)).await?;
    one("N19d SQSIZE 65535", connect(0, 65535), good(), 1, 0x82, Some(44)).await?;
    one("N19g an I/O queue of no controller", connect(1, 31), with(16, &[9, 9]), 1, 0x82, Some(0x1_0010))
        .await?;
    arena.case("N19e to N19h of I/O queues", io_connects(&arena)).await
}

async fn io_connects(arena: &Arena) -> Outcome {
    let Arena { env, address, .. } = arena;
    let (who, other) = (identity(CULPRIT), identity(0xC2));
    let (admin, cntlid) = admin_queue(env, *address, &who, Digests::NONE).await?;
    let try_one = async |qid, sqsize, who: &Identity, cntlid| -> Result<(Raw, Done), String> {
        let mut raw = Raw::dial(env, *address).await?;
        raw.initialize(Digests::NONE).await?;
        let done = raw.connect(qid, sqsize, who, cntlid, 0).await?;
        Ok((raw, done))
    };
    for qid in [65535, limits().io_queues_max + 1] {
        let (_, done) = try_one(qid, 31, &who, cntlid).await?;
        is(&done, 1, 0x82).or_else(|_| is(&done, 1, 1))?;
    }
    let (mut queue, done) = try_one(1, 31, &who, cntlid).await?;
    done.ok()?;
    let (_, done) = try_one(1, 31, &who, cntlid).await?;
    is(&done, 0, 0xC).map_err(|error| format!("N19f: {error}"))?;
    let done = queue.connect(2, 31, &who, cntlid, 0).await?;
    is(&done, 0, 0xC).or_else(|_| is(&done, 1, 0x81)).map_err(|error| format!("N19f: {error}"))?;
    let (_, done) = try_one(2, 31, &other, cntlid).await?;
    is(&done, 1, 0x82).map_err(|error| format!("N19g another host: {error}"))?;
    let stolen = Identity { host_id: other.host_id, ..who.clone() };
    let (_, done) = try_one(2, 31, &stolen, cntlid).await?;
    is(&done, 1, 0x82).map_err(|error| format!("N19g another host identifier: {error}"))?;
    queue
        .command(&bytes::io(opcode::READ, 3, 0, 1), &[])
        .await?
        .ok()
        .map_err(|error| format!("the victim: {error}"))?;
    // N19h: the admin queue dies, its queues with it, and nothing can join.
    drop(admin);
    queue.expect_close(Duration::from_secs(2)).await?;
    let (_, done) = try_one(2, 31, &who, cntlid).await?;
    is(&done, 1, 0x82).map_err(|error| format!("N19h: {error}"))?;
    let (mut raw, _, _) = prepare(arena, Given::Disabled, Digests::NONE).await?;
    let done = raw.command(&bytes::property_get(1, 0x1C, false), &[]).await?.ok()?;
    if done.cqe.dw0.get() != 0 { Err(format!("CSTS {:X}h", done.cqe.dw0.get())) } else { Ok(()) }
}

/// N16, N18, N22: many commands.
pub async fn floods(arena: Arena) -> Outcome {
    arena.case("N16 on every CID", every_cid(&arena)).await?;
    arena.case("N18a a CID in flight", cid_in_flight(&arena)).await?;
    arena.case("N18b more than SQSIZE", more_than_the_queue(&arena)).await?;
    arena.case("N22a AER flood", events(&arena)).await?;
    arena.case("N22b Abort flood", aborts(&arena)).await?;
    arena.case("N22d KATO", keep_alive(&arena)).await?;
    for cc in [0x46_0081_u32, 0x46_0801, 0x45_0001, 0x36_0001, 0x46_0011] {
        arena.case("N33 CC with wrong fields", wrong_configuration(&arena, cc)).await?;
    }
    Ok(())
}

async fn every_cid(arena: &Arena) -> Outcome {
    let (mut raw, _admin, _) = prepare(arena, Given::Io, Digests::NONE).await?;
    let free = arena.free_buffers();
    for cid in 0..120 {
        let mut sqe = bytes::io(opcode::WRITE, cid, 0, 1);
        sqe.sgl.length = u32::MAX.into();
        raw.send(&bytes::capsule(Digests::NONE, &sqe, &[])).await?;
    }
    for cid in 0..120 {
        let done = raw.finish(cid, &[]).await?;
        is(&done, 0, 0xF)?;
        if free > arena.free_buffers() + 8 {
            return Err(format!("{free} free buffers became {}", arena.free_buffers()));
        }
    }
    Ok(())
}

async fn cid_in_flight(arena: &Arena) -> Outcome {
    let (mut raw, _admin, ctx) = prepare(arena, Given::R2t, Digests::NONE).await?;
    let done = raw.command(&bytes::io(opcode::READ, ctx.cid, 0, 1), &[]).await?;
    is(&done, 0, 3)?;
    let data = [0; R2T_BLOCKS as usize * 512];
    raw.send(&bytes::h2c_data(Digests::NONE, ctx.cid, ctx.tag, 0, &data, true)).await?;
    raw.finish(ctx.cid, &[]).await?.ok().map(drop)
}

async fn more_than_the_queue(arena: &Arena) -> Outcome {
    let Arena { env, address, .. } = arena;
    let who = identity(CULPRIT);
    let (_admin, cntlid) = admin_queue(env, *address, &who, Digests::NONE).await?;
    let mut raw = io_queue(env, *address, &who, cntlid, 1, 3, Digests::NONE).await?;
    for cid in 0..6 {
        raw.send(&bytes::capsule(Digests::NONE, &bytes::io(opcode::WRITE, cid, 0, 1), &[])).await?;
    }
    let said = raw.expect_close(Duration::from_secs(30)).await?;
    match said.last() {
        None => Ok(()),
        Some(pdu) if pdu[0] == kind::R2T => Ok(()),
        Some(pdu) if read::<TermReq>(pdu)?.fes.get() == 2 => Ok(()),
        Some(pdu) => Err(crate::raw::said(pdu)),
    }
}

async fn events(arena: &Arena) -> Outcome {
    let (mut raw, _, _) = prepare(arena, Given::Admin, Digests::NONE).await?;
    let most = u16::from(AERS_MAX);
    for cid in 0..most + 5 {
        raw.send(&bytes::capsule(Digests::NONE, &bytes::sqe(admin::ASYNC_EVENT, cid, 0), &[])).await?;
    }
    for cid in most..most + 5 {
        is(&raw.finish(cid, &[]).await?, 1, 5)?;
    }
    Ok(())
}

async fn aborts(arena: &Arena) -> Outcome {
    let (mut raw, _, _) = prepare(arena, Given::Admin, Digests::NONE).await?;
    for cid in 0..20 {
        let mut sqe = bytes::sqe(admin::ABORT, cid, 0);
        sqe.cdw10 = (0xABCD_0001 + u32::from(cid)).into();
        raw.send(&bytes::capsule(Digests::NONE, &sqe, &[])).await?;
    }
    for cid in 0..20 {
        let done = raw.finish(cid, &[]).await?;
        let unknown = done.status().is_success() && done.cqe.dw0.get() & 1 == 1;
        if !unknown {
            is(&done, 1, 3)?;
        }
    }
    Ok(())
}

async fn keep_alive(arena: &Arena) -> Outcome {
    let (mut raw, _, _) = prepare(arena, Given::Admin, Digests::NONE).await?;
    for (asked, least, most) in [(1, 100, 1000), (u32::MAX, 1000, u32::MAX - 1)] {
        let mut set = bytes::sqe(admin::SET_FEATURES, 1, 0);
        (set.cdw10, set.cdw11) = (0xF.into(), asked.into());
        let done = raw.command(&set, &[]).await?;
        if !done.status().is_success() {
            is(&done, 0, 2)?;
            continue;
        }
        let mut get = bytes::sqe(admin::GET_FEATURES, 2, 0);
        get.cdw10 = 0xF.into();
        let kato = raw.command(&get, &[]).await?.ok()?.cqe.dw0.get();
        if !(least..=most).contains(&kato) {
            return Err(format!("KATO {asked} became {kato}"));
        }
    }
    Ok(())
}

async fn wrong_configuration(arena: &Arena, cc: u32) -> Outcome {
    let (mut raw, _, _) = prepare(arena, Given::Disabled, Digests::NONE).await?;
    raw.command(&bytes::property_set(1, 0x14, cc), &[]).await?.ok()?;
    let status = raw.command(&bytes::property_get(2, 0x1C, false), &[]).await?.ok()?.cqe.dw0.get();
    if status & 3 != 2 { Err(format!("CC {cc:X}h made CSTS {status:X}h")) } else { Ok(()) }
}

/// N26: pairs that are none.
pub async fn fused(arena: Arena) -> Outcome {
    let half = |cid, bits: u8, op, lba| {
        let mut sqe = bytes::io(op, cid, lba, 1);
        (sqe.flags, sqe.sgl.identifier) = (sqe.flags | bits, SGL_IN_CAPSULE);
        sqe
    };
    let first = |cid| bytes::capsule(Digests::NONE, &half(cid, 1, opcode::COMPARE, 0), &[0; 512]);
    let second = |cid, lba| bytes::capsule(Digests::NONE, &half(cid, 2, opcode::WRITE, lba), &[0xEE; 512]);
    let single = |cid| bytes::capsule(Digests::NONE, &bytes::io(opcode::READ, cid, 0, 1), &[]);
    let alone = async {
        let (mut raw, _admin, _) = prepare(&arena, Given::Io, Digests::NONE).await?;
        raw.send(&first(1)).await
    };
    arena.case("N26a a first alone, then close", alone).await?;
    let orphans = async {
        let (mut raw, _admin, _) = prepare(&arena, Given::Io, Digests::NONE).await?;
        raw.send(&[first(1), first(2), single(3), second(4, 0), single(5)].concat()).await?;
        let mut ended = Vec::new();
        while ended.len() < 5 {
            let pdu = raw.expect().await?;
            if pdu[0] == kind::CAPSULE_RESP {
                let cqe = read::<CapsuleResp>(&pdu)?.cqe;
                ended.push((cqe.cid.get(), Status::from_field(cqe.status.get()).sc()));
            }
        }
        ended.sort_unstable();
        let right = [(1, 0xA), (2, 0xA), (3, 0), (4, 0xA), (5, 0)];
        if ended == right { Ok(()) } else { Err(format!("{ended:?}")) }
    };
    arena.case("N26b orphans", orphans).await?;
    let apart = async {
        let (mut raw, _admin, _) = prepare(&arena, Given::Io, Digests::NONE).await?;
        raw.send(&[first(1), second(2, 1)].concat()).await?;
        is(&raw.finish(1, &[]).await?, 0, 2)?;
        is(&raw.finish(2, &[]).await?, 0, 2)
    };
    arena.case("N26d different ranges", apart).await?;
    let elsewhere = async {
        let (mut raw, _admin, _) = prepare(&arena, Given::Io, Digests::NONE).await?;
        // By its range and data it would succeed on either namespace.
        let mut other = half(2, 2, opcode::WRITE, 0);
        other.nsid = 2.into();
        raw.send(&[first(1), bytes::capsule(Digests::NONE, &other, &[0xEE; 512])].concat()).await?;
        is(&raw.finish(1, &[]).await?, 0, 2)?;
        is(&raw.finish(2, &[]).await?, 0, 2)
    };
    arena.case("N26d different namespaces", elsewhere).await?;
    let two_queues = async {
        let Arena { env, address, .. } = &arena;
        let who = identity(CULPRIT);
        let (_admin, cntlid) = admin_queue(env, *address, &who, Digests::NONE).await?;
        let mut one = io_queue(env, *address, &who, cntlid, 1, 31, Digests::NONE).await?;
        let mut two = io_queue(env, *address, &who, cntlid, 2, 31, Digests::NONE).await?;
        one.send(&first(1)).await?;
        two.send(&second(2, 0)).await?;
        is(&two.finish(2, &[]).await?, 0, 0xA)?;
        one.send(&single(3)).await?;
        is(&one.finish(1, &[]).await?, 0, 0xA)?;
        one.finish(3, &[]).await?.ok().map(drop)
    };
    arena.case("N26c over two queues", two_queues).await
}

/// N04b, N31, and what an unfinished connection may cost.
pub async fn slow(arena: Arena) -> Outcome {
    for reset in [false, true] {
        let gone = async {
            let mut raw = Raw::dial(&arena.env, arena.address).await?;
            raw.send(&bytes::ic_req(Digests::BOTH)).await?;
            if reset {
                raw.stream.reset()
            } else {
                raw.stream.finish_sending()
            }
            raw.expect_close(Duration::from_secs(1)).await.map(drop)
        };
        arena.case("N04b gone while the ICResp is pending", gone).await?;
    }
    for given in [Given::Tcp, Given::Initialized, Given::Admin, Given::Io, Given::R2t] {
        arena.case(&format!("N31a a header and a half {given:?}"), stall(&arena, given)).await?;
    }
    arena.case("N31a a byte a second", trickle(&arena)).await?;
    arena.case("N31b a host that reads nothing", unread(&arena)).await?;
    arena.case("N31c idle connections", idle(&arena)).await?;
    arena.case("memory before Connect", memory_before_connect(&arena)).await?;
    arena.case("memory of R2Ts", memory_of_r2ts(&arena)).await
}

async fn stall(arena: &Arena, given: Given) -> Outcome {
    let (mut raw, _admin, _) = prepare(arena, given, Digests::NONE).await?;
    raw.send(&[kind::CAPSULE_CMD, 0, 72, 0, 72, 0, 0, 0][..if given == Given::Tcp { 4 } else { 8 }]).await?;
    raw.expect_close(Duration::from_secs(31)).await.map(drop)
}

/// Bytes that keep coming do not put the end of the step off.
async fn trickle(arena: &Arena) -> Outcome {
    let mut raw = Raw::dial(&arena.env, arena.address).await?;
    for byte in &bytes::ic_req(Digests::NONE)[..20] {
        if raw.send(&[*byte]).await.is_err() || raw.hear(Duration::from_secs(1)).await == Heard::Closed {
            return Ok(());
        }
    }
    Err("20 s after the first byte the connection is still there".into())
}

async fn unread(arena: &Arena) -> Outcome {
    let (mut raw, _admin, _) = prepare(arena, Given::Io, Digests::NONE).await?;
    for cid in 0..100 {
        let sqe = bytes::io(opcode::READ, cid, 0, 256);
        raw.send(&bytes::capsule(Digests::NONE, &sqe, &[])).await?;
    }
    arena.sleep(Duration::from_secs(35)).await;
    raw.expect_close(Duration::from_secs(1)).await.map(drop)
}

/// More connections than one address may have unfinished: those above are refused, the rest time out.
async fn idle(arena: &Arena) -> Outcome {
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..50 {
        let mut raw = Raw::dial(&arena.env, arena.address).await?;
        match raw.hear(Duration::from_millis(10)).await {
            Heard::Nothing => held.push(raw),
            Heard::Closed => refused += 1,
            Heard::Pdu(pdu) => return Err(said(&pdu)),
        }
    }
    if held.len() != limits().unauthenticated_per_address_max as usize || refused == 0 {
        return Err(format!("{} held, {refused} refused", held.len()));
    }
    for raw in &mut held {
        raw.expect_close(Duration::from_secs(11)).await?;
    }
    Ok(())
}

/// Until Connect succeeds a connection takes no more than 16 KiB: what it stages, and one buffer of 4 KiB.
async fn memory_before_connect(arena: &Arena) -> Outcome {
    const { assert!(STAGING_BYTES_BEFORE_CONNECT + 4096 <= 16 << 10) };
    let free = arena.free_buffers();
    let mut held = Vec::new();
    for _ in 0..limits().unauthenticated_per_address_max {
        let mut raw = Raw::dial(&arena.env, arena.address).await?;
        raw.initialize(Digests::NONE).await?;
        // The largest capsule, but for its last byte; then commands that want data by R2T, and never get it.
        let sqe = bytes::connect(1, 0, 31, 0);
        let capsule = bytes::capsule(Digests::NONE, &sqe, &[0; 8192]);
        raw.send(&capsule[..capsule.len() - 1]).await?;
        held.push(raw);
    }
    arena.sleep(Duration::from_millis(100)).await;
    // The witnesses hold one or two of their own for a moment.
    let taken = free.saturating_sub(arena.free_buffers());
    if taken > held.len() + 4 { Err(format!("{taken} buffers")) } else { Ok(()) }
}

/// Data owed by the host are bounded, however many writes it announces.
async fn memory_of_r2ts(arena: &Arena) -> Outcome {
    let (mut raw, _admin, _) = prepare(arena, Given::Io, Digests::NONE).await?;
    for cid in 0..100 {
        let sqe = bytes::io(opcode::WRITE, cid, 0, 256);
        raw.send(&bytes::capsule(Digests::NONE, &sqe, &[])).await?;
    }
    let mut asked = 0;
    while let Heard::Pdu(pdu) = raw.hear(Duration::from_secs(1)).await {
        asked += u32::from(pdu[0] == kind::R2T) * (128 << 10);
    }
    if asked == 0 || asked > RECEIVING_BYTES_MAX { Err(format!("{asked} bytes asked for")) } else { Ok(()) }
}

const _: () = assert!(R2T_BLOCKS as u64 <= CASE_BLOCKS);

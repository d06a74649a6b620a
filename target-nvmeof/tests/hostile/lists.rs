//! Lists that are right, and reservations at their limits: N27 and N28.

use std::time::Duration;

use ashlar_env::reservation::{HostId, Notice, NoticeKind};
use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::pdu::CapsuleResp;
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, admin, io as opcode};
use ashlar_volume::Reservations;
use ashlar_volume::reservation::REGISTRANTS_MAX;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::bench::{Arena, STORE_TIME, SUBSYSTEM, admin_queue, io_queue, volume_of};
use crate::bytes::{self, Digests, Identity};
use crate::raw::{Done, Heard, Raw, read as read_pdu};
use crate::rows::{Given, prepare};
use crate::scenes::{Outcome, is};

const BLOCK: usize = 512;

pub async fn lists(arena: Arena) -> Outcome {
    for in_capsule in [false, true] {
        let name = format!("N27a 256 ranges, in the capsule: {in_capsule}");
        arena.case(&name, deallocate_256(&arena, in_capsule)).await?;
    }
    for (sources, to) in [
        (&[(0, 8)][..], 4),
        (&[(4, 8)], 0),
        (&[(0, 8)], 0),
        (&[(0, 4), (8, 4)], 2),
        (&[(2, 1), (1, 1), (0, 1)], 0),
        (&[(0, 3); 4], 1),
    ] {
        let name = format!("N27b {sources:?} copied to {to}");
        arena.case(&name, overlapping_copy(&arena, sources, to)).await?;
    }
    Ok(())
}

/// A command with a list of `data`.
fn list(op: u8, cid: u16, len: usize, in_capsule: bool) -> Sqe {
    let mut sqe = bytes::sqe(op, cid, len as u32);
    sqe.nsid = 1.into();
    if in_capsule {
        sqe.sgl.identifier = SGL_IN_CAPSULE;
    }
    sqe
}

async fn write(io: &mut Raw, first: u64, data: &[u8]) -> Outcome {
    let sqe = bytes::io(opcode::WRITE, 1, first, (data.len() / BLOCK) as u32);
    io.command(&sqe, data).await?.ok().map(drop)
}

async fn read(io: &mut Raw, first: u64, blocks: u32) -> Result<Vec<u8>, String> {
    Ok(io.command(&bytes::io(opcode::READ, 2, first, blocks), &[]).await?.ok()?.data)
}

/// As many ranges as one command may have, of three blocks each with one between them.
async fn deallocate_256(arena: &Arena, in_capsule: bool) -> Outcome {
    let (mut io, _admin, _) = prepare(arena, Given::Io, Digests::BOTH).await?;
    for quarter in 0..4 {
        write(&mut io, quarter * 256, &[0xD5; 256 * BLOCK]).await?;
    }
    let range = |at: u64| [&[0; 4], &3u32.to_le_bytes()[..], &(at * 4).to_le_bytes()].concat();
    let ranges: Vec<u8> = (0..256).flat_map(range).collect();
    // Without the attribute it is a hint; with it the blocks read as zeros.
    for attributes in [0_u32, 4] {
        let mut sqe = list(opcode::DATASET_MANAGEMENT, 3, ranges.len(), in_capsule);
        (sqe.cdw10, sqe.cdw11) = (255.into(), attributes.into());
        io.command(&sqe, &ranges).await?.ok()?;
        for quarter in 0..4 {
            let got = read(&mut io, quarter * 256, 256).await?;
            for (at, block) in got.chunks(BLOCK).enumerate() {
                let wanted = if attributes == 0 || at % 4 == 3 { 0xD5 } else { 0 };
                if block.iter().any(|byte| *byte != wanted) {
                    return Err(format!("block {} with attributes {attributes}", quarter * 256 + at as u64));
                }
            }
        }
    }
    io.command(&bytes::io(opcode::WRITE_ZEROES, 4, 0, 1024), &[]).await?.ok().map(drop)
}

/// An error and nothing copied, or the result as if all sources were read first.
async fn overlapping_copy(arena: &Arena, sources: &[(u64, u16)], to: u64) -> Outcome {
    let (mut io, _admin, _) = prepare(arena, Given::Io, Digests::NONE).await?;
    let before: Vec<u8> = (0..16 * BLOCK).map(|at| 1 + (at / BLOCK) as u8).collect();
    write(&mut io, 0, &before).await?;
    let range = |(first, blocks): (u64, u16)| {
        [&[0; 8], &first.to_le_bytes()[..], &(blocks - 1).to_le_bytes(), &[0; 14]].concat()
    };
    let ranges: Vec<u8> = sources.iter().copied().flat_map(range).collect();
    let mut sqe = list(opcode::COPY, 3, ranges.len(), true);
    (sqe.cdw10, sqe.cdw12) = ((to as u32).into(), (sources.len() as u32 - 1).into());
    let copied = io.command(&sqe, &ranges).await?.status().is_success();
    let mut wanted = before.clone();
    if copied {
        let block = |at: u64| &before[at as usize * BLOCK..][..BLOCK];
        let moved = sources.iter().flat_map(|&(first, blocks)| first..first + u64::from(blocks));
        for (source, at) in moved.zip(to as usize..) {
            wanted[at * BLOCK..][..BLOCK].copy_from_slice(block(source));
        }
    }
    let got = read(&mut io, 0, 16).await?;
    if got != wanted {
        let firsts: Vec<u8> = got.chunks(BLOCK).map(|block| block[0]).collect();
        return Err(format!("copied: {copied}, and the blocks are {firsts:?}"));
    }
    io.command(&bytes::io(opcode::WRITE_ZEROES, 4, 0, 16), &[]).await?.ok().map(drop)
}

/// The host with this number.
fn host(number: usize) -> Identity {
    let mut host_id = [0x28; 16];
    host_id[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
    Identity {
        host_id,
        host_nqn: format!("nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-00280000{number:04x}"),
        subsystem: SUBSYSTEM.to_owned(),
    }
}

fn keys(current: u64, new: u64) -> Vec<u8> {
    [U64::new(current), U64::new(new)].as_bytes().to_vec()
}

async fn queues(arena: &Arena, who: &Identity) -> Result<(Raw, Raw), String> {
    let Arena { env, address, .. } = arena;
    let (admin, cntlid) = admin_queue(env, *address, who, Digests::NONE).await?;
    Ok((admin, io_queue(env, *address, who, cntlid, 1, 31, Digests::NONE).await?))
}

/// Registers and asks that registrations outlast a loss of power (CPTPL 11b).
async fn register(arena: &Arena, number: usize) -> Result<Done, String> {
    let (_admin, mut io) = queues(arena, &host(number)).await?;
    let mut sqe = list(opcode::RESERVATION_REGISTER, 1, 16, true);
    sqe.cdw10 = (3 << 30).into();
    io.command(&sqe, &keys(0, number as u64 + 1)).await
}

/// A report of `dwords`, in the extended form.
async fn report(io: &mut Raw, dwords: u32) -> Result<Vec<u8>, String> {
    let mut sqe = list(opcode::RESERVATION_REPORT, 2, dwords as usize * 4, false);
    (sqe.cdw10, sqe.cdw11) = ((dwords - 1).into(), 1.into());
    Ok(io.command(&sqe, &[]).await?.ok()?.data)
}

/// Fails unless what is stored is a possible state, with so many registrants.
fn stored(arena: &Arena, registrants: usize) -> Outcome {
    let record = arena.stored(1).ok_or("nothing is stored")?;
    if !record.persist && registrants > 0 || record.registrants.len() != registrants {
        return Err(format!("{} registrants stored, not {registrants}", record.registrants.len()));
    }
    Reservations::try_from(record).map(drop).map_err(|error| error.to_string())
}

/// N28b, N28c: as many registrants as there may be, one more, and reports of any length.
pub async fn registrants(arena: Arena) -> Outcome {
    arena.case("N28b, N28c", every_registrant(&arena)).await?;
    for wait_us in [0, 100, 300, 500, 2000] {
        let name = format!("N28 a preempt, and its host gone after {wait_us} us");
        arena.case(&name, preempt_and_gone(&arena, wait_us)).await?;
    }
    arena.case("a preempt by another protocol", preempted_by_others(&arena)).await
}

/// A reservation log page is there: type 06h, information 00h, log page 80h.
const LOG_PAGE_IS_THERE: u32 = 0x80_0006;

fn registration_preempted(number: usize) -> Notice {
    let kind = NoticeKind::RegistrationPreempted;
    Notice { volume: volume_of(1), host: HostId(host(number).host_id), kind }
}

/// A host hears of what an initiator of another protocol did; one that is no NVMe host is passed over.
async fn preempted_by_others(arena: &Arena) -> Outcome {
    let (mut admin, _io) = queues(arena, &host(0)).await?;
    admin.send(&bytes::capsule(Digests::NONE, &bytes::sqe(admin::ASYNC_EVENT, 9, 0), &[])).await?;
    arena.carried();
    arena.tell(&[registration_preempted(1)]);
    if let Heard::Pdu(pdu) = admin.hear(Duration::from_millis(100)).await {
        return Err(format!("an event for another host: {pdu:?}"));
    }
    arena.tell(&[registration_preempted(0)]);
    let told = match admin.hear(Duration::from_millis(100)).await {
        Heard::Pdu(pdu) => read_pdu::<CapsuleResp>(&pdu)?.cqe.dw0.get(),
        _ => return Err("no event".into()),
    };
    // It came from elsewhere, so it goes nowhere else.
    if told != LOG_PAGE_IS_THERE || !arena.carried().is_empty() {
        return Err(format!("event {told:X}, carried on"));
    }
    Ok(())
}

/// A host preempts another's registration and resets its connection while the new state is being stored: either
/// nothing happened, or the other host is told.
async fn preempt_and_gone(arena: &Arena, wait_us: u64) -> Outcome {
    const PREEMPTER: usize = 1;
    register(arena, 0).await?.ok()?;
    register(arena, PREEMPTER).await?.ok()?;
    let (mut admin, mut victim) = queues(arena, &host(0)).await?;
    admin.send(&bytes::capsule(Digests::NONE, &bytes::sqe(admin::ASYNC_EVENT, 9, 0), &[])).await?;
    let (_admin, mut io) = queues(arena, &host(PREEMPTER)).await?;
    let mut preempt = list(opcode::RESERVATION_ACQUIRE, 1, 16, true);
    preempt.cdw10 = (1 | 1 << 8).into();
    io.send(&bytes::capsule(Digests::NONE, &preempt, &keys(PREEMPTER as u64 + 1, 1))).await?;
    arena.carried();
    arena.sleep(Duration::from_micros(wait_us)).await;
    io.stream.reset();
    arena.sleep(STORE_TIME * 10).await;
    let registered = report(&mut victim, 16).await?[5];
    let told = match admin.hear(Duration::from_millis(100)).await {
        Heard::Pdu(pdu) => Some(read_pdu::<CapsuleResp>(&pdu)?.cqe.dw0.get()),
        _ => None,
    };
    let carried = arena.carried();
    match (registered, told) {
        (2, None) if carried.is_empty() => {}
        (1, Some(LOG_PAGE_IS_THERE)) if carried == [registration_preempted(0)] => {}
        other => return Err(format!("registrants and event: {other:X?}, carried: {carried:?}")),
    }
    let (_admin, mut io) = queues(arena, &host(PREEMPTER)).await?;
    let mut clear = list(opcode::RESERVATION_RELEASE, 3, 8, true);
    clear.cdw10 = 1.into();
    io.command(&clear, &keys(PREEMPTER as u64 + 1, 0)[..8]).await?.ok().map(drop)
}

async fn every_registrant(arena: &Arena) -> Outcome {
    for number in 0..REGISTRANTS_MAX {
        register(arena, number).await?.ok().map_err(|error| format!("host {number}: {error}"))?;
        stored(arena, number + 1)?;
        if number % 8 == 7 {
            arena.settle().await?;
        }
    }
    let before = arena.stored(1);
    is(&register(arena, REGISTRANTS_MAX).await?, 0, 2).map_err(|error| format!("one more: {error}"))?;
    if arena.stored(1) != before {
        return Err("a refused registration changed what is stored".into());
    }
    let (_admin, mut io) = queues(arena, &host(3)).await?;
    let whole = report(&mut io, 16 * (REGISTRANTS_MAX as u32 + 2)).await?;
    let count = usize::from(U16::from_bytes([whole[5], whole[6]]).get());
    let generation = U32::from_bytes([whole[0], whole[1], whole[2], whole[3]]).get() as usize;
    if (count, generation) != (REGISTRANTS_MAX, REGISTRANTS_MAX) {
        return Err(format!("{count} registrants, generation {generation}"));
    }
    for dwords in [1, 2, 15, 17, 1000] {
        let part = report(&mut io, dwords).await?;
        if part.len() != dwords as usize * 4 || part[..] != whole[..part.len()] {
            return Err(format!("{} bytes for {dwords} dwords", part.len()));
        }
    }
    // Registrations are as before the case.
    let mut clear = list(opcode::RESERVATION_RELEASE, 3, 8, true);
    clear.cdw10 = 1.into();
    io.command(&clear, &keys(4, 0)[..8]).await?.ok()?;
    stored(arena, 0)?;
    let after = report(&mut io, 16).await?;
    if after[5..7] == [0, 0] { Ok(()) } else { Err("registrants after a clear".into()) }
}

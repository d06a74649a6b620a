//! The life of controllers and queues: N19e and N19h, N22c, N32.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use ashlar_nvmeof::view::DISCOVERY_NQN;
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, admin, io as opcode};

use crate::bench::{Arena, CULPRIT, admin_queue, identity, io_queue, limits};
use crate::bytes::{self, Digests, Identity};
use crate::raw::{Done, Heard, Raw};
use crate::rows::{Given, prepare};
use crate::scenes::{Outcome, is};

/// CC with shutdown (SHN = 01b) and enable.
const SHUTDOWN: u32 = 0x46_4001;
/// Rounds of N19e, with the two requests ever closer together.
const RACES: u64 = 40;
/// Rounds of N22c.
const VANISHING_HOSTS: usize = 1000;

pub async fn controllers(arena: Arena) -> Outcome {
    arena.case("N19e the number of queues changes", queue_count_races(&arena)).await?;
    arena.case("N19h CC.EN = 0", io_connect_while_disabled(&arena)).await?;
    arena.case("N19h a discovery controller", io_connect_to_discovery(&arena)).await?;
    arena.case("N32 after shutdown", after_shutdown(&arena)).await?;
    arena.case("N32 after a reset", after_reset(&arena)).await?;
    arena.case("N22c AER, then gone", events_and_gone(&arena)).await
}

async fn fresh(arena: &Arena) -> Result<Raw, String> {
    let mut raw = Raw::dial(&arena.env, arena.address).await?;
    raw.initialize(Digests::NONE).await?;
    Ok(raw)
}

/// Fails unless no I/O queue may be had: 0Ch or 1/82h.
async fn no_io_queue(arena: &Arena, who: &Identity, cntlid: u16) -> Outcome {
    let done = fresh(arena).await?.connect(1, 31, who, cntlid, 0).await?;
    is(&done, 0, 0xC).or_else(|_| is(&done, 1, 0x82)).map_err(|error| format!("an I/O queue: {error}"))
}

/// The host asks for one queue by one connection and connects queue 4 by another: one of the two is refused,
/// whichever the hub hears last.
async fn queue_count_races(arena: &Arena) -> Outcome {
    let who = identity(CULPRIT);
    let (mut connected, mut refused) = (0, 0);
    for round in 0..RACES {
        let (mut admin, cntlid) = admin_queue(&arena.env, arena.address, &who, Digests::NONE).await?;
        let mut queue = fresh(arena).await?;
        let mut set = bytes::sqe(admin::SET_FEATURES, 1, 0);
        set.cdw10 = 7.into();
        // In the first rounds the Connect comes first, in the last ones the change; between them it is a race.
        let (first, second) = ((RACES - 1 - round) * 10, round * 10);
        let change = async {
            arena.sleep(Duration::from_micros(first)).await;
            admin.command(&set, &[]).await
        };
        let connect = async {
            arena.sleep(Duration::from_micros(second)).await;
            queue.connect(limits().io_queues_max, 31, &who, cntlid, 0).await
        };
        let (changed, joined) = both(change, connect).await;
        let (changed, joined) = (changed?, joined?);
        if joined.status().is_success() {
            connected += 1;
            is(&changed, 0, 0xC).map_err(|error| format!("a queue above the new number: {error}"))?;
        } else {
            refused += 1;
            is(&joined, 1, 0x82).or_else(|_| is(&joined, 1, 1))?;
            if changed.ok()?.cqe.dw0.get() != 0 {
                return Err("one queue was asked for, and more are granted".into());
            }
        }
        drop((admin, queue));
        arena.sleep(Duration::from_millis(10)).await;
    }
    if connected == 0 || refused == 0 { Err(format!("no race: {connected} and {refused}")) } else { Ok(()) }
}

/// Runs both at once.
async fn both<A, B>(one: impl Future<Output = A>, two: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut two) = (pin!(one), pin!(two));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|cx| {
        if first.is_none()
            && let std::task::Poll::Ready(done) = one.as_mut().poll(cx)
        {
            first = Some(done);
        }
        if second.is_none()
            && let std::task::Poll::Ready(done) = two.as_mut().poll(cx)
        {
            second = Some(done);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => std::task::Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                std::task::Poll::Pending
            }
        }
    })
    .await
}

async fn io_connect_while_disabled(arena: &Arena) -> Outcome {
    let who = identity(CULPRIT);
    let mut admin = fresh(arena).await?;
    let cntlid = admin.connect(0, 31, &who, 0xFFFF, 0).await?.ok()?.cqe.dw0.get() as u16;
    no_io_queue(arena, &who, cntlid).await?;
    for cc in [0x46_0001, 0, 0x46_0001, SHUTDOWN] {
        admin.command(&bytes::property_set(1, 0x14, cc), &[]).await?.ok()?;
        if cc == 0x46_0001 {
            io_queue(&arena.env, arena.address, &who, cntlid, 2, 31, Digests::NONE).await?;
        } else {
            no_io_queue(arena, &who, cntlid).await?;
        }
    }
    Ok(())
}

async fn io_connect_to_discovery(arena: &Arena) -> Outcome {
    let who = Identity { subsystem: DISCOVERY_NQN.to_owned(), ..identity(CULPRIT) };
    let (mut admin, cntlid) = admin_queue(&arena.env, arena.address, &who, Digests::NONE).await?;
    no_io_queue(arena, &who, cntlid).await?;
    // Nor by the name of a subsystem that has I/O queues.
    no_io_queue(arena, &identity(CULPRIT), cntlid).await?;
    admin.command(&bytes::property_get(2, 0x1C, false), &[]).await?.ok().map(drop)
}

/// A command of each kind on an I/O queue, and what becomes of them.
async fn io_commands(io: &mut Raw) -> Result<Vec<Done>, String> {
    let mut inline = bytes::io(opcode::WRITE, 3, 0, 1);
    inline.sgl.identifier = SGL_IN_CAPSULE;
    let mut flush = bytes::sqe(opcode::FLUSH, 4, 0);
    flush.nsid = 1.into();
    let commands = [
        (bytes::io(opcode::READ, 1, 0, 1), vec![]),
        (bytes::io(opcode::WRITE, 2, 0, 32), vec![0xEE; 32 * 512]),
        (inline, vec![0xEE; 512]),
        (flush, vec![]),
        (bytes::io(opcode::WRITE_ZEROES, 5, 0, 1), vec![]),
    ];
    let mut ended = Vec::new();
    for (sqe, data) in commands {
        ended.push(io.command(&sqe, &data).await?);
    }
    Ok(ended)
}

async fn after_shutdown(arena: &Arena) -> Outcome {
    let (mut io, admin, _) = prepare(arena, Given::Io, Digests::NONE).await?;
    let (mut admin, _) = admin.ok_or("no admin queue")?;
    for done in io_commands(&mut io).await? {
        done.ok()?;
    }
    // The case must leave the blocks as they were.
    io.command(&bytes::io(opcode::WRITE_ZEROES, 9, 0, 32), &[]).await?.ok()?;
    admin.command(&bytes::property_set(1, 0x14, SHUTDOWN), &[]).await?.ok()?;
    for done in io_commands(&mut io).await? {
        is(&done, 0, 0xC)?;
    }
    let mut identify = bytes::sqe(admin::IDENTIFY, 2, 4096);
    identify.cdw10 = 1.into();
    for sqe in [identify, bytes::sqe(admin::ASYNC_EVENT, 3, 0), bytes::sqe(admin::KEEP_ALIVE, 4, 0)] {
        is(&admin.command(&sqe, &[]).await?, 0, 0xC)?;
    }
    let status = admin.command(&bytes::property_get(5, 0x1C, false), &[]).await?.ok()?.cqe.dw0.get();
    if status & 0xC == 8 { Ok(()) } else { Err(format!("CSTS {status:X}h after a shutdown")) }
}

/// A reset closes the I/O queues: what was on its way by them is not executed.
async fn after_reset(arena: &Arena) -> Outcome {
    let (mut io, admin, ctx) = prepare(arena, Given::R2t, Digests::NONE).await?;
    let (mut admin, _) = admin.ok_or("no admin queue")?;
    admin.command(&bytes::property_set(1, 0x14, 0), &[]).await?.ok()?;
    let data = bytes::h2c_data(Digests::NONE, ctx.cid, ctx.tag, 0, &[0xEE; 32 * 512], true);
    // The queue may be closed by now.
    let _ = io.send(&data).await;
    match io.hear(Duration::from_secs(1)).await {
        Heard::Closed => {}
        other => return Err(format!("a queue of the time before the reset: {other:?}")),
    }
    let mut identify = bytes::sqe(admin::IDENTIFY, 2, 4096);
    identify.cdw10 = 1.into();
    is(&admin.command(&identify, &[]).await?, 0, 0xC)?;
    admin.command(&bytes::property_set(3, 0x14, 0x46_0001), &[]).await?.ok()?;
    admin.command(&identify, &[]).await?.ok().map(drop)
}

/// Hosts that wait for events and are gone, by FIN and by reset, at once or a moment later.
async fn events_and_gone(arena: &Arena) -> Outcome {
    for round in 0..VANISHING_HOSTS {
        let (mut raw, _, _) = prepare(arena, Given::Admin, Digests::NONE).await?;
        for cid in 0..1 + round as u16 % 6 {
            raw.send(&bytes::capsule(Digests::NONE, &bytes::sqe(admin::ASYNC_EVENT, cid, 0), &[])).await?;
        }
        arena.sleep(Duration::from_micros(round as u64 % 7 * 50)).await;
        if round % 2 == 0 {
            raw.stream.reset();
        }
        drop(raw);
        if round % 8 == 7 {
            arena.settle().await.map_err(|error| format!("after {round} hosts: {error}"))?;
        }
    }
    Ok(())
}

//! Connections that end where no PDU does, by FIN and by reset: within a header, a digest, data, the data of an R2T,
//! the data of a read; beyond N04b and N18c.

use std::time::Duration;

use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, admin, io as opcode};

use crate::bench::{Arena, CULPRIT, identity};
use crate::bytes::{self, Digests};
use crate::rows::{Ctx, Given, R2T_BLOCKS, prepare, sibling, sibling_lives};
use crate::scenes::Outcome;

/// How the host leaves.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Reset,
}

/// The states of a connection, and what the host sends of in each.
const STATES: [Given; 6] =
    [Given::Tcp, Given::Initialized, Given::Disabled, Given::Admin, Given::Io, Given::R2t];

/// Every state, cut at every boundary and beside it.
pub async fn connections(arena: Arena) -> Outcome {
    for given in STATES {
        for digests in (0..4).map(Digests::of_field) {
            for end in [End::Fin, End::Reset] {
                for at in places(payload(given, digests, &Ctx { digests, cid: 0, tag: 0 }).len()) {
                    let name = format!("{given:?} {digests:?}, {end:?} after {at} bytes");
                    arena.case(&name, cut(&arena, given, digests, end, at)).await?;
                }
            }
        }
    }
    for end in [End::Fin, End::Reset] {
        for wait_us in [0, 20, 100, 300, 1000, 3000] {
            let name = format!("reads, {end:?} after {wait_us} us");
            arena.case(&name, amid_reads(&arena, end, wait_us)).await?;
            let name = format!("R2Ts on their way, {end:?} after {wait_us} us");
            arena.case(&name, amid_r2ts(&arena, end, wait_us)).await?;
        }
    }
    Ok(())
}

/// Where to cut `len` bytes: at and beside the common header, the headers of 24 and 72 bytes with and without a
/// digest, the middle, and the last digest; never at the end, where the command would be whole.
fn places(len: usize) -> Vec<usize> {
    let edges = [0, 1, 7, 8, 9, 23, 24, 27, 28, 29, 71, 72, 75, 76, 77];
    let ends = [len / 2, len - 5, len - 4, len - 1];
    let mut places: Vec<usize> = edges.into_iter().chain(ends).filter(|at| *at < len).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// What would change something if it were executed.
fn payload(given: Given, digests: Digests, ctx: &Ctx) -> Vec<u8> {
    match given {
        Given::Tcp => bytes::ic_req(digests),
        Given::Initialized => {
            let data = bytes::connect_data(&identity(CULPRIT), 0xFFFF);
            bytes::capsule(digests, &bytes::connect(1, 0, 31, 0), &data)
        }
        Given::Disabled | Given::Discovery => {
            bytes::capsule(digests, &bytes::property_set(1, 0x14, 0x46_0001), &[])
        }
        Given::Admin => {
            let mut set = bytes::sqe(admin::SET_FEATURES, 1, 512);
            (set.sgl.identifier, set.cdw10) = (SGL_IN_CAPSULE, 0x16.into());
            bytes::capsule(digests, &set, &[1; 512])
        }
        Given::Io => {
            let mut write = bytes::io(opcode::WRITE, 1, 0, 8);
            write.sgl.identifier = SGL_IN_CAPSULE;
            bytes::capsule(digests, &write, &[0xEE; 4096])
        }
        // In two PDUs.
        Given::R2t => {
            let half = vec![0xEE; R2T_BLOCKS as usize * 256];
            let first = bytes::h2c_data(digests, ctx.cid, ctx.tag, 0, &half, false);
            let last = bytes::h2c_data(digests, ctx.cid, ctx.tag, half.len() as u32, &half, true);
            [first, last].concat()
        }
    }
}

async fn cut(arena: &Arena, given: Given, digests: Digests, end: End, at: usize) -> Outcome {
    let (mut raw, admin, ctx) = prepare(arena, given, digests).await?;
    let sibling = sibling(arena, &admin, digests).await?;
    raw.send(&payload(given, digests, &ctx)[..at]).await?;
    match end {
        End::Fin => raw.stream.finish_sending(),
        End::Reset => raw.stream.reset(),
    }
    let said = raw.expect_close(Duration::from_secs(1)).await?;
    if !said.is_empty() {
        return Err(format!("half a PDU is answered: {said:?}"));
    }
    sibling_lives(sibling).await
}

/// The host leaves while the target is sending.
async fn amid_reads(arena: &Arena, end: End, wait_us: u64) -> Outcome {
    let (mut raw, admin, _) = prepare(arena, Given::Io, Digests::BOTH).await?;
    let sibling = sibling(arena, &admin, Digests::BOTH).await?;
    for cid in 0..32 {
        raw.send(&bytes::capsule(Digests::BOTH, &bytes::io(opcode::READ, cid, 0, 256), &[])).await?;
    }
    arena.sleep(Duration::from_micros(wait_us)).await;
    match end {
        // What was asked for before the end still comes, or does not; then the target closes.
        End::Fin => raw.stream.finish_sending(),
        End::Reset => raw.stream.reset(),
    }
    raw.expect_close(Duration::from_secs(1)).await?;
    sibling_lives(sibling).await
}

/// The host leaves before it has seen the R2Ts of its writes, or just then.
async fn amid_r2ts(arena: &Arena, end: End, wait_us: u64) -> Outcome {
    let (mut raw, admin, _) = prepare(arena, Given::Io, Digests::NONE).await?;
    let sibling = sibling(arena, &admin, Digests::NONE).await?;
    for cid in 0..32 {
        raw.send(&bytes::capsule(Digests::NONE, &bytes::io(opcode::WRITE, cid, 0, 64), &[])).await?;
    }
    if wait_us > 0 {
        // Whether an R2T is there by now is a matter of chance.
        raw.hear(Duration::from_micros(wait_us)).await;
    }
    match end {
        End::Fin => raw.stream.finish_sending(),
        End::Reset => raw.stream.reset(),
    }
    raw.expect_close(Duration::from_secs(1)).await?;
    sibling_lives(sibling).await
}

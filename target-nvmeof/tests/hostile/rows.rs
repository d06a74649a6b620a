//! Cases of one shot: what is there before, the bytes, and the reactions that pass; and how a row is run.

use std::time::Duration;

use ashlar_nvmeof::view::DISCOVERY_NQN;
use ashlar_nvmeof::wire::Status;
use ashlar_nvmeof::wire::pdu::{CapsuleResp, DataPdu, R2t, TermReq, kind};
use ashlar_nvmeof::wire::sqe::{admin, io as opcode};

use crate::bench::{Arena, CULPRIT, admin_queue, identity, io_queue};
use crate::bytes::{self, Digests, Identity};
use crate::raw::{Done, Heard, PATIENCE, Raw, read, said};

/// What there is before the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// A connection.
    Tcp,
    /// ICReq and ICResp.
    Initialized,
    /// An enabled admin queue.
    Admin,
    /// An admin queue whose controller is not enabled.
    Disabled,
    /// An enabled admin queue of a discovery controller.
    Discovery,
    /// An I/O queue of 128 entries.
    Io,
    /// The same with a write of 16 KiB under way, and an R2T for its data.
    R2t,
}

/// A reaction that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A terminate request with this fatal error status, and the end of the connection.
    T(u16),
    /// The same with this fatal error information.
    At(u16, u32),
    /// A completion with this status code type and code, and Do Not Retry.
    S(u8, u8),
    /// The same without Do Not Retry.
    Retry(u8, u8),
    /// The end of the connection without a word.
    Closed,
}

impl Expect {
    const fn is_fatal(self) -> bool {
        matches!(self, Self::T(_) | Self::At(..) | Self::Closed)
    }
}

/// What the bytes may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Ctx {
    pub digests: Digests,
    /// The identifier that the case's command must carry. Of [`Given::R2t`], that of the write under way.
    pub cid: u16,
    /// The tag of the R2T.
    pub tag: u16,
}

/// One case.
pub struct Row {
    pub id: &'static str,
    pub given: &'static [Given],
    /// With which digests it makes sense.
    pub with: fn(Digests) -> bool,
    pub bytes: fn(&Ctx) -> Vec<u8>,
    pub expect: &'static [Expect],
    /// The case ends the write of [`Given::R2t`].
    ends_the_write: bool,
}

impl Row {
    pub const fn ends_the_write(mut self) -> Self {
        self.ends_the_write = true;
        self
    }
}

/// A row that makes sense with any digests.
pub const fn row(
    id: &'static str,
    given: &'static [Given],
    expect: &'static [Expect],
    bytes: fn(&Ctx) -> Vec<u8>,
) -> Row {
    Row { id, given, with: |_| true, bytes, expect, ends_the_write: false }
}

/// A row for connections with these digests only.
pub const fn row_with(
    id: &'static str,
    given: &'static [Given],
    with: fn(Digests) -> bool,
    expect: &'static [Expect],
    bytes: fn(&Ctx) -> Vec<u8>,
) -> Row {
    Row { id, given, with, bytes, expect, ends_the_write: false }
}

/// What the host does after the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Silence,
    Fin,
    /// A sound command at once, which must not be served.
    SoundCommand,
    /// A reset at once: nobody hears the reaction.
    Reset,
}

/// The identifier of the sound command.
const SOUND: u16 = 0x7777;
/// The blocks of the write of [`Given::R2t`].
pub const R2T_BLOCKS: u32 = 32;

/// Runs `rows`, each in every queue state it names, with all combinations of digests, in one segment and byte by
/// byte; what the host does afterwards takes turns.
pub async fn run(arena: Arena, rows: &'static [Row]) -> Result<(), String> {
    let mut turn = 0;
    for row in rows {
        for &given in row.given {
            for digests in (0..4).map(Digests::of_field).filter(|of| (row.with)(*of)) {
                for bytewise in [false, true] {
                    let after = [After::Silence, After::Fin, After::SoundCommand][turn % 3];
                    turn += 1;
                    let way = Way { given, digests, bytewise, after };
                    arena.case(&format!("{} {way:?}", row.id), one(&arena, row, way)).await?;
                }
                let way = Way { given, digests, bytewise: turn % 2 == 0, after: After::Reset };
                arena.case(&format!("{} {way:?}", row.id), one(&arena, row, way)).await?;
            }
        }
    }
    Ok(())
}

/// One way to run a row.
#[derive(Clone, Copy, Debug)]
struct Way {
    given: Given,
    digests: Digests,
    bytewise: bool,
    after: After,
}

async fn one(arena: &Arena, row: &Row, way: Way) -> Result<(), String> {
    let Way { given, digests, bytewise, .. } = way;
    let (mut raw, admin, ctx) = prepare(arena, given, digests).await?;
    let sibling = sibling(arena, &admin, digests).await?;
    raw.bytewise = bytewise;
    let outcome = provoke(row, way, &mut raw, &ctx).await;
    sibling_lives(sibling).await.and(outcome)
}

/// Another I/O queue of the same controller, where `admin` is of one that has any.
pub async fn sibling(
    arena: &Arena,
    admin: &Option<(Raw, u16)>,
    digests: Digests,
) -> Result<Option<Raw>, String> {
    let Some((_, cntlid)) = admin else { return Ok(None) };
    io_queue(&arena.env, arena.address, &identity(CULPRIT), *cntlid, 2, 31, digests).await.map(Some)
}

/// Fails if that queue serves no more, whatever became of the first.
pub async fn sibling_lives(sibling: Option<Raw>) -> Result<(), String> {
    let Some(mut queue) = sibling else { return Ok(()) };
    let read = queue.command(&bytes::io(opcode::READ, 1, 0, 1), &[]).await.and_then(Done::ok);
    read.map(drop).map_err(|error| format!("another queue of the controller: {error}"))
}

/// Sends what the row says and checks the reaction.
async fn provoke(row: &Row, way: Way, raw: &mut Raw, ctx: &Ctx) -> Result<(), String> {
    let Way { given, digests, bytewise, after } = way;
    let mut payload = (row.bytes)(ctx);
    let fatal = row.expect.iter().all(|expect| expect.is_fatal());
    if fatal && after == After::SoundCommand {
        payload.extend(sound(given, digests));
    }
    // The target may close before it has read all of it.
    let sent = raw.send(&payload).await;
    if after == After::Reset {
        raw.stream.reset();
        return raw.expect_close(Duration::from_secs(1)).await.map(drop);
    }
    if fatal && after == After::Fin {
        raw.stream.finish_sending();
    }
    // A host that is still sending when the target closes may lose the last words to the reset.
    let race = bytewise && after == After::SoundCommand;
    let lives = reaction(raw, row, ctx, &payload, sent, race).await?;
    raw.bytewise = false;
    if lives {
        let given = if row.ends_the_write { Given::Io } else { given };
        still_works(raw, given, ctx).await?;
    }
    Ok(())
}

/// The connection in the state wanted, and the admin queue that an I/O queue needs, with the controller's number.
pub async fn prepare(
    arena: &Arena,
    given: Given,
    digests: Digests,
) -> Result<(Raw, Option<(Raw, u16)>, Ctx), String> {
    let Arena { env, address, .. } = arena;
    let mut ctx = Ctx { digests, cid: 7, tag: 0 };
    let who = identity(CULPRIT);
    match given {
        Given::Tcp => Ok((Raw::dial(env, *address).await?, None, ctx)),
        Given::Initialized => {
            let mut raw = Raw::dial(env, *address).await?;
            raw.initialize(digests).await?;
            Ok((raw, None, ctx))
        }
        Given::Admin => Ok((admin_queue(env, *address, &who, digests).await?.0, None, ctx)),
        Given::Disabled => {
            let mut raw = Raw::dial(env, *address).await?;
            raw.initialize(digests).await?;
            raw.connect(0, 31, &who, 0xFFFF, 0).await?.ok()?;
            Ok((raw, None, ctx))
        }
        Given::Discovery => {
            let who = Identity { subsystem: DISCOVERY_NQN.to_owned(), ..who };
            Ok((admin_queue(env, *address, &who, digests).await?.0, None, ctx))
        }
        Given::Io | Given::R2t => {
            let (admin, cntlid) = admin_queue(env, *address, &who, digests).await?;
            let mut raw = io_queue(env, *address, &who, cntlid, 1, 127, digests).await?;
            if given == Given::R2t {
                let write = bytes::io(opcode::WRITE, ctx.cid, 0, R2T_BLOCKS);
                raw.send(&bytes::capsule(digests, &write, &[])).await?;
                let r2t: R2t = read(&raw.expect().await?)?;
                assert_eq!((r2t.header.kind, r2t.length.get()), (kind::R2T, R2T_BLOCKS * 512));
                ctx.tag = r2t.ttag.get();
            }
            Ok((raw, Some((admin, cntlid)), ctx))
        }
    }
}

/// A command that the queue would serve.
fn sound(given: Given, digests: Digests) -> Vec<u8> {
    match given {
        Given::Tcp => bytes::ic_req(digests),
        Given::Initialized => bytes::capsule(
            digests,
            &bytes::connect(SOUND, 0, 31, 0),
            &bytes::connect_data(&identity(CULPRIT), 0xFFFF),
        ),
        Given::Disabled => bytes::capsule(digests, &bytes::property_get(SOUND, 0x1C, false), &[]),
        Given::Admin | Given::Discovery => {
            let mut identify = bytes::sqe(admin::IDENTIFY, SOUND, 4096);
            identify.cdw10 = 1.into();
            bytes::capsule(digests, &identify, &[])
        }
        Given::Io | Given::R2t => bytes::capsule(digests, &bytes::io(opcode::READ, SOUND, 0, 1), &[]),
    }
}

/// Waits for a reaction and checks it. Whether the connection lives on.
async fn reaction(
    raw: &mut Raw,
    row: &Row,
    ctx: &Ctx,
    payload: &[u8],
    sent: Result<(), String>,
    race: bool,
) -> Result<bool, String> {
    let expected = |got: String| format!("{got}, not {:?}", row.expect);
    loop {
        let wait = if row.expect.iter().all(|expect| expect.is_fatal()) {
            Duration::from_secs(30)
        } else {
            PATIENCE
        };
        let pdu = match raw.hear(wait).await {
            Heard::Pdu(pdu) => pdu,
            Heard::Closed if race || row.expect.contains(&Expect::Closed) => return Ok(false),
            other => return Err(expected(format!("{other:?} after sending: {sent:?}"))),
        };
        match pdu[0] {
            kind::C2H_TERM => {
                let term: TermReq = read(&pdu)?;
                let (fes, fei) = (term.fes.get(), term.fei.get());
                if !row.expect.contains(&Expect::T(fes)) && !row.expect.contains(&Expect::At(fes, fei)) {
                    return Err(expected(said(&pdu)));
                }
                let echo = &pdu[24..];
                if pdu.len() > 152
                    || !payload.windows(echo.len().max(1)).any(|part| echo.is_empty() || part == echo)
                {
                    return Err("the terminate request echoes what was not sent".into());
                }
                let rest = raw.expect_close(Duration::from_secs(30)).await?;
                return if rest.is_empty() { Ok(false) } else { Err(format!("it goes on: {rest:?}")) };
            }
            kind::CAPSULE_RESP => {
                let cqe = read::<CapsuleResp>(&pdu)?.cqe;
                if cqe.cid.get() == SOUND {
                    return Err("a command is served after a fatal error".into());
                }
                let status = Status::from_field(cqe.status.get());
                let (sct, sc, dnr) = (status.sct(), status.sc(), cqe.status.get() & 1 << 15 != 0);
                let passes = row.expect.iter().any(|expect| match expect {
                    Expect::S(t, c) => (sct, sc, dnr) == (*t, *c, true),
                    Expect::Retry(t, c) => (sct, sc, dnr) == (*t, *c, false),
                    _ => false,
                });
                if passes && cqe.cid.get() == ctx.cid {
                    return Ok(true);
                }
                if !row.expect.iter().all(|expect| expect.is_fatal()) {
                    return Err(expected(said(&pdu)));
                }
            }
            // The answers to what was right before.
            kind::C2H_DATA if read::<DataPdu>(&pdu)?.cccid.get() != SOUND => {}
            kind::R2T if row.expect.iter().all(|expect| expect.is_fatal()) => {}
            _ => return Err(expected(said(&pdu))),
        }
    }
}

/// After an ordinary completion the queue serves what is right.
async fn still_works(raw: &mut Raw, given: Given, ctx: &Ctx) -> Result<(), String> {
    if given == Given::R2t {
        // The write that was under way ends well, and changes nothing: zeros on zeros.
        let data = bytes::h2c_data(raw.digests, ctx.cid, ctx.tag, 0, &[0; R2T_BLOCKS as usize * 512], true);
        raw.send(&data).await?;
        raw.finish(ctx.cid, &[]).await?.ok()?;
    }
    raw.send(&sound(given, raw.digests)).await?;
    raw.finish(SOUND, &[]).await?.ok().map(drop)
}

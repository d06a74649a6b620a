//! The scenario's hosts.

use std::net::SocketAddr;
use std::time::Duration;

use ashlar_env::{Net, Rng};

use super::wire::{REPLY_BYTES, Request, Verb, parse_reply};
use super::{Plan, Shared};
use crate::check::ledger::{Cause, WriteEnd};
use crate::conformance::{receive, send_all, sleep, within};
use crate::{SimEnv, SimStream};

/// How long a host waits for a reply before it gives the connection up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How a request ended, as the host knows it.
#[derive(PartialEq)]
enum End {
    /// acknowledged, with the data of a read
    Done(Vec<u8>),
    /// reported failed
    Failed,
    /// no reply
    Unknown,
}

/// Issues `plan.requests` requests, over as many connections as it takes.
pub async fn run(env: SimEnv, writer: u32, plan: Plan, paths: [SocketAddr; 2], watch: Shared) {
    let mut stream = None;
    for _ in 0..plan.requests {
        let connected = match stream.take() {
            Some(stream) => stream,
            None => connect(&env, paths).await,
        };
        let sectors = 1 + env.random_below(plan.sectors.min(8));
        let lba = env.random_below(plan.sectors - sectors + 1);
        let verb = match env.random_below(10) {
            0..4 => Verb::Read,
            4..8 => Verb::Write { fua: env.random_below(3) == 0 },
            8 => Verb::Flush,
            _ => {
                sleep(&env, Duration::from_micros(env.random_below(20_000))).await;
                Verb::Read
            }
        };
        let request = Request { verb, lba, sectors };
        let unknown = !watched(&env, &connected, request, writer, &watch).await;
        if unknown || env.random_below(50) == 0 {
            continue;
        }
        stream = Some(connected);
    }
    watch.borrow_mut().hosts_left -= 1;
}

/// Reads every sector once more.
pub async fn audit(env: SimEnv, plan: Plan, paths: [SocketAddr; 2], watch: Shared) {
    let mut lba = 0;
    let mut stream = connect(&env, paths).await;
    while lba < plan.sectors {
        let request = Request { verb: Verb::Read, lba, sectors: 1 };
        if watched(&env, &stream, request, 0, &watch).await {
            lba += 1;
        } else {
            stream = connect(&env, paths).await;
        }
    }
}

async fn connect(env: &SimEnv, paths: [SocketAddr; 2]) -> SimStream {
    loop {
        let path = paths[env.random_below(2) as usize];
        if let Ok(stream) = env.connect(path).await {
            return stream;
        }
        sleep(env, Duration::from_micros(env.random_below(200_000))).await;
    }
}

/// Executes a request and tells the ledger; false where the connection is of no more use.
async fn watched(env: &SimEnv, stream: &SimStream, request: Request, writer: u32, watch: &Shared) -> bool {
    let end = match request.verb {
        Verb::Read => read(env, stream, request, watch).await,
        Verb::Write { fua } => write(env, stream, request, fua, writer, watch).await,
        Verb::Flush => {
            let ticket = watch.borrow_mut().ledger.begin_flush();
            let end = exchange(env, stream, request, &[]).await;
            if matches!(end, End::Done(_)) {
                watch.borrow_mut().ledger.end_flush(ticket);
            }
            end
        }
    };
    end != End::Unknown
}

async fn read(env: &SimEnv, stream: &SimStream, request: Request, watch: &Shared) -> End {
    let ticket = watch.borrow_mut().ledger.begin_read(request.lba, request.sectors);
    let end = exchange(env, stream, request, &[]).await;
    let ledger = &mut watch.borrow_mut().ledger;
    match &end {
        End::Done(data) => {
            if let Err(wrong) = ledger.end_read(ticket, data) {
                let check = if matches!(wrong.cause, Cause::Damage(_)) { "stamp" } else { "register" };
                env.fail(check, wrong.to_string());
            }
        }
        End::Failed | End::Unknown => ledger.drop_read(ticket),
    }
    end
}

async fn write(
    env: &SimEnv,
    stream: &SimStream,
    request: Request,
    fua: bool,
    writer: u32,
    watch: &Shared,
) -> End {
    let mut data = vec![0; request.sectors as usize * 512];
    let ticket = watch.borrow_mut().ledger.begin_write(writer, request.lba, &mut data, fua);
    let end = exchange(env, stream, request, &data).await;
    let how = match end {
        End::Done(_) => WriteEnd::Done,
        End::Failed => WriteEnd::Fenced,
        End::Unknown => {
            env.marks().hit("scenario: unknown write");
            WriteEnd::Unknown
        }
    };
    if let Err(violation) = watch.borrow_mut().ledger.end_write(ticket, how) {
        env.fail("register", violation.to_string());
    }
    end
}

/// Sends a request and waits for its reply.
async fn exchange(env: &SimEnv, stream: &SimStream, request: Request, data: &[u8]) -> End {
    let exchange = async {
        send_all(stream, &request.encode()).await.ok()?;
        send_all(stream, data).await.ok()?;
        let mut header = [0; REPLY_BYTES];
        (receive(stream, &mut header).await.ok()? == REPLY_BYTES).then_some(())?;
        let Some(ok) = parse_reply(&header) else {
            env.fail("wire", "a reply is damaged");
            return None;
        };
        if !ok {
            return Some(End::Failed);
        }
        let len = if request.verb == Verb::Read { request.sectors as usize * 512 } else { 0 };
        let mut answer = vec![0; len];
        (receive(stream, &mut answer).await.ok()? == len).then_some(End::Done(answer))
    };
    match within(env, TIMEOUT, exchange).await {
        Some(Some(end)) => end,
        Some(None) => End::Unknown,
        None => {
            env.marks().hit("scenario: request timed out");
            End::Unknown
        }
    }
}

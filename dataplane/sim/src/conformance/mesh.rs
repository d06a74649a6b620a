//! Promises of `Mesh`.

use std::future::poll_fn;
use std::time::Duration;

use ashlar_env::spawn::yield_now;
use ashlar_env::{Env, Mesh, ReactorId};

use super::{Signal, join_all, within};

/// Messages that each reactor sends to each.
pub const MESSAGES: u64 = 1000;

/// All of them: to be run on every reactor of a node at once, each with its own end.
///
/// Each reactor sends [`MESSAGES`] to each, itself included, and receives as many from each, in order.
pub async fn participate<E: Env, M: Mesh<u64>>(env: E, mesh: M) {
    let done = Signal::default();
    let sends: Vec<_> = (0..mesh.reactors()).map(|to| send(mesh.clone(), ReactorId(to))).collect();
    let signal = done.clone();
    env.spawn(async move {
        join_all(sends).await;
        signal.set();
    });
    within(&env, Duration::from_secs(60), receive(&mesh)).await.expect("messages were lost");
    within(&env, Duration::from_secs(60), done.wait()).await.expect("a full link was never announced empty");
}

async fn send<M: Mesh<u64>>(mesh: M, to: ReactorId) {
    for number in 0..MESSAGES {
        let mut message = number;
        while let Err(back) = mesh.try_send(to, message) {
            assert_eq!(back, message, "a full link gave another message back");
            message = back;
            poll_fn(|cx| mesh.poll_room(cx, to)).await;
        }
        if number % 64 == 0 {
            yield_now().await;
        }
    }
}

async fn receive<M: Mesh<u64>>(mesh: &M) {
    let reactors = usize::from(mesh.reactors());
    assert!(mesh.here().0 < mesh.reactors());
    let mut next = vec![0; reactors];
    for _ in 0..MESSAGES * reactors as u64 {
        let (from, number) = poll_fn(|cx| mesh.poll_recv(cx)).await;
        let expected = &mut next[usize::from(from.0)];
        assert_eq!(number, *expected, "reactor {} received out of order from {}", mesh.here().0, from.0);
        *expected += 1;
    }
}

/// A link whose receiver does not receive is bounded. Uses the reactor's link to itself and leaves it empty.
pub async fn links_are_bounded<M: Mesh<u64>>(mesh: M) {
    let here = mesh.here();
    let held = (0..1_000_000).take_while(|&number| mesh.try_send(here, number).is_ok()).count() as u64;
    assert!(held > 0, "an empty link has room");
    assert!(held < 1_000_000, "a link took a million messages that nobody received");
    for number in 0..held {
        assert_eq!(poll_fn(|cx| mesh.poll_recv(cx)).await, (here, number));
    }
}

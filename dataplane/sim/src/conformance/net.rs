//! Promises of `Net`, `Listener` and `Stream`.

use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use ashlar_env::net::NetError;
use ashlar_env::{Env, Listener, Stream};

use super::{Signal, fill, first_difference, join_all, receive, send_all, sleep, within};

const PATIENCE: Duration = Duration::from_secs(30);

/// All of them, on `address` with port 0, which must be of this machine.
pub async fn all<E: Env>(env: E, address: SocketAddr) {
    assert_eq!(address.port(), 0, "the suite picks free ports");
    addresses_are_told(&env, address).await;
    an_address_in_use_is_refused(&env, address);
    nobody_listens(&env, address).await;
    bytes_arrive_unchanged_both_ways(&env, address).await;
    many_slices_are_one_stream(&env, address).await;
    shutdown_sends_the_rest_and_ends(&env, address).await;
    drop_sends_the_rest_and_ends(&env, address).await;
    a_writer_waits_for_a_reader_that_stops(&env, address).await;
    a_writer_learns_that_the_reader_is_gone(&env, address).await;
    an_accepted_connection_may_be_dropped(&env, address).await;
    a_dropped_accept_loses_no_connection(&env, address).await;
}

fn must_be_send<T: Send>(value: T) -> T {
    value
}

/// A connection to ourselves: the connecting side and the accepting side.
async fn pair<E: Env>(env: &E, address: SocketAddr) -> (E::Stream, E::Stream) {
    let listener = env.listen(address).expect("a free port");
    let to = listener.local_addr();
    let both = within(env, PATIENCE, join_two(env.connect(to), listener.accept())).await;
    let (client, accepted) = both.expect("a connection in time");
    let (accepted, peer) = accepted.expect("a connection");
    let client = client.expect("a connection");
    let server = env.adopt(must_be_send(accepted)).expect("a reactor adopts what it accepted");
    assert_eq!(peer, server.peer_addr(), "accept told another peer than the stream");
    (client, server)
}

async fn join_two<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (Box::pin(a), Box::pin(b));
    let (mut x, mut y) = (None, None);
    poll_fn(move |cx| {
        if x.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            x = Some(value);
        }
        if y.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            y = Some(value);
        }
        match (x.take(), y.take()) {
            (Some(x), Some(y)) => Poll::Ready((x, y)),
            (left, right) => {
                (x, y) = (left, right);
                Poll::Pending
            }
        }
    })
    .await
}

async fn addresses_are_told<E: Env>(env: &E, address: SocketAddr) {
    let listener = env.listen(address).expect("a free port");
    assert_ne!(listener.local_addr().port(), 0, "port 0 is not a port");
    drop(listener);
    let (client, server) = pair(env, address).await;
    assert_eq!(client.peer_addr(), server.local_addr());
    assert_eq!(client.local_addr(), server.peer_addr());
}

fn an_address_in_use_is_refused<E: Env>(env: &E, address: SocketAddr) {
    let listener = env.listen(address).expect("a free port");
    let again = env.listen(listener.local_addr());
    assert!(matches!(again, Err(NetError::CannotListen(_))), "the same address was bound twice");
    drop(listener);
    let foreign = env.listen(SocketAddr::from(([192, 0, 2, 1], 0)));
    assert!(matches!(foreign, Err(NetError::CannotListen(_))), "an address of another machine was bound");
}

async fn nobody_listens<E: Env>(env: &E, address: SocketAddr) {
    let listener = env.listen(address).expect("a free port");
    let gone = listener.local_addr();
    drop(listener);
    let refused = within(env, PATIENCE, env.connect(gone)).await.expect("a refusal in time");
    assert!(matches!(refused, Err(NetError::Unreachable(_))), "connected to nobody");
}

async fn bytes_arrive_unchanged_both_ways<E: Env>(env: &E, address: SocketAddr) {
    const BYTES: usize = 300_000;
    let (client, server) = pair(env, address).await;
    let (mut up, mut down) = (vec![0; BYTES], vec![0; BYTES]);
    fill(1, 0, &mut up);
    fill(2, 0, &mut down);
    let (mut up_got, mut down_got) = (vec![0; BYTES], vec![0; BYTES]);
    let sends = join_two(send_all(&client, &up), send_all(&server, &down));
    let receives = join_two(receive(&server, &mut up_got), receive(&client, &mut down_got));
    let all = within(env, PATIENCE, join_two(sends, receives)).await.expect("both streams in time");
    assert_eq!(all, ((Ok(()), Ok(())), (Ok(BYTES), Ok(BYTES))));
    assert_eq!(first_difference(1, 0, &up_got), None, "a byte changed on its way");
    assert_eq!(first_difference(2, 0, &down_got), None, "a byte changed on its way");
}

async fn many_slices_are_one_stream<E: Env>(env: &E, address: SocketAddr) {
    let (client, server) = pair(env, address).await;
    let mut bytes = [0; 4000];
    fill(3, 0, &mut bytes);
    let send = async {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            let (a, b) = rest.split_at(rest.len() / 3);
            let slices = [IoSlice::new(a), IoSlice::new(&[]), IoSlice::new(b)];
            sent += poll_fn(|cx| client.poll_send(cx, &slices)).await.expect("a send");
        }
    };
    let mut got = Vec::new();
    let receive = async {
        while got.len() < bytes.len() {
            let (mut a, mut b) = ([0; 7], [0; 1000]);
            let count = poll_fn(|cx| {
                server.poll_recv(
                    cx,
                    &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut []), IoSliceMut::new(&mut b)],
                )
            })
            .await
            .expect("a receive");
            assert!(count > 0, "the end came too early");
            got.extend_from_slice(&a[..count.min(7)]);
            got.extend_from_slice(&b[..count.saturating_sub(7)]);
        }
    };
    within(env, PATIENCE, join_two(send, receive)).await.expect("all in time");
    assert_eq!(first_difference(3, 0, &got), None, "slices were filled out of order");
    let nothing = poll_fn(|cx| client.poll_send(cx, &[])).await;
    assert_eq!(nothing, Ok(0), "an empty send");
    let nothing = poll_fn(|cx| server.poll_recv(cx, &mut [])).await;
    assert_eq!(nothing, Ok(0), "an empty receive");
}

async fn shutdown_sends_the_rest_and_ends<E: Env>(env: &E, address: SocketAddr) {
    let (client, server) = pair(env, address).await;
    send_all(&client, b"the rest").await.expect("a send");
    client.shutdown();
    let mut got = [0; 64];
    let count = within(env, PATIENCE, receive(&server, &mut got)).await.expect("the end in time");
    assert_eq!(count, Ok(8), "what was sent before a shutdown arrives, then the end");
    assert_eq!(&got[..8], b"the rest");
    let after = within(env, PATIENCE, send_all(&client, b"more")).await.expect("an answer");
    assert!(after.is_err(), "a send after a shutdown");
    let mut byte = [0];
    let after = within(env, PATIENCE, receive(&client, &mut byte)).await.expect("an answer");
    assert!(matches!(after, Ok(0) | Err(_)), "a receive after a shutdown");
}

async fn drop_sends_the_rest_and_ends<E: Env>(env: &E, address: SocketAddr) {
    let (client, server) = pair(env, address).await;
    send_all(&client, b"the rest").await.expect("a send");
    drop(client);
    let mut got = [0; 64];
    let count = within(env, PATIENCE, receive(&server, &mut got)).await.expect("the end in time");
    assert_eq!(count, Ok(8), "what was sent before a close arrives, then the end");
}

async fn a_writer_waits_for_a_reader_that_stops<E: Env>(env: &E, address: SocketAddr) {
    let (client, server) = pair(env, address).await;
    let chunk = vec![5; 65_536];
    let mut sent = 0_usize;
    // Kernels hold some megabytes at most.
    while sent < 64 << 20 {
        let more = within(
            env,
            Duration::from_millis(50),
            poll_fn(|cx| client.poll_send(cx, &[IoSlice::new(&chunk)])),
        );
        match more.await {
            Some(count) => sent += count.expect("a send"),
            None => break,
        }
    }
    assert!(sent < 64 << 20, "64 MiB were taken though nobody reads");
    let mut got = vec![0; sent];
    let drained = join_two(receive(&server, &mut got), send_all(&client, b"x"));
    let (count, more) = within(env, PATIENCE, drained).await.expect("the writer is woken");
    assert_eq!((count, more), (Ok(sent), Ok(())));
}

async fn a_writer_learns_that_the_reader_is_gone<E: Env>(env: &E, address: SocketAddr) {
    let (client, server) = pair(env, address).await;
    drop(server);
    let write = async {
        loop {
            if let Err(error) = send_all(&client, &[0; 1000]).await {
                return error;
            }
            sleep(env, Duration::from_millis(1)).await;
        }
    };
    let error = within(env, PATIENCE, write).await.expect("the writer learns it in time");
    assert_eq!(error, NetError::Reset);
}

async fn an_accepted_connection_may_be_dropped<E: Env>(env: &E, address: SocketAddr) {
    let listener = env.listen(address).expect("a free port");
    let to = listener.local_addr();
    let (client, accepted) =
        within(env, PATIENCE, join_two(env.connect(to), listener.accept())).await.expect("a connection");
    let client = client.expect("a connection");
    drop(accepted);
    let mut byte = [0];
    let end = within(env, PATIENCE, receive(&client, &mut byte)).await.expect("the end in time");
    assert!(matches!(end, Ok(0) | Err(NetError::Reset)), "{end:?}");
}

async fn a_dropped_accept_loses_no_connection<E: Env>(env: &E, address: SocketAddr) {
    let listener = env.listen(address).expect("a free port");
    let to = listener.local_addr();
    let early = within(env, Duration::from_millis(5), listener.accept()).await;
    assert!(early.is_none(), "a connection from nowhere");
    let connected = Signal::default();
    let connect = async {
        let streams = join_all((0..3).map(|_| env.connect(to))).await;
        connected.set();
        streams
    };
    let accept = async {
        connected.wait().await;
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(listener.accept().await.expect("a connection"));
        }
        all
    };
    let both = within(env, PATIENCE, join_two(connect, accept)).await;
    let (streams, accepted) = both.expect("three connections in time");
    assert!(streams.iter().all(Result::is_ok));
    assert_eq!(accepted.len(), 3);
}

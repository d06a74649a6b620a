//! TCP: what the peer of a reactor sees and what the reactor sees of its peer.

mod common;

use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use ashlar_env::net::NetError;
use ashlar_env::{Listener, Mesh, Net, ReactorId, Spawn, Stream};
use ashlar_runtime::{Accepted, ReactorEnv, Runtime, Spin, TcpStream};
use common::{SHORT, runtime};

const ANY: &str = "127.0.0.1:0";

async fn recv(stream: &TcpStream, buf: &mut [u8]) -> Result<usize, NetError> {
    poll_fn(|cx| stream.poll_recv(cx, &mut [IoSliceMut::new(buf)])).await
}

async fn send_all(stream: &TcpStream, mut bytes: &[u8]) -> Result<(), NetError> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| stream.poll_send(cx, &[IoSlice::new(bytes)])).await?;
        bytes = &bytes[n..];
    }
    Ok(())
}

async fn echo(stream: TcpStream) {
    let mut buf = vec![0; 70_000];
    while let Ok(n @ 1..) = recv(&stream, &mut buf).await {
        if send_all(&stream, &buf[..n]).await.is_err() {
            return;
        }
    }
}

/// Starts an echo server on reactor 0; returns its address.
fn echo_server<M: Send + 'static>(runtime: &Runtime<M>) -> SocketAddr {
    let address = runtime.reactors()[0].call(|env, _| async move {
        let listener = env.listen(ANY.parse().unwrap()).unwrap();
        let address = listener.local_addr();
        let server = env.clone();
        env.spawn(async move {
            while let Ok((accepted, peer)) = listener.accept().await {
                assert_eq!(accepted.peer_addr(), peer);
                let stream = server.adopt(accepted).unwrap();
                assert_eq!((stream.peer_addr(), stream.local_addr()), (peer, address));
                server.spawn(echo(stream));
            }
        });
        address
    });
    address.wait().unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn bytes_come_back_whole_from_a_slow_and_a_fast_peer() {
    for spin in [Spin::NEVER, SHORT] {
        let runtime = runtime::<()>(1, spin);
        let address = echo_server(&runtime);
        let sent = pattern(3 << 20);
        let mut peer = StdStream::connect(address).unwrap();
        let mut writer = peer.try_clone().unwrap();
        let to_send = sent.clone();
        let writing = std::thread::spawn(move || {
            for piece in to_send[..200].chunks(1) {
                writer.write_all(piece).unwrap();
            }
            writer.write_all(&to_send[200..]).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        // Long enough for the sender's buffers to fill up.
        std::thread::sleep(Duration::from_millis(20));
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == sent);
    }
}

#[test]
fn one_round_trip_at_a_time_never_stalls() {
    let runtime = runtime::<()>(1, SHORT);
    let mut peer = StdStream::connect(echo_server(&runtime)).unwrap();
    peer.set_nodelay(true).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for round in 0..3000_u32 {
        // Now and then, long enough for the reactor to fall asleep.
        if round % 500 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut buf = round.to_le_bytes();
        peer.write_all(&buf).unwrap();
        buf.fill(0);
        peer.read_exact(&mut buf).unwrap();
        assert_eq!(u32::from_le_bytes(buf), round);
    }
}

#[test]
fn a_connection_moves_to_another_reactor() {
    let runtime = runtime::<Accepted>(2, SHORT);
    runtime.reactors()[1]
        .spawn(|env, mesh| async move {
            loop {
                let (_, accepted) = poll_fn(|cx| mesh.poll_recv(cx)).await;
                let stream = env.adopt(accepted).unwrap();
                env.spawn(echo(stream));
            }
        })
        .unwrap();
    let address = runtime.reactors()[0].call(|env, mesh| async move {
        let listener = env.listen(ANY.parse().unwrap()).unwrap();
        let address = listener.local_addr();
        env.spawn(async move {
            while let Ok((accepted, _)) = listener.accept().await {
                mesh.try_send(ReactorId(1), accepted).unwrap();
            }
        });
        address
    });
    let address = address.wait().unwrap();
    let mut peers: Vec<_> = (0..3).map(|_| StdStream::connect(address).unwrap()).collect();
    for (at, peer) in peers.iter_mut().enumerate() {
        let mut buf = [at as u8; 16];
        peer.write_all(&buf).unwrap();
        buf.fill(99);
        peer.read_exact(&mut buf).unwrap();
        assert_eq!(buf, [at as u8; 16]);
    }
    assert_eq!(runtime.reactors()[1].stats().sockets.get(), 3);
    drop(peers);
    let start = Instant::now();
    while runtime.reactors()[1].stats().sockets.get() > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "closed connections are let go");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn two_reactors_talk() {
    let runtime = runtime::<()>(2, SHORT);
    let address = echo_server(&runtime);
    let answer = runtime.reactors()[1].call(move |env, _| async move {
        let stream = env.connect(address).await.unwrap();
        assert_eq!(stream.peer_addr(), address);
        let sent = pattern(10_000);
        send_all(&stream, &sent).await.unwrap();
        let mut got = Vec::new();
        // Into several buffers at once, one of them empty.
        let (mut a, mut b) = ([0; 100], [0; 1000]);
        while got.len() < sent.len() {
            let n = poll_fn(|cx| {
                let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut []), IoSliceMut::new(&mut b)];
                stream.poll_recv(cx, &mut bufs)
            })
            .await
            .unwrap();
            got.extend_from_slice(&a[..n.min(100)]);
            got.extend_from_slice(&b[..n.saturating_sub(100)]);
        }
        got == sent
    });
    assert_eq!(answer.wait(), Ok(true));
}

#[test]
fn many_parts_go_out_in_order() {
    let runtime = runtime::<()>(2, SHORT);
    let address = echo_server(&runtime);
    let answer = runtime.reactors()[1].call(move |env, _| async move {
        let stream = env.connect(address).await.unwrap();
        let bytes = pattern(3000);
        let empty: &[u8] = &[];
        let mut parts: Vec<IoSlice<'_>> = (0..2000).map(|_| IoSlice::new(empty)).collect();
        parts.extend(bytes.chunks(1).map(IoSlice::new));
        let mut sent = 0;
        while sent < bytes.len() {
            sent += poll_fn(|cx| stream.poll_send(cx, &parts[2000 + sent..])).await.unwrap();
        }
        assert_eq!(poll_fn(|cx| stream.poll_send(cx, &parts[..2000])).await, Ok(0));
        let mut got = vec![0; bytes.len()];
        let mut filled = 0;
        while filled < got.len() {
            filled += recv(&stream, &mut got[filled..]).await.unwrap();
        }
        // Empty parts before the first byte are skipped, however many.
        assert_eq!(poll_fn(|cx| stream.poll_send(cx, &parts[..2001])).await, Ok(1));
        got == bytes
    });
    assert_eq!(answer.wait(), Ok(true));
}

#[test]
fn ends_show() {
    let runtime = runtime::<()>(1, SHORT);
    let answer = runtime.reactors()[0].call(|env: ReactorEnv, _| async move {
        let listener = env.listen(ANY.parse().unwrap()).unwrap();
        let address = listener.local_addr();
        let (near, far) = pair(&env, &listener, address).await;
        // The peer finishes: what it sent comes first, then the end, again and again.
        send_all(&far, b"bye").await.unwrap();
        far.shutdown();
        let mut buf = [0; 64];
        assert_eq!(recv(&near, &mut buf).await, Ok(3));
        assert_eq!(recv(&near, &mut buf).await, Ok(0));
        assert_eq!(recv(&near, &mut buf).await, Ok(0));
        assert_eq!(recv(&far, &mut buf).await, Ok(0));
        assert_eq!(send_all(&far, b"x").await, Err(NetError::Reset));
        // The peer goes without reading what it was sent: a reset.
        let (near, far) = pair(&env, &listener, address).await;
        send_all(&near, b"unread").await.unwrap();
        recv(&far, &mut buf[..1]).await.unwrap();
        drop(far);
        assert_eq!(recv(&near, &mut buf).await, Err(NetError::Reset));
        let broken = async {
            loop {
                send_all(&near, b"more").await?;
            }
        };
        let broken: Result<(), NetError> = broken.await;
        assert_eq!(broken, Err(NetError::Reset));
    });
    assert_eq!(answer.wait(), Ok(()));
}

async fn pair(
    env: &ReactorEnv,
    listener: &ashlar_runtime::TcpListener,
    address: SocketAddr,
) -> (TcpStream, TcpStream) {
    let far = env.connect(address).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    (env.adopt(accepted).unwrap(), far)
}

/// The timer column of a connection in `/proc/net/tcp`: 02 is the keep-alive timer, then `:` and the hundredths of
/// a second until it fires, in hexadecimal.
fn timer(local: SocketAddr, peer: SocketAddr) -> Option<(u8, u64)> {
    let port = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields[1] != port(local) || fields[2] != port(peer) {
            return None;
        }
        let (kind, left) = fields[5].split_once(':').unwrap();
        Some((u8::from_str_radix(kind, 16).unwrap(), u64::from_str_radix(left, 16).unwrap()))
    })
}

#[test]
fn a_silent_peer_is_probed() {
    let runtime = runtime::<()>(1, SHORT);
    let address = echo_server(&runtime);
    let mut peer = StdStream::connect(address).unwrap();
    peer.write_all(b"x").unwrap();
    peer.read_exact(&mut [0]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    // Until the echo is acknowledged the timer is that of the retransmission.
    while timer(address, peer.local_addr().unwrap()).is_none_or(|(kind, _)| kind != 2) {
        assert!(Instant::now() < deadline, "{:?}", timer(address, peer.local_addr().unwrap()));
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_, left) = timer(address, peer.local_addr().unwrap()).unwrap();
    assert!((2000..=3000).contains(&left), "{left}");
}

#[test]
fn a_waiting_receiver_learns_of_a_shutdown_by_another_task() {
    let runtime = runtime::<()>(1, Spin::NEVER);
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let listener = env.listen(ANY.parse().unwrap()).unwrap();
        let (near, _far) = pair(&env, &listener, listener.local_addr()).await;
        let near = std::rc::Rc::new(near);
        let other = near.clone();
        env.spawn(async move { other.shutdown() });
        recv(&near, &mut [0; 8]).await
    });
    assert_eq!(answer.wait().unwrap(), Ok(0));
}

#[test]
fn addresses_that_cannot_be_had_are_refused() {
    let runtime = runtime::<()>(1, SHORT);
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let listener = env.listen(ANY.parse().unwrap()).unwrap();
        let taken = env.listen(listener.local_addr()).err();
        assert!(matches!(taken, Some(NetError::CannotListen(_))), "{taken:?}");
        // An address for documentation, not this machine's.
        let foreign = env.listen("192.0.2.1:4420".parse().unwrap()).err();
        assert!(matches!(foreign, Some(NetError::CannotListen(_))), "{foreign:?}");
        let address = listener.local_addr();
        drop(listener);
        let nobody = env.connect(address).await.err();
        assert!(matches!(nobody, Some(NetError::Unreachable(_))), "{nobody:?}");
        // At once available again.
        env.listen(address).map(drop)
    });
    assert_eq!(answer.wait(), Ok(Ok(())));
}

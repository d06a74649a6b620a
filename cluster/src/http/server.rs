//! Accepts connections and feeds them to the routes, with a bound on everything a client may hold.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep};

use super::guard::LocalAddress;
use super::router;
use crate::service::ControlPlane;
use crate::state::{Refusal, RefusalKind};

/// Most connections that are served at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Longest wait for a request's head, hence longest idle time of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without progress while a reply is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest life of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait for requests in flight when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the kernel could not hand a connection over, e.g. for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Stops a server from any thread. Dropping it does, too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

impl ShutdownTrigger {
    /// Has the server finish the requests in flight, for at most 5 s, and return.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// The server's end of a [`ShutdownTrigger`].
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    async fn wait(mut self) {
        // An error means that the trigger is gone.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// A trigger and what it triggers.
pub fn shutdown() -> (ShutdownTrigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (ShutdownTrigger(sender), Shutdown(receiver))
}

/// Listens on `address`.
///
/// # Errors
///
/// A refusal that says who is in the way: `InUse` for a port that is taken.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Refusal> {
    TcpListener::bind(address).map_err(|e| {
        let what = format!("serve the API on {address}");
        match e.kind() {
            io::ErrorKind::AddrInUse => {
                Refusal::new(RefusalKind::InUse, what, "another program listens there").next(format!(
                    "stop it (`ss -ltnp sport = :{}` shows it), or set [api] listen",
                    address.port()
                ))
            }
            io::ErrorKind::AddrNotAvailable => {
                Refusal::new(RefusalKind::Invalid, what, "this machine has no such address")
                    .next("`ip address` shows those it has; set [api] listen to one of them")
            }
            io::ErrorKind::PermissionDenied => Refusal::new(RefusalKind::Failed, what, "permission denied")
                .next("ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one"),
            _ => Refusal::new(RefusalKind::Failed, what, e.to_string()),
        }
    })
}

/// Runs the control plane and its API on this thread until `shutdown`.
///
/// Then it stops accepting, finishes the requests in flight, carries out what is in the control
/// plane's queue, and returns. The store is closed when it returns.
///
/// # Errors
///
/// The operating system refuses the listener or a runtime, or the control plane has failed. The node
/// cannot be controlled then and should stop.
pub fn serve(listener: TcpListener, plane: ControlPlane, shutdown: Shutdown) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = router(plane.handle());
        let (served, stop_plane) = tokio::sync::oneshot::channel::<()>();
        let mut plane = tokio::spawn(plane.run(async move {
            let _ = stop_plane.await;
        }));
        tokio::select! {
            () = accept(listener, router, shutdown) => {}
            // It ends before it is told to only by a panic; an API without it would be of no use.
            ended = &mut plane => return ended.map_err(io::Error::other),
        }
        let _ = served.send(());
        plane.await.map_err(io::Error::other)
    })
}

async fn accept(listener: tokio::net::TcpListener, router: Router, shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stop = std::pin::pin!(shutdown.clone().wait());
    loop {
        let slot = tokio::select! {
            biased;
            () = &mut stop => break,
            slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), shutdown.clone(), slot));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS_MAX).expect("a small number");
    if tokio::time::timeout(STOP_TIMEOUT, slots.acquire_many(all)).await.is_err() {
        tracing::warn!("some API requests were still in flight when the node stopped");
    }
}

/// Serves one connection until either side ends it.
async fn connection(stream: TcpStream, router: Router, shutdown: Shutdown, slot: OwnedSemaphorePermit) {
    let Ok(local) = stream.local_addr() else { return };
    // Replies are sent whole; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router.layer(Extension(LocalAddress(local))));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Impatient::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let deadline = tokio::time::sleep(CONNECTION_TIMEOUT);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = deadline => {}
        () = shutdown.wait() => {
            // Ends after the request in flight, or at once if there is none.
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(STOP_TIMEOUT, connection).await;
        }
    }
    drop(slot);
}

/// A stream that fails when a write makes no progress for [`WRITE_TIMEOUT`].
struct Impatient<S> {
    stream: S,
    /// Armed while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S) -> Self {
        Impatient { stream, deadline: None }
    }

    /// Passes on what a write yielded, and keeps the time while it waits.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIMEOUT)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Impatient::new(near);
        near.write_all(&[1; 64]).await.unwrap();
        let start = Instant::now();
        let error = near.write_all(&[2; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
        // What was written before the peer stopped is its to read.
        let mut received = [0; 64];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(received, [1; 64]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_served() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Impatient::new(near);
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            let mut part = [0; 64];
            while received.len() < 640 {
                tokio::time::sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
                let count = far.read(&mut part).await.unwrap();
                received.extend_from_slice(&part[..count]);
            }
            received
        });
        let sent: Vec<u8> = (0..=127).cycle().take(640).collect();
        near.write_all(&sent).await.unwrap();
        assert_eq!(reader.await.unwrap(), sent);
    }
}

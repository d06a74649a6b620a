//! The server as a plain loop: poll, receive, send.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::client::{Poll, pin};
use crate::server::Session;

pub struct Server {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(core: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            pin(core);
            serve(&listener, &stopped);
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    let mut poll = Poll::new();
    let mut sessions: Vec<(TcpStream, Session)> = Vec::new();
    let mut parts = Vec::new();
    poll.add(listener.as_raw_fd(), usize::MAX, libc::EPOLLIN);
    while !stop.load(Ordering::Relaxed) {
        for at in 0..poll.wait() {
            let token = poll.token(at);
            if token == usize::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET;
                    poll.add(stream.as_raw_fd(), sessions.len(), events);
                    sessions.push((stream, Session::new()));
                }
            } else {
                let (stream, session) = &mut sessions[token];
                turn(stream, session, &mut parts);
            }
        }
    }
}

/// Sends and receives until the socket has no more to give or to take. A short read has emptied it.
fn turn(stream: &mut TcpStream, session: &mut Session, parts: &mut Vec<std::io::IoSlice<'static>>) {
    let mut emptied = false;
    loop {
        while session.is_due() {
            session.parts(parts);
            match stream.write_vectored(parts) {
                Ok(len) => session.sent(len),
                Err(_) => return,
            }
        }
        if emptied {
            return;
        }
        let room = session.room();
        let wanted = room.len();
        match stream.read(room) {
            Ok(0) => return,
            Ok(len) => {
                session.received(len);
                emptied = len < wanted;
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset));
                return;
            }
        }
    }
}

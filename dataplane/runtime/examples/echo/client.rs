//! The client: keeps a number of commands under way on each connection, polling all the time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::server::{COMMAND_BYTES, REPLY_BYTES};

/// A level of epoll that both the client and the plain server use.
pub struct Poll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    pub fn new() -> Self {
        // SAFETY: no pointers are passed; the descriptor is new.
        let fd = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 64] }
    }

    pub fn add(&self, fd: RawFd, token: usize, events: libc::c_int) {
        let mut event = libc::epoll_event { events: events as u32, u64: token as u64 };
        // SAFETY: `event` is valid for reads.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        assert_eq!(result, 0);
    }

    /// Looks for events without waiting; returns how many there are.
    pub fn wait(&mut self) -> usize {
        let room = self.events.len() as libc::c_int;
        // SAFETY: `events` is valid for writes of `room` entries.
        let count = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, 0) };
        count.max(0) as usize
    }

    pub fn token(&self, at: usize) -> usize {
        self.events[at].u64 as usize
    }
}

/// Pins the calling thread.
pub fn pin(core: usize) {
    // SAFETY: an all-zero set is empty; the set is valid for reads.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

struct Connection {
    stream: TcpStream,
    /// Bytes of an unfinished reply.
    part: usize,
}

/// Runs the load for `time`; returns replies per second, the first fifth left out.
pub fn run(address: SocketAddr, core: usize, connections: usize, depth: usize, time: Duration) -> f64 {
    let load = move || {
        pin(core);
        drive(address, connections, depth, time)
    };
    std::thread::spawn(load).join().expect("the client runs")
}

fn drive(address: SocketAddr, connections: usize, depth: usize, time: Duration) -> f64 {
    let commands: Vec<u8> =
        [4].into_iter().chain([0; COMMAND_BYTES - 1]).cycle().take(depth * COMMAND_BYTES).collect();
    let mut poll = Poll::new();
    let mut open: Vec<Connection> = (0..connections)
        .map(|at| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&commands).unwrap();
            stream.set_nonblocking(true).unwrap();
            poll.add(stream.as_raw_fd(), at, libc::EPOLLIN);
            Connection { stream, part: 0 }
        })
        .collect();
    let mut buffer = vec![0; 1 << 20];
    let (start, mut begin, mut replies) = (Instant::now(), None, 0);
    loop {
        let passed = start.elapsed();
        if passed >= time {
            break;
        }
        if begin.is_none() && passed >= time / 5 {
            begin = Some(Instant::now());
            replies = 0;
        }
        for at in 0..poll.wait() {
            let connection = &mut open[poll.token(at)];
            let len = match connection.stream.read(&mut buffer) {
                Ok(len @ 1..) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                other => panic!("the server ended: {other:?}"),
            };
            connection.part += len;
            let complete = connection.part / REPLY_BYTES;
            connection.part %= REPLY_BYTES;
            replies += complete;
            if complete > 0 {
                // Commands are small: the socket always has room for all that may be under way.
                connection.stream.write_all(&commands[..complete * COMMAND_BYTES]).unwrap();
            }
        }
    }
    replies as f64 / begin.expect("a round is longer than its start").elapsed().as_secs_f64()
}

//! System calls that the standard library has no safe form of, as thin safe functions.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use ashlar_env::buf::Page;

/// The error of the last system call, where `result` says that it failed.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Takes ownership of a descriptor a system call has just returned.
fn own(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the call succeeded, so `fd` is open, and nobody else knows it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The monotonic clock in nanoseconds since boot.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the write. The call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Fills `bytes` from the kernel's random generator.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: `rest` is valid for writes of its length.
        let result = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match check_size(result) {
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("the kernel gives no random numbers: {error}"),
        }
    }
}

/// Pins the calling thread to `core`.
pub(crate) fn pin_thread(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an all-zero `cpu_set_t` is the empty set, and `core` is below its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    };
    // SAFETY: `set` is valid for reads of the size given; 0 means the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }).map(drop)
}

/// Lets the calling thread run on every core again: a new thread is pinned like the one that made it.
pub(crate) fn unpin_thread() {
    // SAFETY: an all-zero `cpu_set_t` is the empty set, and every index is below its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in 0..libc::CPU_SETSIZE as usize {
            libc::CPU_SET(core, &mut set);
        }
        set
    };
    // SAFETY: `set` is valid for reads of the size given. The kernel leaves out cores that may not be used.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

/// The cores the calling thread may run on, ascending.
pub(crate) fn allowed_cores() -> Vec<usize> {
    // SAFETY: an all-zero `cpu_set_t` is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writes of the size given; 0 means the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if result < 0 {
        return vec![0];
    }
    // SAFETY: every index is below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Maps `count` pages of zeros, for as long as the process lives; from hugepages or not at all where `huge`.
pub(crate) fn map_pages(count: usize, huge: bool) -> io::Result<&'static mut [Page]> {
    let bytes = count.checked_mul(size_of::<Page>()).filter(|&bytes| bytes > 0);
    let bytes = bytes.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | if huge { libc::MAP_HUGETLB } else { 0 };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh anonymous mapping touches no memory that exists.
    let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is `count` pages long, page-aligned, zeroed (a valid `Page`), never unmapped, and
    // known to nobody else.
    Ok(unsafe { std::slice::from_raw_parts_mut(memory.cast::<Page>(), count) })
}

/// A non-blocking event counter (eventfd).
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    own(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

/// Raises an event counter by one. A counter at its limit is as good as raised.
pub(crate) fn raise_eventfd(fd: BorrowedFd<'_>) {
    let one = 1_u64;
    // SAFETY: `one` is valid for reads of its size.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
}

/// Lets the calling thread's waits end when asked for, not up to 50 us later.
pub(crate) fn set_timer_slack_least() {
    // SAFETY: no pointers are passed. Where the kernel refuses, waits are a little late.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) };
}

/// An epoll instance.
pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Watches `fd` for `events`, reported with `token`. The watch ends when `fd` is closed.
pub(crate) fn epoll_add(epoll: BorrowedFd<'_>, fd: RawFd, events: u32, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: token };
    // SAFETY: `event` is valid for reads.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
}

/// Takes the events there are, without waiting; returns how many.
pub(crate) fn epoll_poll(epoll: BorrowedFd<'_>, events: &mut [libc::epoll_event]) -> io::Result<usize> {
    let room = events.len() as libc::c_int;
    // SAFETY: `events` is valid for writes of `room` entries.
    let result = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, 0) };
    event_count(result)
}

/// Waits for events, `timeout_ns` at most (`None`: for ever); returns how many there are.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout_ns: Option<u64>,
) -> io::Result<usize> {
    let room = events.len() as libc::c_int;
    let timeout = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000).min(i32::MAX as u64) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `events` is valid for writes of `room` entries, `timeout` for reads where it is not null; no
    // signal mask is passed.
    let result =
        unsafe { libc::epoll_pwait2(epoll.as_raw_fd(), events.as_mut_ptr(), room, timeout, ptr::null()) };
    event_count(result)
}

fn event_count(result: libc::c_int) -> io::Result<usize> {
    match check(result) {
        Ok(n) => Ok(n as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// A socket address in the form the kernel takes.
pub(crate) struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddress {
    /// An empty one, for the kernel to fill.
    pub(crate) fn empty() -> Self {
        // SAFETY: all zeros is a valid `sockaddr_storage` (of no family).
        let storage = unsafe { std::mem::zeroed() };
        Self { storage, len: size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    /// The kernel's form of `address`.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut raw = Self::empty();
        match address {
            SocketAddr::V4(v4) => {
                let sin = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_be_bytes(v4.ip().octets()).to_be() },
                    sin_zero: [0; 8],
                };
                raw.len = size_of_val(&sin) as libc::socklen_t;
                // SAFETY: a `sockaddr_storage` is large and aligned enough for every address type.
                unsafe { (&raw mut raw.storage).cast::<libc::sockaddr_in>().write(sin) };
            }
            SocketAddr::V6(v6) => {
                let sin6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                raw.len = size_of_val(&sin6) as libc::socklen_t;
                // SAFETY: as above.
                unsafe { (&raw mut raw.storage).cast::<libc::sockaddr_in6>().write(sin6) };
            }
        }
        raw
    }

    /// The address, where it is one of the internet.
    pub(crate) fn get(&self) -> Option<SocketAddr> {
        match libc::c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says what the storage holds, and its size suffices.
                let sin = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in>().read() };
                let octets = u32::from_be(sin.sin_addr.s_addr).to_be_bytes();
                Some(SocketAddr::V4(SocketAddrV4::new(octets.into(), u16::from_be(sin.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let sin6 = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in6>().read() };
                Some(SocketAddr::V6(SocketAddrV6::new(
                    sin6.sin6_addr.s6_addr.into(),
                    u16::from_be(sin6.sin6_port),
                    sin6.sin6_flowinfo,
                    sin6.sin6_scope_id,
                )))
            }
            _ => None,
        }
    }
}

/// A non-blocking TCP socket of the family of `address`.
pub(crate) fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed.
    own(unsafe { libc::socket(family, kind, libc::IPPROTO_TCP) })
}

/// Sets an integer option of a socket.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is valid for reads of `len` bytes.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

/// Binds `fd` to `address` and listens with room for `backlog` connections.
pub(crate) fn bind_and_listen(
    fd: BorrowedFd<'_>,
    address: SocketAddr,
    backlog: libc::c_int,
) -> io::Result<()> {
    let raw = RawAddress::new(address);
    // SAFETY: `raw.storage` holds an address of `raw.len` bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw.storage).cast(), raw.len) })?;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// Starts to connect `fd` to `address`. `false` while under way.
pub(crate) fn connect(fd: BorrowedFd<'_>, address: SocketAddr) -> io::Result<bool> {
    let raw = RawAddress::new(address);
    // SAFETY: `raw.storage` holds an address of `raw.len` bytes.
    let result = unsafe { libc::connect(fd.as_raw_fd(), (&raw const raw.storage).cast(), raw.len) };
    match check(result) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The next connection of a listening socket, non-blocking itself, and the peer's address.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut raw = RawAddress::empty();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `raw.storage` is valid for writes of `raw.len` bytes.
    let result =
        unsafe { libc::accept4(fd.as_raw_fd(), (&raw mut raw.storage).cast(), &raw mut raw.len, flags) };
    Ok((own(result)?, raw.get()))
}

/// Receives into `bufs`, in order.
pub(crate) fn receive(fd: BorrowedFd<'_>, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
    let result = if let [buf] = bufs {
        // SAFETY: `buf` is valid for writes of its length.
        unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) }
    } else {
        let count = bufs.len() as libc::c_int;
        // SAFETY: `IoSliceMut` has the layout of `iovec`, and each is valid for writes of its length.
        unsafe { libc::readv(fd.as_raw_fd(), bufs.as_mut_ptr().cast(), count) }
    };
    check_size(result)
}

/// Sends the front of `bufs`, in order.
pub(crate) fn send(fd: BorrowedFd<'_>, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let result = if let [buf] = bufs {
        // SAFETY: `buf` is valid for reads of its length.
        unsafe { libc::send(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), libc::MSG_NOSIGNAL) }
    } else {
        // SAFETY: an all-zero `msghdr` is an empty message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = bufs.as_ptr().cast_mut().cast();
        message.msg_iovlen = bufs.len();
        // SAFETY: `IoSlice` has the layout of `iovec`, each is valid for reads of its length, and the kernel
        // only reads them.
        unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) }
    };
    check_size(result)
}

/// Ends a connection both ways.
pub(crate) fn shutdown(fd: BorrowedFd<'_>) {
    // SAFETY: no pointers are passed. A socket that is not connected (any more) needs no ending.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel_form() {
        for text in ["127.0.0.1:4420", "[::1]:8009", "[fe80::1%7]:1", "255.1.2.3:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::new(address).get(), Some(address));
        }
        assert_eq!(RawAddress::empty().get(), None);
    }

    #[test]
    fn random_bytes_differ() {
        let (mut a, mut b) = ([0; 64], [0; 64]);
        fill_random(&mut a);
        fill_random(&mut b);
        assert_ne!(a, b);
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert!(pin_thread(1 << 20).is_err());
    }
}

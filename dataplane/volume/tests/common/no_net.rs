//! Streams of an environment without a network: never made.

use std::future::{Future, pending};
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use ashlar_env::net::NetError;
use ashlar_env::{Listener, Stream};

pub enum NoStream {}
pub enum NoListener {}

impl Stream for NoStream {
    fn peer_addr(&self) -> SocketAddr {
        match *self {}
    }

    fn local_addr(&self) -> SocketAddr {
        match *self {}
    }

    fn poll_recv(&self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>]) -> Poll<Result<usize, NetError>> {
        match *self {}
    }

    fn poll_send(&self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<Result<usize, NetError>> {
        match *self {}
    }

    fn shutdown(&self) {
        match *self {}
    }
}

impl Listener for NoListener {
    type Accepted = ();

    fn local_addr(&self) -> SocketAddr {
        match *self {}
    }

    fn accept(&self) -> impl Future<Output = Result<((), SocketAddr), NetError>> {
        pending()
    }
}

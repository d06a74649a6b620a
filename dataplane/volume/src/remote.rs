//! A volume that lives on another reactor.
//!
//! Each reactor has one [`Exchange`]. It makes the [`Remote`]s through which this reactor reaches volumes of
//! others, and its task ([`Exchange::run`]) executes what others send for the volumes published here. An
//! operation crosses as the value it is, buffers by reference, and the result comes back to a slot that waits
//! for it; in the steady state nothing is allocated.
//!
//! Nothing is lost and nothing waits in a circle: a reactor never stops receiving. What it has received and not
//! answered yet is bounded by the calls its peers may have open ([`Limits::calls_max`] each), and only senders
//! wait for room in a link.

mod calls;
mod exchange;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::units::VolumeId;
use ashlar_env::volume::{Issuer, Operation, Outcome, VolumeInfo};
use ashlar_env::{Volume, VolumeError};

pub use calls::CallId;
use calls::Calls;
pub use exchange::{Event, Exchange, Limits};

/// What crosses between reactors for volumes. A node's own message type carries it as one of its kinds: see
/// [`Carries`].
#[derive(Debug)]
pub enum VolumeMessage {
    /// Execute this.
    Request {
        /// whose answer it will be
        call: CallId,
        /// on which volume
        volume: VolumeId,
        /// for whom
        issuer: Issuer,
        /// what
        operation: Operation,
    },
    /// This came of it.
    Reply {
        /// the call of the request
        call: CallId,
        /// how it ended
        result: Result<Outcome, VolumeError>,
    },
    /// The volume is like this from now on.
    Info(VolumeInfo),
}

/// A message type of a node that can carry a [`VolumeMessage`].
pub trait Carries: From<VolumeMessage> + TryInto<VolumeMessage, Error = Self> + Send + 'static {}

impl<M: From<VolumeMessage> + TryInto<VolumeMessage, Error = M> + Send + 'static> Carries for M {}

/// A volume that lives on another reactor (or on this one: the way is the same). Made by [`Exchange::remote`].
///
/// An operation whose future is dropped before it found room in the link never happens; later, it goes on.
pub struct Remote<X, M> {
    home: ReactorId,
    info: Rc<Cell<VolumeInfo>>,
    calls: Rc<Calls<X, M>>,
}

impl<X, M> Clone for Remote<X, M> {
    fn clone(&self) -> Self {
        Self { home: self.home, info: Rc::clone(&self.info), calls: Rc::clone(&self.calls) }
    }
}

impl<X: Mesh<M>, M: Carries> Remote<X, M> {
    /// The reactor where the volume lives.
    #[must_use]
    pub fn home(&self) -> ReactorId {
        self.home
    }
}

impl<X: Mesh<M>, M: Carries> Volume for Remote<X, M> {
    /// What the volume was when its home last told.
    fn info(&self) -> VolumeInfo {
        self.info.get()
    }

    fn execute(
        &self,
        issuer: Issuer,
        operation: Operation,
    ) -> impl Future<Output = Result<Outcome, VolumeError>> + 'static {
        let volume = self.info.get().id;
        let step = Step::Open { volume, issuer, operation };
        RemoteCall { calls: Rc::clone(&self.calls), home: self.home, step }
    }
}

/// An operation on its way. Written out because an `async` block would be several times as large.
struct RemoteCall<X: Mesh<M>, M: Carries> {
    calls: Rc<Calls<X, M>>,
    home: ReactorId,
    step: Step<M>,
}

enum Step<M> {
    /// A call is wanted.
    Open { volume: VolumeId, issuer: Issuer, operation: Operation },
    /// Room in the link is wanted.
    Send { id: CallId, request: Option<M> },
    /// The answer is wanted.
    Wait { id: CallId },
    /// Over.
    Ended,
}

// Nothing in it is ever pinned.
impl<X: Mesh<M>, M: Carries> Unpin for RemoteCall<X, M> {}

impl<X: Mesh<M>, M: Carries> Future for RemoteCall<X, M> {
    type Output = Result<Outcome, VolumeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { calls, home, step } = &mut *self;
        if let Step::Open { .. } = step {
            let call = ready!(calls.poll_open(cx));
            let Step::Open { volume, issuer, operation } = std::mem::replace(step, Step::Ended) else {
                unreachable!("it was seen above")
            };
            let request = VolumeMessage::Request { call, volume, issuer, operation };
            *step = Step::Send { id: call, request: Some(request.into()) };
        }
        if let Step::Send { id, request } = step {
            ready!(calls.poll_send(cx, *home, request));
            *step = Step::Wait { id: *id };
        }
        let Step::Wait { id } = step else { panic!("polled after its end") };
        let answer = ready!(calls.poll_answer(cx, *id));
        *step = Step::Ended;
        Poll::Ready(answer)
    }
}

impl<X: Mesh<M>, M: Carries> Drop for RemoteCall<X, M> {
    fn drop(&mut self) {
        match self.step {
            Step::Send { id, .. } => self.calls.give_up(id, false),
            Step::Wait { id } => self.calls.give_up(id, true),
            Step::Open { .. } | Step::Ended => {}
        }
    }
}

//! The volumes a target may meet, as one type.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use ashlar_env::mesh::Mesh;
use ashlar_env::volume::{Issuer, Operation, Outcome, VolumeInfo};
use ashlar_env::{Disk, Env, Volume, VolumeError};

use crate::null::Null;
use crate::pass_through::PassThrough;
use crate::persist::{NoStore, ReservationStore};
use crate::remote::{Carries, Remote};

/// A volume of any kind there is, dispatched without indirection.
///
/// `E`, `D` and `S` are environment, disk and reservation store of pass-through volumes; `X` and `M` the mesh
/// and the message by which other reactors are reached.
pub enum AnyVolume<E, D, X, M, S = NoStore> {
    /// A disk of this reactor.
    PassThrough(PassThrough<E, D, S>),
    /// No disk.
    Null(Null),
    /// A volume of another reactor.
    Remote(Remote<X, M>),
}

impl<E, D, X, M, S> Clone for AnyVolume<E, D, X, M, S> {
    fn clone(&self) -> Self {
        match self {
            Self::PassThrough(volume) => Self::PassThrough(volume.clone()),
            Self::Null(volume) => Self::Null(*volume),
            Self::Remote(volume) => Self::Remote(volume.clone()),
        }
    }
}

/// The future of whichever volume it is.
enum Either<A, B, C> {
    PassThrough(A),
    Null(B),
    Remote(C),
}

impl<A, B, C, T> Future for Either<A, B, C>
where
    A: Future<Output = T> + Unpin,
    B: Future<Output = T> + Unpin,
    C: Future<Output = T> + Unpin,
{
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut *self {
            Self::PassThrough(execution) => Pin::new(execution).poll(cx),
            Self::Null(execution) => Pin::new(execution).poll(cx),
            Self::Remote(execution) => Pin::new(execution).poll(cx),
        }
    }
}

impl<E, D, X, M, S> Volume for AnyVolume<E, D, X, M, S>
where
    E: Env,
    D: Disk,
    X: Mesh<M>,
    M: Carries,
    S: ReservationStore,
{
    fn info(&self) -> VolumeInfo {
        match self {
            Self::PassThrough(volume) => volume.info(),
            Self::Null(volume) => volume.info(),
            Self::Remote(volume) => volume.info(),
        }
    }

    fn execute(
        &self,
        issuer: Issuer,
        operation: Operation,
    ) -> impl Future<Output = Result<Outcome, VolumeError>> + 'static {
        match self {
            Self::PassThrough(volume) => Either::PassThrough(volume.execute(issuer, operation)),
            Self::Null(volume) => Either::Null(volume.execute(issuer, operation)),
            Self::Remote(volume) => Either::Remote(volume.execute(issuer, operation)),
        }
    }
}

//! Links between reactors: bounded queues of typed messages.

use std::task::{Context, Poll};

/// The number of a reactor of this node, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReactorId(pub u16);

/// One reactor's end of the links to all reactors of its node, itself included.
///
/// A link is first-in first-out and bounded. Nothing is ordered between two links.
pub trait Mesh<M: Send + 'static>: Clone + 'static {
    /// The reactor this end belongs to.
    fn here(&self) -> ReactorId;

    /// How many reactors the node has.
    fn reactors(&self) -> u16;

    /// Sends `message` to `to`, and sees to it that `to` wakes. Gives it back where the link is full; ask
    /// again after [`Self::poll_room`].
    ///
    /// # Errors
    /// The message itself, when there is no room.
    fn try_send(&self, to: ReactorId, message: M) -> Result<(), M>;

    /// Ready when the link to `to` has room. Any number of tasks may wait.
    fn poll_room(&self, cx: &mut Context<'_>, to: ReactorId) -> Poll<()>;

    /// The next message, from whichever reactor. One task receives.
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<(ReactorId, M)>;
}

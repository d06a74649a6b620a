//! System calls that block, and that io_uring does not know: on a thread beside the reactor.

use std::rc::Rc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use ashlar_env::DiskError;
use ashlar_env::spawn::yield_now;

use crate::engine::Engine;
use crate::reply::reply;
use crate::sys;

/// How many calls may wait for the thread.
const WAITING_MAX: usize = 64;

type Call = Box<dyn FnOnce() + Send>;

/// A reactor's helper thread. It ends when the reactor lets go of it.
pub(crate) struct Helper {
    calls: SyncSender<Call>,
}

impl Helper {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (calls, waiting) = sync_channel::<Call>(WAITING_MAX);
        std::thread::Builder::new().name("disk-helper".into()).spawn(move || {
            sys::unpin_thread();
            for call in waiting {
                call();
            }
        })?;
        Ok(Self { calls })
    }
}

/// Runs `call` on the helper thread of the reactor. The call goes on when the future is dropped.
pub(crate) async fn run<T: Send + 'static>(
    engine: &Rc<Engine>,
    call: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    let (promise, answer) = reply();
    let mut call: Call = Box::new(move || promise.settle(Ok(call())));
    loop {
        let sent = {
            let helper = engine
                .helper()
                .map_err(|error| DiskError::Medium(format!("cannot start a helper thread: {error}")))?;
            helper.calls.try_send(call)
        };
        match sent {
            Ok(()) => break,
            Err(TrySendError::Full(back)) => call = back,
            Err(TrySendError::Disconnected(_)) => return Err(DiskError::Gone),
        }
        yield_now().await;
    }
    answer.await.unwrap_or(Err(DiskError::Gone))
}

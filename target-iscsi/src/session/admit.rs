//! From a command to its data: what is fetched, into what, and when it is asked for.

use ashlar_env::BufMut;
use ashlar_env::buf::MAX_BYTES;
use ashlar_env::clock::Instant;

use super::incoming::Incoming;
use super::receive::Sink;
use super::reply::Reply;
use super::store::Store;
use super::tasks::State;
use super::{Event, Phase, RECEIVING_BYTES_MAX, Receive, Session, TaskId};
use crate::scsi::{Answer, Data, Status};
use crate::wire::NO_TAG;

/// Up to so many bytes of a session's data on their way, a command gets room for all of its data as soon as the first
/// come; beyond, for what comes unasked, and for all of it when it is asked for.
const EAGER_BYTES_MAX: usize = 8 << 20;

/// Whether an admitted command may start.
#[derive(Debug)]
pub enum Admission {
    /// now: it takes no data
    Ready,
    /// when [`Event::Data`] comes
    Waiting,
}

impl Session {
    /// Fetches the data of a command that just arrived, which wants `wanted` bytes of them.
    ///
    /// # Panics
    /// If the command is not one that [`Event::Command`] named, or was admitted before.
    pub fn admit(&mut self, id: TaskId, wanted: u32, now: Instant) -> Admission {
        let immediate = match self.receive {
            Receive::Command { id: announced, len } if announced == id => len,
            _ => 0,
        };
        let task = self.tasks.get(id);
        assert!(matches!(task.state, State::Arrived), "a command is admitted once");
        let (out_bytes, unsolicited) = (task.request.out_bytes, task.unsolicited);
        let first_end = if unsolicited { self.first_burst(out_bytes) } else { immediate };
        let take = wanted.min(out_bytes);
        let task = self.tasks.get_mut(id);
        task.wanted = wanted;
        if take == 0 && first_end == 0 {
            task.state = State::Executing;
            return Admission::Ready;
        }
        let incoming = Incoming::new(Store::None, take, immediate, unsolicited, first_end);
        task.state = State::Incoming(incoming);
        if first_end == 0 {
            self.waiting.push_back(id);
            self.request_waiting(now);
        } else {
            self.make_room(id, now);
        }
        Admission::Waiting
    }

    /// Finds room for what a command brings unasked, and lets it come.
    fn make_room(&mut self, id: TaskId, now: Instant) {
        let others = self.incoming_bytes;
        let Some(incoming) = self.tasks.incoming(id) else { return };
        let (take, first) = (incoming.take as usize, incoming.take.min(incoming.burst_end) as usize);
        let whole = if take == first || others + take <= EAGER_BYTES_MAX { take } else { first };
        let store = Store::try_new(&self.buffers, whole);
        let store = store.or_else(|| Store::try_new(&self.buffers, first).filter(|_| first < whole));
        match store {
            Some(store) => {
                self.incoming_bytes += store.len();
                incoming.store = store;
                self.let_come(id, now);
            }
            None if others == 0 => self.starving = Some(id),
            None => {
                incoming.starved = true;
                self.let_come(id, now);
            }
        }
    }

    /// The data behind the command's header are taken from now on.
    fn let_come(&mut self, id: TaskId, now: Instant) {
        let Receive::Command { id: announced, len } = self.receive else {
            unreachable!("a command is at hand while it gets its room")
        };
        assert_eq!(announced, id, "the command at hand gets its room");
        let unsolicited = self.tasks.get(id).unsolicited;
        self.times.data_since = Some(now);
        if len > 0 {
            self.receive = Receive::payload(Sink::Task { id, ends: !unsolicited }, len);
        } else {
            self.receive = Receive::Header;
            self.times.pdu_since = None;
        }
    }

    /// A PDU's data have gone to a command; `ends` says that their sequence is over.
    pub(super) fn data_pdu_ended(&mut self, id: TaskId, ends: bool, now: Instant) {
        let Some(incoming) = self.tasks.incoming(id) else { return };
        if ends {
            incoming.close_burst();
        }
        if incoming.is_open() {
            return;
        }
        if incoming.starved {
            return self.fail(id, Answer { status: Status::Busy, sense: None, data: Data::None }, now);
        }
        if incoming.is_whole() {
            return self.data_complete(id, now);
        }
        self.waiting.push_back(id);
        self.request_waiting(now);
    }

    fn data_complete(&mut self, id: TaskId, now: Instant) {
        let task = self.tasks.get_mut(id);
        let State::Incoming(incoming) = std::mem::replace(&mut task.state, State::Executing) else {
            unreachable!("data are complete for a command that receives")
        };
        self.incoming_bytes -= incoming.store.len();
        self.events.push_back(Event::Data(id, incoming.store.freeze()));
        self.request_waiting(now);
    }

    /// Ends a command whose data are on their way; those that still come are dropped.
    pub(super) fn fail(&mut self, id: TaskId, answer: Answer, now: Instant) {
        let r2ts = self.tasks.incoming(id).map_or(0, |incoming| incoming.r2t_sn);
        self.end(id, answer, r2ts, now);
    }

    /// Sends the R2Ts for which there is room.
    pub(super) fn request_waiting(&mut self, now: Instant) {
        while let Some(id) = self.next_waiting() {
            let Some(incoming) = self.tasks.incoming(id) else { return };
            let (take, held) = (incoming.take as usize, incoming.store.len());
            if held < take {
                let Some(whole) = Store::try_new(&self.buffers, take) else {
                    self.times.starving_since.get_or_insert(now);
                    return;
                };
                self.widen(id, whole);
            }
            self.send_r2t(id, now);
        }
    }

    /// The oldest command that waits for its R2T, unless those before it have all the memory there may be.
    fn next_waiting(&self) -> Option<TaskId> {
        let &id = self.waiting.front()?;
        let State::Incoming(incoming) = &self.tasks.get(id).state else {
            unreachable!("commands wait in one state")
        };
        let others = self.incoming_bytes - incoming.store.len();
        let fits = others + incoming.take as usize <= RECEIVING_BYTES_MAX;
        (self.phase == Phase::Full && (fits || !self.is_any_asked())).then_some(id)
    }

    /// Whether data are on their way that were asked for: where none are, the next command must be asked for its own,
    /// whatever those behind it hold.
    fn is_any_asked(&self) -> bool {
        self.tasks
            .iter()
            .any(|(_, task)| matches!(&task.state, State::Incoming(incoming) if incoming.ttt != NO_TAG))
    }

    /// Gives a command room for all of its data.
    fn widen(&mut self, id: TaskId, mut whole: Store) {
        let Some(incoming) = self.tasks.incoming(id) else { return };
        let old = std::mem::take(&mut incoming.store);
        let (held, at) = (old.len(), incoming.at as usize);
        whole.copy_from(old, at);
        incoming.store = whole;
        let grown = incoming.store.len();
        self.incoming_bytes = self.incoming_bytes - held + grown;
    }

    /// RFC 7143, section 11.8: asks the front of those that wait for its next data.
    fn send_r2t(&mut self, id: TaskId, now: Instant) {
        self.waiting.pop_front();
        self.times.starving_since = None;
        self.times.data_since = Some(now);
        let (lun, tag, burst) =
            (self.tasks.get(id).request.lun, self.tasks.tag(id), self.parameters.burst_bytes);
        let Some(incoming) = self.tasks.incoming(id) else { return };
        let ttt = u32::from(id.0) << 16 | incoming.r2t_sn & 0xFFFF;
        let (number, offset, bytes) = incoming.ask(ttt, burst);
        self.push(Reply::R2t { lun, tag, ttt, number, offset, bytes }, now);
    }

    /// The size of the buffer that the oldest waiting command needs, while reading or an R2T depends on it.
    #[must_use]
    pub fn wants_buffer(&self) -> Option<usize> {
        let id = self.starving.or_else(|| self.next_waiting())?;
        let State::Incoming(incoming) = &self.tasks.get(id).state else { return None };
        let all = if self.starving.is_some() { incoming.take.min(incoming.burst_end) } else { incoming.take };
        Some(MAX_BYTES.min(all as usize))
    }

    /// Hands over the buffer that [`Self::wants_buffer`] asked for.
    pub fn give_buffer(&mut self, buf: BufMut, now: Instant) {
        if self.wants_buffer() != Some(buf.len()) {
            return;
        }
        if let Some(id) = self.starving.take() {
            if let Some(incoming) = self.tasks.incoming(id) {
                self.incoming_bytes += buf.len();
                incoming.store = Store::One(buf);
            }
            return self.let_come(id, now);
        }
        let Some(id) = self.next_waiting() else { return };
        let take = self.tasks.incoming(id).map_or(0, |incoming| incoming.take as usize);
        let whole = if take <= MAX_BYTES {
            Some(Store::One(buf))
        } else {
            drop(buf);
            Store::try_new(&self.buffers, take)
        };
        let Some(whole) = whole else {
            // More than one buffer at once cannot be waited for.
            return self.fail(id, Answer { status: Status::Busy, sense: None, data: Data::None }, now);
        };
        self.widen(id, whole);
        self.send_r2t(id, now);
        self.request_waiting(now);
    }

    /// The oldest command has waited for memory long enough: others may get it whose commands are nearer to their end.
    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        self.times.starving_since = None;
        if let Some(&id) = self.waiting.front() {
            self.fail(id, Answer { status: Status::Busy, sense: None, data: Data::None }, now);
        }
    }
}

//! Operations: long work with progress, known by a number.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::apply::Outcome;
use super::device::shortened;
use super::{Event, Reason, RefusalKind, State};

/// Most operations that are kept after they have ended.
pub const OPERATIONS_ENDED_MAX: usize = 100;

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OperationKind {
    /// Moves what a device holds to others.
    DrainDevice {
        /// The device.
        device: Uuid,
        /// Its path, for people.
        path: String,
    },
    /// Makes copies that are missing.
    RebuildCopies {},
}

impl OperationKind {
    /// The device that it drains, if it does.
    pub fn drained(&self) -> Option<Uuid> {
        match self {
            Self::DrainDevice { device, .. } => Some(*device),
            Self::RebuildCopies {} => None,
        }
    }
}

/// Long work. Its progress is the node's to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its number, from 1; never used again.
    pub id: u64,
    /// What it does.
    pub kind: OperationKind,
    /// When it began, in milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// When it ended, in milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Why it did not do what it was to do, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Operation {
    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.ended_ms.is_none()
    }
}

impl State {
    pub(crate) fn find_operation(&self, id: u64) -> Result<&Operation, Reason> {
        self.operations.get(&id).ok_or_else(|| {
            let why = if (1..=self.last_operation).contains(&id) {
                format!("operation {id} ended long ago, and only the last {OPERATIONS_ENDED_MAX} are kept")
            } else {
                format!("there is no operation {id}")
            };
            Reason::new(RefusalKind::NotFound, why).next("`ashlar operation list` shows what there is")
        })
    }

    /// Begins an operation; yields its number.
    pub(super) fn begin(&mut self, kind: OperationKind, time_ms: u64) -> u64 {
        self.last_operation += 1;
        let id = self.last_operation;
        let operation = Operation { id, kind, started_ms: time_ms, ended_ms: None, failure: None };
        self.operations.insert(id, operation);
        id
    }

    /// Begins to make missing copies, unless that goes on.
    pub(super) fn rebuild_copies(&mut self, time_ms: u64) -> Outcome {
        let rebuilds = |operation: &Operation| {
            operation.is_running() && operation.kind == OperationKind::RebuildCopies {}
        };
        if self.operations.values().any(rebuilds) {
            return Ok(Vec::new());
        }
        let operation = self.begin(OperationKind::RebuildCopies {}, time_ms);
        Ok(vec![Event::RebuildBegan { operation }])
    }

    pub(super) fn finish_operation(&mut self, id: u64, failure: Option<&str>, time_ms: u64) -> Outcome {
        let operation = self.find_operation(id)?;
        if !operation.is_running() {
            return Ok(Vec::new());
        }
        let kind = operation.kind.clone();
        let operation = self.operations.get_mut(&id).expect("found above");
        operation.ended_ms = Some(time_ms);
        operation.failure = failure.map(shortened);
        let closed = kind.drained().and_then(|device| self.drained(device, failure.is_some()));
        let mut events: Vec<Event> = closed.into_iter().collect();
        events.push(Event::OperationEnded { operation: id });
        let ended: Vec<u64> =
            self.operations.values().filter(|operation| !operation.is_running()).map(|o| o.id).collect();
        for old in ended.iter().rev().skip(OPERATIONS_ENDED_MAX) {
            self.operations.remove(old);
        }
        Ok(events)
    }
}

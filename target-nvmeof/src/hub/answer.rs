//! What a command is answered with.

use crate::wire::Status;

/// A successful answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Result, DW0.
    pub dw0: u32,
    /// Result, DW1.
    pub dw1: u32,
    /// Data for the host, as long as the data plan said.
    pub data: Option<Box<[u8]>>,
}

impl Answer {
    /// Success without a result.
    pub const DONE: Self = Self { dw0: 0, dw1: 0, data: None };

    /// Success with a result.
    pub const fn value(dw0: u32) -> Self {
        Self { dw0, dw1: 0, data: None }
    }

    /// Success with data: `bytes`, cut or filled with zeros to `len` bytes.
    pub fn data(bytes: &[u8], len: u32) -> Self {
        let mut data = vec![0; len as usize].into_boxed_slice();
        let copied = bytes.len().min(data.len());
        data[..copied].copy_from_slice(&bytes[..copied]);
        Self { dw0: 0, dw1: 0, data: Some(data) }
    }
}

/// When a command is answered, and how.
pub(super) enum Reply {
    /// Now.
    Now(Answer),
    /// Later, by an event or a volume, or never.
    Later,
}

pub(super) type Outcome = Result<Reply, Status>;

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Now(answer)
    }
}

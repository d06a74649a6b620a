//! What both servers do with the bytes of a connection.

use std::io::IoSlice;

pub const COMMAND_BYTES: usize = 72;
pub const HEADER_BYTES: usize = 24;
pub const DATA_BYTES: usize = 4096;
pub const REPLY_BYTES: usize = HEADER_BYTES + DATA_BYTES;

const BUFFER_BYTES: usize = 128 << 10;

/// Replies in one send: two parts each, and the kernel takes 1024.
const REPLIES_MAX: usize = 512;

static HEADER: [u8; HEADER_BYTES] = [7; HEADER_BYTES];
static DATA: [u8; DATA_BYTES] = [9; DATA_BYTES];

/// One connection: commands in, replies out.
pub struct Session {
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes of replies due.
    due: usize,
    /// Bytes of them sent.
    sent: usize,
}

impl Session {
    pub fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], filled: 0, due: 0, sent: 0 }
    }

    /// Where the next bytes go.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// Takes `len` more bytes: each whole command is due a reply.
    pub fn received(&mut self, len: usize) {
        self.filled += len;
        let commands = self.filled / COMMAND_BYTES;
        let checked =
            self.buffer[..commands * COMMAND_BYTES].chunks(COMMAND_BYTES).filter(|c| c[0] == 4).count();
        assert_eq!(checked, commands, "each command begins with its type");
        self.due += commands * REPLY_BYTES;
        self.buffer.copy_within(commands * COMMAND_BYTES..self.filled, 0);
        self.filled -= commands * COMMAND_BYTES;
    }

    /// Whether replies are due.
    pub fn is_due(&self) -> bool {
        self.sent < self.due
    }

    /// The parts to send next.
    pub fn parts(&self, parts: &mut Vec<IoSlice<'static>>) {
        parts.clear();
        let mut at = self.sent % REPLY_BYTES;
        let left = (self.due - self.sent + at).div_ceil(REPLY_BYTES).min(REPLIES_MAX);
        for _ in 0..left {
            if at < HEADER_BYTES {
                parts.push(IoSlice::new(&HEADER[at..]));
            }
            parts.push(IoSlice::new(&DATA[at.saturating_sub(HEADER_BYTES)..]));
            at = 0;
        }
    }

    /// Notes that `len` bytes of them went out.
    pub fn sent(&mut self, len: usize) {
        self.sent += len;
        if self.sent == self.due {
            (self.sent, self.due) = (0, 0);
        }
    }
}

//! PDUs on their way: headers in one arena, and the order of headers and data.

use std::io::IoSlice;

use ashlar_codec::{crc32c, crc32c_append};
use ashlar_env::Buf;

use crate::wire::padding;

#[derive(Default)]
pub(super) struct Batch {
    heads: Vec<u8>,
    slices: Vec<Slice>,
    /// The first slice that is not sent, and how much of it is.
    at: usize,
    sent: usize,
    bytes_left: usize,
}

enum Slice {
    Head { start: usize, end: usize },
    Data(Buf),
}

impl Batch {
    pub fn reserve(&mut self, heads_bytes: usize, slices: usize) {
        self.heads.reserve(heads_bytes);
        self.slices.reserve(slices);
    }

    pub fn clear(&mut self) {
        self.heads.clear();
        self.slices.clear();
        (self.at, self.sent, self.bytes_left) = (0, 0, 0);
    }

    pub fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    pub fn slices(&self) -> usize {
        self.slices.len()
    }

    /// A header, and its digest where there is one.
    pub fn header(&mut self, bytes: &[u8], digest: bool) {
        self.plain(bytes);
        if digest {
            self.plain(&crc32c(bytes).to_le_bytes());
        }
    }

    /// A data segment in one piece of ordinary memory.
    pub fn segment(&mut self, bytes: &[u8], digest: bool) {
        self.plain(bytes);
        self.end_segment(bytes.len(), if digest { crc32c(bytes) } else { 0 }, digest);
    }

    /// A piece of a data segment.
    pub fn data(&mut self, data: Buf) {
        self.bytes_left += data.len();
        self.slices.push(Slice::Data(data));
    }

    /// What follows `len` bytes of data, whose CRC is `crc`: padding, and the digest of both.
    pub fn end_segment(&mut self, len: usize, crc: u32, digest: bool) {
        let pad = &[0; 3][..padding(len)];
        self.plain(pad);
        if digest && len > 0 {
            let crc = if pad.is_empty() { crc } else { crc32c_append(crc, pad) };
            self.plain(&crc.to_le_bytes());
        }
    }

    fn plain(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = self.heads.len();
        self.heads.extend_from_slice(bytes);
        self.bytes_left += bytes.len();
        match self.slices.last_mut() {
            Some(Slice::Head { end, .. }) => *end = self.heads.len(),
            _ => self.slices.push(Slice::Head { start, end: self.heads.len() }),
        }
    }

    pub fn gather<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent;
        let mut count = 0;
        for (slot, slice) in out.iter_mut().zip(&self.slices[self.at..]) {
            *slot = IoSlice::new(&slice.bytes(&self.heads)[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    pub fn advance(&mut self, mut n: usize) {
        assert!(n <= self.bytes_left, "no more is sent than there was");
        self.bytes_left -= n;
        while n > 0 {
            let left = self.slices[self.at].bytes(&self.heads).len() - self.sent;
            if n < left {
                self.sent += n;
                return;
            }
            n -= left;
            self.sent = 0;
            // Gives the data's buffer back at once.
            self.slices[self.at] = Slice::Head { start: 0, end: 0 };
            self.at += 1;
        }
    }
}

impl Slice {
    fn bytes<'a>(&'a self, heads: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Head { start, end } => &heads[*start..*end],
            Self::Data(data) => data,
        }
    }
}

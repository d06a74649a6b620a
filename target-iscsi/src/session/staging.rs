//! Received bytes that are not consumed yet: a linear buffer, so that a PDU's header and a small capsule are always
//! contiguous.

pub(super) struct Staging {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Staging {
    pub fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into_boxed_slice(), start: 0, end: 0 }
    }

    pub fn grow(&mut self, capacity: usize) {
        if capacity > self.bytes.len() {
            let mut bytes = vec![0; capacity].into_boxed_slice();
            bytes[..self.len()].copy_from_slice(self.staged());
            *self = Self { bytes, start: 0, end: self.len() };
        }
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn staged(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first bytes, `max` at most.
    pub fn front(&self, max: usize) -> &[u8] {
        &self.staged()[..self.len().min(max)]
    }

    /// Room for more, at least as much as the largest capsule lacks.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > self.bytes.len() / 2 || self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// `n` bytes were put into the spare room.
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.bytes.len() - self.end, "no more is received than there was room for");
        self.end += n;
    }

    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "no more is consumed than there is");
        self.start += n;
    }

    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}

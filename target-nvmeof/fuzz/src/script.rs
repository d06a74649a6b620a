//! Inputs as scripts: a record is an operation's number, a length of 16 bits, and so many bytes.

/// Reads what there is; beyond the end there are zeros.
pub struct Script<'a> {
    left: &'a [u8],
}

impl<'a> Script<'a> {
    /// A script of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// The next 16 bits.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next `len` bytes, or what is left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, left) = self.left.split_at(len.min(self.left.len()));
        self.left = left;
        taken
    }

    /// The next record.
    pub fn record(&mut self) -> (u8, &'a [u8]) {
        let operation = self.byte();
        let len = self.short();
        (operation, self.bytes(usize::from(len)))
    }

    /// The next `N` bytes, zeros where there are none.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}

/// Appends a record. For seeds.
///
/// # Panics
/// If `bytes` are more than 65535.
pub fn push(script: &mut Vec<u8>, operation: u8, bytes: &[u8]) {
    script.push(operation);
    script.extend(u16::try_from(bytes.len()).expect("a record is short").to_le_bytes());
    script.extend(bytes);
}

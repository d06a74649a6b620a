//! What a runtime is started with.

use std::time::Duration;

/// When a reactor that has nothing to do goes to sleep in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// Never: it polls for ever and takes its whole core.
    Always,
    /// After it found nothing for this long, and at once while what comes is so rare that polling for it does
    /// not pay.
    Adaptive(Duration),
}

impl Spin {
    /// Always sleep at once.
    pub const NEVER: Self = Self::Adaptive(Duration::ZERO);
}

/// Whether I/O buffers are registered with the kernel, which saves it from looking up their pages in each disk
/// operation, and pins all of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Where they lie in hugepages, which are there anyway.
    Hugepages,
    /// Always: an idle reactor holds all its buffers.
    Always,
    /// Never.
    Never,
}

/// What a runtime is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The cores to run on, one reactor each. The same core may stand there twice.
    pub cores: Vec<usize>,
    /// When an idle reactor sleeps.
    pub spin: Spin,
    /// The I/O buffers of each reactor, in bytes. Memory is taken from the machine when first used.
    pub buffer_bytes: usize,
    /// Whether they are registered with the kernel.
    pub register: Register,
    /// How many messages each link between two reactors holds.
    pub link_capacity: usize,
    /// How many requests of other threads may wait for a reactor.
    pub inbox_capacity: usize,
    /// How many disk operations a reactor has in the kernel at once; more wait. A power of two.
    pub ring_depth: u32,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            cores: vec![0],
            spin: Spin::Adaptive(Duration::from_micros(50)),
            buffer_bytes: 64 << 20,
            register: Register::Hugepages,
            link_capacity: 1024,
            inbox_capacity: 256,
            ring_depth: 512,
        }
    }
}

/// The cores this process may run on, ascending.
#[must_use]
pub fn usable_cores() -> Vec<usize> {
    crate::sys::allowed_cores()
}

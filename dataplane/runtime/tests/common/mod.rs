//! What the tests share.

use std::time::Duration;

use ashlar_runtime::{Runtime, RuntimeConfig, Spin, usable_cores};

/// A runtime of `reactors` reactors, spread over the cores there are.
pub fn runtime<M: Send + 'static>(reactors: usize, spin: Spin) -> Runtime<M> {
    let cores = usable_cores();
    let config = RuntimeConfig {
        cores: (0..reactors).map(|at| cores[at % cores.len()]).collect(),
        spin,
        buffer_bytes: 1 << 20,
        link_capacity: 4,
        ..RuntimeConfig::default()
    };
    Runtime::start(config).expect("the runtime starts")
}

/// The spin time of the tests that do not care.
pub const SHORT: Spin = Spin::Adaptive(Duration::from_micros(20));

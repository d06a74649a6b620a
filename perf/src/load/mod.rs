//! The load: what is issued, what is checked, and what is reported.

mod cpu;
mod lanes;
mod options;
mod pattern;
mod port;
mod report;
mod run;
mod shadow;

pub use cpu::{cpu_time, pin_to};
pub use options::{Options, Pattern, Protocol};
pub use port::Failure;
pub use report::{Latency, Report};
pub use run::{LoadError, run};
pub use shadow::{Fault, Known, Shadow, check_sectors, fill_sectors};

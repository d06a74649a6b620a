//! The log: structured events to standard error, as text for people or JSON for machines.

use std::io::{IsTerminal, stderr};

use ashlar_config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts the log. The environment variable `ASHLAR_LOG` overrides the level, by module if need be.
pub(super) fn start(log: &Log) {
    let filter = EnvFilter::try_from_env("ASHLAR_LOG").unwrap_or_else(|_| EnvFilter::new(log.level.as_str()));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // Where the log cannot be written there is nobody to tell; trying would panic on the thread that logs.
    let lines = lines.log_internal_errors(false);
    match log.format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
}

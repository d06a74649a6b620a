//! `ashlar serve`: running a node.

use std::process::ExitCode;

use ashlar_config::Config;

/// Runs a node until it is told to stop.
pub(crate) fn run(config: Config) -> ExitCode {
    eprintln!("error: cannot serve {}: this build has no data path", config.node.data.display());
    ExitCode::FAILURE
}

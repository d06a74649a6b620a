//! `ashlar-load`: an NVMe/TCP and iSCSI load generator that checks what it reads.
//!
//! Exit codes: 0 done, 1 the load could not be run to its end, 2 wrong usage, 3 a read returned wrong data.

use std::process::ExitCode;

use ashlar_perf::load::{LoadError, Options, pin_to, run};
use clap::Parser;

/// Load an NVMe/TCP or iSCSI target from one core and report rates, latencies and the target's CPU time.
#[derive(Parser)]
#[command(name = "ashlar-load", version)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Cli { options } = Cli::parse();
    if let Some(core) = options.cpu
        && let Err(error) = pin_to(core)
    {
        eprintln!("ashlar-load: cannot run on core {core}: {error}");
        return ExitCode::from(2);
    }
    match run(&options) {
        Ok(report) if options.json => match serde_json::to_string(&report) {
            Ok(json) => {
                println!("{json}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("ashlar-load: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ashlar-load: {error}");
            ExitCode::from(if matches!(error, LoadError::Data(_)) { 3 } else { 1 })
        }
    }
}

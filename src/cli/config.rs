//! `ashlar config`: reading a configuration file without running anything.

use std::io;
use std::path::{Path, PathBuf};

use ashlar_config::{Config, ConfigError, DEFAULTS, LoadError};
use clap::Subcommand;
use serde::Serialize;

use super::Global;
use super::failure::{Exit, Failure};
use super::output::{self, Format};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file; nothing is started
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print every key with its default and its meaning, as a file to start from
    Defaults,
}

/// What `config check --output json` prints.
#[derive(Serialize)]
struct Report {
    file: String,
    valid: bool,
    errors: Vec<Mistake>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Mistake {
    line: usize,
    column: usize,
    message: String,
    help: Option<String>,
}

pub(crate) fn run(command: ConfigCommand, global: &Global) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => check(&file, global),
        ConfigCommand::Defaults => output::print(DEFAULTS),
    }
}

fn check(file: &Path, global: &Global) -> Result<(), Failure> {
    if global.output == Format::Json
        && let Err(LoadError::Refused(error)) = Config::load(file)
    {
        output::show(Format::Json, &report(file, &error), |_| String::new())?;
        return Err(refused(&error, "the file was only read"));
    }
    let warnings = load(file, "the file was only read")?.warnings();
    let report = Report { file: file.display().to_string(), valid: true, errors: Vec::new(), warnings };
    output::show(global.output, &report, |report| {
        let warnings = report.warnings.iter().map(|warning| format!("warning: {warning}\n"));
        format!("{}{}: valid\n", warnings.collect::<String>(), report.file)
    })
}

fn report(file: &Path, error: &ConfigError) -> Report {
    let mistakes = error.diagnostics.iter().map(|found| Mistake {
        line: found.line,
        column: found.column,
        message: found.message.clone(),
        help: found.help.clone(),
    });
    let errors = mistakes.collect();
    Report { file: file.display().to_string(), valid: false, errors, warnings: Vec::new() }
}

/// Reads a configuration; on failure says everything that is wrong with it. `not_lost` says what did not
/// happen because of it.
pub(crate) fn load(file: &Path, not_lost: &str) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| match error {
        LoadError::Refused(error) => refused(&error, not_lost),
        LoadError::Unreadable(_, ref cause) => {
            let exit = match cause.kind() {
                io::ErrorKind::NotFound => Exit::NotFound,
                _ => Exit::Failed,
            };
            let help = "`ashlar config defaults` prints a file to start from";
            Failure::shown(exit, format_args!("{error}\n  {not_lost}\n  help: {help}"))
        }
    })
}

fn refused(error: &ConfigError, not_lost: &str) -> Failure {
    let mistakes = output::count(error.diagnostics.len() as u64, "error");
    Failure::shown(Exit::Usage, format_args!("{error}\n\n{}: {mistakes}; {not_lost}", error.file))
}

//! The command line. `ashlar serve` runs a node; every other command talks to a node's API, or to nobody.

mod chap;
mod config;
mod connect_help;
mod debug;
mod device;
mod failure;
mod group;
mod host;
mod operation;
mod output;
mod shell;
mod snapshot;
mod status;
mod target;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

use ashlar_cluster::client::Client;
use ashlar_config::Config;
use clap::{Args, Parser, Subcommand};

use failure::Failure;
use output::Format;

/// Where `ashlar serve` keeps its state when neither a file nor a directory is given.
const EMBEDDED_DATA: &str = "ashlar-data";

/// Ashlar: a software-defined block store.
///
/// `ashlar serve` runs a node; the other commands talk to one. Exit codes: 0 done, 1 failed, 2 used wrongly,
/// 3 not found, 4 refused (conflict, in use), 5 no node answered.
#[derive(Debug, Parser)]
#[command(name = "ashlar", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// How data is printed: tables for people, or JSON as the API has it
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Do what would otherwise ask for a confirmation
    #[arg(long, short = 'y', global = true)]
    yes: bool,
    /// Address of the API of any node
    #[arg(
        long,
        global = true,
        env = "ASHLAR_API",
        hide_env_values = true,
        default_value = "127.0.0.1:7070",
        value_name = "ADDR"
    )]
    api: String,
}

impl Global {
    /// A client of the node that `--api` names.
    fn client(&self) -> Client {
        Client::new(&self.api)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    ///
    /// Without a configuration file it is an embedded single node: state in ./ashlar-data, NVMe/TCP on
    /// 127.0.0.1:4420, iSCSI on 127.0.0.1:3260, the API on 127.0.0.1:7070.
    Serve(Serve),
    /// Health in one screen; succeeds only when a node answered and is ready
    Status,
    /// Virtual disks
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Volumes that are cut together, and how they are stored
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Cuts of groups: all their volumes as they were at one moment
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Disks of the node, for log-structured volumes
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Long work with progress
    #[command(subcommand)]
    Operation(operation::OperationCommand),
    /// What hosts connect to
    #[command(subcommand)]
    Target(target::TargetCommand),
    /// Initiators that may connect
    #[command(subcommand)]
    Host(host::HostCommand),
    /// The configuration file of a node
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Verify a stopped store, and print what is on a device
    #[command(subcommand)]
    Debug(debug::DebugCommand),
    /// Print a completion script for a shell
    Completions(shell::Completions),
    /// Print a manual page in roff, to be read with `man -l -`
    Man(shell::Man),
}

#[derive(Args, Debug)]
struct Serve {
    /// Configuration file (see `ashlar config defaults`)
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the control state, instead of the file's or ./ashlar-data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    // Wrong usage, --help and --version print and exit in here, with 2, 0 and 0.
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            output::note(&failure.to_string());
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let global = cli.global;
    if !matches!(cli.command, Command::Serve(_)) {
        report_panics_plainly();
    }
    match cli.command {
        Command::Serve(serve) => {
            let embedded = serve.config.is_none();
            return Ok(crate::serve::run(&serve.config()?, embedded));
        }
        Command::Status => return status::run(&global),
        Command::Debug(command) => return debug::run(command, &global),
        Command::Volume(command) => volume::run(command, &global),
        Command::Group(command) => group::run(command, &global),
        Command::Snapshot(command) => snapshot::run(command, &global),
        Command::Device(command) => device::run(command, &global),
        Command::Operation(command) => operation::run(command, &global),
        Command::Target(command) => target::run(command, &global),
        Command::Host(command) => host::run(command, &global),
        Command::Config(command) => config::run(command, &global),
        Command::Completions(command) => shell::completions(&command),
        Command::Man(command) => shell::man(&command),
    }?;
    Ok(ExitCode::SUCCESS)
}

impl Serve {
    /// The configuration to run with.
    fn config(self) -> Result<Config, Failure> {
        let Some(file) = self.config else {
            return Ok(Config::embedded(self.data.unwrap_or_else(|| EMBEDDED_DATA.into())));
        };
        let mut config = config::load(&file, "the node was not started")?;
        if let Some(data) = self.data {
            config.node.data = data;
        }
        for warning in config.warnings() {
            output::note(&format!("warning: {warning}"));
        }
        Ok(config)
    }
}

/// A short command that hits a bug says so in one line, and exits with 1 instead of Rust's 101.
fn report_panics_plainly() {
    std::panic::set_hook(Box::new(|panic| {
        output::note(&format!("error: this is a bug in ashlar: {panic}"));
        std::process::exit(1);
    }));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_takes_the_file_then_the_directory() {
        let config = |arguments: &[&str]| {
            let words = ["ashlar", "serve"].iter().chain(arguments);
            let Command::Serve(serve) = Cli::try_parse_from(words).unwrap().command else { panic!() };
            serve.config()
        };
        assert_eq!(config(&[]).unwrap(), Config::embedded("ashlar-data"));
        assert_eq!(config(&["--data", "/d"]).unwrap(), Config::embedded("/d"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let from_file = config(&["--config", path, "--data", "/d"]).unwrap();
        assert_eq!(from_file.node.data, PathBuf::from("/d"));
        assert_eq!(from_file.nvmeof, Config::default().nvmeof);
    }
}

//! `ashlar completions` and `ashlar man`: what a shell and a manual reader need.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::failure::{Exit, Failure};
use super::{Cli, output};

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell; for bash: `source <(ashlar completions bash)`
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish"]))]
    shell: String,
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The command whose page is printed, such as `volume create`; by default ashlar's own
    command: Vec<String>,
}

pub(crate) fn completions(arguments: &Completions) -> Result<(), Failure> {
    let shell = match arguments.shell.as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        _ => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ashlar", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

pub(crate) fn man(arguments: &Man) -> Result<(), Failure> {
    let mut root = Cli::command();
    // Gives every subcommand its full name and the options that all commands have.
    root.build();
    let mut command = &root;
    for word in &arguments.command {
        command = command.find_subcommand(word).ok_or_else(|| {
            let summary = format!("there is no command `ashlar {}`", arguments.command.join(" "));
            Failure::new(Exit::Usage, summary, "`ashlar --help` lists the commands")
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(|error| {
        Failure::new(Exit::Failed, format_args!("cannot render the manual page: {error}"), "")
    })?;
    output::print(&String::from_utf8_lossy(&page))
}

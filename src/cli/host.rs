//! `ashlar host`: initiators that may connect.

use ashlar_cluster::api::{CreateHostRequest, HostList, HostView};
use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::{age_since, fields, or_dash};
use super::{Global, output};

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Make an initiator known; `ashlar target allow` lets it in
    Add(Add),
    /// List all hosts
    #[command(visible_alias = "ls")]
    List,
    /// Show one host
    Show {
        /// The host
        host: String,
    },
    /// Forget a host that no target allows
    #[command(visible_alias = "rm")]
    Remove {
        /// The host
        host: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Add {
    /// Its name
    name: String,
    /// Its NVMe qualified name: on Linux in /etc/nvme/hostnqn, on ESXi shown by `esxcli nvme info get`
    #[arg(long)]
    nqn: String,
}

pub(crate) fn run(command: HostCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    match command {
        HostCommand::Add(Add { name, nqn }) => {
            let host = client.create_host(&CreateHostRequest { name, nqn: Some(nqn), iqn: None })?;
            output::show(global.output, &host, |host| {
                format!("added {}; let it in with: ashlar target allow TARGET {}", host.name, host.name)
            })
        }
        HostCommand::List => output::show(global.output, &client.hosts()?, list_table),
        HostCommand::Show { host } => output::show(global.output, &client.host(&host)?, show_table),
        HostCommand::Remove { host: name } => {
            let host = client.host(&name)?;
            output::confirm(global.yes, &format!("Host {name} is forgotten."))?;
            client.delete_host(&name)?;
            output::show(global.output, &host, |host| format!("removed {}", host.name))
        }
    }
}

fn list_table(list: &HostList) -> String {
    let rows = list.hosts.iter().map(|host| {
        [
            host.name.clone(),
            or_dash(host.nqn.clone().unwrap_or_default()),
            or_dash(host.targets.join(", ")),
            host.controllers.to_string(),
        ]
    });
    output::table(["NAME", "NQN", "TARGETS", "CONTROLLERS"], &[3], rows.collect())
}

fn show_table(host: &HostView) -> String {
    fields(vec![
        ("Name", host.name.clone()),
        ("NQN", or_dash(host.nqn.clone().unwrap_or_default())),
        ("Targets", or_dash(host.targets.join("\n"))),
        ("Controllers", host.controllers.to_string()),
        ("Added", age_since(host.created_ms)),
        ("UUID", host.id.to_string()),
    ])
}

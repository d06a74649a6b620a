//! `ashlar target`: what hosts connect to.

use std::net::SocketAddr;

use ashlar_cluster::api::{AnaState, AttachVolumeRequest, CreateTargetRequest, TargetList, TargetView};
use ashlar_config::Bytes;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Subcommand};

use super::connect_help;
use super::failure::Failure;
use super::output::{age, age_since, fields, or_dash};
use super::{Global, output};

#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// Create a target; a fresh one lets no host in
    Create(Create),
    /// Attach a volume: hosts see a new namespace, and a LUN of the same number, at once
    Attach {
        /// The target
        target: String,
        /// The volume
        volume: String,
        /// Namespace id and LUN, from 1; by default the lowest free one
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
        nsid: Option<u32>,
    },
    /// Detach a volume: hosts lose the namespace and LUN at once, the data stays
    Detach {
        /// The target
        target: String,
        /// The volume
        volume: String,
    },
    /// Let a host in
    #[command(override_usage = "ashlar target allow [OPTIONS] <TARGET> <HOST|--any-host>")]
    Allow(Access),
    /// No longer let a host in; it is disconnected
    #[command(override_usage = "ashlar target deny [OPTIONS] <TARGET> <HOST|--any-host>")]
    Deny(Access),
    /// List all targets
    #[command(visible_alias = "ls")]
    List,
    /// Show one target, with its volumes and the hosts that are connected
    Show {
        /// The target
        target: String,
    },
    /// Delete a target; its volumes stay
    #[command(visible_alias = "rm")]
    Delete {
        /// The target
        target: String,
        /// Detach its volumes and disconnect its hosts first
        #[arg(long)]
        force: bool,
    },
    /// Print the exact commands that connect a host to this target
    ConnectHelp {
        /// The target
        target: String,
    },
    /// Set the ANA state of a volume's group on this target's paths
    Ana {
        /// The target
        target: String,
        /// A volume attached to it; the state applies to all of the volume's group
        volume: String,
        /// The state that hosts see
        #[arg(value_parser = ana_state())]
        state: AnaState,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// Offer it only here, as ADDRESS:PORT (repeat for several); by default wherever the node listens
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Its NVMe qualified name; by default nqn.2026-11.io.ashlar:NAME
    #[arg(long)]
    nqn: Option<String>,
    /// Its iSCSI name; by default iqn.2026-11.io.ashlar:NAME
    #[arg(long)]
    iqn: Option<String>,
    /// Let every host in that can reach it
    #[arg(long)]
    any_host: bool,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("who").args(["host", "any_host"]).required(true)))]
pub(crate) struct Access {
    /// The target
    target: String,
    /// The host
    host: Option<String>,
    /// Every host that can reach the target, known or not
    #[arg(long)]
    any_host: bool,
}

fn ana_state() -> impl TypedValueParser<Value = AnaState> {
    PossibleValuesParser::new(AnaState::ALL.map(AnaState::as_str)).map(|word| {
        let state = AnaState::ALL.into_iter().find(|state| state.as_str() == word);
        state.expect("clap lets only these words through")
    })
}

pub(crate) fn run(command: TargetCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    match command {
        TargetCommand::Create(create) => {
            let target = client.create_target(&create.request())?;
            output::show(global.output, &target, |target| {
                format!("created {}: {}, {}", target.name, target.nqn, target.iqn)
            })
        }
        TargetCommand::Attach { target, volume, nsid } => {
            let request = AttachVolumeRequest { volume: volume.clone(), nsid };
            let target = client.attach_volume(&target, &request)?;
            output::show(global.output, &target, |target| attached_sentence(target, &volume))
        }
        TargetCommand::Detach { target, volume } => {
            client.detach_volume(&target, &volume)?;
            output::show(global.output, &client.target(&target)?, |target| {
                format!("detached {volume} from {}; its data stays", target.name)
            })
        }
        TargetCommand::Allow(access) => access.set(true, global),
        TargetCommand::Deny(access) => access.set(false, global),
        TargetCommand::List => output::show(global.output, &client.targets()?, list_table),
        TargetCommand::Show { target } => output::show(global.output, &client.target(&target)?, show_table),
        TargetCommand::Delete { target, force } => delete(&target, force, global),
        TargetCommand::ConnectHelp { target } => connect_help::run(&client.target(&target)?, global),
        TargetCommand::Ana { target, volume, state } => {
            let group = client.volume(&volume)?.group;
            let target = client.set_ana_state(&target, &group, state)?;
            output::show(global.output, &target, |target| {
                format!("paths to group {group} through {} are now {}", target.name, state.as_str())
            })
        }
    }
}

impl Create {
    fn request(self) -> CreateTargetRequest {
        CreateTargetRequest {
            name: self.name,
            nqn: self.nqn,
            iqn: self.iqn,
            listen: self.listen,
            any_host: self.any_host,
        }
    }
}

impl Access {
    fn set(self, allow: bool, global: &Global) -> Result<(), Failure> {
        let client = global.client();
        let target = match (&self.host, allow) {
            (Some(host), true) => client.allow_host(&self.target, host)?,
            (Some(host), false) => {
                client.deny_host(&self.target, host)?;
                client.target(&self.target)?
            }
            (None, allow) => client.set_any_host(&self.target, allow)?,
        };
        output::show(global.output, &target, |target| {
            format!("{} now lets in: {}", target.name, allowed(target))
        })
    }
}

fn delete(name: &str, force: bool, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    let target = client.target(name)?;
    output::confirm(global.yes, &format!("Target {name} is deleted; its volumes stay."))?;
    client.delete_target(name, force)?;
    output::show(global.output, &target, |target| format!("deleted {}; its volumes stay", target.name))
}

fn attached_sentence(target: &TargetView, volume: &str) -> String {
    let nsid = target.namespaces.iter().find(|namespace| namespace.volume == volume).map(|found| found.nsid);
    let number = nsid.map(|nsid| format!(" as namespace {nsid}")).unwrap_or_default();
    format!("attached {volume} to {}{number}", target.name)
}

/// Who may connect, in words.
pub(crate) fn allowed(target: &TargetView) -> String {
    match (target.any_host, target.hosts.is_empty()) {
        (true, _) => "any host".to_owned(),
        (false, true) => "no host".to_owned(),
        (false, false) => target.hosts.join(", "),
    }
}

fn list_table(list: &TargetList) -> String {
    let rows = list.targets.iter().map(|target| {
        [
            target.name.clone(),
            target.nqn.clone(),
            target.namespaces.len().to_string(),
            allowed(target),
            target.controllers.len().to_string(),
            target.sessions.len().to_string(),
        ]
    });
    output::table(["NAME", "NQN", "VOLUMES", "HOSTS", "CONTROLLERS", "SESSIONS"], &[2, 4, 5], rows.collect())
}

fn show_table(target: &TargetView) -> String {
    let namespaces = target.namespaces.iter().map(|namespace| {
        let size = Bytes::new(namespace.size_bytes).rounded();
        format!("{}: {} ({size})", namespace.nsid, namespace.volume)
    });
    let groups = target
        .groups
        .iter()
        .map(|group| format!("{} {} (ANA group {})", group.group, group.state.as_str(), group.ana_group_id));
    let controllers = target.controllers.iter().map(|controller| {
        let host = controller.host.as_deref().unwrap_or(&controller.host_nqn);
        let queues = output::count(controller.io_queues.into(), "I/O queue");
        format!("{}: {host}, {queues}, for {}", controller.controller_id, age(controller.age_ms))
    });
    let sessions = target.sessions.iter().map(|session| {
        let host = session.host.as_deref().unwrap_or(&session.initiator);
        format!("{}: {host}, at portal group {}, for {}", session.tsih, session.portal, age(session.age_ms))
    });
    let addresses = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect();
    let lines = |lines: Vec<String>| or_dash(lines.join("\n"));
    fields(vec![
        ("Name", target.name.clone()),
        ("NQN", target.nqn.clone()),
        ("IQN", target.iqn.clone()),
        ("Serial", target.serial.clone()),
        ("NVMe/TCP at", lines(addresses(&target.nvme_addresses))),
        ("iSCSI at", lines(addresses(&target.iscsi_addresses))),
        ("Lets in", allowed(target)),
        ("Volumes", lines(namespaces.collect())),
        ("Paths", lines(groups.collect())),
        ("Controllers", lines(controllers.collect())),
        ("Sessions", lines(sessions.collect())),
        ("Connections", target.connections.to_string()),
        ("Created", age_since(target.created_ms)),
        ("UUID", target.id.to_string()),
    ])
}

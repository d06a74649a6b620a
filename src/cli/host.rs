//! `ashlar host`: initiators that may connect.

use ashlar_cluster::api::{ChapMode, ChapRequest, CreateHostRequest, HostList, HostView};
use clap::{ArgGroup, Args, Subcommand};

use super::chap::{Drawn, SecretSource, show_once};
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
    /// Give a host new CHAP secrets; they are asked for at its next login
    ///
    /// Without an option: new ones for each direction that has one.
    Rotate(Rotate),
    /// Forget a host that no target allows
    #[command(visible_alias = "rm")]
    Remove {
        /// The host
        host: String,
    },
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("names").args(["nqn", "iqn"]).required(true).multiple(true)))]
pub(crate) struct Add {
    /// Its name
    name: String,
    /// Its NVMe qualified name: on Linux in /etc/nvme/hostnqn, on ESXi shown by `esxcli nvme info get`
    #[arg(long)]
    nqn: Option<String>,
    /// Its iSCSI initiator name: on Linux in /etc/iscsi/initiatorname.iscsi, on ESXi shown by `esxcli iscsi adapter
    /// get`, on Windows by `(Get-InitiatorPort).NodeAddress`
    #[arg(long)]
    iqn: Option<String>,
    #[command(flatten)]
    secrets: Secrets,
}

#[derive(Args, Debug)]
pub(crate) struct Rotate {
    /// The host
    host: String,
    #[command(flatten)]
    secrets: Secrets,
    /// Ask for no CHAP any more
    #[arg(long, conflicts_with_all = ["chap", "chap_secret_file", "mutual", "mutual_secret_file"])]
    no_chap: bool,
}

/// Which secrets are made, and from what.
#[derive(Args, Debug)]
struct Secrets {
    /// Ask the host for CHAP when it logs in over iSCSI, with a secret that is drawn and shown this once; its user name
    /// is its IQN
    #[arg(long)]
    chap: bool,
    /// The same with the secret in this file (- for standard input): 12 to 16 characters suit every initiator
    #[arg(long, value_name = "FILE")]
    chap_secret_file: Option<SecretSource>,
    /// Prove to the host who the target is, too (mutual CHAP), with another secret that is drawn and shown this once;
    /// the user name is the target's IQN
    #[arg(long)]
    mutual: bool,
    /// The same with the secret in this file (- for standard input)
    #[arg(long, value_name = "FILE")]
    mutual_secret_file: Option<SecretSource>,
}

impl Secrets {
    fn wants_chap(&self) -> bool {
        self.chap || self.chap_secret_file.is_some()
    }

    fn wants_mutual(&self) -> bool {
        self.mutual || self.mutual_secret_file.is_some()
    }

    /// The secrets for the directions that are wanted.
    fn make(&self, chap: bool, mutual: bool) -> Result<Drawn, Failure> {
        SecretSource::check_both(self.chap_secret_file.as_ref(), self.mutual_secret_file.as_ref())?;
        Drawn::make(
            chap.then_some(self.chap_secret_file.as_ref()),
            mutual.then_some(self.mutual_secret_file.as_ref()),
        )
    }
}

pub(crate) fn run(command: HostCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    match command {
        HostCommand::Add(add) => add.run(global),
        HostCommand::List => output::show(global.output, &client.hosts()?, list_table),
        HostCommand::Show { host } => output::show(global.output, &client.host(&host)?, show_table),
        HostCommand::Rotate(rotate) => rotate.run(global),
        HostCommand::Remove { host: name } => {
            let host = client.host(&name)?;
            output::confirm(global.yes, &format!("Host {name} is forgotten."))?;
            client.delete_host(&name)?;
            output::show(global.output, &host, |host| format!("removed {}", host.name))
        }
    }
}

impl Add {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let mutual = self.secrets.wants_mutual();
        let drawn = self.secrets.make(self.secrets.wants_chap() || mutual, mutual)?;
        let host = global.client().create_host(&CreateHostRequest {
            name: self.name,
            nqn: self.nqn,
            iqn: self.iqn,
            chap_secret: drawn.chap.secret(),
            mutual_chap_secret: drawn.mutual.secret(),
        })?;
        let added = format!("added {0}; let it in with: ashlar target allow TARGET {0}", host.name);
        show_once(global.output, &host, added, &drawn)
    }
}

impl Rotate {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let (client, name) = (global.client(), &self.host);
        if self.no_chap {
            output::confirm(global.yes, &format!("Host {name} is no longer asked for CHAP."))?;
            client.clear_chap(name)?;
            let host = client.host(name)?;
            return output::show(global.output, &host, |host| format!("{} needs no CHAP now", host.name));
        }
        let (mut chap, mut mutual) = (self.secrets.wants_chap(), self.secrets.wants_mutual());
        if !chap && !mutual {
            let mode = client.host(name)?.chap;
            (chap, mutual) = (true, mode == ChapMode::Mutual);
        }
        let drawn = self.secrets.make(chap, mutual)?;
        let request =
            ChapRequest { chap_secret: drawn.chap.secret(), mutual_chap_secret: drawn.mutual.secret() };
        let host = client.set_chap(name, &request)?;
        let done = format!("{} has new CHAP secrets, asked for at its next login", host.name);
        show_once(global.output, &host, done, &drawn)
    }
}

fn list_table(list: &HostList) -> String {
    let rows = list.hosts.iter().map(|host| {
        [
            host.name.clone(),
            or_dash(host.nqn.clone().unwrap_or_default()),
            or_dash(host.iqn.clone().unwrap_or_default()),
            host.chap.as_str().to_owned(),
            or_dash(host.targets.join(", ")),
            host.controllers.to_string(),
            host.sessions.to_string(),
        ]
    });
    output::table(
        ["NAME", "NQN", "IQN", "CHAP", "TARGETS", "CONTROLLERS", "SESSIONS"],
        &[5, 6],
        rows.collect(),
    )
}

fn show_table(host: &HostView) -> String {
    fields(vec![
        ("Name", host.name.clone()),
        ("NQN", or_dash(host.nqn.clone().unwrap_or_default())),
        ("IQN", or_dash(host.iqn.clone().unwrap_or_default())),
        ("CHAP", host.chap.as_str().to_owned()),
        ("Targets", or_dash(host.targets.join("\n"))),
        ("Controllers", host.controllers.to_string()),
        ("Sessions", host.sessions.to_string()),
        ("Added", age_since(host.created_ms)),
        ("UUID", host.id.to_string()),
    ])
}

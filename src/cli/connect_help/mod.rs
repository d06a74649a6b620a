//! `ashlar target connect-help`: the exact commands that connect a host to a target.

mod iscsi;
mod nvme;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use ashlar_cluster::api::{ChapMode, HostView, TargetView};
use serde::Serialize;

use super::failure::Failure;
use super::{Global, output};

/// What to type. Commands are complete; notes are sentences.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Help {
    target: String,
    nqn: String,
    iqn: String,
    nvme: Vec<System>,
    iscsi: Vec<System>,
    notes: Vec<String>,
}

/// Where it is typed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct System {
    name: &'static str,
    heading: &'static str,
    steps: Vec<Step>,
}

/// Commands that belong together, and what they do.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step {
    what: &'static str,
    commands: Vec<String>,
}

impl System {
    fn new(name: &'static str, heading: &'static str, steps: Vec<Step>) -> Self {
        Self { name, heading, steps }
    }
}

impl Step {
    fn new<T: Into<String>>(what: &'static str, commands: impl IntoIterator<Item = T>) -> Self {
        Self { what, commands: commands.into_iter().map(Into::into).collect() }
    }
}

/// The target, where it is reached, and whom it lets in.
struct Question<'a> {
    target: &'a TargetView,
    nvme: Vec<SocketAddr>,
    iscsi: Vec<SocketAddr>,
    /// The hosts that the target lists.
    hosts: Vec<HostView>,
}

pub(crate) fn run(target: &TargetView, global: &Global) -> Result<(), Failure> {
    let mut hosts = Vec::new();
    if !target.hosts.is_empty() {
        hosts = global.client().hosts()?.hosts;
        hosts.retain(|host| target.hosts.contains(&host.name));
    }
    let all = target.nvme_addresses.iter().chain(&target.iscsi_addresses);
    let node = all.into_iter().any(is_wildcard).then(|| node_address(&global.api)).flatten();
    let question = Question {
        target,
        nvme: reachable(&target.nvme_addresses, node),
        iscsi: reachable(&target.iscsi_addresses, node),
        hosts,
    };
    output::show(global.output, &Help::new(&question), Help::text)
}

fn is_wildcard(address: &SocketAddr) -> bool {
    address.ip().is_unspecified()
}

/// An address of the node that hosts can use, for a target that is offered on all of them: the one in `--api`,
/// or this machine's own when the API is asked over loopback.
fn node_address(api: &str) -> Option<IpAddr> {
    let authority = api.rsplit("://").next().unwrap_or(api).trim_end_matches('/');
    let api = authority.to_socket_addrs().ok()?.next()?.ip();
    if !api.is_loopback() {
        return Some(api);
    }
    // Connecting a UDP socket sends nothing; it asks the kernel which address it would send from. The peer is
    // a documentation address (RFC 5737), reached over the default route.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    let routed = socket.connect(("192.0.2.1", 9)).and_then(|()| socket.local_addr());
    Some(routed.map_or(api, |address| address.ip()))
}

/// The addresses to print: wildcards become `node`, if that is known and of use, and each address stands once.
fn reachable(addresses: &[SocketAddr], node: Option<IpAddr>) -> Vec<SocketAddr> {
    let mut reachable = Vec::new();
    for address in addresses {
        let ip = if is_wildcard(address) { node.unwrap_or(address.ip()) } else { address.ip() };
        let address = SocketAddr::new(ip, address.port());
        if !reachable.contains(&address) {
            reachable.push(address);
        }
    }
    reachable
}

impl Help {
    fn new(question: &Question<'_>) -> Self {
        let Question { target, nvme, iscsi, hosts } = question;
        let of = |addresses: &[SocketAddr], systems: &dyn Fn() -> Vec<System>| {
            if addresses.is_empty() { Vec::new() } else { systems() }
        };
        Self {
            target: target.name.clone(),
            nqn: target.nqn.clone(),
            iqn: target.iqn.clone(),
            nvme: of(nvme, &|| nvme::systems(&quoted(&target.nqn), nvme)),
            iscsi: of(iscsi, &|| iscsi::systems(target, iscsi, hosts)),
            notes: notes(question),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("Target {}, {}, {}\n", self.target, self.nqn, self.iqn);
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        for System { heading, steps, .. } in self.nvme.iter().chain(&self.iscsi) {
            text.push_str(&format!("\n{heading}:\n"));
            for step in steps {
                text.push_str(&format!("  # {}\n", step.what));
                text.extend(step.commands.iter().map(|command| format!("  {command}\n")));
            }
        }
        text
    }
}

/// What would keep a host from seeing a disk, and how to mend it.
fn notes(question: &Question<'_>) -> Vec<String> {
    let Question { target, nvme, iscsi, hosts } = question;
    let addresses: Vec<_> = nvme.iter().chain(iscsi).collect();
    let name = &target.name;
    let mut notes = Vec::new();
    if addresses.is_empty() {
        notes.push("this node does not offer the target on any address it listens on".to_owned());
    }
    if addresses.iter().any(|address| is_wildcard(address)) {
        notes.push("put an address of the node for the wildcard below".to_owned());
    }
    if !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()) {
        notes.push(
            "the node listens on loopback only, so these work on the node itself; for other hosts set \
             nvmeof.listen and iscsi.listen in its configuration"
                .to_owned(),
        );
    }
    if target.namespaces.is_empty() {
        notes.push(format!("no volume is attached yet: ashlar target attach {name} VOLUME"));
    }
    if !target.any_host && target.hosts.is_empty() {
        notes.push(format!(
            "no host is let in yet: ashlar host add HOST --nqn \"$(cat /etc/nvme/hostnqn)\" with the host's own \
             file, or --iqn with the name of its iSCSI initiator, then ashlar target allow {name} HOST"
        ));
    }
    if target.any_host && hosts.iter().any(|host| host.chap != ChapMode::None) {
        notes.push(format!(
            "any host is let in, without CHAP, also where hosts have it: ashlar target deny {name} --any-host"
        ));
    }
    notes
}

/// The word as a POSIX shell must be given it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '@' | '+');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(nvme: &[&str], iscsi: &[&str]) -> TargetView {
        serde_json::from_value(serde_json::json!({
            "id": "00000000-0000-0000-0000-000000000001",
            "name": "vm", "nqn": "nqn.2026-11.io.ashlar:vm", "iqn": "iqn.2026-11.io.ashlar:vm",
            "serial": "0", "namespaces": [], "any_host": false, "hosts": [], "listen": [],
            "nvme_addresses": nvme, "iscsi_addresses": iscsi, "groups": [], "created_ms": 0, "connections": 0,
            "controllers": [], "sessions": [],
        }))
        .unwrap()
    }

    pub(super) fn host(name: &str, chap: ChapMode) -> HostView {
        serde_json::from_value(serde_json::json!({
            "id": "00000000-0000-0000-0000-000000000002", "name": name, "targets": ["vm"], "controllers": 0,
            "iqn": format!("iqn.2014-08.org.example:{name}"), "chap": chap, "created_ms": 0,
        }))
        .unwrap()
    }

    pub(super) fn help_with(nvme: &[&str], iscsi: &[&str], hosts: &[HostView]) -> Help {
        let target = target(nvme, iscsi);
        Help::new(&Question {
            target: &target,
            nvme: reachable(&target.nvme_addresses, None),
            iscsi: reachable(&target.iscsi_addresses, None),
            hosts: hosts.to_vec(),
        })
    }

    fn help(addresses: &[&str], node: Option<&str>) -> Help {
        let target = target(addresses, &[]);
        let nvme = reachable(&target.nvme_addresses, node.map(|ip| ip.parse().unwrap()));
        Help::new(&Question { target: &target, nvme, iscsi: Vec::new(), hosts: Vec::new() })
    }

    #[test]
    fn every_path_gets_its_command() {
        let text = help(&["10.0.0.11:4420", "[fd00::11]:4421"], None).text();
        for line in [
            "  nvme discover -t tcp -a 10.0.0.11 -s 4420\n",
            "  nvme connect -t tcp -a 10.0.0.11 -s 4420 -n nqn.2026-11.io.ashlar:vm\n",
            "  nvme connect -t tcp -a fd00::11 -s 4421 -n nqn.2026-11.io.ashlar:vm\n",
            "  nvme connect-all -t tcp -a 10.0.0.11 -s 4420\n",
            "  esxcli nvme fabrics connect -a vmhba64 -i fd00::11 -p 4421 -s nqn.2026-11.io.ashlar:vm\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn loopback_is_not_offered_to_other_machines() {
        let help = help_with(&["127.0.0.1:4420"], &["127.0.0.1:3260"], &[]);
        let names = |systems: &[System]| systems.iter().map(|system| system.name).collect::<Vec<_>>();
        assert_eq!((names(&help.nvme), names(&help.iscsi)), (vec!["linux"], vec!["linux", "qemu"]));
        assert!(help.notes[0].contains("loopback only"), "{:?}", help.notes);
    }

    #[test]
    fn wildcards_become_an_address_of_the_node() {
        let known = help(&["0.0.0.0:4420", "[::]:4420"], Some("10.0.0.9"));
        assert_eq!(known.nvme[0].steps[2].commands.len(), 1);
        assert!(known.nvme[0].steps[2].commands[0].contains("-a 10.0.0.9 -s 4420"));
        let unknown = help(&["0.0.0.0:4420"], None);
        assert!(unknown.notes[0].contains("wildcard"), "{:?}", unknown.notes);
        assert_eq!(node_address("http://10.0.0.7:7070/"), Some("10.0.0.7".parse().unwrap()));
    }

    #[test]
    fn what_is_missing_is_said() {
        let notes = help(&["10.0.0.11:4420"], None).notes.join("\n");
        assert!(notes.contains("ashlar target attach vm VOLUME"), "{notes}");
        assert!(notes.contains("ashlar target allow vm HOST"), "{notes}");
        assert!(help(&[], None).notes[0].contains("does not offer"));
    }

    #[test]
    fn names_are_safe_to_paste() {
        assert_eq!(quoted("nqn.2026-11.io.ashlar:vm"), "nqn.2026-11.io.ashlar:vm");
        assert_eq!(quoted("nqn.2026-11.a:$(x)'"), r"'nqn.2026-11.a:$(x)'\'''");
    }
}

//! `ashlar target connect-help`: the exact commands that connect a host to a target.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use ashlar_cluster::api::TargetView;
use serde::Serialize;

use super::failure::Failure;
use super::{Global, output};

/// What to type, by operating system. Commands are complete; notes are sentences.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Help {
    target: String,
    nqn: String,
    linux: Vec<Step>,
    esxi: Vec<Step>,
    notes: Vec<String>,
}

/// Commands that belong together, and what they do.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step {
    what: &'static str,
    commands: Vec<String>,
}

pub(crate) fn run(target: &TargetView, global: &Global) -> Result<(), Failure> {
    let node = target.nvme_addresses.iter().any(is_wildcard).then(|| node_address(&global.api)).flatten();
    let help = Help::new(target, &reachable(&target.nvme_addresses, node));
    output::show(global.output, &help, Help::text)
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
    fn new(target: &TargetView, addresses: &[SocketAddr]) -> Self {
        let nqn = quoted(&target.nqn);
        Self {
            target: target.name.clone(),
            nqn: target.nqn.clone(),
            linux: linux(&nqn, addresses),
            esxi: if addresses.iter().all(|address| address.ip().is_loopback()) {
                Vec::new()
            } else {
                esxi(&nqn, addresses)
            },
            notes: notes(target, addresses),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("Target {}, {}\n", self.target, self.nqn);
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        let systems = [
            ("Linux, as root, with nvme-cli", &self.linux),
            ("VMware ESXi 7.0 Update 3 or later", &self.esxi),
        ];
        for (system, steps) in systems.into_iter().filter(|(_, steps)| !steps.is_empty()) {
            text.push_str(&format!("\n{system}:\n"));
            for step in steps {
                text.push_str(&format!("  # {}\n", step.what));
                text.extend(step.commands.iter().map(|command| format!("  {command}\n")));
            }
        }
        text
    }
}

fn linux(nqn: &str, addresses: &[SocketAddr]) -> Vec<Step> {
    let at = |address: &SocketAddr| format!("-t tcp -a {} -s {}", address.ip(), address.port());
    let each = |verb: &str, rest: &str| -> Vec<String> {
        addresses.iter().map(|address| format!("nvme {verb} {}{rest}", at(address))).collect()
    };
    let first = |verb: &str| each(verb, "").into_iter().take(1).collect();
    vec![
        Step { what: "once after boot", commands: vec!["modprobe nvme-tcp".to_owned()] },
        Step { what: "what this node offers to this host", commands: first("discover") },
        Step {
            what: if addresses.len() > 1 { "connect, one path per address" } else { "connect" },
            commands: each("connect", &format!(" -n {nqn}")),
        },
        Step { what: "or connect to all targets that let this host in", commands: first("connect-all") },
        Step {
            what: "look, and disconnect",
            commands: vec![
                "nvme list".to_owned(),
                "nvme list-subsys".to_owned(),
                format!("nvme disconnect -n {nqn}"),
            ],
        },
    ]
}

fn esxi(nqn: &str, addresses: &[SocketAddr]) -> Vec<Step> {
    let remote = addresses.iter().filter(|address| !address.ip().is_loopback());
    let at = remote.map(|address| format!("-i {} -p {}", address.ip(), address.port())).collect::<Vec<_>>();
    let discover = at.iter().take(1).map(|at| format!("esxcli nvme fabrics discover -a vmhba64 {at}"));
    let connect = at.iter().map(|at| format!("esxcli nvme fabrics connect -a vmhba64 {at} -s {nqn}"));
    vec![
        Step {
            what: "once: NVMe/TCP on the storage uplink and its vmkernel port (yours for vmnic1 and vmk1)",
            commands: vec![
                "esxcli nvme fabrics enable -p TCP -d vmnic1".to_owned(),
                "esxcli network ip interface tag add -i vmk1 -t NVMeTCP".to_owned(),
            ],
        },
        Step {
            what: "the adapter this made (yours for vmhba64 below)",
            commands: vec!["esxcli nvme adapter list".to_owned()],
        },
        Step { what: "discover", commands: discover.collect() },
        Step { what: "connect", commands: connect.collect() },
    ]
}

/// What would keep a host from seeing a disk, and how to mend it.
fn notes(target: &TargetView, addresses: &[SocketAddr]) -> Vec<String> {
    let name = &target.name;
    let mut notes = Vec::new();
    if addresses.is_empty() {
        notes.push("this node does not offer the target on any address it listens on".to_owned());
    }
    if addresses.iter().any(is_wildcard) {
        notes.push("put an address of the node for the wildcard below".to_owned());
    }
    if !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()) {
        notes.push(
            "the node listens on loopback only, so these work on the node itself; for other hosts set \
             nvmeof.listen in its configuration"
                .to_owned(),
        );
    }
    if target.namespaces.is_empty() {
        notes.push(format!("no volume is attached yet: ashlar target attach {name} VOLUME"));
    }
    if !target.any_host && target.hosts.is_empty() {
        notes.push(format!(
            "no host is let in yet: ashlar host add HOST --nqn \"$(cat /etc/nvme/hostnqn)\" with the host's own \
             file, then ashlar target allow {name} HOST"
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

    fn target(addresses: &[&str]) -> TargetView {
        serde_json::from_value(serde_json::json!({
            "id": "00000000-0000-0000-0000-000000000001",
            "name": "vm", "nqn": "nqn.2026-11.io.ashlar:vm", "iqn": "iqn.2026-11.io.ashlar:vm",
            "serial": "0", "namespaces": [], "any_host": false, "hosts": [], "listen": [],
            "nvme_addresses": addresses, "groups": [], "created_ms": 0, "connections": 0, "controllers": [],
        }))
        .unwrap()
    }

    fn help(addresses: &[&str], node: Option<&str>) -> Help {
        let target = target(addresses);
        Help::new(&target, &reachable(&target.nvme_addresses, node.map(|ip| ip.parse().unwrap())))
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
        let help = help(&["127.0.0.1:4420"], None);
        assert_eq!(help.esxi, []);
        assert!(help.notes[0].contains("loopback only"), "{:?}", help.notes);
    }

    #[test]
    fn wildcards_become_an_address_of_the_node() {
        let known = help(&["0.0.0.0:4420", "[::]:4420"], Some("10.0.0.9"));
        assert_eq!(known.linux[2].commands.len(), 1);
        assert!(known.linux[2].commands[0].contains("-a 10.0.0.9 -s 4420"));
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

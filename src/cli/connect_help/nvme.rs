//! NVMe/TCP: nvme-cli on Linux, esxcli on ESXi.

use std::net::SocketAddr;

use super::{Step, System};

/// What to type on each system that can reach one of `addresses`.
pub(super) fn systems(nqn: &str, addresses: &[SocketAddr]) -> Vec<System> {
    let mut systems = vec![System::new("linux", "Linux, as root, with nvme-cli", linux(nqn, addresses))];
    let remote: Vec<_> = addresses.iter().filter(|address| !address.ip().is_loopback()).copied().collect();
    if !remote.is_empty() {
        systems.push(System::new("esxi", "VMware ESXi 7.0 Update 3 or later", esxi(nqn, &remote)));
    }
    systems
}

fn linux(nqn: &str, addresses: &[SocketAddr]) -> Vec<Step> {
    let at = |address: &SocketAddr| format!("-t tcp -a {} -s {}", address.ip(), address.port());
    let each = |verb: &str, rest: &str| -> Vec<String> {
        addresses.iter().map(|address| format!("nvme {verb} {}{rest}", at(address))).collect()
    };
    let first = |verb: &str| each(verb, "").into_iter().take(1).collect();
    vec![
        Step::new("once after boot", ["modprobe nvme-tcp"]),
        Step { what: "what this node offers to this host", commands: first("discover") },
        Step {
            what: if addresses.len() > 1 { "connect, one path per address" } else { "connect" },
            commands: each("connect", &format!(" -n {nqn}")),
        },
        Step { what: "or connect to all targets that let this host in", commands: first("connect-all") },
        Step::new(
            "look, and disconnect",
            ["nvme list".to_owned(), "nvme list-subsys".to_owned(), format!("nvme disconnect -n {nqn}")],
        ),
    ]
}

fn esxi(nqn: &str, addresses: &[SocketAddr]) -> Vec<Step> {
    let at: Vec<_> =
        addresses.iter().map(|address| format!("-i {} -p {}", address.ip(), address.port())).collect();
    let discover = at.iter().take(1).map(|at| format!("esxcli nvme fabrics discover -a vmhba64 {at}"));
    let connect = at.iter().map(|at| format!("esxcli nvme fabrics connect -a vmhba64 {at} -s {nqn}"));
    vec![
        Step::new(
            "once: NVMe/TCP on the storage uplink and its vmkernel port (yours for vmnic1 and vmk1)",
            [
                "esxcli nvme fabrics enable -p TCP -d vmnic1",
                "esxcli network ip interface tag add -i vmk1 -t NVMeTCP",
            ],
        ),
        Step::new("the adapter this made (yours for vmhba64 below)", ["esxcli nvme adapter list"]),
        Step { what: "discover", commands: discover.collect() },
        Step { what: "connect", commands: connect.collect() },
    ]
}

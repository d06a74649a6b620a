//! `ashlar status`: health in one screen.

use std::net::SocketAddr;
use std::process::ExitCode;

use ashlar_cluster::api::{Phase, StatusView};
use ashlar_config::Bytes;

use super::failure::Failure;
use super::output::{age, count, fields, or_dash};
use super::{Global, output};

/// Succeeds only when the node is ready, so that scripts can wait for it.
pub(crate) fn run(global: &Global) -> Result<ExitCode, Failure> {
    let status = global.client().status()?;
    output::show(global.output, &status, table)?;
    let ready = status.node.phase == Phase::Ready;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(status: &StatusView) -> String {
    let (node, counts) = (&status.node, &status.counts);
    let provisioned = Bytes::new(status.capacity.provisioned_bytes).rounded();
    let listen = |addresses: &[SocketAddr]| {
        or_dash(addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    let attention = match status.attention.as_slice() {
        [] => "nothing needs attention".to_owned(),
        sentences => sentences.join("\n"),
    };
    fields(vec![
        ("Node", format!("{}, {}, for {}", node.name, node.phase.as_str(), age(node.uptime_ms))),
        ("Version", format!("{}, {}", node.version, count(node.reactors.into(), "reactor"))),
        ("NVMe/TCP", listen(&node.nvme_listen)),
        ("iSCSI", listen(&node.iscsi_listen)),
        ("Volumes", format!("{}, {provisioned} provisioned", counts.volumes)),
        ("Devices", devices(status)),
        ("Targets", counts.targets.to_string()),
        (
            "Hosts",
            format!(
                "{}; {}, {}, {}",
                counts.hosts,
                count(counts.controllers, "controller"),
                count(counts.sessions, "session"),
                count(counts.connections, "connection")
            ),
        ),
        ("Attention", attention),
    ])
}

/// How many disks there are, and how full they are as far as is known.
fn devices(status: &StatusView) -> String {
    let (number, capacity) = (status.counts.devices, &status.capacity);
    let size = Bytes::new(capacity.device_bytes).rounded();
    match capacity.used_bytes {
        _ if number == 0 => "none".to_owned(),
        Some(used) => format!("{number}, {} of {size} used", Bytes::new(used).rounded()),
        None => format!("{number}, {size}"),
    }
}

//! `ashlar serve`: running a node from its start to a clean end.

mod log;

use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use ashlar_cluster::api::Phase;
use ashlar_cluster::http;
use ashlar_cluster::service::{self, ControlMetrics, ControlPlane};
use ashlar_cluster::state::{Name, Refusal, RefusalKind};
use ashlar_config::Config;
use prometheus_client::registry::Registry;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::node::{CannotListen, NodeMetrics, RunningNode};

/// The control state's file in the data directory.
const CONTROL_FILE: &str = "control.redb";

/// Runs a node until it is told to stop. `embedded`: without a configuration file.
pub(crate) fn run(config: &Config, embedded: bool) -> ExitCode {
    log::start(&config.log);
    match serve(config, embedded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("error: {}: {}", refusal.what, refusal.why);
            for line in [&refusal.not_lost, &refusal.next] {
                if !line.is_empty() {
                    eprintln!("  {line}");
                }
            }
            ExitCode::from(refusal.kind.exit_code())
        }
    }
}

fn serve(config: &Config, embedded: bool) -> Result<(), Refusal> {
    // Before any thread starts, so that none of them gets the signals.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGXFSZ]);
    let mut signals = signals.map_err(|error| failed("watch for signals", &error))?;
    let data = &config.node.data;
    let what = format!("create the data directory {}", data.display());
    std::fs::create_dir_all(data).map_err(|error| failed(&what, &error))?;
    let name = node_name(config)?;
    let (store, state) = service::open(&data.join(CONTROL_FILE), &name)?;
    let api = http::bind(config.api.listen)?;
    let api_address = api.local_addr().unwrap_or(config.api.listen);

    let open_to_all = embedded && config.is_loopback_only();
    let node = RunningNode::start(config, open_to_all, first_session());
    let node = node.map_err(|why| Refusal::new(RefusalKind::Failed, "start the reactors", why))?;
    let mut registry = Registry::default();
    let control_metrics = ControlMetrics::register(&mut registry);
    node.set_metrics(NodeMetrics::new(registry, node.stats().to_vec(), node.scrub_counts()));
    let opened = state.clone();
    let plane = ControlPlane::new(store, state, node.clone(), control_metrics);
    node.connect_control(plane.handle());
    // It runs before devices are opened: to recover a log may have to be written down.
    let (stop, shutdown) = http::shutdown();
    let serving = std::thread::Builder::new().name("control".into());
    let serving = serving.spawn(move || http::serve(api, plane, shutdown));
    let serving = serving.map_err(|error| failed("start the control thread", &error))?;
    node.open_all(&opened);
    let bound = match node.listen(&opened) {
        Ok(bound) => bound,
        Err(failed) => {
            stop.stop();
            let _ = serving.join();
            return Err(cannot_listen(failed));
        }
    };
    node.set_phase(Phase::Ready);
    node.add_configured(&config.devices, embedded);
    let (nvme, iscsi) = (&bound.nvme, &bound.iscsi);
    tracing::info!(node = %name, data = %data.display(), api = %api_address, ?nvme, ?iscsi, "ready");

    let signal = wait_for_the_end(&mut signals);
    tracing::info!(signal, "stopping: no new connections, what is in flight is finished");
    node.drain();
    stop.stop();
    match serving.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the control plane ended badly"),
        Err(_) => tracing::error!("the control thread has panicked"),
    }
    node.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Why a target cannot listen. The reactor has the kernel's text only, so the kernel is asked again.
fn cannot_listen(CannotListen { protocol, address, why }: CannotListen) -> Refusal {
    let what = format!("serve {protocol} on {address}");
    let table = protocol.table();
    match TcpListener::bind(address).map_err(|error| error.kind()) {
        Err(ErrorKind::AddrInUse) => {
            Refusal::new(RefusalKind::InUse, what, "the address is in use: another program listens there")
                .next(format!(
                    "stop it (`ss -ltnp sport = :{}` shows it), or set {table} listen",
                    address.port()
                ))
        }
        Err(ErrorKind::AddrNotAvailable) => {
            Refusal::new(RefusalKind::Invalid, what, "this machine has no such address")
                .next(format!("`ip address` shows those it has; set {table} listen to some of them"))
        }
        Err(ErrorKind::PermissionDenied) => Refusal::new(RefusalKind::Failed, what, "permission denied")
            .next("ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one"),
        _ => Refusal::new(RefusalKind::Failed, what, why),
    }
}

/// Waits for a signal that ends the node, and yields its name.
fn wait_for_the_end(signals: &mut Signals) -> &'static str {
    for signal in signals.forever() {
        match signal {
            SIGTERM => return "SIGTERM",
            SIGINT => return "SIGINT",
            SIGHUP => tracing::warn!(
                "SIGHUP: nothing is reloaded; targets, volumes and hosts are changed with `ashlar`, and the \
                 configuration file is read by a restart"
            ),
            // A write met the limit of file sizes. It fails by itself; the signal must only not kill the node.
            _ => {}
        }
    }
    "the end of signals"
}

fn failed(what: &str, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(RefusalKind::Failed, what, error.to_string())
}

/// The name in the configuration, else the machine's.
fn node_name(config: &Config) -> Result<Name, Refusal> {
    let name = match &config.node.name {
        Some(name) => name.clone(),
        None => {
            std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase()
        }
    };
    let name = name.split('.').next().unwrap_or_default();
    Name::parse(name).map_err(|error| {
        Refusal::new(RefusalKind::Invalid, format!("call this node {name:?}"), error.to_string())
            .next("give it a name: [node] name = \"...\"")
    })
}

/// A number above every session number that this node gave before: the time it started, in microseconds.
fn first_session() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(1)
}

//! `ashlar device`: disks of the node.

use std::path::{Path, PathBuf};

use ashlar_cluster::api::{AddDeviceRequest, DeviceList, DeviceState, DeviceView};
use ashlar_config::Bytes;
use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::{age_since, bytes_or_dash, fields, or_dash};
use super::{Global, operation, output, volume};

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Give the node a disk for log-structured volumes
    Add(Add),
    /// List all devices
    #[command(visible_alias = "ls")]
    List,
    /// Show one device
    Show {
        /// The device: its path on the node, or its UUID
        device: String,
    },
    /// Move what a device holds to the others, and close it; or forget one that is closed
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

#[derive(Args, Debug)]
pub(crate) struct Add {
    /// A block device, or a file
    path: PathBuf,
    /// Make a sparse file of this size, such as 100GiB, unless the file is there
    #[arg(long)]
    size: Option<Bytes>,
    /// Use a disk that holds something; what it holds is lost
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Remove {
    /// The device: its path on the node, or its UUID
    device: String,
    /// Give up what a failed device held and is nowhere else
    #[arg(long)]
    force: bool,
    /// Follow the operation to its end
    #[arg(long)]
    watch: bool,
}

pub(crate) fn run(command: DeviceCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    match command {
        DeviceCommand::Add(add) => add.run(global),
        DeviceCommand::List => output::show(global.output, &client.devices()?, list_table),
        DeviceCommand::Show { device } => {
            output::show(global.output, &client.device(&named(&device)?)?, show_table)
        }
        DeviceCommand::Remove(remove) => remove.run(global),
    }
}

/// What the node is told of a device that a person names: paths as the node has them.
fn named(device: &str) -> Result<String, Failure> {
    if device.contains('/') { volume::absolute(Path::new(device), "device") } else { Ok(device.to_owned()) }
}

impl Add {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let path = volume::absolute(&self.path, "device")?;
        if self.force {
            output::confirm(global.yes, &format!("What {path} holds is lost."))?;
        }
        let request = AddDeviceRequest { path, size_bytes: self.size.map(Bytes::get), force: self.force };
        let device = global.client().add_device(&request)?;
        output::show(global.output, &device, |device| {
            format!("added {}: {}", device.path, Bytes::new(device.size_bytes).rounded())
        })
    }
}

impl Remove {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let client = global.client();
        let device = client.device(&named(&self.device)?)?;
        let path = &device.path;
        let fate = match device.state {
            DeviceState::Active | DeviceState::Draining => "is emptied and closed; volumes go on",
            DeviceState::Failed => "is forgotten, with what it held and is nowhere else",
            DeviceState::Removed => "is forgotten; it holds nothing",
        };
        output::confirm(global.yes, &format!("Device {path} {fate}."))?;
        let Some(started) = client.remove_device(&device.id.to_string(), self.force)? else {
            return output::show(global.output, &device, |device| format!("forgot {}", device.path));
        };
        if self.watch {
            return operation::watch(started.id, global);
        }
        output::show(global.output, &started, |started| {
            format!(
                "operation {} empties {path}; ashlar operation show {} --watch follows it",
                started.id, started.id
            )
        })
    }
}

fn state(device: &DeviceView) -> String {
    match (&device.fault, device.operation) {
        (_, Some(operation)) => format!("{} (operation {operation})", device.state.as_str()),
        (Some(_), None) if device.state == DeviceState::Active => "faulty".to_owned(),
        _ => device.state.as_str().to_owned(),
    }
}

fn list_table(list: &DeviceList) -> String {
    let rows = list.devices.iter().map(|device| {
        [
            device.path.clone(),
            Bytes::new(device.size_bytes).rounded(),
            bytes_or_dash(device.space.used_bytes),
            bytes_or_dash(device.space.free_bytes),
            state(device),
        ]
    });
    output::table(["PATH", "SIZE", "USED", "FREE", "STATE"], &[1, 2, 3], rows.collect())
}

fn show_table(device: &DeviceView) -> String {
    fields(vec![
        ("Path", device.path.clone()),
        ("Size", format!("{} ({} bytes)", Bytes::new(device.size_bytes).rounded(), device.size_bytes)),
        ("Used", bytes_or_dash(device.space.used_bytes)),
        ("Free", bytes_or_dash(device.space.free_bytes)),
        ("State", state(device)),
        ("Fault", or_dash(device.fault.clone().unwrap_or_default())),
        ("Added", age_since(device.added_ms)),
        ("UUID", device.id.to_string()),
    ])
}

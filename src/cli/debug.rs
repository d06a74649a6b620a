//! `ashlar debug`: verifying a stopped store, and printing what is on a device. Both work on the devices themselves,
//! without a node, and only read.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ashlar_config::Bytes;
use ashlar_engine::debug::{self, Found, StoreCheck, What};
use ashlar_engine::ids::{GroupId, SegmentId};
use ashlar_runtime::{
    Device, OpenDevice, OpenError, OpenOptions, ReactorEnv, Runtime, RuntimeConfig, Spin, usable_cores,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::output::{self, count};
use super::{Global, volume};

/// Buffers of the reactor that reads, in bytes.
const BUFFER_BYTES: usize = 16 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Verify a stopped store end to end
    ///
    /// Reads all that is on the devices and verifies every checksum, recovers every group in memory, and reads every
    /// block that a volume or a snapshot holds. Nothing is written. Exits with 1 where something is damaged. A running
    /// node verifies its devices by itself (`[scrub]` in its configuration), and `ashlar status` names what it found.
    Check(Check),
    /// Print what is on a device
    Dump(Dump),
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// A block device or file; all that the node had should be given
    #[arg(long, required = true, value_name = "PATH", num_args = 1..)]
    device: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// A block device or file
    #[arg(long, value_name = "PATH")]
    device: PathBuf,
    #[command(subcommand)]
    what: Structure,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Structure {
    /// Both superblocks
    Superblock,
    /// The epochs below which writers are refused, by group
    Fences,
    /// What each slot holds
    Slots,
    /// Both headers of a slot
    Slot {
        /// Its number
        slot: u32,
    },
    /// What a segment consists of
    Segment {
        /// The segment, as `dump slots` names it
        #[arg(value_name = "GROUP/LANE/SEGMENT", value_parser = segment)]
        segment: (GroupId, u16, SegmentId),
    },
    /// The newest checkpoint of a group's lane
    Checkpoint {
        /// The group and lane
        #[arg(value_name = "GROUP/LANE", value_parser = lane)]
        lane: (GroupId, u16),
    },
    /// A record, batch or checkpoint with all it says
    Record {
        /// The segment, as `dump slots` names it
        #[arg(value_name = "GROUP/LANE/SEGMENT", value_parser = segment)]
        segment: (GroupId, u16, SegmentId),
        /// Where it begins in the segment, in bytes, as `dump segment` tells
        byte: u32,
    },
}

/// `GROUP/LANE`, the group in hexadecimal.
fn lane(text: &str) -> Result<(GroupId, u16), String> {
    let wrong = || format!("`{text}` is not GROUP/LANE, such as 00c0ffee00c0ffee/0");
    let (group, lane) = text.split_once('/').ok_or_else(wrong)?;
    let group = u64::from_str_radix(group, 16).map_err(|_| wrong())?;
    Ok((GroupId(group), lane.parse().map_err(|_| wrong())?))
}

/// `GROUP/LANE/SEGMENT`, the group in hexadecimal.
fn segment(text: &str) -> Result<(GroupId, u16, SegmentId), String> {
    let wrong = || format!("`{text}` is not GROUP/LANE/SEGMENT, such as 00c0ffee00c0ffee/0/7");
    let (of, number) = text.rsplit_once('/').ok_or_else(wrong)?;
    let (group, lane) = lane(of).map_err(|_| wrong())?;
    Ok((group, lane, SegmentId(number.parse().map_err(|_| wrong())?)))
}

impl From<Structure> for What {
    fn from(structure: Structure) -> Self {
        match structure {
            Structure::Superblock => Self::Superblock,
            Structure::Fences => Self::Fences,
            Structure::Slots => Self::Slots,
            Structure::Slot { slot } => Self::Slot(slot),
            Structure::Segment { segment: (group, lane, segment) } => Self::Segment(group, lane, segment),
            Structure::Checkpoint { lane: (group, lane) } => Self::Checkpoint(group, lane),
            Structure::Record { segment: (group, lane, segment), byte } => {
                Self::Record(group, lane, segment, byte)
            }
        }
    }
}

pub(crate) fn run(command: DebugCommand, global: &Global) -> Result<ExitCode, Failure> {
    match command {
        DebugCommand::Check(check) => check.run(global),
        DebugCommand::Dump(dump) => dump.run().map(|()| ExitCode::SUCCESS),
    }
}

/// Opens a device for reading; then no node can have it.
fn open(path: &Path) -> Result<OpenDevice, Failure> {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    OpenDevice::open(path, options).map_err(|error| {
        let exit = match &error {
            OpenError::NotFound { .. } => Exit::NotFound,
            OpenError::InUse { .. } => Exit::Refused,
            _ => Exit::Failed,
        };
        let help = match exit {
            Exit::Refused => {
                "a store is verified when its node is stopped: nothing may write to it meanwhile"
            }
            _ => "",
        };
        Failure::new(exit, format!("cannot read {error}"), help)
    })
}

/// Runs `act` on a reactor of its own.
fn on_reactor<T: Send + 'static, F: Future<Output = T> + 'static>(
    act: impl FnOnce(ReactorEnv) -> F + Send + 'static,
) -> Result<T, Failure> {
    let failed = |error: String| Failure::new(Exit::Failed, error, "");
    let core = usable_cores().first().copied().unwrap_or(0);
    let config = RuntimeConfig {
        cores: vec![core],
        spin: Spin::NEVER,
        buffer_bytes: BUFFER_BYTES,
        ..RuntimeConfig::default()
    };
    let runtime = Runtime::<()>::start(config).map_err(|error| failed(error.to_string()))?;
    let done = runtime.reactors()[0].call(move |env, _| act(env)).wait();
    done.map_err(|error| failed(error.to_string()))
}

/// The devices, given to the reactor.
fn attach(devices: Vec<(String, OpenDevice)>, env: &ReactorEnv) -> std::io::Result<Vec<(String, Device)>> {
    devices.into_iter().map(|(path, device)| Ok((path, device.attach(env)?))).collect()
}

impl Check {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let mut devices = Vec::new();
        for path in &self.device {
            devices.push((volume::absolute(path, "device")?, open(path)?));
        }
        let checked = on_reactor(move |env| async move {
            let devices = attach(devices, &env)?;
            Ok::<_, std::io::Error>(debug::check(&env, devices).await)
        })?;
        let report = checked.map_err(|error| Failure::new(Exit::Failed, error, ""))?;
        output::show(global.output, &as_json(&report), |_| as_text(&report))?;
        Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Dump {
    fn run(self) -> Result<(), Failure> {
        let device = open(&self.device)?;
        let what = What::from(self.what);
        let dumped = on_reactor(move |env| async move {
            let device = device.attach(&env).map_err(|error| (Exit::Failed, error.to_string()))?;
            debug::dump(&device, what).await.map_err(|error| {
                let exit = match &error {
                    debug::DumpError::NotThere(_) => Exit::NotFound,
                    _ => Exit::Failed,
                };
                (exit, error.to_string())
            })
        })?;
        output::print(&dumped.map_err(|(exit, why)| Failure::new(exit, why, ""))?)
    }
}

fn as_json(report: &StoreCheck) -> Value {
    let devices = report.devices.iter().map(|device| {
        json!({
            "path": device.path, "device": device.device, "slots": device.slots, "chunks": device.chunks,
            "bytes": device.bytes, "records": device.whole,
        })
    });
    let groups = report.groups.iter().map(|group| {
        json!({
            "group": group_name(group.group), "opened": group.opened, "volumes": group.volumes,
            "snapshots": group.snapshots, "blocks": group.blocks, "pages": group.pages, "replayed": group.replayed,
        })
    });
    let found = |found: &Found| {
        json!({
            "device": found.device, "group": found.group.map(group_name), "volume": found.volume.map(|id| id.0),
            "snapshot": found.snapshot, "block": found.block, "segment": found.segment, "byte": found.byte,
            "what": found.what,
        })
    };
    json!({
        "sound": report.is_sound(),
        "devices": devices.collect::<Vec<_>>(),
        "groups": groups.collect::<Vec<_>>(),
        "damages": report.damages.iter().map(found).collect::<Vec<_>>(),
        "notes": report.notes.iter().map(found).collect::<Vec<_>>(),
    })
}

fn group_name(group: GroupId) -> String {
    format!("{:016x}", group.0)
}

fn as_text(report: &StoreCheck) -> String {
    let mut lines = Vec::new();
    for device in &report.devices {
        lines.push(format!(
            "device {}: {} of {} in use, {}, {} verified",
            device.path,
            device.chunks,
            count(device.slots.into(), "slot"),
            count(device.whole, "record"),
            Bytes::new(device.bytes).rounded()
        ));
    }
    for group in &report.groups {
        let state = if group.opened { "" } else { ", not to be recovered" };
        lines.push(format!(
            "group {}: {}, {}, {}, {}, {} replayed{state}",
            group_name(group.group),
            count(group.volumes, "volume"),
            count(group.snapshots, "snapshot"),
            count(group.blocks, "block"),
            count(group.pages, "page"),
            count(group.replayed, "operation"),
        ));
    }
    lines.extend(report.notes.iter().map(|found| format!("note: {}", found_line(found))));
    lines.extend(report.damages.iter().map(|found| format!("damaged: {}", found_line(found))));
    lines.push(match report.damages.len() {
        0 => "nothing is damaged".to_owned(),
        number => format!("{} found", count(number as u64, "damage")),
    });
    lines.join("\n")
}

/// One thing that was found: where, then what.
fn found_line(found: &Found) -> String {
    let mut places = Vec::new();
    places.extend(found.device.clone());
    places.extend(found.group.map(|group| format!("group {}", group_name(group))));
    places.extend(found.volume.map(|volume| format!("volume {}", volume.0)));
    places.extend(found.snapshot.map(|snapshot| format!("snapshot {snapshot}")));
    places.extend(found.block.map(|block| format!("block {block}")));
    places.extend(found.segment.map(|segment| format!("segment {segment}")));
    places.extend(found.byte.map(|byte| format!("byte {byte}")));
    format!("{}: {}", places.join(", "), found.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_named_as_they_are_printed() {
        assert_eq!(segment("00c0ffee/0/7"), Ok((GroupId(0xC0_FFEE), 0, SegmentId(7))));
        assert_eq!(lane("11/2"), Ok((GroupId(0x11), 2)));
        for wrong in ["", "7", "x/0/7", "1/2", "1/2/3/4", "1/70000/3"] {
            assert!(segment(wrong).is_err(), "{wrong}");
        }
    }
}

//! `ashlar snapshot`: cuts of groups.

use ashlar_cluster::api::{DiffView, ExtentView, SnapshotList, SnapshotView};
use ashlar_cluster::client::Client;
use ashlar_cluster::state::{SnapshotVolumeName, VolumeName, in_group};
use ashlar_config::Bytes;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::output::{age_since, bytes_or_dash, count, fields, or_dash};
use super::{Global, output};

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Cut a group: all its volumes as they are at one moment
    Create {
        /// Its name: GROUP@SNAPSHOT
        snapshot: String,
    },
    /// List snapshots, the oldest of each group first
    #[command(visible_alias = "ls")]
    List {
        /// The group; by default all
        group: Option<String>,
    },
    /// Show one snapshot
    Show {
        /// The snapshot: GROUP@SNAPSHOT
        snapshot: String,
    },
    /// Tell where volumes changed since a snapshot, or between two
    Diff(Diff),
    /// Put a group's volumes back to its latest snapshot; what was written since is lost
    Restore(Restore),
    /// Delete a snapshot; volumes stay as they are
    #[command(visible_alias = "rm")]
    Delete {
        /// The snapshot: GROUP@SNAPSHOT
        snapshot: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The earlier moment: GROUP@SNAPSHOT, or GROUP@SNAPSHOT/VOLUME for one volume only
    from: String,
    /// The later moment: GROUP@SNAPSHOT; by default now
    to: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The snapshot: GROUP@SNAPSHOT
    snapshot: String,
    /// Even while volumes are attached; no host may have them mounted
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(command: SnapshotCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    match command {
        SnapshotCommand::Create { snapshot } => {
            let snapshot = client.create_snapshot(&snapshot)?;
            output::show(global.output, &snapshot, |snapshot| {
                format!("created {} of {}", snapshot.name, count(snapshot.volumes.len() as u64, "volume"))
            })
        }
        SnapshotCommand::List { group } => {
            output::show(global.output, &client.snapshots(group.as_deref())?, list_table)
        }
        SnapshotCommand::Show { snapshot } => {
            output::show(global.output, &client.snapshot(&snapshot)?, show_table)
        }
        SnapshotCommand::Diff(diff) => diff.run(&client, global),
        SnapshotCommand::Restore(restore) => restore.run(global),
        SnapshotCommand::Delete { snapshot } => delete(&snapshot, global),
    }
}

impl Restore {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let client = global.client();
        let snapshot = client.snapshot(&self.snapshot)?;
        let volumes: Vec<&str> = snapshot.volumes.iter().map(|held| held.volume.as_str()).collect();
        let what = format!(
            "What was written to {} since {} is lost.",
            volumes.join(", "),
            age_since(snapshot.created_ms)
        );
        output::confirm(global.yes, &what)?;
        let snapshot = client.restore_snapshot(&self.snapshot, self.force)?;
        output::show(global.output, &snapshot, |snapshot| {
            format!("{} are as in {} again", volumes.join(", "), snapshot.name)
        })
    }
}

fn delete(name: &str, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    let snapshot = client.snapshot(name)?;
    output::confirm(global.yes, &format!("Snapshot {name} is deleted; its volumes stay as they are."))?;
    client.delete_snapshot(name)?;
    output::show(global.output, &snapshot, |snapshot| match snapshot.exclusive_bytes {
        Some(bytes) => format!("deleted {name}; {} come back", Bytes::new(bytes).rounded()),
        None => format!("deleted {name}"),
    })
}

/// What `diff --output json` prints.
#[derive(Serialize)]
struct Differences {
    volumes: Vec<DiffView>,
}

impl Diff {
    fn run(self, client: &Client, global: &Global) -> Result<(), Failure> {
        let wrong = |error| Failure::new(Exit::Usage, error, "write GROUP@SNAPSHOT or GROUP@SNAPSHOT/VOLUME");
        let from: SnapshotVolumeName = self.from.parse().map_err(wrong)?;
        let snapshot = from.snapshot.to_string();
        let volumes = match &from.volume {
            Some(volume) => vec![volume.to_string()],
            None => held(&client.snapshot(&snapshot)?),
        };
        let mut all = Differences { volumes: Vec::new() };
        for volume in volumes {
            all.volumes.push(whole(client, &snapshot, self.to.as_deref(), &volume)?);
        }
        output::show(global.output, &all, diff_text)
    }
}

/// The names, within their group, of the volumes that a snapshot holds.
fn held(snapshot: &SnapshotView) -> Vec<String> {
    let names = snapshot.volumes.iter().filter_map(|held| VolumeName::parse(&held.volume).ok());
    names.map(|name| in_group(&name).to_owned()).collect()
}

/// The difference of one volume, asked for part by part.
fn whole(client: &Client, from: &str, to: Option<&str>, volume: &str) -> Result<DiffView, Failure> {
    let mut whole = client.diff(from, to, Some(volume), 0)?;
    while let Some(offset) = whole.next_offset_bytes {
        let part = client.diff(from, to, Some(volume), offset)?;
        // A node that does not get on must not keep this going for ever.
        whole.next_offset_bytes = part.next_offset_bytes.filter(|next| *next > offset);
        whole.extents.extend(part.extents);
    }
    Ok(whole)
}

fn diff_text(all: &Differences) -> String {
    let mut rows = Vec::new();
    for diff in &all.volumes {
        for ExtentView { offset_bytes, length_bytes } in &diff.extents {
            rows.push([diff.volume.clone(), offset_bytes.to_string(), length_bytes.to_string()]);
        }
    }
    let mut text = output::table(["VOLUME", "OFFSET", "LENGTH"], &[1, 2], rows);
    for diff in &all.volumes {
        let changed = diff.extents.iter().fold(0_u64, |sum, extent| sum.saturating_add(extent.length_bytes));
        let extents = count(diff.extents.len() as u64, "extent");
        text.push_str(&format!("\n{}: {} in {extents}", diff.volume, Bytes::new(changed).rounded()));
    }
    text
}

fn list_table(list: &SnapshotList) -> String {
    let rows = list.snapshots.iter().map(|snapshot| {
        [
            snapshot.name.clone(),
            age_since(snapshot.created_ms),
            snapshot.volumes.len().to_string(),
            bytes_or_dash(snapshot.exclusive_bytes),
            bytes_or_dash(snapshot.shared_bytes),
            or_dash(snapshot.clones.join(", ")),
        ]
    });
    let header = ["NAME", "CREATED", "VOLUMES", "EXCLUSIVE", "SHARED", "CLONES"];
    output::table(header, &[2, 3, 4], rows.collect())
}

fn show_table(snapshot: &SnapshotView) -> String {
    let volumes = snapshot
        .volumes
        .iter()
        .map(|held| format!("{} ({})", held.volume, Bytes::new(held.size_bytes).rounded()));
    fields(vec![
        ("Name", snapshot.name.clone()),
        ("Created", age_since(snapshot.created_ms)),
        ("Volumes", volumes.collect::<Vec<_>>().join("\n")),
        ("Clones", or_dash(snapshot.clones.join("\n"))),
        ("Exclusive", bytes_or_dash(snapshot.exclusive_bytes)),
        ("Shared", bytes_or_dash(snapshot.shared_bytes)),
        ("Number", snapshot.id.to_string()),
    ])
}

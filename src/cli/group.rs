//! `ashlar group`: volumes that are cut together, and how they are stored.

use ashlar_cluster::api::{Compression, GroupList, UpdateGroupRequest, VolumeGroupView};
use ashlar_config::Bytes;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::{bytes_or_dash, fields, or_dash, space_rows};
use super::{Global, output};

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List all groups
    #[command(visible_alias = "ls")]
    List,
    /// Show one group
    Show {
        /// The group
        group: String,
    },
    /// Change how what is written to a group from now on is stored
    Set(Set),
}

#[derive(Args, Debug)]
pub(crate) struct Set {
    /// The group
    group: String,
    /// How blocks are compressed
    #[arg(long, value_name = "HOW", required = true, value_parser = compression())]
    compress: Compression,
}

/// Reads the word for a way to compress.
pub(crate) fn compression() -> impl TypedValueParser<Value = Compression> {
    const ALL: [Compression; 2] = [Compression::None, Compression::Lz4];
    PossibleValuesParser::new(ALL.map(Compression::as_str)).map(|word| {
        let found = ALL.into_iter().find(|compression| compression.as_str() == word);
        found.expect("clap lets only these words through")
    })
}

pub(crate) fn run(command: GroupCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    match command {
        GroupCommand::List => output::show(global.output, &client.groups()?, list_table),
        GroupCommand::Show { group } => output::show(global.output, &client.group(&group)?, show_table),
        GroupCommand::Set(Set { group, compress }) => {
            let request = UpdateGroupRequest { compression: Some(compress) };
            let group = client.update_group(&group, &request)?;
            output::show(global.output, &group, |group| {
                format!("{} is now compressed with: {}", group.name, group.compression.as_str())
            })
        }
    }
}

/// How many copies there are to be, and whether there are fewer.
fn copies(group: &VolumeGroupView) -> String {
    if group.degraded { format!("{}, degraded", group.copies) } else { group.copies.to_string() }
}

fn list_table(list: &GroupList) -> String {
    let rows = list.groups.iter().map(|group| {
        [
            group.name.clone(),
            group.volumes.len().to_string(),
            Bytes::new(group.size_bytes).rounded(),
            group.snapshots.to_string(),
            group.compression.as_str().to_owned(),
            copies(group),
            bytes_or_dash(group.space.logical_bytes),
            bytes_or_dash(group.space.physical_bytes),
        ]
    });
    let header = ["NAME", "VOLUMES", "SIZE", "SNAPSHOTS", "COMPRESSION", "COPIES", "LOGICAL", "PHYSICAL"];
    output::table(header, &[1, 2, 3, 6, 7], rows.collect())
}

fn show_table(group: &VolumeGroupView) -> String {
    let mut rows = vec![
        ("Name", group.name.clone()),
        ("Volumes", or_dash(group.volumes.join("\n"))),
        ("Size", Bytes::new(group.size_bytes).rounded()),
        ("Snapshots", group.snapshots.to_string()),
        ("Compression", group.compression.as_str().to_owned()),
        ("Copies", copies(group)),
        ("ANA group", group.ana_group_id.to_string()),
    ];
    rows.extend(space_rows(&group.space));
    fields(rows)
}

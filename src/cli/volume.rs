//! `ashlar volume`: virtual disks.

use std::path::{Path, PathBuf};

use ashlar_cluster::api::{
    Backing, Compression, CreateVolumeRequest, UpdateVolumeRequest, VolumeList, VolumeView,
};
use ashlar_config::Bytes;
use clap::{ArgGroup, Args, Subcommand};

use super::failure::{Exit, Failure};
use super::output::{age_since, bytes_or_dash, fields, or_dash, space_rows};
use super::{Global, group, output};

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Create a volume
    ///
    /// It is kept on the node's devices, with snapshots, clones and space that comes back, unless --image, --memory or
    /// --null says otherwise.
    #[command(override_usage = "ashlar volume create [OPTIONS] <NAME> <--size <SIZE>|--image <PATH>>")]
    Create(Create),
    /// Make a volume from what a snapshot holds; it shares what neither has written since
    Clone {
        /// What is cloned: GROUP@SNAPSHOT/VOLUME, or GROUP@SNAPSHOT where the snapshot holds one volume
        from: String,
        /// The new volume's name; it is put into the snapshot's group
        name: String,
    },
    /// List all volumes
    #[command(visible_alias = "ls")]
    List,
    /// Show one volume
    Show {
        /// The volume
        volume: String,
    },
    /// Change the size of a volume; attached hosts see it at once
    Resize(Resize),
    /// Rename a volume; attached hosts do not notice
    Rename {
        /// The volume
        volume: String,
        /// Its new name
        to: String,
    },
    /// Delete a volume that is attached nowhere
    #[command(visible_alias = "rm")]
    Delete {
        /// The volume
        volume: String,
    },
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("backing").args(["image", "memory", "null"])))]
pub(crate) struct Create {
    /// Its name, or group/name; alone it gets a group of its own name
    name: String,
    /// Put it into this group: the same as a name of GROUP/NAME
    #[arg(long)]
    group: Option<String>,
    /// Serve an existing file or block device of the node as it is, in its whole size
    #[arg(long, value_name = "PATH")]
    image: Option<PathBuf>,
    /// Keep the data in the node's memory; lost when the node stops
    #[arg(long)]
    memory: bool,
    /// Keep no data: writes are thrown away and reads return zeros; for measurements
    #[arg(long)]
    null: bool,
    /// Its size, such as 10GiB (2^30 bytes each), 10G (the same) or 1.5TB (10^12 bytes each)
    #[arg(long, conflicts_with = "image", required_unless_present = "image")]
    size: Option<Bytes>,
    /// Reserve its whole size on the devices at once
    #[arg(long, conflicts_with = "backing")]
    thick: bool,
    /// Compress what is written to its group; by default as the group does, or not at all
    #[arg(long, value_name = "HOW", conflicts_with = "backing", value_parser = group::compression())]
    compress: Option<Compression>,
    /// Keep everything of its group on so many devices; by default as the group does, or on one. Fixed with the group's
    /// first volume
    #[arg(long, value_name = "N", conflicts_with = "backing", value_parser = clap::value_parser!(u8).range(1..=3))]
    copies: Option<u8>,
    /// Logical block size in bytes: 512 or 4096; by default the image's own, or 512
    #[arg(long, value_name = "BYTES", value_parser = block_size)]
    block_size: Option<u32>,
    /// Hosts may only read
    #[arg(long)]
    read_only: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Resize {
    /// The volume
    volume: String,
    /// Its new size, such as 10GiB or 1.5TB
    #[arg(long)]
    size: Bytes,
    /// Allow the new size to be smaller, which loses what is beyond it
    #[arg(long)]
    shrink: bool,
}

fn block_size(text: &str) -> Result<u32, String> {
    match text.parse::<Bytes>().map(Bytes::get) {
        Ok(512) => Ok(512),
        Ok(4096) => Ok(4096),
        _ => Err("blocks are 512 or 4096 bytes".to_owned()),
    }
}

pub(crate) fn run(command: VolumeCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    match command {
        VolumeCommand::Create(create) => {
            let volume = client.create_volume(&create.request()?)?;
            output::show(global.output, &volume, |volume| format!("created {}", sentence(volume)))
        }
        VolumeCommand::Clone { from, name } => {
            let clone = client.clone_volume(&from, &name)?;
            output::show(global.output, &clone, |clone| format!("cloned {from} to {}", sentence(clone)))
        }
        VolumeCommand::List => output::show(global.output, &client.volumes()?, list_table),
        VolumeCommand::Show { volume } => output::show(global.output, &client.volume(&volume)?, show_table),
        VolumeCommand::Resize(resize) => resize.run(global),
        VolumeCommand::Rename { volume, to } => {
            let request = UpdateVolumeRequest { name: Some(to), ..UpdateVolumeRequest::default() };
            let renamed = client.update_volume(&volume, &request)?;
            output::show(global.output, &renamed, |renamed| format!("renamed {volume} to {}", renamed.name))
        }
        VolumeCommand::Delete { volume } => delete(&volume, global),
    }
}

impl Create {
    fn request(self) -> Result<CreateVolumeRequest, Failure> {
        let backing = match &self.image {
            Some(path) => Backing::Image { path: absolute(path, "image")? },
            None if self.memory => Backing::Memory,
            None if self.null => Backing::Null,
            None => Backing::Log { thick: self.thick },
        };
        let name = match self.group {
            Some(group) if self.name.contains('/') => {
                let summary = format!("the name {} says its group, and --group {group} another", self.name);
                return Err(Failure::new(Exit::Usage, summary, "leave one of them out"));
            }
            Some(group) => format!("{group}/{}", self.name),
            None => self.name,
        };
        Ok(CreateVolumeRequest {
            name,
            backing,
            size_bytes: self.size.map(Bytes::get),
            block_size_bytes: self.block_size,
            read_only: self.read_only,
            compression: self.compress,
            copies: self.copies,
        })
    }
}

/// The path as the node must name it: the node runs in another directory. Links are kept, since what they
/// point to may change (`/dev/disk/by-id`).
pub(crate) fn absolute(path: &Path, what: &str) -> Result<String, Failure> {
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format_args!("cannot use the {what} {}: {why}", path.display()), "")
    };
    let absolute = std::path::absolute(path).map_err(|error| refuse(&error))?;
    absolute.into_os_string().into_string().map_err(|_| refuse(&"its path is not UTF-8"))
}

impl Resize {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let client = global.client();
        let old = Bytes::new(client.volume(&self.volume)?.size_bytes);
        if self.shrink && self.size < old {
            let what = format!(
                "Volume {} shrinks from {old} to {}, and what is beyond is lost.",
                self.volume, self.size
            );
            output::confirm(global.yes, &what)?;
        }
        let request = UpdateVolumeRequest {
            size_bytes: Some(self.size.get()),
            allow_shrink: self.shrink,
            ..UpdateVolumeRequest::default()
        };
        let volume = client.update_volume(&self.volume, &request)?;
        output::show(global.output, &volume, |volume| {
            format!("resized {} from {old} to {}", volume.name, Bytes::new(volume.size_bytes))
        })
    }
}

fn delete(name: &str, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    let volume = client.volume(name)?;
    let fate = match &volume.backing {
        Backing::Image { path } => format!("its image {path} stays as it is"),
        Backing::Memory => "its data is lost".to_owned(),
        Backing::Log { .. } => "its data is lost".to_owned(),
        Backing::Null => "it holds no data".to_owned(),
    };
    output::confirm(global.yes, &format!("Volume {name} is deleted; {fate}."))?;
    client.delete_volume(name)?;
    output::show(global.output, &volume, |_| format!("deleted {name}; {fate}"))
}

/// One volume in a sentence.
fn sentence(volume: &VolumeView) -> String {
    let access = if volume.read_only { ", read-only" } else { "" };
    format!(
        "{}: {}, blocks of {}, {}{access}",
        volume.name,
        Bytes::new(volume.size_bytes),
        Bytes::new(volume.block_size_bytes.into()),
        backing(&volume.backing)
    )
}

fn backing(backing: &Backing) -> String {
    match backing {
        Backing::Image { path } => format!("image {path}"),
        Backing::Log { thick: false } => "log".to_owned(),
        Backing::Log { thick: true } => "log, thick".to_owned(),
        Backing::Memory => "memory".to_owned(),
        Backing::Null => "null".to_owned(),
    }
}

/// Targets with the volume's number in each.
fn attached(volume: &VolumeView) -> Vec<String> {
    volume.attached.iter().map(|place| format!("{}:{}", place.target, place.nsid)).collect()
}

fn state(volume: &VolumeView) -> &str {
    match &volume.fault {
        Some(_) => "faulty",
        None if volume.read_only => "read-only",
        None => "ok",
    }
}

fn list_table(list: &VolumeList) -> String {
    let rows = list.volumes.iter().map(|volume| {
        [
            volume.name.clone(),
            Bytes::new(volume.size_bytes).rounded(),
            volume.block_size_bytes.to_string(),
            backing(&volume.backing),
            bytes_or_dash(volume.space.logical_bytes),
            bytes_or_dash(volume.space.stored_bytes),
            bytes_or_dash(volume.space.shared_bytes),
            bytes_or_dash(volume.space.compressed_bytes),
            bytes_or_dash(volume.space.physical_bytes),
            state(volume).to_owned(),
            or_dash(attached(volume).join(", ")),
        ]
    });
    let header = [
        "NAME",
        "SIZE",
        "BLOCK",
        "BACKING",
        "LOGICAL",
        "STORED",
        "SHARED",
        "COMPRESSED",
        "PHYSICAL",
        "STATE",
        "ATTACHED",
    ];
    output::table(header, &[1, 2, 4, 5, 6, 7, 8], rows.collect())
}

fn show_table(volume: &VolumeView) -> String {
    let mut rows = vec![
        ("Name", volume.name.clone()),
        ("Group", volume.group.clone()),
        ("Size", format!("{} ({} bytes)", Bytes::new(volume.size_bytes).rounded(), volume.size_bytes)),
        ("Block size", Bytes::new(volume.block_size_bytes.into()).to_string()),
        ("Backing", backing(&volume.backing)),
        ("State", state(volume).to_owned()),
        ("Attached", or_dash(attached(volume).join("\n"))),
        ("Snapshots", volume.snapshots.to_string()),
        ("Cloned from", or_dash(volume.origin.clone().unwrap_or_default())),
        ("Created", age_since(volume.created_ms)),
        ("UUID", volume.id.to_string()),
    ];
    rows.extend(space_rows(&volume.space));
    if let Some(fault) = &volume.fault {
        rows.push(("Fault", fault.clone()));
    }
    if let Some(io) = &volume.io {
        let size = |bytes| Bytes::new(bytes).rounded();
        rows.push(("Reads", format!("{} ({})", io.reads, size(io.read_bytes))));
        rows.push(("Writes", format!("{} ({})", io.writes, size(io.written_bytes))));
        rows.push(("Flushes", io.flushes.to_string()));
        rows.push(("Deallocates", io.deallocates.to_string()));
        rows.push(("I/O errors", io.errors.to_string()));
    }
    fields(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_paths_are_made_absolute_and_links_kept() {
        assert_eq!(absolute(Path::new("/dev/disk/by-id/x"), "image").unwrap(), "/dev/disk/by-id/x");
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            absolute(Path::new("disk.raw"), "image").unwrap(),
            here.join("disk.raw").to_str().unwrap()
        );
        assert!(absolute(Path::new(""), "image").is_err());
    }

    #[test]
    fn block_sizes_are_the_two_that_hosts_take() {
        assert_eq!(block_size("512"), Ok(512));
        assert_eq!(block_size("4KiB"), Ok(4096));
        assert!(block_size("1024").is_err());
        assert!(block_size("4KB").is_err());
    }
}

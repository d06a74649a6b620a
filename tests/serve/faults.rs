//! Disks that change or fill up under a node: the volume concerned says so, the node lives on.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use ashlar_cluster::state::Backing;
use ashlar_nvmeof::wire::Status;

use super::node::{Node, Place, volume};

const MIB: u64 = 1 << 20;

#[test]
fn an_image_that_shrank_or_went_is_a_fault_and_the_others_are_served() {
    let place = Place::new();
    let node = place.start();
    let images = ["shrunk", "gone", "fine"].map(|name| place.image(name, MIB));
    for (name, image) in ["shrunk", "gone", "fine"].iter().zip(&images) {
        node.image(name, image);
    }
    node.target("vm", &["shrunk", "gone", "fine"]);
    node.stop();
    File::options().write(true).open(&images[0]).unwrap().set_len(MIB / 2).unwrap();
    std::fs::remove_file(&images[1]).unwrap();

    let node = place.start();
    let (code, said) = node.cli(&["volume", "show", "shrunk"]);
    let bytes = |n: u64| n.to_string();
    assert!(code == 0 && said.contains(&bytes(MIB / 2)) && said.contains(&bytes(MIB)), "{said}");
    let (code, said) = node.cli(&["volume", "show", "gone"]);
    assert!(code == 0 && said.contains("there is no such file"), "{said}");
    let attention = node.client.status().unwrap().attention;
    assert!(attention.iter().any(|line| line.contains("shrunk")), "{attention:?}");
    let mut host = node.connect("vm");
    let block = host.controller.namespace(3).unwrap().block_bytes;
    assert_eq!(host.write(3, 0, &vec![3; block as usize]), Status::SUCCESS);
    assert_eq!(host.read(3, 0, block), vec![3; block as usize]);
    for nsid in [1, 2] {
        assert!(host.controller.namespace(nsid).is_err());
    }
    // The image is whole again: a restart serves it.
    File::options().write(true).open(&images[0]).unwrap().set_len(MIB).unwrap();
    drop(host);
    node.stop();
    let node = place.start();
    assert_eq!(node.client.volume("shrunk").unwrap().fault, None);
    assert_eq!(node.connect("vm").controller.namespace(1).unwrap().blocks * u64::from(block), MIB);
    node.stop();
}

/// Writes whole blocks of a volume whose disk is full from `full_at` on, and sees Capacity Exceeded (generic 81h)
/// there. What was written before stays; other volumes and the control plane live on.
fn assert_full_is_survived(mut node: Node, image: &Path, full_at: u64) {
    let block = node.image("disk", image).block_size_bytes;
    node.client.create_volume(&volume("ram", Backing::Memory, Some(MIB))).unwrap();
    node.target("vm", &["disk", "ram"]);
    let mut host = node.connect("vm");
    let data = vec![0x5A; block as usize];
    let full_at = full_at / u64::from(block);
    let before = full_at.saturating_sub(300);
    let fits = (before..full_at).take_while(|&lba| host.write(1, lba, &data) == Status::SUCCESS).count();
    assert!(fits > 0);
    for lba in [full_at, full_at + 100] {
        let status = host.write(1, lba, &data);
        assert_eq!((status.sct(), status.sc()), (0, 0x81), "{status:?}");
    }
    let other = vec![0xA5; block as usize];
    assert_eq!(host.write(1, before, &other), Status::SUCCESS);
    assert_eq!(host.flush(1), Status::SUCCESS);
    assert_eq!(host.read(1, before, block), other);
    let other_block = host.controller.namespace(2).unwrap().block_bytes as usize;
    assert_eq!(host.write(2, 0, &data[..other_block]), Status::SUCCESS);
    node.assert_well();
    node.client.create_volume(&volume("another", Backing::Null, Some(MIB))).unwrap();
    assert_eq!(
        node.client.volume("disk").unwrap().io.unwrap().errors,
        2 + u64::from((fits as u64) < full_at - before)
    );
    drop(host);
    node.stop();
}

/// The kernel also sends SIGXFSZ here, which kills a process that does not expect it.
#[test]
fn a_file_at_the_limit_of_file_sizes_is_capacity_exceeded() {
    let place = Place::new();
    let image = place.image("disk.raw", 24 * MIB);
    let plain = place.command();
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--fsize={}", 16 * MIB)).arg(plain.get_program()).args(plain.get_args());
    assert_full_is_survived(place.start_as(limited), &image, 16 * MIB);
}

/// A small tmpfs, unmounted when dropped.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    /// `None` where this process may not mount.
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let option = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &option, "ashlar-test"]).arg(at);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(at))
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_file_system_is_capacity_exceeded() {
    let place = Place::new();
    let at = place.path("small");
    let Some(mounted) = Tmpfs::mount(&at, "1m") else {
        eprintln!("not tested: mounting a tmpfs needs root");
        return;
    };
    let image = place.image("small/disk.raw", 4 * MIB);
    assert_full_is_survived(place.start(), &image, MIB);
    drop(mounted);
}

//! Log-structured volumes as a running node takes or refuses them.

use std::fs;

use ashlar_cluster::api::RefusalKind;
use ashlar_cluster::state::Backing;

use super::node::{Place, volume};

#[test]
fn a_volume_without_a_device_is_refused_with_the_way_out() {
    let place = Place::new();
    let mut node = place.start();
    let (code, said) = node.cli(&["volume", "create", "db", "--size", "100GiB"]);
    assert_eq!(code, 4, "{said}");
    for part in ["no device for log-structured volumes", "nothing was changed", "ashlar device add"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let refused = node.client.create_volume(&volume("db", Backing::Log { thick: true }, Some(1 << 30)));
    assert_eq!(refused.unwrap_err().refusal.kind, RefusalKind::Conflict);
    assert!(node.client.volumes().unwrap().volumes.is_empty());
    node.assert_well();
}

#[test]
fn snapshots_are_of_log_structured_volumes_only() {
    let place = Place::new();
    let node = place.start();
    let image = place.image("disk.raw", 1 << 20);
    node.image("disk", &image);
    let (code, said) = node.cli(&["snapshot", "create", "disk@a"]);
    assert!(code == 4 && said.contains("volume disk is served as it is"), "{said}");
    let (code, said) = node.cli(&["volume", "clone", "disk@a", "copy"]);
    assert!(code == 3 && said.contains("no snapshot disk@a"), "{said}");
    let (code, said) = node.cli(&["group", "set", "disk", "--compress", "lz4"]);
    assert!(code == 4 && said.contains("no log-structured volume"), "{said}");
    let (code, said) = node.cli(&["group", "show", "disk"]);
    assert!(code == 0 && said.contains("Volumes      disk\n"), "{said}");
    // An image cannot be taken for a device.
    let (code, said) = node.cli(&["device", "add", image.to_str().unwrap()]);
    assert!(code == 4 && said.contains("volume disk serves"), "{said}");
}

#[test]
fn a_device_of_the_configuration_that_cannot_be_added_needs_attention() {
    let place = Place::new();
    let text = fs::read_to_string(place.config()).unwrap();
    let gone = place.path("none/disk");
    fs::write(place.config(), format!("{text}[[device]]\npath = {gone:?}\n")).unwrap();
    let mut node = place.start();
    let deadline = std::time::Instant::now() + super::node::PATIENCE;
    let attention = loop {
        let attention = node.client.status().unwrap().attention;
        if !attention.is_empty() || std::time::Instant::now() > deadline {
            break attention;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(attention.len() == 1 && attention[0].contains("none/disk was not added"), "{attention:?}");
    assert!(node.client.devices().unwrap().devices.is_empty());
    node.assert_well();
    node.stop();
}

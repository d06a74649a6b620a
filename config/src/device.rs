//! `[[device]]`: the disks of a node, one table for each.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::keys::list;
use crate::section::{Problems, Section};
use crate::{Bytes, nearest, value};

/// The keys of one device.
pub(crate) const KEYS: [&str; 4] = ["path", "file", "size", "pci"];
/// The most devices of a node.
const DEVICES_MAX: usize = 256;
/// The smallest and the largest file.
const SIZES: (Bytes, Bytes) = (Bytes::from_mib(1 << 10), Bytes::from_mib(1 << 40));

/// A disk for log-structured volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// `path`: a block device, or a file that is there, in its whole size.
    Path(PathBuf),
    /// `file`: a file that is made, sparse, in the given size unless it is there.
    File {
        /// Its path.
        path: PathBuf,
        /// `size`: how large it is made.
        size: Bytes,
    },
}

impl Device {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::File { path, .. } => path,
        }
    }
}

/// Reads all devices of a file. Reports what is wrong with each.
pub(crate) fn read_all<'a>(root: &DeTable<'a>, problems: &Problems<'a>) -> Vec<Device> {
    let Some((key, value)) = root.get_key_value("device") else { return Vec::new() };
    let form = || Some("write [[device]] on a line of its own for each disk, and its keys below".to_owned());
    let Some(array) = value.get_ref().as_array() else {
        let message = "`device` is a list of tables, one for each disk";
        problems.add(key.span(), message.to_owned(), form());
        return Vec::new();
    };
    if array.len() > DEVICES_MAX {
        let message = format!("there are {} devices, the most is {DEVICES_MAX}", array.len());
        problems.add(key.span(), message, None);
        return Vec::new();
    }
    let mut devices: Vec<(Device, Range<usize>)> = Vec::new();
    for element in array.iter() {
        let Some(table) = element.get_ref().as_table() else {
            problems.add(element.span(), "a device is a table of keys, not a value".to_owned(), form());
            continue;
        };
        let Some((device, span)) = read(table, element, problems) else { continue };
        if devices.iter().any(|(other, _)| other.path() == device.path()) {
            let message = format!("{} is a device already", device.path().display());
            problems.add(span.clone(), message, Some("name each disk once".to_owned()));
        }
        devices.push((device, span));
    }
    devices.into_iter().map(|(device, _)| device).collect()
}

/// One device, and where its path stands.
fn read<'a>(
    table: &DeTable<'a>,
    element: &Spanned<DeValue<'a>>,
    problems: &Problems<'a>,
) -> Option<(Device, Range<usize>)> {
    let unknown: Vec<_> = table.iter().filter(|(key, _)| !KEYS.contains(&key.get_ref().as_ref())).collect();
    for (key, _) in &unknown {
        let name = key.get_ref().as_ref();
        let help = nearest(name, KEYS).map_or_else(
            || format!("the keys of [[device]] are {}", list(&KEYS)),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("unknown key `{}` in [[device]]", crate::keys::shown(name));
        problems.add(key.span(), message, Some(help));
    }
    let section = Section::of(table, "device", problems);
    if let Some(span) = section.span("pci") {
        let message = "`device.pci`: this version has no driver of its own for NVMe devices";
        let help = "name the kernel's device instead: path = \"/dev/nvme1n1\"";
        problems.add(span, message.to_owned(), Some(help.to_owned()));
        return None;
    }
    let path = section.read("path", None, |value| value::file(value).map(Some));
    let file = section.read("file", None, |value| value::file(value).map(Some));
    let size = section.read("size", None, |value| value::size(SIZES.0..=SIZES.1)(value).map(Some));
    let (has_path, has_file) = (section.span("path"), section.span("file"));
    match (has_path, has_file) {
        (Some(_), Some(span)) => {
            let message = "a device is either a `path` that is there or a `file` that is made, not both";
            let help = "remove one of them, or write another [[device]]";
            problems.add(span, message.to_owned(), Some(help.to_owned()));
            None
        }
        // Most likely it is what the unknown key was to be.
        (None, None) if !unknown.is_empty() => None,
        (None, None) => {
            let help = "name it: path = \"/dev/nvme1n1\", or file = \"/var/lib/ashlar/disk0\" with a size";
            problems.add(element.span(), "this device has no `path`".to_owned(), Some(help.to_owned()));
            None
        }
        (Some(span), None) => {
            if let Some(span) = section.span("size") {
                let message = "`device.size` is for a `file` that is made; of a `path` all is used";
                problems.add(span, message.to_owned(), Some("remove it".to_owned()));
            }
            Some((Device::Path(path?), span))
        }
        (None, Some(span)) => {
            if section.span("size").is_none() {
                let message = "`device.file` needs a size, in which the file is made";
                problems.add(span.clone(), message.to_owned(), Some("write size = \"100GiB\"".to_owned()));
            }
            Some((Device::File { path: file?, size: size? }, span))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, DEFAULTS};

    #[test]
    fn devices_are_read_in_their_order() {
        let text = "[[device]]\npath = \"/dev/nvme1n1\"\n[[device]]\nfile = \"disk0\"\nsize = \"2GiB\"\n";
        let config = Config::parse("f", text).unwrap();
        let file = Device::File { path: "disk0".into(), size: Bytes::from_mib(2048) };
        assert_eq!(config.devices, [Device::Path("/dev/nvme1n1".into()), file]);
        let inline = "device = [{ path = \"/dev/nvme1n1\" }]";
        assert_eq!(Config::parse("f", inline).unwrap().devices, config.devices[..1]);
        assert_eq!(Config::parse("f", "device = []").unwrap().devices, []);
    }

    /// A date is a wrong value for every key: a key that is never read would not be refused.
    #[test]
    fn every_key_is_read_and_explained() {
        for key in KEYS {
            let text = format!("[[device]]\n{key} = 1979-05-27\n");
            let error = Config::parse("f", &text).expect_err(&text);
            assert!(error.to_string().contains(&format!("`device.{key}`")), "{error}");
            assert!(DEFAULTS.contains(&format!("\n# {key} = ")) || key == "pci", "{key}");
        }
    }

    #[test]
    fn many_devices_are_refused() {
        let text = "[[device]]\npath = \"/dev/x\"\n".repeat(DEVICES_MAX + 1);
        let error = Config::parse("f", &text).unwrap_err().to_string();
        assert!(error.contains("the most is 256"), "{error}");
    }
}

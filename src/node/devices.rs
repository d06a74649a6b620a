//! The devices of the configuration: each is added to the control state once.

use std::path::Path;

use ashlar_cluster::state::{Action, NewDevice, Refusal, RefusalKind};
use ashlar_config::{Bytes, Device};
use uuid::Uuid;

use super::RunningNode;
use super::storage::canonical;

/// An embedded node's file is a multiple of this, and as large at least.
const EMBEDDED_GRANULE: u64 = 1 << 30;

impl RunningNode {
    /// Adds the devices that the control state does not know yet. One that cannot be added is logged and shown by
    /// `ashlar status`; the node serves what it has. `embedded`: the file may be smaller, where less fits.
    pub fn add_configured(&self, devices: &[Device], embedded: bool) {
        for device in devices {
            if let Err(refusal) = self.add_one(device, embedded) {
                let sentence = format!("device {} was not added: {}", device.path().display(), refusal.why);
                tracing::error!(next = refusal.next, "{sentence}");
                self.book.lock().expect("no panic while held").attention.push(sentence);
            }
        }
    }

    fn add_one(&self, device: &Device, embedded: bool) -> Result<(), Refusal> {
        let path = device.path();
        let refuse = |kind, why: String| Refusal::new(kind, format!("add device {}", path.display()), why);
        let found = canonical(path);
        let found = found.map_err(|error| refuse(RefusalKind::NotFound, error.to_string()))?;
        let text = found.to_str().ok_or_else(|| refuse(RefusalKind::Invalid, "it is not UTF-8".into()))?;
        let control = self.control.get().expect("the control plane is there before devices are added");
        // One that was taken out stays out: it may be pulled at any time.
        if control.state().device_at(text).is_some() {
            return Ok(());
        }
        let size = match device {
            Device::File { size, .. } if embedded && !found.exists() => Some(fitting(*size, &found)?),
            Device::File { size, .. } => Some(*size),
            Device::Path(_) => None,
        };
        let new = NewDevice {
            id: Uuid::new_v4(),
            path: text.to_owned(),
            size_bytes: size.map(Bytes::get),
            force: false,
        };
        futures_lite::future::block_on(control.submit(Action::AddDevice(new))).map(drop)
    }
}

/// `size`, or what fits into the file system where `file` is to be, with a tenth left.
fn fitting(size: Bytes, file: &Path) -> Result<Bytes, Refusal> {
    let what = || format!("make the file {}", file.display());
    let folder = file.parent().unwrap_or(Path::new("/"));
    let free = ashlar_runtime::free_bytes(folder)
        .map_err(|error| Refusal::new(RefusalKind::Failed, what(), error.to_string()))?;
    match size.get().min(free / 10 * 9) / EMBEDDED_GRANULE {
        0 => {
            let why = format!("the file system has {} left", Bytes::new(free).rounded());
            Err(Refusal::new(RefusalKind::NoSpace, what(), why)
                .next("free some space, or add a disk: ashlar device add PATH"))
        }
        granules => Ok(Bytes::new(granules * EMBEDDED_GRANULE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedded_file_is_no_larger_than_what_fits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk0");
        let free = ashlar_runtime::free_bytes(folder.path()).unwrap();
        let all = fitting(Bytes::new(u64::MAX), &file).unwrap().get();
        assert!(all < free && all.is_multiple_of(EMBEDDED_GRANULE), "{all} of {free}");
        assert_eq!(fitting(Bytes::from_mib(1024), &file).unwrap(), Bytes::from_mib(1024));
        let refusal = fitting(Bytes::from_mib(1023), &file).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NoSpace);
        assert!(fitting(Bytes::from_mib(1024), &file.join("none")).is_err());
    }
}

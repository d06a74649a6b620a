//! Names of snapshots, and of volumes within them: `group@snapshot`, `group@snapshot/volume`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{Name, NameError, parsed_text, quoted};

/// The name of a snapshot: `group@snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName {
    /// The group it is of.
    pub group: Name,
    /// Its name within the group.
    pub snapshot: Name,
}

/// A volume as a snapshot holds it: `group@snapshot/volume`, or `group@snapshot` where the snapshot holds one volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotVolumeName {
    /// The snapshot.
    pub snapshot: SnapshotName,
    /// The volume's name within its group; that of a volume alone in its group is the group's.
    pub volume: Option<Name>,
}

fn wrong(text: &str, what: &str, why: impl fmt::Display) -> NameError {
    NameError::new(format!("{} is no valid name of a {what}: {why}", quoted(text)))
}

impl SnapshotName {
    /// Checks `text`: `group@snapshot`, each part 1 to 63 of `A-Z a-z 0-9 . _ -`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fail = |why: String| wrong(text, "snapshot", why);
        let Some((group, snapshot)) = text.split_once('@') else {
            return Err(fail("it must look like GROUP@SNAPSHOT".into()));
        };
        if let Some((group, _)) = group.split_once('/')
            && Name::parse(group).is_ok()
        {
            return Err(fail(format!("a snapshot is of a whole group; write {group}@SNAPSHOT")));
        }
        if snapshot.contains('/') {
            return Err(fail("it names a volume in a snapshot; the snapshot ends before the `/`".into()));
        }
        let part = |part: &str| Name::parse(part).map_err(|error| fail(error.to_string()));
        Ok(SnapshotName { group: part(group)?, snapshot: part(snapshot)? })
    }
}

impl SnapshotVolumeName {
    /// Checks `text`: `group@snapshot/volume` or `group@snapshot`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fail = |why: String| wrong(text, "volume in a snapshot", why);
        let Some((group, rest)) = text.split_once('@') else {
            return Err(fail("it must look like GROUP@SNAPSHOT/VOLUME".into()));
        };
        let (snapshot, volume) = match rest.split_once('/') {
            Some((snapshot, volume)) => (snapshot, Some(volume)),
            None => (rest, None),
        };
        let snapshot = SnapshotName::parse(&format!("{group}@{snapshot}"))?;
        let volume = volume.map(|volume| Name::parse(volume).map_err(|error| fail(error.to_string())));
        Ok(SnapshotVolumeName { snapshot, volume: volume.transpose()? })
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.group, self.snapshot)
    }
}

impl fmt::Display for SnapshotVolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.volume {
            Some(volume) => write!(f, "{}/{volume}", self.snapshot),
            None => self.snapshot.fmt(f),
        }
    }
}

macro_rules! as_text {
    ($name:ident) => {
        parsed_text!($name);

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.to_string()
            }
        }
    };
}

as_text!(SnapshotName);
as_text!(SnapshotVolumeName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        let name = SnapshotName::parse("vm42@before-upgrade").unwrap();
        assert_eq!((name.group.as_str(), name.snapshot.as_str()), ("vm42", "before-upgrade"));
        for text in ["vm42@a", "a.b_c-9@2026-11-20"] {
            assert_eq!(SnapshotName::parse(text).unwrap().to_string(), text);
        }
        for (text, volume) in [("vm42@a/boot", Some("boot")), ("vm42@a", None)] {
            let parsed = SnapshotVolumeName::parse(text).unwrap();
            assert_eq!(
                (parsed.to_string().as_str(), parsed.volume.as_ref().map(Name::as_str)),
                (text, volume)
            );
            let json = serde_json::to_string(&parsed).unwrap();
            assert_eq!(serde_json::from_str::<SnapshotVolumeName>(&json).unwrap(), parsed);
        }
    }

    #[test]
    fn wrong_names_are_explained() {
        for (text, why) in [
            ("vm42", "GROUP@SNAPSHOT"),
            ("", "GROUP@SNAPSHOT"),
            ("@a", "empty"),
            ("vm42@", "empty"),
            ("vm42@a@b", "'@'"),
            ("vm42@a b", "' '"),
            ("vm42/boot@a", "write vm42@SNAPSHOT"),
            ("vm42@a/boot", "names a volume"),
        ] {
            let error = SnapshotName::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        for (text, why) in [
            ("vm42/boot", "GROUP@SNAPSHOT/VOLUME"),
            ("vm42@a/", "empty"),
            ("vm42@a/b/c", "'/'"),
            ("vm42@/b", "empty"),
            ("vm42/boot@a", "write vm42@SNAPSHOT"),
        ] {
            let error = SnapshotVolumeName::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        let long = format!("{}@\u{1b}[31m", "x".repeat(1000));
        let error = SnapshotName::parse(&long).unwrap_err().to_string();
        assert!(error.len() < 1000 && !error.contains('\u{1b}'), "{error}");
    }
}

//! Which crate may depend on which: `env` and `codec` on nothing of ours; targets, volumes and the engine on `env`
//! and `codec`; `runtime` and `sim` implement `env`; only the binary names
//! `runtime`.

use crate::Violation;

/// A crate of ours, as Cargo tells of it.
#[derive(Clone, Debug, Default)]
pub struct Package {
    pub name: String,
    /// Its manifest, from the root of the repository.
    pub manifest: String,
    /// The manifest's text.
    pub text: String,
    pub dependencies: Vec<Dependency>,
}

#[derive(Clone, Debug)]
pub struct Dependency {
    pub name: String,
    /// Of tests, examples and benches only.
    pub dev: bool,
}

/// A row of the law.
struct Row {
    name: &'static str,
    /// Crates of ours that it may depend on.
    ours: &'static [&'static str],
    /// The same for its tests and benches, beyond `ours`.
    tests: &'static [&'static str],
    /// It must be deterministic: nothing that makes a system call, keeps a clock or draws a random number.
    pure: bool,
}

const fn row(
    name: &'static str,
    ours: &'static [&'static str],
    tests: &'static [&'static str],
    pure: bool,
) -> Row {
    Row { name, ours, tests, pure }
}

const TABLE: [Row; 12] = [
    row("ashlar-env", &[], &[], true),
    row("ashlar-codec", &[], &[], true),
    row("ashlar-sim", &["ashlar-env"], &[], true),
    row("ashlar-runtime", &["ashlar-env"], &["ashlar-sim"], false),
    row("ashlar-volume", &["ashlar-env", "ashlar-codec"], &["ashlar-sim"], true),
    row("ashlar-engine", &["ashlar-env", "ashlar-codec"], &["ashlar-sim"], true),
    row("ashlar-nvmeof", &["ashlar-env", "ashlar-codec"], &["ashlar-sim", "ashlar-volume"], true),
    row("ashlar-iscsi", &["ashlar-env", "ashlar-codec"], &["ashlar-sim", "ashlar-volume"], true),
    row("ashlar-config", &[], &[], true),
    row("ashlar-cluster", &["ashlar-env"], &["ashlar-sim"], false),
    row(
        "ashlar-perf",
        &["ashlar-codec", "ashlar-config", "ashlar-env", "ashlar-nvmeof", "ashlar-iscsi", "ashlar-volume"],
        // Benches measure the engine on a real reactor.
        &["ashlar-sim", "ashlar-engine", "ashlar-runtime"],
        false,
    ),
    row(
        "ashlar",
        &[
            "ashlar-cluster",
            "ashlar-codec",
            "ashlar-config",
            "ashlar-engine",
            "ashlar-env",
            "ashlar-iscsi",
            "ashlar-nvmeof",
            "ashlar-runtime",
            "ashlar-volume",
        ],
        &["ashlar-sim", "ashlar-perf"],
        false,
    ),
];

/// What a deterministic crate may not depend on, tests included only where they say so themselves.
const IMPURE: [&str; 21] = [
    "async-std",
    "axum",
    "fastrand",
    "getrandom",
    "glommio",
    "glommio-ng",
    "hyper",
    "io-uring",
    "libc",
    "mio",
    "nix",
    "rand",
    "redb",
    "reqwest",
    "rtrb",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tracing-subscriber",
    "ureq",
];

/// What nothing here may depend on.
const NEVER: [&str; 6] = ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys", "spdk-rs"];

pub fn check(packages: &[Package]) -> Vec<Violation> {
    packages.iter().flat_map(|package| check_one(package, packages)).collect()
}

fn check_one(package: &Package, all: &[Package]) -> Vec<Violation> {
    let say = |what: String| Violation::new(&package.manifest, 0, what);
    let Some(row) = TABLE.iter().find(|row| row.name == package.name) else {
        return vec![say(format!("the law does not know the crate {}; see its table", package.name))];
    };
    let mut found = Vec::new();
    for Dependency { name, dev } in &package.dependencies {
        let allowed = row.ours.contains(&name.as_str()) || (*dev && row.tests.contains(&name.as_str()));
        if all.iter().any(|other| other.name == *name) && !allowed {
            found.push(say(format!("{} may not depend on {name}", row.name)));
        }
        if row.pure && !dev && IMPURE.contains(&name.as_str()) {
            found.push(say(format!("{} is deterministic and may not depend on {name}", row.name)));
        }
        if NEVER.contains(&name.as_str()) {
            found.push(say(format!("nothing may depend on {name}")));
        }
    }
    found
}

/// The lints, `unsafe_code = "forbid"` among them, hold in every crate but the one with system calls.
pub fn check_lints(package: &Package) -> Vec<Violation> {
    let inherits = package.text.contains("[lints]\nworkspace = true");
    if inherits || package.name == "ashlar-runtime" {
        return Vec::new();
    }
    vec![Violation::new(&package.manifest, 0, "the lints of the workspace are not inherited")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
        let make = |&(name, dev): &(&str, bool)| Dependency { name: name.to_owned(), dev };
        Package {
            name: name.to_owned(),
            manifest: format!("{name}/Cargo.toml"),
            text: String::new(),
            dependencies: dependencies.iter().map(make).collect(),
        }
    }

    fn count(packages: &[Package]) -> usize {
        check(packages).len()
    }

    #[test]
    fn only_allowed_edges_pass() {
        let all = |dependencies: &[(&str, bool)]| {
            [
                package("ashlar-nvmeof", dependencies),
                package("ashlar-env", &[]),
                package("ashlar-sim", &[]),
                package("ashlar-runtime", &[]),
            ]
        };
        assert_eq!(count(&all(&[("ashlar-env", false), ("zerocopy", false), ("ashlar-sim", true)])), 0);
        assert_eq!(count(&all(&[("ashlar-runtime", false)])), 1);
        assert_eq!(count(&all(&[("ashlar-runtime", true)])), 1);
        assert_eq!(count(&all(&[("ashlar-sim", false)])), 1);
    }

    #[test]
    fn deterministic_crates_have_no_impure_dependencies() {
        assert_eq!(count(&[package("ashlar-env", &[("tokio", false)])]), 1);
        assert_eq!(count(&[package("ashlar-env", &[("tokio", true)])]), 0);
        assert_eq!(count(&[package("ashlar-cluster", &[("tokio", false)])]), 0);
        assert_eq!(count(&[package("ashlar-cluster", &[("openssl", true)])]), 1);
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        assert_eq!(count(&[package("ashlar-new", &[])]), 1);
    }

    #[test]
    fn lints_must_be_inherited() {
        let mut it = package("ashlar-env", &[]);
        assert_eq!(check_lints(&it).len(), 1);
        it.text = "[lints]\nworkspace = true\n".into();
        assert!(check_lints(&it).is_empty());
    }
}

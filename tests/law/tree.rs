//! The repository as the rules see it: its files, and its crates as Cargo tells of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::dependencies::{Dependency, Package};

/// Folders that hold no sources of ours.
const NOT_OURS: [&str; 6] = [".git", "target", "corpus", "artifacts", "coverage", "ashlar-data"];

/// A text file.
pub struct File {
    /// From the root of the repository.
    pub path: String,
    pub text: String,
}

impl File {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// All of it.
pub struct Workspace {
    pub packages: Vec<Package>,
    /// Where Cargo begins to compile.
    pub targets: Vec<String>,
    pub files: Vec<File>,
    /// The names of all files, those of corpora included.
    names: Vec<String>,
}

impl Workspace {
    /// Read once.
    pub fn load() -> &'static Self {
        static LOADED: OnceLock<Workspace> = OnceLock::new();
        LOADED.get_or_init(Self::read)
    }

    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut names = Vec::new();
        list(root, root, &mut names);
        names.sort();
        let is_text = |name: &&String| {
            let in_corpus = name.contains("/corpus/");
            let is_script = name.starts_with("scripts/") || name.starts_with(".ci/");
            !in_corpus && (name.ends_with(".rs") || name.ends_with(".toml") || is_script)
        };
        let read = |path: &String| {
            let text = std::fs::read(root.join(path)).expect("a file of the repository");
            File { path: path.clone(), text: String::from_utf8_lossy(&text).into_owned() }
        };
        let files: Vec<File> = names.iter().filter(is_text).map(read).collect();
        let (packages, mut targets) = metadata(root);
        let of_fuzzing = |file: &&File| {
            let file = file.path.as_str();
            let in_fuzz = file.starts_with("fuzz/") || file.contains("/fuzz/");
            in_fuzz
                && (["fuzz_targets/", "examples/"].iter().any(|at| file.contains(at))
                    || file.ends_with("src/lib.rs"))
        };
        targets.extend(files.iter().filter(of_fuzzing).map(|file| file.path.clone()));
        Self { packages, targets, files, names }
    }

    pub fn sources(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    pub fn rust_texts(&self) -> BTreeMap<String, String> {
        self.sources().map(|file| (file.path.clone(), file.text.clone())).collect()
    }

    pub fn fuzz_manifests(&self) -> impl Iterator<Item = &File> {
        let is_one = |path: &str| path == "fuzz/Cargo.toml" || path.ends_with("/fuzz/Cargo.toml");
        self.files.iter().filter(move |file| is_one(&file.path))
    }

    /// The files below `folder`, relative to it.
    pub fn names_under(&self, folder: &str) -> Vec<String> {
        self.names.iter().filter_map(|name| name.strip_prefix(folder)).map(str::to_owned).collect()
    }
}

fn list(root: &Path, folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        let is_corpus = name == "corpus" && folder.ends_with("fuzz");
        let skip = NOT_OURS.iter().any(|not| name == *not) && !is_corpus;
        if kind.is_dir() && !skip {
            list(root, &path, names);
        } else if kind.is_file() {
            let path = path.strip_prefix(root).expect("below the root");
            names.push(path.to_str().expect("names are ASCII").to_owned());
        }
    }
}

/// The crates, and the files of their targets.
fn metadata(root: &Path) -> (Vec<Package>, Vec<String>) {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let relative = |value: &Value| {
        let path = Path::new(value.as_str().expect("a path"));
        path.strip_prefix(root).expect("below the root").to_str().expect("ASCII").to_owned()
    };
    let all = metadata["packages"].as_array().expect("packages");
    let mut targets = Vec::new();
    let mut packages = Vec::new();
    for package in all {
        let manifest = relative(&package["manifest_path"]);
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        let text = std::fs::read_to_string(root.join(&manifest)).expect("a manifest");
        packages.push(Package {
            name: package["name"].as_str().expect("a name").to_owned(),
            manifest,
            text,
            dependencies: dependencies
                .map(|dependency| Dependency {
                    name: dependency["name"].as_str().expect("a name").to_owned(),
                    dev: dependency["kind"] == "dev",
                })
                .collect(),
        });
        let own = package["targets"].as_array().expect("targets").iter();
        targets.extend(own.map(|target| relative(&target["src_path"])));
    }
    (packages, targets)
}

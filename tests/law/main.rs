//! The law of this repository, as a test: which crate may depend on which, what the deterministic crates must not
//! touch, and how sources are kept. Each rule is a function from text to violations; its unit tests show on small
//! made-up inputs that it can fail.
//!
//! An exception is a comment `law: allows WHAT, because WHY` on the line or the line above, WHAT being the word or
//! path that the violation names.

mod dependencies;
mod fuzzing;
mod paths;
mod reach;
mod scan;
mod text;
mod tree;

use tree::Workspace;

/// A rule broken somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    file: String,
    /// From 1; 0 where it is no single line.
    line: usize,
    what: String,
}

impl Violation {
    fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }
}

/// Fails with all violations at once.
fn none(mut violations: Vec<Violation>) {
    violations.sort();
    let lines: Vec<String> = (violations.iter())
        .map(|violation| format!("{}:{}: {}", violation.file, violation.line, violation.what))
        .collect();
    assert!(violations.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn crates_depend_only_on_what_the_law_allows() {
    none(dependencies::check(&Workspace::load().packages));
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let workspace = Workspace::load();
    none(workspace.packages.iter().flat_map(dependencies::check_lints).collect());
}

#[test]
fn deterministic_crates_touch_no_clock_socket_file_thread_or_hash_map() {
    let workspace = Workspace::load();
    let sources = workspace.sources().filter(|source| paths::is_deterministic(&source.path));
    none(sources.flat_map(|source| paths::check(&source.path, &source.text)).collect());
}

#[test]
fn unsafe_code_is_in_the_runtime_only() {
    let workspace = Workspace::load();
    let sources = workspace.sources().filter(|source| !text::may_be_unsafe(&source.path));
    none(sources.flat_map(|source| text::check_unsafe(&source.path, &source.text)).collect());
}

#[test]
fn sources_are_ascii_short_and_finished() {
    let workspace = Workspace::load();
    let check = |file: &tree::File| {
        let mut found = text::check_ascii(&file.path, &file.text);
        if file.is_rust() {
            found.extend(text::check_length(&file.path, &file.text));
            found.extend(text::check_unfinished(&file.path, &file.text));
        }
        found
    };
    none(workspace.files.iter().flat_map(check).collect());
}

#[test]
fn every_source_file_is_reached_from_a_target() {
    let workspace = Workspace::load();
    none(reach::check(&workspace.targets, &workspace.rust_texts()));
}

#[test]
fn every_fuzz_target_is_listed_and_has_a_corpus() {
    let workspace = Workspace::load();
    let mut found = Vec::new();
    for manifest in workspace.fuzz_manifests() {
        let folder = manifest.path.trim_end_matches("Cargo.toml");
        let names = workspace.names_under(folder);
        found.extend(fuzzing::check(&manifest.path, &manifest.text, &names));
    }
    none(found);
}

//! Every source file belongs to a target: from the targets' files along the `mod` declarations, those with
//! `#[path]` included. A file that nothing declares is not compiled, and nobody notices.

use std::collections::{BTreeMap, BTreeSet};

use crate::Violation;
use crate::scan::{line_of, scan, words};

/// `files` are all Rust files with their texts, by path; `targets` the files where Cargo begins.
pub fn check(targets: &[String], files: &BTreeMap<String, String>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut reached = BTreeSet::new();
    let mut ahead: Vec<(String, bool)> = targets.iter().map(|target| (target.clone(), true)).collect();
    while let Some((path, is_root)) = ahead.pop() {
        let Some(text) = files.get(&path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        for declared in modules(text) {
            let candidates = declared.candidates(&path, is_root);
            match candidates.iter().find(|candidate| files.contains_key(*candidate)) {
                Some(file) => ahead.push((file.clone(), false)),
                None => found.push(Violation::new(&path, declared.line, format!("no file {candidates:?}"))),
            }
        }
    }
    let lost = files.keys().filter(|path| !reached.contains(*path));
    found.extend(lost.map(|path| Violation::new(path, 0, "no `mod` declares this file")));
    found
}

struct Declared {
    name: String,
    /// What `#[path]` says.
    path: Option<String>,
    line: usize,
}

impl Declared {
    /// Where the module's file may be, if it is declared in `file`.
    fn candidates(&self, file: &str, is_root: bool) -> Vec<String> {
        let (folder, own) = file.rsplit_once('/').unwrap_or(("", file));
        if let Some(path) = &self.path {
            return vec![normal(&format!("{folder}/{path}"))];
        }
        let stem = own.trim_end_matches(".rs");
        let folder = if is_root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
        let name = &self.name;
        [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")].map(|path| normal(&path)).into()
    }
}

/// The path without `..`.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "" | "." => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The modules that a source declares without a body.
fn modules(text: &str) -> Vec<Declared> {
    let code = scan(text).code;
    let mut found = Vec::new();
    for at in words(&code, "mod") {
        let after = code[at + 3..].trim_start();
        let Some((name, _)) = after.split_once(';') else { continue };
        let name = name.trim().to_owned();
        if name.is_empty() || !name.bytes().all(crate::scan::is_word) {
            continue;
        }
        let before = text[..at].trim_end().trim_end_matches("pub").trim_end();
        let attribute = before.rsplit_once('\n').map_or(before, |(_, line)| line).trim();
        let path = attribute.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"));
        found.push(Declared { name, path: path.map(str::to_owned), line: line_of(text, at) });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let found = check(&["a/src/lib.rs".to_owned()], &files);
        found.into_iter().map(|violation| violation.file).collect()
    }

    #[test]
    fn modules_are_followed_wherever_they_lie() {
        let files = [
            ("a/src/lib.rs", "pub mod b;\nmod c;\n#[path = \"../../x/y.rs\"]\npub mod z;\nmod inline { }"),
            ("a/src/b.rs", "// mod nothing;\n#[cfg(test)]\nmod tests;"),
            ("a/src/b/tests.rs", ""),
            ("a/src/c/mod.rs", "mod d;"),
            ("a/src/c/d.rs", ""),
            ("x/y.rs", ""),
        ];
        assert_eq!(violations(&files), [""; 0]);
    }

    #[test]
    fn lost_and_missing_files_are_seen() {
        assert_eq!(violations(&[("a/src/lib.rs", ""), ("a/src/b.rs", "")]), ["a/src/b.rs"]);
        assert_eq!(violations(&[("a/src/lib.rs", "mod b;")]), ["a/src/lib.rs"]);
        assert_eq!(
            violations(&[("a/src/lib.rs", "#[path = \"q.rs\"]\nmod b;"), ("a/src/b.rs", "")]).len(),
            2
        );
    }
}

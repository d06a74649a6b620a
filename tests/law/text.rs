//! Rules on text: `unsafe`, ASCII, length, nothing left unfinished.

use crate::Violation;
use crate::scan::{is_allowed, line_of, scan, words};

/// Lines of a source file, at most.
const LINES_MAX: usize = 900;
/// Files that are longer, and why.
const LONGER: [(&str, &str); 0] = [];

/// Where system calls are made. FFI leaves of `dataplane/codec` will join.
const UNSAFE: [&str; 1] = ["dataplane/runtime/"];

pub fn may_be_unsafe(path: &str) -> bool {
    UNSAFE.iter().any(|folder| path.starts_with(folder))
}

pub fn check_unsafe(path: &str, text: &str) -> Vec<Violation> {
    let code = scan(text).code;
    let found = words(&code, "unsafe").map(|at| line_of(text, at));
    found.map(|line| Violation::new(path, line, "`unsafe` outside dataplane/runtime")).collect()
}

pub fn check_ascii(path: &str, text: &str) -> Vec<Violation> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_ascii());
    lines.map(|(at, _)| Violation::new(path, at + 1, "a character that is not ASCII")).collect()
}

pub fn check_length(path: &str, text: &str) -> Vec<Violation> {
    let lines = text.lines().count();
    if lines <= LINES_MAX || LONGER.iter().any(|(file, _)| *file == path) {
        return Vec::new();
    }
    vec![Violation::new(path, 0, format!("{lines} lines, more than {LINES_MAX}"))]
}

/// No `todo!`, no `unimplemented!`, no marks of work to be done.
pub fn check_unfinished(path: &str, text: &str) -> Vec<Violation> {
    let scanned = scan(text);
    let mut found = Vec::new();
    for name in ["todo", "unimplemented"] {
        for at in words(&scanned.code, name) {
            let line = line_of(text, at);
            let called = scanned.code[at + name.len()..].trim_start().starts_with('!');
            if called && !is_allowed(&scanned.comments, line, name) {
                found.push(Violation::new(path, line, format!("`{name}!`")));
            }
        }
    }
    for mark in ["TODO", "FIXME", "XXX"] {
        for at in words(&scanned.comments, mark) {
            found.push(Violation::new(path, line_of(text, at), format!("a comment says {mark}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(violations: &[Violation]) -> Vec<usize> {
        violations.iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn unsafe_is_seen_in_code_only() {
        let text = "#![forbid(unsafe_code)]\n// unsafe\nlet s = \"unsafe\";\nunsafe { f() }\n";
        assert_eq!(lines(&check_unsafe("a.rs", text)), [4]);
        assert!(may_be_unsafe("dataplane/runtime/src/sys.rs") && !may_be_unsafe("dataplane/env/src/buf.rs"));
    }

    #[test]
    fn what_is_not_ascii_is_seen() {
        assert_eq!(lines(&check_ascii("a.rs", "a\nb \u{e4}\nc")), [2]);
    }

    #[test]
    fn long_files_are_seen() {
        assert!(check_length("a.rs", &"x\n".repeat(LINES_MAX)).is_empty());
        assert_eq!(check_length("a.rs", &"x\n".repeat(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn unfinished_work_is_seen() {
        let text = "// TODO: x\nlet todo = \"TODO todo!\"; // fine\ntodo!();\nunimplemented !()\n/* FIXME */";
        let mut found = lines(&check_unfinished("a.rs", text));
        found.sort_unstable();
        assert_eq!(found, [1, 3, 4, 5]);
    }
}

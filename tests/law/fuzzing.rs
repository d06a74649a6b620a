//! Fuzz targets: each file is listed in its manifest, and has a corpus that is small and committed.

use crate::Violation;

/// Inputs of one folder with fuzz targets, at most.
const INPUTS_MAX: usize = 300;

/// Checks one manifest; `names` are the files below its folder, relative to it.
pub fn check(manifest: &str, text: &str, names: &[String]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut say = |what: String| found.push(Violation::new(manifest, 0, what));
    let targets = names.iter().filter_map(|name| name.strip_prefix("fuzz_targets/")?.strip_suffix(".rs"));
    for target in targets {
        if !text.contains(&format!("name = \"{target}\"\n")) {
            say(format!("the fuzz target {target} is not listed"));
        }
        let corpus = format!("corpus/{target}/");
        if !names.iter().any(|name| name.starts_with(&corpus)) {
            say(format!("the fuzz target {target} has no corpus"));
        }
    }
    let listed = text.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    for path in listed {
        let file = format!("fuzz_targets/{}", path.trim_end_matches('"'));
        if !names.contains(&file) {
            say(format!("{file} is listed and missing"));
        }
    }
    let inputs = names.iter().filter(|name| name.starts_with("corpus/")).count();
    if inputs > INPUTS_MAX {
        say(format!("{inputs} inputs, more than {INPUTS_MAX}: keep those that show something"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(names: &[&str]) -> usize {
        let text = "name = \"a\"\npath = \"fuzz_targets/a.rs\"\n";
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        check("fuzz/Cargo.toml", text, &names).len()
    }

    #[test]
    fn each_gap_is_seen() {
        assert_eq!(count(&["fuzz_targets/a.rs", "corpus/a/1"]), 0);
        assert_eq!(count(&["fuzz_targets/a.rs", "corpus/ab/1"]), 1, "no corpus");
        assert_eq!(count(&["fuzz_targets/a.rs", "corpus/a/1", "fuzz_targets/b.rs", "corpus/b/1"]), 1);
        assert_eq!(count(&["corpus/a/1"]), 1, "no file");
        let many: Vec<String> = (0..=INPUTS_MAX).map(|n| format!("corpus/a/{n}")).collect();
        let names: Vec<&str> = many.iter().map(String::as_str).chain(["fuzz_targets/a.rs"]).collect();
        assert_eq!(count(&names), 1, "too many");
    }
}

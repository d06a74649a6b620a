//! Every table and key that a file may have, and what to say about one that it may not.

use toml::de::{DeTable, DeValue};

use crate::device;
use crate::nearest::nearest;
use crate::section::Problems;

/// A table of the file: its dotted path and its keys. Tables within it are keys too.
pub(crate) struct Table {
    pub(crate) path: &'static str,
    pub(crate) keys: &'static [&'static str],
}

/// The whole schema but for `[[device]]`, of which there are many. `node.labels` is not here either: its keys are the
/// user's own.
pub(crate) const TABLES: [Table; 10] = [
    Table { path: "node", keys: &["name", "data", "labels"] },
    Table { path: "reactors", keys: &["cores", "spin"] },
    Table { path: "memory", keys: &["buffers", "map_cache"] },
    Table { path: "scrub", keys: &["rate"] },
    Table { path: "nvmeof", keys: &["listen", "discovery", "advertise", "referrals", "limits"] },
    Table {
        path: "nvmeof.limits",
        keys: &[
            "max_connections",
            "max_connections_per_host",
            "max_controllers",
            "max_handshakes_per_address",
            "handshake_timeout",
            "io_queues",
            "queue_depth",
            "max_transfer",
        ],
    },
    Table { path: "iscsi", keys: &["listen", "advertise", "limits"] },
    Table {
        path: "iscsi.limits",
        keys: &[
            "max_connections",
            "max_sessions",
            "max_sessions_per_host",
            "max_logins_per_address",
            "login_timeout",
            "queue_depth",
        ],
    },
    Table { path: "api", keys: &["listen"] },
    Table { path: "log", keys: &["format", "level"] },
];

/// Reports every key of `root` and of the known tables below it that is not in the schema.
pub(crate) fn report_unknown(root: &DeTable<'_>, problems: &Problems<'_>) {
    let mut top: Vec<&str> =
        TABLES.iter().map(|table| table.path).filter(|path| !path.contains('.')).collect();
    top.push("device");
    for (key, _) in root.iter().filter(|(key, _)| !top.contains(&key.get_ref().as_ref())) {
        let name = key.get_ref().as_ref();
        let help = elsewhere(name)
            .or_else(|| nearest(name, top.iter().copied()).map(|near| format!("did you mean `{near}`?")))
            .unwrap_or_else(|| format!("the tables are {}", list(&top)));
        problems.add(key.span(), format!("unknown table or key `{}`", shown(name)), Some(help));
    }
    for table in &TABLES {
        let Some(found) = descend(root, table.path) else { continue };
        for (key, _) in found.iter().filter(|(key, _)| !table.keys.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref().as_ref();
            let help = elsewhere(name)
                .or_else(|| {
                    nearest(name, table.keys.iter().copied()).map(|near| format!("did you mean `{near}`?"))
                })
                .unwrap_or_else(|| format!("the keys of [{}] are {}", table.path, list(table.keys)));
            problems.add(
                key.span(),
                format!("unknown key `{}` in [{}]", shown(name), table.path),
                Some(help),
            );
        }
    }
}

/// The table at a dotted path, if the file has it and it is a table.
pub(crate) fn descend<'t, 'i>(root: &'t DeTable<'i>, path: &str) -> Option<&'t DeTable<'i>> {
    path.split('.').try_fold(root, |table, key| match table.get(key)?.get_ref() {
        DeValue::Table(inner) => Some(inner),
        _ => None,
    })
}

/// Where a key would be right, when it is a key of some other table.
fn elsewhere(name: &str) -> Option<String> {
    let tables = TABLES.iter().filter(|table| table.keys.contains(&name));
    let mut homes: Vec<String> = tables.map(|table| format!("[{}]", table.path)).collect();
    if device::KEYS.contains(&name) {
        homes.push("[[device]]".to_owned());
    }
    (!homes.is_empty()).then(|| format!("`{name}` belongs in {}", homes.join(" or ")))
}

/// A user's key for a message: short, and on one line.
pub(crate) fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut shown: String = name.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if name.chars().nth(CHARS_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Names in a sentence: `` `a`, `b` and `c` ``.
pub(crate) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, DEFAULTS};

    /// A date is a wrong value for every key, so a key that is in the schema but never read would go
    /// unnoticed here: it would not be refused.
    #[test]
    fn every_key_is_read() {
        for table in &TABLES {
            for key in table.keys {
                let text = format!("[{}]\n{key} = 1979-05-27\n", table.path);
                let error = Config::parse("f", &text).expect_err(&text);
                assert_eq!(error.diagnostics.len(), 1, "{error}");
                assert_eq!(error.diagnostics[0].line, 2, "{error}");
                assert!(error.diagnostics[0].message.contains(&format!("{}.{key}`", table.path)), "{error}");
            }
        }
    }

    #[test]
    fn every_key_is_explained_in_the_defaults() {
        for table in &TABLES {
            let (_, from) = DEFAULTS.split_once(&format!("\n[{}]\n", table.path)).expect(table.path);
            let section = from.split("\n[").next().unwrap();
            for key in table.keys.iter().filter(|key| **key != "limits") {
                let lines = [format!("\n{key} = "), format!("\n# {key} = ")];
                assert!(lines.iter().any(|line| format!("\n{section}").contains(line)), "{key}");
            }
        }
    }

    #[test]
    fn lists_read_as_a_sentence() {
        assert_eq!(list(&["a"]), "`a`");
        assert_eq!(list(&["a", "b", "c"]), "`a`, `b` and `c`");
    }
}

//! What deterministic code must not name: clocks, sockets, files, threads, randomness, and maps whose order is
//! random. Everything it needs of these it is handed through the environment.

use crate::Violation;
use crate::scan::{is_allowed, is_word, line_of, scan, without_tests, words};

/// Sources that the law covers. `cluster`'s other modules are glue.
const DETERMINISTIC: [&str; 9] = [
    "cluster/src/api/",
    "cluster/src/state/",
    "dataplane/codec/src/",
    "dataplane/engine/src/",
    "dataplane/env/src/",
    "dataplane/sim/src/",
    "dataplane/volume/src/",
    "target-iscsi/src/",
    "target-nvmeof/src/",
];

/// Paths, with all below them. `core` and `alloc` count as `std`.
const PATHS: [&str; 20] = [
    "async_std",
    "getrandom",
    "glommio",
    "io_uring",
    "libc",
    "mio",
    "rand",
    "rustix",
    "smol",
    "socket2",
    "std::collections::hash_map",
    "std::collections::hash_set",
    "std::env",
    "std::fs",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// What is left of `std::net`: addresses.
const ADDRESSES: [&str; 8] = [
    "AddrParseError",
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "self",
];

/// Words, wherever they come from.
const WORDS: [&str; 13] = [
    "HashMap",
    "HashSet",
    "RandomState",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixStream",
    "new_v4",
    "now_v7",
    "thread_local",
    "thread_rng",
];

pub fn is_deterministic(path: &str) -> bool {
    let is_other = path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/src/bin/");
    DETERMINISTIC.iter().any(|folder| path.starts_with(folder)) && !is_other
}

pub fn check(path: &str, text: &str) -> Vec<Violation> {
    let scanned = scan(text);
    let code = without_tests(&scanned.code);
    let mut found = Vec::new();
    let mut see = |at: usize, what: &str| {
        let line = line_of(text, at);
        if !is_allowed(&scanned.comments, line, what) {
            found.push(Violation::new(path, line, format!("deterministic code names `{what}`")));
        }
    };
    for word in WORDS {
        words(&code, word).for_each(|at| see(at, word));
    }
    for (at, named) in named_paths(&code) {
        if let Some(forbidden) = forbidden(&named) {
            see(at, forbidden);
        }
    }
    found
}

fn forbidden(named: &str) -> Option<&'static str> {
    let named = match named.split_once("::") {
        Some(("core" | "alloc", rest)) => format!("std::{rest}"),
        _ => named.to_owned(),
    };
    if let Some(item) = named.strip_prefix("std::net::") {
        let item = item.split("::").next().unwrap_or_default();
        return (!ADDRESSES.contains(&item)).then_some("std::net");
    }
    let below = |path: &&str| named == **path || named.starts_with(&format!("{path}::"));
    PATHS.into_iter().find(|path| below(path))
}

/// All paths that the code names, those of `use` with their braces resolved; and where.
fn named_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let bytes = code.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let begins = is_word(bytes[at]) && (at == 0 || !is_word(bytes[at - 1]));
        if !begins {
            at += 1;
            continue;
        }
        at = tree(code, at, "", &mut found).max(at + 1);
    }
    found
}

/// A path, or a tree of paths, that begins at `at`, below `prefix`. Returns where it ends.
fn tree(code: &str, mut at: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let bytes = code.as_bytes();
    let start = at;
    let mut path = prefix.to_owned();
    loop {
        at = skip_blanks(bytes, at);
        if bytes.get(at) == Some(&b'{') && path.ends_with("::") {
            at += 1;
            loop {
                at = skip_blanks(bytes, at);
                match bytes.get(at) {
                    Some(b',') => at += 1,
                    Some(b'}') => return at + 1,
                    Some(byte) if is_word(*byte) || *byte == b'*' || *byte == b'{' => {
                        at = tree(code, at, &path, found).max(at + 1);
                    }
                    _ => return at,
                }
            }
        }
        let end = at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
        path.push_str(&code[at..end]);
        if bytes.get(at) == Some(&b'*') {
            path.push('*');
        }
        let next = skip_blanks(bytes, end);
        if end == at || !code[next..].starts_with("::") {
            found.push((start, path.trim_end_matches("::self").to_owned()));
            // `use a as b`: the new name is no path.
            let renamed = prefix.is_empty() || !code[next..].starts_with("as ");
            return if renamed { end } else { skip_word(bytes, next + 3) };
        }
        path.push_str("::");
        at = next + 2;
    }
}

fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

fn skip_word(bytes: &[u8], at: usize) -> usize {
    let at = skip_blanks(bytes, at);
    at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        check("dataplane/env/src/x.rs", text).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn each_forbidden_thing_is_seen() {
        for text in [
            "use std::fs;",
            "use std::{cell::Cell, fs::{self, File}};",
            "fn f() { std::thread::spawn(g) }",
            "let t = std::time::Instant::now();",
            "use std::time::{Duration, Instant as Clock};",
            "use core::net::TcpStream;",
            "use std::net::{IpAddr, ToSocketAddrs};",
            "use std::net::*;",
            "tokio::spawn(f)",
            "use glommio as g;",
            "use std :: collections :: { BTreeMap , HashMap };",
            "fn f(x: &HashSet<u8>) {}",
            "let id = Uuid::new_v4();",
            "let n = rand::random::<u64>();",
            "use std::env;",
        ] {
            assert!(!names(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_harmless_is_not() {
        for text in [
            "use core::net::{IpAddr, SocketAddr};\nuse std::net::SocketAddr;",
            "use std::time::Duration; use ashlar_env::clock::Instant; Instant::now",
            "// std::fs\nlet s = \"tokio::spawn HashMap\";",
            "use std::{cell::Cell, collections::BTreeMap};",
            "let env = self.env.clone(); thread::x",
            "use std::future::{Future, poll_fn};",
            "#[cfg(test)]\nmod tests { fn f() { std::thread::spawn(g) } }",
            "// law: allows HashMap, because it is never iterated\nlet m: HashMap<u8, u8>;",
        ] {
            assert_eq!(names(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn only_deterministic_sources_are_covered() {
        assert!(
            is_deterministic("target-nvmeof/src/hub/mod.rs") && is_deterministic("cluster/src/state/mod.rs")
        );
        assert!(
            !is_deterministic("dataplane/runtime/src/sys.rs") && !is_deterministic("cluster/src/http/mod.rs")
        );
        assert!(!is_deterministic("target-nvmeof/src/transport/tests.rs"));
        assert!(!is_deterministic("dataplane/sim/src/bin/sim.rs"));
    }
}

//! Whole files: the defaults, the examples, and what is said about wrong ones.
//!
//! Each `tests/errors/NAME.toml` is refused with exactly the text in `NAME.expected`. To accept a changed
//! wording, run with `UPDATE_EXPECTED=1` and read the difference before committing it.

use std::fs;
use std::path::{Path, PathBuf};

use ashlar_config::{Config, DEFAULTS, LoadError};
use proptest::prelude::*;

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn wrong_files_are_refused_with_the_expected_words() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    for path in files("tests/errors", "toml") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let error = Config::parse(name, &text).expect_err(name);
        let said = format!("{error}\n");
        let expected_path = path.with_extension("expected");
        if update {
            fs::write(&expected_path, &said).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        assert_eq!(said, expected, "{name}");
    }
}

#[test]
fn examples_are_accepted() {
    for path in files("examples", "toml") {
        if let Err(error) = Config::load(&path) {
            panic!("{error}");
        }
    }
}

#[test]
fn printed_defaults_are_the_defaults() {
    assert_eq!(Config::parse("defaults.toml", DEFAULTS).unwrap(), Config::default());
    assert_eq!(Config::parse("empty.toml", "").unwrap(), Config::default());
}

/// What stands in the defaults as a comment is valid too.
#[test]
fn commented_defaults_are_keys() {
    let uncommented: String = DEFAULTS
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some("[[device]]") => "[[device]]",
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_ne!(uncommented, DEFAULTS);
    let config = Config::parse("defaults.toml", &uncommented).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.node.name.as_deref(), Some("rack1-a"));
    assert_eq!(config.devices.len(), 2);
}

#[test]
fn a_full_file_is_read_into_its_values() {
    let text = r#"
        nvmeof.listen = ["10.0.0.5:4421", "[fd00::5]:4421"]
        nvmeof.discovery = []
        nvmeof.advertise = ["192.0.2.1", "192.0.2.2:9000", "fd00::9"]
        nvmeof.referrals = ["10.0.0.6:8009", "[fd00::6]:4420"]
        nvmeof.limits.max_transfer = "256K"
        node = { name = "a", labels = { rack = "1" } }
        reactors.cores = 4
    "#;
    let config = Config::parse("node.toml", text).unwrap_or_else(|error| panic!("{error}"));
    let shown: Vec<String> = config.nvmeof.advertise.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["192.0.2.1:4421", "192.0.2.2:9000", "[fd00::9]:4421"]);
    let referrals: Vec<String> = config.nvmeof.referrals.iter().map(ToString::to_string).collect();
    assert_eq!(referrals, ["10.0.0.6:8009", "[fd00::6]:4420"]);
    assert_eq!(config.nvmeof.limits.max_transfer.get(), 256 << 10);
    assert_eq!(config.nvmeof.discovery, []);
    assert_eq!(config.node.labels["rack"], "1");
    assert_eq!(config.reactors.cores, ashlar_config::Cores::Count(4));
    assert_eq!(config.api, Config::default().api);
}

#[test]
fn discovery_opens_only_where_io_does() {
    let discovery = |listen: &str| {
        let text = format!("nvmeof.listen = [{listen}]");
        let config = Config::parse("node.toml", &text).unwrap_or_else(|error| panic!("{error}"));
        config.nvmeof.discovery.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(discovery(r#""10.0.0.5:4420", "10.1.0.5:4420""#), ["10.0.0.5:8009", "10.1.0.5:8009"]);
    assert_eq!(discovery(r#""10.0.0.5:4420", "10.0.0.5:4421""#), ["10.0.0.5:8009"]);
    assert_eq!(discovery(r#""10.0.0.5:8009""#), Vec::<String>::new());
    assert_eq!(discovery(r#""127.0.0.1:0""#), Vec::<String>::new());
}

#[test]
fn files_that_are_no_text_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    assert!(matches!(Config::load(&path), Err(LoadError::Unreadable(..))));
    assert!(matches!(Config::load(folder.path()), Err(LoadError::Unreadable(..))));

    fs::write(&path, b"[node]\nname = \"\xff\"\n").unwrap();
    let Err(LoadError::Refused(error)) = Config::load(&path) else { panic!("accepted") };
    assert_eq!((error.diagnostics[0].line, error.diagnostics[0].column), (2, 9));

    fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    let Err(LoadError::Refused(error)) = Config::load(&path) else { panic!("accepted") };
    assert!(error.to_string().contains("is it the right file?"), "{error}");
}

/// Text that is nearly a configuration, to get past the parser.
fn near_toml() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("[node]".to_owned()),
        Just("[nvmeof.limits]".to_owned()),
        Just("[iscsi.limits]".to_owned()),
        Just("[[nvmeof]]".to_owned()),
        Just("[[device]]".to_owned()),
        "(path|file|size|pci|device|name|cores|spin|buffers|map_cache|rate|listen|advertise|referrals|limits|labels|level|max_transfer) = (\\[\\]|\\{\\}|[0-9]{1,24}|\"[^\"\\\\\n]{0,12}\"|1979-05-27|true|[0-9].[0-9])",
        "(nvmeof|iscsi|node|log|api)\\.(listen|name|level|limits\\.io_queues) = .{0,12}",
        ".{0,20}",
    ];
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_text_is_accepted_or_refused(text in "(?s).{0,200}") {
        let _ = Config::parse("f", &text).map_err(|error| error.to_string());
    }

    #[test]
    fn any_near_configuration_is_accepted_or_refused(text in near_toml()) {
        if let Err(error) = Config::parse("f", &text) {
            let lines = text.lines().count().max(1);
            prop_assert!(error.diagnostics.iter().all(|d| (1..=lines + 1).contains(&d.line)), "{error}");
        }
    }
}

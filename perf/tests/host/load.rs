//! The load generator against a target in this process.

use crate::fake::{Fake, Flaw};
use crate::portal::{self, Portal};
use ashlar_perf::echo;
use ashlar_perf::load::{LoadError, Options, Report, run};
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn load(addr: &str, more: &[&str]) -> Result<Report, LoadError> {
    let fixed = ["load", "--addr", addr, "--nqn", "nqn.2026-01.test:fake", "--warm-up", "0"];
    run(&Cli::parse_from(fixed.iter().chain(more)).options)
}

fn load_iscsi(addr: &str, more: &[&str]) -> Result<Report, LoadError> {
    let fixed = ["load", "--addr", addr, "--iqn", "iqn.2026-01.test:fake", "--warm-up", "0"];
    run(&Cli::parse_from(fixed.iter().chain(more)).options)
}

#[test]
fn a_load_is_counted_and_timed() {
    let fake = Fake::start(Flaw::None);
    let pid = std::process::id().to_string();
    let more =
        ["--seconds", "0.3", "--connections", "2", "--depth", "4", "--mix", "50", "--target-pid", &pid];
    let report = load(&fake.addr, &more).unwrap();
    let (read, write) = (report.read.unwrap(), report.write.unwrap());
    let counted = read.count + write.count;
    assert!(counted > 10 && counted <= fake.commands(), "{counted} of {}", fake.commands());
    assert!((report.iops * report.seconds / counted as f64 - 1.0).abs() < 1e-6);
    assert!((report.bytes_per_second / report.iops / 4096.0 - 1.0).abs() < 1e-6);
    assert!(0.0 < read.p50_us && read.p50_us <= read.p99_us && read.p99_us <= read.max_us);
    assert!(report.target_cores.unwrap() > 0.0);
    assert_eq!((report.sectors_verified, report.reconnects), (0, 0));
}

#[test]
fn right_data_are_verified() {
    let fake = Fake::start(Flaw::None);
    for more in [
        &["--mix", "50", "--depth", "8", "--zero-percent", "20", "--flush-every", "7"][..],
        &["--mix", "30", "--depth", "2", "--block-size", "64KiB", "--pattern", "seq", "--digest"],
        &["--mix", "50", "--depth", "3", "--block-size", "512B", "--connections", "3", "--flow-control"],
    ] {
        let report = load(&fake.addr, &[&["--verify", "--seconds", "0.2"], more].concat()).unwrap();
        assert!(report.sectors_verified > 0, "{more:?}");
    }
}

#[test]
fn a_lost_write_is_found() {
    let fake = Fake::start(Flaw::LostWrite);
    let error = load(&fake.addr, &["--verify", "--mix", "0", "--seconds", "0.3"]).unwrap_err();
    assert!(matches!(error, LoadError::Data(_)), "{error}");
}

#[test]
fn a_flipped_bit_is_found_without_digests() {
    let fake = Fake::start(Flaw::BitFlip);
    let error = load(&fake.addr, &["--verify", "--mix", "50", "--seconds", "0.3"]).unwrap_err();
    assert!(matches!(error, LoadError::Data(_)), "{error}");
}

#[test]
fn lost_connections_are_survived_with_the_data_intact() {
    let fake = Fake::start(Flaw::Hangs);
    let more = ["--verify", "--mix", "40", "--depth", "4", "--seconds", "0.5", "--survive-reconnect", "10"];
    let report = load(&fake.addr, &more).unwrap();
    assert!(report.reconnects > 0 && report.sectors_verified > 0, "{report}");
}

#[test]
fn a_lost_connection_ends_the_load_unless_it_may_reconnect() {
    let fake = Fake::start(Flaw::Hangs);
    let error = load(&fake.addr, &["--seconds", "10"]).unwrap_err();
    assert!(matches!(error, LoadError::Client(_)), "{error}");
}

#[test]
fn an_iscsi_load_is_counted_and_its_sessions_end_in_order() {
    let portal = Portal::start(portal::Flaw::None);
    let more = ["--seconds", "0.3", "--connections", "2", "--depth", "16", "--mix", "50"];
    let report = load_iscsi(&portal.addr, &more).unwrap();
    let counted = report.read.unwrap().count + report.write.unwrap().count;
    assert!(counted > 10 && counted <= portal.commands(), "{counted} of {}", portal.commands());
    assert_eq!((portal.logouts(), portal.pongs()), (2, 2));
}

#[test]
fn right_data_are_verified_over_iscsi() {
    let portal = Portal::start(portal::Flaw::None);
    for more in [
        &["--mix", "50", "--depth", "8", "--zero-percent", "20", "--flush-every", "7"][..],
        &["--mix", "30", "--depth", "2", "--block-size", "64KiB", "--pattern", "seq", "--digest"],
        &["--mix", "50", "--depth", "3", "--block-size", "32KiB", "--connections", "3", "--initial-r2t"],
        &["--mix", "50", "--depth", "3", "--no-immediate-data", "--digest"],
    ] {
        let report = load_iscsi(&portal.addr, &[&["--verify", "--seconds", "0.2"], more].concat()).unwrap();
        assert!(report.sectors_verified > 0, "{more:?}");
    }
}

#[test]
fn wrong_data_are_found_over_iscsi() {
    for (flaw, mix) in [(portal::Flaw::LostWrite, "0"), (portal::Flaw::BitFlip, "50")] {
        let portal = Portal::start(flaw);
        let error = load_iscsi(&portal.addr, &["--verify", "--mix", mix, "--seconds", "0.3"]).unwrap_err();
        assert!(matches!(error, LoadError::Data(_)), "{error}");
    }
}

#[test]
fn lost_sessions_are_survived_with_the_data_intact() {
    let portal = Portal::start(portal::Flaw::Hangs);
    let more = ["--verify", "--mix", "40", "--depth", "4", "--seconds", "0.5", "--survive-reconnect", "10"];
    let report = load_iscsi(&portal.addr, &more).unwrap();
    assert!(report.reconnects > 0 && report.sectors_verified > 0, "{report}");
}

#[test]
fn the_protocol_must_be_chosen_once() {
    for given in [&["load"][..], &["load", "--nqn", "a", "--iqn", "b"]] {
        assert!(Cli::try_parse_from(given).is_err(), "{given:?}");
    }
}

#[test]
fn impossible_loads_are_refused() {
    let fake = Fake::start(Flaw::None);
    for (more, why) in [
        (&["--block-size", "1000B"][..], "not whole blocks"),
        (&["--block-size", "256KiB"], "more than one command moves"),
        (&["--depth", "4096"], "queue entries"),
        (&["--verify", "--span", "16KiB"], "too few to verify"),
        (&["--span", "1KiB"], "hold no block"),
    ] {
        let error = load(&fake.addr, more).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn the_echo_answers_reads_and_writes() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || echo::serve(&listener, true));
    for more in [&["--mix", "50"][..], &["--mix", "50", "--block-size", "128KiB", "--connections", "3"]] {
        let report = load(&addr, &[&["--raw-echo", "--seconds", "0.2"], more].concat()).unwrap();
        assert!(report.read.unwrap().count > 0 && report.write.unwrap().count > 0);
    }
}

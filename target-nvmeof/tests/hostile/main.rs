//! What a host, a broken host or an attacker can send, against the real server in the simulator: deterministic, in
//! virtual time, so that waiting costs nothing.
//!
//! The numbers are those of the project's list of hostile inputs for NVMe/TCP. In every case three witnesses (another
//! host on another volume, another host on the same volume, the same host by other connections) write and read what
//! they wrote, and must see no error and wait no longer than a second for anything. After every case the media are as before, a host from the same
//! address can connect and read, and connections, controllers, tasks and buffers are as many as before.
//!
//! Waiting for what the target does not speak yet:
//!
//! | Cases | What | Wait for |
//! |---|---|---|
//! | N23, N24 | malformed, stale, reflected and unfinished authentication messages | DH-HMAC-CHAP |
//! | N25 | commands before authentication, queues that skip it | DH-HMAC-CHAP |
//! | N30 | plaintext, wrong keys and identities, alerts and stalls in the handshake | TLS |
//!
//! Until then authentication commands are refused (01h), Connect never asks for authentication, and the discovery
//! log says that there is no secure channel; unit tests of the hub say so.

mod bench;
#[path = "../common/bytes.rs"]
mod bytes;
mod commands;
mod cut;
mod life;
mod lists;
mod pdus;
#[path = "../common/raw.rs"]
mod raw;
mod rows;
mod scenes;

#[test]
fn handshake() {
    bench::run(1, |arena| rows::run(arena, pdus::HANDSHAKE));
}

#[test]
fn data_that_nobody_asked_for() {
    bench::run(2, |arena| rows::run(arena, pdus::DATA));
}

#[test]
fn digests() {
    bench::run(3, |arena| rows::run(arena, pdus::DIGESTS));
}

#[test]
fn capsules() {
    bench::run(4, |arena| rows::run(arena, pdus::CAPSULES));
}

#[test]
fn types_of_pdus() {
    bench::run(5, |arena| rows::run(arena, pdus::TYPES));
}

#[test]
fn admin_commands() {
    bench::run(6, |arena| rows::run(arena, commands::ADMIN));
}

#[test]
fn io_commands() {
    bench::run(7, |arena| rows::run(arena, commands::IO));
}

#[test]
fn connects() {
    bench::run(8, scenes::connects);
}

#[test]
fn floods() {
    bench::run(9, scenes::floods);
}

#[test]
fn fused_commands() {
    bench::run(10, scenes::fused);
}

#[test]
fn controllers_and_queues() {
    bench::run(12, life::controllers);
}

#[test]
fn long_lists() {
    bench::run(13, lists::lists);
}

#[test]
fn reservations_at_their_limits() {
    bench::run(14, lists::registrants);
}

#[test]
fn connections_cut_off() {
    bench::run(15, cut::connections);
}

#[test]
fn slow_and_vanishing_hosts() {
    bench::run(11, scenes::slow);
}

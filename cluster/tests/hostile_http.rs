//! What a broken or malicious client may send to the API's port, and that others go on meanwhile.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use ashlar_cluster::api::ErrorBody;
use ashlar_cluster::http::{BODY_BYTES_MAX, CONNECTIONS_MAX};
use common::Server;

/// The status code and the explanation of a reply.
#[track_caller]
fn refused(reply: &str) -> (u16, ErrorBody) {
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {reply:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {reply}"));
    (status, body)
}

#[test]
fn bad_bodies_are_explained() {
    let server = Server::start();
    for (body, why) in [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[1,2", "invalid type"),
        ("[\"a\"", "no JSON"),
        ("null", "invalid type"),
        ("{\"backing\":{\"type\":\"memory\"}}", "missing field `name`"),
        ("{\"name\":1,\"backing\":{\"type\":\"memory\"}}", "invalid type: integer"),
        ("{\"name\":\"a\",\"backing\":{\"type\":\"floppy\"}}", "unknown variant `floppy`"),
        ("{\"name\":\"a\",\"backing\":{\"type\":\"memory\"},\"siez\":1}", "unknown field `siez`"),
        ("{\"name\":\"a\",\"backing\":{\"type\":\"memory\"},\"size_bytes\":-1}", "-1"),
        (
            "{\"name\":\"a\",\"backing\":{\"type\":\"memory\"},\"size_bytes\":99999999999999999999999}",
            "invalid type",
        ),
        ("{\"name\":\"a\",\"name\":\"b\",\"backing\":{\"type\":\"memory\"}}", "duplicate field"),
        ("{\"name\":\"\\ud800\"}", "no JSON"),
    ] {
        let (status, error) = refused(&server.json("POST", "/v1/volumes", body));
        assert_eq!(status, 400, "{body}");
        assert!(error.error.why.contains(why), "{body}: {error:?}");
        assert_eq!(error.error.what, "POST /v1/volumes");
    }
    let deep = "[".repeat(30_000);
    assert_eq!(refused(&server.json("POST", "/v1/volumes", &deep)).0, 400);
    assert_eq!(refused(&server.json("POST", "/v1/volumes", "\u{0}")).0, 400);
    assert!(server.control.state().volumes().is_empty());
}

#[test]
fn bodies_of_another_type_are_refused() {
    let server = Server::start();
    let body = "{\"name\":\"a\",\"size_bytes\":512,\"backing\":{\"type\":\"memory\"}}";
    // What a form on a web page can send without asking.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/plain;application/json",
    ] {
        let reply = server.raw(format!(
            "POST /v1/volumes HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(refused(&reply).0, 415, "{kind}");
    }
    assert!(server.control.state().volumes().is_empty());
    assert!(server.json("POST", "/v1/volumes", body).starts_with("HTTP/1.1 201"));
}

#[test]
fn large_bodies_are_refused_announced_or_not() {
    let server = Server::start();
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX));
    let (status, error) = refused(&server.json("POST", "/v1/hosts", &large));
    assert_eq!(status, 413);
    assert!(error.error.why.contains("65536 bytes"), "{error:?}");

    // Announced as 8 EiB, and not one byte of it sent.
    let head = "POST /v1/hosts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let reply = server.raw(format!("{head}content-length: 9223372036854775807\r\n\r\n"));
    assert_eq!(refused(&reply).0, 413);

    // In chunks, with the end never in sight.
    let mut stream = server.connect();
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..64 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"HTTP/1.1 413");
}

#[test]
fn heads_are_bounded() {
    let server = Server::start();
    let long_header =
        format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    assert!(server.raw(long_header).starts_with("HTTP/1.1 431"));
    let many: String = (0..200).map(|i| format!("x{i}: y\r\n")).collect();
    assert!(
        server
            .raw(format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"))
            .starts_with("HTTP/1.1 431")
    );
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(20_000));
    let reply = server.raw(long_path);
    assert!(reply.starts_with("HTTP/1.1 414") || reply.starts_with("HTTP/1.1 431"), "{reply}");
}

#[test]
fn nonsense_is_refused_and_the_server_lives() {
    let server = Server::start();
    for bytes in [
        &b"\x00\x00\x00\x00"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/hosts HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/1.1\r\n host: localhost\r\n\r\n",
        &[0xff; 40_000],
    ] {
        let reply = server.raw(bytes);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
    }
    assert!(server.client().status().is_ok());
}

#[test]
fn other_paths_and_methods_are_explained() {
    let server = Server::start();
    for path in
        ["/", "/v1", "/v1/volumes/a/b", "/v1/../v1/status", "//v1/status", "/v1/volumes/%2e%2e/%2e%2e"]
    {
        let (status, error) = refused(&server.json("GET", path, ""));
        assert_eq!(status, 404, "{path}");
        assert!(error.error.next.contains("openapi"), "{error:?}");
    }
    for (method, path) in [("DELETE", "/v1/volumes"), ("PUT", "/v1/status"), ("BREW", "/healthz")] {
        let (status, error) = refused(&server.json(method, path, ""));
        assert_eq!(status, 405, "{method} {path}");
        assert!(error.error.why.contains("method"), "{error:?}");
    }
    // Not UTF-8 once decoded.
    assert_eq!(refused(&server.json("GET", "/v1/volumes/%ff%fe", "")).0, 400);
    assert_eq!(refused(&server.json("DELETE", "/v1/targets/t?force=maybe", "")).0, 400);
    assert_eq!(refused(&server.json("DELETE", "/v1/targets/t?fource=true", "")).0, 400);
}

#[test]
fn a_name_that_was_made_to_point_at_loopback_does_not_reach_it() {
    let server = Server::start();
    let reply =
        server.raw("GET /v1/status HTTP/1.1\r\nhost: rebound.example:7070\r\nconnection: close\r\n\r\n");
    assert_eq!(refused(&reply).0, 421);
}

#[test]
fn slow_clients_are_cut_off_and_hold_nobody_up() {
    let server = Server::start();
    let mut silent = server.connect();
    let mut slow_head = server.connect();
    slow_head.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").unwrap();
    let mut slow_body = server.connect();
    slow_body
        .write_all(
            b"POST /v1/hosts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        )
        .unwrap();
    // Kept alive after a request, and then left idle.
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();

    let start = Instant::now();
    assert!(server.client().status().is_ok());
    assert!(start.elapsed() < Duration::from_secs(2));

    let mut reply = String::new();
    idle.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    for stream in [&mut silent, &mut slow_head] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    }
    let mut reply = [0; 12];
    slow_body.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"HTTP/1.1 408");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn a_flood_of_connections_is_bounded_and_passes() {
    let server = Server::start();
    let flood: Vec<_> = (0..CONNECTIONS_MAX + 20).map(|_| server.connect()).collect();
    // All places are taken by clients that say nothing; they are cut off, and then it is our turn.
    let start = Instant::now();
    assert!(server.client().status().is_ok());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop(flood);
    let start = Instant::now();
    assert!(server.client().status().is_ok());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

//! The API through its client: every request, every refusal's exit code, restarts.

mod common;

use std::time::{Duration, Instant};

use ashlar_cluster::api::*;
use ashlar_cluster::client::{ClientError, EXIT_NO_NODE};
use ashlar_cluster::http;
use ashlar_cluster::state::{Action, ChapSecret, VolumeId};
use common::{Server, block_on};

fn memory(name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        backing: Backing::Memory,
        size_bytes: Some(1 << 20),
        block_size_bytes: None,
        read_only: false,
        compression: None,
        copies: None,
    }
}

fn image(name: &str, path: &str) -> CreateVolumeRequest {
    let backing = Backing::Image { path: path.into() };
    CreateVolumeRequest { backing, size_bytes: None, ..memory(name) }
}

fn target(name: &str) -> CreateTargetRequest {
    CreateTargetRequest { name: name.into(), ..Default::default() }
}

fn attach(volume: &str) -> AttachVolumeRequest {
    AttachVolumeRequest { volume: volume.into(), nsid: None }
}

fn host(name: &str) -> CreateHostRequest {
    let nqn = Some(format!("nqn.2014-08.org.example:{name}"));
    CreateHostRequest { name: name.into(), nqn, ..Default::default() }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(
    reply: Result<T, ClientError>,
    exit_code: u8,
    kind: RefusalKind,
) -> ClientError {
    let error = reply.expect_err("must be refused");
    assert_eq!((error.exit_code, error.refusal.kind), (exit_code, kind), "{error:?}");
    assert!(!error.refusal.what.is_empty() && !error.refusal.why.is_empty(), "{error:?}");
    error
}

#[test]
fn volumes_from_creation_to_deletion() {
    let server = Server::start();
    let client = server.client();
    let created = client.create_volume(&memory("shop/db")).unwrap();
    assert_eq!((created.name.as_str(), created.group.as_str()), ("shop/db", "shop"));
    assert_eq!((created.size_bytes, created.block_size_bytes), (1 << 20, 512));
    assert_eq!(created.io.unwrap().reads, 3);
    assert_eq!(client.volume("shop/db").unwrap(), created);
    client.create_volume(&memory("a")).unwrap();
    let names: Vec<_> = client.volumes().unwrap().volumes.into_iter().map(|volume| volume.name).collect();
    assert_eq!(names, ["a", "shop/db"]);

    let larger = UpdateVolumeRequest { size_bytes: Some(1 << 21), ..Default::default() };
    assert_eq!(client.update_volume("shop/db", &larger).unwrap().size_bytes, 1 << 21);
    let smaller = UpdateVolumeRequest { size_bytes: Some(1 << 20), ..Default::default() };
    refused(client.update_volume("shop/db", &smaller), 4, RefusalKind::Conflict);
    let allowed = UpdateVolumeRequest { allow_shrink: true, ..smaller };
    assert_eq!(client.update_volume("shop/db", &allowed).unwrap().size_bytes, 1 << 20);
    let renamed = UpdateVolumeRequest { name: Some("shop/data".into()), ..Default::default() };
    let renamed = client.update_volume("shop/db", &renamed).unwrap();
    assert_eq!((renamed.name.as_str(), renamed.id), ("shop/data", created.id));
    let both = UpdateVolumeRequest { size_bytes: Some(512), name: Some("x".into()), allow_shrink: true };
    refused(client.update_volume("shop/data", &both), 2, RefusalKind::Invalid);
    refused(client.update_volume("shop/data", &UpdateVolumeRequest::default()), 2, RefusalKind::Invalid);

    client.delete_volume("shop/data").unwrap();
    refused(client.delete_volume("shop/data"), 3, RefusalKind::NotFound);
    refused(client.volume("shop/data"), 3, RefusalKind::NotFound);
}

#[test]
fn the_node_completes_and_refuses_images() {
    let server = Server::start();
    let client = server.client();
    let lab = client.create_volume(&image("lab", "/srv/disk.raw")).unwrap();
    assert_eq!((lab.size_bytes, lab.block_size_bytes), (1 << 30, 512));
    let error = refused(client.create_volume(&image("gone", "/srv/none.raw")), 3, RefusalKind::NotFound);
    assert_eq!(error.refusal.what, "create volume gone");
    refused(client.create_volume(&image("full", "/full/disk.raw")), 1, RefusalKind::NoSpace);
    let body = "{\"name\":\"full\",\"backing\":{\"type\":\"image\",\"path\":\"/full/disk.raw\"}}";
    assert!(server.json("POST", "/v1/volumes", body).starts_with("HTTP/1.1 507"));
    // The state machine's refusals come before the node has opened anything ...
    refused(client.create_volume(&image("lab", "/srv/none.raw")), 4, RefusalKind::Exists);
    refused(client.create_volume(&image("lab2", "/srv/disk.raw")), 4, RefusalKind::InUse);
    assert_eq!(server.notes().prepared, 4);
    // ... and what it had opened is closed when they come after.
    let odd = CreateVolumeRequest { block_size_bytes: Some(4096), ..image("odd", "/srv/odd.raw") };
    server.notes().images.insert("/srv/odd.raw".into(), 512 * 3);
    refused(client.create_volume(&odd), 2, RefusalKind::Invalid);
    let notes = server.notes();
    assert_eq!((notes.prepared, notes.abandoned), (5, 1));
    assert_eq!(notes.open.iter().collect::<Vec<_>>(), ["/srv/disk.raw"]);
}

#[test]
fn targets_from_creation_to_deletion() {
    let server = Server::start();
    let client = server.client();
    for name in ["db", "logs"] {
        client.create_volume(&memory(name)).unwrap();
    }
    client.create_host(&host("esx1")).unwrap();
    let created = client.create_target(&target("vmware")).unwrap();
    assert_eq!(created.nqn, "nqn.2026-11.io.ashlar:vmware");
    assert_eq!(created.serial.len(), 20);
    assert!(!created.any_host && created.hosts.is_empty());

    client.attach_volume("vmware", &attach("db")).unwrap();
    let attached = client.attach_volume("vmware", &attach("logs")).unwrap();
    let numbers: Vec<_> = attached.namespaces.iter().map(|n| (n.nsid, n.volume.as_str())).collect();
    assert_eq!(numbers, [(1, "db"), (2, "logs")]);
    let place = AttachmentView { target: "vmware".into(), nsid: 2 };
    assert_eq!(client.volume("logs").unwrap().attached, [place]);
    refused(client.attach_volume("vmware", &attach("db")), 4, RefusalKind::Exists);
    refused(client.attach_volume("vmware", &attach("none")), 3, RefusalKind::NotFound);
    refused(client.delete_volume("db"), 4, RefusalKind::InUse);

    let allowed = client.allow_host("vmware", "esx1").unwrap();
    assert_eq!(allowed.hosts, ["esx1"]);
    assert_eq!(allowed.controllers[0].host.as_deref(), Some("esx1"));
    assert_eq!((allowed.connections, allowed.controllers[0].io_queues), (5, 4));
    refused(client.delete_host("esx1"), 4, RefusalKind::InUse);
    client.deny_host("vmware", "esx1").unwrap();
    assert!(client.set_any_host("vmware", true).unwrap().any_host);
    let listen = UpdateTargetRequest { any_host: None, listen: Some(vec!["10.0.0.1:4420".parse().unwrap()]) };
    assert_eq!(client.update_target("vmware", &listen).unwrap().listen.len(), 1);
    refused(client.update_target("vmware", &UpdateTargetRequest::default()), 2, RefusalKind::Invalid);

    let view = client.set_ana_state("vmware", "logs", AnaState::NonOptimized).unwrap();
    let states: Vec<_> = view.groups.iter().map(|g| (g.group.as_str(), g.ana_group_id, g.state)).collect();
    assert_eq!(states, [("db", 1, AnaState::Optimized), ("logs", 2, AnaState::NonOptimized)]);
    refused(client.set_ana_state("vmware", "none", AnaState::Change), 3, RefusalKind::NotFound);

    client.detach_volume("vmware", "logs").unwrap();
    refused(client.detach_volume("vmware", "logs"), 3, RefusalKind::NotFound);
    refused(client.delete_target("vmware", false), 4, RefusalKind::InUse);
    client.delete_target("vmware", true).unwrap();
    assert!(client.targets().unwrap().targets.is_empty());
    refused(client.target("vmware"), 3, RefusalKind::NotFound);
}

#[test]
fn hosts_from_creation_to_removal() {
    let server = Server::start();
    let client = server.client();
    let created = client.create_host(&host("esx1")).unwrap();
    assert_eq!(created.nqn.as_deref(), Some("nqn.2014-08.org.example:esx1"));
    assert_eq!(client.host("esx1").unwrap(), created);
    assert_eq!(client.hosts().unwrap().hosts, [created]);
    refused(client.create_host(&host("esx1")), 4, RefusalKind::Exists);
    let nameless = CreateHostRequest { name: "x".into(), ..Default::default() };
    refused(client.create_host(&nameless), 2, RefusalKind::Invalid);
    let bad = CreateHostRequest { nqn: Some("esx2".into()), ..nameless };
    let error = refused(client.create_host(&bad), 2, RefusalKind::Invalid);
    assert!(error.refusal.why.contains("\"esx2\" is no valid NQN"), "{error:?}");
    client.delete_host("esx1").unwrap();
    refused(client.host("esx1"), 3, RefusalKind::NotFound);
}

#[test]
fn chap_secrets_go_in_and_never_come_out() {
    let (first, second) = ("first-secret-1", "second-secret-2");
    let server = Server::start();
    let client = server.client();
    let iqn = Some("iqn.1991-05.com.microsoft:WIN1".into());
    let secret = |text: &str| Some(ChapSecret::parse(text).unwrap());
    let request =
        CreateHostRequest { name: "win1".into(), iqn, chap_secret: secret(first), ..Default::default() };
    assert!(!format!("{request:?}").contains(first));
    let created = client.create_host(&request).unwrap();
    assert_eq!(
        (created.chap, created.iqn.as_deref()),
        (ChapMode::OneWay, Some("iqn.1991-05.com.microsoft:win1"))
    );
    // The node at hand has a session of this initiator in every target.
    assert_eq!(created.sessions, 0);
    let target = client.create_target(&target("t")).unwrap();
    let session = &target.sessions[0];
    assert_eq!((session.host.as_deref(), session.isid.as_str()), (Some("win1"), "800000000001"));
    assert_eq!((session.tsih, session.portal, target.iscsi_addresses.len()), (9, 2, 1));
    assert_eq!(client.host("win1").unwrap().sessions, 1);
    let both = ChapRequest { mutual_chap_secret: secret(second), ..Default::default() };
    assert_eq!(client.set_chap("win1", &both).unwrap().chap, ChapMode::Mutual);
    assert_eq!(client.set_chap("win1", &both).unwrap().chap, ChapMode::Mutual);

    let same = ChapRequest { chap_secret: secret(second), ..Default::default() };
    let error = refused(client.set_chap("win1", &same), 2, RefusalKind::Invalid);
    assert!(!format!("{error:?}").contains(second), "{error:?}");
    refused(client.set_chap("win1", &ChapRequest::default()), 2, RefusalKind::Invalid);
    refused(client.set_chap("win2", &both), 3, RefusalKind::NotFound);
    let mutual_alone = CreateHostRequest { chap_secret: None, mutual_chap_secret: secret(second), ..request };
    refused(client.create_host(&mutual_alone), 2, RefusalKind::Invalid);
    let short = server.json("PUT", "/v1/hosts/win1/chap", "{\"chap_secret\":\"elevenchars\"}");
    assert!(short.starts_with("HTTP/1.1 400") && short.contains("12 to 255"), "{short}");
    assert!(!short.contains("elevenchars"), "{short}");

    for path in ["/v1/hosts", "/v1/hosts/win1", "/v1/status", "/v1/targets", "/metrics"] {
        let reply =
            server.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(!reply.contains(first) && !reply.contains(second), "{reply}");
    }
    client.clear_chap("win1").unwrap();
    client.clear_chap("win1").unwrap();
    assert_eq!(client.host("win1").unwrap().chap, ChapMode::None);
    refused(client.clear_chap("win2"), 3, RefusalKind::NotFound);
}

#[test]
fn bad_names_are_explained_wherever_they_stand() {
    let server = Server::start();
    let client = server.client();
    for name in ["", "a b", "../etc", "x?y", "a/b/c", "\u{e4}"] {
        // An empty segment is another path.
        let kind = if name.is_empty() { (3, RefusalKind::NotFound) } else { (2, RefusalKind::Invalid) };
        refused(client.volume(name), kind.0, kind.1);
        refused(client.create_volume(&memory(name)), 2, RefusalKind::Invalid);
        refused(client.create_target(&target(name)), 2, RefusalKind::Invalid);
        refused(client.create_host(&host(name)), 2, RefusalKind::Invalid);
        refused(client.attach_volume("t", &attach(name)), 2, RefusalKind::Invalid);
    }
}

#[test]
fn status_shows_the_node_and_what_needs_attention() {
    let server = Server::start();
    let client = server.client();
    client.create_volume(&memory("db")).unwrap();
    client.create_target(&target("t")).unwrap();
    client.attach_volume("t", &attach("db")).unwrap();
    let status = client.status().unwrap();
    assert_eq!((status.node.name.as_str(), status.node.phase), ("rack1-a", Phase::Ready));
    assert_eq!((status.counts.volumes, status.counts.targets, status.counts.hosts), (1, 1, 0));
    assert_eq!((status.counts.connections, status.counts.controllers), (5, 1));
    assert_eq!(status.capacity.provisioned_bytes, 1 << 20);
    assert_eq!(status.node.state_hash, server.control.state().hash().to_string());
    assert!(status.attention[0].contains("target t lets no host in"), "{:?}", status.attention);
    client.set_any_host("t", true).unwrap();
    assert_eq!(client.status().unwrap().attention, Vec::<String>::new());
}

#[test]
fn a_data_path_that_hangs_does_not_hang_the_api() {
    let server = Server::start();
    server.notes().live_delay = Duration::from_secs(3600);
    let start = Instant::now();
    let status = server.client().status().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(status.attention[0].contains("did not answer"), "{:?}", status.attention);
}

#[test]
fn a_restart_finds_everything() {
    let server = Server::start();
    let client = server.client();
    client.create_volume(&memory("db")).unwrap();
    client.create_target(&target("t")).unwrap();
    let attached = client.attach_volume("t", &attach("db")).unwrap();
    let before = client.status().unwrap();
    let server = server.restart();
    let client = server.client();
    let after = client.status().unwrap();
    assert_eq!((after.node.id, after.node.state_hash), (before.node.id, before.node.state_hash));
    assert_eq!(client.target("t").unwrap(), attached);
}

#[test]
fn the_node_is_told_in_order_and_before_the_client() {
    use ashlar_cluster::state::Event;
    let server = Server::start();
    let client = server.client();
    client.create_volume(&memory("db")).unwrap();
    assert!(matches!(server.notes().events[..], [Event::VolumeCreated { .. }]));
    client.create_target(&target("t")).unwrap();
    client.attach_volume("t", &attach("db")).unwrap();
    client.delete_target("t", true).unwrap();
    let kinds: Vec<_> = server
        .notes()
        .events
        .iter()
        .map(|event| format!("{event:?}").split([' ', '{', '(']).next().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds,
        [
            "VolumeCreated",
            "TargetCreated",
            "DiscoveryChanged",
            "NamespaceAttached",
            "NamespaceDetached",
            "TargetDeleted",
            "DiscoveryChanged"
        ]
    );
}

#[test]
fn a_node_that_starts_or_drains_takes_reservations_only() {
    let server = Server::start();
    let client = server.client();
    let volume = VolumeId(client.create_volume(&memory("db")).unwrap().id);
    for phase in [Phase::Starting, Phase::Draining] {
        server.notes().phase = phase;
        refused(client.create_volume(&memory("x")), 1, RefusalKind::Unavailable);
        assert_eq!(client.status().unwrap().node.phase, phase);
        assert_eq!(client.volume("db").unwrap().name, "db");
        let generation =
            server.control.state().volumes()[&volume].reservation.as_ref().map_or(0, |r| r.generation);
        // From a thread without any runtime, as a reactor is.
        let save = Action::SetReservation { volume, generation: generation + 1, blob: vec![1, 2, 3] };
        let done = block_on(server.control.submit(save)).unwrap();
        assert_eq!(done.state.volumes()[&volume].reservation.as_ref().unwrap().generation, generation + 1);
    }
}

/// The smallest executor: parks the thread until the future is woken.

#[test]
fn many_clients_at_once_get_numbers_of_their_own() {
    let server = Server::start();
    let client = server.client();
    client.create_target(&target("t")).unwrap();
    std::thread::scope(|scope| {
        for i in 0..16 {
            let client = server.client();
            scope.spawn(move || {
                client.create_volume(&memory(&format!("v{i}"))).unwrap();
                client.attach_volume("t", &attach(&format!("v{i}"))).unwrap();
            });
        }
    });
    let numbers: Vec<_> = client.target("t").unwrap().namespaces.iter().map(|n| n.nsid).collect();
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
}

#[test]
fn stopping_finishes_what_is_in_flight() {
    let mut server = Server::start();
    server.notes().prepare_delay = Duration::from_millis(500);
    let client = server.client();
    let request = std::thread::spawn(move || client.create_volume(&memory("db")));
    // By now the request is in flight: connecting takes far less, and preparing takes longer.
    std::thread::sleep(Duration::from_millis(200));
    server.stop();
    assert_eq!(request.join().unwrap().unwrap().name, "db");
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(6));
    assert_eq!(server.client().status().unwrap_err().exit_code, EXIT_NO_NODE);
    let refusal = block_on(server.control.submit(Action::DeleteVolume { volume: "db".parse().unwrap() }));
    assert_eq!(refusal.unwrap_err().kind, RefusalKind::Unavailable);
}

#[test]
fn a_port_in_use_is_explained() {
    let server = Server::start();
    let refusal = http::bind(server.address).unwrap_err();
    assert_eq!(refusal.kind.exit_code(), 4);
    assert!(refusal.what.contains(&server.address.to_string()), "{refusal:?}");
    let refusal = http::bind("192.0.2.1:7070".parse().unwrap()).unwrap_err();
    assert_eq!(refusal.kind.exit_code(), 2, "{refusal:?}");
}

#[test]
fn a_second_node_on_the_same_state_is_refused() {
    let server = Server::start();
    let refusal = ashlar_cluster::service::open(&server.store_path(), &"b".parse().unwrap()).unwrap_err();
    assert_eq!(refusal.kind.exit_code(), 4);
    assert!(refusal.why.contains("control.redb") && refusal.next.contains("--data"), "{refusal:?}");
}

#[test]
fn health_readiness_and_metrics() {
    let server = Server::start();
    let get = |path: &str| {
        server.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    };
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    for phase in [Phase::Starting, Phase::Draining] {
        server.notes().phase = phase;
        assert!(get("/healthz").starts_with("HTTP/1.1 200"));
        let ready = get("/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains(phase.as_str()), "{ready}");
    }
    server.notes().phase = Phase::Ready;
    server.client().create_volume(&memory("db")).unwrap();
    refused(server.client().create_volume(&memory("db")), 4, RefusalKind::Exists);
    let metrics = get("/metrics");
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
    for line in [
        "ashlar_control_actions_total{action=\"create_volume\",outcome=\"done\"} 1",
        "ashlar_control_actions_total{action=\"create_volume\",outcome=\"exists\"} 1",
        "ashlar_api_requests_total{method=\"POST\",status=\"201\"} 1",
        "ashlar_api_requests_total{method=\"GET\",status=\"503\"} 2",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn the_document_describes_every_request_of_the_client() {
    let server = Server::start();
    let document = server.client().openapi().unwrap();
    assert_eq!(document, serde_json::from_str::<serde_json::Value>(&http::openapi_json()).unwrap());
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let expected = [
        ("/v1/status", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/v1/volumes", "get"),
        ("/v1/volumes", "post"),
        ("/v1/volumes/{name}", "get"),
        ("/v1/volumes/{name}", "patch"),
        ("/v1/volumes/{name}", "delete"),
        ("/v1/clones", "post"),
        ("/v1/groups", "get"),
        ("/v1/groups/{name}", "get"),
        ("/v1/groups/{name}", "patch"),
        ("/v1/snapshots", "get"),
        ("/v1/snapshots", "post"),
        ("/v1/snapshots/{name}", "get"),
        ("/v1/snapshots/{name}", "delete"),
        ("/v1/snapshots/{name}/restore", "post"),
        ("/v1/snapshots/{name}/diff", "get"),
        ("/v1/devices", "get"),
        ("/v1/devices", "post"),
        ("/v1/devices/{device}", "get"),
        ("/v1/devices/{device}", "delete"),
        ("/v1/operations", "get"),
        ("/v1/operations/{number}", "get"),
        ("/v1/targets", "get"),
        ("/v1/targets", "post"),
        ("/v1/targets/{name}", "get"),
        ("/v1/targets/{name}", "patch"),
        ("/v1/targets/{name}", "delete"),
        ("/v1/targets/{name}/volumes", "post"),
        ("/v1/targets/{name}/volumes/{volume}", "delete"),
        ("/v1/targets/{name}/hosts", "post"),
        ("/v1/targets/{name}/hosts/{host}", "delete"),
        ("/v1/targets/{name}/ana/{group}", "put"),
        ("/v1/hosts", "get"),
        ("/v1/hosts", "post"),
        ("/v1/hosts/{name}", "get"),
        ("/v1/hosts/{name}", "delete"),
        ("/v1/hosts/{name}/chap", "put"),
        ("/v1/hosts/{name}/chap", "delete"),
    ];
    for (path, method) in expected {
        let operation = &document["paths"][path][method];
        assert!(operation["summary"].is_string(), "{method} {path}: {operation}");
        assert!(operation["responses"].is_object(), "{method} {path}");
    }
    for schema in ["CreateHostRequest", "ChapRequest"] {
        for field in ["chap_secret", "mutual_chap_secret"] {
            let property = &document["components"]["schemas"][schema]["properties"][field];
            assert_eq!(property["writeOnly"], true, "{schema}.{field}: {property}");
        }
    }
    let described: usize =
        document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum();
    assert_eq!(described, expected.len());
    check_references(&document, &document);
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            // An optional object has its description beside the reference to it.
            let described =
                property["description"].is_string() || property["oneOf"][0]["description"].is_string();
            assert!(described, "{name}.{field} is not described: {property}");
        }
    }
}

/// Every `$ref` of the document points to something in it.
fn check_references(document: &serde_json::Value, node: &serde_json::Value) {
    use serde_json::Value;
    match node {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                assert!(
                    document.pointer(reference.trim_start_matches('#')).is_some(),
                    "{reference} leads nowhere"
                );
            }
            map.values().for_each(|value| check_references(document, value));
        }
        Value::Array(list) => list.iter().for_each(|value| check_references(document, value)),
        _ => {}
    }
}

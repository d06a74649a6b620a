//! Blocking client of `/v1`, for the command line.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request};

use crate::api::{
    AddDeviceRequest, AllowHostRequest, AnaState, AnaStateRequest, AttachVolumeRequest, ChapRequest,
    CloneVolumeRequest, CreateHostRequest, CreateSnapshotRequest, CreateTargetRequest, CreateVolumeRequest,
    DeviceList, DeviceView, DiffView, ErrorBody, GroupList, HostList, HostView, OperationList, OperationView,
    RestoreSnapshotRequest, SnapshotList, SnapshotView, StatusView, TargetList, TargetView,
    UpdateGroupRequest, UpdateTargetRequest, UpdateVolumeRequest, VolumeGroupView, VolumeList, VolumeView,
};
use crate::state::{Refusal, RefusalKind};

/// Where a node's API listens unless configured otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:7070";
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a whole reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest reply that is read, in bytes.
const REPLY_BYTES_MAX: u64 = 1 << 30;

/// A request that did not succeed, with the exit code of the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct ClientError {
    /// 1 failed, 2 used wrongly, 3 not found, 4 refused, 5 no node answered.
    pub exit_code: u8,
    /// What was asked, why not, what was not lost, what to do next.
    pub refusal: Box<Refusal>,
}

/// Exit code when no node answered.
pub const EXIT_NO_NODE: u8 = 5;

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> Self {
        ClientError { exit_code: refusal.kind.exit_code(), refusal: Box::new(refusal) }
    }
}

/// What a request yields.
pub type Reply<T> = Result<T, ClientError>;

/// A client of one node.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    /// A client of the node at `address`: `HOST:PORT` or `http://HOST:PORT`. Nothing is sent yet.
    pub fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REPLY_TIMEOUT))
            // A node is reached directly; a proxy set for the web must not see its API.
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
            .build();
        let address = address.trim_end_matches('/');
        let base = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        Client { agent: config.into(), base }
    }

    /// Where requests go, as a URL without a path.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET /v1/status`
    pub fn status(&self) -> Reply<StatusView> {
        self.get("/v1/status")
    }

    /// `GET /v1/openapi.json`
    pub fn openapi(&self) -> Reply<serde_json::Value> {
        self.get("/v1/openapi.json")
    }

    /// `GET /v1/volumes`
    pub fn volumes(&self) -> Reply<VolumeList> {
        self.get("/v1/volumes")
    }

    /// `GET /v1/volumes/{name}`
    pub fn volume(&self, name: &str) -> Reply<VolumeView> {
        self.get(&format!("/v1/volumes/{}", segment(name)))
    }

    /// `POST /v1/volumes`
    pub fn create_volume(&self, request: &CreateVolumeRequest) -> Reply<VolumeView> {
        self.send(Method::POST, "/v1/volumes", request)
    }

    /// `PATCH /v1/volumes/{name}`: resize or rename.
    pub fn update_volume(&self, name: &str, request: &UpdateVolumeRequest) -> Reply<VolumeView> {
        self.send(Method::PATCH, &format!("/v1/volumes/{}", segment(name)), request)
    }

    /// `DELETE /v1/volumes/{name}`
    pub fn delete_volume(&self, name: &str) -> Reply<()> {
        self.delete(&format!("/v1/volumes/{}", segment(name)))
    }

    /// `POST /v1/clones`
    pub fn clone_volume(&self, from: &str, name: &str) -> Reply<VolumeView> {
        let request = CloneVolumeRequest { from: from.into(), name: name.into() };
        self.send(Method::POST, "/v1/clones", &request)
    }

    /// `GET /v1/groups`
    pub fn groups(&self) -> Reply<GroupList> {
        self.get("/v1/groups")
    }

    /// `GET /v1/groups/{name}`
    pub fn group(&self, name: &str) -> Reply<VolumeGroupView> {
        self.get(&format!("/v1/groups/{}", segment(name)))
    }

    /// `PATCH /v1/groups/{name}`
    pub fn update_group(&self, name: &str, request: &UpdateGroupRequest) -> Reply<VolumeGroupView> {
        self.send(Method::PATCH, &format!("/v1/groups/{}", segment(name)), request)
    }

    /// `GET /v1/snapshots`, of all groups or of one
    pub fn snapshots(&self, group: Option<&str>) -> Reply<SnapshotList> {
        match group {
            Some(group) => self.get(&format!("/v1/snapshots?group={}", segment(group))),
            None => self.get("/v1/snapshots"),
        }
    }

    /// `GET /v1/snapshots/{name}`
    pub fn snapshot(&self, name: &str) -> Reply<SnapshotView> {
        self.get(&format!("/v1/snapshots/{}", segment(name)))
    }

    /// `POST /v1/snapshots`
    pub fn create_snapshot(&self, name: &str) -> Reply<SnapshotView> {
        self.send(Method::POST, "/v1/snapshots", &CreateSnapshotRequest { name: name.into() })
    }

    /// `POST /v1/snapshots/{name}/restore`
    pub fn restore_snapshot(&self, name: &str, force: bool) -> Reply<SnapshotView> {
        let path = format!("/v1/snapshots/{}/restore", segment(name));
        self.send(Method::POST, &path, &RestoreSnapshotRequest { force })
    }

    /// `DELETE /v1/snapshots/{name}`
    pub fn delete_snapshot(&self, name: &str) -> Reply<()> {
        self.delete(&format!("/v1/snapshots/{}", segment(name)))
    }

    /// `GET /v1/snapshots/{name}/diff`: where a volume changed since snapshot `from`, up to `to` or until now, from an
    /// offset in bytes on. `volume` is its name within its group.
    pub fn diff(
        &self,
        from: &str,
        to: Option<&str>,
        volume: Option<&str>,
        offset_bytes: u64,
    ) -> Reply<DiffView> {
        let mut path = format!("/v1/snapshots/{}/diff?offset_bytes={offset_bytes}", segment(from));
        for (key, value) in [("to", to), ("volume", volume)] {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", segment(value)));
            }
        }
        self.get(&path)
    }

    /// `GET /v1/devices`
    pub fn devices(&self) -> Reply<DeviceList> {
        self.get("/v1/devices")
    }

    /// `GET /v1/devices/{device}`: by identity or path
    pub fn device(&self, device: &str) -> Reply<DeviceView> {
        self.get(&format!("/v1/devices/{}", segment(device)))
    }

    /// `POST /v1/devices`
    pub fn add_device(&self, request: &AddDeviceRequest) -> Reply<DeviceView> {
        self.send(Method::POST, "/v1/devices", request)
    }

    /// `DELETE /v1/devices/{device}`: yields the operation that moves what it holds, or nothing when it is forgotten.
    pub fn remove_device(&self, device: &str, force: bool) -> Reply<Option<OperationView>> {
        let path = format!("/v1/devices/{}?force={force}", segment(device));
        let body = self.request(Method::DELETE, &path, Vec::new())?;
        if body.is_empty() { Ok(None) } else { self.parse(&path, &body).map(Some) }
    }

    /// `GET /v1/operations`
    pub fn operations(&self) -> Reply<OperationList> {
        self.get("/v1/operations")
    }

    /// `GET /v1/operations/{number}`
    pub fn operation(&self, number: u64) -> Reply<OperationView> {
        self.get(&format!("/v1/operations/{number}"))
    }

    /// `GET /v1/targets`
    pub fn targets(&self) -> Reply<TargetList> {
        self.get("/v1/targets")
    }

    /// `GET /v1/targets/{name}`
    pub fn target(&self, name: &str) -> Reply<TargetView> {
        self.get(&format!("/v1/targets/{}", segment(name)))
    }

    /// `POST /v1/targets`
    pub fn create_target(&self, request: &CreateTargetRequest) -> Reply<TargetView> {
        self.send(Method::POST, "/v1/targets", request)
    }

    /// `PATCH /v1/targets/{name}`: any host, listen addresses.
    pub fn update_target(&self, name: &str, request: &UpdateTargetRequest) -> Reply<TargetView> {
        self.send(Method::PATCH, &format!("/v1/targets/{}", segment(name)), request)
    }

    /// `DELETE /v1/targets/{name}`; `force` detaches its volumes and disconnects its hosts.
    pub fn delete_target(&self, name: &str, force: bool) -> Reply<()> {
        self.delete(&format!("/v1/targets/{}?force={force}", segment(name)))
    }

    /// `POST /v1/targets/{name}/volumes`
    pub fn attach_volume(&self, target: &str, request: &AttachVolumeRequest) -> Reply<TargetView> {
        self.send(Method::POST, &format!("/v1/targets/{}/volumes", segment(target)), request)
    }

    /// `DELETE /v1/targets/{name}/volumes/{volume}`
    pub fn detach_volume(&self, target: &str, volume: &str) -> Reply<()> {
        self.delete(&format!("/v1/targets/{}/volumes/{}", segment(target), segment(volume)))
    }

    /// `POST /v1/targets/{name}/hosts`
    pub fn allow_host(&self, target: &str, host: &str) -> Reply<TargetView> {
        let request = AllowHostRequest { host: host.into() };
        self.send(Method::POST, &format!("/v1/targets/{}/hosts", segment(target)), &request)
    }

    /// `DELETE /v1/targets/{name}/hosts/{host}`
    pub fn deny_host(&self, target: &str, host: &str) -> Reply<()> {
        self.delete(&format!("/v1/targets/{}/hosts/{}", segment(target), segment(host)))
    }

    /// `PATCH /v1/targets/{name}` with `any_host` alone.
    pub fn set_any_host(&self, target: &str, any_host: bool) -> Reply<TargetView> {
        self.update_target(target, &UpdateTargetRequest { any_host: Some(any_host), listen: None })
    }

    /// `PUT /v1/targets/{name}/ana/{group}`
    pub fn set_ana_state(&self, target: &str, group: &str, state: AnaState) -> Reply<TargetView> {
        let path = format!("/v1/targets/{}/ana/{}", segment(target), segment(group));
        self.send(Method::PUT, &path, &AnaStateRequest { state })
    }

    /// `GET /v1/hosts`
    pub fn hosts(&self) -> Reply<HostList> {
        self.get("/v1/hosts")
    }

    /// `GET /v1/hosts/{name}`
    pub fn host(&self, name: &str) -> Reply<HostView> {
        self.get(&format!("/v1/hosts/{}", segment(name)))
    }

    /// `POST /v1/hosts`
    pub fn create_host(&self, request: &CreateHostRequest) -> Reply<HostView> {
        self.send(Method::POST, "/v1/hosts", request)
    }

    /// `PUT /v1/hosts/{name}/chap`
    pub fn set_chap(&self, name: &str, request: &ChapRequest) -> Reply<HostView> {
        self.send(Method::PUT, &format!("/v1/hosts/{}/chap", segment(name)), request)
    }

    /// `DELETE /v1/hosts/{name}/chap`
    pub fn clear_chap(&self, name: &str) -> Reply<()> {
        self.delete(&format!("/v1/hosts/{}/chap", segment(name)))
    }

    /// `DELETE /v1/hosts/{name}`
    pub fn delete_host(&self, name: &str) -> Reply<()> {
        self.delete(&format!("/v1/hosts/{}", segment(name)))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Reply<T> {
        self.parse(path, &self.request(Method::GET, path, Vec::new())?)
    }

    fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Reply<T> {
        let body = serde_json::to_vec(body).expect("requests have string keys and no fallible values");
        self.parse(path, &self.request(method, path, body)?)
    }

    fn delete(&self, path: &str) -> Reply<()> {
        self.request(Method::DELETE, path, Vec::new()).map(drop)
    }

    /// Sends a request and yields the body of a successful reply.
    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Reply<Vec<u8>> {
        let changes = method != Method::GET;
        let mut builder = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !body.is_empty() {
            builder = builder.header("content-type", "application/json");
        }
        let request = builder.body(body).map_err(|e| {
            ClientError::from(
                Refusal::new(RefusalKind::Invalid, format!("reach a node at {}", self.base), e.to_string())
                    .next("give the node's address as HOST:PORT"),
            )
        })?;
        let mut response = self.agent.run(request).map_err(|e| self.unanswered(&e, changes))?;
        let status = response.status();
        let bytes = response
            .body_mut()
            .with_config()
            .limit(REPLY_BYTES_MAX)
            .read_to_vec()
            .map_err(|e| self.unanswered(&e, changes))?;
        if status.is_success() {
            return Ok(bytes);
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => Err(body.error.into()),
            Err(_) => {
                Err(self.garbled(path, &format!("it answered with status {status} and no explanation")))
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Reply<T> {
        serde_json::from_slice(bytes)
            .map_err(|e| self.garbled(path, &format!("its answer cannot be read: {e}")))
    }

    /// The error when no reply came. A change may or may not have been made if the request was sent.
    fn unanswered(&self, error: &ureq::Error, changes: bool) -> ClientError {
        let never_sent = matches!(
            error,
            ureq::Error::HostNotFound
                | ureq::Error::ConnectionFailed
                | ureq::Error::BadUri(_)
                | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
        ) || matches!(error, ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused);
        let not_lost = match (changes, never_sent) {
            (false, _) | (true, true) => "nothing was changed",
            (true, false) => "whether the change was made is not known; what was there before is kept",
        };
        let refusal = Refusal::new(
            RefusalKind::Unavailable,
            format!("ask the node at {}", self.base),
            error.to_string(),
        )
        .not_lost(not_lost)
        .next("start one with `ashlar serve`, or give the right address");
        ClientError { exit_code: EXIT_NO_NODE, refusal: Box::new(refusal) }
    }

    fn garbled(&self, path: &str, why: &str) -> ClientError {
        Refusal::new(RefusalKind::Failed, format!("ask {}{path}", self.base), why)
            .not_lost("whether a change was made is not known; what was there before is kept")
            .next("check that the address is that of an Ashlar node of the same release")
            .into()
    }
}

/// `text` as one segment of a path: everything but unreserved characters percent-encoded (RFC 3986,
/// section 2.3).
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(segment("shop/db"), "shop%2Fdb");
        assert_eq!(segment("a?b#c d%\u{e4}"), "a%3Fb%23c%20d%25%C3%A4");
        assert_eq!(segment("A-Z.a_z~9"), "A-Z.a_z~9");
    }

    #[test]
    fn no_node_is_exit_code_5() {
        // A port that was free a moment ago and that nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::new(&format!("127.0.0.1:{port}"));
        let error = client.status().unwrap_err();
        assert_eq!(error.exit_code, EXIT_NO_NODE);
        assert!(error.refusal.next.contains("ashlar serve"), "{error:?}");
        let error = client.delete_volume("db").unwrap_err();
        assert_eq!((error.exit_code, error.refusal.not_lost.as_str()), (EXIT_NO_NODE, "nothing was changed"));
    }

    #[test]
    fn a_bad_address_is_explained() {
        let error = Client::new("not an address").status().unwrap_err();
        assert_eq!(error.exit_code, 2, "{error:?}");
    }
}

//! Bodies of requests.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::state::{AnaState, Backing, ChapSecret, Compression};

/// A volume to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolumeRequest {
    /// `name`, or `group/name`. Each part is 1 to 63 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// What holds the data; by default the log-structured engine, thin.
    #[serde(default = "thin")]
    pub backing: Backing,
    /// Size in bytes, a multiple of the block size. May be left out for an image, which has a size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Logical block size in bytes, 512 or 4096. By default the image's, or 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size_bytes: Option<u32>,
    /// Whether hosts may only read.
    #[serde(default)]
    pub read_only: bool,
    /// How the blocks of its group are compressed; by default as the group is, or not at all. For log-structured
    /// volumes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// On how many devices its group keeps everything, 1 to 3; by default as many as the group has, or one. For
    /// log-structured volumes only, and fixed when the group is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u8>,
}

fn thin() -> Backing {
    Backing::Log { thick: false }
}

/// A change of a volume: its size or its name, one at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateVolumeRequest {
    /// New size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether the volume may become smaller, which loses what is beyond the new end.
    #[serde(default)]
    pub allow_shrink: bool,
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A target to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTargetRequest {
    /// Name, 1 to 63 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Subsystem NQN; by default `nqn.2026-11.io.ashlar:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nqn: Option<String>,
    /// iSCSI target name; by default `iqn.2026-11.io.ashlar:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iqn: Option<String>,
    /// Where it may be reached, as `ADDRESS:PORT`; empty means every address the node listens on.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub listen: Vec<SocketAddr>,
    /// Whether every host may connect. A fresh target lets no one in unless this is set.
    #[serde(default)]
    pub any_host: bool,
}

/// A change of a target; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTargetRequest {
    /// Whether every host may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_host: Option<bool>,
    /// Where it may be reached; empty means every address the node listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub listen: Option<Vec<SocketAddr>>,
}

/// A volume to attach to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachVolumeRequest {
    /// Name of the volume.
    pub volume: String,
    /// Namespace id and LUN, from 1; by default the lowest free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nsid: Option<u32>,
}

/// A host to let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowHostRequest {
    /// Name of the host.
    pub host: String,
}

/// The state of the paths to a volume group through a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnaStateRequest {
    /// The new state.
    pub state: AnaState,
}

/// A host to add. At least one of `nqn` and `iqn` is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateHostRequest {
    /// Name, 1 to 63 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// NVMe host NQN, as in `/etc/nvme/hostnqn` on Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nqn: Option<String>,
    /// iSCSI initiator name, as in `/etc/iscsi/initiatorname.iscsi` on Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iqn: Option<String>,
    /// CHAP secret that the host has to know to log in over iSCSI, 12 to 255 visible ASCII characters; nothing is asked
    /// without it. The user name is the host's iSCSI name. No reply holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, write_only)]
    pub chap_secret: Option<ChapSecret>,
    /// CHAP secret that the target has to know (mutual CHAP); another than `chap_secret`, which it needs. The user name
    /// is the target's iSCSI name. No reply holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, write_only)]
    pub mutual_chap_secret: Option<ChapSecret>,
}

/// New CHAP secrets of a host; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChapRequest {
    /// What the host has to know, 12 to 255 visible ASCII characters. No reply holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, write_only)]
    pub chap_secret: Option<ChapSecret>,
    /// What the target has to know (mutual CHAP). No reply holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, write_only)]
    pub mutual_chap_secret: Option<ChapSecret>,
}

//! What this node's reactors send each other.

use ashlar_iscsi::server::message::Message as IscsiMessage;
use ashlar_nvmeof::server::message::Message as NvmeMessage;
use ashlar_runtime::Accepted;
use ashlar_volume::remote::VolumeMessage;

/// A message between two reactors.
pub(crate) enum NodeMessage {
    /// For a volume, or from one.
    Volume(VolumeMessage),
    /// For the NVMe/TCP target.
    Nvme(NvmeMessage<Accepted>),
    /// For the iSCSI target.
    Iscsi(IscsiMessage<Accepted>),
}

impl From<VolumeMessage> for NodeMessage {
    fn from(message: VolumeMessage) -> Self {
        Self::Volume(message)
    }
}

impl From<NvmeMessage<Accepted>> for NodeMessage {
    fn from(message: NvmeMessage<Accepted>) -> Self {
        Self::Nvme(message)
    }
}

impl From<IscsiMessage<Accepted>> for NodeMessage {
    fn from(message: IscsiMessage<Accepted>) -> Self {
        Self::Iscsi(message)
    }
}

impl TryFrom<NodeMessage> for VolumeMessage {
    type Error = NodeMessage;

    fn try_from(message: NodeMessage) -> Result<Self, NodeMessage> {
        match message {
            NodeMessage::Volume(message) => Ok(message),
            other => Err(other),
        }
    }
}

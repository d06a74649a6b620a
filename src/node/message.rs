//! What this node's reactors send each other.

use ashlar_nvmeof::server::message::Message;
use ashlar_runtime::Accepted;
use ashlar_volume::remote::VolumeMessage;

/// A message between two reactors.
pub(crate) enum NodeMessage {
    /// For a volume, or from one.
    Volume(VolumeMessage),
    /// For the NVMe/TCP target.
    Target(Message<Accepted>),
}

impl From<VolumeMessage> for NodeMessage {
    fn from(message: VolumeMessage) -> Self {
        Self::Volume(message)
    }
}

impl From<Message<Accepted>> for NodeMessage {
    fn from(message: Message<Accepted>) -> Self {
        Self::Target(message)
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

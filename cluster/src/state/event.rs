//! What a command changed, for the node to carry into its reactors.

use uuid::Uuid;

use super::group::GroupId;
use super::model::{AnaState, Backing, Volume, VolumeId};
use super::name::{Name, VolumeName};

/// One change. Events of one command are in the order in which they must be carried out; the state
/// they are handed out with already contains all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Who may connect to the target changed. Hosts that no longer may must be disconnected.
    AccessChanged {
        /// The target.
        target: Name,
    },
    /// A group's ANA state in a target changed.
    AnaStateChanged {
        /// The target.
        target: Name,
        /// The group.
        group: Name,
        /// The group's ANA group id.
        ana_group_id: u32,
        /// The new state.
        state: AnaState,
    },
    /// A disk was added, and is open.
    DeviceAdded {
        /// Its identity.
        device: Uuid,
    },
    /// A device holds nothing that is needed any more, and must be closed.
    DeviceClosed {
        /// Its identity.
        device: Uuid,
    },
    /// What a device holds is to be moved to others.
    DeviceDraining {
        /// Its identity.
        device: Uuid,
        /// The operation that does it.
        operation: u64,
    },
    /// A device has failed.
    DeviceFailed {
        /// Its identity.
        device: Uuid,
    },
    /// A device that was closed is no longer listed.
    DeviceForgotten {
        /// The identity it had.
        device: Uuid,
    },
    /// What the engine must know of a log was kept.
    LaneNoted {
        /// The group.
        group: GroupId,
        /// The lane's number in it.
        lane: u16,
    },
    /// Copies that are missing are to be made.
    RebuildBegan {
        /// The operation that does it.
        operation: u64,
    },
    /// What some host would be told by the discovery subsystem may have changed.
    DiscoveryChanged {
        /// The new generation counter of the discovery log.
        generation: u64,
    },
    /// What a group's storage is to be like has changed.
    GroupPolicyChanged {
        /// The group.
        group: Name,
    },
    /// What is asked of a host when it logs in over iSCSI changed. Sessions that it has stay.
    HostChanged {
        /// Its name.
        host: Name,
    },
    /// A host was added.
    HostCreated {
        /// Its name.
        host: Name,
    },
    /// A host that no target allowed was removed.
    HostDeleted {
        /// Its name.
        host: Name,
    },
    /// A volume is now exported through a target.
    NamespaceAttached {
        /// The target.
        target: Name,
        /// Namespace id and LUN.
        nsid: u32,
        /// The volume.
        volume: VolumeId,
    },
    /// A volume is no longer exported through a target.
    NamespaceDetached {
        /// The target.
        target: Name,
        /// The namespace id and LUN it had.
        nsid: u32,
        /// The volume.
        volume: VolumeId,
    },
    /// The node got its identity or another name.
    NodeNamed {
        /// The name.
        name: Name,
    },
    /// An operation has ended.
    OperationEnded {
        /// Its number.
        operation: u64,
    },
    /// The reservation state of a volume is saved. The node is not told: it is the one that asked.
    ReservationSaved {
        /// The volume.
        volume: VolumeId,
        /// The generation that is saved.
        generation: u64,
    },
    /// A group was cut.
    SnapshotCreated {
        /// The group.
        group: Name,
        /// The snapshot's sequence number.
        snapshot: u64,
    },
    /// A snapshot was deleted.
    SnapshotDeleted {
        /// The group.
        group: Name,
        /// The group's identity.
        group_id: GroupId,
        /// The sequence number it had.
        snapshot: u64,
    },
    /// Volumes were put back to what a snapshot holds. They may have other sizes.
    SnapshotRestored {
        /// The group.
        group: Name,
        /// The snapshot's sequence number.
        snapshot: u64,
        /// The volumes.
        volumes: Vec<VolumeId>,
    },
    /// A target was created.
    TargetCreated {
        /// Its name.
        target: Name,
    },
    /// A target was deleted; its namespaces were detached by earlier events.
    TargetDeleted {
        /// The name it had.
        target: Name,
        /// The subsystem NQN it had.
        nqn: super::name::Nqn,
    },
    /// Where a target may be reached changed.
    TargetMoved {
        /// The target.
        target: Name,
    },
    /// A volume was created.
    VolumeCreated {
        /// Its identity.
        volume: VolumeId,
    },
    /// A volume was deleted.
    VolumeDeleted {
        /// What it was.
        volume: Box<Volume>,
        /// The identity of the group it was in.
        group_id: GroupId,
    },
    /// A volume has another name. Its identity, hence what hosts see, is unchanged.
    VolumeRenamed {
        /// Its identity.
        volume: VolumeId,
        /// The name it had.
        from: VolumeName,
    },
    /// A volume has another size.
    VolumeResized {
        /// Its identity.
        volume: VolumeId,
        /// What holds its data.
        backing: Backing,
        /// The size it had, in bytes.
        size_bytes_before: u64,
        /// Its size, in bytes.
        size_bytes: u64,
    },
}

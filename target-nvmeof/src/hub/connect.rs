//! Connect (Base, section 6.3).

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use ashlar_env::clock::Instant;
use ashlar_env::reservation::HostId;
use zerocopy::FromBytes;

use crate::limits::ADMIN_QUEUE_ENTRIES_MAX;
use crate::view::{DISCOVERY_NQN, Subsystem};
use crate::wire::fabrics::{CATTR_DISABLE_SQ_FLOW_CONTROL, CONTROLLER_ANY, ConnectCommand, ConnectData, nqn};
use crate::wire::{Sqe, Status};

use super::controller::Controller;
use super::error_log::ErrorLog;
use super::events::Events;
use super::features::Features;
use super::keep_alive::KeepAlive;
use super::property::Properties;
use super::reservation::Notifications;
use super::{
    CONTROLLERS_PER_HOST_AND_SUBSYSTEM_MAX, ConnectionId, ControllerShared, Granted, Hub, Queue, Refused,
};

/// DW0 of an invalid parameter in the command, at `offset` of it.
const fn in_command(offset: u32) -> Refused {
    Refused { status: Status::CONNECT_PARAMETER, dw0: offset }
}

/// DW0 of an invalid parameter in the data, at `offset` of it.
const fn in_data(offset: u32) -> Refused {
    Refused { status: Status::CONNECT_PARAMETER, dw0: 1 << 16 | offset }
}

const QUEUE_ID: Refused = in_command(42);
const QUEUE_SIZE: Refused = in_command(44);
const CONTROLLER_ID: Refused = in_data(16);
const SUBSYSTEM: Refused = in_data(256);
const HOST: Refused = in_data(512);

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { status, dw0: 0 }
    }
}

/// A Connect whose fields are sound.
struct Request<'a> {
    command: ConnectCommand,
    host: HostId,
    cntlid: u16,
    subsystem: &'a str,
    host_nqn: &'a str,
}

fn parse<'a>(command: ConnectCommand, data: &'a [u8]) -> Result<Request<'a>, Refused> {
    let Ok(data) = ConnectData::ref_from_bytes(data) else {
        return Err(Status::DATA_SGL_LENGTH_INVALID.into());
    };
    if command.record_format.get() != 0 {
        return Err(Status::CONNECT_FORMAT.into());
    }
    Ok(Request {
        command,
        host: HostId(data.host_id),
        cntlid: data.controller_id.get(),
        subsystem: nqn(&data.subsystem_nqn).ok_or(SUBSYSTEM)?,
        host_nqn: nqn(&data.host_nqn).ok_or(HOST)?,
    })
}

impl Hub {
    /// Connect on a connection that has none: the command and its data, of whatever length they came; `local`
    /// is the address the host connected to.
    ///
    /// # Errors
    /// The status and DW0 to complete the command with.
    pub fn connect(
        &mut self,
        connection: ConnectionId,
        local: SocketAddr,
        sqe: &Sqe,
        data: &[u8],
        now: Instant,
    ) -> Result<Arc<Granted>, Refused> {
        let request = parse(sqe.as_connect(), data)?;
        if self.queues.contains_key(&connection) {
            return Err(Status::COMMAND_SEQUENCE_ERROR.into());
        }
        self.check_access(&request, local)?;
        if self.connections_of(request.host_nqn) >= self.config.limits.connections_per_host_max as usize {
            return Err(Status::CONNECT_BUSY.into());
        }
        let granted = match request.command.queue_id.get() {
            0 => self.connect_admin(connection, local, &request, now)?,
            qid => self.connect_io(connection, &request, qid, now)?,
        };
        Ok(Arc::new(granted))
    }

    fn connections_of(&self, host_nqn: &str) -> usize {
        let of_host = self.controllers.values().filter(|controller| controller.host_nqn == host_nqn);
        of_host.map(|controller| 1 + controller.io.len()).sum()
    }

    fn check_access(&self, request: &Request<'_>, local: SocketAddr) -> Result<(), Refused> {
        if request.subsystem == DISCOVERY_NQN {
            return Ok(());
        }
        let subsystem = self.targets.subsystems.get(request.subsystem);
        // Where it is not served it is as if it did not exist.
        let reached =
            |subsystem: &&Subsystem| self.targets.serve_io_at(local) && subsystem.is_reached_at(local);
        let subsystem = subsystem.filter(reached).ok_or(SUBSYSTEM)?;
        if subsystem.access.allows(request.host_nqn) { Ok(()) } else { Err(Status::CONNECT_HOST.into()) }
    }

    fn connect_admin(
        &mut self,
        connection: ConnectionId,
        local: SocketAddr,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<Granted, Refused> {
        if request.cntlid != CONTROLLER_ANY {
            return Err(CONTROLLER_ID);
        }
        let entries = queue_entries(&request.command, ADMIN_QUEUE_ENTRIES_MAX)?;
        let cntlid = self.free_cntlid(request).ok_or(Status::CONNECT_BUSY)?;
        let discovery = request.subsystem == DISCOVERY_NQN;
        let controller = Controller {
            cntlid,
            subsystem: request.subsystem.to_owned(),
            host_nqn: request.host_nqn.to_owned(),
            host: request.host,
            discovery,
            local,
            connected: now,
            session: self.new_session(),
            shared: Arc::new(ControllerShared::default()),
            admin: connection,
            io: BTreeMap::new(),
            io_granted: if discovery { 0 } else { self.config.limits.io_queues_max },
            properties: Properties::new(discovery),
            features: Features::new(now),
            events: Events::new(discovery),
            errors: ErrorLog::default(),
            notifications: Notifications::default(),
            keep_alive: KeepAlive::new(request.command.keep_alive_ms.get()),
            reserving: BTreeMap::new(),
            identified: false,
        };
        let granted = grant(&controller, &request.command, 0, entries);
        self.controllers.insert(cntlid, controller);
        self.queues.insert(connection, Queue { cntlid, qid: 0 });
        self.note_life(cntlid, now);
        Ok(granted)
    }

    fn connect_io(
        &mut self,
        connection: ConnectionId,
        request: &Request<'_>,
        qid: u16,
        now: Instant,
    ) -> Result<Granted, Refused> {
        let entries = queue_entries(&request.command, self.config.limits.io_queue_entries_max)?;
        let controller = self.controllers.get_mut(&request.cntlid).ok_or(CONTROLLER_ID)?;
        // One answer for all that does not fit, so that nobody learns of other hosts' controllers.
        if controller.subsystem != request.subsystem
            || controller.host_nqn != request.host_nqn
            || controller.host != request.host
            || controller.discovery
        {
            return Err(CONTROLLER_ID);
        }
        if qid > controller.io_granted {
            return Err(QUEUE_ID);
        }
        if controller.io.contains_key(&qid) || !controller.shared.is_ready() {
            return Err(Status::COMMAND_SEQUENCE_ERROR.into());
        }
        controller.io.insert(qid, connection);
        let granted = grant(controller, &request.command, qid, entries);
        self.queues.insert(connection, Queue { cntlid: granted.cntlid, qid });
        self.note_life(granted.cntlid, now);
        Ok(granted)
    }

    /// An id no controller has, or `None` where no more controllers may be made. Ids come in turn, so that one
    /// just given back does not soon name another controller.
    fn free_cntlid(&mut self, request: &Request<'_>) -> Option<u16> {
        let of_host = |controller: &&Controller| {
            controller.host_nqn == request.host_nqn && controller.subsystem == request.subsystem
        };
        let (min, max) = (self.config.cntlid_min, self.config.cntlid_max);
        let room = usize::from(self.config.limits.controllers_max.min(max - min + 1));
        let discovery = self.controllers.values().filter(|controller| controller.discovery).count();
        if self.controllers.len() >= room
            || self.controllers.values().filter(of_host).count() >= CONTROLLERS_PER_HOST_AND_SUBSYSTEM_MAX
            // Anybody may discover, under any name: that must not keep hosts from their volumes.
            || request.subsystem == DISCOVERY_NQN && discovery >= room.div_ceil(2)
        {
            return None;
        }
        let next = self.cntlid_next;
        let cntlid = (next..=max).chain(min..next).find(|id| !self.controllers.contains_key(id))?;
        self.cntlid_next = if cntlid == max { min } else { cntlid + 1 };
        Some(cntlid)
    }
}

fn queue_entries(command: &ConnectCommand, max: u16) -> Result<u16, Refused> {
    match command.queue_size.get() {
        0 => Err(QUEUE_SIZE),
        last if last >= max => Err(QUEUE_SIZE),
        last => Ok(last + 1),
    }
}

fn grant(controller: &Controller, command: &ConnectCommand, qid: u16, queue_entries: u16) -> Granted {
    Granted {
        subsystem: controller.subsystem.clone(),
        host: controller.host,
        host_nqn: controller.host_nqn.clone(),
        cntlid: controller.cntlid,
        qid,
        queue_entries,
        sq_flow_control_disabled: command.attributes & CATTR_DISABLE_SQ_FLOW_CONTROL != 0,
        session: controller.session,
        discovery: controller.discovery,
        shared: Arc::clone(&controller.shared),
        dw0: u32::from(controller.cntlid),
    }
}

//! A controller as the host model has it: an admin queue, I/O queues, and how they are set up and left.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ashlar_env::{Rng, Spawn};
use ashlar_nvmeof::wire::fabrics::{CATTR_DISABLE_SQ_FLOW_CONTROL, property};
use ashlar_nvmeof::wire::sqe::admin;
use ashlar_sim::SimEnv;
use ashlar_sim::conformance::sleep;
use zerocopy::little_endian::U32;

use crate::bytes::{self, Identity};
use crate::node::{NodePlan, subsystem_nqn};
use crate::queue::{IDENTIFIERS, Lost, Manners, Queue, Reply};

const ADMIN_ENTRIES: u16 = 32;
/// CC with EN, IOSQES 6 and IOCQES 4.
const ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
/// SHN: normal shutdown.
const SHUTDOWN: u32 = 1 << 14;
/// CNS values of Identify.
const CNS_NAMESPACE: u32 = 0;
const CNS_CONTROLLER: u32 = 1;
const CNS_ACTIVE: u32 = 2;

/// What a host wants of a controller.
#[derive(Clone, Debug)]
pub struct Wish {
    pub address: SocketAddr,
    pub subsystem: usize,
    pub host: u16,
    pub queues: u16,
    pub kato_ms: u32,
    /// Whether it asks what the controller is. A host that does not is not told of volatile caches.
    pub identifies: bool,
    pub manners: Manners,
}

/// The name of a host.
pub fn host_nqn(host: u16) -> String {
    format!("nqn.2014-08.org.nvmexpress:uuid:host-{host}")
}

#[derive(Clone)]
pub struct Controller {
    pub admin: Queue,
    pub io: Vec<Queue>,
    /// Whether the target knows that this host flushes.
    pub flushes: bool,
    pub subsystem: usize,
}

impl Wish {
    fn identity(&self) -> Identity {
        let mut host_id = [0; 16];
        host_id[..2].copy_from_slice(&(self.host + 1).to_le_bytes());
        Identity { host_id, host_nqn: host_nqn(self.host), subsystem: subsystem_nqn(self.subsystem) }
    }

    async fn queue(
        &self,
        env: &SimEnv,
        qid: u16,
        cntlid: u16,
        haunted: &BTreeSet<u16>,
    ) -> Option<(Queue, Reply)> {
        let entries = if qid == 0 { ADMIN_ENTRIES } else { self.manners.entries };
        let manners = Manners { entries, ..self.manners };
        let queue = Queue::open(env, self.address, manners, haunted.clone()).await?;
        let mut sqe = bytes::connect(0, qid, entries - 1, if qid == 0 { self.kato_ms } else { 0 });
        if manners.no_flow_control {
            sqe.cdw11 = U32::new(sqe.cdw11.get() | u32::from(CATTR_DISABLE_SQ_FLOW_CONTROL) << 16);
        }
        let data = bytes::connect_data(&self.identity(), cntlid);
        let Ok(reply) = queue.execute(sqe, data, 0).await else {
            queue.close();
            return None;
        };
        Some((queue, reply))
    }

    /// Sets a controller up. `None` where a connection broke, or the target had lost the controller.
    pub async fn connect(
        &self,
        env: &SimEnv,
        plan: &NodePlan,
        haunted: &BTreeSet<u16>,
    ) -> Option<Controller> {
        let (admin, reply) = self.queue(env, 0, 0xFFFF, haunted).await?;
        if !reply.status.is_success() {
            env.fail("status", format!("Connect of an admin queue ended with {:?}", reply.status));
            return None;
        }
        let cntlid = reply.dw0 as u16;
        let mut controller = Controller { admin, io: Vec::new(), flushes: false, subsystem: self.subsystem };
        if self.set_up(env, plan, &mut controller, cntlid, haunted).await.is_err() {
            controller.close();
            return None;
        }
        Some(controller)
    }

    async fn set_up(
        &self,
        env: &SimEnv,
        plan: &NodePlan,
        controller: &mut Controller,
        cntlid: u16,
        haunted: &BTreeSet<u16>,
    ) -> Result<(), Lost> {
        controller.enable(env).await?;
        if self.kato_ms > 0 {
            env.spawn(keep_alive(env.clone(), controller.admin.clone(), self.kato_ms));
        }
        if self.identifies {
            controller.identify(env, plan, cntlid).await?;
        }
        let granted = controller.ask_queues(env, self.queues).await?;
        // One event request, to be outstanding for the controller's life.
        let _ = controller.admin.start(bytes::sqe(admin::ASYNC_EVENT, 0, 0), Vec::new(), 0)?;
        for qid in 1..=granted {
            let (queue, reply) = self.queue(env, qid, cntlid, haunted).await.ok_or(Lost)?;
            if !reply.status.is_success() {
                queue.close();
                // Right where the controller has ended meanwhile, which the host is about to learn.
                env.marks().hit("host: I/O queue refused");
                return Err(Lost);
            }
            controller.io.push(queue);
        }
        Ok(())
    }
}

/// Keeps the controller alive as long as its admin queue lives.
async fn keep_alive(env: SimEnv, queue: Queue, kato_ms: u32) {
    while !queue.is_closed() {
        sleep(&env, Duration::from_millis(u64::from(kato_ms) / 2)).await;
        if queue.inner.state.borrow().silent {
            return;
        }
        let sqe = bytes::sqe(admin::KEEP_ALIVE, 0, 0);
        let reply = queue.execute(sqe, Vec::new(), 0).await;
        // It is refused once the controller has been shut down.
        if let Ok(reply) = reply
            && !queue.inner.state.borrow().silent
        {
            require(&env, "Keep Alive", &reply);
        }
    }
}

fn require(env: &SimEnv, what: &str, reply: &Reply) {
    if !reply.status.is_success() {
        env.fail("status", format!("{what} ended with {:?}", reply.status));
    }
}

impl Controller {
    pub fn is_over(&self) -> bool {
        self.admin.is_closed() || self.io.iter().any(Queue::is_closed)
    }

    /// Drops every connection.
    pub fn close(&self) {
        self.io.iter().for_each(Queue::close);
        self.admin.close();
    }

    /// The identifiers of commands lost with its connections.
    pub fn haunted(&self) -> BTreeSet<u16> {
        self.io.iter().flat_map(Queue::haunted).collect()
    }

    async fn enable(&self, env: &SimEnv) -> Result<(), Lost> {
        let capabilities = bytes::property_get(0, property::CAPABILITIES, true);
        require(env, "Property Get", &self.admin.execute(capabilities, Vec::new(), 0).await?);
        let set = bytes::property_set(0, property::CONFIGURATION, ENABLED);
        require(env, "Property Set", &self.admin.execute(set, Vec::new(), 0).await?);
        self.await_status(env, 1, 1).await
    }

    /// Polls CSTS until the bits of `mask` are `wanted`.
    async fn await_status(&self, env: &SimEnv, mask: u32, wanted: u32) -> Result<(), Lost> {
        for _ in 0..1000 {
            let get = bytes::property_get(0, property::STATUS, false);
            let reply = self.admin.execute(get, Vec::new(), 0).await?;
            require(env, "Property Get", &reply);
            if reply.dw0 & mask == wanted {
                return Ok(());
            }
            sleep(env, Duration::from_millis(20)).await;
        }
        env.fail("liveness", format!("CSTS did not become {wanted:#x} under {mask:#x}"));
        Err(Lost)
    }

    async fn identify(&mut self, env: &SimEnv, plan: &NodePlan, cntlid: u16) -> Result<(), Lost> {
        let data = self.identify_data(env, CNS_CONTROLLER, 0).await?;
        self.flushes = true;
        let nqn = subsystem_nqn(self.subsystem);
        let volatile = data[525] & 1 != 0;
        if data[78..80] != cntlid.to_le_bytes()
            || !data[768..].starts_with(nqn.as_bytes())
            || volatile != plan.has_volatile_cache(self.subsystem)
        {
            env.fail("identify", "the controller's data are wrong");
        }
        let list = self.identify_data(env, CNS_ACTIVE, 0).await?;
        let listed: Vec<u32> = list
            .chunks(4)
            .map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
            .take_while(|&id| id != 0)
            .collect();
        let namespaces = &plan.subsystems[self.subsystem];
        if !listed.iter().eq(namespaces.keys()) {
            env.fail("identify", format!("the namespaces are {listed:?}"));
        }
        for (&nsid, &volume) in namespaces {
            let data = self.identify_data(env, CNS_NAMESPACE, nsid).await?;
            if data[..8] != plan.volumes[volume].blocks.to_le_bytes() {
                env.fail("identify", format!("namespace {nsid} has a wrong size"));
            }
        }
        Ok(())
    }

    async fn identify_data(&self, env: &SimEnv, cns: u32, nsid: u32) -> Result<Vec<u8>, Lost> {
        let mut sqe = bytes::sqe(admin::IDENTIFY, 0, 4096);
        (sqe.nsid, sqe.cdw10) = (U32::new(nsid), U32::new(cns));
        let reply = self.admin.execute(sqe, Vec::new(), 4096).await?;
        require(env, "Identify", &reply);
        Ok(reply.data)
    }

    async fn ask_queues(&self, env: &SimEnv, wanted: u16) -> Result<u16, Lost> {
        const NUMBER_OF_QUEUES: u32 = 7;
        let mut sqe = bytes::sqe(admin::SET_FEATURES, 0, 0);
        sqe.cdw10 = U32::new(NUMBER_OF_QUEUES);
        sqe.cdw11 = U32::new(u32::from(wanted - 1) << 16 | u32::from(wanted - 1));
        let reply = self.admin.execute(sqe, Vec::new(), 0).await?;
        require(env, "Set Features", &reply);
        Ok(wanted.min(reply.dw0 as u16 + 1))
    }

    /// Asks for the end of a command that may be under way. It goes on: the ledger sees what becomes of it.
    pub async fn abort(&self, env: &SimEnv) -> Result<(), Lost> {
        const NOT_ABORTED: u32 = 1;
        let (qid, cid) = (env.random_below(self.io.len() as u64 + 1), env.random_below(IDENTIFIERS));
        let mut sqe = bytes::sqe(admin::ABORT, 0, 0);
        sqe.cdw10 = U32::new((cid << 16 | qid) as u32);
        let reply = self.admin.execute(sqe, Vec::new(), 0).await?;
        require(env, "Abort", &reply);
        if reply.dw0 != NOT_ABORTED {
            env.fail("status", format!("Abort says {:#x}, though no command is ever aborted", reply.dw0));
        }
        env.marks().hit("host: abort answered");
        Ok(())
    }

    /// Shuts the controller down as a host does that leaves.
    pub async fn shut_down(&self, env: &SimEnv) {
        self.admin.inner.state.borrow_mut().silent = true;
        let set = bytes::property_set(0, property::CONFIGURATION, ENABLED | SHUTDOWN);
        if let Ok(reply) = self.admin.execute(set, Vec::new(), 0).await {
            require(env, "Property Set", &reply);
            if self.await_status(env, 0xC, 0x8).await.is_ok() {
                env.marks().hit("host: clean shutdown");
            }
        }
        self.close();
    }

    /// Falls silent, as a host does that is gone, until the target gives it up or `patience` is over.
    pub async fn fall_silent(&self, env: &SimEnv, patience: Duration) {
        self.admin.inner.state.borrow_mut().silent = true;
        let step = Duration::from_millis(250);
        let mut waited = Duration::ZERO;
        while waited < patience && !self.admin.is_closed() {
            sleep(env, step).await;
            waited += step;
        }
        if self.admin.is_closed() {
            env.marks().hit("host: keep-alive timeout ended the controller");
        }
        self.close();
    }

    /// One of the I/O queues.
    pub fn pick(&self, env: &SimEnv) -> &Queue {
        &self.io[env.random_below(self.io.len() as u64) as usize]
    }
}

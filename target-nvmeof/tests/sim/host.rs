//! A host model: it brings controllers up as a real host does, keeps several commands outstanding on several
//! queues, gives up and comes back, and tells the ledger of every command.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ashlar_env::Rng;
use ashlar_nvmeof::wire::fabrics::{CATTR_DISABLE_SQ_FLOW_CONTROL, CONTROLLER_ANY, ConnectData, property};
use ashlar_nvmeof::wire::sqe::{admin, fabrics, io};
use ashlar_nvmeof::wire::{Sqe, Status};
use ashlar_sim::SimEnv;
use ashlar_sim::check::ledger::{Ledger, ReadTicket, WriteEnd, WriteTicket};
use ashlar_sim::conformance::{join_all, sleep, within};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::Plan;
use super::node::SUBSYSTEM;
use super::queue::{Options, Queue, Reply};

/// How long a host waits for one reply.
const TIMEOUT: Duration = Duration::from_secs(30);
const ENABLE: u32 = 4 << 20 | 6 << 16 | 1;
const FUA: u32 = 1 << 30;

/// What all hosts of a run share.
pub struct Run {
    pub(crate) plan: Plan,
    pub ledger: Rc<RefCell<Ledger>>,
    pub hosts_left: Cell<u64>,
}

/// One host.
pub struct Host {
    pub run: Rc<Run>,
    pub env: SimEnv,
    pub number: u32,
    pub paths: [SocketAddr; 2],
    /// Commands it still has to issue.
    pub left: Cell<u64>,
}

/// A controller with its queues.
struct Association {
    admin: Queue,
    io: Vec<Queue>,
    kato: Duration,
    /// Every write is durable when it completes: the host never asked whether there is a cache.
    write_through: bool,
    over: Cell<bool>,
    /// The host has begun to reset the controller.
    resetting: Cell<bool>,
    /// Writes without a reply.
    unknown: RefCell<Vec<WriteTicket>>,
}

fn command(opcode: u8, nsid: u32) -> Sqe {
    let mut sqe = Sqe::zeroed();
    sqe.opcode = opcode;
    sqe.nsid = U32::new(nsid);
    sqe
}

fn ranged(opcode: u8, lba: u64, blocks: u64, flags: u32) -> Sqe {
    let mut sqe = command(opcode, 1);
    sqe.cdw10 = U32::new(lba as u32);
    sqe.cdw11 = U32::new((lba >> 32) as u32);
    sqe.cdw12 = U32::new((blocks as u32 - 1) | flags);
    sqe
}

impl Host {
    /// Works until all commands are issued, over as many associations as it takes.
    pub async fn work(self) {
        while self.left.get() > 0 {
            match self.associate().await {
                Some(association) => self.use_up(association).await,
                None => sleep(&self.env, Duration::from_micros(self.env.random_below(500_000))).await,
            }
        }
        self.run.hosts_left.set(self.run.hosts_left.get() - 1);
    }

    /// Reads every block once, trying until it works.
    pub async fn audit(self) {
        let (mut lba, blocks) = (0, self.run.plan.blocks);
        while lba < blocks {
            let Some(association) = self.associate().await else { continue };
            while lba < blocks && self.read(&association, lba, 1).await.is_some() {
                lba += 1;
            }
        }
    }

    fn draw(&self, bound: u64) -> u64 {
        self.env.random_below(bound)
    }

    async fn reply(&self, call: impl Future<Output = Option<Reply>>) -> Option<Reply> {
        let reply = within(&self.env, TIMEOUT, call).await;
        if reply.is_none() {
            self.env.marks().hit("host: no reply in time");
        }
        reply.flatten()
    }

    /// An admin or Fabrics command that must succeed. `None` when the connection ends first.
    async fn ask(&self, queue: &Queue, sqe: Sqe, out: Vec<u8>, into: usize) -> Option<Reply> {
        let reply = self.reply(queue.call(sqe, out, into)).await?;
        if !reply.status().is_success() {
            self.env.marks().hit("host: set-up refused");
            return None;
        }
        Some(reply)
    }

    /// Brings a controller up. `None` where the network, or a target that just lost the controller, says no.
    async fn associate(&self) -> Option<Association> {
        let path = self.paths[self.draw(2) as usize];
        let options = Options {
            header_digest: self.draw(2) == 0,
            data_digest: self.draw(2) == 0,
            hpda: self.draw(4) as u8,
            max_r2t: self.draw(4) as u32,
        };
        let kato = [0, 5_000, 120_000][self.draw(3) as usize];
        let cattr = if self.draw(2) == 0 { CATTR_DISABLE_SQ_FLOW_CONTROL } else { 0 };
        let open = within(&self.env, TIMEOUT, Queue::open(&self.env, path, options));
        let admin = open.await.flatten()?;
        let connected = self.connect(&admin, CONTROLLER_ANY, 0, cattr, kato).await?;
        let cntlid = connected.cqe.dw0.get() as u16;
        self.set_property(&admin, property::CONFIGURATION, ENABLE).await?;
        self.wait_ready(&admin, 1).await?;
        let write_through = self.draw(4) == 0;
        if !write_through {
            let mut identify = command(admin::IDENTIFY, 0);
            identify.cdw10 = U32::new(1);
            let reply = self.ask(&admin, identify, Vec::new(), 4096).await?;
            let cache = reply.data.get(525).is_some_and(|vwc| vwc & 1 != 0);
            if cache != self.run.plan.volatile_cache {
                self.env.fail("identify", format!("VWC says {cache}"));
            }
        }
        let queues = 1 + self.draw(3) as u16;
        let mut ask_queues = command(admin::SET_FEATURES, 0);
        ask_queues.cdw10 = U32::new(7);
        ask_queues.cdw11 = U32::new(u32::from(queues - 1) * 0x1_0001);
        self.ask(&admin, ask_queues, Vec::new(), 0).await?;
        let mut io = Vec::new();
        for qid in 1..=queues {
            let queue = within(&self.env, TIMEOUT, Queue::open(&self.env, path, options)).await.flatten()?;
            self.connect(&queue, cntlid, qid, cattr, 0).await?;
            io.push(queue);
        }
        self.env.marks().hit(if kato == 0 {
            "host: associated without keep-alive"
        } else {
            "host: associated"
        });
        Some(Association {
            admin,
            io,
            kato: Duration::from_millis(u64::from(kato)),
            write_through,
            over: Cell::new(false),
            resetting: Cell::new(false),
            unknown: RefCell::default(),
        })
    }

    async fn connect(&self, queue: &Queue, cntlid: u16, qid: u16, cattr: u8, kato: u32) -> Option<Reply> {
        let mut data = ConnectData::new_zeroed();
        data.host_id = [self.number as u8 + 1; 16];
        data.controller_id = U16::new(cntlid);
        data.subsystem_nqn[..SUBSYSTEM.len()].copy_from_slice(SUBSYSTEM.as_bytes());
        let name = format!("nqn.2014-08.org.nvmexpress:host-{}", self.number);
        data.host_nqn[..name.len()].copy_from_slice(name.as_bytes());
        let mut sqe = command(admin::FABRICS, u32::from(fabrics::CONNECT));
        sqe.cdw10 = U32::new(u32::from(qid) << 16);
        sqe.cdw11 = U32::new(31 | u32::from(cattr) << 16);
        sqe.cdw12 = U32::new(kato);
        self.ask(queue, sqe, data.as_bytes().to_vec(), 0).await
    }

    async fn set_property(&self, queue: &Queue, offset: u32, value: u32) -> Option<Reply> {
        let mut sqe = command(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
        sqe.cdw11 = U32::new(offset);
        sqe.cdw12 = U32::new(value);
        self.ask(queue, sqe, Vec::new(), 0).await
    }

    /// Waits until CSTS.RDY is `wanted`.
    async fn wait_ready(&self, queue: &Queue, wanted: u32) -> Option<()> {
        let mut sqe = command(admin::FABRICS, u32::from(fabrics::PROPERTY_GET));
        sqe.cdw11 = U32::new(property::STATUS);
        loop {
            let reply = self.ask(queue, sqe, Vec::new(), 0).await?;
            if reply.cqe.dw0.get() & 1 == wanted {
                return Some(());
            }
            sleep(&self.env, Duration::from_millis(1)).await;
        }
    }

    /// Issues commands until the association breaks, is reset or has done its part.
    async fn use_up(&self, association: Association) {
        let association = &association;
        let share = Cell::new(1 + self.draw(60));
        let busy = Cell::new(1 + self.draw(8));
        let workers = (0..busy.get()).map(|_| async {
            self.issue(association, &share).await;
            busy.set(busy.get() - 1);
        });
        let resets = self.draw(4) == 0;
        let keeper = async {
            let mut gone = false;
            while busy.get() > 0 && !gone {
                if resets && self.draw(8) == 0 {
                    gone = self.reset(association).await;
                    association.over.set(true);
                    break;
                }
                let pause = if association.kato.is_zero() { TIMEOUT } else { association.kato / 2 };
                let pause = Duration::from_micros(self.draw(20_000)).min(pause);
                sleep(&self.env, pause).await;
                if !association.kato.is_zero()
                    && self
                        .ask(&association.admin, command(admin::KEEP_ALIVE, 0), Vec::new(), 0)
                        .await
                        .is_none()
                {
                    association.over.set(true);
                    break;
                }
            }
            gone
        };
        let mut keeper = Box::pin(keeper);
        let mut workers = Box::pin(join_all(workers));
        let (mut worked, mut gone) = (false, None);
        poll_fn(|cx| {
            worked = worked || workers.as_mut().poll(cx).is_ready();
            if gone.is_none()
                && let Poll::Ready(value) = keeper.as_mut().poll(cx)
            {
                gone = Some(value);
            }
            if worked && gone.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // After a reset that the target confirmed, nothing of the old controller may take effect any more.
        let end = if gone == Some(true) { WriteEnd::Fenced } else { WriteEnd::Unknown };
        for ticket in association.unknown.take() {
            self.env.marks().hit(if end == WriteEnd::Fenced {
                "host: fenced write"
            } else {
                "host: unknown write"
            });
            self.end_write(ticket, end);
        }
    }

    /// Resets the controller with commands outstanding; whether the target confirmed it.
    async fn reset(&self, association: &Association) -> bool {
        association.resetting.set(true);
        let reset = async {
            self.set_property(&association.admin, property::CONFIGURATION, 0).await?;
            self.wait_ready(&association.admin, 0).await
        };
        let confirmed = reset.await.is_some();
        if confirmed {
            self.env.marks().hit("host: controller reset");
        }
        confirmed
    }

    async fn issue(&self, association: &Association, share: &Cell<u64>) {
        let mut seen: Option<(u64, Vec<u8>)> = None;
        while share.get() > 0 && self.left.get() > 0 && !association.over.get() {
            share.set(share.get() - 1);
            self.left.set(self.left.get() - 1);
            let plan = self.run.plan;
            let blocks = 1 + self.draw(plan.blocks.min(16));
            let lba = self.draw(plan.blocks - blocks + 1);
            let answered = match self.draw(16) {
                0..5 => match self.read(association, lba, blocks).await {
                    Some(data) => {
                        seen = Some((lba, data[..plan.block_bytes as usize].to_vec()));
                        true
                    }
                    None => false,
                },
                5..10 => self.write(association, lba, blocks).await,
                10 => self.write_zeroes(association, lba, blocks).await,
                11 => self.deallocate(association, lba, blocks).await,
                12 => self.flush(association).await,
                n => match seen.take() {
                    Some((lba, data)) if n == 13 => self.compare(association, lba, data).await,
                    Some((lba, data)) => self.compare_and_write(association, lba, data).await,
                    None => {
                        sleep(&self.env, Duration::from_micros(self.draw(3000))).await;
                        true
                    }
                },
            };
            if !answered {
                association.over.set(true);
            }
        }
    }

    fn queue<'a>(&self, association: &'a Association) -> &'a Queue {
        let queue = &association.io[self.draw(association.io.len() as u64) as usize];
        if queue.is_dead() {
            association.over.set(true);
        }
        queue
    }

    /// A status that nothing here explains.
    fn unexpected(&self, what: &str, status: Status) {
        self.env.fail("status", format!("{what}: {status:?}"));
    }

    fn end_write(&self, ticket: WriteTicket, end: WriteEnd) {
        if let Err(violation) = self.run.ledger.borrow_mut().end_write(ticket, end) {
            self.env.fail("register", violation.to_string());
        }
    }

    async fn read(&self, association: &Association, lba: u64, blocks: u64) -> Option<Vec<u8>> {
        let ticket = self.run.ledger.borrow_mut().begin_read(lba, blocks);
        let bytes = blocks as usize * self.run.plan.block_bytes as usize;
        let call = self.queue(association).call(ranged(io::READ, lba, blocks, 0), Vec::new(), bytes);
        let reply = self.reply(call).await;
        let ledger = &mut *self.run.ledger.borrow_mut();
        match reply {
            Some(reply) if reply.status().is_success() => {
                if let Err(wrong) = ledger.end_read(ticket, &reply.data) {
                    self.env.fail("register", wrong.to_string());
                }
                Some(reply.data)
            }
            other => {
                ledger.drop_read(ticket);
                if let Some(reply) = other {
                    self.refused("read", reply.status(), association);
                }
                None
            }
        }
    }

    /// A command on a controller that was reset may be refused; any other must not.
    fn refused(&self, what: &str, status: Status, association: &Association) {
        let ended = [
            Status::COMMAND_SEQUENCE_ERROR,
            Status::ABORTED_SQ_DELETION,
            Status::ABORTED_BY_REQUEST,
            Status::NAMESPACE_NOT_READY,
        ];
        if !association.resetting.get() || !ended.contains(&status) {
            self.unexpected(what, status);
        }
    }

    /// Ends a write-like command by its reply; whether there was one.
    fn ended(
        &self,
        what: &str,
        association: &Association,
        ticket: WriteTicket,
        reply: Option<&Reply>,
    ) -> bool {
        match reply.map(Reply::status) {
            Some(status) if status.is_success() => self.end_write(ticket, WriteEnd::Done),
            Some(status) => {
                self.refused(what, status, association);
                self.end_write(ticket, WriteEnd::Fenced);
            }
            None => association.unknown.borrow_mut().push(ticket),
        }
        reply.is_some()
    }

    async fn write(&self, association: &Association, lba: u64, blocks: u64) -> bool {
        let mut data = vec![0; blocks as usize * self.run.plan.block_bytes as usize];
        let fua = self.draw(3) == 0;
        let durable = fua || association.write_through;
        let ticket = self.run.ledger.borrow_mut().begin_write(self.number, lba, &mut data, durable);
        let sqe = ranged(io::WRITE, lba, blocks, if fua { FUA } else { 0 });
        let reply = self.reply(self.queue(association).call(sqe, data, 0)).await;
        self.ended("write", association, ticket, reply.as_ref())
    }

    async fn write_zeroes(&self, association: &Association, lba: u64, blocks: u64) -> bool {
        let fua = self.draw(3) == 0;
        let durable = fua || association.write_through;
        let ticket = self.run.ledger.borrow_mut().begin_zeroes(lba, blocks, durable);
        let flags = if fua { FUA } else { 0 } | (self.draw(2) as u32) << 25;
        let sqe = ranged(io::WRITE_ZEROES, lba, blocks, flags);
        let reply = self.reply(self.queue(association).call(sqe, Vec::new(), 0)).await;
        self.ended("write zeroes", association, ticket, reply.as_ref())
    }

    async fn deallocate(&self, association: &Association, lba: u64, blocks: u64) -> bool {
        let ticket = self.run.ledger.borrow_mut().begin_zeroes(lba, blocks, false);
        let mut sqe = command(io::DATASET_MANAGEMENT, 1);
        sqe.cdw11 = U32::new(4);
        let mut range = vec![0; 16];
        range[4..8].copy_from_slice(&(blocks as u32).to_le_bytes());
        range[8..16].copy_from_slice(&lba.to_le_bytes());
        let reply = self.reply(self.queue(association).call(sqe, range, 0)).await;
        self.ended("deallocate", association, ticket, reply.as_ref())
    }

    async fn flush(&self, association: &Association) -> bool {
        let ticket = self.run.ledger.borrow_mut().begin_flush();
        let reply = self.reply(self.queue(association).call(command(io::FLUSH, 1), Vec::new(), 0)).await;
        let Some(status) = reply.map(|reply| reply.status()) else { return false };
        if status.is_success() {
            self.run.ledger.borrow_mut().end_flush(ticket);
        } else {
            self.refused("flush", status, association);
        }
        true
    }

    async fn compare(&self, association: &Association, lba: u64, data: Vec<u8>) -> bool {
        let ticket = self.run.ledger.borrow_mut().begin_read(lba, 1);
        let sqe = ranged(io::COMPARE, lba, 1, 0);
        let reply = self.reply(self.queue(association).call(sqe, data.clone(), 0)).await;
        self.compared("compare", association, ticket, &data, reply.as_ref())
    }

    fn compared(
        &self,
        what: &str,
        association: &Association,
        ticket: ReadTicket,
        data: &[u8],
        reply: Option<&Reply>,
    ) -> bool {
        let ledger = &mut *self.run.ledger.borrow_mut();
        match reply.map(Reply::status) {
            Some(status) if status.is_success() => {
                self.env.marks().hit("host: compared equal");
                if let Err(wrong) = ledger.end_read(ticket, data) {
                    self.env.fail("register", format!("{what}: {wrong}"));
                }
            }
            other => {
                ledger.drop_read(ticket);
                match other {
                    Some(Status::COMPARE_FAILURE) => self.env.marks().hit("host: miscompare"),
                    Some(status) => self.refused(what, status, association),
                    None => {}
                }
            }
        }
        reply.is_some()
    }

    async fn compare_and_write(&self, association: &Association, lba: u64, expected: Vec<u8>) -> bool {
        let mut data = vec![0; self.run.plan.block_bytes as usize];
        let (read, write) = {
            let ledger = &mut *self.run.ledger.borrow_mut();
            let durable = association.write_through;
            (ledger.begin_read(lba, 1), ledger.begin_write(self.number, lba, &mut data, durable))
        };
        let (mut first, mut second) = (ranged(io::COMPARE, lba, 1, 0), ranged(io::WRITE, lba, 1, 0));
        first.flags = 1;
        second.flags = 2;
        let pair = self.queue(association).call_pair([(first, expected.clone()), (second, data)]);
        let replies = within(&self.env, TIMEOUT, pair).await.unwrap_or([None, None]);
        let [compared, written] = &replies;
        let answered = self.compared("fused compare", association, read, &expected, compared.as_ref());
        if written.as_ref().is_some_and(|reply| reply.status() == Status::ABORTED_FAILED_FUSED) {
            self.end_write(write, WriteEnd::Refused);
            return answered;
        }
        self.ended("fused write", association, write, written.as_ref()) && answered
    }
}

//! A host model: it logs in as a real initiator does, keeps several commands outstanding, gives up and comes back under
//! the same name, and tells the ledger of every command.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::Rng;
use ashlar_iscsi::wire::request::function;
use ashlar_sim::SimEnv;
use ashlar_sim::check::ledger::{Ledger, WriteEnd, WriteTicket};
use ashlar_sim::conformance::{join_all, sleep, within};

use super::Plan;
use super::link::{Link, Options, Reply};
use super::node::TARGET;
use crate::bytes::Digests;

/// How long a host waits for one reply.
const TIMEOUT: Duration = Duration::from_secs(40);
const FUA: u8 = 0x08;
const TASK_ABORTED: u8 = 0x40;
const BUSY: u8 = 0x08;

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
    /// Writes without a reply, of sessions that may not have ended yet.
    pub unknown: RefCell<Vec<WriteTicket>>,
}

fn cdb16(code: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (code, flags);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

impl Host {
    /// Works until all commands are issued, over as many sessions as it takes.
    pub async fn work(self) {
        while self.left.get() > 0 {
            match self.log_in().await {
                Some(link) => self.use_up(&link).await,
                None => sleep(&self.env, Duration::from_micros(self.draw(500_000))).await,
            }
        }
        for ticket in self.unknown.take() {
            self.end_write(ticket, WriteEnd::Unknown);
        }
        self.run.hosts_left.set(self.run.hosts_left.get() - 1);
    }

    /// Reads every block once, trying until it works.
    pub async fn audit(self) {
        let (mut lba, blocks) = (0, self.run.plan.blocks);
        while lba < blocks {
            let Some(link) = self.log_in().await else { continue };
            while lba < blocks && self.read(&link, lba, 1).await.is_some() {
                lba += 1;
            }
        }
    }

    fn draw(&self, bound: u64) -> u64 {
        self.env.random_below(bound)
    }

    /// A session under the host's one ISID: it takes the place of whatever was there, nothing of which takes effect
    /// after this.
    async fn log_in(&self) -> Option<Link> {
        let lengths = [512, 1000, 4096, 8192, 65536, 262_144];
        let length = |draw: u64| lengths[draw as usize % lengths.len()];
        let options = Options {
            digests: Digests { header: self.draw(2) == 0, data: self.draw(2) == 0 },
            initial_r2t: self.draw(2) == 0,
            immediate_data: self.draw(3) != 0,
            segment: length(self.draw(6)),
            burst: length(self.draw(6)),
            first_burst: 512,
        };
        let options = Options { first_burst: options.burst.min(length(self.draw(5))), ..options };
        let (path, name) = (self.paths[self.draw(2) as usize], format!("iqn.host:{}", self.number));
        let open = Link::open(&self.env, path, &name, [0, 2, 3, 0, 0, 1], TARGET, options);
        let link = within(&self.env, TIMEOUT, open).await.flatten()?;
        self.env.marks().hit("host: logged in");
        for ticket in self.unknown.take() {
            self.env.marks().hit("host: fenced write");
            self.end_write(ticket, WriteEnd::Fenced);
        }
        // POWER ON, RESET comes first.
        for _ in 0..10 {
            let reply = self.call(&link, [0; 16], Vec::new(), 0).await?;
            if reply.is_good() {
                return Some(link);
            }
            if reply.key() != Some(6) {
                self.unexpected("TEST UNIT READY", &reply);
            }
        }
        self.env.fail("status", "unit attentions without end");
        None
    }

    async fn call(&self, link: &Link, cdb: [u8; 16], out: Vec<u8>, into: u32) -> Option<Reply> {
        let reply = within(&self.env, TIMEOUT, link.call(cdb, out, into)).await;
        if reply.is_none() {
            self.env.marks().hit("host: no reply in time");
        }
        reply.flatten()
    }

    /// Issues commands until the session breaks, is reset or has done its part.
    async fn use_up(&self, link: &Link) {
        let share = Cell::new(1 + self.draw(60));
        let over = Cell::new(false);
        let workers = (0..1 + self.draw(8)).map(|_| self.issue(link, &share, &over));
        join_all(workers).await;
        if self.draw(3) > 0 || link.is_dead() {
            return;
        }
        // What has no reply yet is aborted, or was done before.
        let reset = within(&self.env, TIMEOUT, link.manage(function::LOGICAL_UNIT_RESET)).await.flatten();
        if let Some(response) = reset {
            if response != 0 {
                self.env.fail("status", format!("LOGICAL UNIT RESET: {response}"));
            }
            self.env.marks().hit("host: unit reset");
            for ticket in self.unknown.take() {
                self.end_write(ticket, WriteEnd::Fenced);
            }
        }
    }

    async fn issue(&self, link: &Link, share: &Cell<u64>, over: &Cell<bool>) {
        let mut seen: Option<(u64, Vec<u8>)> = None;
        while share.get() > 0 && self.left.get() > 0 && !over.get() && !link.is_dead() {
            share.set(share.get() - 1);
            self.left.set(self.left.get() - 1);
            let plan = self.run.plan;
            let blocks = 1 + self.draw(plan.blocks.min(16));
            let lba = self.draw(plan.blocks - blocks + 1);
            let answered = match self.draw(16) {
                0..5 => match self.read(link, lba, blocks).await {
                    Some(data) => {
                        seen = Some((lba, data[..plan.block_bytes as usize].to_vec()));
                        true
                    }
                    None => !link.is_dead(),
                },
                5..11 => self.write(link, lba, blocks).await,
                11 => self.write_same(link, lba, blocks).await,
                12 => self.unmap(link, lba, blocks).await,
                13 => self.flush(link).await,
                _ => match seen.take() {
                    Some((lba, data)) => self.compare_and_write(link, lba, data).await,
                    None => {
                        sleep(&self.env, Duration::from_micros(self.draw(3000))).await;
                        true
                    }
                },
            };
            if !answered {
                over.set(true);
            }
            if self.draw(200) == 0 {
                // Leaves with commands outstanding.
                self.env.marks().hit("host: left amid commands");
                over.set(true);
                return;
            }
        }
    }

    /// A status that nothing here explains.
    fn unexpected(&self, what: &str, reply: &Reply) {
        self.env.fail("status", format!("{what}: {reply:?}"));
    }

    /// Statuses of commands that did nothing, for reasons that occur here: another host's reset, and want of memory.
    fn refused(&self, what: &str, reply: &Reply) {
        match reply.status {
            TASK_ABORTED => self.env.marks().hit("host: aborted by another"),
            BUSY => self.env.marks().hit("host: busy"),
            2 if reply.key() == Some(6) => self.env.marks().hit("host: unit attention"),
            _ => self.unexpected(what, reply),
        }
    }

    fn end_write(&self, ticket: WriteTicket, end: WriteEnd) {
        if let Err(violation) = self.run.ledger.borrow_mut().end_write(ticket, end) {
            self.env.fail("register", violation.to_string());
        }
    }

    async fn read(&self, link: &Link, lba: u64, blocks: u64) -> Option<Vec<u8>> {
        let ticket = self.run.ledger.borrow_mut().begin_read(lba, blocks);
        let bytes = blocks as u32 * self.run.plan.block_bytes;
        let reply = self.call(link, cdb16(0x88, 0, lba, blocks as u32), Vec::new(), bytes).await;
        let ledger = &mut *self.run.ledger.borrow_mut();
        match reply {
            Some(reply) if reply.is_good() => {
                if let Err(wrong) = ledger.end_read(ticket, &reply.data) {
                    self.env.fail("register", wrong.to_string());
                }
                Some(reply.data)
            }
            other => {
                ledger.drop_read(ticket);
                if let Some(reply) = other {
                    self.refused("READ", &reply);
                }
                None
            }
        }
    }

    /// Ends a write-like command by its reply; whether there was one.
    fn ended(&self, what: &str, ticket: WriteTicket, reply: Option<&Reply>) -> bool {
        match reply {
            Some(reply) if reply.is_good() => self.end_write(ticket, WriteEnd::Done),
            Some(reply) => {
                self.refused(what, reply);
                self.end_write(ticket, WriteEnd::Refused);
            }
            None => {
                self.env.marks().hit("host: unknown write");
                self.unknown.borrow_mut().push(ticket);
            }
        }
        reply.is_some()
    }

    async fn write(&self, link: &Link, lba: u64, blocks: u64) -> bool {
        let mut data = vec![0; blocks as usize * self.run.plan.block_bytes as usize];
        let fua = self.draw(3) == 0;
        let ticket = self.run.ledger.borrow_mut().begin_write(self.number, lba, &mut data, fua);
        let cdb = cdb16(0x8A, if fua { FUA } else { 0 }, lba, blocks as u32);
        let reply = self.call(link, cdb, data, 0).await;
        self.ended("WRITE", ticket, reply.as_ref())
    }

    /// Zeros, sometimes with UNMAP.
    async fn write_same(&self, link: &Link, lba: u64, blocks: u64) -> bool {
        let ticket = self.run.ledger.borrow_mut().begin_zeroes(lba, blocks, false);
        let cdb = cdb16(0x93, if self.draw(2) == 0 { 0x08 } else { 0 }, lba, blocks as u32);
        let zeros = vec![0; self.run.plan.block_bytes as usize];
        let reply = self.call(link, cdb, zeros, 0).await;
        self.ended("WRITE SAME", ticket, reply.as_ref())
    }

    async fn unmap(&self, link: &Link, lba: u64, blocks: u64) -> bool {
        let ticket = self.run.ledger.borrow_mut().begin_zeroes(lba, blocks, false);
        let mut list = vec![0; 24];
        (list[1], list[3]) = (22, 16);
        list[8..16].copy_from_slice(&lba.to_be_bytes());
        list[16..20].copy_from_slice(&(blocks as u32).to_be_bytes());
        let mut cdb = [0; 16];
        (cdb[0], cdb[8]) = (0x42, 24);
        let reply = self.call(link, cdb, list, 0).await;
        self.ended("UNMAP", ticket, reply.as_ref())
    }

    async fn flush(&self, link: &Link) -> bool {
        let ticket = self.run.ledger.borrow_mut().begin_flush();
        let reply = self.call(link, cdb16(0x91, 0, 0, 0), Vec::new(), 0).await;
        let Some(reply) = reply else { return false };
        if reply.is_good() {
            self.run.ledger.borrow_mut().end_flush(ticket);
        } else {
            self.refused("SYNCHRONIZE CACHE", &reply);
        }
        true
    }

    async fn compare_and_write(&self, link: &Link, lba: u64, expected: Vec<u8>) -> bool {
        let mut data = vec![0; self.run.plan.block_bytes as usize];
        let (read, write) = {
            let ledger = &mut *self.run.ledger.borrow_mut();
            (ledger.begin_read(lba, 1), ledger.begin_write(self.number, lba, &mut data, false))
        };
        let mut cdb = cdb16(0x89, 0, lba, 0);
        cdb[13] = 1;
        let reply = self.call(link, cdb, [&expected[..], &data].concat(), 0).await;
        let miscompare = reply.as_ref().is_some_and(|reply| reply.key() == Some(0xE));
        if reply.as_ref().is_some_and(Reply::is_good) {
            self.env.marks().hit("host: compared equal");
            if let Err(wrong) = self.run.ledger.borrow_mut().end_read(read, &expected) {
                self.env.fail("register", format!("COMPARE AND WRITE: {wrong}"));
            }
        } else {
            self.run.ledger.borrow_mut().drop_read(read);
        }
        if miscompare {
            self.env.marks().hit("host: miscompare");
            self.end_write(write, WriteEnd::Refused);
            return true;
        }
        self.ended("COMPARE AND WRITE", write, reply.as_ref())
    }
}

//! What an administrator does while hosts write: snapshots, clones, restores, changes of size. What is under way when the
//! node crashes is found done or not done, never half.

use std::cell::RefCell;
use std::rc::Rc;

use ashlar_engine::lane::LaneError;
use ashlar_env::units::VolumeId;
use ashlar_env::{Clock, Rng};
use ashlar_sim::SimEnv;
use ashlar_sim::check::ledger::WriteEnd;

use super::host::{Host, Tolerance};
use super::world::{SimLane, World};

/// What a snapshot must hold for ever: the bytes of each volume.
pub struct Kept {
    pub number: u32,
    pub volumes: Vec<(u32, Vec<u8>)>,
    /// Whether these are all.
    pub whole: bool,
}

/// What was under way when the node crashed.
pub enum Pending {
    None,
    Forget(u32),
    Restore(u32),
    /// A volume of smaller size for a while.
    Shrink(u32),
}

/// A volume that is written by copies from others alone.
pub struct Mirror {
    pub number: u32,
    pub bytes: Vec<u8>,
    /// What was being copied to it: from which byte, and what.
    pub pending: Option<(usize, Vec<u8>)>,
}

/// What is known of the lane.
pub struct Books {
    pub hosts: Vec<Host>,
    pub kept: Vec<Kept>,
    pub next_id: u128,
    pub pending: Pending,
    pub may_fill: bool,
    /// Devices fail, and what is asked with them.
    pub may_fail: bool,
    pub snapshots_max: usize,
    /// Whether volumes change their sizes.
    pub resizes: bool,
    /// If there are copies: where those between volumes go.
    pub mirror: Option<Mirror>,
}

/// The administrator.
#[derive(Clone)]
pub struct Admin {
    pub world: World,
    pub books: Rc<RefCell<Books>>,
}

/// The bytes of volumes, by number.
type Contents = Vec<(u32, Vec<u8>)>;

impl Admin {
    pub fn fail(&self, what: impl std::fmt::Display) {
        self.world.control.fail("lane", what.to_string());
    }

    fn mark(&self, name: &str) {
        self.world.control.marks().hit(name);
    }

    pub fn hosts(&self) -> Vec<Host> {
        self.books.borrow().hosts.clone()
    }

    fn fresh_id(&self) -> VolumeId {
        let mut books = self.books.borrow_mut();
        books.next_id += 1;
        VolumeId(uuid::Uuid::from_u128(books.next_id))
    }

    /// The result, unless it is an error; a full disk may be none.
    fn good<T>(&self, what: &str, result: Result<T, LaneError>) -> Option<T> {
        match result {
            Ok(good) => Some(good),
            Err(LaneError::Full) if self.books.borrow().may_fill => {
                self.mark(&format!("{what} found no space"));
                None
            }
            Err(_) if self.books.borrow().may_fail => None,
            Err(error) => {
                self.fail(format!("{what}: {error}"));
                None
            }
        }
    }

    /// Something, at random.
    pub async fn act(&self, lane: &SimLane, env: &SimEnv) {
        let acts = if self.books.borrow().mirror.is_some() { 20 } else { 16 };
        match env.random_below(acts) {
            0..4 => self.snapshot(lane).await,
            4..6 => self.compare(lane, env).await,
            6..10 => self.forget(lane, env).await,
            10 => self.clone_host(lane, env).await,
            11 => self.drop_host(lane, env).await,
            12 | 13 => self.restore(lane).await,
            14 if self.books.borrow().resizes => self.resize(lane, env).await,
            16 | 17 => self.copy_within(lane, env).await,
            18 | 19 => self.copy_across(lane, env).await,
            _ => {
                let _ = self.good("compression", lane.set_compression(env.random_below(2) == 0).await);
            }
        }
    }

    /// A snapshot while hosts write. What it holds was there at one moment between its begin and its end.
    pub async fn snapshot(&self, lane: &SimLane) {
        if self.books.borrow().kept.len() >= self.books.borrow().snapshots_max {
            return;
        }
        let hosts = self.hosts();
        let begin = |host: &Host| host.ledger.borrow_mut().begin_read(0, host.blocks);
        let tickets: Vec<_> = hosts.iter().map(begin).collect();
        if hosts.iter().any(|host| host.active.get() > 0) {
            self.mark("a snapshot was cut while hosts wrote");
        }
        let made = lane.snapshot().await;
        // Nothing is submitted from now on until its contents are read: they are held against this moment.
        hosts.iter().for_each(|host| host.held.set(true));
        if let Some(number) = self.good("snapshot", made) {
            let mut volumes = Vec::new();
            for (host, ticket) in hosts.iter().zip(tickets) {
                let bytes = self.bytes_in(lane, number, host).await;
                let Some(bytes) = bytes else { break };
                if let Err(wrong) = host.ledger.borrow_mut().end_read(ticket, &bytes) {
                    self.fail(format!("snapshot {number} of volume {}: {wrong}", host.number));
                }
                volumes.push((host.number, bytes));
            }
            let whole = volumes.len() == hosts.len();
            if let Some(mirror) = &self.books.borrow().mirror {
                volumes.push((mirror.number, mirror.bytes.clone()));
            }
            self.books.borrow_mut().kept.push(Kept { number, volumes, whole });
        }
        hosts.iter().for_each(Host::release);
    }

    /// What snapshot `number` holds of a volume, read through a clone. `None` where there is no space for that.
    async fn bytes_in(&self, lane: &SimLane, number: u32, host: &Host) -> Option<Vec<u8>> {
        let made = lane.clone_volume(self.fresh_id(), number, host.number).await;
        let clone = self.good("clone", made)?;
        let bytes = host.bytes_of(lane, clone).await;
        let _ = self.good("delete of a clone", lane.delete_volume(clone).await);
        bytes
    }

    /// Compares what a snapshot holds with what it held.
    pub async fn compare(&self, lane: &SimLane, env: &SimEnv) {
        let Some((number, volumes)) = self.any_snapshot(env) else { return };
        let hosts = self.hosts();
        for (volume, bytes) in volumes {
            let like = Host { blocks: bytes.len() as u64 / u64::from(hosts[0].block), ..hosts[0].clone() };
            let Some(clone) = self.good("clone", lane.clone_volume(self.fresh_id(), number, volume).await)
            else {
                return;
            };
            let found = like.bytes_of(lane, clone).await;
            if found.is_some_and(|found| found != bytes) {
                self.fail(format!("volume {volume} in snapshot {number} has changed"));
            }
            let _ = self.good("delete of a clone", lane.delete_volume(clone).await);
        }
    }

    fn any_snapshot(&self, env: &SimEnv) -> Option<(u32, Contents)> {
        let books = self.books.borrow();
        if books.kept.is_empty() {
            return None;
        }
        let kept = &books.kept[env.random_below(books.kept.len() as u64) as usize];
        Some((kept.number, kept.volumes.clone()))
    }

    /// Deletes a snapshot.
    pub async fn forget(&self, lane: &SimLane, env: &SimEnv) {
        let Some((number, _)) = self.any_snapshot(env) else { return };
        self.forget_one(lane, number).await;
    }

    /// Deletes the first snapshot.
    pub async fn forget_first(&self, lane: &SimLane) {
        let first = self.books.borrow().kept.first().map(|kept| kept.number);
        if let Some(number) = first {
            self.forget_one(lane, number).await;
        }
    }

    async fn forget_one(&self, lane: &SimLane, number: u32) {
        self.books.borrow_mut().pending = Pending::Forget(number);
        match lane.delete_snapshot(number).await {
            Err(LaneError::InUse(_)) => self.mark("a snapshot with a clone was not deleted"),
            result => {
                if self.good("delete of a snapshot", result).is_some() {
                    self.books.borrow_mut().kept.retain(|kept| kept.number != number);
                } else if self.books.borrow().may_fail {
                    // It may have happened all the same.
                    return;
                }
            }
        }
        self.books.borrow_mut().pending = Pending::None;
    }

    /// A clone that hosts write to.
    async fn clone_host(&self, lane: &SimLane, env: &SimEnv) {
        let Some((number, volumes)) = self.any_snapshot(env) else { return };
        if self.hosts().len() > 3 || volumes.is_empty() {
            return;
        }
        let (of, bytes) = &volumes[env.random_below(volumes.len() as u64) as usize];
        let Some(clone) = self.good("clone", lane.clone_volume(self.fresh_id(), number, *of).await) else {
            return;
        };
        let like = self.hosts().into_iter().find(|host| host.number == *of);
        let Some(like) = like else {
            let _ = self.good("delete of a clone", lane.delete_volume(clone).await);
            return;
        };
        let origin = like.origin;
        let host = Host { drops: like.drops, longest: like.longest, origin, ..like.another(clone) };
        host.begin_with(origin, bytes);
        self.books.borrow_mut().hosts.push(host);
        self.mark("hosts wrote to a clone");
    }

    /// Deletes a clone that hosts wrote to.
    async fn drop_host(&self, lane: &SimLane, env: &SimEnv) {
        let clones: Vec<_> = self.hosts().into_iter().skip(2).collect();
        if clones.is_empty() {
            return;
        }
        let host = &clones[env.random_below(clones.len() as u64) as usize];
        host.hold().await;
        if self.good("delete of a volume", lane.delete_volume(host.number).await).is_some() {
            self.books.borrow_mut().hosts.retain(|other| other.number != host.number);
            host.gone.set(true);
        }
        host.release();
    }

    /// Goes back to the latest snapshot, all of whose volumes are known.
    async fn restore(&self, lane: &SimLane) {
        let hosts = self.hosts();
        let latest = {
            let books = self.books.borrow();
            books.kept.last().filter(|kept| kept.whole).map(|kept| (kept.number, kept.volumes.clone()))
        };
        let Some((number, volumes)) = latest else { return };
        let of = |volume: u32| hosts.iter().find(|host| host.number == volume);
        for host in &hosts {
            host.hold().await;
        }
        self.books.borrow_mut().pending = Pending::Restore(number);
        match lane.restore(number).await {
            // A clone hangs on it, or an unfinished snapshot is in the way.
            Err(LaneError::InUse(_)) => {}
            result => {
                if self.good("restore", result).is_some() {
                    for (volume, bytes) in &volumes {
                        if let Some(host) = of(*volume) {
                            host.begin_with(host.origin, bytes);
                        }
                    }
                    self.mirror_is(&volumes);
                    self.mark("volumes were restored");
                }
            }
        }
        self.books.borrow_mut().pending = Pending::None;
        hosts.iter().for_each(Host::release);
    }

    /// Makes a volume smaller and larger again: what was beyond the end in between is zero.
    async fn resize(&self, lane: &SimLane, env: &SimEnv) {
        let hosts = self.hosts();
        let host = &hosts[env.random_below(hosts.len() as u64) as usize];
        let before = host.tolerance.get();
        host.tolerance.set(Tolerance { range: true, ..before });
        let left = env.random_below(host.blocks);
        // Twice zero, and what is written in between is lost or not.
        let begin = || host.ledger.borrow_mut().begin_zeroes(left, host.blocks - left, true);
        let tickets = [begin(), begin()];
        self.books.borrow_mut().pending = Pending::Shrink(host.number);
        let small = lane.resize_volume(host.number, left * u64::from(host.block)).await;
        let small = self.good("resize", small).is_some();
        let large = self.grow_back(lane, env, host).await;
        // Operations that met the smaller size may still be under way.
        host.hold().await;
        let end = if small && large { WriteEnd::Done } else { WriteEnd::Fenced };
        for ticket in tickets {
            if let Err(violation) = host.ledger.borrow_mut().end_write(ticket, end) {
                self.fail(violation);
            }
        }
        if small && !large {
            self.fail("a volume could not grow again");
        }
        self.books.borrow_mut().pending = Pending::None;
        host.tolerance.set(before);
        host.release();
    }

    /// Nothing begins on a volume, and what was dropped on its way has happened or never will: then all that it holds. The
    /// caller releases it.
    async fn still(&self, lane: &SimLane, env: &SimEnv) -> Option<(Host, Vec<u8>)> {
        let hosts = self.hosts();
        let host = hosts[env.random_below(hosts.len() as u64) as usize].clone();
        host.hold().await;
        // A change that is logged comes after all that was logged before.
        let settled = lane.set_compression(env.random_below(2) == 0).await;
        let bytes = match self.good("compression", settled) {
            Some(()) => host.bytes_of(lane, host.number).await,
            None => None,
        };
        if bytes.is_none() {
            host.release();
        }
        Some((host, bytes?))
    }

    /// Copies a part of a volume to another place of it, while others are written.
    async fn copy_within(&self, lane: &SimLane, env: &SimEnv) {
        let Some((host, bytes)) = self.still(lane, env).await else { return };
        let count = 1 + env.random_below(host.blocks / 2);
        let from = env.random_below(host.blocks - count + 1);
        let to = env.random_below(host.blocks - count + 1);
        // Half of the copies lie as their sources do within blocks, so that they can refer to them.
        let per = u64::from(4096 / host.block);
        let to = if env.random_below(2) == 0 { to / per * per + from % per } else { to };
        if to + count <= host.blocks && (from + count <= to || to + count <= from) {
            host.copy(lane, &bytes, from, to, count).await;
            self.mark("a volume was copied to itself");
        }
        host.release();
    }

    /// Copies a part of a volume to one that nothing else changes.
    async fn copy_across(&self, lane: &SimLane, env: &SimEnv) {
        let Some((host, bytes)) = self.still(lane, env).await else { return };
        let sectors = (bytes.len() / 512) as u64;
        let (number, size) = {
            let books = self.books.borrow();
            let mirror = books.mirror.as_ref().expect("there are copies");
            (mirror.number, mirror.bytes.len() as u64 / 512)
        };
        let count = 1 + env.random_below(sectors.min(size));
        let from = env.random_below(sectors - count + 1);
        let at = env.random_below(size - count + 1);
        let at = if env.random_below(3) > 0 { (at / 8 * 8 + from % 8).min(size - count) } else { at };
        let new = bytes[from as usize * 512..(from + count) as usize * 512].to_vec();
        self.set_pending(Some((at as usize * 512, new)));
        let source = ashlar_env::units::ByteRange { start: from * 512, len: count * 512 };
        let copied = self.good("copy", lane.copy(host.number, &[source], number, at * 512).await);
        host.release();
        self.mirror_settles(lane, copied.is_some()).await;
        self.mark("a volume was copied to another");
    }

    fn set_pending(&self, pending: Option<(usize, Vec<u8>)>) {
        if let Some(mirror) = &mut self.books.borrow_mut().mirror {
            mirror.pending = pending;
        }
    }

    /// Holds what the mirror has against what it may have, sector by sector: after a copy that failed or a crash that is the
    /// old or the new.
    async fn mirror_settles(&self, lane: &SimLane, copied: bool) {
        let (number, before, pending) = {
            // A crash may come before all of it has been read: what was pending stays so until then.
            let books = self.books.borrow();
            let Some(mirror) = &books.mirror else { return };
            (mirror.number, mirror.bytes.clone(), mirror.pending.clone())
        };
        let host = &self.hosts()[0];
        let like = Host { blocks: before.len() as u64 / u64::from(host.block), ..host.clone() };
        let Some(found) = like.bytes_of(lane, number).await else { return };
        let mut after = before.clone();
        if let Some((at, new)) = &pending {
            after[*at..at + new.len()].copy_from_slice(new);
        }
        for (sector, found) in found.chunks(512).enumerate() {
            let part = sector * 512..sector * 512 + 512;
            let old = !copied && found == &before[part.clone()];
            if !old && found != &after[part] {
                return self.fail(format!("sector {sector} of the mirror is not what was copied there"));
            }
        }
        if let Some(mirror) = &mut self.books.borrow_mut().mirror {
            mirror.bytes = found;
            mirror.pending = None;
        }
    }

    /// The mirror is what a snapshot held.
    fn mirror_is(&self, volumes: &Contents) {
        if let Some(mirror) = &mut self.books.borrow_mut().mirror
            && let Some((_, bytes)) = volumes.iter().find(|(volume, _)| *volume == mirror.number)
        {
            mirror.bytes.clone_from(bytes);
        }
    }

    /// Gives a volume its size again; a full disk may take some time for that.
    async fn grow_back(&self, lane: &SimLane, env: &SimEnv, host: &Host) -> bool {
        for _ in 0..100 {
            let grown = lane.resize_volume(host.number, host.size_bytes()).await;
            if self.good("resize", grown).is_some() {
                return true;
            }
            env.sleep_until(env.now().plus(std::time::Duration::from_millis(5))).await;
        }
        false
    }

    /// After a crash: what was under way has happened or has not.
    pub async fn reconcile(&self, lane: &SimLane) {
        let pending = std::mem::replace(&mut self.books.borrow_mut().pending, Pending::None);
        for host in self.hosts() {
            host.release();
            host.active.set(0);
            let mut tolerance = host.tolerance.get();
            tolerance.range = false;
            host.tolerance.set(tolerance);
        }
        let report = lane.report();
        let has = |number: u32| report.snapshots.iter().any(|there| there.number == number && !there.leaving);
        if let Pending::Forget(number) = pending
            && !has(number)
        {
            self.mark("a crash hit the delete of a snapshot after it had happened");
            self.books.borrow_mut().kept.retain(|kept| kept.number != number);
        }
        for kept in &self.books.borrow().kept {
            if !has(kept.number) {
                self.fail(format!("snapshot {} is gone", kept.number));
            }
        }
        let mut volumes = self.hosts().iter().map(|host| host.number).collect::<Vec<_>>();
        volumes.extend(self.books.borrow().mirror.as_ref().map(|mirror| mirror.number));
        for volume in &report.volumes {
            if !volumes.contains(&volume.number) {
                self.mark("a crash left a clone");
                let _ = self.good("delete of a clone", lane.delete_volume(volume.number).await);
            }
        }
        for host in self.hosts() {
            match report.volumes.iter().find(|volume| volume.number == host.number) {
                None if host.number > 2 => {
                    self.mark("a crash hit the delete of a volume after it had happened");
                    self.books.borrow_mut().hosts.retain(|other| other.number != host.number);
                }
                None => self.fail(format!("volume {} is gone", host.number)),
                Some(volume) if volume.size_bytes != host.size_bytes() => {
                    self.grow_again(lane, &host, volume.size_bytes, &pending).await;
                }
                Some(_) => {}
            }
        }
        self.snapshots_unknown(lane).await;
        if let Pending::Restore(number) = pending {
            self.restored(lane, number).await;
        }
        self.mirror_settles(lane, false).await;
    }

    async fn grow_again(&self, lane: &SimLane, host: &Host, size_bytes: u64, pending: &Pending) {
        if !matches!(pending, Pending::Shrink(number) if *number == host.number) {
            return self.fail(format!("volume {} has {size_bytes} bytes", host.number));
        }
        self.mark("a crash left a volume smaller");
        let left = size_bytes / u64::from(host.block);
        let ticket = host.ledger.borrow_mut().begin_zeroes(left, host.blocks - left, true);
        if self.good("resize", lane.resize_volume(host.number, host.size_bytes()).await).is_none() {
            return self.fail("a volume could not grow again");
        }
        let ended = host.ledger.borrow_mut().end_write(ticket, WriteEnd::Done);
        ended.expect("it was not refused");
    }

    /// Deletes snapshots of which a crash did not let us know.
    async fn snapshots_unknown(&self, lane: &SimLane) {
        for there in lane.report().snapshots {
            let known = self.books.borrow().kept.iter().any(|kept| kept.number == there.number);
            if !known && !there.leaving {
                self.mark("a crash hit a snapshot after it had been cut");
                match lane.delete_snapshot(there.number).await {
                    Err(LaneError::InUse(_)) => {}
                    result => {
                        let _ = self.good("delete of a snapshot", result);
                    }
                }
            }
        }
    }

    /// A restore was under way: all volumes are what they were in the snapshot, or none is.
    async fn restored(&self, lane: &SimLane, number: u32) {
        let hosts = self.hosts();
        let volumes = {
            let books = self.books.borrow();
            books.kept.iter().find(|kept| kept.number == number).map(|kept| kept.volumes.clone())
        };
        let mut all = true;
        let volumes = volumes.unwrap_or_default();
        self.mirror_was_restored(lane, &volumes).await;
        for (volume, bytes) in &volumes {
            if let Some(host) = hosts.iter().find(|host| host.number == *volume) {
                all &= host.bytes_of(lane, *volume).await.as_ref() == Some(bytes);
            }
        }
        if !all {
            // Then the ledgers must be right.
            return;
        }
        self.mark("a crash hit a restore after it had happened");
        for (volume, bytes) in &volumes {
            if let Some(host) = hosts.iter().find(|host| host.number == *volume) {
                host.begin_with(host.origin, bytes);
            }
        }
    }

    /// The mirror may be what it was in a snapshot.
    async fn mirror_was_restored(&self, lane: &SimLane, volumes: &Contents) {
        let number = self.books.borrow().mirror.as_ref().map(|mirror| mirror.number);
        let Some(number) = number else { return };
        let Some((_, bytes)) = volumes.iter().find(|(volume, _)| *volume == number) else { return };
        let host = &self.hosts()[0];
        let like = Host { blocks: bytes.len() as u64 / u64::from(host.block), ..host.clone() };
        if like.bytes_of(lane, number).await.as_ref() == Some(bytes) {
            self.mirror_is(volumes);
        }
    }
}

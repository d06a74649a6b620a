//! An open disk: operations with their time.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::{Buf, BufMut};

use super::DiskId;
use super::media::{Content, InFlight, Mischief};
use crate::event::Kind;
use crate::node::SimEnv;
use crate::rng::{Rate, digest};
use crate::world::World;

/// A disk opened by a node. Cloning gives the same handle.
#[derive(Clone)]
pub struct SimDisk {
    env: SimEnv,
    id: DiskId,
    epoch: u32,
    /// Why the handle takes no more writes and flushes.
    latched: Rc<RefCell<Option<String>>>,
}

/// Where an operation leaves its result.
struct Slot<T> {
    result: Option<Result<T, DiskError>>,
    waker: Option<Waker>,
}

type Shared<T> = Rc<RefCell<Slot<T>>>;

struct Operation<T>(Shared<T>);

impl<T> Future for Operation<T> {
    type Output = Result<T, DiskError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.borrow_mut();
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// How an operation will go: drawn when it is issued.
struct Course {
    operation: u64,
    /// From its issue until it takes effect, and from then until it completes, in nanoseconds.
    effect_ns: u64,
    rest_ns: u64,
}

/// A write, a discard or zeroes, as contents of sectors.
struct Change {
    first: u64,
    contents: Vec<Content>,
    fua: bool,
    digest: u64,
}

impl SimDisk {
    pub(crate) fn open(env: &SimEnv, id: DiskId) -> Self {
        let mut disks = env.world().disks.borrow_mut();
        let media = disks.media(id);
        media.holder = Some(env.node());
        let latched = Rc::new(RefCell::new(media.broken.clone()));
        let epoch = media.epoch;
        Self { env: env.clone(), id, epoch, latched }
    }

    fn world(&self) -> &Rc<World> {
        self.env.world()
    }

    /// The failure of an operation that can be told at its issue.
    fn refuse_write(&self, start: u64, len: u64) -> Result<(), DiskError> {
        let mut disks = self.world().disks.borrow_mut();
        let media = disks.media(self.id);
        if media.info().read_only {
            return Err(DiskError::ReadOnly);
        }
        media.check(start, len)?;
        match &*self.latched.borrow() {
            Some(why) => Err(DiskError::Latched(why.clone())),
            None => Ok(()),
        }
    }

    fn course(&self) -> Course {
        let faults = self.world().profile.disk;
        let mut disks = self.world().disks.borrow_mut();
        let media = disks.media(self.id);
        let mut total = media.rng.tail(faults.latency_mean.as_nanos() as u64);
        if media.rng.hits(faults.slow) {
            total = total.saturating_add(media.rng.below(faults.slow_max.as_nanos() as u64));
        }
        let effect_ns = media.rng.between(0, total);
        Course { operation: media.fresh_operation(), effect_ns, rest_ns: total - effect_ns }
    }

    fn log(&self, kind: Kind, operation: u64, what: u64) {
        self.world().log(kind, u64::from(self.id.0), operation, what);
    }

    /// Runs `effect` when the operation takes effect and hands its result over when it completes; `complete` is
    /// run just before. Neither happens after a crash.
    fn run<T: 'static>(
        &self,
        course: Course,
        effect: impl FnOnce(&Self) -> Result<T, DiskError> + 'static,
        complete: impl FnOnce(&Self) + 'static,
    ) -> Operation<T> {
        let slot: Shared<T> = Rc::new(RefCell::new(Slot { result: None, waker: None }));
        let (disk, shared) = (self.clone(), Rc::clone(&slot));
        self.world().after(course.effect_ns, move |world| {
            if disk.is_void() {
                return;
            }
            let result = effect(&disk);
            world.after(course.rest_ns, move |_| {
                if disk.is_void() {
                    return;
                }
                if result.is_ok() {
                    complete(&disk);
                }
                disk.log(Kind::DiskComplete, course.operation, u64::from(result.is_err()));
                let waker = {
                    let mut slot = shared.borrow_mut();
                    slot.result = Some(result);
                    slot.waker.take()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
            });
        });
        Operation(slot)
    }

    fn fail<T: 'static>(&self, error: DiskError) -> Operation<T> {
        let course = self.course();
        self.run(course, move |_| Err(error), |_| ())
    }

    /// Whether the node that opened the disk has crashed since.
    fn is_void(&self) -> bool {
        self.world().disks.borrow_mut().media(self.id).epoch != self.epoch || !self.env.is_alive()
    }

    fn latch(&self, why: &str) -> DiskError {
        self.latched.borrow_mut().get_or_insert_with(|| why.to_owned());
        if self.world().profile.disk.write_error_stays {
            self.world().disks.borrow_mut().media(self.id).broken = Some(why.to_owned());
        }
        DiskError::Medium(why.to_owned())
    }

    fn change(&self, change: Change) -> Operation<()> {
        let world = Rc::clone(self.world());
        let faults = world.profile.disk;
        let course = self.course();
        let operation = course.operation;
        let (first, count) = (change.first, change.contents.len() as u64);
        let planted = world.planted;
        let (fails, mischief, cut) = {
            let mut disks = world.disks.borrow_mut();
            let media = disks.media(self.id);
            if let Err(error) = media.reserve(first, count) {
                drop(disks);
                return self.fail(error);
            }
            let fails = media.rng.hits(faults.write_error);
            let mut mischief = media.mischief(&faults);
            mischief.lost |= planted.disk_reads_stale && media.rng.hits(Rate(2000));
            let lies = media.rng.hits(faults.lying_flush) || planted.fua_stays_cached;
            let fua = change.fua && !lies;
            let cut = media.rng.hits(Rate::percent(20)).then(|| media.rng.index(count as usize + 1));
            media.take_off(operation, InFlight { first, contents: change.contents.clone(), fua });
            (fails, mischief, cut)
        };
        self.log(Kind::DiskIssue, operation, first);
        if let Some(cut) = cut {
            self.land_part_early(operation, cut, course.effect_ns);
        }
        if planted.disk_repeats_write {
            self.repeat_later(&change, &course);
        }
        let sum = change.digest;
        self.run(
            course,
            move |disk| disk.land(operation, sum, fails, mischief),
            move |disk| disk.world().disks.borrow_mut().media(disk.id).complete(operation, first, count),
        )
    }

    /// Lets a front part of a write take effect before the rest.
    fn land_part_early(&self, operation: u64, count: usize, before_ns: u64) {
        let disk = self.clone();
        let wait = self.world().disks.borrow_mut().media(self.id).rng.between(0, before_ns);
        self.world().after(wait, move |world| {
            if !disk.is_void() {
                world.marks.hit("disk: write landed in two parts");
                world.disks.borrow_mut().media(disk.id).land_part(operation, count);
            }
        });
    }

    fn land(&self, operation: u64, sum: u64, fails: bool, mischief: Mischief) -> Result<(), DiskError> {
        let world = self.world();
        let mut disks = world.disks.borrow_mut();
        let media = disks.media(self.id);
        if mischief != Mischief::default() {
            world.log(Kind::Fault, u64::from(self.id.0), operation, 0);
        }
        if fails {
            media.land_some(operation);
            let why = format!("{}: write failed", media.name);
            drop(disks);
            world.marks.hit("disk: write error");
            return Err(self.latch(&why));
        }
        media.land(operation, mischief);
        drop(disks);
        self.log(Kind::DiskLand, operation, sum);
        Ok(())
    }

    /// The planted bug: the same write once more, long after its completion.
    fn repeat_later(&self, change: &Change, course: &Course) {
        let mut disks = self.world().disks.borrow_mut();
        let media = disks.media(self.id);
        if !media.rng.hits(Rate(5000)) {
            return;
        }
        let again = media.fresh_operation();
        let wait = course.effect_ns + course.rest_ns + media.rng.between(1_000_000, 50_000_000);
        let write = InFlight { first: change.first, contents: change.contents.clone(), fua: change.fua };
        drop(disks);
        let disk = self.clone();
        self.world().after(wait, move |world| {
            if !disk.is_void() {
                let mut disks = world.disks.borrow_mut();
                disks.media(disk.id).take_off(again, write);
                disks.media(disk.id).land(again, Mischief::default());
            }
        });
    }

    fn sectors(&self, start: u64, len: u64) -> (u64, u64) {
        let size = self.world().disks.borrow_mut().media(self.id).sector_bytes();
        (start / size, len / size)
    }
}

impl Disk for SimDisk {
    fn info(&self) -> DiskInfo {
        self.world().disks.borrow_mut().media(self.id).info()
    }

    fn read(&self, start: u64, mut buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let len = buf.len() as u64;
        let fits = self.world().disks.borrow_mut().media(self.id).check(start, len);
        if let Err(error) = fits {
            return self.fail(error);
        }
        let course = self.course();
        self.log(Kind::DiskIssue, course.operation, start);
        let read = move |disk: &Self| {
            let world = disk.world();
            let mut disks = world.disks.borrow_mut();
            let media = disks.media(disk.id);
            if media.decay(start, len, world.profile.disk.latent_read_error) {
                world.marks.hit("disk: latent sector error");
            }
            media.read(start, &mut buf)?;
            Ok(buf)
        };
        self.run(course, read, |_| ())
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        if let Err(error) = self.refuse_write(start, data.len() as u64) {
            return self.fail(error);
        }
        let (first, _) = self.sectors(start, 0);
        let contents = self.world().disks.borrow_mut().media(self.id).contents(&data);
        let fua = durability == Durability::Fua;
        self.change(Change { first, contents, fua, digest: digest(&data) })
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        if let Err(error) = self.refuse_write(0, 0) {
            // A device that cannot be written has nothing to flush.
            let done = if error == DiskError::ReadOnly { Ok(()) } else { Err(error) };
            let course = self.course();
            return self.run(course, move |_| done, |_| ());
        }
        let course = self.course();
        let faults = self.world().profile.disk;
        let (mark, fails, lies) = {
            let mut disks = self.world().disks.borrow_mut();
            let media = disks.media(self.id);
            (media.completions(), media.rng.hits(faults.flush_error), media.rng.hits(faults.lying_flush))
        };
        let lies = lies || self.world().planted.flush_does_nothing;
        self.log(Kind::DiskIssue, course.operation, u64::MAX);
        let flush = move |disk: &Self| {
            if fails {
                disk.world().marks.hit("disk: flush error");
                return Err(disk.latch("flush failed"));
            }
            if !lies {
                disk.world().disks.borrow_mut().media(disk.id).flush(mark);
            }
            Ok(())
        };
        self.run(course, flush, |_| ())
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        if let Err(error) = self.refuse_write(range.start, range.len) {
            return self.fail(error);
        }
        let (first, count) = self.sectors(range.start, range.len);
        let contents = self.world().disks.borrow_mut().media(self.id).discarded(first, count);
        self.change(Change { first, contents, fua: false, digest: 0 })
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        _free: bool,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        if let Err(error) = self.refuse_write(range.start, range.len) {
            return self.fail(error);
        }
        let (first, count) = self.sectors(range.start, range.len);
        let contents = vec![None; count as usize];
        self.change(Change { first, contents, fua: durability == Durability::Fua, digest: 0 })
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let block = u64::from(self.info().block_bytes);
        if self.info().read_only {
            return self.fail(DiskError::ReadOnly);
        }
        if !size_bytes.is_multiple_of(block) {
            return self.fail(DiskError::OutOfRange);
        }
        let course = self.course();
        let resize = move |disk: &Self| {
            disk.world().disks.borrow_mut().media(disk.id).resize(size_bytes);
            Ok(())
        };
        self.run(course, resize, |_| ())
    }
}

//! The segment table of a lane: what lives in each segment, and where compaction has put it.
//!
//! A segment has a *virtual* life, as what entries of the map name, and a *physical* one, as chunks. Both begin together.
//! Compaction ends the physical life first: from then on the segment is *hosted* by others, until nothing of it is live.

use std::collections::BTreeMap;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::ids::{SegmentId, SegmentKind};
use crate::map::{Address, Entry};

use super::counter::Counter;
use super::runs::{Parts, Runs};
use super::shared::{Change, Shared};

/// Where what a segment held is now.
#[derive(Clone, Debug)]
pub enum Place {
    /// In its own chunks.
    Here,
    /// In others.
    Hosted {
        /// in which, and how much of it each took; none where nothing was live
        parts: Parts,
        /// where in them
        runs: Rc<Runs>,
    },
}

/// A segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What it is for.
    pub kind: SegmentKind,
    /// Its length in bytes once it is sealed.
    pub sealed: Option<u32>,
    /// The birth of what was written to it first.
    pub birth: u32,
    /// Granules of it that entries name.
    pub live: Counter,
    /// Where they are.
    pub place: Place,
}

/// All segments of a lane.
#[derive(Default)]
pub struct Table {
    segments: FxHashMap<SegmentId, Segment>,
    /// Segments that hold what others held, with those others.
    guests: BTreeMap<SegmentId, Vec<SegmentId>>,
    /// The blocks that copies refer to.
    pub shared: Shared,
}

/// What is to be let go of together, later.
#[derive(Default)]
pub struct Released {
    /// Granules by segment.
    granules: FxHashMap<SegmentId, i64>,
    /// What others may hold as well.
    shared: Vec<Entry>,
}

impl Released {
    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.granules.is_empty() && self.shared.is_empty()
    }

    /// Adds what `other` has.
    pub fn join(&mut self, other: Self) {
        for (segment, granules) in other.granules {
            *self.granules.entry(segment).or_default() += granules;
        }
        self.shared.extend(other.shared);
    }
}

impl Table {
    /// Adds a segment.
    pub fn add(&mut self, id: SegmentId, kind: SegmentKind, birth: u32) {
        let segment = Segment { kind, sealed: None, birth, live: Counter::default(), place: Place::Here };
        self.segments.insert(id, segment);
    }

    /// Adds a segment as a checkpoint knew it.
    pub fn restore(&mut self, id: SegmentId, segment: Segment) {
        if let Place::Hosted { parts, .. } = &segment.place {
            for (host, _) in parts {
                self.guests.entry(*host).or_default().push(id);
            }
        }
        self.segments.insert(id, segment);
    }

    /// The segment.
    #[must_use]
    pub fn get(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.get(&id)
    }

    /// The segment, to change it.
    pub fn get_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.segments.get_mut(&id)
    }

    /// Whether the segment's contents are in its own chunks.
    #[must_use]
    pub fn is_here(&self, id: SegmentId) -> bool {
        self.segments.get(&id).is_some_and(|segment| matches!(segment.place, Place::Here))
    }

    /// All segments, in order of their numbers.
    #[must_use]
    pub fn sorted(&self) -> Vec<(SegmentId, &Segment)> {
        let mut all: Vec<_> = self.segments.iter().map(|(id, segment)| (*id, segment)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Which segment's chunks hold what is at `address`, and at which granule.
    #[must_use]
    pub fn resolve(&self, address: Address) -> Option<Address> {
        match &self.segments.get(&address.segment)?.place {
            Place::Here => Some(address),
            Place::Hosted { runs, .. } => runs.translate(address.position),
        }
    }

    /// `entry` is named once more, by a change that the running checkpoint does (`within`) or does not see.
    pub fn take(&mut self, entry: Entry, within: bool) {
        self.change(entry, i64::from(entry.granules()), within);
    }

    /// A copy names what `entry` names, which was written before the cut (`written_within`) or after it.
    pub fn take_copy(&mut self, entry: Entry, within: bool, written_within: bool) {
        if !entry.is_empty() {
            let change = self.shared.take(entry, within, written_within);
            self.change_shared(entry, change);
        }
    }

    /// `entry` is not named any more.
    pub fn release(&mut self, entry: Entry, within: bool) {
        match self.shared.release(entry, within) {
            Some(change) => self.change_shared(entry, change),
            None => self.change(entry, -i64::from(entry.granules()), within),
        }
    }

    fn change_shared(&mut self, entry: Entry, (at_cut, after): Change) {
        self.change(entry, at_cut * i64::from(entry.granules()), true);
        self.change(entry, after * i64::from(entry.granules()), false);
    }

    /// Notes that `entry` is to be let go of with `released`. What nobody else holds now nobody can hold by then: only what
    /// a volume shows is copied.
    pub fn note(&self, released: &mut Released, entry: Entry) {
        if self.shared.contains(entry.address()) {
            released.shared.push(entry);
        } else {
            *released.granules.entry(entry.address().segment).or_default() += i64::from(entry.granules());
        }
    }

    /// Lets go of all that was noted.
    pub fn release_all(&mut self, released: &Released, within: bool) {
        for (segment, granules) in &released.granules {
            let segment = self.segments.get_mut(segment).expect("what entries name is in the table");
            segment.live.add(-granules, within);
            debug_assert!(segment.live.now() >= 0, "{granules} granules were let go of twice");
        }
        for entry in &released.shared {
            self.release(*entry, within);
        }
    }

    fn change(&mut self, entry: Entry, by: i64, within: bool) {
        if entry.is_empty() {
            return;
        }
        let segment = self.segments.get_mut(&entry.address().segment);
        let segment = segment.expect("what entries name is in the table");
        segment.live.add(by, within);
        debug_assert!(segment.live.now() >= 0, "{entry:?} was let go of twice");
    }

    /// A checkpoint that saw all changes *within* is durable.
    pub fn settle(&mut self) {
        for segment in self.segments.values_mut() {
            segment.live.settle();
        }
        self.shared.settle();
    }

    /// The segments whose contents `host` holds for them.
    #[must_use]
    pub fn guests(&self, host: SegmentId) -> &[SegmentId] {
        self.guests.get(&host).map_or(&[], Vec::as_slice)
    }

    /// What is live in the chunks of `id`, in granules. What is live of a segment with several hosts is taken to be spread
    /// over them as it was when it moved.
    #[must_use]
    pub fn live_in(&self, id: SegmentId) -> i64 {
        self.sum(id, |segment| segment.live.now())
    }

    /// The same as the running checkpoint sees it.
    #[must_use]
    pub fn live_at_cut(&self, id: SegmentId) -> i64 {
        self.sum(id, |segment| segment.live.at_cut())
    }

    fn sum(&self, id: SegmentId, live: impl Fn(&Segment) -> i64) -> i64 {
        let own = self.segments.get(&id).filter(|segment| matches!(segment.place, Place::Here));
        let guests = self.guests(id).iter().filter_map(|guest| self.segments.get(guest));
        own.map_or(0, &live) + guests.map(|guest| share(guest, id, live(guest))).sum::<i64>()
    }

    /// What was of `guest` is where `runs` say from now on.
    pub fn move_to(&mut self, guest: SegmentId, runs: Runs) {
        let segment = self.segments.get_mut(&guest).expect("a guest is in the table");
        let parts = runs.parts();
        let place = Place::Hosted { parts: parts.clone(), runs: Rc::new(runs) };
        let before = std::mem::replace(&mut segment.place, place);
        self.leave_hosts(guest, &before);
        for (host, _) in parts {
            let guests = self.guests.entry(host).or_default();
            guests.push(guest);
            guests.sort_unstable();
        }
    }

    fn leave_hosts(&mut self, guest: SegmentId, place: &Place) {
        let Place::Hosted { parts, .. } = place else { return };
        for (host, _) in parts {
            if let Some(guests) = self.guests.get_mut(host) {
                guests.retain(|other| *other != guest);
            }
        }
    }

    /// Forgets a segment of which nothing is live and no chunk is left.
    pub fn remove(&mut self, id: SegmentId) {
        self.guests.remove(&id);
        if let Some(segment) = self.segments.remove(&id) {
            self.leave_hosts(id, &segment.place);
        }
    }
}

/// The part of `live` granules of `guest` that is in `host`: at least one as long as any is.
fn share(guest: &Segment, host: SegmentId, live: i64) -> i64 {
    let Place::Hosted { parts, .. } = &guest.place else { return live };
    let total: i64 = parts.iter().map(|(_, granules)| i64::from(*granules)).sum();
    let here: i64 =
        parts.iter().filter(|(other, _)| *other == host).map(|(_, granules)| i64::from(*granules)).sum();
    if parts.len() == 1 || total == 0 || live <= 0 { live } else { (live * here / total).max(1) }
}

//! The segment table of a lane: what lives in each segment, and where compaction has put it.
//!
//! A segment has a *virtual* life, as what entries of the map name, and a *physical* one, as chunks. Both begin together.
//! Compaction ends the physical life first: from then on the segment is *hosted* by another, until nothing of it is live.

use std::collections::BTreeMap;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::ids::{SegmentId, SegmentKind};
use crate::map::{Address, Entry};

use super::counter::Counter;
use super::runs::Runs;

/// Where what a segment held is now.
#[derive(Clone, Debug)]
pub enum Place {
    /// In its own chunks.
    Here,
    /// In another segment.
    Hosted {
        /// which
        host: SegmentId,
        /// where in it
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
}

impl Table {
    /// Adds a segment.
    pub fn add(&mut self, id: SegmentId, kind: SegmentKind, birth: u32) {
        let segment = Segment { kind, sealed: None, birth, live: Counter::default(), place: Place::Here };
        self.segments.insert(id, segment);
    }

    /// Adds a segment as a checkpoint knew it.
    pub fn restore(&mut self, id: SegmentId, segment: Segment) {
        if let Place::Hosted { host, .. } = segment.place {
            self.guests.entry(host).or_default().push(id);
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
            Place::Hosted { host, runs } => {
                Some(Address { segment: *host, position: runs.translate(address.position)? })
            }
        }
    }

    /// `entry` is named once more, by a change that the running checkpoint does (`within`) or does not see.
    pub fn take(&mut self, entry: Entry, within: bool) {
        self.change(entry, i64::from(entry.granules()), within);
    }

    /// `entry` is not named any more.
    pub fn release(&mut self, entry: Entry, within: bool) {
        self.change(entry, -i64::from(entry.granules()), within);
    }

    fn change(&mut self, entry: Entry, by: i64, within: bool) {
        if entry.is_empty() {
            return;
        }
        let segment = self.segments.get_mut(&entry.address().segment);
        segment.expect("what entries name is in the table").live.add(by, within);
    }

    /// `granules` granules of `id` are not named any more.
    pub fn release_granules(&mut self, id: SegmentId, granules: i64, within: bool) {
        self.segments.get_mut(&id).expect("what entries name is in the table").live.add(-granules, within);
    }

    /// A checkpoint that saw all changes *within* is durable.
    pub fn settle(&mut self) {
        for segment in self.segments.values_mut() {
            segment.live.settle();
        }
    }

    /// The segments whose contents `host` holds for them.
    #[must_use]
    pub fn guests(&self, host: SegmentId) -> &[SegmentId] {
        self.guests.get(&host).map_or(&[], Vec::as_slice)
    }

    /// What is live in the chunks of `id`, in granules.
    #[must_use]
    pub fn live_in(&self, id: SegmentId) -> i64 {
        let own = self.segments.get(&id).filter(|segment| matches!(segment.place, Place::Here));
        let guests = self.guests(id).iter().filter_map(|guest| self.segments.get(guest));
        own.into_iter().chain(guests).map(|segment| segment.live.now()).sum()
    }

    /// What the running checkpoint sees as live in the chunks of `id`, in granules.
    #[must_use]
    pub fn live_at_cut(&self, id: SegmentId) -> i64 {
        let own = self.segments.get(&id).filter(|segment| matches!(segment.place, Place::Here));
        let guests = self.guests(id).iter().filter_map(|guest| self.segments.get(guest));
        own.into_iter().chain(guests).map(|segment| segment.live.at_cut()).sum()
    }

    /// What was of `guest` is in `host` from now on.
    pub fn move_to(&mut self, guest: SegmentId, host: SegmentId, runs: Rc<Runs>) {
        let segment = self.segments.get_mut(&guest).expect("a guest is in the table");
        if let Place::Hosted { host: before, .. } = segment.place
            && let Some(guests) = self.guests.get_mut(&before)
        {
            guests.retain(|other| *other != guest);
        }
        segment.place = Place::Hosted { host, runs };
        let guests = self.guests.entry(host).or_default();
        guests.push(guest);
        guests.sort_unstable();
    }

    /// Forgets a segment of which nothing is live and no chunk is left.
    pub fn remove(&mut self, id: SegmentId) {
        self.guests.remove(&id);
        if let Some(Segment { place: Place::Hosted { host, .. }, .. }) = self.segments.remove(&id)
            && let Some(guests) = self.guests.get_mut(&host)
        {
            guests.retain(|other| *other != id);
        }
    }
}

//! How many connections there may be: in all, and per source address while they have not finished login.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::limits::Limits;

/// Counts the connections of a node. It lives on the reactor that accepts.
pub struct Admission {
    all: Arc<AtomicU32>,
    all_max: u32,
    fresh: BTreeMap<IpAddr, Arc<AtomicU32>>,
    fresh_max: u32,
}

/// A connection's share of the limits, given back when it is dropped, on whichever reactor.
pub struct Ticket {
    all: Arc<AtomicU32>,
    fresh: Option<Arc<AtomicU32>>,
}

impl Admission {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            all: Arc::default(),
            all_max: limits.connections_max,
            fresh: BTreeMap::new(),
            fresh_max: limits.unauthenticated_per_address_max,
        }
    }

    /// A ticket for one more connection from `address`, if the limits allow.
    pub fn admit(&mut self, address: IpAddr) -> Option<Ticket> {
        self.fresh.retain(|_, count| count.load(Ordering::Relaxed) > 0);
        let fresh = Arc::clone(self.fresh.entry(address).or_default());
        if self.all.load(Ordering::Relaxed) >= self.all_max || fresh.load(Ordering::Relaxed) >= self.fresh_max
        {
            return None;
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        fresh.fetch_add(1, Ordering::Relaxed);
        Some(Ticket { all: Arc::clone(&self.all), fresh: Some(fresh) })
    }

    /// How many connections there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.all.load(Ordering::Relaxed)
    }
}

impl Ticket {
    /// Login succeeded: the connection no longer counts as fresh.
    pub fn logged_in(&mut self) {
        if let Some(fresh) = self.fresh.take() {
            fresh.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.logged_in();
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_are_given_back() {
        let limits = Limits { connections_max: 3, unauthenticated_per_address_max: 2, ..Limits::default() };
        let mut admission = Admission::new(&limits);
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let mut first = admission.admit(address(1)).unwrap();
        let _second = admission.admit(address(1)).unwrap();
        assert!(admission.admit(address(1)).is_none());
        first.logged_in();
        let third = admission.admit(address(1)).unwrap();
        assert!(admission.admit(address(2)).is_none());
        drop(third);
        assert!(admission.admit(address(2)).is_some());
        drop(first);
        assert_eq!(admission.count(), 1);
    }
}

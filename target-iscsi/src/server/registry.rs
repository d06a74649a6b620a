//! All sessions of the node: who may begin one, which one another replaces, and whom a reset concerns. It lives on one
//! reactor, is told of logins, logouts, task management and configuration, and never of I/O. Sans-IO: what is to be
//! told to connections is polled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ashlar_env::clock::Instant;

use super::message::{ConnectionId, Granted, Reply, Request};
use crate::limits::Limits;
use crate::login::Established;
use crate::view::Targets;
use crate::wire::LoginStatus;
use crate::wire::request::Isid;

/// One session, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReport {
    /// The target's name in lower case; `None` for a discovery session.
    pub target: Option<String>,
    /// The initiator's name in lower case.
    pub initiator: String,
    /// Its part of the session's identifier.
    pub isid: Isid,
    /// The target's part.
    pub tsih: u16,
    /// The tag of the portal group it came to.
    pub portal: u16,
    /// Since when it is there.
    pub since: Instant,
}

struct Entry {
    report: SessionReport,
    /// It has been told to end.
    ending: bool,
}

impl Entry {
    /// Whether a login of these names takes this session's place (RFC 7143, section 6.3.5).
    fn is_replaced_by(&self, other: &Established) -> bool {
        let report = &self.report;
        report.target.is_some()
            && (&report.target, &report.initiator, report.isid, report.portal)
                == (&other.target, &other.initiator, other.isid, other.portal_tag)
    }
}

/// A task management function that waits for other sessions.
struct Job {
    from: ConnectionId,
    tag: u32,
    waits_for: BTreeSet<ConnectionId>,
}

/// See the module.
pub struct Registry {
    targets: Arc<Targets>,
    sessions_max: u32,
    per_initiator_max: u32,
    sessions: BTreeMap<ConnectionId, Entry>,
    /// Logins that wait for the session whose place they take to end.
    pending: Vec<(ConnectionId, Box<Established>)>,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    next_session: u64,
    last_tsih: u16,
    effects: VecDeque<(ConnectionId, Reply)>,
}

impl Registry {
    /// No sessions yet; they are numbered from `first_session`, which must be above all numbers of earlier lives.
    #[must_use]
    pub fn new(limits: &Limits, first_session: u64) -> Self {
        Self {
            targets: Arc::default(),
            sessions_max: limits.sessions_max.clamp(1, u32::from(u16::MAX - 1)),
            per_initiator_max: limits.sessions_per_initiator_max,
            sessions: BTreeMap::new(),
            pending: Vec::new(),
            jobs: BTreeMap::new(),
            next_job: 1,
            next_session: first_session.max(1),
            last_tsih: 0,
            effects: VecDeque::new(),
        }
    }

    /// Follows the configuration: sessions whose target is gone, or that may not use it any more, end.
    pub fn set_targets(&mut self, targets: Arc<Targets>) {
        for (&connection, entry) in &mut self.sessions {
            let report = &entry.report;
            let Some(name) = &report.target else { continue };
            let admitted = targets.targets.get(name).and_then(|target| target.access.of(&report.initiator));
            if admitted.is_none() && !entry.ending {
                entry.ending = true;
                self.effects.push_back((connection, Reply::End));
            }
        }
        self.targets = targets;
    }

    /// The next thing to tell a connection.
    pub fn poll_effect(&mut self) -> Option<(ConnectionId, Reply)> {
        self.effects.pop_front()
    }

    /// The sessions now.
    #[must_use]
    pub fn report(&self) -> Vec<SessionReport> {
        self.sessions.values().map(|entry| entry.report.clone()).collect()
    }

    /// A connection asks something.
    pub fn request(&mut self, from: ConnectionId, request: Request, now: Instant) {
        match request {
            Request::Register(established) => self.register(from, established, now),
            Request::Gone => self.gone(from, now),
            Request::Quiet { tag, lun } => self.quiet(from, tag, lun),
            Request::EndAll => self.end_all(from),
            Request::IsQuiet(job) => {
                self.is_quiet(from, |number| number == job);
            }
        }
    }

    fn register(&mut self, from: ConnectionId, established: Box<Established>, now: Instant) {
        let answer = self.admit(&established).map(|()| {
            // A login that waits for the same place has been given up by its initiator, or will be.
            let same = |(_, other): &(ConnectionId, Box<Established>)| {
                (&other.target, &other.initiator, other.isid, other.portal_tag)
                    == (&established.target, &established.initiator, established.isid, established.portal_tag)
            };
            let (beaten, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
                .into_iter()
                .partition(|other| established.target.is_some() && same(other));
            self.pending = left;
            for (other, _) in beaten {
                self.refuse(other, LoginStatus::ServiceUnavailable);
            }
            let mut waits = false;
            for (&connection, entry) in &mut self.sessions {
                if entry.is_replaced_by(&established) {
                    waits = true;
                    if !std::mem::replace(&mut entry.ending, true) {
                        self.effects.push_back((connection, Reply::End));
                    }
                }
            }
            waits
        });
        match answer {
            Ok(true) => self.pending.push((from, established)),
            Ok(false) => self.grant(from, &established, now),
            Err(status) => self.refuse(from, status),
        }
    }

    fn refuse(&mut self, connection: ConnectionId, status: LoginStatus) {
        self.effects.push_back((connection, Reply::Registered(Err(status))));
    }

    fn admit(&self, established: &Established) -> Result<(), LoginStatus> {
        if established.tsih != 0 {
            let is_it =
                |entry: &Entry| entry.is_replaced_by(established) && entry.report.tsih == established.tsih;
            // Sessions have one connection.
            let known = self.sessions.values().any(is_it);
            return Err(if known { LoginStatus::TooManyConnections } else { LoginStatus::NoSuchSession });
        }
        if !established.is_admitted_by(&self.targets) {
            return Err(LoginStatus::NotAuthorized);
        }
        let others = self.sessions.values().filter(|entry| !entry.is_replaced_by(established));
        let (mut all, mut own) = (self.pending.len() as u32, 0);
        for entry in others {
            all += 1;
            own += u32::from(entry.report.initiator == established.initiator);
        }
        let full = all >= self.sessions_max || own >= self.per_initiator_max;
        if full { Err(LoginStatus::OutOfResources) } else { Ok(()) }
    }

    fn grant(&mut self, connection: ConnectionId, established: &Established, now: Instant) {
        let Some(tsih) = self.free_tsih() else {
            return self.refuse(connection, LoginStatus::OutOfResources);
        };
        let session = self.next_session;
        self.next_session += 1;
        let report = SessionReport {
            target: established.target.clone(),
            initiator: established.initiator.clone(),
            isid: established.isid,
            tsih,
            portal: established.portal_tag,
            since: now,
        };
        self.sessions.insert(connection, Entry { report, ending: false });
        self.effects.push_back((connection, Reply::Registered(Ok(Granted { tsih, session }))));
    }

    fn free_tsih(&mut self) -> Option<u16> {
        let used: BTreeSet<u16> = self.sessions.values().map(|entry| entry.report.tsih).collect();
        let after = (1..u16::MAX).map(|step| self.last_tsih.wrapping_add(step));
        let free = after.into_iter().find(|tsih| !matches!(*tsih, 0 | u16::MAX) && !used.contains(tsih))?;
        self.last_tsih = free;
        Some(free)
    }

    fn gone(&mut self, connection: ConnectionId, now: Instant) {
        self.sessions.remove(&connection);
        self.pending.retain(|(waiting, _)| *waiting != connection);
        self.is_quiet(connection, |_| true);
        self.jobs.retain(|_, job| job.from != connection);
        let sessions = &self.sessions;
        let free =
            |established: &Established| !sessions.values().any(|entry| entry.is_replaced_by(established));
        let (ready, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|(_, established)| free(established));
        self.pending = left;
        for (waiting, established) in ready {
            // The configuration may have changed meanwhile.
            match self.admit(&established) {
                Ok(()) => self.grant(waiting, &established, now),
                Err(status) => self.refuse(waiting, status),
            }
        }
    }

    fn quiet(&mut self, from: ConnectionId, tag: u32, lun: Option<u16>) {
        let target = self.sessions.get(&from).and_then(|entry| entry.report.target.clone());
        let others = self.sessions.iter().filter(|(id, entry)| **id != from && entry.report.target == target);
        let waits_for: BTreeSet<_> = others.map(|(id, _)| *id).filter(|_| target.is_some()).collect();
        let job = self.next_job;
        self.next_job += 1;
        self.effects.extend(waits_for.iter().map(|id| (*id, Reply::Quiet { job, lun })));
        self.jobs.insert(job, Job { from, tag, waits_for });
        self.finish_jobs();
    }

    /// A session has done its part in some jobs.
    fn is_quiet(&mut self, connection: ConnectionId, which: impl Fn(u64) -> bool) {
        for (_, job) in self.jobs.iter_mut().filter(|(number, _)| which(**number)) {
            job.waits_for.remove(&connection);
        }
        self.finish_jobs();
    }

    fn finish_jobs(&mut self) {
        let done: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.waits_for.is_empty()).map(|(number, _)| *number).collect();
        for Job { from, tag, .. } in done.into_iter().filter_map(|number| self.jobs.remove(&number)) {
            self.effects.push_back((from, Reply::AllQuiet { tag }));
        }
    }

    fn end_all(&mut self, from: ConnectionId) {
        let Some(target) = self.sessions.get(&from).and_then(|entry| entry.report.target.clone()) else {
            return;
        };
        for (&id, entry) in &mut self.sessions {
            let of_target = entry.report.target.as_ref() == Some(&target);
            if of_target && !std::mem::replace(&mut entry.ending, true) {
                self.effects.push_back((id, Reply::End));
            }
        }
    }
}

#[cfg(test)]
mod tests;

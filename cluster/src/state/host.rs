//! Rules for hosts and for who may connect to what.

use super::apply::{Outcome, no_such};
use super::chap::check_chap;
use super::model::{HOSTS_MAX, Host};
use super::name::DISCOVERY_NQN;
use super::{Event, Name, NewHost, Reason, RefusalKind, State};

impl State {
    pub(crate) fn find_host(&self, name: &Name) -> Result<&Host, Reason> {
        self.hosts
            .get(name)
            .ok_or_else(|| no_such("host", name.as_str(), self.hosts.keys().map(Name::as_str)))
    }

    pub(super) fn create_host(&mut self, new: &NewHost, time_ms: u64) -> Outcome {
        let exists = |why: String| Err(Reason::new(RefusalKind::Exists, why));
        if self.hosts.contains_key(&new.name) {
            return exists("a host of that name exists".into());
        }
        if self.hosts.len() >= HOSTS_MAX {
            return Err(Reason::new(
                RefusalKind::Limit,
                format!("there are {HOSTS_MAX} hosts, the most there can be"),
            ));
        }
        if new.nqn.is_none() && new.iqn.is_none() {
            return Err(Reason::new(
                RefusalKind::Invalid,
                "neither an NQN nor an IQN was given, so it could not be told apart",
            )
            .next("on Linux, /etc/nvme/hostnqn and /etc/iscsi/initiatorname.iscsi hold them"));
        }
        if new.nqn.as_ref().is_some_and(|nqn| nqn.as_str() == DISCOVERY_NQN) {
            return Err(Reason::new(
                RefusalKind::Invalid,
                "that NQN belongs to every discovery subsystem, not to a host",
            ));
        }
        if let Some(chap) = &new.chap {
            check_chap(new.iqn.is_some(), chap)?;
        }
        for other in self.hosts.values() {
            if let Some(nqn) = &new.nqn
                && other.nqn.as_ref() == Some(nqn)
            {
                return exists(format!("host {} has the NQN {nqn}", other.name));
            }
            if let Some(iqn) = &new.iqn
                && other.iqn.as_ref() == Some(iqn)
            {
                return exists(format!("host {} has the IQN {iqn}", other.name));
            }
            if other.id == new.id {
                return exists(format!("host {} has that identity", other.name));
            }
        }
        self.hosts.insert(
            new.name.clone(),
            Host {
                id: new.id,
                name: new.name.clone(),
                nqn: new.nqn.clone(),
                iqn: new.iqn.clone(),
                chap: new.chap.clone(),
                created_ms: time_ms,
            },
        );
        Ok(vec![Event::HostCreated { host: new.name.clone() }])
    }

    pub(super) fn delete_host(&mut self, name: &Name) -> Outcome {
        self.find_host(name)?;
        if let Some(target) = self.targets.values().find(|target| target.access.hosts.contains(name)) {
            return Err(Reason::new(RefusalKind::InUse, format!("target {} allows it", target.name))
                .next(format!("ashlar target deny {} {name}", target.name)));
        }
        self.hosts.remove(name);
        Ok(vec![Event::HostDeleted { host: name.clone() }])
    }

    pub(super) fn allow_host(&mut self, target: &Name, host: &Name) -> Outcome {
        self.find_target(target)?;
        self.find_host(host)?;
        if !self.target_mut(target).access.hosts.insert(host.clone()) {
            return Ok(Vec::new());
        }
        Ok(self.access_changed(target))
    }

    pub(super) fn deny_host(&mut self, target: &Name, host: &Name) -> Outcome {
        self.find_target(target)?;
        self.find_host(host)?;
        if !self.target_mut(target).access.hosts.remove(host) {
            return Err(Reason::new(
                RefusalKind::NotFound,
                format!("host {host} is not on the target's list"),
            )
            .next(format!("ashlar target show {target}")));
        }
        Ok(self.access_changed(target))
    }

    pub(super) fn set_any_host(&mut self, target: &Name, any_host: bool) -> Outcome {
        if self.find_target(target)?.access.any_host == any_host {
            return Ok(Vec::new());
        }
        self.target_mut(target).access.any_host = any_host;
        Ok(self.access_changed(target))
    }

    /// Discovery lists to a host only the targets it may connect to, so access is part of it.
    fn access_changed(&mut self, target: &Name) -> Vec<Event> {
        vec![Event::AccessChanged { target: target.clone() }, self.discovery_changed()]
    }
}

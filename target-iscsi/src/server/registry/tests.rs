//! The registry against connections that do what connections do, in any order.

use std::collections::BTreeSet;

use ashlar_env::mesh::ReactorId;

use super::*;
use crate::login::parameters::Parameters;
use crate::view::{Access, Host, Target};

fn targets(access: Access) -> Arc<Targets> {
    let target = Target {
        name: "iqn.t".into(),
        alias: String::new(),
        access,
        listen: BTreeSet::new(),
        units: BTreeMap::new(),
        port_groups: BTreeMap::new(),
    };
    Arc::new(Targets { targets: BTreeMap::from([("iqn.t".into(), target)]), portals: Vec::new() })
}

fn registry(sessions_max: u32, targets: &Arc<Targets>) -> Registry {
    let limits = Limits { sessions_max, sessions_per_initiator_max: 3, ..Limits::default() };
    let mut registry = Registry::new(&limits, 100);
    registry.set_targets(Arc::clone(targets));
    registry
}

fn connection(number: u64) -> ConnectionId {
    ConnectionId { reactor: ReactorId(0), number }
}

fn established(targets: &Arc<Targets>, initiator: &str, isid: u8) -> Box<Established> {
    Box::new(Established {
        initiator: initiator.into(),
        isid: [0, 0, 0, 0, 0, isid],
        tsih: 0,
        cid: 1,
        target: Some("iqn.t".into()),
        portal_tag: 1,
        parameters: Parameters::default(),
        admitted_by: Arc::clone(targets),
    })
}

fn effects(registry: &mut Registry) -> Vec<(u64, Reply)> {
    std::iter::from_fn(|| registry.poll_effect()).map(|(to, reply)| (to.number, reply)).collect()
}

#[test]
fn a_login_waits_for_the_session_it_replaces() {
    let targets = targets(Access::AnyHost);
    let mut registry = registry(10, &targets);
    let register = |registry: &mut Registry, number| {
        let request = Request::Register(established(&targets, "iqn.a", 1));
        registry.request(connection(number), request, Instant(1));
        effects(registry)
    };
    let first = register(&mut registry, 1);
    let [(1, Reply::Registered(Ok(Granted { tsih: 1, session: 100 })))] = first[..] else {
        panic!("{first:?}")
    };
    let second = register(&mut registry, 2);
    assert!(matches!(second[..], [(1, Reply::End)]), "{second:?}");
    let third = register(&mut registry, 3);
    let beaten = Err(LoginStatus::ServiceUnavailable);
    assert!(matches!(&third[..], [(2, Reply::Registered(status))] if *status == beaten), "{third:?}");
    registry.request(connection(1), Request::Gone, Instant(2));
    let granted = effects(&mut registry);
    let [(3, Reply::Registered(Ok(Granted { tsih: 2, session: 101 })))] = granted[..] else {
        panic!("{granted:?}")
    };
    assert_eq!(registry.report().len(), 1);
}

#[test]
fn a_rule_that_changed_during_login_counts() {
    let old = targets(Access::AnyHost);
    let mut registry = registry(10, &old);
    registry.set_targets(targets(Access::Hosts(BTreeMap::from([("iqn.a".into(), Host::default())]))));
    for (number, initiator, granted) in [(1, "iqn.b", false), (2, "iqn.a", true)] {
        let request = Request::Register(established(&old, initiator, 1));
        registry.request(connection(number), request, Instant(1));
        let told = effects(&mut registry);
        assert!(
            matches!(&told[..], [(_, Reply::Registered(result))] if result.is_ok() == granted),
            "{told:?}"
        );
    }
}

#[test]
fn limits_hold() {
    let targets = targets(Access::AnyHost);
    let mut registry = registry(5, &targets);
    let mut granted = 0;
    for (number, initiator) in (0..).zip(["iqn.a", "iqn.a", "iqn.a", "iqn.a", "iqn.b", "iqn.b", "iqn.b"]) {
        let request = Request::Register(established(&targets, initiator, number as u8));
        registry.request(connection(number), request, Instant(1));
        for (_, reply) in effects(&mut registry) {
            match reply {
                Reply::Registered(Ok(_)) => granted += 1,
                Reply::Registered(Err(status)) => assert_eq!(status, LoginStatus::OutOfResources),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(granted, 5, "three of one initiator, five in all");
}

proptest::proptest! {
    /// Every login is answered once, no two sessions have the same name or number, and every function ends.
    #[test]
    fn in_any_order(steps in proptest::collection::vec((0..4_u8, 0..6_u64, 0..3_u8), 1..200)) {
        let targets = targets(Access::AnyHost);
        let mut registry = registry(100, &targets);
        // By slot: the connection there, whether its login was answered, whether it is to end.
        let mut live: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
        let (mut next, mut asked, mut answered) = (0, 0, 0);
        let mut pending: Vec<(u64, Reply)> = Vec::new();
        for (what, which, isid) in steps {
            let at = live.keys().nth(which as usize % live.len().max(1)).copied();
            match (what, at) {
                (0, _) => {
                    next += 1;
                    live.insert(next, (false, false));
                    let request = Request::Register(established(&targets, "iqn.a", isid));
                    registry.request(connection(next), request, Instant(next));
                }
                (1, Some(number)) => {
                    live.remove(&number);
                    registry.request(connection(number), Request::Gone, Instant(next));
                }
                (2, Some(number)) if live[&number].0 => {
                    asked += 1;
                    registry.request(connection(number), Request::Quiet { tag: 1, lun: None }, Instant(next));
                }
                _ => {
                    for (number, reply) in pending.drain(..) {
                        let Reply::Quiet { job, .. } = reply else { continue };
                        if live.contains_key(&number) {
                            registry.request(connection(number), Request::IsQuiet(job), Instant(next));
                        }
                    }
                }
            }
            for (number, reply) in effects(&mut registry) {
                match reply {
                    Reply::Registered(result) => {
                        if let Some(state) = live.get_mut(&number) {
                            proptest::prop_assert!(!state.0, "answered once");
                            state.0 = true;
                            if result.is_err() {
                                live.remove(&number);
                                registry.request(connection(number), Request::Gone, Instant(next));
                            }
                        }
                    }
                    Reply::AllQuiet { .. } => answered += 1,
                    Reply::Quiet { .. } => pending.push((number, reply)),
                    Reply::End => {
                        if let Some(state) = live.get_mut(&number) {
                            state.1 = true;
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
            let report = registry.report();
            let names: BTreeSet<_> = report.iter().map(|session| session.isid).collect();
            let numbers: BTreeSet<_> = report.iter().map(|session| session.tsih).collect();
            proptest::prop_assert_eq!((names.len(), numbers.len()), (report.len(), report.len()));
        }
        for number in live.into_keys() {
            registry.request(connection(number), Request::Gone, Instant(next));
            answered += effects(&mut registry).iter().filter(|(_, reply)| matches!(reply, Reply::AllQuiet { .. })).count();
        }
        proptest::prop_assert!(answered <= asked && registry.jobs.is_empty());
        proptest::prop_assert!(registry.report().is_empty() && registry.pending.is_empty());
    }
}

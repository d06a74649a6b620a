//! Hosts, and who may connect.

use crate::state::testing::*;
use crate::state::*;

fn create(text: &str) -> Action {
    Action::CreateHost(new_host(text))
}

fn allow(target: &str, host: &str) -> Action {
    Action::AllowHost { target: name(target), host: name(host) }
}

fn deny(target: &str, host: &str) -> Action {
    Action::DenyHost { target: name(target), host: name(host) }
}

const ESX1: &str = "nqn.2014-08.org.example:esx1";

fn bench() -> State {
    let mut state = State::default();
    run(&mut state, [create("esx1"), create("esx2"), Action::CreateTarget(new_target("t"))]);
    state
}

fn may_connect(state: &State, nqn: &str) -> bool {
    state.may_connect(&state.targets()[&name("t")], nqn)
}

#[test]
fn hosts_are_unique_in_every_form() {
    let mut state = bench();
    let iqn = Iqn::parse("iqn.1998-01.com.vmware:esx3").unwrap();
    let with_iqn = |text: &str, iqn: &Iqn| {
        Action::CreateHost(NewHost {
            id: id_of(text),
            name: name(text),
            nqn: None,
            iqn: Some(iqn.clone()),
            chap: None,
        })
    };
    assert_eq!(run(&mut state, [with_iqn("esx3", &iqn)]), [Event::HostCreated { host: name("esx3") }]);
    assert_eq!(refused(&mut state, create("esx1")).kind, RefusalKind::Exists);
    assert_eq!(refused(&mut state, with_iqn("esx4", &iqn)).kind, RefusalKind::Exists);
    let mut same_nqn = new_host("esx1");
    same_nqn.name = name("other");
    let refusal = refused(&mut state, Action::CreateHost(same_nqn.clone()));
    assert!(refusal.why.contains("host esx1 has the NQN"), "{refusal:?}");
    let mut same_id = new_host("esx4");
    same_id.id = id_of("esx1");
    assert_eq!(refused(&mut state, Action::CreateHost(same_id)).kind, RefusalKind::Exists);
    let mut nameless = new_host("esx4");
    nameless.nqn = None;
    assert_eq!(refused(&mut state, Action::CreateHost(nameless)).kind, RefusalKind::Invalid);
    let mut discovery = new_host("esx4");
    discovery.nqn = Some(Nqn::parse(DISCOVERY_NQN).unwrap());
    assert_eq!(refused(&mut state, Action::CreateHost(discovery)).kind, RefusalKind::Invalid);
}

#[test]
fn allowing_and_denying_say_who_may_connect() {
    let mut state = bench();
    assert!(!may_connect(&state, ESX1));
    let events = run(&mut state, [allow("t", "esx1")]);
    assert_eq!(
        events,
        [Event::AccessChanged { target: name("t") }, Event::DiscoveryChanged { generation: 2 }]
    );
    assert_eq!(run(&mut state, [allow("t", "esx1")]), []);
    assert!(may_connect(&state, ESX1));
    assert!(!may_connect(&state, "nqn.2014-08.org.example:esx2"));
    run(&mut state, [deny("t", "esx1")]);
    assert!(!may_connect(&state, ESX1));
    assert_eq!(refused(&mut state, deny("t", "esx1")).kind, RefusalKind::NotFound);
    assert_eq!(refused(&mut state, allow("t", "esx9")).kind, RefusalKind::NotFound);
    assert_eq!(refused(&mut state, allow("u", "esx1")).kind, RefusalKind::NotFound);
    assert_eq!(refused(&mut state, deny("t", "esx9")).kind, RefusalKind::NotFound);
}

#[test]
fn any_host_lets_everybody_in_until_it_is_taken_back() {
    let mut state = bench();
    let any = |any_host| Action::SetAnyHost { target: name("t"), any_host };
    assert_eq!(run(&mut state, [any(true)]).len(), 2);
    assert_eq!(run(&mut state, [any(true)]), []);
    assert!(may_connect(&state, "nqn.2014-08.org.example:stranger"));
    run(&mut state, [any(false)]);
    assert!(!may_connect(&state, "nqn.2014-08.org.example:stranger"));
    let missing = Action::SetAnyHost { target: name("u"), any_host: true };
    assert_eq!(refused(&mut state, missing).kind, RefusalKind::NotFound);
}

#[test]
fn removing_a_host_is_refused_while_it_is_allowed() {
    let mut state = bench();
    run(&mut state, [allow("t", "esx1")]);
    let delete = Action::DeleteHost { host: name("esx1") };
    let refusal = refused(&mut state, delete.clone());
    assert_eq!((refusal.kind, refusal.next.as_str()), (RefusalKind::InUse, "ashlar target deny t esx1"));
    run(&mut state, [deny("t", "esx1")]);
    assert_eq!(run(&mut state, [delete.clone()]), [Event::HostDeleted { host: name("esx1") }]);
    assert_eq!(refused(&mut state, delete).kind, RefusalKind::NotFound);
}

fn secret(text: &str) -> Option<ChapSecret> {
    Some(ChapSecret::parse(text).unwrap())
}

fn set(host: &str, incoming: Option<ChapSecret>, mutual: Option<ChapSecret>) -> Action {
    Action::SetChap { host: name(host), secret: incoming, mutual }
}

const FIRST: &str = "first-secret-1";
const SECOND: &str = "second-secret-2";

#[test]
fn chap_is_given_changed_in_parts_and_taken_away() {
    let mut state = bench();
    run(&mut state, [Action::CreateHost(chap_host("win1", FIRST))]);
    let chap = |state: &State| state.hosts()[&name("win1")].chap.clone();
    assert_eq!(chap(&state).unwrap(), Chap { secret: secret(FIRST).unwrap(), mutual: None });

    let changed = [Event::HostChanged { host: name("win1") }];
    assert_eq!(run(&mut state, [set("win1", None, secret(SECOND))]), changed);
    assert_eq!(chap(&state).unwrap(), Chap { secret: secret(FIRST).unwrap(), mutual: secret(SECOND) });
    assert_eq!(run(&mut state, [set("win1", None, secret(SECOND))]), []);
    run(&mut state, [set("win1", secret("third-secret-3"), None)]);
    assert_eq!(chap(&state).unwrap().mutual, secret(SECOND));

    let clear = Action::ClearChap { host: name("win1") };
    assert_eq!(run(&mut state, [clear.clone()]), changed);
    assert_eq!(chap(&state), None);
    assert_eq!(run(&mut state, [clear]), []);
    assert_eq!(refused(&mut state, Action::ClearChap { host: name("win2") }).kind, RefusalKind::NotFound);
}

#[test]
fn chap_that_would_not_protect_is_refused() {
    let mut state = bench();
    // esx1 has an NQN only.
    let refusal = refused(&mut state, set("esx1", secret(FIRST), None));
    assert!(refusal.kind == RefusalKind::Invalid && refusal.why.contains("no IQN"), "{refusal:?}");
    let mut without_iqn = new_host("esx3");
    without_iqn.chap = chap_host("esx3", FIRST).chap;
    assert_eq!(refused(&mut state, Action::CreateHost(without_iqn)).kind, RefusalKind::Invalid);

    let mut same = chap_host("win1", FIRST);
    same.chap.as_mut().unwrap().mutual = secret(FIRST);
    let refusal = refused(&mut state, Action::CreateHost(same));
    assert!(refusal.why.contains("the same"), "{refusal:?}");
    let mut plain = chap_host("win1", FIRST);
    plain.chap = None;
    run(&mut state, [Action::CreateHost(plain)]);
    let refusal = refused(&mut state, set("win1", None, secret(SECOND)));
    assert!(refusal.next.contains("--chap --mutual"), "{refusal:?}");
    run(&mut state, [set("win1", secret(FIRST), secret(SECOND))]);
    assert_eq!(refused(&mut state, set("win1", secret(SECOND), None)).kind, RefusalKind::Invalid);
}

/// What a secret may get into: the state and its commands in serialized form, and nothing that people read.
#[test]
fn secrets_are_in_no_text_for_people() {
    let mut state = bench();
    let actions = [Action::CreateHost(chap_host("win1", FIRST)), set("win1", None, secret(SECOND))];
    for action in actions {
        let command = command(action);
        let mut shown = format!("{command:?} {} {}", command.action.describe(), command.action.label());
        shown.push_str(&format!("{:?}", state.apply(&command).unwrap()));
        shown.push_str(&format!("{state:?}"));
        assert!(!shown.contains(FIRST) && !shown.contains(SECOND), "{shown}");
    }
    let refusal = refused(&mut state, set("win1", secret(SECOND), None));
    assert!(!format!("{refusal:?}").contains(SECOND));
    let stored = String::from_utf8(state.encode()).unwrap();
    assert!(stored.contains(FIRST) && stored.contains(SECOND));
}

#[test]
fn an_initiator_may_log_in_where_it_is_allowed() {
    let mut state = bench();
    run(&mut state, [Action::CreateHost(chap_host("win1", FIRST))]);
    let may = |state: &State| state.may_log_in(&state.targets()[&name("t")], "iqn.1998-01.com.vmware:win1");
    assert!(!may(&state));
    run(&mut state, [allow("t", "win1")]);
    assert!(may(&state));
    assert!(!state.may_log_in(&state.targets()[&name("t")], "iqn.1998-01.com.vmware:win2"));
}

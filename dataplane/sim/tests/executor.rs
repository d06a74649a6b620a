//! The executor: time, order, crashes, and the ways a run ends.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::spawn::yield_now;
use ashlar_env::{Clock, Env};
use ashlar_sim::conformance::{Signal, sleep};
use ashlar_sim::{Crash, Failure, Profile, Sim};

fn calm(seed: u64) -> Sim {
    Sim::new(seed, Profile::calm())
}

fn failure(sim: &Sim) -> Failure {
    sim.run().expect_err("the run must fail")
}

#[test]
fn time_jumps_only_when_nothing_can_run() {
    let sim = calm(1);
    let node = sim.node("node", 1);
    let woken = Rc::new(Cell::new(false));
    let seen = Rc::clone(&woken);
    sim.spawn_on(node, 0, |env| async move {
        sleep(&env, Duration::from_nanos(1)).await;
        seen.set(true);
    });
    sim.goal_on(node, 0, move |env| async move {
        let start = env.true_time();
        for _ in 0..1000 {
            yield_now().await;
            assert_eq!(env.true_time(), start, "time passed while a task could run");
        }
        assert!(!woken.get());
        sleep(&env, Duration::from_secs(3600)).await;
        assert!(woken.get());
    });
    let report = sim.run().expect("a good run");
    assert!(report.time >= Duration::from_secs(3600));
    assert!(report.steps < 3000, "an hour took {} steps", report.steps);
}

#[test]
fn the_seed_orders_tasks() {
    let order_of = |seed| {
        let sim = calm(seed);
        let node = sim.node("node", 2);
        let order = Rc::new(RefCell::new(Vec::new()));
        for task in 0..6 {
            let order = Rc::clone(&order);
            sim.goal_on(node, task % 2, |_| async move { order.borrow_mut().push(task) });
        }
        let report = sim.run().expect("a good run");
        let order = order.borrow().clone();
        (order, report.event_hash)
    };
    assert_eq!(order_of(5), order_of(5));
    let mut orders: Vec<_> = (0..50).map(|seed| order_of(seed).0).collect();
    orders.sort();
    orders.dedup();
    assert!(orders.len() > 20, "50 seeds gave {} orders", orders.len());
}

#[test]
fn a_failure_says_what_happened_and_how_to_see_it_again() {
    let sim = calm(0x1f2e).reproduce_by("cargo test -- --seed {seed}");
    let node = sim.node("node", 1);
    sim.goal_on(node, 0, |_| async { panic!("the cow is {}", "gone") });
    let text = failure(&sim).to_string();
    assert!(text.contains("check=panic seed=0x1f2e"), "{text}");
    assert!(text.contains("cargo test -- --seed 0x1f2e"), "{text}");
    assert!(text.contains("the cow is gone") && text.contains("Poll"), "{text}");

    let sim = calm(2);
    let node = sim.node("node", 1);
    sim.goal_on(node, 0, |_| pending());
    assert_eq!(failure(&sim).check, "deadlock");

    let sim = calm(3);
    let node = sim.node("node", 1);
    sim.goal_on(node, 0, |_| async {
        loop {
            yield_now().await;
        }
    });
    assert_eq!(failure(&sim).check, "livelock");

    let sim = calm(4);
    let node = sim.node("node", 1);
    sim.goal_on(node, 0, |env| async move {
        loop {
            sleep(&env, Duration::from_secs(3600)).await;
        }
    });
    assert_eq!(failure(&sim).check, "hang");

    let sim = calm(5);
    let node = sim.node("node", 1);
    sim.goal_on(node, 0, |env| async move {
        env.fail("register", "first");
        env.fail("register", "second");
        pending().await
    });
    let told = failure(&sim);
    assert_eq!((told.check.as_str(), told.message.as_str()), ("register", "first"));
}

/// Tries to work when it is dropped, as a destructor might.
struct Busy<E: Env>(E, Rc<Cell<u32>>);

impl<E: Env> Drop for Busy<E> {
    fn drop(&mut self) {
        let count = Rc::clone(&self.1);
        self.0.spawn(async move { count.set(count.get() + 1) });
        assert!(self.0.listen(([127, 0, 0, 1], 0).into()).is_err(), "a dead node listens");
    }
}

#[test]
fn a_crash_takes_the_tasks_and_leaves_a_dead_environment() {
    let sim = calm(6);
    let (node, other) = (sim.node("node", 1), sim.node("other", 1));
    let (count, ran) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (busy, ticks) = (Rc::clone(&count), Rc::clone(&ran));
    sim.spawn_on(node, 0, |env| async move {
        let _busy = Busy(env.clone(), busy);
        loop {
            ticks.set(ticks.get() + 1);
            sleep(&env, Duration::from_millis(1)).await;
        }
    });
    let control = sim.control();
    let seen = Rc::clone(&ran);
    sim.goal_on(other, 0, move |env| async move {
        sleep(&env, Duration::from_millis(50)).await;
        let before = seen.get();
        assert!(before > 10);
        let old = control.env(node, 0);
        control.crash(node, Crash::Process);
        assert!(!control.is_up(node) && control.task_count(node) == 0);
        sleep(&env, Duration::from_millis(50)).await;
        assert_eq!(seen.get(), before, "a crashed node went on");
        control.restart(node);
        assert!(!old.is_alive(), "an old environment lives again");
        let done = Signal::default();
        let signal = done.clone();
        control.spawn_on(node, 0, |_| async move { signal.set() });
        done.wait().await;
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(count.get(), 0, "a destructor of a crashed node started a task");
}

#[test]
fn a_paused_node_misses_time() {
    let sim = calm(7);
    let (node, other) = (sim.node("node", 1), sim.node("other", 1));
    let control = sim.control();
    sim.spawn_on(other, 0, move |env| async move {
        sleep(&env, Duration::from_millis(10)).await;
        control.pause(node, Duration::from_secs(5));
    });
    sim.goal_on(node, 0, |env| async move {
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            let before = env.now();
            sleep(&env, Duration::from_millis(1)).await;
            longest = longest.max(env.now().since(before));
        }
        assert!(longest >= Duration::from_secs(4), "the pause was not felt: {longest:?}");
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn clocks_drift_apart_and_sleeps_still_last() {
    let mut drifted = 0;
    for seed in 0..20 {
        let mut profile = Profile::calm();
        profile.schedule.clock_drift_ppm_max = 200;
        let sim = Sim::new(seed, profile);
        let nodes = [sim.node("a", 1), sim.node("b", 1)];
        let control = sim.control();
        sim.goal_on(nodes[0], 0, move |env| async move {
            let other = control.env(nodes[1], 0);
            let (here, there) = (env.now(), other.now());
            let deadline = here.plus(Duration::from_secs(100));
            env.sleep_until(deadline).await;
            assert!(env.now() >= deadline);
            let (a, b) = (env.now().since(here), other.now().since(there));
            env.note(a.abs_diff(b).as_micros() as u64, 0, 0);
            if a.abs_diff(b) > Duration::from_millis(1) {
                env.marks().hit("drifted");
            }
        });
        drifted += sim.run().unwrap_or_else(|f| panic!("{f}")).marks.count("drifted");
    }
    assert!(drifted > 10, "clocks drifted in {drifted} of 20 runs");
}

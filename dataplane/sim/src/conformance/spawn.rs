//! Promises of `Spawn`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::Env;
use ashlar_env::spawn::yield_now;

use super::{Signal, within};

/// All of them.
pub async fn all<E: Env>(env: E) {
    a_task_runs_on_its_own(&env).await;
    tasks_spawn_tasks(&env).await;
    yielding_lets_others_run(&env).await;
    a_task_runs_only_where_others_await(&env).await;
}

const PATIENCE: Duration = Duration::from_secs(10);

async fn a_task_runs_on_its_own<E: Env>(env: &E) {
    let done = Signal::default();
    let signal = done.clone();
    env.spawn(async move { signal.set() });
    within(env, PATIENCE, done.wait()).await.expect("a spawned task did not run");
}

async fn tasks_spawn_tasks<E: Env>(env: &E) {
    let done = Signal::default();
    let (signal, inner) = (done.clone(), env.clone());
    env.spawn(async move {
        let last = inner.clone();
        inner.spawn(async move {
            last.spawn(async move { signal.set() });
        });
    });
    within(env, PATIENCE, done.wait()).await.expect("a task spawned by a task did not run");
}

async fn yielding_lets_others_run<E: Env>(env: &E) {
    let count = Rc::new(Cell::new(0));
    for _ in 0..10 {
        let count = Rc::clone(&count);
        env.spawn(async move { count.set(count.get() + 1) });
    }
    let patience = async {
        while count.get() < 10 {
            yield_now().await;
        }
    };
    within(env, PATIENCE, patience).await.expect("a task that yields starved ten others");
}

async fn a_task_runs_only_where_others_await<E: Env>(env: &E) {
    let ran = Rc::new(Cell::new(false));
    let seen = Rc::clone(&ran);
    env.spawn(async move { seen.set(true) });
    assert!(!ran.get(), "a spawned task ran before its parent awaited");
    let patience = async {
        while !ran.get() {
            yield_now().await;
        }
    };
    within(env, PATIENCE, patience).await.expect("the task never ran");
}

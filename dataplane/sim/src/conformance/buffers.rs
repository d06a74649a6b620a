//! Promises of a reactor's buffer pool.

use std::time::Duration;

use ashlar_env::Env;
use ashlar_env::buf::{ALIGN_BYTES, CLASS_BYTES, MAX_BYTES};

use super::{sleep, within};

/// All of them. Nobody else may use the reactor's buffers meanwhile.
pub async fn all<E: Env>(env: E) {
    every_class_is_aligned(&env);
    an_exhausted_pool_makes_callers_wait(&env).await;
    a_dropped_waiter_takes_nothing(&env).await;
}

fn every_class_is_aligned<E: Env>(env: &E) {
    for len in CLASS_BYTES {
        let buf = env.buffers().try_zeroed(len).expect("a fresh pool has a buffer of each class");
        assert!(buf.as_ptr().addr().is_multiple_of(ALIGN_BYTES));
        assert!(buf.len() == len && buf.iter().all(|&byte| byte == 0));
    }
    assert!(env.buffers().try_alloc(MAX_BYTES + 1).is_none(), "a buffer above the largest");
}

async fn an_exhausted_pool_makes_callers_wait<E: Env>(env: &E) {
    let free = env.buffers().free_count();
    let mut held: Vec<_> = std::iter::from_fn(|| env.buffers().try_alloc(MAX_BYTES)).collect();
    assert!(!held.is_empty(), "no buffer of the largest class");
    let waiting = env.buffers().alloc(MAX_BYTES);
    let early = within(env, Duration::from_millis(20), env.buffers().alloc(MAX_BYTES)).await;
    assert!(early.is_none(), "an exhausted pool gave a buffer");
    let last = held.pop();
    let clock = env.clone();
    env.spawn(async move {
        sleep(&clock, Duration::from_millis(10)).await;
        drop(last);
    });
    let late = within(env, Duration::from_secs(10), waiting).await;
    assert!(late.is_some(), "a buffer came back and the waiter was not woken");
    drop((held, late));
    assert_eq!(env.buffers().free_count(), free, "buffers were lost");
}

async fn a_dropped_waiter_takes_nothing<E: Env>(env: &E) {
    let free = env.buffers().free_count();
    let held: Vec<_> = std::iter::from_fn(|| env.buffers().try_alloc(MAX_BYTES)).collect();
    let waited = within(env, Duration::from_millis(5), env.buffers().alloc(MAX_BYTES)).await;
    assert!(waited.is_none());
    drop(held);
    assert_eq!(env.buffers().free_count(), free, "a waiter that gave up kept a buffer");
}

//! Promises of `Clock`.

use std::time::Duration;

use ashlar_env::{Clock, Instant};

use super::{join_all, sleep, within};

/// All of them.
pub async fn all<C: Clock>(clock: C) {
    time_never_goes_back(&clock).await;
    a_sleep_lasts_until_its_deadline(&clock).await;
    a_past_deadline_does_not_wait(&clock).await;
    sleeps_end_in_the_order_of_their_deadlines(&clock).await;
    a_dropped_sleep_disturbs_nobody(&clock).await;
    assert!(clock.wall_ms() > 1_577_836_800_000, "the wall clock shows a year before 2020");
}

async fn time_never_goes_back(clock: &impl Clock) {
    let mut last = clock.now();
    for _ in 0..100 {
        ashlar_env::spawn::yield_now().await;
        let now = clock.now();
        assert!(now >= last, "time went back from {last:?} to {now:?}");
        last = now;
    }
}

async fn a_sleep_lasts_until_its_deadline(clock: &impl Clock) {
    for micros in [0, 1, 50, 1000, 20_000] {
        let deadline = clock.now().plus(Duration::from_micros(micros));
        clock.sleep_until(deadline).await;
        let now = clock.now();
        assert!(now >= deadline, "slept until {now:?}, asked for {deadline:?}");
        assert!(now.since(deadline) < Duration::from_secs(5), "a sleep of {micros} us was 5 s late");
    }
}

async fn a_past_deadline_does_not_wait(clock: &impl Clock) {
    let ended = within(clock, Duration::from_secs(5), clock.sleep_until(Instant(0))).await;
    assert!(ended.is_some(), "a sleep until the past did not end");
}

async fn sleeps_end_in_the_order_of_their_deadlines(clock: &impl Clock) {
    let start = clock.now();
    let ends = join_all([60, 20, 40].map(|ms| async move {
        clock.sleep_until(start.plus(Duration::from_millis(ms))).await;
        clock.now()
    }))
    .await;
    let order = ends[1] <= ends[2] && ends[2] <= ends[0];
    assert!(order, "sleeps of 60, 20 and 40 ms ended at {ends:?}");
}

async fn a_dropped_sleep_disturbs_nobody(clock: &impl Clock) {
    let dropped = within(clock, Duration::from_millis(5), clock.sleep_until(Instant::FAR_FUTURE)).await;
    assert!(dropped.is_none(), "the far future came");
    sleep(clock, Duration::from_millis(5)).await;
}

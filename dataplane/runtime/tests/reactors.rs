//! Reactors: time, tasks, links, sleep and wake-up, start and end.

mod common;

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use ashlar_env::spawn::yield_now;
use ashlar_env::{Clock, Env, Mesh, ReactorId, Rng, Spawn};
use ashlar_runtime::{MeshEnd, NoReply, Runtime, RuntimeConfig, Spin, StartError};
use common::{SHORT, runtime};

async fn recv<M: Send + 'static>(mesh: &MeshEnd<M>) -> (ReactorId, M) {
    poll_fn(|cx| mesh.poll_recv(cx)).await
}

async fn send<M: Send + 'static>(mesh: &MeshEnd<M>, to: ReactorId, mut message: M) {
    while let Err(back) = mesh.try_send(to, message) {
        message = back;
        poll_fn(|cx| mesh.poll_room(cx, to)).await;
    }
}

#[test]
fn a_sleep_ends_at_its_deadline_asleep_or_spinning() {
    for spin in [Spin::NEVER, SHORT, Spin::Always] {
        let runtime = runtime::<()>(1, spin);
        let slept = runtime.reactors()[0].call(|env, _| async move {
            let start = env.now();
            let mut slept = Vec::new();
            for ms in [1, 5, 20] {
                let deadline = env.now().plus(Duration::from_millis(ms));
                env.sleep_until(deadline).await;
                assert!(env.now() >= deadline);
                slept.push(env.now().since(deadline));
            }
            assert!(env.now().since(start) >= Duration::from_millis(26));
            slept
        });
        let slept = slept.wait().unwrap();
        // One may be late on a busy machine, not all.
        assert!(slept.iter().min().unwrap() < &Duration::from_millis(5), "late by {slept:?} with {spin:?}");
    }
}

#[test]
fn an_abandoned_sleep_wakes_nobody() {
    let runtime = runtime::<()>(1, SHORT);
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let mut long = env.sleep_until(env.now().plus(Duration::from_secs(3600)));
        let mut short = env.sleep_until(env.now().plus(Duration::from_millis(1)));
        poll_fn(|cx| {
            assert!(std::pin::Pin::new(&mut long).poll(cx).is_pending());
            std::pin::Pin::new(&mut short).poll(cx)
        })
        .await;
        drop(long);
        env.sleep_until(env.now()).await;
        env.random_u64() != env.random_u64()
    });
    assert_eq!(answer.wait(), Ok(true));
}

#[test]
fn messages_arrive_in_order_through_a_full_link() {
    for spin in [Spin::NEVER, SHORT] {
        let runtime = runtime::<u32>(2, spin);
        let total = runtime.reactors()[1].call(|_, mesh| async move {
            for expected in 0..2000 {
                assert_eq!(recv(&mesh).await, (ReactorId(0), expected));
                if expected % 50 == 0 {
                    yield_now().await;
                }
            }
            mesh.reactors()
        });
        runtime.reactors()[0]
            .spawn(|_, mesh| async move {
                for message in 0..2000 {
                    send(&mesh, ReactorId(1), message).await;
                }
            })
            .unwrap();
        assert_eq!(total.wait(), Ok(2));
        assert_eq!(runtime.reactors()[0].stats().mesh_sent.get(), 2000);
    }
}

#[test]
fn a_ping_wakes_a_sleeping_reactor_every_time() {
    let runtime = runtime::<u32>(2, Spin::NEVER);
    runtime.reactors()[1]
        .spawn(|_, mesh| async move {
            loop {
                let (from, message) = recv(&mesh).await;
                send(&mesh, from, message + 1).await;
            }
        })
        .unwrap();
    let last = runtime.reactors()[0].call(|_, mesh| async move {
        let mut message = 0;
        while message < 2000 {
            send(&mesh, ReactorId(1), message).await;
            message = recv(&mesh).await.1;
        }
        message
    });
    assert_eq!(last.wait(), Ok(2000));
}

#[test]
fn a_reactor_reaches_itself() {
    let runtime = runtime::<u32>(1, Spin::NEVER);
    let got = runtime.reactors()[0].call(|env, mesh| async move {
        let sender = mesh.clone();
        env.spawn(async move {
            for message in 0..100 {
                send(&sender, sender.here(), message).await;
            }
        });
        let mut sum = 0;
        for _ in 0..100 {
            sum += recv(&mesh).await.1;
        }
        sum
    });
    assert_eq!(got.wait(), Ok(4950));
}

#[test]
fn a_buffer_given_back_by_another_reactor_wakes_who_waits_for_it() {
    for spin in [Spin::NEVER, Spin::Always] {
        let runtime = runtime::<ashlar_env::BufMut>(2, spin);
        runtime.reactors()[1]
            .spawn(|env, mesh| async move {
                let (_, buf) = recv(&mesh).await;
                env.sleep_until(env.now().plus(Duration::from_millis(2))).await;
                drop(buf);
            })
            .unwrap();
        let waited = runtime.reactors()[0].call(|env, mesh| async move {
            let pool = env.buffers().clone();
            let mut held: Vec<_> = std::iter::from_fn(|| pool.try_alloc(1 << 20)).collect();
            send(&mesh, ReactorId(1), held.pop().unwrap()).await;
            let start = env.now();
            drop(pool.alloc(1 << 20).await);
            env.now().since(start)
        });
        let waited = waited.wait().unwrap();
        assert!(waited < Duration::from_millis(500), "{waited:?} with {spin:?}");
    }
}

#[test]
fn a_wake_from_another_thread_arrives_asleep_or_spinning() {
    for spin in [Spin::NEVER, SHORT, Spin::Always] {
        let runtime = runtime::<()>(1, spin);
        let (wakers, woken) = mpsc::channel::<Waker>();
        let flag = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&flag);
        let answer = runtime.reactors()[0].call(move |_, _| async move {
            for round in 1..=500 {
                poll_fn(|cx| {
                    if seen.load(Ordering::SeqCst) >= round {
                        return Poll::Ready(());
                    }
                    wakers.send(cx.waker().clone()).unwrap();
                    Poll::Pending
                })
                .await;
            }
        });
        let waking = std::thread::spawn(move || {
            for waker in woken {
                flag.fetch_add(1, Ordering::SeqCst);
                // Twice: the second is one too many, and harmless, also when the task has ended meanwhile.
                waker.wake_by_ref();
                waker.wake();
            }
        });
        answer.wait().unwrap();
        waking.join().unwrap();
    }
}

#[test]
fn a_task_that_never_waits_does_not_hold_up_the_end() {
    let runtime = runtime::<()>(1, SHORT);
    let yields = async {
        loop {
            yield_now().await;
        }
    };
    runtime.reactors()[0].spawn(|_, _| yields).unwrap();
    runtime.reactors()[0].call(|_, _| async {}).wait().unwrap();
    runtime.shutdown();
}

#[test]
fn an_idle_reactor_takes_no_processor_time() {
    let runtime = runtime::<()>(2, Spin::Adaptive(Duration::from_micros(50)));
    std::thread::sleep(Duration::from_millis(50));
    let turns = || runtime.reactors().iter().map(|r| r.stats().turns.get()).sum::<u64>();
    let before = turns();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(turns(), before, "an idle reactor takes no turn");
}

#[test]
fn a_trickle_of_work_does_not_make_it_spin() {
    let runtime = runtime::<()>(1, Spin::Adaptive(Duration::from_micros(200)));
    let reactor = &runtime.reactors()[0];
    let turns = reactor.call(|env, _| async move {
        for _ in 0..20 {
            env.sleep_until(env.now().plus(Duration::from_millis(2))).await;
        }
        let before = env.stats().turns.get();
        for _ in 0..20 {
            env.sleep_until(env.now().plus(Duration::from_millis(2))).await;
        }
        env.stats().turns.get() - before
    });
    // Spinning 200 us would be hundreds of turns each time.
    assert!(turns.wait().unwrap() < 20 * 20);
}

#[test]
fn frequent_work_keeps_it_awake() {
    // Work that comes long before the longest spin is over, and is over at once: it never pays to sleep.
    let runtime = runtime::<u64>(2, Spin::Adaptive(Duration::from_millis(20)));
    runtime.reactors()[1]
        .spawn(|_, mesh| async move {
            loop {
                let (from, message) = recv(&mesh).await;
                send(&mesh, from, message).await;
            }
        })
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let parks = || runtime.reactors().iter().map(|reactor| reactor.stats().parks.get()).sum::<u64>();
    let before = parks();
    let answer = runtime.reactors()[0].call(|_, mesh| async move {
        for message in 0..500 {
            send(&mesh, ReactorId(1), message).await;
            recv(&mesh).await;
        }
    });
    answer.wait().unwrap();
    let slept = parks() - before;
    assert!(slept < 100, "slept {slept} times in 500 round trips");
}

#[test]
fn time_goes_on_while_it_sleeps() {
    let runtime = runtime::<Instant>(2, Spin::NEVER);
    let age = runtime.reactors()[1].call(|env, mesh| async move {
        let before = env.now();
        let (_, sent) = recv(&mesh).await;
        // The time this task sees is that of its wake-up, not that of the reactor's falling asleep.
        (env.now().since(before), sent)
    });
    std::thread::sleep(Duration::from_millis(30));
    runtime.reactors()[0]
        .spawn(|_, mesh| async move { send(&mesh, ReactorId(1), Instant::now()).await })
        .unwrap();
    let (passed, _) = age.wait().unwrap();
    assert!(passed >= Duration::from_millis(25), "{passed:?}");
}

#[test]
fn tasks_take_turns_while_one_never_waits() {
    let runtime = runtime::<()>(1, SHORT);
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let done = std::rc::Rc::new(std::cell::Cell::new(false));
        let stop = done.clone();
        env.spawn(async move {
            while !stop.get() {
                yield_now().await;
            }
        });
        let start = env.now();
        for _ in 0..10 {
            env.sleep_until(env.now().plus(Duration::from_millis(1))).await;
        }
        done.set(true);
        env.now().since(start)
    });
    assert!(answer.wait().unwrap() < Duration::from_millis(500));
}

#[test]
fn a_panic_in_a_call_is_its_callers_alone() {
    let runtime = runtime::<()>(1, SHORT);
    let reactor = &runtime.reactors()[0];
    let failed = reactor.call(|_, _| async move {
        if usize::MAX.count_ones() > 0 {
            panic!("expected: a test of panics");
        }
    });
    assert_eq!(failed.wait(), Err(NoReply::Panicked));
    assert_eq!(reactor.call(|_, _| async { 5 }).wait(), Ok(5));
}

#[test]
fn a_full_inbox_refuses() {
    let runtime: Runtime<()> =
        Runtime::start(RuntimeConfig { inbox_capacity: 1, buffer_bytes: 0, ..RuntimeConfig::default() })
            .unwrap();
    let reactor = &runtime.reactors()[0];
    let (release, blocked) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    // Blocks the reactor itself: only a test does that.
    reactor
        .spawn(move |_, _| {
            entered.send(()).unwrap();
            blocked.recv().unwrap();
            async {}
        })
        .unwrap();
    inside.recv().unwrap();
    reactor.spawn(|_, _| async {}).unwrap();
    assert_eq!(reactor.spawn(|_, _| async {}), Err(NoReply::Busy));
    assert_eq!(reactor.call(|_, _| async {}).wait(), Err(NoReply::Busy));
    release.send(()).unwrap();
}

#[test]
fn a_shutdown_drops_tasks_and_answers_those_who_wait() {
    struct Dropped(Arc<AtomicU32>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicU32::new(0));
    let runtime = runtime::<()>(2, SHORT);
    let reactor = runtime.reactors()[0].clone();
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mark = Dropped(Arc::clone(&dropped));
        answers.push(reactor.call(|env, _| async move {
            let _mark = mark;
            env.sleep_until(ashlar_env::Instant::FAR_FUTURE).await;
        }));
    }
    reactor.call(|_, _| async {}).wait().unwrap();
    let start = Instant::now();
    runtime.shutdown();
    assert!(start.elapsed() < Duration::from_secs(5));
    for answer in answers {
        assert_eq!(answer.wait(), Err(NoReply::Ended));
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    assert_eq!(reactor.spawn(|_, _| async {}), Err(NoReply::Ended));
}

#[test]
fn a_runtime_needs_a_core_and_lives_with_one_it_may_not_use() {
    let none = Runtime::<()>::start(RuntimeConfig { cores: vec![], ..RuntimeConfig::default() });
    assert!(matches!(none, Err(StartError::NoCores)));
    let config = RuntimeConfig { cores: vec![1000], buffer_bytes: 0, ..RuntimeConfig::default() };
    let runtime = Runtime::<()>::start(config).unwrap();
    assert_eq!(runtime.reactors()[0].call(|_, _| async { 1 }).wait(), Ok(1));
}

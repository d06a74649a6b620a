//! kill -9, again and again.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::bench::{Bench, Killer, TARGET};
use super::ledger::Cut;
use super::load::verify_restored;
use crate::node::Node;

/// Snapshots kept at a time.
const SNAPSHOTS_MAX: usize = 4;
/// Blocks of the volume: 8 MiB, so that most are overwritten many times.
const BLOCKS: u64 = 2048;

/// Kills and what came before them.
struct Cycles {
    bench: Bench,
    snapshots: Vec<(String, Cut)>,
    made: u32,
}

impl Cycles {
    fn new(bench: Bench) -> Self {
        Self { bench, snapshots: Vec::new(), made: 0 }
    }

    /// Has load on the volume for a while and kills the node.
    fn load_and_kill(&mut self, node: Node) -> u64 {
        let load = self.bench.load(&node);
        let pause = |ms| std::thread::sleep(Duration::from_millis(ms));
        load.wait_for(1);
        pause(self.bench.random.below(200));
        let name = format!("db@s{}", self.made);
        match self.bench.random.below(4) {
            // A snapshot under load.
            0 | 1 => {
                let (cut, done) = self.bench.snapshot(&node, &name);
                assert!(done, "{}", node.log());
                self.made += 1;
                self.snapshots.push((name, cut));
                if self.snapshots.len() > SNAPSHOTS_MAX {
                    let victim = self.bench.random.below(SNAPSHOTS_MAX as u64) as usize;
                    node.client.delete_snapshot(&self.snapshots.remove(victim).0).unwrap();
                }
                pause(self.bench.random.below(150));
                node.crash();
            }
            // A snapshot that the end of the node races with.
            2 => {
                self.made += 1;
                let wait = Duration::from_micros(self.bench.random.below(20_000));
                let killer = Killer::after(&node, wait);
                let (cut, _) = self.bench.snapshot(&node, &name);
                killer.join();
                node.crash();
                self.snapshots.push((name, cut));
            }
            _ => {
                pause(self.bench.random.below(150));
                node.crash();
            }
        }
        load.join()
    }

    /// Starts a node, and kills it before long while it recovers.
    fn kill_at_start(&mut self) {
        let mut child = self.bench.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(self.bench.random.below(120_000)));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a node, which must have all.
    fn start(&mut self) -> Node {
        let node = self.bench.start();
        let listed = node.client.snapshots(Some("db")).unwrap().snapshots;
        self.snapshots.retain(|(name, _)| listed.iter().any(|snapshot| snapshot.name == *name));
        assert_eq!(self.snapshots.len(), listed.len(), "{listed:?}");
        self.bench.verify(&node);
        node
    }

    /// So many kills. Returns how many commands had ended.
    fn run(&mut self, kills: u64) -> u64 {
        let mut node = self.bench.create();
        let mut commands = 0;
        for kill in 0..kills {
            commands += self.load_and_kill(node);
            if self.bench.random.one_in(5) {
                self.kill_at_start();
            }
            node = self.start();
            if kill % 8 == 7
                && let Some((name, cut)) = self.snapshots.last()
            {
                node.client.restore_snapshot(name, true).unwrap();
                // What was put back stays so.
                if self.bench.random.one_in(2) {
                    node.crash();
                    node = self.bench.start();
                }
                verify_restored(&node, TARGET, 1, &self.bench.ledger, cut);
            }
        }
        for (name, cut) in &self.snapshots {
            self.bench.verify_snapshot(&node, name, cut);
        }
        node.stop();
        commands
    }
}

/// A number that `scripts/soak` sets.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Kills the node of `bench`, and says how it went; shown with --nocapture.
fn kill_again_and_again(bench: impl Fn(u64) -> Bench, seed: u64) {
    let (kills, seed) = (setting("ASHLAR_KILLS", 28), setting("ASHLAR_FIRST_SEED", 0) + seed);
    let began = Instant::now();
    let commands = Cycles::new(bench(seed)).run(kills);
    let took = began.elapsed().as_secs_f64();
    println!("seed {seed}: {kills} kills, {commands} commands answered, {took:.1} s");
    assert!(commands > kills * 20, "the load hardly ran: {commands}");
}

#[test]
fn no_acknowledged_write_is_lost_by_a_kill() {
    kill_again_and_again(|seed| Bench::new(seed, BLOCKS), 1);
}

#[test]
fn no_acknowledged_write_is_lost_by_a_kill_while_checkpoints_run() {
    // Less than what is in flight: one checkpoint follows the other.
    kill_again_and_again(|seed| Bench::new(seed, BLOCKS).with_checkpoints_of(256 << 10), 2);
}

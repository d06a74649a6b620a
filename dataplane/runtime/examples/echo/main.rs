//! Measures the reactor's socket path against a plain epoll loop: both answer NVMe/TCP-shaped reads (72 bytes in,
//! 24 + 4096 bytes out, one send for each receive), in turn, for the same client on another core.
//!
//! `cargo run --release -p ashlar-runtime --example echo [seconds per case] [connections]...`
//!
//! Prints, for each number of connections and queue depth, the best round of each, their ratio, and the median and
//! quartiles of the ratios of neighbouring rounds. On a busy machine the best rounds are the least disturbed.

mod client;
mod plain;
mod reactor;
mod server;

use std::time::Duration;

const ROUND: Duration = Duration::from_millis(250);

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().expect("arguments are numbers"));
    let seconds = args.next().unwrap_or(5);
    let mut connections: Vec<usize> = args.collect();
    if connections.is_empty() {
        connections = vec![1, 8];
    }
    let rounds = (seconds * 1000 / (2 * ROUND.as_millis() as usize)).max(1);
    let cores = ashlar_runtime::usable_cores();
    let (server_core, client_core) = (cores[0], *cores.last().expect("there is a core"));
    let reactor = reactor::Server::start(server_core);
    println!("connections  depth  reactor/s  epoll/s  ratio  median [quartiles]");
    for &count in &connections {
        for depth in [1, 32, 128] {
            let mut rates = Vec::new();
            for round in 0..rounds {
                let ours = || client::run(reactor.address, client_core, count, depth, ROUND);
                let theirs = || {
                    let server = plain::Server::start(server_core);
                    client::run(server.address, client_core, count, depth, ROUND)
                };
                // Each goes first in turn.
                let pair = if round % 2 == 0 {
                    let first = ours();
                    (first, theirs())
                } else {
                    let first = theirs();
                    (ours(), first)
                };
                rates.push(pair);
            }
            report(count, depth, &rates);
        }
    }
}

fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn report(connections: usize, depth: usize, rates: &[(f64, f64)]) {
    let ours = quantile(rates.iter().map(|pair| pair.0), 1.0);
    let theirs = quantile(rates.iter().map(|pair| pair.1), 1.0);
    let ratio = |part| quantile(rates.iter().map(|pair| pair.0 / pair.1), part);
    println!(
        "{connections:11}  {depth:5}  {ours:9.0}  {theirs:7.0}  {:.3}   {:.3} [{:.3} {:.3}]",
        ours / theirs,
        ratio(0.5),
        ratio(0.25),
        ratio(0.75)
    );
}

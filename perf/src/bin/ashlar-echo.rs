//! `ashlar-echo`: answers in the shape of NVMe/TCP, to show what the sockets allow.

use std::net::TcpListener;
use std::process::ExitCode;

use ashlar_perf::echo::serve;
use ashlar_perf::load::pin_to;
use clap::Parser;

/// Answer command capsules with zeros, as fast as a plain epoll server can. For `ashlar-load --raw-echo`.
#[derive(Parser)]
#[command(name = "ashlar-echo", version)]
struct Cli {
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:4499")]
    listen: String,
    /// Core to run on.
    #[arg(long)]
    cpu: Option<usize>,
    /// Sleep in epoll instead of spinning.
    #[arg(long)]
    blocking: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(core) = cli.cpu
        && let Err(error) = pin_to(core)
    {
        eprintln!("ashlar-echo: cannot run on core {core}: {error}");
        return ExitCode::from(2);
    }
    match TcpListener::bind(&cli.listen).and_then(|listener| serve(&listener, cli.blocking)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-echo: {}: {error}", cli.listen);
            ExitCode::FAILURE
        }
    }
}

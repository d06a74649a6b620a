//! `ashlar operation`: long work with progress.

use std::io::{IsTerminal, stderr};
use std::thread::sleep;
use std::time::Duration;

use ashlar_cluster::api::{OperationList, OperationState, OperationView};
use ashlar_config::Bytes;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::{Exit, Failure};
use super::output::{age, age_since, bytes_or_dash, fields, or_dash};
use super::{Global, output};

/// How often a watched operation is asked for.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations that run, and those that ended last
    #[command(visible_alias = "ls")]
    List,
    /// Show one operation
    Show {
        /// Its number
        operation: u64,
        /// Follow it to its end; fails if it does
        #[arg(long)]
        watch: bool,
    },
}

pub(crate) fn run(command: OperationCommand, global: &Global) -> Result<(), Failure> {
    match command {
        OperationCommand::List => output::show(global.output, &global.client().operations()?, list_table),
        OperationCommand::Show { operation, watch: true } => watch(operation, global),
        OperationCommand::Show { operation, watch: false } => {
            output::show(global.output, &global.client().operation(operation)?, show_table)
        }
    }
}

/// Follows an operation to its end: as a bar on a terminal, else as a line whenever it has got on by a percent.
pub(crate) fn watch(number: u64, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    let mut view = client.operation(number)?;
    let mut shown = Shown::new(&view);
    while view.state == OperationState::Running {
        shown.show(&view);
        sleep(WATCH_PAUSE);
        view = client.operation(number)?;
    }
    shown.end();
    output::show(global.output, &view, sentence)?;
    match &view.failure {
        None => Ok(()),
        Some(why) => {
            let summary = format!("operation {number} did not {}: {why}", view.what);
            Err(Failure::new(Exit::Failed, summary, "what it did not come to is as it was before"))
        }
    }
}

/// How far an operation is, in whole percent.
fn percent(view: &OperationView) -> Option<u64> {
    let (done, total) = (view.done_bytes?, view.total_bytes?);
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    Some(u64::try_from(percent).unwrap_or(100).min(100))
}

fn progress(view: &OperationView) -> String {
    let state = view.state.as_str();
    match (percent(view), view.total_bytes) {
        (Some(percent), Some(total)) if view.state == OperationState::Running => {
            let total = Bytes::new(total).rounded();
            format!("{percent} % of {total}")
        }
        _ => state.to_owned(),
    }
}

/// What a person sees of a running operation, on standard error.
enum Shown {
    Bar(ProgressBar),
    Lines { last: Option<u64>, any: bool },
}

impl Shown {
    fn new(view: &OperationView) -> Self {
        if !stderr().is_terminal() {
            return Self::Lines { last: None, any: false };
        }
        let bar = ProgressBar::new(view.total_bytes.unwrap_or(0));
        let style = ProgressStyle::with_template(
            "{msg} [{bar:40}] {binary_bytes} of {binary_total_bytes}, {eta} left",
        );
        bar.set_style(style.expect("the template is sound").progress_chars("=> "));
        bar.set_message(view.what.clone());
        Self::Bar(bar)
    }

    fn show(&mut self, view: &OperationView) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(view.total_bytes.unwrap_or(0));
                bar.set_position(view.done_bytes.unwrap_or(0));
            }
            Self::Lines { last, any } => {
                let now = percent(view);
                if !*any || now != *last {
                    output::note(&format!("{}: {}", view.what, progress(view)));
                }
                (*last, *any) = (now, true);
            }
        }
    }

    fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn sentence(view: &OperationView) -> String {
    let time = view.ended_ms.map(|ended| format!(", after {}", age(ended.saturating_sub(view.started_ms))));
    format!("{}: {}{}", view.what, view.state.as_str(), time.unwrap_or_default())
}

fn list_table(list: &OperationList) -> String {
    let rows = list.operations.iter().map(|view| {
        [
            view.id.to_string(),
            view.what.clone(),
            progress(view),
            age_since(view.started_ms),
            or_dash(view.failure.clone().unwrap_or_default()),
        ]
    });
    output::table(["NUMBER", "WHAT", "PROGRESS", "STARTED", "FAILURE"], &[0], rows.collect())
}

fn show_table(view: &OperationView) -> String {
    fields(vec![
        ("Number", view.id.to_string()),
        ("What", view.what.clone()),
        ("Progress", progress(view)),
        ("Done", bytes_or_dash(view.done_bytes)),
        ("In all", bytes_or_dash(view.total_bytes)),
        ("Started", age_since(view.started_ms)),
        ("Ended", view.ended_ms.map_or_else(|| "-".to_owned(), age_since)),
        ("Failure", or_dash(view.failure.clone().unwrap_or_default())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(done: Option<u64>, total: Option<u64>) -> OperationView {
        OperationView {
            id: 1,
            what: "drain device /dev/x".into(),
            state: OperationState::Running,
            started_ms: 0,
            ended_ms: None,
            done_bytes: done,
            total_bytes: total,
            failure: None,
        }
    }

    #[test]
    fn progress_is_told_as_far_as_it_is_known() {
        assert_eq!(progress(&view(Some(1 << 30), Some(3 << 30))), "33 % of 3 GiB");
        assert_eq!(progress(&view(Some(5), Some(0))), "100 % of 0 B");
        assert_eq!(progress(&view(Some(u64::MAX), Some(u64::MAX))), "100 % of 16.00 EiB");
        assert_eq!(progress(&view(None, None)), "running");
        let done =
            OperationView { state: OperationState::Done, ended_ms: Some(61_000), ..view(Some(1), Some(1)) };
        assert_eq!(progress(&done), "done");
        assert_eq!(sentence(&done), "drain device /dev/x: done, after 1 min 1 s");
    }
}

//! What commands print: data to standard output, as a table or as JSON; everything else to standard error.

use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use ashlar_cluster::api::SpaceView;
use ashlar_config::Bytes;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::failure::{Exit, Failure};

/// How data is printed: tables for people, or JSON as the API has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    // Doc comments here would make every command's --help longer by half a screen.
    #[default]
    Table,
    Json,
}

/// Prints `value` as JSON, or what `table` makes of it.
pub(crate) fn show<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => serde_json::to_string_pretty(value).map_err(|error| {
            Failure::new(Exit::Failed, format_args!("cannot write the answer as JSON: {error}"), "")
        })?,
    };
    print(&text)
}

/// Prints text to standard output, with a newline at its end if it has none and is not empty.
///
/// A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let written = write!(stdout, "{text}{newline}").and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format_args!("cannot write to standard output: {error}"), ""))
        }
        _ => Ok(()),
    }
}

/// Tells the person at the terminal something that is not data.
pub(crate) fn note(text: &str) {
    // Whoever closed standard error does not want to hear.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Goes on only if `--yes` was given or a person at a terminal says so. `what` is a sentence about what will
/// happen.
pub(crate) fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let summary = format!("{what} Nobody is here to confirm it, so nothing was done");
        return Err(Failure::new(Exit::Usage, summary, "repeat the command with --yes"));
    }
    let _ = write!(io::stderr(), "{what} Type yes to go on: ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "yes" | "y") {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "not confirmed; nothing was done", ""))
}

/// A table with a header, left-aligned but for the columns in `right`.
pub(crate) fn table<const N: usize>(header: [&str; N], right: &[usize], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.map(printable)));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Names and values under each other, for one object.
pub(crate) fn fields(rows: Vec<(&str, String)>) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        for (index, line) in value.split('\n').enumerate() {
            let name = if index == 0 { name } else { "" };
            let line = format!("{name:width$}  {}", printable(line.to_owned()));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// The text without control characters: a terminal must not obey what a host or user once typed.
fn printable(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

/// `-` for what is empty, so that columns stay countable.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A size for people, or `-` where it is not known.
pub(crate) fn bytes_or_dash(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| Bytes::new(bytes).rounded())
}

/// Space for people; nothing where nothing is known.
pub(crate) fn space_rows(space: &SpaceView) -> Vec<(&'static str, String)> {
    if *space == SpaceView::default() {
        return Vec::new();
    }
    vec![
        ("Logical", bytes_or_dash(space.logical_bytes)),
        ("Stored", bytes_or_dash(space.stored_bytes)),
        ("Shared", bytes_or_dash(space.shared_bytes)),
        ("Compressed", bytes_or_dash(space.compressed_bytes)),
        ("Physical", bytes_or_dash(space.physical_bytes)),
    ]
}

/// `1 volume`, `2 volumes`.
pub(crate) fn count(number: u64, singular: &str) -> String {
    format!("{number} {singular}{}", if number == 1 { "" } else { "s" })
}

/// A time span for people, in its largest two units: `3 d 4 h`, `12 s`.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(number, _)| *number > 0).unwrap_or(parts.len() - 1);
    let shown = parts.iter().skip(first).take(2).filter(|(number, _)| *number > 0);
    let shown: Vec<String> = shown.map(|(number, unit)| format!("{number} {unit}")).collect();
    if shown.is_empty() { "0 s".to_owned() } else { shown.join(" ") }
}

/// How long ago a time was, for people; the time is in milliseconds since 1970 UTC.
pub(crate) fn age_since(ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    // The node's clock may be ahead of this machine's.
    format!("{} ago", age(now_ms.saturating_sub(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = vec![["db".to_owned(), "10 GiB".to_owned()], ["logs\u{7}".to_owned(), "1 TB".to_owned()]];
        assert_eq!(table(["NAME", "SIZE"], &[1], rows), "NAME     SIZE\ndb     10 GiB\nlogs     1 TB");
    }

    #[test]
    fn fields_line_up_and_continue() {
        let text = fields(vec![("Name", "db".to_owned()), ("Hosts", "a\nb".to_owned())]);
        assert_eq!(text, "Name   db\nHosts  a\n       b\n");
    }

    #[test]
    fn ages_have_two_units_at_most() {
        assert_eq!(age(0), "0 s");
        assert_eq!(age(59_999), "59 s");
        assert_eq!(age(60_000), "1 min");
        assert_eq!(age(3_661_000), "1 h 1 min");
        assert_eq!(age(90_000_000), "1 d 1 h");
        assert_eq!(age(86_401_000), "1 d");
    }

    #[test]
    fn counts_agree_in_number() {
        assert_eq!((count(1, "volume").as_str(), count(0, "volume").as_str()), ("1 volume", "0 volumes"));
    }
}

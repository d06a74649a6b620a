//! Why a command failed, and the exit code that says so to scripts.

use std::fmt;
use std::process::ExitCode;

use ashlar_cluster::client::ClientError;

/// What the shell sees of a command that this program itself gives up. The numbers are a promise to scripts.
///
/// A node's refusal and its silence bring their own code ([`ClientError::exit_code`]): further 4, when a node
/// refused because of a conflict, and 5, when no node answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was tried and failed.
    Failed = 1,
    /// The command line or a file it names is wrong; the same again fails again.
    Usage = 2,
    /// The object, or the file, does not exist.
    NotFound = 3,
    /// It is in use.
    Refused = 4,
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    /// Lines for standard error, ready to be printed.
    text: String,
}

impl Failure {
    /// `summary` says in one sentence what was asked and why not; `help` what to do next.
    pub(crate) fn new(exit: Exit, summary: impl fmt::Display, help: impl fmt::Display) -> Self {
        let mut text = format!("error: {summary}");
        push_help(&mut text, &help.to_string());
        Self { exit: exit as u8, text }
    }

    /// A failure whose text is complete, with its own `error:` lines.
    pub(crate) fn shown(exit: Exit, text: impl fmt::Display) -> Self {
        Self { exit: exit as u8, text: text.to_string() }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }
}

impl From<ClientError> for Failure {
    /// A node's refusal, or that no node answered.
    fn from(error: ClientError) -> Self {
        let refusal = &error.refusal;
        let mut text = format!("error: cannot {}: {}", refusal.what, refusal.why);
        if !refusal.not_lost.is_empty() {
            text.push_str(&format!("\n  {}", refusal.not_lost));
        }
        push_help(&mut text, &refusal.next);
        Self { exit: error.exit_code, text }
    }
}

fn push_help(text: &mut String, help: &str) {
    if !help.is_empty() {
        text.push_str(&format!("\n  help: {help}"));
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a node says may hold anything that a user once typed; a terminal must not obey it.
        let shown = self.text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
        shown.into_iter().try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

#[cfg(test)]
mod tests {
    use ashlar_cluster::api::{ErrorView, RefusalKind};

    use super::*;

    #[test]
    fn a_refusal_says_what_why_what_is_safe_and_what_next() {
        let refusal =
            ErrorView::new(RefusalKind::InUse, "delete volume db", "target vm attaches it\u{1b}[31m")
                .next("detach it first");
        let failure = Failure::from(ClientError::from(refusal));
        assert_eq!(failure.exit, 4);
        assert_eq!(
            failure.to_string(),
            "error: cannot delete volume db: target vm attaches it [31m\n  nothing was changed\n  help: detach it first"
        );
    }

    #[test]
    fn help_is_left_out_when_there_is_none() {
        assert_eq!(Failure::new(Exit::Failed, "it broke", "").to_string(), "error: it broke");
    }
}

//! What is wrong with a file, where, and how it is said.

use std::fmt;
use std::ops::Range;

/// How much of a long line is shown around the error, in characters.
const SHOWN_CHARS_MAX: usize = 100;
/// How much of it stands before the error.
const SHOWN_BEFORE_MAX: usize = 40;

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// How to mend it, when that is known.
    pub help: Option<String>,
    /// The part of the line that is shown, without control characters.
    excerpt: String,
    /// Characters of the excerpt before the underlined ones.
    indent: usize,
    /// How many characters are underlined.
    width: usize,
}

impl Diagnostic {
    /// A mistake at a byte range of `text`. A range that reaches past the end points at the end.
    pub(crate) fn new(text: &str, span: Range<usize>, message: String, help: Option<String>) -> Self {
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let column = text[line_start..start].chars().count() + 1;
        let width = text[start..end.min(line_end)].trim_end().chars().count().max(1);
        let (excerpt, indent) = excerpt(text[line_start..line_end].trim_end(), column - 1);
        let width = width.min(excerpt.chars().count().saturating_sub(indent).max(1));
        let line = text[..line_start].matches('\n').count() + 1;
        Self { line, column, message, help, excerpt, indent, width }
    }

    /// Writes the mistake for people, with the file's name and the offending line.
    fn render(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gutter = self.line.to_string().len();
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "{:gutter$}--> {file}:{}:{}", "", self.line, self.column)?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{} | {}", self.line, self.excerpt)?;
        let (indent, width) = (self.indent, self.width);
        write!(f, "{:gutter$} | {:indent$}{:^<width$}", "", "", "")?;
        if let Some(help) = &self.help {
            write!(f, "\n{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// The largest character boundary of `text` at or below `index`.
fn floor_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// The shown part of a line, and how many of its characters stand before character `at` of the line.
fn excerpt(line: &str, at: usize) -> (String, usize) {
    let from = if at > SHOWN_CHARS_MAX - SHOWN_BEFORE_MAX { at - SHOWN_BEFORE_MAX } else { 0 };
    // A file may come from anywhere: control characters would reach the terminal.
    let shown = line.chars().skip(from).take(SHOWN_CHARS_MAX);
    let shown = shown.map(|c| if c.is_control() { ' ' } else { c });
    (shown.collect(), at - from)
}

/// A file that was refused, with everything that is wrong with it in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's name as given.
    pub file: String,
    /// What is wrong. At least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for ConfigError {
    /// All mistakes, an empty line between each, no newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.render(&self.file, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_lines_and_characters_from_one() {
        let text = "a = 1\r\nb\u{e9} = 22\n";
        let at = |needle: &str| {
            let start = text.find(needle).unwrap();
            let found = Diagnostic::new(text, start..start + needle.len(), String::new(), None);
            (found.line, found.column, found.width)
        };
        assert_eq!(at("a"), (1, 1, 1));
        assert_eq!(at("22"), (2, 6, 2));
    }

    #[test]
    fn long_lines_are_cut_around_the_error() {
        let text = format!("{}WRONG{}", "x".repeat(500), "y".repeat(500));
        let found = Diagnostic::new(&text, 500..505, String::new(), None);
        assert_eq!((found.column, found.indent, found.width), (501, 40, 5));
        assert_eq!(found.excerpt.len(), SHOWN_CHARS_MAX);
    }

    #[test]
    fn terminals_are_not_sent_control_characters() {
        let found = Diagnostic::new("a\u{1b}[31mb\tc", 0..1, String::new(), None);
        assert_eq!(found.excerpt, "a [31mb c");
    }

    proptest! {
        #[test]
        fn any_range_of_any_text_can_be_shown(text in "(?s).{0,40}", start in 0usize..200, len in 0usize..200) {
            let found = Diagnostic::new(&text, start..start + len, "m".into(), None);
            prop_assert!(found.line >= 1 && found.column >= 1 && found.width >= 1);
            let _ = ConfigError { file: "f".into(), diagnostics: vec![found] }.to_string();
        }
    }
}

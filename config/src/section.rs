//! Reading one table of the file, key by key, collecting every mistake instead of stopping at the first.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::{keys, value};

/// The most mistakes that are kept of one file; a file with more is not a configuration.
const PROBLEMS_MAX: usize = 64;

/// A mistake before its place has been turned into line and column.
struct Problem {
    span: Range<usize>,
    message: String,
    help: Option<String>,
}

/// The mistakes found so far in one file.
pub(crate) struct Problems<'a> {
    text: &'a str,
    found: RefCell<Vec<Problem>>,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::new(Vec::new()) }
    }

    /// Notes a mistake at a byte range.
    pub(crate) fn add(&self, span: Range<usize>, message: String, help: Option<String>) {
        self.found.borrow_mut().push(Problem { span, message, help });
    }

    /// Moves the mistakes on the lines that `keep` wants, counted from 0, to `to`.
    pub(crate) fn drain_into(self, to: &Problems<'_>, keep: impl Fn(usize) -> bool) {
        for problem in self.found.into_inner() {
            let line = self.text[..problem.span.start].matches('\n').count();
            if keep(line) {
                to.found.borrow_mut().push(problem);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// The mistakes in the order of the file.
    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|problem| problem.span.start);
        found.truncate(PROBLEMS_MAX);
        found.into_iter().map(|p| Diagnostic::new(self.text, p.span, p.message, p.help)).collect()
    }
}

/// Why a value was refused: what follows the key's name in the message, and the mend.
pub(crate) struct Refusal {
    /// Starts with a space (`" must be text"`) or a colon (`": ... is not a size"`).
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// The part of the value that is wrong, when it is not all of it.
    pub(crate) span: Option<Range<usize>>,
}

impl Refusal {
    /// `` `key` must <what> ``
    pub(crate) fn must(what: impl std::fmt::Display) -> Self {
        Self { message: format!(" must {what}"), help: None, span: None }
    }

    /// `` `key`: <why> ``
    pub(crate) fn because(why: impl std::fmt::Display) -> Self {
        Self { message: format!(": {why}"), help: None, span: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at a part of the value, unless something nearer was pointed at already.
    pub(crate) fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

/// One table of the file, or its absence.
pub(crate) struct Section<'s, 'a> {
    path: &'static str,
    table: Option<&'s DeTable<'a>>,
    problems: &'s Problems<'a>,
}

impl<'s, 'a> Section<'s, 'a> {
    /// The table at `path`. Reports when something else than a table stands there.
    pub(crate) fn open(root: &'s DeTable<'a>, path: &'static str, problems: &'s Problems<'a>) -> Self {
        let (parent, key) = match path.rsplit_once('.') {
            Some((parent, key)) => (keys::descend(root, parent), key),
            None => (Some(root), path),
        };
        let entry = parent.and_then(|table| table.get_key_value(key));
        if let Some((name, value)) = entry {
            match value.get_ref() {
                DeValue::Table(_) => {}
                DeValue::Array(_) => problems.add(
                    name.span(),
                    format!("`{path}` is one table, not a list"),
                    Some(format!("write [{path}] once")),
                ),
                _ => {
                    let help = Some(format!("write [{path}] on a line of its own and its keys below"));
                    problems.add(name.span(), format!("`{path}` is a table of keys, not a value"), help);
                }
            }
        }
        Self { path, table: keys::descend(root, path), problems }
    }

    /// One table of a list of tables.
    pub(crate) fn of(table: &'s DeTable<'a>, path: &'static str, problems: &'s Problems<'a>) -> Self {
        Self { path, table: Some(table), problems }
    }

    /// The value at `key` as `parse` reads it; `default` when it is absent, or refused (and reported).
    pub(crate) fn read<T>(
        &self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Spanned<DeValue<'a>>) -> Result<T, Refusal>,
    ) -> T {
        let Some(value) = self.table.and_then(|table| table.get(key)) else { return default };
        parse(value).unwrap_or_else(|refusal| {
            self.refuse(key, value, refusal);
            default
        })
    }

    /// The list at `key`, each element as `parse` reads it; `default` when it is absent, or when anything in it
    /// is refused (each refused element is reported).
    pub(crate) fn read_list<T>(
        &self,
        key: &'static str,
        default: Vec<T>,
        parse: value::ListParser<T>,
    ) -> Vec<T> {
        let Some(value) = self.table.and_then(|table| table.get(key)) else { return default };
        let (read, refused) = parse.read(value);
        if refused.is_empty() {
            return read;
        }
        for refusal in refused {
            self.refuse(key, value, refusal);
        }
        default
    }

    fn refuse(&self, key: &str, value: &Spanned<DeValue<'a>>, refusal: Refusal) {
        let message = format!("`{}.{key}`{}", self.path, refusal.message);
        self.problems.add(refusal.span.unwrap_or(value.span()), message, refusal.help);
    }

    /// Where the value of `key` stands, or nothing when it has its default.
    pub(crate) fn span(&self, key: &str) -> Option<Range<usize>> {
        Some(self.table?.get(key)?.span())
    }
}

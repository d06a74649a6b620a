//! Why a command was not carried out, in words for people and a kind for programs.

use serde::{Deserialize, Serialize};

/// What sort of refusal it is. Decides the HTTP status and the exit code of the command line.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// It contradicts what is already there, such as a shrink that was not asked for explicitly.
    Conflict,
    /// An object of that name or identity is there already.
    Exists,
    /// The node could not do it, through no fault of the request.
    Failed,
    /// The object is in use and must be freed first.
    InUse,
    /// The request itself is wrong: a bad name, size or combination.
    Invalid,
    /// A documented maximum has been reached.
    Limit,
    /// The file system that holds the control state, or the image, is full.
    NoSpace,
    /// There is no such object.
    NotFound,
    /// The node is starting or draining and takes no changes.
    Unavailable,
}

impl RefusalKind {
    /// The HTTP status code that carries this refusal.
    pub fn http_status(self) -> u16 {
        match self {
            RefusalKind::Invalid => 400,
            RefusalKind::NotFound => 404,
            RefusalKind::Conflict | RefusalKind::Exists | RefusalKind::InUse | RefusalKind::Limit => 409,
            RefusalKind::Failed => 500,
            RefusalKind::Unavailable => 503,
            RefusalKind::NoSpace => 507,
        }
    }

    /// The exit code of the command line for this refusal.
    ///
    /// 1 failed, 2 used wrongly, 3 not found, 4 refused.
    pub fn exit_code(self) -> u8 {
        match self {
            RefusalKind::Failed | RefusalKind::NoSpace | RefusalKind::Unavailable => 1,
            RefusalKind::Invalid => 2,
            RefusalKind::NotFound => 3,
            RefusalKind::Conflict | RefusalKind::Exists | RefusalKind::InUse | RefusalKind::Limit => 4,
        }
    }

    /// The kind as it is written in JSON, log lines and metrics labels.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalKind::Conflict => "conflict",
            RefusalKind::Exists => "exists",
            RefusalKind::Failed => "failed",
            RefusalKind::InUse => "in_use",
            RefusalKind::Invalid => "invalid",
            RefusalKind::Limit => "limit",
            RefusalKind::NoSpace => "no_space",
            RefusalKind::NotFound => "not_found",
            RefusalKind::Unavailable => "unavailable",
        }
    }
}

/// A request that was not carried out: what was asked, why not, what was not lost, what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Refusal {
    /// What sort of refusal it is.
    pub kind: RefusalKind,
    /// What was asked, e.g. `create volume db`.
    pub what: String,
    /// Why it was not done, e.g. `a volume of that name exists`.
    pub why: String,
    /// What the refusal left untouched; empty when there was nothing to lose.
    #[serde(default)]
    pub not_lost: String,
    /// What to do next; empty when there is no advice to give.
    #[serde(default)]
    pub next: String,
}

impl Refusal {
    /// A refusal that changed nothing.
    pub fn new(kind: RefusalKind, what: impl Into<String>, why: impl Into<String>) -> Self {
        Refusal {
            kind,
            what: what.into(),
            why: why.into(),
            not_lost: "nothing was changed".into(),
            next: String::new(),
        }
    }

    /// The same refusal with advice on what to do next.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// The same refusal with another statement of what was not lost.
    pub fn not_lost(mut self, not_lost: impl Into<String>) -> Self {
        self.not_lost = not_lost.into();
        self
    }
}

/// A refusal before it is known what was asked: the state machine's rules speak in these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What sort of refusal it is.
    pub kind: RefusalKind,
    /// Why it was not done.
    pub why: String,
    /// What to do next.
    pub next: String,
}

impl Reason {
    /// A reason without advice.
    pub fn new(kind: RefusalKind, why: impl Into<String>) -> Self {
        Reason { kind, why: why.into(), next: String::new() }
    }

    /// The same reason with advice on what to do next.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// The refusal of `what` for this reason.
    pub fn refuse(self, what: impl Into<String>) -> Refusal {
        Refusal::new(self.kind, what, self.why).next(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_status_an_exit_code_and_the_name_serde_gives_it() {
        use RefusalKind::*;
        let table = [
            (Conflict, 409, 4),
            (Exists, 409, 4),
            (Failed, 500, 1),
            (InUse, 409, 4),
            (Invalid, 400, 2),
            (Limit, 409, 4),
            (NoSpace, 507, 1),
            (NotFound, 404, 3),
            (Unavailable, 503, 1),
        ];
        for (kind, status, exit) in table {
            assert_eq!((kind.http_status(), kind.exit_code()), (status, exit), "{kind:?}");
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
        }
    }
}

//! Errors of SQLite, with what was being done. It does not decide what follows from an error.

use crate::SinkError;

/// Names what was being done when SQLite reported an error.
pub(super) fn sqlite_error(what: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> SinkError {
    let what = what.into();
    move |error| SinkError::new(what, error)
}

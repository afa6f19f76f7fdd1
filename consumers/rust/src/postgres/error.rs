//! Errors of the target database: what was being done, what the server reported, and whether a new
//! connection may help.

use std::{error::Error, io};

use crate::SinkError;

/// SQLSTATEs that are transient elsewhere, but not here: a table in use by our own transaction, a
/// configured limit, a protocol violation.
const PERMANENT_HERE: [&str; 3] = ["55006", "53400", "08P01"];

/// Names what was being done when the driver reported an error.
pub(super) fn postgres_error(
    what: impl Into<String>,
) -> impl FnOnce(tokio_postgres::Error) -> SinkError {
    let what = what.into();
    move |error| {
        let cause = Error::source(&error);
        let (is_transient, reason) = match (error.as_db_error(), cause) {
            (Some(db), _) => {
                (is_transient_here(db.code().code()), walgate_pg_connect::describe_db_error(db))
            }
            (None, Some(cause)) => (is_connection_lost(cause), format!("{error}: {cause}")),
            (None, None) => (error.is_closed(), error.to_string()),
        };
        if is_transient { SinkError::transient(what, reason) } else { SinkError::new(what, reason) }
    }
}

fn is_transient_here(code: &str) -> bool {
    walgate_pg_connect::is_transient_sqlstate(code) && !PERMANENT_HERE.contains(&code)
}

/// Whether the connection broke, as opposed to a message that cannot be written or read.
fn is_connection_lost(cause: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let error = cause.downcast_ref::<io::Error>();
    error.is_some_and(|error| ![InvalidData, InvalidInput].contains(&error.kind()))
}

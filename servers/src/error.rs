//! Errors of servers and toolchains, written for the person at the terminal. What the caller wanted
//! to do with them is not known here.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{name} was not found ({looked}); {remedy}")]
    Missing { name: &'static str, looked: String, remedy: &'static str },

    #[error("{name} {version} at {} is too old: at least {least} is needed; {remedy}", path.display())]
    TooOld {
        name: &'static str,
        version: String,
        path: PathBuf,
        least: &'static str,
        remedy: &'static str,
    },

    #[error("{} is not a usable {name}: {reason}", path.display())]
    Unusable { name: &'static str, path: PathBuf, reason: String },

    #[error("{name} did not start: {reason}; the end of its log:\n{log}")]
    Start { name: &'static str, reason: String, log: String },

    #[error("{name} failed: {output}")]
    Command { name: String, output: String },

    #[error("could not {action}: {source}")]
    Io { action: String, source: io::Error },

    #[error("{path} cannot be entered by the user {user}, as whom Postgres must run because it refuses root; \
             give a directory that others may enter, such as one below /var/tmp", path = path.display())]
    Untraversable { path: PathBuf, user: String },

    #[error(
        "no user named postgres or nobody in /etc/passwd, and Postgres refuses to run as root; \
             add one (useradd --system postgres) or run as an ordinary user"
    )]
    NoUser,

    #[error("no free port found between {from} and {to} on 127.0.0.1; name one explicitly")]
    NoPort { from: u16, to: u16 },
}

/// Adds the attempted action to an I/O error.
pub(crate) trait During<T> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error::Io { action: action(), source: e.into() })
    }
}

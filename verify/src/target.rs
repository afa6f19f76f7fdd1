//! The location of a local copy: a SQLite file or a Postgres database, as on the command line.

use std::{path::PathBuf, str::FromStr};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Sqlite(PathBuf),
    /// A URL; may hold a password.
    Postgres(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            // Other tools write sqlite:///path.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("sqlite: needs a file, sqlite:edge.db".to_owned())
            } else {
                Ok(Target::Sqlite(path.into()))
            };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Target::Postgres(text.to_owned()));
        }
        Err("write sqlite:edge.db or postgres://user@host/database".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!("sqlite:edge.db".parse(), Ok(Target::Sqlite("edge.db".into())));
        assert_eq!("sqlite:///var/edge.db".parse(), Ok(Target::Sqlite("/var/edge.db".into())));
        assert!(matches!("postgresql://localhost/edge".parse(), Ok(Target::Postgres(_))));
        for bad in ["edge.db", "sqlite:", "mysql://x"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}

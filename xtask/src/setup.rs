//! Chooses the servers, prints the choice, and hands them to other programs through the
//! environment. What the programs do with them is not known here.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use walgate_servers::{Found, NatsBin, PgBin, find_all_postgres};

use crate::fetch::{ensure_nats, ensure_postgres, fetch_postgres};

const POSTGRES_BIN: &str = "WALGATE_POSTGRES_BIN";
const NATS_SERVER: &str = "WALGATE_NATS_SERVER";

pub struct Servers {
    postgres: PgBin,
    nats: NatsBin,
}

impl Servers {
    /// The servers on this machine; missing ones are downloaded.
    pub fn provide() -> Result<Self> {
        let postgres = ensure_postgres(path_in_env(POSTGRES_BIN).as_deref(), log)?;
        log_choice(&postgres);
        let nats = ensure_nats(path_in_env(NATS_SERVER).as_deref(), log)?;
        log_choice(&nats);
        Ok(Self { postgres: postgres.bin, nats: nats.bin })
    }

    /// Likewise, with a second major version of Postgres: that of the distribution, and the newest.
    pub fn provide_for_tests() -> Result<Self> {
        let servers = Self::provide()?;
        if let Err(error) = fetch_postgres(log) {
            log(&format!("note: {error}"));
        }
        let majors: Vec<_> = find_all_postgres().iter().map(|bin| bin.version.major).collect();
        if let [only] = majors[..] {
            log(&format!(
                "note: tests run on Postgres {only} alone; for a second major version install \
                 another (Debian: apt-get install postgresql)"
            ));
        } else {
            log(&format!("tests run on Postgres {majors:?}"));
        }
        Ok(servers)
    }

    pub fn export_to(&self, command: &mut Command) {
        command.env(POSTGRES_BIN, &self.postgres.dir).env(NATS_SERVER, &self.nats.file);
    }
}

fn path_in_env(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn log_choice<B>(found: &Found<B>)
where
    Found<B>: std::fmt::Display,
{
    found.skipped.iter().for_each(|note| log(note));
    log(&found.to_string());
}

fn log(line: &str) {
    eprintln!("setup: {line}");
}

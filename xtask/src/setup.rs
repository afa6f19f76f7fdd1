//! Chooses the servers, says which, and hands them to what runs next through the environment.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use walgate_servers::{
    Found, NatsBin, PgBin, ensure_nats, ensure_postgres, fetch_postgres, find_all_postgres,
};

const POSTGRES_BIN: &str = "WALGATE_POSTGRES_BIN";
const NATS_SERVER: &str = "WALGATE_NATS_SERVER";

pub struct Servers {
    postgres: PgBin,
    nats: NatsBin,
}

impl Servers {
    /// What is here, or else what can be fetched.
    pub fn ready() -> Result<Self> {
        let postgres = ensure_postgres(named(POSTGRES_BIN).as_deref(), say)?;
        chosen(&postgres);
        let nats = ensure_nats(named(NATS_SERVER).as_deref(), say)?;
        chosen(&nats);
        Ok(Self { postgres: postgres.bin, nats: nats.bin })
    }

    /// As well a second major version of Postgres: what a distribution has, and the newest.
    pub fn ready_for_tests() -> Result<Self> {
        let servers = Self::ready()?;
        if let Err(error) = fetch_postgres(say) {
            say(&format!("note: {error}"));
        }
        let majors: Vec<_> = find_all_postgres().iter().map(|bin| bin.version.major).collect();
        if let [only] = majors[..] {
            say(&format!(
                "note: tests run on Postgres {only} alone; for a second major version install \
                 another (Debian: apt-get install postgresql)"
            ));
        } else {
            say(&format!("tests run on Postgres {majors:?}"));
        }
        Ok(servers)
    }

    pub fn export(&self, command: &mut Command) {
        command.env(POSTGRES_BIN, &self.postgres.dir).env(NATS_SERVER, &self.nats.file);
    }
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn chosen<B>(found: &Found<B>)
where
    Found<B>: std::fmt::Display,
{
    found.skipped.iter().for_each(|note| say(note));
    say(&found.to_string());
}

fn say(line: &str) {
    eprintln!("setup: {line}");
}

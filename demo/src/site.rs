//! The demo's private servers and the places of its files.
//!
//! Everything is removed when this is dropped, except for a directory that the user named. This
//! file does not know what the servers are for.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use walgate_servers::{
    NatsOptions, PgOptions, PrivateNats, PrivatePostgres, find_nats, find_postgres, free_port,
};

pub const DATABASE: &str = "postgres";

/// Where to look for servers first, and where to put files.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub postgres_bin: Option<PathBuf>,
    pub nats_server: Option<PathBuf>,
    pub dir: Option<PathBuf>,
}

/// Running servers, and a folder for files.
#[derive(Debug)]
pub struct Site {
    pub postgres: PrivatePostgres,
    pub nats: PrivateNats,
    /// The address of the gateway's HTTP server.
    pub http: SocketAddr,
    folder: PathBuf,
    /// "PostgreSQL 18.6 and nats-server 2.15".
    pub found: String,
}

impl Site {
    /// Blocks for about two seconds, mainly for Postgres' `initdb`.
    pub fn open(wanted: &Wanted) -> Result<Site> {
        let postgres = find_postgres(wanted.postgres_bin.as_deref())?;
        let nats = find_nats(wanted.nats_server.as_deref())?;
        let found =
            format!("PostgreSQL {} and nats-server {}", postgres.bin.version, nats.bin.version);
        let dir = wanted.dir.as_deref().map(std::path::absolute).transpose()?;
        if let Some(dir) = &dir {
            ensure_empty(dir)?;
        }
        let in_dir = |name: &str| dir.as_ref().map(|dir| dir.join(name));
        let nats = PrivateNats::start(
            &nats.bin,
            NatsOptions { store_dir: in_dir("nats"), ..NatsOptions::default() },
        )?;
        let options = PgOptions { dir: in_dir("postgres"), ..PgOptions::default() };
        let postgres = PrivatePostgres::start(&postgres.bin, options)?;
        // Without a named directory: beside the store of the private server, and removed with it.
        let folder = dir.unwrap_or_else(|| nats.store_dir().with_file_name("demo"));
        for name in ["dictionaries", "guests"] {
            let drop_in = folder.join(name);
            fs::create_dir_all(&drop_in)
                .with_context(|| format!("making {}", drop_in.display()))?;
        }
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        Ok(Site { postgres, nats, http, folder, found })
    }

    pub fn dictionaries(&self) -> PathBuf {
        self.folder.join("dictionaries")
    }

    pub fn guests(&self) -> PathBuf {
        self.folder.join("guests")
    }

    /// The gateway's own directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("gateway")
    }

    /// The SQLite file.
    pub fn replica(&self) -> PathBuf {
        self.folder.join("replica.db")
    }

    /// Over the unix socket, which is about twice as fast as TCP.
    pub fn postgres_url(&self) -> String {
        self.postgres.unix_url(DATABASE)
    }
}

fn ensure_empty(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    ensure!(
        entries.next().is_none(),
        "{} is not empty: the demo starts from nothing, name a new directory or remove what is there",
        dir.display()
    );
    Ok(())
}

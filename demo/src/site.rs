//! The demo's private servers and where its files lie.
//!
//! Everything is gone when this is dropped, unless a directory was named for it. What the servers are used for
//! is not known here.

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

/// Where servers are looked for first, and where to put everything.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub postgres_bin: Option<PathBuf>,
    pub nats_server: Option<PathBuf>,
    pub dir: Option<PathBuf>,
}

/// Servers that run and a folder to write in.
#[derive(Debug)]
pub struct Site {
    pub postgres: PrivatePostgres,
    pub nats: PrivateNats,
    /// Where the gateway answers over HTTP.
    pub http: SocketAddr,
    folder: PathBuf,
    /// "PostgreSQL 18.6 and nats-server 2.15".
    pub found: String,
}

impl Site {
    /// Blocks for about two seconds, most of them for Postgres to make its data directory.
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
        // Without a directory of our own: beside the store of the private server, and removed with it.
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

    /// The gateway's own.
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

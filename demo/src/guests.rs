//! The demo's guests: how they get into the folder that the gateway watches, and the effect of
//! replacing one.
//!
//! They are the crates in `guests/` of the source tree. `cargo xtask guests` builds them to
//! WebAssembly.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};

use crate::{board::Board, figures::seconds, shop, site::Site};
use walgate_host::{assets::write_whole, observe::counts::GuestCounts};

/// The guest that replaces `users` while the demo runs.
const NEXT: &str = "users_next";
const LIVE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The output folder of `cargo xtask guests`.
#[derive(Clone, Debug)]
pub struct Guests(PathBuf);

impl Guests {
    /// Puts one guest for each table where the gateway looks for it.
    pub fn install(built: &Path, site: &Site) -> Result<Guests> {
        let guests = Guests(built.to_owned());
        for table in shop::TABLES {
            guests.drop_in(table, table, site)?;
        }
        Ok(guests)
    }

    fn drop_in(&self, guest: &str, table: &str, site: &Site) -> Result<()> {
        write_whole(&site.guests().join(format!("{table}.wasm")), &self.read(guest)?)
            .with_context(|| format!("writing the guest of {table}"))
    }

    fn read(&self, guest: &str) -> Result<Vec<u8>> {
        let path = self.0.join(format!("{guest}.wasm"));
        fs::read(&path).with_context(|| {
            format!("reading {}, which `cargo xtask guests` builds", path.display())
        })
    }

    /// Drops a broken guest for users, then a valid one. Waits until each has shown its effect.
    pub async fn swap(&self, board: &Board, site: &Site) -> Result<()> {
        board.set_stage("dropping a broken guest into the folder");
        let next = self.read(NEXT)?;
        write_whole(&site.guests().join("users.wasm"), &next[..next.len() / 2])?;
        let refused = |counts: &GuestCounts| counts.file_problem.is_some();
        let waited =
            wait("a broken guest to be refused", || guest(board).is_some_and(|c| refused(&c)));
        let took = waited.await?;
        board.event(format!(
            "a broken guest for users dropped in and refused after {}; the one before goes on",
            seconds(took)
        ));
        board.set_stage("dropping the next guest of users into the folder");
        self.drop_in(NEXT, "users", site)?;
        let took = wait("users_next to be live", || {
            guest(board).is_some_and(|counts| counts.guest.starts_with(NEXT))
        });
        let live = took.await?;
        let replica = site.replica();
        let took = wait("phone numbers to be gone from the replica", || {
            columns(&replica).is_ok_and(|columns| !columns.iter().any(|name| name == "phone"))
        });
        board.event(format!(
            "the next guest of users dropped in: live after {}, the replica has no phone numbers {} later",
            seconds(live),
            seconds(took.await?)
        ));
        Ok(())
    }
}

async fn wait(what: &str, is_so: impl Fn() -> bool) -> Result<Duration> {
    let begun = Instant::now();
    while !is_so() {
        ensure!(begun.elapsed() < LIVE_WITHIN, "waited {} s for {what}", LIVE_WITHIN.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(begun.elapsed())
}

fn guest(board: &Board) -> Option<GuestCounts> {
    let counts = board.counts();
    counts.into_iter().find(|(token, _)| token.as_str() == "users").and_then(|(_, c)| c.guest)
}

/// The columns of the replica's users, as a reader of the file sees them.
fn columns(replica: &Path) -> rusqlite::Result<Vec<String>> {
    let reader = Connection::open_with_flags(replica, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut columns = reader.prepare("SELECT name FROM pragma_table_info('users')")?;
    columns.query_map([], |row| row.get(0))?.collect()
}

/// Values in the replica that the guests should have removed.
pub fn leaks(replica: &Path) -> Result<Vec<String>> {
    let reader = Connection::open_with_flags(replica, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let count = |sql: &str| reader.query_row(sql, [], |row| row.get::<_, i64>(0));
    let mut leaks = vec![];
    if columns(replica)?.iter().any(|name| name == "password_hash") {
        leaks.push("the replica has a column password_hash".to_owned());
    }
    for (what, sql) in [
        ("users of other regions", "SELECT count(*) FROM users WHERE country <> 'DE'"),
        ("plain e-mail addresses", "SELECT count(*) FROM users WHERE email NOT LIKE '_***@%'"),
        ("test orders", "SELECT count(*) FROM orders WHERE number LIKE 'TEST-%'"),
    ] {
        let found = count(sql)?;
        if found > 0 {
            leaks.push(format!("the replica has {found} {what}"));
        }
    }
    if count("SELECT count(*) FROM users")? == 0 {
        leaks.push("the replica has no users at all".to_owned());
    }
    Ok(leaks)
}

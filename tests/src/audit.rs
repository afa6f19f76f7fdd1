//! The expected content of the stream, from Postgres itself: a second slot, read over SQL, lists
//! every commit and every change. Only message kinds and lengths are read; our own decoder is not
//! involved.

use std::collections::{HashMap, HashSet};

use walgate_wire::{Epoch, Lsn, Position, TableName};

use crate::{
    Database, Site,
    stream::{self, Entry},
};

/// A slot that keeps all changes since its creation.
pub struct Audit {
    slot: String,
    start: Lsn,
}

/// One change as Postgres lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditChange {
    pub position: Position,
    pub xid: u32,
    pub at: i64,
    pub op: char,
    pub table: TableName,
}

/// All changes of the publication since the audit began.
#[derive(Clone, Debug, Default)]
pub struct AuditLog {
    pub changes: Vec<AuditChange>,
    /// The commit LSN of the last transaction.
    pub last_commit: Lsn,
}

impl Audit {
    /// Call this once the gateway is ready: the publication has to exist.
    pub async fn begin(database: &Database) -> Audit {
        let slot = format!("audit_{}", database.name());
        // A slot of an earlier audit holds changes that no longer count, or none.
        let before = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name =";
        database.rows(&format!("{before} '{slot}'")).await;
        let failover = if database.server().major() >= 17 { ", failover => true" } else { "" };
        let start = database
            .value(&format!(
                "select lsn from pg_create_logical_replication_slot('{slot}', 'pgoutput'{failover})"
            ))
            .await;
        Audit { slot, start: start.parse().expect("an LSN") }
    }

    /// Ignores what was committed so far. After the slot has advanced, a standby can synchronise
    /// it.
    pub async fn skip_to_now(&mut self, database: &Database) {
        let sql = format!(
            "select pg_log_standby_snapshot();
             select end_lsn from pg_replication_slot_advance('{}', pg_current_wal_lsn())",
            self.slot
        );
        let rows = database.rows(&sql).await;
        let end = rows.last().and_then(|row| row[0].as_deref()).expect("an LSN");
        self.start = end.parse().expect("an LSN");
    }

    pub fn slot(&self) -> &str {
        &self.slot
    }

    pub async fn read_log(&self, database: &Database) -> AuditLog {
        let frames = database
            .rows(&format!(
                "select encode(substr(data, 1, 160), 'hex') from pg_logical_slot_peek_binary_changes(
                   '{}', null, null, 'proto_version', '1', 'publication_names', 'walgate')",
                self.slot
            ))
            .await;
        let mut log = AuditLog::default();
        let mut reader = FrameReader::default();
        for frame in frames.iter().filter_map(|row| row[0].as_deref()) {
            reader.read_frame(&walgate_wire::hex::decode(frame).expect("hex"), &mut log);
        }
        log
    }

    /// Waits until the stream holds everything. Then asserts that it holds every committed change
    /// once, in commit order, without a gap, in one epoch. `tables`: the configured tables, by name
    /// and token.
    pub async fn assert_stream_is_exact(&self, site: &Site, tables: &[(&str, &str)]) -> Vec<Entry> {
        let (log, entries) = self.wait_until_complete(site).await;
        check_order(&entries, &[]);
        let floor = Position::new(self.start, 0);
        compare_changes(&log, &entries, floor, &Tables { whole: tables, filtered: &[] });
        assert_confirmed_is_in_stream(site).await;
        entries
    }

    /// The same for tables with guests, and after a fault that may begin an epoch or remove
    /// messages. The latest epoch has to be exact from its first message on.
    pub async fn assert_latest_epoch_is_exact(&self, site: &Site, tables: &Tables<'_>) -> Epochs {
        let (log, entries) = self.wait_until_complete(site).await;
        let epochs: Vec<&[Entry]> = entries.chunk_by(|a, b| a.epoch() == b.epoch()).collect();
        assert!(
            epochs.windows(2).all(|pair| pair[0][0].epoch() < pair[1][0].epoch()),
            "epochs only grow"
        );
        epochs.iter().for_each(|entries| check_order(entries, tables.filtered));
        let latest = *epochs.last().expect("the stream is not empty");
        let began = match &latest[0] {
            Entry::Progress { header, .. } => header.position,
            Entry::Changes { changes, .. } => previous_position(changes[0].position),
        };
        compare_changes(&log, latest, began.max(Position::new(self.start, 0)), tables);
        assert_confirmed_is_in_stream(site).await;
        let is_whole = began.commit_lsn <= self.start;
        Epochs { latest: latest[0].epoch(), is_whole }
    }

    /// The committed changes, and the stream once it holds them.
    async fn wait_until_complete(&self, site: &Site) -> (AuditLog, Vec<Entry>) {
        let log = self.read_log(&site.database).await;
        stream::wait_for_commit(&site.broker, log.last_commit).await;
        (log, stream::read_cdc(&site.broker).await)
    }
}

/// Configured tables, by name and token.
pub struct Tables<'a> {
    /// Every change is published.
    pub whole: &'a [(&'a str, &'a str)],
    /// A guest may withhold changes, and turn others into deletes.
    pub filtered: &'a [(&'a str, &'a str)],
}

/// Which epochs the stream holds.
#[derive(Clone, Copy, Debug)]
pub struct Epochs {
    pub latest: Epoch,
    /// The latest epoch began before the audit.
    pub is_whole: bool,
}

/// The last position before this one.
fn previous_position(position: Position) -> Position {
    Position::new(position.commit_lsn, position.ordinal.saturating_sub(1))
}

/// Compares both sides beyond `floor`.
fn compare_changes(log: &AuditLog, entries: &[Entry], floor: Position, tables: &Tables<'_>) {
    let tokens = |list: &[(&str, &str)]| -> HashMap<TableName, String> {
        let name =
            |(name, token): &(&str, &str)| (name.parse().expect("a name"), (*token).to_owned());
        list.iter().map(name).collect()
    };
    let whole = tokens(tables.whole);
    let filtered = tokens(tables.filtered);
    let committed = |of: &HashMap<TableName, String>| {
        let change = |change: &AuditChange| {
            let token = of.get(&change.table).filter(|_| change.position > floor)?;
            Some((change.position, change.op, change.xid, change.at, token.clone()))
        };
        log.changes.iter().filter_map(change).collect::<Vec<_>>()
    };
    let stored = |of: &HashMap<TableName, String>| {
        stream::changes(entries)
            .filter(|change| change.position > floor && of.values().any(|t| *t == change.token))
            .map(|c| (c.position, c.op, c.xid, c.at, c.token.clone()))
            .collect::<Vec<_>>()
    };
    let expected = committed(&whole);
    let found = stored(&whole);
    if let Some(at) =
        (0..expected.len().max(found.len())).find(|&i| expected.get(i) != found.get(i))
    {
        panic!(
            "the stream is not what was committed: change {at} is {:?} instead of {:?} ({} changes instead of {})",
            found.get(at),
            expected.get(at),
            found.len(),
            expected.len(),
        );
    }
    let known = |change: &stream::StreamChange| {
        whole.values().chain(filtered.values()).any(|token| *token == change.token)
    };
    let foreign = stream::changes(entries).find(|change| !known(change));
    assert!(foreign.is_none(), "the stream holds a table that was not asked for: {foreign:?}");
    let places: HashSet<_> = committed(&filtered).into_iter().map(|c| (c.0, c.2, c.4)).collect();
    for change in stored(&filtered) {
        assert!(
            places.contains(&(change.0, change.2, change.4.clone())),
            "the stream holds {change:?}, which was never committed"
        );
    }
}

async fn assert_confirmed_is_in_stream(site: &Site) {
    let confirmed = site.confirmed_lsn().await;
    let stated = stream::last_progress(&site.broker).await.expect("progress").end_lsn;
    assert!(
        confirmed <= stated,
        "the slot is confirmed to {confirmed}, the stream only states {stated}"
    );
}

/// Positions only grow, in one epoch. Headers agree with bodies. Progress never promises later
/// changes.
fn check_order(entries: &[Entry], filtered: &[(&str, &str)]) {
    let mut before = Position::default();
    let mut end = Lsn(0);
    let mut epoch = None;
    for entry in entries {
        let header = match entry {
            Entry::Changes { last, changes, .. } => {
                for change in changes {
                    assert!(
                        change.position > before,
                        "{} after {before}: {change:?}",
                        change.position
                    );
                    before = change.position;
                }
                // The position also covers rows that the guest withheld.
                let is_filtered = filtered.iter().any(|(_, token)| *token == changes[0].token);
                assert!(
                    last.position == before || is_filtered && last.position > before,
                    "Wg-Pos is the position of the last change, {before}, not {}",
                    last.position
                );
                before = last.position;
                last
            }
            Entry::Progress { sequence, header, progress } => {
                let position = progress.position();
                assert!(
                    position >= before,
                    "progress {sequence} goes back from {before} to {position}"
                );
                assert!(progress.end_lsn >= end, "progress {sequence} goes back from {end}");
                assert_eq!(header.position, position);
                (before, end) = (position, progress.end_lsn);
                header
            }
        };
        assert_eq!(
            *epoch.get_or_insert(header.epoch),
            header.epoch,
            "an epoch begins without a cause"
        );
    }
}

/// Reads pgoutput, protocol 1, as far as counting needs it.
#[derive(Default)]
struct FrameReader {
    relations: HashMap<u32, TableName>,
    commit: Lsn,
    at: i64,
    xid: u32,
    ordinal: u32,
}

impl FrameReader {
    fn read_frame(&mut self, frame: &[u8], log: &mut AuditLog) {
        let u32_at =
            |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
        let u64_at =
            |at: usize| u64::from_be_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
        match frame[0] {
            b'B' => {
                const FROM_1970_TO_2000: i64 = 946_684_800_000_000;
                self.commit = Lsn(u64_at(1));
                self.at = u64_at(9) as i64 + FROM_1970_TO_2000;
                self.xid = u32_at(17);
                self.ordinal = 0;
            }
            b'C' => log.last_commit = self.commit,
            b'R' => {
                let mut names = frame[5..].split(|&byte| byte == 0);
                let mut name =
                    || String::from_utf8(names.next().expect("a name").to_vec()).expect("UTF-8");
                self.relations.insert(u32_at(1), TableName::new(name(), name()));
            }
            b'T' => {
                (0..u32_at(1) as usize).for_each(|i| self.push_change(log, 't', u32_at(6 + 4 * i)))
            }
            op @ (b'I' | b'U' | b'D') => {
                self.push_change(log, op.to_ascii_lowercase().into(), u32_at(1))
            }
            _ => {}
        }
    }

    fn push_change(&mut self, log: &mut AuditLog, op: char, relation: u32) {
        self.ordinal += 1;
        log.changes.push(AuditChange {
            position: Position::new(self.commit, self.ordinal),
            xid: self.xid,
            at: self.at,
            op,
            table: self.relations[&relation].clone(),
        });
    }
}

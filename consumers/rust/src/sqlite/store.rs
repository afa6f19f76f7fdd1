//! The file: its settings, what is remembered in it, its transactions. What a change does is in `apply`.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use walgate_wire::{Lsn, Position, Token};

use super::{
    ddl::{LOADING, quoted, table_name},
    plan::Plan,
};
use crate::{Changes, Mark, SinkError, Step, Stored, TableRecord};

const PREPARED_STATEMENTS: usize = 256;
const BUSY_WAIT: Duration = Duration::from_secs(30);
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);

const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA cache_size = -32768;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 67108864;
    -- A table can be replaced under the views that mention it.
    PRAGMA legacy_alter_table = ON;
    PRAGMA foreign_keys = OFF;
";

const STATE_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _walgate_tables (
        token TEXT PRIMARY KEY, name TEXT NOT NULL, record TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS _walgate_position (
        id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL, lsn TEXT NOT NULL,
        ordinal INTEGER NOT NULL, seq INTEGER NOT NULL, verified_seq INTEGER NOT NULL,
        stream_created INTEGER NOT NULL, at INTEGER NOT NULL
    );
";

pub(super) struct Store {
    pub(super) connection: Connection,
    path: String,
    in_transaction: bool,
    /// Why a chunk of the load that is under way is missing, if one is.
    pub(super) load_failed: Option<SinkError>,
    plans: HashMap<Token, Arc<Plan>>,
    /// Held as long as the file is written to: two writers would each apply everything.
    _lock: File,
}

/// Turns an SQLite error into one that says what was being done.
pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> SinkError {
    let what = what.into();
    move |error| SinkError::new(what, error)
}

impl Store {
    pub fn open(path: &Path) -> Result<Store, SinkError> {
        let name = format!("SQLite file {}", path.display());
        let lock = lock(path)?;
        let connection = Connection::open(path).map_err(failed(&name))?;
        connection.busy_timeout(BUSY_WAIT).map_err(failed(&name))?;
        connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
        connection.execute_batch(SETTINGS).map_err(failed(&name))?;
        connection.execute_batch(STATE_TABLES).map_err(failed(&name))?;
        let store = Store {
            connection,
            path: name,
            in_transaction: false,
            load_failed: None,
            plans: HashMap::new(),
            _lock: lock,
        };
        store.drop_loading()?;
        Ok(store)
    }

    pub fn stored(&mut self) -> Result<Stored, SinkError> {
        let mut select = self
            .connection
            .prepare("SELECT record FROM _walgate_tables ORDER BY token")
            .map_err(failed(&self.path))?;
        let records =
            select.query_map([], |row| row.get::<_, String>(0)).map_err(failed(&self.path))?;
        let mut tables = Vec::new();
        for record in records {
            let record = record.map_err(failed(&self.path))?;
            let unreadable = |e| SinkError::new(format!("{}: _walgate_tables", self.path), e);
            tables.push(serde_json::from_str(&record).map_err(unreadable)?);
        }
        let mark = self.connection.query_row(
            "SELECT epoch, lsn, ordinal, seq, verified_seq, stream_created, at FROM _walgate_position",
            [],
            read_mark,
        );
        match mark {
            Ok(mark) => Ok(Stored { mark: Some(mark), tables }),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(Stored { mark: None, tables }),
            Err(error) => Err(failed(&self.path)(error)),
        }
    }

    /// Opens the local transaction if none is.
    pub fn begin(&mut self) -> Result<(), SinkError> {
        if !self.in_transaction {
            self.execute("BEGIN IMMEDIATE")?;
            self.in_transaction = true;
        }
        self.still_open()
    }

    /// SQLite ends a transaction by itself when a disk is full, say: what is done after that would stand alone.
    pub fn still_open(&self) -> Result<(), SinkError> {
        if self.connection.is_autocommit() {
            let reason = "SQLite has rolled the transaction back: is the disk full?";
            return Err(SinkError::new(&self.path, reason));
        }
        Ok(())
    }

    pub fn commit(&mut self, mark: Mark) -> Result<(), SinkError> {
        self.begin()?;
        self.write_mark(mark)?;
        self.end()
    }

    /// Commits without a position.
    pub fn end(&mut self) -> Result<(), SinkError> {
        self.execute("COMMIT")?;
        self.in_transaction = false;
        Ok(())
    }

    pub fn rollback(&mut self) -> Result<(), SinkError> {
        self.plans.clear();
        // SQLite may have ended it by itself.
        if !self.connection.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        self.in_transaction = false;
        Ok(())
    }

    pub fn save(&mut self, records: &[TableRecord]) -> Result<(), SinkError> {
        self.begin()?;
        self.write_records(records)?;
        self.end()
    }

    pub fn forget(&mut self, token: &Token) -> Result<(), SinkError> {
        let delete = "DELETE FROM _walgate_tables WHERE token = ?";
        self.connection.execute(delete, [token.as_str()]).map_err(failed(&self.path))?;
        Ok(())
    }

    pub fn apply(&mut self, changes: &Changes) -> Result<(), SinkError> {
        self.begin()?;
        let token = &changes.local.token;
        let plan = match self.plans.get(token) {
            Some(plan) if plan.fits(changes) => plan.clone(),
            _ => {
                let plan = Arc::new(Plan::new(&changes.schema, &changes.local)?);
                self.plans.insert(token.clone(), plan.clone());
                plan
            }
        };
        super::apply::apply(&self.connection, &plan, changes)
    }

    pub fn migrate(&mut self, record: &TableRecord, steps: &[Step]) -> Result<(), SinkError> {
        self.begin()?;
        self.plans.remove(&record.token);
        let table = quoted(&table_name(&record.schema));
        for step in steps {
            match step {
                Step::Drop { name } => {
                    self.drop_indexes_on(&table_name(&record.schema), name)?;
                    self.execute(&format!("ALTER TABLE {table} DROP COLUMN {}", quoted(name)))?;
                }
                Step::Rename { from, to } => {
                    let (from, to) = (quoted(from), quoted(to));
                    self.execute(&format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}"))?;
                }
                Step::Add(column) => {
                    let (name, kind) = (quoted(&column.name), super::ddl::column_type(column));
                    self.execute(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"))?;
                }
            }
        }
        self.write_records(std::slice::from_ref(record))
    }

    /// SQLite refuses to drop a column that an index needs.
    fn drop_indexes_on(&self, table: &str, column: &str) -> Result<(), SinkError> {
        let sql = "SELECT DISTINCT i.name FROM pragma_index_list(?1) i, pragma_index_info(i.name) c
                   WHERE c.name = ?2 AND i.origin = 'c'";
        let mut select = self.connection.prepare(sql).map_err(failed(table))?;
        let names = select.query_map([table, column], |row| row.get::<_, String>(0));
        let names: Result<Vec<String>, _> = names.map_err(failed(table))?.collect();
        for index in names.map_err(failed(table))? {
            tracing::warn!(table, index, column, "an index goes with the column that it was on");
            self.execute(&format!("DROP INDEX {}", quoted(&index)))?;
        }
        Ok(())
    }

    pub fn forget_plan(&mut self, token: &Token) {
        self.plans.remove(token);
    }

    pub fn write_records(&self, records: &[TableRecord]) -> Result<(), SinkError> {
        let upsert = "INSERT INTO _walgate_tables (token, name, record) VALUES (?, ?, ?)
                      ON CONFLICT (token) DO UPDATE SET name = excluded.name, record = excluded.record";
        for record in records {
            let unwritable = |e| SinkError::new(format!("record of {}", record.token), e);
            let json = serde_json::to_string(record).map_err(unwritable)?;
            let values = params![record.token.as_str(), table_name(&record.schema), json];
            self.connection.execute(upsert, values).map_err(failed(&self.path))?;
        }
        Ok(())
    }

    pub fn write_mark(&self, mark: Mark) -> Result<(), SinkError> {
        let upsert = "INSERT INTO _walgate_position VALUES (1, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, lsn = excluded.lsn,
            ordinal = excluded.ordinal, seq = excluded.seq, verified_seq = excluded.verified_seq,
            stream_created = excluded.stream_created, at = excluded.at";
        let Mark { epoch, position, seq, verified_seq, stream_created, at } = mark;
        let lsn = position.commit_lsn.to_string();
        let (seq, verified_seq) = (seq as i64, verified_seq as i64);
        let values = params![epoch.0, lsn, position.ordinal, seq, verified_seq, stream_created, at];
        let mut statement = self.connection.prepare_cached(upsert).map_err(failed(&self.path))?;
        statement.execute(values).map_err(failed(&self.path))?;
        Ok(())
    }

    pub fn drop_loading(&self) -> Result<(), SinkError> {
        self.execute(&format!("DROP TABLE IF EXISTS {LOADING}"))
    }

    pub fn execute(&self, sql: &str) -> Result<(), SinkError> {
        self.connection
            .execute_batch(sql)
            .map_err(|e| SinkError::new(format!("{}: {sql}", self.path), e))
    }
}

fn read_mark(row: &rusqlite::Row<'_>) -> rusqlite::Result<Mark> {
    let lsn: String = row.get(1)?;
    let wrong =
        |e| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e));
    let lsn: Lsn = lsn.parse().map_err(wrong)?;
    Ok(Mark {
        epoch: walgate_wire::Epoch(row.get(0)?),
        position: Position::new(lsn, row.get(2)?),
        seq: row.get::<_, i64>(3)? as u64,
        verified_seq: row.get::<_, i64>(4)? as u64,
        stream_created: row.get(5)?,
        at: row.get(6)?,
    })
}

fn lock(path: &Path) -> Result<File, SinkError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-walgate-lock");
    let what = || format!("lock file {}", name.display());
    let file = File::create(&name).map_err(|e| SinkError::new(what(), e))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // One that was killed holds it until the system has cleared it away.
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_WAIT => {
                std::thread::sleep(LOCK_RETRY);
            }
            Err(TryLockError::WouldBlock) => {
                let reason =
                    "another consumer is writing to this file; stop it or choose another file";
                return Err(SinkError::new(what(), reason));
            }
            Err(TryLockError::Error(e)) => return Err(SinkError::new(what(), e)),
        }
    }
}

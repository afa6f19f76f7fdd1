//! The SQLite file: its settings, its stored state, its transactions. How a change is applied is in
//! `apply`.

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
    ddl::{LOADING, quote_identifier, table_name},
    error::sqlite_error,
    statements::SqliteStatements,
};
use crate::{ChangeBatch, Checkpoint, MigrationStep, SinkError, StoredState, TableRecord};

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
    -- A table can be replaced although views refer to it.
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

pub(super) struct SqliteStore {
    pub(super) connection: Connection,
    path: String,
    in_transaction: bool,
    /// The error of a chunk of the current load, if one failed.
    pub(super) load_failed: Option<SinkError>,
    statements: HashMap<Token, Arc<SqliteStatements>>,
    /// Held while the file is open for writing: two consumers would apply every change twice.
    _lock: File,
}

impl SqliteStore {
    pub fn open(path: &Path) -> Result<SqliteStore, SinkError> {
        let name = format!("SQLite file {}", path.display());
        let lock = lock_file(path)?;
        let connection = Connection::open(path).map_err(sqlite_error(&name))?;
        connection.busy_timeout(BUSY_WAIT).map_err(sqlite_error(&name))?;
        connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
        connection.execute_batch(SETTINGS).map_err(sqlite_error(&name))?;
        connection.execute_batch(STATE_TABLES).map_err(sqlite_error(&name))?;
        let store = SqliteStore {
            connection,
            path: name,
            in_transaction: false,
            load_failed: None,
            statements: HashMap::new(),
            _lock: lock,
        };
        store.drop_loading_table()?;
        Ok(store)
    }

    pub fn read_state(&mut self) -> Result<StoredState, SinkError> {
        let mut select = self
            .connection
            .prepare("SELECT record FROM _walgate_tables ORDER BY token")
            .map_err(sqlite_error(&self.path))?;
        let records = select
            .query_map([], |row| row.get::<_, String>(0))
            .map_err(sqlite_error(&self.path))?;
        let mut tables = Vec::new();
        for record in records {
            let record = record.map_err(sqlite_error(&self.path))?;
            let unreadable = |e| SinkError::new(format!("{}: _walgate_tables", self.path), e);
            tables.push(serde_json::from_str(&record).map_err(unreadable)?);
        }
        let checkpoint = self.connection.query_row(
            "SELECT epoch, lsn, ordinal, seq, verified_seq, stream_created, at FROM _walgate_position",
            [],
            read_checkpoint,
        );
        match checkpoint {
            Ok(checkpoint) => Ok(StoredState { checkpoint: Some(checkpoint), tables }),
            Err(rusqlite::Error::QueryReturnedNoRows) => {
                Ok(StoredState { checkpoint: None, tables })
            }
            Err(error) => Err(sqlite_error(&self.path)(error)),
        }
    }

    /// Opens the local transaction if none is open.
    pub fn begin_transaction(&mut self) -> Result<(), SinkError> {
        if !self.in_transaction {
            self.execute("BEGIN IMMEDIATE")?;
            self.in_transaction = true;
        }
        self.check_transaction_open()
    }

    /// Fails if SQLite has rolled the transaction back by itself, for example on a full disk.
    /// Further statements would then be committed on their own.
    pub fn check_transaction_open(&self) -> Result<(), SinkError> {
        if self.connection.is_autocommit() {
            let reason = "SQLite has rolled the transaction back: is the disk full?";
            return Err(SinkError::new(&self.path, reason));
        }
        Ok(())
    }

    pub fn commit(&mut self, checkpoint: Checkpoint) -> Result<(), SinkError> {
        self.begin_transaction()?;
        self.write_checkpoint(checkpoint)?;
        self.commit_transaction()
    }

    /// Commits without a checkpoint.
    pub fn commit_transaction(&mut self) -> Result<(), SinkError> {
        self.execute("COMMIT")?;
        self.in_transaction = false;
        Ok(())
    }

    pub fn rollback(&mut self) -> Result<(), SinkError> {
        self.statements.clear();
        // SQLite may have rolled it back by itself.
        if !self.connection.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        self.in_transaction = false;
        Ok(())
    }

    pub fn save_records(&mut self, records: &[TableRecord]) -> Result<(), SinkError> {
        self.begin_transaction()?;
        self.write_records(records)?;
        self.commit_transaction()
    }

    pub fn forget_table(&mut self, token: &Token) -> Result<(), SinkError> {
        let delete = "DELETE FROM _walgate_tables WHERE token = ?";
        self.connection.execute(delete, [token.as_str()]).map_err(sqlite_error(&self.path))?;
        Ok(())
    }

    pub fn apply_changes(&mut self, changes: &ChangeBatch) -> Result<(), SinkError> {
        self.begin_transaction()?;
        let token = &changes.local.token;
        let statements = match self.statements.get(token) {
            Some(statements) if statements.matches(changes) => statements.clone(),
            _ => {
                let statements = Arc::new(SqliteStatements::new(&changes.schema, &changes.local)?);
                self.statements.insert(token.clone(), statements.clone());
                statements
            }
        };
        super::apply::apply_changes(&self.connection, &statements, changes)
    }

    pub fn migrate_table(
        &mut self,
        record: &TableRecord,
        steps: &[MigrationStep],
    ) -> Result<(), SinkError> {
        self.begin_transaction()?;
        self.statements.remove(&record.token);
        let table = quote_identifier(&table_name(&record.schema));
        for step in steps {
            match step {
                MigrationStep::Drop { name } => {
                    self.drop_indexes_on(&table_name(&record.schema), name)?;
                    self.execute(&format!(
                        "ALTER TABLE {table} DROP COLUMN {}",
                        quote_identifier(name)
                    ))?;
                }
                MigrationStep::Rename { from, to } => {
                    let from = quote_identifier(from);
                    let to = quote_identifier(to);
                    self.execute(&format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}"))?;
                }
                MigrationStep::Add(column) => {
                    let name = quote_identifier(&column.name);
                    let kind = super::ddl::column_type(column);
                    self.execute(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"))?;
                }
            }
        }
        self.write_records(std::slice::from_ref(record))
    }

    /// SQLite does not drop a column that has an index.
    fn drop_indexes_on(&self, table: &str, column: &str) -> Result<(), SinkError> {
        let sql = "SELECT DISTINCT i.name FROM pragma_index_list(?1) i, pragma_index_info(i.name) c
                   WHERE c.name = ?2 AND i.origin = 'c'";
        let mut select = self.connection.prepare(sql).map_err(sqlite_error(table))?;
        let names = select.query_map([table, column], |row| row.get::<_, String>(0));
        let names: Result<Vec<String>, _> = names.map_err(sqlite_error(table))?.collect();
        for index in names.map_err(sqlite_error(table))? {
            tracing::warn!(table, index, column, "dropping an index of a dropped column");
            self.execute(&format!("DROP INDEX {}", quote_identifier(&index)))?;
        }
        Ok(())
    }

    pub fn drop_statements(&mut self, token: &Token) {
        self.statements.remove(token);
    }

    pub fn write_records(&self, records: &[TableRecord]) -> Result<(), SinkError> {
        let upsert = "INSERT INTO _walgate_tables (token, name, record) VALUES (?, ?, ?)
                      ON CONFLICT (token) DO UPDATE SET name = excluded.name, record = excluded.record";
        for record in records {
            let unwritable = |e| SinkError::new(format!("record of {}", record.token), e);
            let json = serde_json::to_string(record).map_err(unwritable)?;
            let values = params![record.token.as_str(), table_name(&record.schema), json];
            self.connection.execute(upsert, values).map_err(sqlite_error(&self.path))?;
        }
        Ok(())
    }

    pub fn write_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), SinkError> {
        let upsert = "INSERT INTO _walgate_position VALUES (1, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, lsn = excluded.lsn,
            ordinal = excluded.ordinal, seq = excluded.seq, verified_seq = excluded.verified_seq,
            stream_created = excluded.stream_created, at = excluded.at";
        let Checkpoint { epoch, position, seq, verified_seq, stream_created, at } = checkpoint;
        let lsn = position.commit_lsn.to_string();
        let seq = seq as i64;
        let verified_seq = verified_seq as i64;
        let values = params![epoch.0, lsn, position.ordinal, seq, verified_seq, stream_created, at];
        let mut statement =
            self.connection.prepare_cached(upsert).map_err(sqlite_error(&self.path))?;
        statement.execute(values).map_err(sqlite_error(&self.path))?;
        Ok(())
    }

    pub fn drop_loading_table(&self) -> Result<(), SinkError> {
        self.execute(&format!("DROP TABLE IF EXISTS {LOADING}"))
    }

    pub fn execute(&self, sql: &str) -> Result<(), SinkError> {
        self.connection
            .execute_batch(sql)
            .map_err(|e| SinkError::new(format!("{}: {sql}", self.path), e))
    }
}

fn read_checkpoint(row: &rusqlite::Row<'_>) -> rusqlite::Result<Checkpoint> {
    let lsn: String = row.get(1)?;
    let wrong =
        |e| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e));
    let lsn: Lsn = lsn.parse().map_err(wrong)?;
    Ok(Checkpoint {
        epoch: walgate_wire::Epoch(row.get(0)?),
        position: Position::new(lsn, row.get(2)?),
        seq: row.get::<_, i64>(3)? as u64,
        verified_seq: row.get::<_, i64>(4)? as u64,
        stream_created: row.get(5)?,
        at: row.get(6)?,
    })
}

fn lock_file(path: &Path) -> Result<File, SinkError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-walgate-lock");
    let what = || format!("lock file {}", name.display());
    let file = File::create(&name).map_err(|e| SinkError::new(what(), e))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // The system may take a moment to release the lock of a killed consumer.
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

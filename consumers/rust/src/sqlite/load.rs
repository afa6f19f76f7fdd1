//! Snapshots: loaded into a table of another name, which replaces the old one when it is complete.

use rusqlite::OptionalExtension;
use walgate_wire::Schema;

use super::{
    ddl::{LOADING, RESERVED, create_table, quote_identifier, table_name},
    error::sqlite_error,
    store::SqliteStore,
    value::to_sql,
};
use crate::{Checkpoint, SinkError, SnapshotRows, TableRecord, ValueKind};

impl SqliteStore {
    pub fn begin_load(&mut self, schema: &Schema) -> Result<(), SinkError> {
        self.check_table_name(schema)?;
        self.drop_loading_table()?;
        self.execute(&create_table(LOADING, schema)?)?;
        self.load_failed = None;
        Ok(())
    }

    /// Fails if the table's name is reserved or taken by another table: the load would replace
    /// that.
    fn check_table_name(&self, schema: &Schema) -> Result<(), SinkError> {
        let name = table_name(schema);
        let what = || format!("creating table {}", schema.table);
        let lower = name.to_ascii_lowercase();
        if let Some(prefix) = RESERVED.into_iter().find(|prefix| lower.starts_with(prefix)) {
            let reason = format!(
                "names that begin with {prefix} are reserved in this file; rename it at the source"
            );
            return Err(SinkError::new(what(), reason));
        }
        let select =
            "SELECT name FROM _walgate_tables WHERE name = ?1 COLLATE NOCASE AND token <> ?2";
        let other =
            self.connection.query_row(select, [&name, schema.token.as_str()], |row| row.get(0));
        match other.optional().map_err(sqlite_error(what()))? {
            None => Ok(()),
            Some(other) => {
                let other: String = other;
                let reason = format!(
                    "table {other} of this file has the same name in SQLite; rename one at the \
                     source or keep it in another file"
                );
                Err(SinkError::new(what(), reason))
            }
        }
    }

    pub fn load_rows(&mut self, rows: &SnapshotRows) -> Result<(), SinkError> {
        let loaded = self.load_chunk(rows);
        if let Err(error) = &loaded {
            // The worker reports the error to the next call, which may not be `finish_load`. That
            // one must fail, too.
            let what = format!("loading {}", rows.schema.table);
            self.load_failed.get_or_insert_with(|| SinkError::new(what, error));
        }
        loaded
    }

    fn load_chunk(&mut self, rows: &SnapshotRows) -> Result<(), SinkError> {
        let table = &rows.schema.table;
        let chunk = rows.decode().map_err(|e| SinkError::new(format!("a chunk of {table}"), e))?;
        let kinds: Vec<ValueKind> = rows.schema.columns.iter().map(ValueKind::of_column).collect();
        let parameters = vec!["?"; kinds.len()].join(", ");
        let insert = match kinds.len() {
            0 => format!("INSERT INTO {LOADING} DEFAULT VALUES"),
            _ => format!("INSERT INTO {LOADING} VALUES ({parameters})"),
        };
        self.begin_transaction()?;
        {
            let mut insert = self.connection.prepare(&insert).map_err(sqlite_error(table))?;
            for row in 0..chunk.row_count {
                for (index, (kind, values)) in kinds.iter().zip(&chunk.columns).enumerate() {
                    let bound = insert.raw_bind_parameter(index + 1, to_sql(kind, &values[row]));
                    bound.map_err(sqlite_error(table))?;
                }
                insert.raw_execute().map_err(sqlite_error(table))?;
            }
        }
        self.commit_transaction()
    }

    pub fn finish_load(
        &mut self,
        schema: &Schema,
        records: &[TableRecord],
        checkpoint: Checkpoint,
    ) -> Result<(), SinkError> {
        let name = table_name(schema);
        if let Some(failed) = self.load_failed.take() {
            return Err(failed);
        }
        self.begin_transaction()?;
        self.drop_statements(&schema.token);
        // Indexes and triggers that the file's owner created are dropped with the old generation.
        let owner_objects = self.read_owner_objects(&name)?;
        self.execute(&format!("DROP TABLE IF EXISTS {}", quote_identifier(&name)))?;
        self.execute(&format!("ALTER TABLE {LOADING} RENAME TO {}", quote_identifier(&name)))?;
        self.recreate_owner_objects(&name, &owner_objects)?;
        self.write_records(records)?;
        self.write_checkpoint(checkpoint)?;
        self.commit_transaction()
    }

    fn recreate_owner_objects(
        &self,
        table: &str,
        owner_objects: &[String],
    ) -> Result<(), SinkError> {
        for sql in owner_objects {
            if let Err(error) = self.execute(sql) {
                self.check_transaction_open()?;
                tracing::warn!(table, %error, "index or trigger does not fit the new table, dropped");
            }
        }
        Ok(())
    }

    fn read_owner_objects(&self, table: &str) -> Result<Vec<String>, SinkError> {
        let sql = "SELECT sql FROM sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE
                   AND type IN ('index', 'trigger') AND sql IS NOT NULL";
        let mut select = self.connection.prepare(sql).map_err(sqlite_error(table))?;
        let rows = select.query_map([table], |row| row.get(0)).map_err(sqlite_error(table))?;
        rows.collect::<Result<_, _>>().map_err(sqlite_error(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_object_that_ends_the_transaction_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(&dir.path().join("replica.db")).unwrap();
        store.begin_transaction().unwrap();
        let does_not_fit = ["CREATE INDEX i ON nothing (a)".to_owned()];
        assert!(store.recreate_owner_objects("t", &does_not_fit).is_ok());
        // A full disk has the same effect.
        let rolls_back = ["ROLLBACK; CREATE INDEX i ON nothing (a)".to_owned()];
        assert!(store.recreate_owner_objects("t", &rolls_back).is_err());
        assert!(store.begin_transaction().is_err(), "statements outside of the transaction");
        store.rollback().unwrap();
        store.begin_transaction().unwrap();
    }
}

//! Snapshots: gathered in a table of another name, which takes the place of the old one when it is whole.

use rusqlite::OptionalExtension;
use walgate_wire::Schema;

use super::{
    ddl::{LOADING, RESERVED, create_table, quoted, table_name},
    store::{Store, failed},
    value::stored,
};
use crate::{Kind, Mark, Rows, SinkError, TableRecord};

impl Store {
    pub fn begin_load(&mut self, schema: &Schema) -> Result<(), SinkError> {
        self.check_name(schema)?;
        self.drop_loading()?;
        self.execute(&create_table(LOADING, schema)?)?;
        self.load_failed = None;
        Ok(())
    }

    /// The name must be free for this table: it would take the place of what is called so.
    fn check_name(&self, schema: &Schema) -> Result<(), SinkError> {
        let (name, what) = (table_name(schema), || format!("creating table {}", schema.table));
        let lower = name.to_ascii_lowercase();
        if let Some(prefix) = RESERVED.into_iter().find(|prefix| lower.starts_with(prefix)) {
            let reason = format!(
                "names that begin with {prefix} are not free in this file; rename it at the source"
            );
            return Err(SinkError::new(what(), reason));
        }
        let select =
            "SELECT name FROM _walgate_tables WHERE name = ?1 COLLATE NOCASE AND token <> ?2";
        let other =
            self.connection.query_row(select, [&name, schema.token.as_str()], |row| row.get(0));
        match other.optional().map_err(failed(what()))? {
            None => Ok(()),
            Some(other) => {
                let other: String = other;
                let reason = format!(
                    "table {other} of this file has the same name in SQLite; rename one at the source or keep it in another file"
                );
                Err(SinkError::new(what(), reason))
            }
        }
    }

    pub fn load(&mut self, rows: &Rows) -> Result<(), SinkError> {
        let loaded = self.load_chunk(rows);
        if let Err(error) = &loaded {
            // Who hears of it may be one who does not finish the load. One who does must hear of it, too.
            let what = format!("loading {}", rows.schema.table);
            self.load_failed.get_or_insert_with(|| SinkError::new(what, error));
        }
        loaded
    }

    fn load_chunk(&mut self, rows: &Rows) -> Result<(), SinkError> {
        let table = &rows.schema.table;
        let chunk = rows.decode().map_err(|e| SinkError::new(format!("a chunk of {table}"), e))?;
        let kinds: Vec<Kind> = rows.schema.columns.iter().map(Kind::of).collect();
        let places = vec!["?"; kinds.len()].join(", ");
        let insert = match kinds.len() {
            0 => format!("INSERT INTO {LOADING} DEFAULT VALUES"),
            _ => format!("INSERT INTO {LOADING} VALUES ({places})"),
        };
        self.begin()?;
        {
            let mut insert = self.connection.prepare(&insert).map_err(failed(table))?;
            for row in 0..chunk.row_count {
                for (index, (kind, values)) in kinds.iter().zip(&chunk.columns).enumerate() {
                    let bound = insert.raw_bind_parameter(index + 1, stored(kind, &values[row]));
                    bound.map_err(failed(table))?;
                }
                insert.raw_execute().map_err(failed(table))?;
            }
        }
        self.end()
    }

    pub fn finish_load(
        &mut self,
        schema: &Schema,
        records: &[TableRecord],
        mark: Mark,
    ) -> Result<(), SinkError> {
        let name = table_name(schema);
        if let Some(failed) = self.load_failed.take() {
            return Err(failed);
        }
        self.begin()?;
        self.forget_plan(&schema.token);
        // Indexes and triggers that the replica's owner made would go with the old generation.
        let additions = self.additions(&name)?;
        self.execute(&format!("DROP TABLE IF EXISTS {}", quoted(&name)))?;
        self.execute(&format!("ALTER TABLE {LOADING} RENAME TO {}", quoted(&name)))?;
        self.add_again(&name, &additions)?;
        self.write_records(records)?;
        self.write_mark(mark)?;
        self.end()
    }

    fn add_again(&self, table: &str, additions: &[String]) -> Result<(), SinkError> {
        for sql in additions {
            if let Err(error) = self.execute(sql) {
                self.still_open()?;
                tracing::warn!(table, %error, "an index or trigger does not fit the table any more");
            }
        }
        Ok(())
    }

    fn additions(&self, table: &str) -> Result<Vec<String>, SinkError> {
        let sql = "SELECT sql FROM sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE
                   AND type IN ('index', 'trigger') AND sql IS NOT NULL";
        let mut select = self.connection.prepare(sql).map_err(failed(table))?;
        let rows = select.query_map([table], |row| row.get(0)).map_err(failed(table))?;
        rows.collect::<Result<_, _>>().map_err(failed(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_that_takes_the_transaction_with_it_is_no_small_matter() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("replica.db")).unwrap();
        store.begin().unwrap();
        let does_not_fit = ["CREATE INDEX i ON nothing (a)".to_owned()];
        assert!(store.add_again("t", &does_not_fit).is_ok());
        // As a full disk does.
        let rolls_back = ["ROLLBACK; CREATE INDEX i ON nothing (a)".to_owned()];
        assert!(store.add_again("t", &rolls_back).is_err());
        assert!(store.begin().is_err(), "what comes next would stand alone");
        store.rollback().unwrap();
        store.begin().unwrap();
    }
}

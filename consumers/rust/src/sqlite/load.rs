//! Snapshots: gathered in a table of another name, which takes the place of the old one when it is whole.

use walgate_wire::Schema;

use super::{
    ddl::{LOADING, create_table, quoted, table_name},
    store::{Store, failed},
    value::stored,
};
use crate::{Kind, Mark, Rows, SinkError, TableRecord};

impl Store {
    pub fn begin_load(&mut self, schema: &Schema) -> Result<(), SinkError> {
        self.drop_loading()?;
        self.execute(&create_table(LOADING, schema)?)
    }

    pub fn load(&mut self, rows: &Rows) -> Result<(), SinkError> {
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
        self.begin()?;
        self.forget_plan(&schema.token);
        // Indexes and triggers that the replica's owner made would go with the old generation.
        let additions = self.additions(&name)?;
        self.execute(&format!("DROP TABLE IF EXISTS {}", quoted(&name)))?;
        self.execute(&format!("ALTER TABLE {LOADING} RENAME TO {}", quoted(&name)))?;
        for sql in additions {
            if let Err(error) = self.execute(&sql) {
                tracing::warn!(table = name, %error, "an index or trigger does not fit the table any more");
            }
        }
        self.write_records(records)?;
        self.write_mark(mark)?;
        self.end()
    }

    fn additions(&self, table: &str) -> Result<Vec<String>, SinkError> {
        let sql = "SELECT sql FROM sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE
                   AND type IN ('index', 'trigger') AND sql IS NOT NULL";
        let mut select = self.connection.prepare(sql).map_err(failed(table))?;
        let rows = select.query_map([table], |row| row.get(0)).map_err(failed(table))?;
        rows.collect::<Result<_, _>>().map_err(failed(table))
    }
}

//! Names of tables and types of columns in the target database.

use std::fmt;

use tokio_postgres::Client;
use walgate_wire::{Column, Schema, TableName};

use super::{error::postgres_error, text::TextForm};
use crate::{SinkError, ValueKind};

/// The table that receives a snapshot until it is complete, in the schema of its table.
pub(super) const LOADING: &str = "_walgate_loading";
/// The prefix of Walgate's own tables.
const RESERVED: &str = "_walgate_";

/// The name as an SQL identifier.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table in the target; `Display` writes it as SQL.
#[derive(Clone, Debug)]
pub(super) struct TargetTable {
    pub schema: String,
    pub name: String,
}

impl fmt::Display for TargetTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

pub(super) fn target_table(schema: &Schema) -> Result<TargetTable, SinkError> {
    let name: TableName =
        schema.table.parse().map_err(|e| SinkError::new(format!("table {}", schema.table), e))?;
    Ok(TargetTable { schema: name.schema, name: name.table })
}

/// As `target_table`, for a table that is created. Fails if its name is reserved for Walgate's own
/// tables.
pub(super) fn new_target_table(schema: &Schema) -> Result<TargetTable, SinkError> {
    let table = target_table(schema)?;
    if table.name.starts_with(RESERVED) {
        let reason = format!(
            "names that begin with {RESERVED} are reserved in the target database; rename it at the \
             source"
        );
        return Err(SinkError::new(format!("creating table {}", schema.table), reason));
    }
    Ok(table)
}

/// The type that a column like this gets in the target.
pub(super) async fn target_type(client: &Client, column: &Column) -> Result<String, SinkError> {
    let wanted = &column.type_name;
    match wanted.as_str() {
        "money" => return Ok("numeric".to_owned()),
        "money[]" => return Ok("numeric[]".to_owned()),
        _ => {}
    }
    let select = "
        SELECT t.typtype::text, t.typname::text, e.typtype::text, e.typname::text, e.typdelim = ','
        FROM pg_type t LEFT JOIN pg_type b ON b.oid = t.typbasetype
        LEFT JOIN pg_type e ON e.oid = coalesce(b.typelem, t.typelem) AND t.typcategory = 'A'
        WHERE t.oid = to_regtype($1::text)";
    let row = client
        .query_opt(select, &[wanted])
        .await
        .map_err(postgres_error(format!("type {wanted}")))?;
    let Some(row) = row else { return Ok("text".to_owned()) };
    let element: Option<String> = row.get(2);
    let usable = match element {
        Some(kind) => {
            let name: String = row.get(3);
            // Elements of hstore and vector would need another layer of quoting, which is not
            // written here. Elements of box are not separated by commas.
            is_usable(&kind, &name)
                && !matches!(name.as_str(), "hstore" | "vector")
                && row.get::<_, bool>(4)
        }
        None => is_usable(row.get(0), row.get(1)),
    };
    Ok(if usable { wanted.clone() } else { "text".to_owned() })
}

/// Whether the type can be used: base types, enums, ranges, multiranges and domains. Not
/// composites, and not types that refer to objects by OID.
fn is_usable(typtype: &str, name: &str) -> bool {
    let refers_to_objects =
        name.starts_with("reg") || matches!(name, "aclitem" | "int2vector" | "oidvector");
    matches!(typtype, "b" | "e" | "r" | "m" | "d") && !refers_to_objects
}

/// A column of a table as it is in the target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TargetColumn {
    pub name: String,
    pub type_name: String,
    pub form: TextForm,
    /// OID of the type, of a domain's base type for a domain.
    oid: u32,
}

impl TargetColumn {
    /// How to read values of `column`. The target knows the base type of a domain, which the
    /// message may lack.
    pub fn value_kind(&self, column: &Column) -> ValueKind {
        match ValueKind::of_column(column) {
            ValueKind::Other => {
                ValueKind::of_column(&Column { base_oid: Some(self.oid), ..column.clone() })
            }
            known => known,
        }
    }
}

/// None if there is no such table.
pub(super) async fn target_columns(
    client: &Client,
    table: &TargetTable,
) -> Result<Option<Vec<TargetColumn>>, SinkError> {
    let select = "
        SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), t.typcategory::text,
               t.typname::text, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN (pg_attribute a JOIN pg_type t ON t.oid = a.atttypid)
          ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE n.nspname = $1 AND c.relname = $2
        ORDER BY a.attnum";
    let rows = client.query(select, &[&table.schema, &table.name]).await;
    let rows = rows.map_err(postgres_error(format!("columns of {table}")))?;
    // A table without columns is one row without a name.
    let column = |row: &tokio_postgres::Row| {
        Some(TargetColumn {
            name: row.get::<_, Option<String>>(0)?,
            type_name: row.get(1),
            form: TextForm::for_type(row.get(2), row.get(3)),
            oid: row.get(4),
        })
    };
    Ok((!rows.is_empty()).then(|| rows.iter().filter_map(column).collect()))
}

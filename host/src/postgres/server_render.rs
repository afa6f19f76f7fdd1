//! Has the server print values of types that only it can print: it receives binary values and
//! returns texts.
//!
//! One round trip per type and batch. The connection has the usual session settings (ISO dates,
//! UTC), so that a range prints as its bounds do. What the texts are for is not known here.

use std::{collections::HashMap, error::Error, sync::Arc};

use bytes::{BufMut, BytesMut};
use postgres_types::{IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row, Statement};

use crate::{
    config::PostgresConfig,
    postgres::{
        ErrorKind, PostgresError,
        catalog::{SqlClient, open_session},
    },
    rows::Rendered,
};

/// Output functions, not casts: `inet::text` is `10.0.0.1/32`, but the type prints `10.0.0.1`.
const PRINT_SQL: &str = "SELECT pg_catalog.format('%s', pg_catalog.unnest($1))";
/// The output of money depends on lc_monetary, its numeric value does not.
const PRINT_MONEY_SQL: &str =
    "SELECT pg_catalog.format('%s', pg_catalog.unnest($1)::pg_catalog.numeric)";
const MONEY: u32 = 790;

/// Prints values on a connection that no other task uses meanwhile.
pub struct Renderer {
    client: Arc<SqlClient>,
    statements: HashMap<u32, Statement>,
}

impl Renderer {
    /// Opens a session of its own.
    pub async fn connect(postgres: &PostgresConfig) -> Result<Renderer, PostgresError> {
        Ok(Renderer::new(Arc::new(open_session(postgres).await?)))
    }

    pub(in crate::postgres) fn new(client: Arc<SqlClient>) -> Renderer {
        Renderer { client, statements: HashMap::new() }
    }

    /// Adds all texts that `rendered` misses. Errors name `table`.
    pub async fn render(
        &mut self,
        table: &str,
        rendered: &mut Rendered,
    ) -> Result<(), PostgresError> {
        let missing: Vec<(u32, Vec<Box<[u8]>>)> = rendered
            .missing()
            .map(|(oid, values)| (oid, values.into_iter().map(Box::from).collect()))
            .collect();
        for (oid, values) in missing {
            let texts = self.print_values(table, oid, &values).await?;
            for (value, text) in values.iter().zip(texts) {
                rendered.insert(oid, value, text);
            }
        }
        Ok(())
    }

    async fn print_values(
        &mut self,
        table: &str,
        oid: u32,
        values: &[Box<[u8]>],
    ) -> Result<Vec<String>, PostgresError> {
        let statement = match self.statements.get(&oid) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.prepare_print(table, oid).await?;
                self.statements.insert(oid, statement.clone());
                statement
            }
        };
        let array = BinaryArray { element: oid, values };
        let rows = self.client.query(&statement, &[&array]).await;
        let rows = rows.map_err(|source| cannot_print(table, oid, source))?;
        if rows.len() != values.len() {
            return Err(PostgresError::Protocol(format!(
                "{} values of type {oid} were printed as {}",
                values.len(),
                rows.len()
            )));
        }
        let text = |row: &Row| row.try_get(0);
        rows.iter()
            .map(text)
            .collect::<Result<_, _>>()
            .map_err(PostgresError::query("read printed values"))
    }

    async fn prepare_print(&self, table: &str, oid: u32) -> Result<Statement, PostgresError> {
        let Some(array) = load_array_type(&self.client, oid).await? else {
            let what = format!(
                "the type with oid {oid} does not exist any more or has no array type, so that its values \
                 cannot be read: take a new snapshot of the table, or leave the column out of the publication"
            );
            return Err(PostgresError::Table { table: table.to_owned(), what });
        };
        let array = Type::new(String::new(), array, Kind::Simple, String::new());
        let sql = if oid == MONEY { PRINT_MONEY_SQL } else { PRINT_SQL };
        self.client
            .prepare_typed(sql, &[array])
            .await
            .map_err(|source| cannot_print(table, oid, source))
    }
}

/// The array type of a type. `None` if the type does not exist or has no array type.
pub(super) async fn load_array_type(
    client: &Client,
    oid: u32,
) -> Result<Option<u32>, PostgresError> {
    let query = "SELECT typarray FROM pg_catalog.pg_type WHERE oid = $1";
    let row = client.query_opt(query, &[&oid]).await.map_err(PostgresError::query("read types"))?;
    Ok(row.map(|row| row.get(0)).filter(|&array| array != 0))
}

fn cannot_print(table: &str, oid: u32, source: tokio_postgres::Error) -> PostgresError {
    let error = PostgresError::Sql { what: "print values", source };
    match error.kind() {
        ErrorKind::Fatal => PostgresError::Table {
            table: table.to_owned(),
            what: format!(
                "values of the type with oid {oid} cannot be printed: {error}; leave the column out of the \
                 publication, or report it"
            ),
        },
        ErrorKind::Retry | ErrorKind::TableOnly => error,
    }
}

/// A one-dimensional array parameter of elements in binary form.
#[derive(Debug)]
pub(super) struct BinaryArray<'a> {
    pub element: u32,
    pub values: &'a [Box<[u8]>],
}

impl ToSql for BinaryArray<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let dimensions = i32::from(!self.values.is_empty());
        out.put_i32(dimensions);
        out.put_i32(0);
        out.put_u32(self.element);
        out.put_i32(i32::try_from(self.values.len())?);
        out.put_i32(1);
        for value in self.values {
            out.put_i32(i32::try_from(value.len())?);
            out.put_slice(value);
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

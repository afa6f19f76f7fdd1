//! Tables as the catalog shows them now, with what the publication says of them. Nothing here waits for whoever holds a
//! table, unless it says so.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};
use walgate_wire::{Identity, TableName};

use crate::postgres::catalog::sql::{
    COLUMNS_SQL, INDEXES_SQL, LEAVES_SQL, PRESENT_SQL, RELATIONS_SQL, ROW_FILTER_SQL,
};
use crate::postgres::{PostgresError, quote};

/// What a configured relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelKind {
    Table,
    Partitioned,
    /// No WAL of its own: snapshots only.
    View,
    MaterializedView,
    Foreign,
    /// Not logged, so snapshots only.
    Unlogged,
}

impl RelKind {
    /// Whether changes can be streamed; if not, snapshots are all there is.
    pub fn streams(self) -> bool {
        matches!(self, RelKind::Table | RelKind::Partitioned)
    }
}

/// A column as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogColumn {
    pub name: String,
    pub attnum: i16,
    pub oid: u32,
    pub typmod: i32,
    /// `format_type` of the two.
    pub type_name: String,
    pub nullable: bool,
    /// Default, identity, generated, or a default at the time it was added: rows that were there before may
    /// hold more than null.
    pub fills: bool,
    /// Whether the publication (or, without one, the default) sends it.
    pub published: bool,
}

/// A partition that holds rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub name: TableName,
    pub identity: Identity,
    /// A foreign table has no ctid.
    pub foreign: bool,
}

/// A relation as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    pub name: TableName,
    pub relid: u32,
    pub kind: RelKind,
    pub identity: Identity,
    /// All columns, by attnum.
    pub columns: Vec<CatalogColumn>,
    /// Primary key, attnums in index order; empty if there is none (or it is deferrable).
    pub primary_key: Vec<i16>,
    /// Index of REPLICA IDENTITY USING INDEX, likewise.
    pub identity_index: Vec<i16>,
    pub in_publication: bool,
    /// The publication names columns: one that it names later was there before.
    pub column_list: bool,
    /// As of the last analyze; 0 if never.
    pub estimated_rows: u64,
    /// Of a partitioned table, if they were asked for.
    pub leaves: Vec<Leaf>,
    /// Whether our role may read all of it.
    pub readable: bool,
    /// Whether row level security hides rows from our role.
    pub row_security: bool,
    /// Whether our role may publish it.
    pub owned: bool,
}

impl TableInfo {
    /// The columns that rows carry, in their order.
    pub fn published(&self) -> impl Iterator<Item = &CatalogColumn> {
        self.columns.iter().filter(|column| column.published)
    }

    /// By what rows are located, attnums in key order.
    pub fn key(&self, identity: Identity) -> &[i16] {
        match identity {
            Identity::Index => &self.identity_index,
            Identity::Default | Identity::Full | Identity::Nothing => &self.primary_key,
        }
    }

    /// All but statistics.
    pub fn same_shape(&self, other: &TableInfo) -> bool {
        let shape =
            |info: &TableInfo| TableInfo { estimated_rows: 0, leaves: vec![], ..info.clone() };
        shape(self) == shape(other)
    }

    /// For [`schema_change`](super::schema_change): whether a column that appears in the stream may hold values in
    /// rows that were there before.
    pub fn fills(&self, attnum: i16) -> bool {
        let column = self.columns.iter().find(|column| column.attnum == attnum);
        self.column_list || column.is_some_and(|column| column.fills)
    }
}

/// The tables of these names that exist, in the order of `names`, with their partitions; absent ones are left out.
pub async fn load_tables(
    client: &Client,
    publication: &str,
    names: &[TableName],
) -> Result<Vec<TableInfo>, PostgresError> {
    let mut infos = load(client, publication, names).await?;
    let relids: Vec<u32> = infos.iter().map(|info| info.relid).collect();
    let failed = PostgresError::query("read the tables' partitions");
    for row in client.query(LEAVES_SQL, &[&relids]).await.map_err(&failed)? {
        let root: u32 = row.get(0);
        let Some(info) = infos.iter_mut().find(|info| info.relid == root) else { continue };
        info.leaves.push(Leaf {
            name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            identity: identity(row.get(3)),
            foreign: row.get(4),
        });
    }
    Ok(infos)
}

/// One table, if it exists, without its partitions.
pub async fn load_table(
    client: &Client,
    publication: &str,
    name: &TableName,
) -> Result<Option<TableInfo>, PostgresError> {
    Ok(load(client, publication, std::slice::from_ref(name)).await?.pop())
}

/// WHERE of the publication: a snapshot has to filter by it, too. May wait for whoever alters this table.
pub async fn row_filter(
    client: &Client,
    publication: &str,
    relid: u32,
) -> Result<Option<String>, PostgresError> {
    let row = client.query_opt(ROW_FILTER_SQL, &[&publication, &relid]).await;
    let row = row.map_err(PostgresError::query("read the publication's row filter"))?;
    // Null where the table has gone meanwhile.
    Ok(row.and_then(|row| row.get(0)))
}

/// That a table is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    pub name: TableName,
    pub relid: u32,
    /// Its changes should come, and do not.
    pub unpublished: bool,
}

impl Presence {
    /// What to do where it is not published.
    pub fn remedy(&self, publication: &str) -> String {
        let (publication, table) = (quote::identifier(publication), quote::table(&self.name));
        format!(
            "the table is not published any more, as after DROP and CREATE: run ALTER PUBLICATION {publication} ADD TABLE {table}"
        )
    }
}

/// Which of these tables there are.
pub async fn load_present(
    client: &Client,
    publication: &str,
    names: &[TableName],
) -> Result<Vec<Presence>, PostgresError> {
    let (schemas, tables) = columns_of(names);
    let failed = PostgresError::query("see which tables are there");
    let rows = client.query(PRESENT_SQL, &[&schemas, &tables, &publication]).await;
    let presence = |row: &Row| Presence {
        name: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
        relid: row.get(2),
        unpublished: row.get(3) && !row.get::<_, bool>(4),
    };
    Ok(rows.map_err(failed)?.iter().map(presence).collect())
}

/// As two arrays for a query.
fn columns_of(names: &[TableName]) -> (Vec<&str>, Vec<&str>) {
    names.iter().map(|name| (name.schema.as_str(), name.table.as_str())).unzip()
}

async fn load(
    client: &Client,
    publication: &str,
    names: &[TableName],
) -> Result<Vec<TableInfo>, PostgresError> {
    let (schemas, tables) = columns_of(names);
    let failed = PostgresError::query("read the tables' definitions");
    let rows =
        client.query(RELATIONS_SQL, &[&schemas, &tables, &publication]).await.map_err(&failed)?;
    let mut infos = rows.iter().map(relation).collect::<Result<Vec<_>, _>>()?;
    let relids: Vec<u32> = infos.iter().map(|(info, _)| info.relid).collect();
    let index: HashMap<u32, usize> =
        relids.iter().enumerate().map(|(i, &relid)| (relid, i)).collect();

    for row in client.query(COLUMNS_SQL, &[&relids]).await.map_err(&failed)? {
        if let Some(&i) = index.get(&row.get(0)) {
            let (info, published) = &mut infos[i];
            info.columns.push(column(&row, published));
        }
    }
    for row in client.query(INDEXES_SQL, &[&relids]).await.map_err(&failed)? {
        let Some(&i) = index.get(&row.get(0)) else { continue };
        if row.get(1) {
            infos[i].0.primary_key = row.get(3);
        }
        if row.get(2) {
            infos[i].0.identity_index = row.get(3);
        }
    }
    Ok(infos.into_iter().map(|(info, _)| info).collect())
}

/// What the publication carries of a table.
struct Published {
    /// If it names columns.
    columns: Option<Vec<String>>,
    /// Otherwise: generated ones, too, from Postgres 18 on.
    generated: bool,
}

fn relation(row: &Row) -> Result<(TableInfo, Published), PostgresError> {
    let name = TableName::new(row.get::<_, String>(1), row.get::<_, String>(2));
    let kind = match (row.get::<_, i8>(3) as u8, row.get::<_, i8>(4) as u8) {
        (b'r', b'u') => RelKind::Unlogged,
        (b'r', _) => RelKind::Table,
        (b'p', _) => RelKind::Partitioned,
        (b'v', _) => RelKind::View,
        (b'm', _) => RelKind::MaterializedView,
        (b'f', _) => RelKind::Foreign,
        _ => {
            return Err(PostgresError::Config(format!(
                "[[tables]] {name} is neither a table nor a view: take it out of the configuration"
            )));
        }
    };
    let published = Published { columns: row.get(7), generated: row.get(12) };
    let info = TableInfo {
        name,
        relid: row.get(0),
        kind,
        identity: identity(row.get(5)),
        columns: vec![],
        primary_key: vec![],
        identity_index: vec![],
        in_publication: row.get(8),
        column_list: published.columns.is_some(),
        estimated_rows: row.get::<_, f64>(6).max(0.0) as u64,
        leaves: vec![],
        readable: row.get(9),
        row_security: row.get(10),
        owned: row.get(11),
    };
    Ok((info, published))
}

fn column(row: &Row, publication: &Published) -> CatalogColumn {
    let name: String = row.get(1);
    let generated: bool = row.get(7);
    let can_be_sent = !generated || row.get(9);
    let is_wanted = match &publication.columns {
        Some(names) => names.contains(&name),
        None => !generated || publication.generated,
    };
    CatalogColumn {
        published: can_be_sent && is_wanted,
        name,
        attnum: row.get(2),
        oid: row.get(3),
        typmod: row.get(4),
        type_name: row.get(5),
        nullable: row.get(6),
        fills: row.get(8),
    }
}

fn identity(relreplident: i8) -> Identity {
    match relreplident as u8 {
        b'i' => Identity::Index,
        b'f' => Identity::Full,
        b'n' => Identity::Nothing,
        _ => Identity::Default,
    }
}

/// `public.{name}` with a key column `id` and a text column `a`.
#[cfg(test)]
pub(in crate::postgres) fn table_for_test(name: &str) -> TableInfo {
    let column = |attnum: i16, name: &str, oid: u32, type_name: &str| CatalogColumn {
        name: name.into(),
        attnum,
        oid,
        typmod: -1,
        type_name: type_name.into(),
        nullable: attnum != 1,
        fills: false,
        published: true,
    };
    TableInfo {
        name: TableName::new("public", name),
        relid: 16384,
        kind: RelKind::Table,
        identity: Identity::Default,
        columns: vec![column(1, "id", 23, "integer"), column(2, "a", 25, "text")],
        primary_key: vec![1],
        identity_index: vec![],
        in_publication: false,
        column_list: false,
        estimated_rows: 0,
        leaves: vec![],
        readable: true,
        row_security: false,
        owned: true,
    }
}

//! Tables as the catalog shows them now, and how the publication publishes them. Nothing here waits
//! for a lock, except where a comment states it.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};
use walgate_wire::{Identity, TableName};

use crate::postgres::catalog::sql::{
    COLUMNS_SQL, INDEXES_SQL, LEAVES_SQL, PRESENT_SQL, RELATIONS_SQL, ROW_FILTER_SQL,
};
use crate::postgres::{PostgresError, quote};

/// The kind of a configured relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelKind {
    Table,
    Partitioned,
    /// Writes no WAL: snapshots only.
    View,
    MaterializedView,
    Foreign,
    /// Writes no WAL: snapshots only.
    Unlogged,
}

impl RelKind {
    /// Whether changes can be streamed. Otherwise the relation has snapshots only.
    pub fn is_streamable(self) -> bool {
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
    /// `format_type` of type and modifier.
    pub type_name: String,
    pub nullable: bool,
    /// Whether existing rows may hold a value other than null: the column has a default, is an
    /// identity or generated, or had a default when it was added.
    pub may_backfill: bool,
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
    /// The publication lists columns. A column that it lists later already existed.
    pub column_list: bool,
    /// As of the last analyze; 0 if never.
    pub estimated_rows: u64,
    /// The partitions of a partitioned table, if the query loads them.
    pub leaves: Vec<Leaf>,
    /// Whether the gateway's role may read all of it.
    pub readable: bool,
    /// Whether row level security hides rows from the gateway's role.
    pub row_security: bool,
    /// Whether the gateway's role may publish it.
    pub owned: bool,
}

impl TableInfo {
    /// The columns that rows carry, in their order.
    pub fn published_columns(&self) -> impl Iterator<Item = &CatalogColumn> {
        self.columns.iter().filter(|column| column.published)
    }

    /// The columns that identify a row, attnums in key order.
    pub fn key_attnums(&self, identity: Identity) -> &[i16] {
        match identity {
            Identity::Index => &self.identity_index,
            Identity::Default | Identity::Full | Identity::Nothing => &self.primary_key,
        }
    }

    /// Whether everything but statistics is equal.
    pub fn same_shape(&self, other: &TableInfo) -> bool {
        let shape =
            |info: &TableInfo| TableInfo { estimated_rows: 0, leaves: vec![], ..info.clone() };
        shape(self) == shape(other)
    }

    /// For [`schema_change`](super::schema_change): whether a column that appears in the stream may
    /// hold values in existing rows.
    pub fn may_backfill(&self, attnum: i16) -> bool {
        let column = self.columns.iter().find(|column| column.attnum == attnum);
        self.column_list || column.is_some_and(|column| column.may_backfill)
    }
}

/// The existing tables of these names, in the order of `names`, with their partitions.
pub(in crate::postgres) async fn load_tables(
    client: &Client,
    publication: &str,
    names: &[TableName],
) -> Result<Vec<TableInfo>, PostgresError> {
    let mut infos = load_without_partitions(client, publication, names).await?;
    let relids: Vec<u32> = infos.iter().map(|info| info.relid).collect();
    let failed = PostgresError::query("read the tables' partitions");
    for row in client.query(LEAVES_SQL, &[&relids]).await.map_err(&failed)? {
        let root: u32 = row.get(0);
        let Some(info) = infos.iter_mut().find(|info| info.relid == root) else { continue };
        info.leaves.push(Leaf {
            name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            identity: identity_of(row.get(3)),
            foreign: row.get(4),
        });
    }
    Ok(infos)
}

/// One table, if it exists, without its partitions.
pub(in crate::postgres) async fn load_table(
    client: &Client,
    publication: &str,
    name: &TableName,
) -> Result<Option<TableInfo>, PostgresError> {
    Ok(load_without_partitions(client, publication, std::slice::from_ref(name)).await?.pop())
}

/// WHERE of the publication, which a snapshot must apply too. May wait for an ALTER of this table.
pub(in crate::postgres) async fn load_row_filter(
    client: &Client,
    publication: &str,
    relid: u32,
) -> Result<Option<String>, PostgresError> {
    let row = client.query_opt(ROW_FILTER_SQL, &[&publication, &relid]).await;
    let row = row.map_err(PostgresError::query("read the publication's row filter"))?;
    // Null if the table was dropped meanwhile.
    Ok(row.and_then(|row| row.get(0)))
}

/// An existing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    pub name: TableName,
    pub relid: u32,
    /// Its changes could be streamed, but the publication does not publish them.
    pub unpublished: bool,
}

impl Presence {
    /// What the operator should do about an unpublished table.
    pub fn publication_remedy(&self, publication: &str) -> String {
        let publication = quote::identifier(publication);
        let table = quote::table(&self.name);
        format!(
            "the table is not published any more, as after DROP and CREATE: run ALTER PUBLICATION {publication} ADD TABLE {table}"
        )
    }
}

/// Which of these tables exist.
pub(super) async fn load_presence(
    client: &Client,
    publication: &str,
    names: &[TableName],
) -> Result<Vec<Presence>, PostgresError> {
    let (schemas, tables) = split_names(names);
    let failed = PostgresError::query("see which tables are there");
    let rows = client.query(PRESENT_SQL, &[&schemas, &tables, &publication]).await;
    let presence = |row: &Row| Presence {
        name: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
        relid: row.get(2),
        unpublished: row.get(3) && !row.get::<_, bool>(4),
    };
    Ok(rows.map_err(failed)?.iter().map(presence).collect())
}

/// Schemas and names as two arrays for a query.
fn split_names(names: &[TableName]) -> (Vec<&str>, Vec<&str>) {
    names.iter().map(|name| (name.schema.as_str(), name.table.as_str())).unzip()
}

async fn load_without_partitions(
    client: &Client,
    publication: &str,
    names: &[TableName],
) -> Result<Vec<TableInfo>, PostgresError> {
    let (schemas, tables) = split_names(names);
    let failed = PostgresError::query("read the tables' definitions");
    let rows =
        client.query(RELATIONS_SQL, &[&schemas, &tables, &publication]).await.map_err(&failed)?;
    let mut infos = rows.iter().map(read_relation).collect::<Result<Vec<_>, _>>()?;
    let relids: Vec<u32> = infos.iter().map(|(info, _)| info.relid).collect();
    let index: HashMap<u32, usize> =
        relids.iter().enumerate().map(|(i, &relid)| (relid, i)).collect();

    for row in client.query(COLUMNS_SQL, &[&relids]).await.map_err(&failed)? {
        if let Some(&i) = index.get(&row.get(0)) {
            let (info, published) = &mut infos[i];
            info.columns.push(read_column(&row, published));
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

/// Which columns of a table the publication publishes.
struct Published {
    /// Its column list, if it has one.
    columns: Option<Vec<String>>,
    /// Without a list: also generated columns, since Postgres 18.
    generated: bool,
}

fn read_relation(row: &Row) -> Result<(TableInfo, Published), PostgresError> {
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
        identity: identity_of(row.get(5)),
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

fn read_column(row: &Row, publication: &Published) -> CatalogColumn {
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
        may_backfill: row.get(8),
    }
}

fn identity_of(relreplident: i8) -> Identity {
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
        may_backfill: false,
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

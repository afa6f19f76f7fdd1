//! The publication, and the SQL that makes it fit the configuration. Planning is pure. If the
//! gateway's role may not run a statement, the message holds it for the operator.

use tokio_postgres::Client;
use walgate_wire::TableName;

use crate::postgres::{
    PostgresError,
    catalog::{RelKind, TableInfo},
    quote,
};

pub const PUBLISH_GENERATED_SINCE: i32 = 180_000;
pub const GENERATED_SQL: &str = "publish_generated_columns = stored";

/// A publication that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    pub all_tables: bool,
    pub via_root: bool,
    /// Inserts, updates, deletes and truncates are all published.
    pub publishes_all: bool,
    pub owned: bool,
}

pub(super) async fn load_publication(
    client: &Client,
    name: &str,
) -> Result<Option<Publication>, PostgresError> {
    let row = client
        .query_opt(
            "SELECT puballtables, pubviaroot, pubinsert AND pubupdate AND pubdelete AND pubtruncate,
                    pg_catalog.pg_has_role(pubowner, 'USAGE')
             FROM pg_catalog.pg_publication WHERE pubname = $1",
            &[&name],
        )
        .await
        .map_err(PostgresError::query("read the publication"))?;
    Ok(row.map(|row| Publication {
        all_tables: row.get(0),
        via_root: row.get(1),
        publishes_all: row.get(2),
        owned: row.get(3),
    }))
}

/// Whether the gateway's role may create publications in this database.
pub(super) async fn may_create(client: &Client) -> Result<bool, PostgresError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')",
            &[],
        )
        .await
        .map_err(PostgresError::query("read the rights on the database"))?;
    Ok(row.get(0))
}

/// The statements to run, or all problems.
pub(super) fn plan_publication(
    name: &str,
    existing: Option<&Publication>,
    tables: &[TableInfo],
    server_version: i32,
    may_create: bool,
) -> Result<Vec<String>, Vec<String>> {
    let streamed: Vec<&TableInfo> =
        tables.iter().filter(|table| table.kind.is_streamable()).collect();
    match existing {
        None => plan_new(name, &streamed, server_version, may_create),
        Some(existing) => plan_existing(name, existing, &streamed),
    }
}

fn plan_new(
    name: &str,
    tables: &[&TableInfo],
    server_version: i32,
    may_create: bool,
) -> Result<Vec<String>, Vec<String>> {
    let names: Vec<&TableName> = tables.iter().map(|table| &table.name).collect();
    let sql = create_publication_sql(name, &names, server_version >= PUBLISH_GENERATED_SINCE);
    let foreign = list_not_owned(tables);
    if may_create && foreign.is_empty() {
        return Ok(vec![sql]);
    }
    let lacking = if may_create { String::new() } else { " CREATE on the database".into() };
    let owners =
        if foreign.is_empty() { String::new() } else { format!(" ownership of {foreign}") };
    let and = if lacking.is_empty() || owners.is_empty() { "" } else { " and" };
    Err(vec![format!(
        "publication {name} does not exist and our role may not create it (it lacks{lacking}{and}{owners}): run this as the \
         tables' owner or a superuser: {sql}"
    )])
}

/// `generated`: with the option for generated columns, which needs Postgres 18.
pub fn create_publication_sql(name: &str, tables: &[&TableName], generated: bool) -> String {
    let target = if tables.is_empty() {
        String::new()
    } else {
        format!(" FOR TABLE {}", table_list(tables))
    };
    let generated = if generated { format!(", {GENERATED_SQL}") } else { String::new() };
    let name = quote::identifier(name);
    format!("CREATE PUBLICATION {name}{target} WITH (publish_via_partition_root = true{generated})")
}

fn plan_existing(
    name: &str,
    existing: &Publication,
    tables: &[&TableInfo],
) -> Result<Vec<String>, Vec<String>> {
    let quoted = quote::identifier(name);
    let mut problems = vec![];
    let mut statements = vec![];
    if !existing.publishes_all {
        problems.push(format!(
            "publication {name} leaves out some kinds of changes, so copies would go wrong: run \
             ALTER PUBLICATION {quoted} SET (publish = 'insert, update, delete, truncate')"
        ));
    }
    if !existing.via_root
        && let Some(table) = tables.iter().find(|table| table.kind == RelKind::Partitioned)
    {
        problems.push(format!(
            "publication {name} publishes partitions under their own names, but {} is a partitioned table: run \
             ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)",
            table.name
        ));
    }
    let absent: Vec<&TableInfo> = tables
        .iter()
        .filter(|table| !existing.all_tables && !is_member(table, existing))
        .copied()
        .collect();
    if !absent.is_empty() {
        let names: Vec<&TableName> = absent.iter().map(|table| &table.name).collect();
        let sql = format!("ALTER PUBLICATION {quoted} ADD TABLE {}", table_list(&names));
        let foreign = list_not_owned(&absent);
        if existing.owned && foreign.is_empty() {
            statements.push(sql);
        } else {
            problems.push(format!(
                "publication {name} does not have all configured tables and our role may not add them: run this as the \
                 publication's and the tables' owner or a superuser: {sql}"
            ));
        }
    }
    if problems.is_empty() { Ok(statements) } else { Err(problems) }
}

/// The catalog lists a root that is published by its partitions under their names. The caller
/// reports that case.
fn is_member(table: &TableInfo, existing: &Publication) -> bool {
    table.in_publication || (table.kind == RelKind::Partitioned && !existing.via_root)
}

fn table_list(tables: &[&TableName]) -> String {
    let names: Vec<String> = tables.iter().map(|table| quote::table(table)).collect();
    names.join(", ")
}

fn list_not_owned(tables: &[&TableInfo]) -> String {
    let names: Vec<String> =
        tables.iter().filter(|table| !table.owned).map(|table| table.name.to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::table_for_test as table;

    const FINE: Publication =
        Publication { all_tables: false, via_root: true, publishes_all: true, owned: true };

    #[test]
    fn a_publication_is_created_for_what_streams() {
        let view = TableInfo { kind: RelKind::View, ..table("v") };
        let tables = [table("a"), view, table("b")];
        let sql = plan_publication("p", None, &tables, 150_000, true).unwrap();
        assert_eq!(
            sql,
            [
                r#"CREATE PUBLICATION "p" FOR TABLE "public"."a", "public"."b" WITH (publish_via_partition_root = true)"#
            ]
        );
        let sql = plan_publication("p", None, &tables[..1], 180_000, true).unwrap();
        assert!(
            sql[0].ends_with(
                "(publish_via_partition_root = true, publish_generated_columns = stored)"
            )
        );
        let problem = plan_publication(
            "p",
            None,
            &[TableInfo { owned: false, ..table("a") }],
            150_000,
            false,
        )
        .unwrap_err();
        assert!(problem[0].contains("CREATE on the database and ownership of public.a"));
        assert!(problem[0].contains("CREATE PUBLICATION"));
    }

    #[test]
    fn tables_are_added_where_we_may() {
        let member = TableInfo { in_publication: true, ..table("a") };
        let tables = [member.clone(), table("b")];
        assert_eq!(plan_publication("p", Some(&FINE), &[member], 150_000, true).unwrap(), [""; 0]);
        let sql = plan_publication("p", Some(&FINE), &tables, 150_000, true).unwrap();
        assert_eq!(sql, [r#"ALTER PUBLICATION "p" ADD TABLE "public"."b""#]);
        let theirs = Publication { owned: false, ..FINE };
        let problems = plan_publication("p", Some(&theirs), &tables, 150_000, true).unwrap_err();
        assert!(problems[0].contains(r#"ALTER PUBLICATION "p" ADD TABLE "public"."b""#));
    }

    #[test]
    fn a_publication_that_would_lose_changes_is_refused() {
        let root = TableInfo { kind: RelKind::Partitioned, ..table("a") };
        let existing = Publication { via_root: false, publishes_all: false, ..FINE };
        let problems = plan_publication("p", Some(&existing), &[root], 150_000, true).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems[1].contains("publish_via_partition_root = true"));
    }
}

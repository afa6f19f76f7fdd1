//! The preflight: one pass over server, rights, tables, publication and slot. It changes nothing
//! and reports all problems at once, each with its remedy.

use tokio_postgres::Client;
use walgate_wire::{Identity, TableName};

use crate::postgres::slot::{
    publication::{self, Publication},
    query_slot,
};
use crate::{
    postgres::{
        PostgresError,
        catalog::{Catalog, Leaf, TableInfo, TypeCache, load_tables},
        quote,
    },
    rows::Binary,
};

const SERVER_VERSION_MIN: i32 = 150_000;
/// Names at a greater edit distance are not suggested.
const NEAR_DISTANCE_MAX: usize = 3;
const NEAR_NAMES_MAX: usize = 3;

/// What the configuration requires.
#[derive(Clone, Copy, Debug)]
pub struct PreflightRequest<'a> {
    pub slot: &'a str,
    pub publication: &'a str,
    pub tables: &'a [TableName],
}

/// The result of the checks, and the statements to run.
#[derive(Debug)]
pub struct Preflight {
    /// `server_version_num`, 150012 say.
    pub server_version: i32,
    /// Statements that create or extend the publication. Empty if nothing is missing.
    pub publication_sql: Vec<String>,
    /// For the operator. They do not prevent the gateway from running.
    pub warnings: Vec<String>,
}

struct Server {
    version: i32,
    version_text: String,
    wal_level: String,
    recovery: bool,
    role: String,
    replication: bool,
    slots_used: i64,
    slots_max: i64,
    senders_used: i64,
    senders_max: i64,
}

/// Checks everything. An error of kind `Fatal` lists everything that the operator has to do.
pub async fn run_preflight(
    catalog: &Catalog,
    wanted: PreflightRequest<'_>,
) -> Result<Preflight, PostgresError> {
    let client = catalog.client();
    let server = load_server(client).await?;
    check_version(&server)?;
    let mut problems = vec![];
    let (exists, streams) = match query_slot(client, wanted.slot).await {
        Ok(slot) => (slot.is_some(), slot.is_some_and(|slot| slot.active_pid.is_some())),
        Err(error @ (PostgresError::Config(_) | PostgresError::SlotLost { .. })) => {
            problems.push(error.to_string());
            (true, false)
        }
        // Another gateway is creating it.
        Err(PostgresError::SlotNotReady { .. }) => (true, false),
        Err(error) => return Err(error),
    };
    check_server(&server, (exists, streams), wanted.slot, &mut problems);
    let tables = load_tables(client, wanted.publication, wanted.tables).await?;
    for missing in
        wanted.tables.iter().filter(|name| !tables.iter().any(|table| &table.name == *name))
    {
        problems.push(describe_missing_table(client, missing).await?);
    }
    let mut types = TypeCache::default();
    let oids: Vec<u32> =
        tables.iter().flat_map(|t| t.columns.iter().map(|column| column.oid)).collect();
    types.load_types(client, &oids).await?;
    let mut warnings = vec![];
    for table in &tables {
        check_table(table, &types, &server.role, &mut problems, &mut warnings);
    }
    let existing = publication::load_publication(client, wanted.publication).await?;
    let publication_sql = plan_publication(
        wanted.publication,
        existing.as_ref(),
        &tables,
        server.version,
        client,
        &mut problems,
    )
    .await?;
    if problems.is_empty() {
        Ok(Preflight { server_version: server.version, publication_sql, warnings })
    } else {
        Err(PostgresError::Preflight(problems))
    }
}

async fn plan_publication(
    name: &str,
    existing: Option<&Publication>,
    tables: &[TableInfo],
    server_version: i32,
    client: &Client,
    problems: &mut Vec<String>,
) -> Result<Vec<String>, PostgresError> {
    let may_create = publication::may_create(client).await?;
    match publication::plan_publication(name, existing, tables, server_version, may_create) {
        Ok(sql) => Ok(sql),
        Err(found) => {
            problems.extend(found);
            Ok(vec![])
        }
    }
}

async fn load_server(client: &Client) -> Result<Server, PostgresError> {
    let row = client
        .query_one(SERVER_SQL, &[])
        .await
        .map_err(PostgresError::query("read the server's settings"))?;
    Ok(Server {
        version: row.get(0),
        version_text: row.get(1),
        wal_level: row.get(2),
        recovery: row.get(3),
        role: row.get(4),
        replication: row.get(5),
        slots_used: row.get(6),
        slots_max: row.get(7),
        senders_used: row.get(8),
        senders_max: row.get(9),
    })
}

fn check_version(server: &Server) -> Result<(), PostgresError> {
    if server.version >= SERVER_VERSION_MIN {
        return Ok(());
    }
    Err(PostgresError::Config(format!(
        "Postgres {} is too old: walgate needs version 15 or newer",
        server.version_text
    )))
}

fn check_server(
    server: &Server,
    (slot_exists, slot_streams): (bool, bool),
    slot_name: &str,
    problems: &mut Vec<String>,
) {
    if server.wal_level != "logical" {
        problems.push(format!(
            "wal_level is {}, but has to be logical: run ALTER SYSTEM SET wal_level = 'logical' and restart Postgres",
            server.wal_level
        ));
    }
    if server.recovery {
        problems.push("the server is a standby: let [postgres] url point to the primary".into());
    }
    if !server.replication {
        problems.push(format!(
            "role {role} may not replicate: run ALTER ROLE {role} REPLICATION as a superuser \
             (on Amazon RDS: GRANT rds_replication TO {role})",
            role = quote::identifier(&server.role)
        ));
    }
    if !slot_exists && server.slots_used >= server.slots_max {
        problems.push(format!(
            "replication slot \"{slot_name}\" has to be created, but all {} of max_replication_slots are in use: drop one \
             that nobody needs (SELECT slot_name, active FROM pg_replication_slots) or raise max_replication_slots and \
             restart Postgres",
            server.slots_max
        ));
    }
    if !slot_streams && server.senders_used >= server.senders_max {
        problems.push(format!(
            "all {} of max_wal_senders are in use (SELECT pid, application_name FROM pg_stat_replication): end one or \
             raise max_wal_senders and restart Postgres",
            server.senders_max
        ));
    }
}

fn check_table(
    table: &TableInfo,
    types: &TypeCache,
    role: &str,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) {
    let name = &table.name;
    let sql_name = quote::table(name);
    let role = quote::identifier(role);
    if !table.readable {
        problems.push(format!(
            "role {role} may not read {name}: run GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT ON {sql_name} TO {role}",
            quote::identifier(&name.schema)
        ));
    }
    if table.row_security {
        problems.push(format!(
            "row level security hides rows of {name} from role {role}, so snapshots would miss them: run \
             ALTER ROLE {role} BYPASSRLS as a superuser"
        ));
    }
    if !table.kind.is_streamable() {
        return;
    }
    for column in
        table.published_columns().filter(|column| types.binary_support(column.oid) == Binary::Fails)
    {
        problems.push(format!(
            "{name}.{} is of type {}, parts of which Postgres cannot send in binary: publish the table with a column list \
             that leaves it out",
            column.name, column.type_name
        ));
    }
    let differs = |leaf: &&Leaf| !leaf.foreign && leaf.identity != table.identity;
    for leaf in table.leaves.iter().filter(differs) {
        problems.push(format!(
            "partition {} has another REPLICA IDENTITY than its root {name}, so old rows could not be told from keys: run \
             ALTER TABLE {} REPLICA IDENTITY {} (or alter the root)",
            leaf.name,
            quote::table(&leaf.name),
            identity_sql(table.identity)
        ));
    }
    let keyless = match table.identity {
        Identity::Nothing => true,
        Identity::Default => table.primary_key.is_empty(),
        Identity::Index => table.identity_index.is_empty(),
        Identity::Full => false,
    };
    if keyless {
        warnings.push(format!(
            "{name} has no replica identity: Postgres refuses updates and deletes of it while it is published. Add a \
             primary key, or run ALTER TABLE {sql_name} REPLICA IDENTITY FULL"
        ));
    }
}

fn identity_sql(identity: Identity) -> &'static str {
    match identity {
        Identity::Default => "DEFAULT",
        Identity::Index => "USING INDEX …",
        Identity::Full => "FULL",
        Identity::Nothing => "NOTHING",
    }
}

async fn describe_missing_table(
    client: &Client,
    missing: &TableName,
) -> Result<String, PostgresError> {
    let rows = client
        .query(NAMES_SQL, &[])
        .await
        .map_err(PostgresError::query("look for similar tables"))?;
    let names: Vec<TableName> = rows
        .iter()
        .map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)))
        .collect();
    let near = near_names(missing, &names);
    let advice = if near.is_empty() {
        "check [[tables]] name, and that [postgres] url names the right database".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    Ok(format!("table {missing} does not exist: {advice}"))
}

fn near_names(missing: &TableName, names: &[TableName]) -> Vec<String> {
    let wanted = missing.table.to_lowercase();
    let near_enough = NEAR_DISTANCE_MAX.min(wanted.chars().count().div_ceil(3));
    let near = names.iter().filter_map(|name| {
        let distance = edit_distance(&name.table.to_lowercase(), &wanted);
        (distance <= near_enough).then_some((distance, name.schema != missing.schema, name))
    });
    let mut near: Vec<(usize, bool, &TableName)> = near.collect();
    near.sort();
    near.iter().take(NEAR_NAMES_MAX).map(|(.., name)| name.to_string()).collect()
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let cost = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

const SERVER_SQL: &str = "
SELECT current_setting('server_version_num')::int4, current_setting('server_version'), current_setting('wal_level'),
       pg_is_in_recovery(), current_user::text,
       (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)
         OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'rds_replication' AND pg_has_role(r.oid, 'USAGE')),
       (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::int8,
       (SELECT count(*) FROM pg_stat_replication), current_setting('max_wal_senders')::int8";

const NAMES_SQL: &str = "
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;

//! `walgate init-sql`: prints the SQL with the gateway's rights, and no further ones. A superuser
//! reads it before running it.
//!
//! It depends on the configuration alone, so that it works before the role exists. This file does
//! not know the tables.

use std::{fmt::Write, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Result;
use walgate_wire::TableName;

use walgate_host::{
    config::Config,
    postgres::{
        PostgresError,
        endpoint::Endpoint,
        quote,
        slot::{GENERATED_SQL, PUBLISH_GENERATED_SINCE, create_publication_sql},
    },
};

/// Print the SQL that makes the gateway's role, grants and publication.
///
/// Role and database are those of postgres.url, tables those of [[tables]]. Run it with psql as a
/// superuser, or as a role that may create roles and owns the tables. Its last lines are the SQL to
/// undo it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file [default: walgate.toml if there is one]
    #[arg(short, long, env = "WALGATE_CONFIG")]
    config: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let config = Config::load(args.config)?;
    let text = sql(&config)?;
    super::still_read(std::io::stdout().write_all(text.as_bytes()))?;
    Ok(ExitCode::SUCCESS)
}

fn sql(config: &Config) -> Result<String, PostgresError> {
    let endpoint = Endpoint::of(&config.postgres)?;
    let names = Names {
        role: quote::identifier(endpoint.user()),
        database: quote::identifier(endpoint.database()),
        slot: quote::literal(&config.postgres.slot),
        publication: &config.postgres.publication,
        tables: config.tables.iter().map(|table| &table.name).collect(),
    };
    Ok([names.grants(), names.publication(), names.undo()].concat())
}

/// The names, quoted for SQL.
struct Names<'a> {
    role: String,
    database: String,
    slot: String,
    publication: &'a str,
    tables: Vec<&'a TableName>,
}

impl Names<'_> {
    fn schemas(&self) -> Vec<String> {
        let mut schemas: Vec<_> =
            self.tables.iter().map(|t| quote::identifier(&t.schema)).collect();
        schemas.sort();
        schemas.dedup();
        schemas
    }

    fn grants(&self) -> String {
        let Names { role, database, .. } = self;
        let mut sql = format!(
            "-- In database {database}, as a superuser. Then give the role its password: \\password {role}\n\n\
             -- REPLICATION: to read the changes. It owns nothing and writes nothing.\n\
             CREATE ROLE {role} LOGIN REPLICATION;\n\
             GRANT CONNECT ON DATABASE {database} TO {role};\n\
             -- To read tables whole, for snapshots. A partitioned table needs the grant on itself alone; with grants on\n\
             -- its partitions as well several workers copy them.\n"
        );
        let _ = writeln!(sql, "GRANT USAGE ON SCHEMA {} TO {role};", self.schemas().join(", "));
        for table in &self.tables {
            let _ = writeln!(sql, "GRANT SELECT ON {} TO {role};", quote::table(table));
        }
        let _ = write!(
            sql,
            "-- Only where a table has row level security, of which the role must not see a part:\n\
             -- ALTER ROLE {role} BYPASSRLS;\n\
             -- Only for messages that name who holds up a snapshot:\n\
             -- GRANT pg_read_all_stats TO {role};\n\n"
        );
        sql
    }

    fn publication(&self) -> String {
        let name = quote::identifier(self.publication);
        format!(
            "-- What leaves. It belongs to whoever runs this, who has to own the tables; views, foreign and unlogged tables\n\
             -- are read for snapshots only: take them out of this statement. A column list or a row filter goes here, too.\n\
             {create};\n\
             -- Generated columns can be published from Postgres 18 on.\n\
             DO $$ BEGIN\n  \
               IF current_setting('server_version_num')::int >= {since} THEN\n    \
                 ALTER PUBLICATION {name} SET ({GENERATED_SQL});\n  \
               END IF;\n\
             END $$;\n\n",
            create = create_publication_sql(self.publication, &self.tables, false),
            since = PUBLISH_GENERATED_SINCE,
        )
    }

    fn undo(&self) -> String {
        let Names { role, slot, .. } = self;
        let name = quote::identifier(self.publication);
        format!(
            "-- To undo it, once the gateway is stopped for good; without the second line the slot keeps WAL for ever:\n\
             -- DROP PUBLICATION {name};\n\
             -- SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {slot};\n\
             -- DROP OWNED BY {role};\n\
             -- DROP ROLE {role};\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let toml = r#"
            [postgres]
            url = 'host=db user=wal"gate dbname=Shop password=hunter2'
            publication = 'p"; drop'
            [[tables]]
            name = '"My.Schema"."t"'
            [[tables]]
            name = "public.users"
        "#;
        std::fs::write(file.path(), toml).unwrap();
        let sql = sql(&Config::load(Some(file.path().to_owned())).unwrap()).unwrap();
        for line in [
            r#"CREATE ROLE "wal""gate" LOGIN REPLICATION;"#,
            r#"GRANT CONNECT ON DATABASE "Shop" TO "wal""gate";"#,
            r#"GRANT USAGE ON SCHEMA "My.Schema", "public" TO "wal""gate";"#,
            r#"GRANT SELECT ON "My.Schema"."t" TO "wal""gate";"#,
            r#"CREATE PUBLICATION "p""; drop" FOR TABLE "My.Schema"."t", "public"."users" WITH (publish_via_partition_root = true);"#,
            r#"-- DROP PUBLICATION "p""; drop";"#,
        ] {
            assert!(sql.lines().any(|printed| printed == line), "no {line} in\n{sql}");
        }
        assert!(!sql.contains("hunter2"), "a password is no one's business");
    }
}

//! Which relations hold a table's rows: its leaf partitions, or the table itself.
//!
//! How they are copied is not known here.

use tokio_postgres::Client;

use super::ctid_ranges::CopiedRelation;
use crate::{
    postgres::{PostgresError, quote},
    rows::TableVersion,
};

/// The relations that hold the rows of `table`: its leaf partitions, or the table itself.
///
/// If the role may not read all partitions, the partitioned table counts as one relation. Rights on
/// the root suffice then, and the policies of the root apply.
pub(super) async fn load_copied_relations(
    client: &Client,
    table: &TableVersion,
) -> Result<Vec<CopiedRelation>, PostgresError> {
    // pg_partition_tree returns no row for a table outside any partition tree.
    let query = "
SELECT format('%I.%I', n.nspname, c.relname),
       CASE WHEN c.relkind IN ('r', 'm') AND a.amname = 'heap'
            THEN pg_relation_size(c.oid) / current_setting('block_size')::int8 END,
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AND NOT row_security_active(c.oid)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
WHERE c.relkind <> 'p'
  AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass) WHERE isleaf))
ORDER BY c.oid";
    let rows = client
        .query(query, &[&table.relid])
        .await
        .map_err(PostgresError::query("read the partitions of a table"))?;
    let leaf = |row: &tokio_postgres::Row| CopiedRelation {
        name: row.get(0),
        blocks: row.get::<_, Option<i64>>(1).map(i64::unsigned_abs),
    };
    let leaves: Vec<CopiedRelation> = rows.iter().map(leaf).collect();
    if !leaves.is_empty() && rows.iter().all(|row| row.get(2)) {
        return Ok(leaves);
    }
    Ok(vec![CopiedRelation { name: quote::table(&table.name), blocks: None }])
}

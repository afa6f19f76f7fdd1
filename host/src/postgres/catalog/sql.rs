//! The queries of `tables`. That module explains their columns.
//!
//! The queries lock no user's table. pg_publication_tables and pg_partition_tree would. A snapshot
//! that reads those while it holds a lock could deadlock with a transaction that alters or
//! truncates several tables.

/// Whether the publication `b` names the relation `c` (`m.itself`), or an ancestor of which it is a
/// partition (`m.above`).
macro_rules! membership {
    () => {
        "
CROSS JOIN LATERAL (
  SELECT bool_or(t.relid = c.oid) AS itself, bool_or(t.relid <> c.oid) AS above
  FROM (SELECT c.oid::regclass AS relid UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid)) t
  WHERE b.puballtables
    OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel x WHERE x.prpubid = b.oid AND x.prrelid = t.relid)
    OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s
               JOIN pg_catalog.pg_class k ON k.relnamespace = s.pnnspid
               WHERE s.pnpubid = b.oid AND k.oid = t.relid)) m"
    };
}

pub(super) const RELATIONS_SQL: &str = concat!("
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind, c.relpersistence, c.relreplident,
       CASE WHEN c.relkind = 'p' THEN
         (WITH RECURSIVE tree AS (
            SELECT c.oid AS relid
            UNION ALL SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relid)
          SELECT coalesce(sum(greatest(l.reltuples, 0)), 0)::float8
          FROM tree JOIN pg_catalog.pg_class l ON l.oid = tree.relid WHERE l.relkind <> 'p')
       ELSE greatest(c.reltuples, 0)::float8 END,
       (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs::int2[])),
       coalesce(c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND
         CASE WHEN b.pubviaroot THEN m.itself AND NOT m.above ELSE c.relkind = 'r' AND (m.itself OR m.above) END, false),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND
         (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR NOT EXISTS (
           SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           AND (r.prattrs IS NULL OR a.attnum = ANY (r.prattrs::int2[]))
           AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'))),
       pg_catalog.row_security_active(c.oid), pg_catalog.pg_has_role(c.relowner, 'USAGE'),
       b.oid IS NULL OR coalesce(to_jsonb(b)->>'pubgencols' = 's', false)
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(nspname, relname, place)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname AND c.relkind NOT IN ('i', 'I', 't')
LEFT JOIN pg_catalog.pg_publication b ON b.pubname = $3
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid
", membership!(), "
ORDER BY w.place");

/// The WHERE of the publication, which does not apply if the table's whole schema is published.
/// Postgres 17 and newer lock the table to print it.
pub(super) const ROW_FILTER_SQL: &str = "
SELECT pg_catalog.pg_get_expr(r.prqual, r.prrelid)
FROM pg_catalog.pg_publication b JOIN pg_catalog.pg_publication_rel r ON r.prpubid = b.oid
JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
WHERE b.pubname = $1 AND r.prrelid = $2 AND r.prqual IS NOT NULL AND NOT b.puballtables
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = b.oid AND s.pnnspid = c.relnamespace)";

/// The relations of these names, and whether the stream should and does carry them.
pub(super) const PRESENT_SQL: &str = concat!("
SELECT n.nspname::text, c.relname::text, c.oid, c.relkind IN ('r', 'p') AND c.relpersistence = 'p',
       coalesce(m.itself OR m.above, false)
FROM unnest($1::text[], $2::text[]) w(nspname, relname)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname AND c.relkind NOT IN ('i', 'I', 't')
LEFT JOIN pg_catalog.pg_publication b ON b.pubname = $3", membership!());

pub(super) const COLUMNS_SQL: &str = "
SELECT a.attrelid, a.attname::text, a.attnum, a.atttypid, a.atttypmod,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       NOT (a.attnotnull OR t.typnotnull), a.attgenerated <> '',
       a.atthasdef OR a.atthasmissing OR a.attidentity <> '' OR a.attgenerated <> '' OR t.typdefault IS NOT NULL,
       a.attgenerated = 's' AND pg_catalog.current_setting('server_version_num')::int >= 180000
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

pub(super) const INDEXES_SQL: &str = "
SELECT indrelid, indisprimary, indisreplident, (indkey::int2[])[0:indnkeyatts - 1]
FROM pg_catalog.pg_index
WHERE indrelid = ANY($1) AND indisunique AND indimmediate AND indisvalid AND indpred IS NULL
  AND (indisprimary OR indisreplident)";

pub(super) const LEAVES_SQL: &str = "
WITH RECURSIVE tree AS (
  SELECT root, root AS relid FROM unnest($1::oid[]) root
  UNION ALL
  SELECT tree.root, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relid
  JOIN pg_catalog.pg_class k ON k.oid = i.inhrelid AND k.relispartition)
SELECT tree.root, n.nspname::text, c.relname::text, c.relreplident, c.relkind = 'f'
FROM tree
JOIN pg_catalog.pg_class c ON c.oid = tree.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE tree.relid <> tree.root AND c.relkind <> 'p'
ORDER BY c.oid";

//! The queries of `tables`. What their columns mean is written there.

pub(super) const RELATIONS_SQL: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind, c.relpersistence, c.relreplident,
       CASE WHEN c.relkind = 'p' THEN
         (SELECT coalesce(sum(greatest(l.reltuples, 0)), 0)::float8 FROM pg_catalog.pg_partition_tree(c.oid) t
          JOIN pg_catalog.pg_class l ON l.oid = t.relid WHERE t.isleaf)
       ELSE greatest(c.reltuples, 0)::float8 END,
       pg_catalog.pg_get_userbyid(c.relowner)::text, p.attnames::text[], p.rowfilter,
       EXISTS (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication b ON b.oid = r.prpubid
               WHERE b.pubname = $3 AND r.prrelid = c.oid AND r.prattrs IS NOT NULL),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND
         (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR NOT EXISTS (
           SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           AND (p.attnames IS NULL OR a.attname = ANY(p.attnames))
           AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'))),
       pg_catalog.row_security_active(c.oid), pg_catalog.pg_has_role(c.relowner, 'USAGE'), c.relpages
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(nspname, relname, place)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname AND c.relkind NOT IN ('i', 'I', 't')
LEFT JOIN pg_catalog.pg_publication_tables p
  ON p.pubname = $3 AND p.schemaname = n.nspname AND p.tablename = c.relname
ORDER BY w.place";

/// As [`RELATIONS_SQL`], without functions that lock the table: partitions, rights, row filters. The publication's
/// columns are its list, if it has one.
pub(super) const SHAPES_SQL: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind, c.relpersistence, c.relreplident, 0::float8, ''::text,
       (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs::int2[])),
       NULL::text, r.prattrs IS NOT NULL, false, false, false, 0
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(nspname, relname, place)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname AND c.relkind NOT IN ('i', 'I', 't')
LEFT JOIN pg_catalog.pg_publication b ON b.pubname = $3
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid
ORDER BY w.place";

/// What there is of these names, and whether the stream should and does carry it; without functions that lock tables.
pub(super) const PRESENT_SQL: &str = "
SELECT n.nspname::text, c.relname::text, c.oid, c.relkind IN ('r', 'p') AND c.relpersistence = 'p',
       coalesce(b.puballtables
         OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = b.oid AND r.prrelid IN (
              SELECT c.oid UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid)))
         OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s JOIN pg_catalog.pg_class k ON k.relnamespace = s.pnnspid
              WHERE s.pnpubid = b.oid AND k.oid IN (
                SELECT c.oid UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid))), false)
FROM unnest($1::text[], $2::text[]) w(nspname, relname)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname AND c.relkind NOT IN ('i', 'I', 't')
LEFT JOIN pg_catalog.pg_publication b ON b.pubname = $3";

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
SELECT root.relid, c.oid, n.nspname::text, c.relname::text, c.relreplident, c.relpages, c.relkind = 'f'
FROM unnest($1::oid[]) root(relid)
CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root.relid) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.isleaf AND t.relid <> root.relid
ORDER BY c.oid";

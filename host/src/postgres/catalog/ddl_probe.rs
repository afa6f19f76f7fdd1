//! Detects DDL that changes rows without producing change events: altered composite types, renamed
//! enum labels, tables that ALTER TABLE rewrote.
//!
//! Two catalog fingerprints are compared. What follows from a difference is not known here. The
//! query takes no lock and reads no row of the table.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::postgres::PostgresError;

/// What may differ between two fingerprints, by key.
type FingerprintMap = HashMap<String, String>;

/// The catalog state of one table at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DdlFingerprint {
    /// By number and type of each column: the transaction that last wrote its definition.
    columns: FingerprintMap,
    /// By OID of the table, or of each partition: the file that holds the rows.
    files: FingerprintMap,
    /// By OID of each composite type inside: its attributes.
    composites: FingerprintMap,
    /// By OID of each label of each enum inside: the label.
    labels: FingerprintMap,
}

/// DDL between two fingerprints that the stream does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilentDdl {
    /// The types must be read again. The table's schema decides whether copies are reloaded.
    Composite,
    Label,
    Rewritten,
}

impl SilentDdl {
    pub fn describe(self) -> &'static str {
        match self {
            SilentDdl::Composite => "a type of one of its columns was altered",
            SilentDdl::Label => "a label of an enum was renamed",
            SilentDdl::Rewritten => "ALTER TABLE rewrote its rows",
        }
    }
}

impl DdlFingerprint {
    /// What was altered since `before`. Columns, partitions and labels that were added or dropped
    /// do not count.
    pub fn diff(&self, before: &DdlFingerprint) -> Vec<SilentDdl> {
        // VACUUM FULL, CLUSTER and TRUNCATE write new files and leave columns alone. Most DDL does
        // the opposite.
        let rewritten =
            any_differs(&before.columns, &self.columns) && any_differs(&before.files, &self.files);
        let found = [
            (any_differs(&before.composites, &self.composites), SilentDdl::Composite),
            (any_differs(&before.labels, &self.labels), SilentDdl::Label),
            (rewritten, SilentDdl::Rewritten),
        ];
        found.into_iter().filter_map(|(is_altered, ddl)| is_altered.then_some(ddl)).collect()
    }
}

#[cfg(test)]
impl DdlFingerprint {
    /// Of a table in this file, with one column defined by the same transaction.
    pub fn for_test(file: &str) -> DdlFingerprint {
        let mark = |key: &str| HashMap::from([(key.to_owned(), file.to_owned())]);
        DdlFingerprint {
            columns: mark("1 23 -1"),
            files: mark("16400"),
            ..DdlFingerprint::default()
        }
    }

    /// Of a table with a composite type of these attributes.
    pub fn for_composite(attributes: &str) -> DdlFingerprint {
        let composites = HashMap::from([("16500".to_owned(), attributes.to_owned())]);
        DdlFingerprint { composites, ..DdlFingerprint::default() }
    }
}

fn any_differs(before: &FingerprintMap, now: &FingerprintMap) -> bool {
    before.iter().any(|(key, value)| now.get(key).is_some_and(|now| now != value))
}

/// Reads the fingerprints of the tables with these OIDs.
pub(super) async fn load_fingerprints(
    client: &Client,
    relids: &[u32],
) -> Result<HashMap<u32, DdlFingerprint>, PostgresError> {
    let failed = PostgresError::query("see whether tables or their types were altered");
    let rows = client.query(FINGERPRINTS_SQL, &[&relids]).await.map_err(&failed)?;
    let mut found: HashMap<u32, DdlFingerprint> = HashMap::new();
    for row in rows {
        let fingerprint = found.entry(row.get(0)).or_default();
        let marks = match row.get::<_, &str>(1) {
            "column" => &mut fingerprint.columns,
            "file" => &mut fingerprint.files,
            "composite" => &mut fingerprint.composites,
            _ => &mut fingerprint.labels,
        };
        let keys: Vec<String> = row.get(2);
        let values: Vec<String> = row.get(3);
        marks.extend(keys.into_iter().zip(values));
    }
    Ok(found)
}

/// A column that gets another type gets another key, because the stream announces that. OIDs from
/// 16384 on are users' types.
const FINGERPRINTS_SQL: &str = "
WITH RECURSIVE tree AS (
  SELECT root, root AS relid FROM unnest($1::oid[]) root
  UNION ALL
  SELECT tree.root, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relid
  JOIN pg_catalog.pg_class k ON k.oid = i.inhrelid AND k.relispartition),
types AS (
  SELECT a.attrelid AS root, a.atttypid AS oid FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
  UNION
  SELECT types.root, part.oid FROM types JOIN pg_catalog.pg_type t ON t.oid = types.oid
  CROSS JOIN LATERAL (
    SELECT t.typelem AS oid UNION ALL SELECT t.typbasetype
    UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
    WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) part
  WHERE part.oid >= 16384)
SELECT a.attrelid, 'column', array_agg(concat_ws(' ', a.attnum, a.atttypid, a.atttypmod)), array_agg(a.xmin::text)
FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped GROUP BY 1
UNION ALL
SELECT tree.root, 'file', array_agg(c.oid::text), array_agg(c.relfilenode::text)
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.relid WHERE c.relfilenode <> 0 GROUP BY 1
UNION ALL
SELECT types.root, 'composite', array_agg(t.oid::text), array_agg(f.fields)
FROM types JOIN pg_catalog.pg_type t ON t.oid = types.oid CROSS JOIN LATERAL (
  SELECT coalesce(string_agg(concat_ws(' ', a.attnum, a.atttypid, a.attname), ',' ORDER BY a.attnum), '') AS fields
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) f
WHERE t.typtype = 'c' GROUP BY 1
UNION ALL
SELECT types.root, 'label', array_agg(e.oid::text), array_agg(e.enumlabel::text)
FROM types JOIN pg_catalog.pg_enum e ON e.enumtypid = types.oid GROUP BY 1";

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(pairs: &[(&str, &str)]) -> FingerprintMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn before() -> DdlFingerprint {
        DdlFingerprint {
            columns: marks(&[("1 23 -1", "700"), ("2 25 -1", "700")]),
            files: marks(&[("16400", "16400"), ("16410", "16410")]),
            composites: marks(&[("16390", "1 23 a,2 25 b")]),
            labels: marks(&[("16380", "sad"), ("16382", "ok")]),
        }
    }

    #[test]
    fn only_new_columns_and_new_files_together_are_a_rewrite() {
        let column = marks(&[("1 23 -1", "900"), ("2 25 -1", "700")]);
        let file = marks(&[("16400", "20000"), ("16410", "16410")]);
        let defined = DdlFingerprint { columns: column.clone(), ..before() };
        let moved = DdlFingerprint { files: file.clone(), ..before() };
        assert_eq!(defined.diff(&before()), []);
        assert_eq!(moved.diff(&before()), []);
        let both = DdlFingerprint { columns: column, files: file.clone(), ..before() };
        assert_eq!(both.diff(&before()), [SilentDdl::Rewritten]);
        // The stream announces another type or another column.
        let retyped = marks(&[("1 20 -1", "900"), ("2 25 -1", "700"), ("3 23 -1", "900")]);
        let retyped = DdlFingerprint { columns: retyped, files: file, ..before() };
        assert_eq!(retyped.diff(&before()), []);
    }

    #[test]
    fn altered_types_and_renamed_labels_are_found_and_additions_are_not() {
        let attributes = marks(&[("16390", "1 23 a,3 25 c"), ("16395", "1 23 z")]);
        let composites = DdlFingerprint { composites: attributes, ..before() };
        assert_eq!(composites.diff(&before()), [SilentDdl::Composite]);
        let added = marks(&[("16380", "sad"), ("16382", "ok"), ("16500", "happy")]);
        assert_eq!(DdlFingerprint { labels: added, ..before() }.diff(&before()), []);
        let renamed = marks(&[("16380", "gloomy"), ("16382", "ok")]);
        let renamed = DdlFingerprint { labels: renamed, ..before() };
        assert_eq!(renamed.diff(&before()), [SilentDdl::Label]);
        assert_eq!(before().diff(&before()), []);
        assert_eq!(before().diff(&DdlFingerprint::default()), []);
    }
}

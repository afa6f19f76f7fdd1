//! What DDL leaves in the catalog where it changes rows without a word in the stream: attributes of composite types, labels of
//! enums, a table that ALTER TABLE has written anew.
//!
//! Two looks are compared; what follows from a difference is not known here. Nothing is locked, and no row is read.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::postgres::PostgresError;

/// What a table looked like, by what may differ.
type Marks = HashMap<String, String>;

/// One look at one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// By number and type of each column: the transaction that wrote its definition last.
    columns: Marks,
    /// By OID of the table, or of its partitions: the file that holds the rows.
    files: Marks,
    /// By OID of each composite type inside: its attributes.
    composites: Marks,
    /// By OID of each label of each enum inside: the label.
    labels: Marks,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Altered {
    /// Types are to be read again. Whether copies are to be loaded again depends on what their schema says of the types.
    Composite,
    Label,
    Rewritten,
}

impl Altered {
    pub fn in_words(self) -> &'static str {
        match self {
            Altered::Composite => "a type of one of its columns was altered",
            Altered::Label => "a label of an enum was renamed",
            Altered::Rewritten => "ALTER TABLE wrote its rows anew",
        }
    }
}

impl Traces {
    /// What was altered since `before`. What came or went is not: a column, a partition, a label.
    pub fn altered_since(&self, before: &Traces) -> Vec<Altered> {
        // VACUUM FULL, CLUSTER and TRUNCATE write new files and leave columns alone; most DDL does the opposite.
        let rewritten =
            differ(&before.columns, &self.columns) && differ(&before.files, &self.files);
        let found = [
            (differ(&before.composites, &self.composites), Altered::Composite),
            (differ(&before.labels, &self.labels), Altered::Label),
            (rewritten, Altered::Rewritten),
        ];
        found.into_iter().filter_map(|(is_so, altered)| is_so.then_some(altered)).collect()
    }
}

#[cfg(test)]
impl Traces {
    /// Of a table in this file, whose column was defined when that was made.
    pub fn for_test(file: &str) -> Traces {
        let mark = |key: &str| HashMap::from([(key.to_owned(), file.to_owned())]);
        Traces { columns: mark("1 23 -1"), files: mark("16400"), ..Traces::default() }
    }

    /// Of a table with a composite type of these attributes.
    pub fn for_composite(attributes: &str) -> Traces {
        let composites = HashMap::from([("16500".to_owned(), attributes.to_owned())]);
        Traces { composites, ..Traces::default() }
    }
}

fn differ(before: &Marks, now: &Marks) -> bool {
    before.iter().any(|(key, value)| now.get(key).is_some_and(|now| now != value))
}

/// Looks at the tables with these OIDs.
pub async fn load_traces(
    client: &Client,
    relids: &[u32],
) -> Result<HashMap<u32, Traces>, PostgresError> {
    let failed = PostgresError::query("see whether tables or their types were altered");
    let rows = client.query(TRACES_SQL, &[&relids]).await.map_err(&failed)?;
    let mut found: HashMap<u32, Traces> = HashMap::new();
    for row in rows {
        let traces = found.entry(row.get(0)).or_default();
        let marks = match row.get::<_, &str>(1) {
            "column" => &mut traces.columns,
            "file" => &mut traces.files,
            "composite" => &mut traces.composites,
            _ => &mut traces.labels,
        };
        let (keys, values): (Vec<String>, Vec<String>) = (row.get(2), row.get(3));
        marks.extend(keys.into_iter().zip(values));
    }
    Ok(found)
}

/// A column that gets another type, which the stream tells, has another key. OIDs from 16384 on are users' types.
const TRACES_SQL: &str = "
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

    fn marks(pairs: &[(&str, &str)]) -> Marks {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn before() -> Traces {
        Traces {
            columns: marks(&[("1 23 -1", "700"), ("2 25 -1", "700")]),
            files: marks(&[("16400", "16400"), ("16410", "16410")]),
            composites: marks(&[("16390", "1 23 a,2 25 b")]),
            labels: marks(&[("16380", "sad"), ("16382", "ok")]),
        }
    }

    #[test]
    fn a_rewrite_is_told_from_what_moves_rows_or_defines_columns() {
        let column = marks(&[("1 23 -1", "900"), ("2 25 -1", "700")]);
        let file = marks(&[("16400", "20000"), ("16410", "16410")]);
        let defined = Traces { columns: column.clone(), ..before() };
        let moved = Traces { files: file.clone(), ..before() };
        assert_eq!(defined.altered_since(&before()), []);
        assert_eq!(moved.altered_since(&before()), []);
        let both = Traces { columns: column, files: file.clone(), ..before() };
        assert_eq!(both.altered_since(&before()), [Altered::Rewritten]);
        // Another type, or another column: the stream tells that.
        let retyped = marks(&[("1 20 -1", "900"), ("2 25 -1", "700"), ("3 23 -1", "900")]);
        let retyped = Traces { columns: retyped, files: file, ..before() };
        assert_eq!(retyped.altered_since(&before()), []);
    }

    #[test]
    fn types_are_altered_labels_renamed_and_what_is_new_alters_nothing() {
        let attributes = marks(&[("16390", "1 23 a,3 25 c"), ("16395", "1 23 z")]);
        let composites = Traces { composites: attributes, ..before() };
        assert_eq!(composites.altered_since(&before()), [Altered::Composite]);
        let added = marks(&[("16380", "sad"), ("16382", "ok"), ("16500", "happy")]);
        assert_eq!(Traces { labels: added, ..before() }.altered_since(&before()), []);
        let renamed = marks(&[("16380", "gloomy"), ("16382", "ok")]);
        let renamed = Traces { labels: renamed, ..before() };
        assert_eq!(renamed.altered_since(&before()), [Altered::Label]);
        assert_eq!(before().altered_since(&before()), []);
        assert_eq!(before().altered_since(&Traces::default()), []);
    }
}

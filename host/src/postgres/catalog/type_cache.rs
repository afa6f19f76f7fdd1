//! The structure of types, compiled from `pg_type` and `pg_attribute` for the packer.
//!
//! Compiling is pure; [`TypeCache::load_types`] fetches the rows of the catalog. How a type's bytes
//! become MessagePack is not known here.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use walgate_wire::hex;

use crate::{
    postgres::PostgresError,
    rows::{Binary, Kind, Type, is_native},
};

/// The server prints types that are nested deeper.
const DEPTH_MAX: usize = 32;
const TEXT_OID: u32 = 25;

/// A row of `pg_type`, with the attributes of a composite.
#[derive(Clone, Debug, Default)]
pub(super) struct RawType {
    pub name: String,
    /// `pg_type.typtype`.
    pub typtype: u8,
    /// Element type of a true array, else 0.
    pub element: u32,
    /// Base type of a domain, else 0.
    pub base: u32,
    /// Of an array: the array type of its elements' base type, domains resolved; else 0.
    pub base_array: u32,
    /// Has a send function.
    pub sends: bool,
    /// Extension that it belongs to, or empty.
    pub extension: String,
    pub fields: Vec<(String, u32)>,
    /// `attnum` of each field. A field that replaces another has a new one.
    pub attnums: Vec<i16>,
}

/// Catalog rows by OID, kept until [`TypeCache::clear`].
#[derive(Debug, Default)]
pub struct TypeCache {
    raw: HashMap<u32, RawType>,
}

impl TypeCache {
    /// Loads `oids` and the types that they consist of. OIDs that no longer exist stay unknown.
    pub async fn load_types(&mut self, client: &Client, oids: &[u32]) -> Result<(), PostgresError> {
        let mut missing: HashSet<u32> =
            oids.iter().copied().filter(|&oid| !is_native(oid)).collect();
        missing.retain(|oid| !self.raw.contains_key(oid));
        for _ in 0..DEPTH_MAX {
            if missing.is_empty() {
                break;
            }
            let wanted: Vec<u32> = missing.drain().collect();
            for row in client
                .query(TYPES_SQL, &[&wanted])
                .await
                .map_err(PostgresError::query("read types"))?
            {
                let raw = RawType {
                    name: row.get(1),
                    typtype: row.get::<_, i8>(2) as u8,
                    element: row.get(3),
                    base: row.get(4),
                    sends: row.get(5),
                    extension: row.get(6),
                    base_array: row.get(9),
                    attnums: row.get(10),
                    fields: row
                        .get::<_, Vec<String>>(7)
                        .into_iter()
                        .zip(row.get::<_, Vec<u32>>(8))
                        .collect(),
                };
                let parts = raw.fields.iter().map(|f| f.1).chain([raw.element, raw.base]);
                missing.extend(parts.filter(|&oid| oid != 0 && !is_native(oid)));
                self.raw.insert(row.get(0), raw);
            }
            missing.retain(|oid| !self.raw.contains_key(oid));
        }
        Ok(())
    }

    /// Empties the cache, so that altered composites are read again.
    pub fn clear(&mut self) {
        self.raw.clear();
    }

    /// Whether the OID was loaded, or is a native type that need not be.
    pub fn is_known(&self, oid: u32) -> bool {
        is_native(oid) || self.raw.contains_key(&oid)
    }

    /// The type as the packer sees it. The server prints unknown types.
    pub fn compile_type(&self, oid: u32) -> Type {
        self.compile_at(oid, 0)
    }

    fn compile_at(&self, oid: u32, depth: usize) -> Type {
        if is_native(oid) {
            return Type::base(oid);
        }
        let Some(raw) = self.raw.get(&oid).filter(|_| depth < DEPTH_MAX) else {
            return Type::rendered(oid);
        };
        let kind = match (raw.typtype, raw.extension.as_str(), raw.name.as_str()) {
            (b'd', ..) => return self.compile_at(raw.base, depth + 1),
            (_, "citext", "citext") => return Type::base(TEXT_OID),
            (_, "hstore", "hstore") => Kind::Hstore,
            (_, "vector", "vector") => Kind::Vector,
            (b'e', ..) => Kind::Enum,
            (b'c', ..) => Kind::Composite {
                name: raw.name.clone(),
                fields: raw
                    .fields
                    .iter()
                    .map(|(name, oid)| (name.clone(), self.compile_at(*oid, depth + 1)))
                    .collect(),
            },
            _ if raw.element != 0 => Kind::Array(Box::new(self.compile_at(raw.element, depth + 1))),
            _ => Kind::Rendered,
        };
        Type { oid, kind }
    }

    /// The base type of a domain or of an array of a domain. `None` for other types.
    pub fn base_oid(&self, oid: u32) -> Option<u32> {
        let mut base = oid;
        for _ in 0..DEPTH_MAX {
            let Some(raw) = self.raw.get(&base) else { break };
            base = match (raw.typtype, raw.base_array) {
                (b'd', _) => raw.base,
                (_, array) if array != 0 && array != base => array,
                _ => break,
            };
        }
        (base != oid).then_some(base)
    }

    /// Identifies the attributes of all composite types inside the type, at any depth. `None`
    /// without composite types.
    pub fn composite_fingerprint(&self, oid: u32) -> Option<String> {
        let mut seen = HashSet::new();
        let mut rest = vec![oid];
        let mut digest = Sha256::new();
        let mut has_composite = false;
        while let Some(oid) = rest.pop() {
            let Some(raw) = self.raw.get(&oid).filter(|_| seen.insert(oid)) else { continue };
            has_composite |= raw.typtype == b'c';
            for ((name, part), attnum) in raw.fields.iter().zip(&raw.attnums) {
                digest.update(format!("{oid} {attnum} {part} {} {name};", name.len()));
            }
            let parts = raw.fields.iter().map(|f| f.1).chain([raw.element, raw.base]);
            rest.extend(parts.filter(|&oid| oid != 0));
        }
        has_composite.then(|| hex::encode(&digest.finalize()[..8]))
    }

    /// Whether Postgres can send the type in binary. If the type itself has no send function,
    /// pgoutput and a cast fall back to text. If a part has none, the server fails.
    pub fn binary_support(&self, oid: u32) -> Binary {
        if is_native(oid) {
            return Binary::Yes;
        }
        match self.raw.get(&oid) {
            Some(raw) if !raw.sends => Binary::TextInstead,
            _ if self.parts_send(oid, 0) => Binary::Yes,
            _ => Binary::Fails,
        }
    }

    fn parts_send(&self, oid: u32, depth: usize) -> bool {
        let Some(raw) = self.raw.get(&oid).filter(|_| depth < DEPTH_MAX) else { return true };
        let parts = raw.fields.iter().map(|f| f.1).chain([raw.element, raw.base]);
        raw.sends && parts.filter(|&oid| oid != 0).all(|oid| self.parts_send(oid, depth + 1))
    }

    #[cfg(test)]
    pub(super) fn insert(&mut self, oid: u32, raw: RawType) {
        self.raw.insert(oid, raw);
    }
}

/// The last column but one is an array's [`RawType::base_array`]. An array of domains over arrays
/// has none, and its values are those of the inner array, one level deeper. `int2vector` and
/// `oidvector` (22, 30) are arrays internally, but are not printed as arrays.
const TYPES_SQL: &str = "
SELECT t.oid, t.typname::text, t.typtype,
       CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc AND t.oid NOT IN (22, 30)
            THEN t.typelem ELSE 0 END,
       t.typbasetype, t.typsend <> 0,
       coalesce((SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                 WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' LIMIT 1), ''),
       coalesce(f.names, '{}'), coalesce(f.types, '{}'),
       CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc AND t.oid NOT IN (22, 30)
            THEN (WITH RECURSIVE element AS (
                    SELECT e.oid, e.typtype, e.typbasetype, e.typarray FROM pg_catalog.pg_type e WHERE e.oid = t.typelem
                    UNION ALL
                    SELECT e.oid, e.typtype, e.typbasetype, e.typarray FROM element d
                    JOIN pg_catalog.pg_type e ON e.oid = d.typbasetype WHERE d.typtype = 'd')
                  SELECT coalesce(nullif(typarray, 0), oid) FROM element WHERE typtype <> 'd')
            ELSE 0 END,
       coalesce(f.attnums, '{}')
FROM pg_catalog.pg_type t
LEFT JOIN LATERAL (
  SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names, array_agg(a.atttypid ORDER BY a.attnum) AS types,
         array_agg(a.attnum ORDER BY a.attnum) AS attnums
  FROM pg_catalog.pg_attribute a
  WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
) f ON true
WHERE t.oid = ANY($1)";

#[cfg(test)]
#[path = "type_cache_tests.rs"]
mod tests;

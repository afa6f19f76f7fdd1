//! The value of KV key `schemas/{token}`: the table as consumers receive it, after its guest.
//!
//! This module does not know when the gateway writes a new revision.

use serde::{Deserialize, Serialize};

use crate::{Lsn, Token};

/// Whether changes of a table are published, and what a consumer does if not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableState {
    /// Changes are published.
    Live,
    /// Changes are not published. Consumers keep their rows.
    ///
    /// The schema's `reason` gives the cause and the remedy.
    Suspended,
    /// The table was removed from the source or from the configuration.
    Dropped,
    /// Changes are published, but copies below the schema's `lsn` are void.
    ///
    /// A consumer loads the table again if the watermark of its copy is below `lsn`.
    Reseed,
}

/// The replica identity: which columns of the old row Postgres logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The primary key, if there is one.
    Default,
    /// The columns of a unique index.
    Index,
    /// All columns.
    Full,
    /// No column. Updates and deletes of the table cannot be published.
    Nothing,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's name, unquoted.
    pub name: String,
    /// The type as `format_type` prints it, `numeric(10,2)` for instance.
    #[serde(rename = "type")]
    pub type_name: String,
    /// OID of the declared type. For a domain it is the OID of the domain.
    pub oid: u32,
    /// OID of the type beneath a domain; for an array of a domain, of the array of that type.
    ///
    /// Absent if it equals `oid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_oid: Option<u32>,
    /// Fingerprint of the composite types inside the column's type, for the gateway's own use.
    ///
    /// It changes if an attribute is added, dropped, renamed or replaced. Absent if the type
    /// contains no composite, or if the gateway did not read the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<String>,
    /// Number of the column in the source table. A rename does not change it.
    ///
    /// Negative for a column that a guest adds.
    pub attnum: i16,
    /// Whether the value can be NULL.
    pub nullable: bool,
    /// Whether the column is part of the key that identifies a row.
    pub key: bool,
}

impl Column {
    /// OID of the type of the values on the wire. Values of a domain have the type beneath it.
    pub fn value_oid(&self) -> u32 {
        self.base_oid.unwrap_or(self.oid)
    }
}

/// The guest that produced the rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The guest's name, as the guest reports it.
    pub name: String,
    /// The guest's version, as the guest reports it.
    pub version: String,
    /// SHA-256 of the guest's file, in hex.
    pub sha256: String,
}

/// All that a consumer needs to read the rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The table's name at the source, as in SQL: `public.users`.
    pub table: String,
    /// The table's name in subjects and keys.
    pub token: Token,
    /// OID of the table at the source. Another OID means another table of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relid: Option<u32>,
    /// KV revision of this entry. The writer leaves it 0; a reader takes it from the KV entry.
    #[serde(default)]
    pub revision: u64,
    /// Whether changes of the table are published.
    pub state: TableState,
    /// The columns, in the order of the values of a row.
    pub columns: Vec<Column>,
    /// Names of the key columns, in key order; empty for a table without a key.
    pub key: Vec<String>,
    /// The table's replica identity.
    pub identity: Identity,
    /// The columns of an old row, in its order, as indexes into `columns`.
    pub old: Vec<u32>,
    /// The table's guest, if it has one.
    pub guest: Option<Guest>,
    /// The position from which on this schema is valid.
    ///
    /// In the state `reseed` it is the watermark that a valid copy must reach.
    pub lsn: Lsn,
    /// Why the table is not live, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Schema {
    /// Whether `other` describes the same rows.
    ///
    /// Token, revision, state, LSN and reason are not compared.
    pub fn same_shape(&self, other: &Schema) -> bool {
        self.columns == other.columns
            && self.key == other.key
            && self.identity == other.identity
            && self.old == other.old
            && self.guest == other.guest
            && self.table == other.table
            && self.relid == other.relid
    }

    /// Indexes of the key columns, in key order.
    pub fn key_indexes(&self) -> Vec<usize> {
        let index = |name: &String| self.columns.iter().position(|c| &c.name == name);
        self.key.iter().filter_map(index).collect()
    }
}

impl Guest {
    /// The first 12 digits of the hash, which the header `Wg-Guest` carries.
    pub fn short_hash(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}

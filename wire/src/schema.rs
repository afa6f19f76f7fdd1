//! The value of KV key `schemas/{token}`: what a table looks like to consumers, after the guest.

use serde::{Deserialize, Serialize};

use crate::{Lsn, Token};

/// Whether a table flows, and what a consumer should do if it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableState {
    /// Flows.
    Live,
    /// Exists, does not flow: keep the rows. `reason` says why and what lifts it.
    Suspended,
    /// Gone from the source or from the configuration.
    Dropped,
    /// A copy whose watermark is below the schema's `lsn` must be loaded again; newer copies are good.
    Reseed,
}

/// Which columns Postgres logs of the old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The primary key; none if there is none.
    Default,
    /// The columns of a unique index.
    Index,
    /// The whole row.
    Full,
    /// Nothing: updates and deletes of the table cannot be published.
    Nothing,
}

/// One column, in wire order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// As `format_type` prints it, `numeric(10,2)` say.
    #[serde(rename = "type")]
    pub type_name: String,
    /// OID of the declared type, a domain's own.
    pub oid: u32,
    /// What a domain is made of in the end, or for an array of a domain the array of that; absent where it
    /// would repeat `oid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_oid: Option<u32>,
    /// What a composite type inside is made of: changes with each attribute gained, lost, renamed or replaced. For the gateway's own use;
    /// absent where there is none, or where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<String>,
    /// Position in the source table; stays the same when the column is renamed.
    pub attnum: i16,
    pub nullable: bool,
    /// Part of the key by which rows are located.
    pub key: bool,
}

impl Column {
    /// OID of the type that values are of: they are carried as what a domain is based on.
    pub fn value_oid(&self) -> u32 {
        self.base_oid.unwrap_or(self.oid)
    }
}

/// The guest whose output the rows are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    pub name: String,
    pub version: String,
    pub sha256: String,
}

/// Everything a consumer has to know of a table to read its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Source name as one writes it, `public.users`.
    pub table: String,
    pub token: Token,
    /// OID of the table at the source: another one is another table of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relid: Option<u32>,
    /// KV revision of this entry. Zero while it is being written: a reader takes it from the KV entry.
    #[serde(default)]
    pub revision: u64,
    pub state: TableState,
    pub columns: Vec<Column>,
    /// Names of the key columns, in key order; empty for a table without a key.
    pub key: Vec<String>,
    pub identity: Identity,
    /// Indexes into `columns` of what an old row carries, in the order in which it carries them.
    pub old: Vec<u32>,
    pub guest: Option<Guest>,
    /// From where on this schema holds; with state `reseed`, the watermark that a good copy must reach.
    pub lsn: Lsn,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Schema {
    /// Whether `other` describes the same rows: all but revision, state, position and reason.
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
    /// Enough of the hash to tell guests apart, for a header.
    pub fn short(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}

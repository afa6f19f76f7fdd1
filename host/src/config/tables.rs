//! `[[tables]]`: the tables that the gateway may publish, each with its guest.
//!
//! Whether a table or a guest's file exists is not known here.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use walgate_wire::{TableName, Token};

use super::{ConfigError, invalid};

/// File names end in more than the alias, and file systems limit a name to 255 bytes.
const ALIAS_BYTES_MAX: usize = 240;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTable {
    /// `"public.users"`. Names that hold dots or quotes are quoted as in SQL: `'"My.Schema"."t"'`.
    pub name: String,
    /// Name for consumers: `cdc.orders` instead of `cdc.sales=2Eorders`. At most 240 bytes as a
    /// token.
    #[serde(default)]
    pub alias: Option<String>,
    /// File in `guests.dir`. Name it if no row may be published without the guest. Without it:
    /// `{token}.wasm` if it exists.
    #[serde(default)]
    pub guest: Option<String>,
    /// `true`: without the file every row is published. `false`: no row is, once the guest was
    /// named or has served.
    #[serde(default)]
    pub guest_optional: bool,
    /// Parameters of the guest: `{ region = "DE" }`.
    #[serde(default)]
    pub guest_params: BTreeMap<String, String>,
    /// Only this file is accepted, as `sha256sum` prints it. Another file leaves the old guest
    /// serving.
    #[serde(default)]
    pub guest_sha256: Option<String>,
    /// Treatment of a row that the guest fails on: [GUESTS.md](GUESTS.md#when-it-goes-wrong).
    #[serde(default)]
    pub on_guest_error: OnGuestError,
    /// `"reseed"`: consumers reload the table when the guest changes.
    #[serde(default)]
    pub on_guest_change: OnGuestChange,
    /// `true`: the table is suspended while the stream lags too far behind, and reloaded
    /// afterwards.
    #[serde(default)]
    pub shed: bool,
}

/// A table that the gateway may publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredTable {
    pub name: TableName,
    pub token: Token,
    pub guest: TableGuest,
    /// The table may be suspended while the slot retains too much WAL, and reloaded afterwards.
    pub shed: bool,
}

/// The settings of a table's guest, whether a guest exists or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableGuest {
    /// Relative to the folder of guests.
    pub file: PathBuf,
    /// The configuration names the file. Without the file the table is suspended.
    pub named: bool,
    /// Without its file the table is published unfiltered.
    pub optional: bool,
    pub parameters: BTreeMap<String, String>,
    /// SHA-256 of the only accepted file, in hex.
    pub sha256: Option<String>,
    pub on_error: OnGuestError,
    pub on_change: OnGuestChange,
}

/// Treatment of a row that the guest fails on. The row is never published as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnGuestError {
    /// The table is suspended until its guest is fixed.
    #[default]
    Halt,
    /// The row goes to `dlq.{table}` and counts as dropped.
    DeadLetter,
    /// The row counts as dropped.
    Drop,
}

/// What consumers do with the rows that an earlier guest let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnGuestChange {
    /// Consumers keep them. The new guest decides about changes from now on.
    #[default]
    Continue,
    /// Consumers reload the table.
    Reseed,
}

pub(super) fn validate_tables(raw: Vec<RawTable>) -> Result<Vec<ConfiguredTable>, ConfigError> {
    if raw.is_empty() {
        return invalid("tables", "there is none: add [[tables]] with name = \"public.users\"");
    }
    let mut tables: Vec<ConfiguredTable> = Vec::with_capacity(raw.len());
    for raw in raw {
        let table = raw.validate()?;
        if tables.iter().any(|t| t.name == table.name || t.token == table.token) {
            let ConfiguredTable { name, token, .. } = table;
            return invalid(
                "tables",
                format!(
                    "{name} stands there twice, or its token {token} is taken by another's alias"
                ),
            );
        }
        tables.push(table);
    }
    Ok(tables)
}

fn check_token_length(table: &TableName, token: Token) -> Result<Token, ConfigError> {
    let bytes = token.as_str().len();
    if bytes <= ALIAS_BYTES_MAX {
        return Ok(token);
    }
    let problem = format!(
        "of {table} takes {bytes} bytes in subjects and names of files (three for each byte but A-Z, a-z, 0-9, - and _): choose a shorter one, of at most {ALIAS_BYTES_MAX}"
    );
    invalid("tables.alias", problem)
}

impl RawTable {
    fn validate(self) -> Result<ConfiguredTable, ConfigError> {
        let name: TableName = self
            .name
            .parse()
            .or_else(|e: walgate_wire::InvalidName| invalid("tables.name", e.to_string()))?;
        let token = match self.alias {
            Some(alias) if alias.is_empty() => {
                return invalid(
                    "tables.alias",
                    format!("of {name} is empty: leave it out or name it"),
                );
            }
            Some(alias) => check_token_length(&name, Token::of_alias(&alias))?,
            None => name.token(),
        };
        let is_digest =
            |hash: &String| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if self.guest_sha256.as_ref().is_some_and(|hash| !is_digest(hash)) {
            return invalid(
                "tables.guest_sha256",
                format!("of {name} is no SHA-256: write the 64 hex digits that sha256sum prints"),
            );
        }
        let guest = TableGuest {
            file: self.guest.clone().unwrap_or_else(|| format!("{token}.wasm")).into(),
            named: self.guest.is_some(),
            optional: self.guest_optional,
            parameters: self.guest_params,
            sha256: self.guest_sha256.map(|hash| hash.to_ascii_lowercase()),
            on_error: self.on_guest_error,
            on_change: self.on_guest_change,
        };
        Ok(ConfiguredTable { name, token, guest, shed: self.shed })
    }
}

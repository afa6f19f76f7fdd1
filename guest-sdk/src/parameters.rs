//! The `guest_params` of a table, parsed into a struct when the guest is planned.
//!
//! `#[derive(Parameters)]` implements [`Parameters`]. This module does not know what they mean.

use std::fmt::Display;
use std::str::FromStr;

use crate::Table;

/// The parameters of a guest, from `guest_params` of the table in the gateway's configuration.
///
/// ```
/// # use walgate_guest::prelude::*;
/// #[derive(Parameters)]
/// struct Config {
///     #[parameter(default = "DE")]
///     region: String,
///     limit: Option<u32>,
/// }
///
/// let table = Table::new("users").parameter("limit", "7");
/// let config = Config::parse(&table)?;
/// assert_eq!((config.region.as_str(), config.limit), ("DE", Some(7)));
///
/// let misspelt = Config::parse(&Table::new("users").parameter("regoin", "FR"));
/// assert!(misspelt.is_err());
/// # Ok::<(), String>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made of a guest's parameters",
    note = "add #[derive(Parameters)] to the struct"
)]
pub trait Parameters: Sized + 'static {
    /// Parses [`Table::parameters`].
    ///
    /// # Errors
    /// If a parameter is unknown, missing or malformed. The gateway then refuses the guest.
    fn parse(table: &Table) -> Result<Self, String>;
}

/// A guest without parameters.
impl Parameters for () {
    fn parse(table: &Table) -> Result<(), String> {
        refuse_others(table, &[])
    }
}

/// Parses the parameter of a field.
#[doc(hidden)]
pub fn required<T: FromStr<Err: Display>>(table: &Table, name: &str) -> Result<T, String> {
    optional(table, name)?
        .ok_or_else(|| format!("the guest needs the parameter {name}: set it in guest_params"))
}

/// Parses the parameter of a field of type `Option`.
#[doc(hidden)]
pub fn optional<T: FromStr<Err: Display>>(table: &Table, name: &str) -> Result<Option<T>, String> {
    let Some((_, value)) = table.parameters.iter().find(|(key, _)| key == name) else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|error| format!("the parameter {name} = {value:?}: {error}"))
}

/// Refuses parameters that the guest does not have: a misspelt one must not count as omitted.
#[doc(hidden)]
pub fn refuse_others(table: &Table, known: &[&str]) -> Result<(), String> {
    let unknown = table.parameters.iter().find(|(key, _)| !known.contains(&key.as_str()));
    match unknown {
        None => Ok(()),
        Some((key, _)) if known.is_empty() => {
            Err(format!("the guest takes no parameters, and guest_params has {key}"))
        }
        Some((key, _)) => {
            Err(format!("the guest has no parameter {key}; it takes {}", known.join(", ")))
        }
    }
}

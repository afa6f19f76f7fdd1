//! `guest_params` of a table, read into a struct when the guest is told its table. `#[derive(Parameters)]`
//! implements [`Parameters`] for one.

use std::fmt::Display;
use std::str::FromStr;

use crate::Table;

/// What a guest is configured with.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made of a guest's parameters",
    note = "add #[derive(Parameters)] to the struct"
)]
pub trait Parameters: Sized + 'static {
    /// `Err` names the parameter and what is wrong with it; the guest is then refused.
    fn parse(table: &Table) -> Result<Self, String>;
}

/// Of a guest that takes none.
impl Parameters for () {
    fn parse(table: &Table) -> Result<(), String> {
        refuse_others(table, &[])
    }
}

/// What one field of the struct may be: anything with `FromStr`, or an `Option` of it.
#[doc(hidden)]
pub fn required<T: FromStr<Err: Display>>(table: &Table, name: &str) -> Result<T, String> {
    optional(table, name)?
        .ok_or_else(|| format!("the guest needs the parameter {name}: set it in guest_params"))
}

#[doc(hidden)]
pub fn optional<T: FromStr<Err: Display>>(table: &Table, name: &str) -> Result<Option<T>, String> {
    let Some((_, value)) = table.parameters.iter().find(|(key, _)| key == name) else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|error| format!("the parameter {name} = {value:?}: {error}"))
}

/// A misspelt parameter must not pass for one that is left out.
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

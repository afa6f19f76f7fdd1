//! The table for which a guest is planned. The gateway describes it; tests build it by hand.
//!
//! This module does not know what the guest reads or writes.

use crate::Kind;

/// A table, as the guest receives it before its first batch.
///
/// ```
/// use walgate_guest::Table;
///
/// let table = Table::new("public.users")
///     .key("id", "bigint")
///     .column("email", "text")
///     .nullable("country", "character(2)")
///     .parameter("region", "DE");
/// assert_eq!(table.find("email").unwrap().type_name, "text");
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Table {
    /// The name as in SQL: `public.users`.
    pub name: String,
    /// The columns, in the table's order.
    pub columns: Vec<Column>,
    /// Whether Postgres logs the whole old row of updates and deletes (REPLICA IDENTITY FULL).
    pub old_rows: bool,
    /// The table's `guest_params` in the gateway's configuration, as names and values.
    pub parameters: Vec<(String, String)>,
}

/// A column of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// The column's name, unquoted.
    pub name: String,
    /// The type as Postgres' `format_type` prints it: `numeric(10,2)`.
    ///
    /// For a domain over a type that a guest can write, it is that type.
    pub type_name: String,
    /// How the guest receives the column's values.
    pub kind: Kind,
    /// Whether the column can be NULL.
    pub nullable: bool,
    /// Whether the column is part of the key.
    pub key: bool,
}

impl Table {
    /// A table without columns. `name` is as in SQL.
    pub fn new(name: impl Into<String>) -> Self {
        Table { name: name.into(), ..Table::default() }
    }

    /// Adds a column of the key, which is NOT NULL.
    #[must_use]
    pub fn key(self, name: &str, type_name: &str) -> Self {
        self.add_column(name, type_name, false, true)
    }

    /// Adds a column that is NOT NULL.
    #[must_use]
    pub fn column(self, name: &str, type_name: &str) -> Self {
        self.add_column(name, type_name, false, false)
    }

    /// Adds a column that can be NULL.
    #[must_use]
    pub fn nullable(self, name: &str, type_name: &str) -> Self {
        self.add_column(name, type_name, true, false)
    }

    /// Adds a column whose kind does not follow from the name of its type, such as a composite.
    #[must_use]
    pub fn with_column(mut self, column: Column) -> Self {
        self.columns.push(column);
        self
    }

    /// Sets REPLICA IDENTITY FULL.
    #[must_use]
    pub fn old_rows(mut self) -> Self {
        self.old_rows = true;
        self
    }

    /// Adds a parameter, as `guest_params` does.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The column of this name.
    pub fn find(&self, column: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == column)
    }

    fn add_column(self, name: &str, type_name: &str, nullable: bool, key: bool) -> Self {
        let kind = Kind::of_type(type_name);
        let name = name.to_owned();
        self.with_column(Column { name, type_name: type_name.into(), kind, nullable, key })
    }

    /// For messages: `the table public.users has id, email, country`.
    pub(crate) fn list_columns(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        format!("the table {} has {}", self.name, names.join(", "))
    }
}

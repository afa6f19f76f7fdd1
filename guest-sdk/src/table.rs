//! The table that a guest is told of before it plans. Built by the host; by hand in tests.

use crate::Kind;

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Table {
    /// As written in SQL: `public.users`.
    pub name: String,
    pub columns: Vec<Column>,
    /// Whether updates and deletes come with the whole old row (REPLICA IDENTITY FULL).
    pub old_rows: bool,
    /// `guest_params` of the table in the gateway's configuration.
    pub parameters: Vec<(String, String)>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    pub name: String,
    /// As Postgres' `format_type` prints it: `numeric(10,2)`; of a domain what it is made of.
    pub type_name: String,
    pub kind: Kind,
    pub nullable: bool,
    pub key: bool,
}

impl Table {
    pub fn new(name: impl Into<String>) -> Self {
        Table { name: name.into(), ..Table::default() }
    }

    /// With a key column.
    #[must_use]
    pub fn key(self, name: &str, type_name: &str) -> Self {
        self.with(name, type_name, false, true)
    }

    /// With a column that is NOT NULL.
    #[must_use]
    pub fn column(self, name: &str, type_name: &str) -> Self {
        self.with(name, type_name, false, false)
    }

    /// With a column that may be NULL.
    #[must_use]
    pub fn nullable(self, name: &str, type_name: &str) -> Self {
        self.with(name, type_name, true, false)
    }

    /// With a column whose kind does not follow from the name of its type: a composite.
    #[must_use]
    pub fn column_of(mut self, column: Column) -> Self {
        self.columns.push(column);
        self
    }

    /// With REPLICA IDENTITY FULL.
    #[must_use]
    pub fn old_rows(mut self) -> Self {
        self.old_rows = true;
        self
    }

    #[must_use]
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    pub fn find(&self, column: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == column)
    }

    fn with(self, name: &str, type_name: &str, nullable: bool, key: bool) -> Self {
        let (name, kind) = (name.to_owned(), Kind::of_type(type_name));
        self.column_of(Column { name, type_name: type_name.into(), kind, nullable, key })
    }

    /// For messages: `the table public.users has id, email, country`.
    pub(crate) fn listing(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        format!("the table {} has {}", self.name, names.join(", "))
    }
}

//! Quotes names and strings for SQL. Nothing else in the gateway quotes.

use walgate_wire::TableName;

/// A quoted identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal, correct even if `standard_conforming_strings` is off.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''").replace('\\', "\\\\");
    if text.contains('\\') { format!("E'{escaped}'") } else { format!("'{escaped}'") }
}

/// A quoted table name with its schema.
pub fn table(name: &TableName) -> String {
    format!("{}.{}", identifier(&name.schema), identifier(&name.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_strings_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(table(&TableName::new("My.Schema", "t")), "\"My.Schema\".\"t\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'"), "E'a\\\\'''");
    }
}

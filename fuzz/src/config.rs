//! The configuration file. This module does not know what its settings do.

use std::{collections::BTreeSet, iter};

use walgate_host::config::Config;

/// The password in the corpus. If it occurs once, and in a URL, it must not be printed.
const SECRET: &str = "s3cr3t";

/// An accepted configuration has no two tables with one token. Neither `Debug` nor errors print a
/// password.
pub fn check_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let holds_secret = text.matches(SECRET).count() == 1 && has_secret_in_url(text);
    match Config::read("walgate.toml", text, iter::empty()) {
        Ok(config) => {
            let tokens: BTreeSet<_> = config.tables.iter().map(|table| &table.token).collect();
            assert_eq!(tokens.len(), config.tables.len(), "two tables share a token");
            assert!(!tokens.is_empty());
            config.tables.iter().for_each(|table| crate::names::check_token(&table.token));
            assert!(
                !holds_secret || !format!("{config:?}").contains(SECRET),
                "Debug prints the password"
            );
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty());
            assert!(
                !holds_secret || !message.contains(SECRET),
                "the error prints the password: {message}"
            );
        }
    }
}

fn has_secret_in_url(text: &str) -> bool {
    let line = text.lines().find(|line| line.contains(SECRET)).unwrap_or_default();
    let value = line.trim_start().strip_prefix("url").map(str::trim_start);
    value.is_some_and(|value| value.starts_with('='))
}

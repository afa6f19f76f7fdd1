//! Compares a guest's output with the expected one: line by line, column by column.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value as Json;

/// At most so many differences are listed.
const NAMED_MAX: usize = 20;

/// One JSON value per line.
pub fn read(text: &str) -> Result<Vec<Json>> {
    let parsed = |(index, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("line {}", index + 1))
    };
    text.lines().enumerate().map(parsed).collect()
}

/// One sentence per difference.
pub fn differences(expected: &[Json], seen: &[Json]) -> Vec<String> {
    let mut found = vec![];
    for (index, (expected, seen)) in expected.iter().zip(seen).enumerate() {
        let line = format!("line {}", index + 1);
        if expected["op"] != seen["op"] {
            found.push(format!(
                "{line}: op is {}, expected {}{}",
                seen["op"],
                expected["op"],
                why(seen)
            ));
            continue;
        }
        for part in ["new", "old"] {
            columns(&format!("{line}, {part}"), &expected[part], &seen[part], &mut found);
        }
        for part in ["error", "unchanged"] {
            if expected[part] != seen[part] {
                found
                    .push(format!("{line}: {part} is {}, expected {}", seen[part], expected[part]));
            }
        }
    }
    if expected.len() != seen.len() {
        found.push(format!("{} lines, expected {}", seen.len(), expected.len()));
    }
    found
}

fn why(seen: &Json) -> String {
    seen["error"].as_str().map_or_else(String::new, |error| format!(" ({error})"))
}

fn columns(place: &str, expected: &Json, seen: &Json, found: &mut Vec<String>) {
    let (Json::Object(expected), Json::Object(seen)) = (expected, seen) else {
        if expected != seen {
            found.push(format!("{place} is {seen}, expected {expected}"));
        }
        return;
    };
    let names: BTreeSet<&String> = expected.keys().chain(seen.keys()).collect();
    for name in names {
        match (seen.get(name), expected.get(name)) {
            (Some(seen), Some(expected)) if seen == expected => {}
            (Some(seen), Some(expected)) => {
                found.push(format!("{place}, column {name}: {seen}, expected {expected}"));
            }
            (Some(seen), None) => {
                found.push(format!("{place}, column {name}: {seen}, expected no such column"));
            }
            (None, Some(expected)) => {
                found.push(format!("{place}, column {name}: missing, expected {expected}"));
            }
            (None, None) => {}
        }
    }
}

pub fn print(differences: &[String]) {
    differences.iter().take(NAMED_MAX).for_each(|difference| println!("{difference}"));
    if differences.len() > NAMED_MAX {
        println!("… and {} more", differences.len() - NAMED_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_line_and_column() {
        let expected = read(
            "{\"op\":\"insert\",\"new\":{\"a\":1,\"b\":\"x\"}}\n{\"op\":\"dropped\"}\n{\"op\":\"delete\",\"old\":{\"a\":1}}\n{\"op\":\"dropped\"}",
        );
        let seen = read(
            "{\"op\":\"insert\",\"new\":{\"a\":1,\"b\":\"y\",\"c\":null}}\n{\"op\":\"failed\",\"error\":\"no\"}\n{\"op\":\"delete\",\"old\":{}}",
        );
        let expected = expected.unwrap();
        assert_eq!(
            differences(&expected, &seen.unwrap()),
            [
                "line 1, new, column b: \"y\", expected \"x\"",
                "line 1, new, column c: null, expected no such column",
                "line 2: op is \"failed\", expected \"dropped\" (no)",
                "line 3, old, column a: missing, expected 1",
                "3 lines, expected 4",
            ]
        );
        assert!(differences(&expected, &expected).is_empty());
        assert!(read("{}\nx").unwrap_err().to_string().contains("line 2"));
    }
}

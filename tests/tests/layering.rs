//! Which code must not depend on which, and the habits of the tree that its text can show. Needs
//! no server.
//!
//! Each exception is in this file, with its reason. The order of the gateway's stages is
//! `folder_order`'s business.

use std::{
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const MAIN_LINES_MAX: usize = 120;

/// A source file, by its path from the root.
struct Source {
    path: String,
    text: String,
}

/// `what` may occur in code under `allowed` only.
struct Edge {
    what: &'static [&'static str],
    allowed: &'static [&'static str],
}

/// An allowed path is a file, or everything that begins with it.
const EDGES: &[Edge] = &[
    Edge {
        what: &["tokio_postgres::"],
        allowed: &[
            "host/src/postgres",
            "consumers/",
            "pg-connect/",
            // Clients of Postgres of their own: they compare, train and write as a user's session.
            "cli/src/commands/",
            "demo/",
            "verify/",
            "tests/",
        ],
    },
    Edge { what: &["wasmtime::"], allowed: &["host/src/guest/runtime/", "tests/"] },
    Edge {
        what: &["wasmparser::", "wit_component::", "wit_parser::"],
        allowed: &["host/src/guest/runtime/component", "host/src/guest/tests.rs", "tests/"],
    },
    Edge { what: &["notify::"], allowed: &["host/src/assets/watch"] },
    Edge {
        what: &["async_nats::"],
        allowed: &[
            "host/src/jetstream",
            "consumers/",
            "nats-connect/",
            // Clients of NATS in their own right.
            "cli/src/commands/",
            "demo/",
            "verify/",
            "tests/",
        ],
    },
    Edge { what: &["zstd::", "rmp::", "rmp_serde", "zstd_safe"], allowed: &["wire/"] },
    Edge {
        what: &["std::env", "env::var", "env::args"],
        allowed: &[
            "host/src/config",
            "cli/src/cli",
            "xtask/",
            "fuzz/src/bin/",
            "servers/",
            "tests/",
            "consumers/rust/tests/",
            "consumers/rust/examples/",
        ],
    },
    Edge {
        what: &["rusqlite::"],
        allowed: &["consumers/", "cli/src/commands/", "demo/", "verify/", "tests/"],
    },
];

/// Pure: neither a runtime nor a socket.
const PURE: &[&str] = &[
    "wire/src/",
    "host/src/jetstream/ack_ledger.rs",
    "host/src/postgres/replication/pgoutput",
    "host/src/cdc/epoch.rs",
    "host/src/policy.rs",
    "host/src/rows",
    "host/src/rows.rs",
    "host/src/guest/",
    "host/src/guest.rs",
    "consumers/rust/src/state",
];

/// Dependencies that a package must not have.
const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("wire", &["tokio", "async-nats", "futures", "tokio-postgres", "walgate-host"]),
    ("consumers/rust", &["walgate-host", "walgate-servers"]),
    (
        "host",
        &[
            "walgate-consumer",
            "walgate-verify",
            "clap",
            "comfy-table",
            "crossterm",
            "indicatif",
            "ratatui",
            "rusqlite",
        ],
    ),
    ("pg-connect", &["walgate-host", "walgate-consumer", "walgate-wire", "async-nats"]),
    ("nats-connect", &["walgate-host", "walgate-consumer", "walgate-wire", "tokio-postgres"]),
    ("guest-sdk", &["walgate-host", "walgate-wire", "tokio"]),
    // Downloads are the business of xtask: the shipped binary finds what is installed.
    ("servers", &["walgate-host", "walgate-wire", "tokio", "ureq", "zip"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn sources() -> Vec<Source> {
    let mut found = vec![];
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir()
                && !["target", "node_modules"].contains(&&*name)
                && !name.starts_with('.')
            {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 50, "the tree was not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Lines that are code, with their numbers: comments cannot depend on anything.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let numbered = source.text.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn report(what: &str, problems: Vec<String>) {
    assert!(problems.is_empty(), "{what}:\n  {}", problems.join("\n  "));
}

/// Whether `word` stands in `line` as a path of its own, not as the end of a longer name.
fn mentions(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '"' || c == '.';
    line.match_indices(word).any(|(at, _)| !line[..at].chars().next_back().is_some_and(joins))
}

#[test]
fn nothing_knows_what_it_must_not() {
    let this = "tests/tests/layering.rs";
    let mut problems = vec![];
    for source in sources().iter().filter(|source| source.path != this) {
        for Edge { what, allowed } in EDGES {
            if allowed.iter().any(|prefix| source.path.starts_with(prefix)) {
                continue;
            }
            for (number, line) in code(source) {
                if let Some(word) = what.iter().find(|word| mentions(line, word)) {
                    problems.push(format!(
                        "{}:{number} uses {word}, which only {allowed:?} may",
                        source.path
                    ));
                }
            }
        }
    }
    report("edges that must not exist", problems);
}

#[test]
fn pure_modules_have_no_runtime() {
    let mut problems = vec![];
    for source in sources().iter().filter(|s| PURE.iter().any(|pure| s.path.starts_with(pure))) {
        for (number, line) in code(source) {
            if ["tokio", "async ", ".await", "std::net", "std::fs"]
                .iter()
                .any(|word| mentions(line, word))
            {
                problems.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report("decisions are pure and synchronous", problems);
}

#[test]
fn packages_do_not_depend_on_what_they_must_not() {
    let mut problems = vec![];
    for (package, forbidden) in FORBIDDEN_DEPENDENCIES {
        let Ok(manifest) = fs::read_to_string(root().join(package).join("Cargo.toml")) else {
            continue;
        };
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in dependencies.lines() {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if forbidden.contains(&name) {
                problems.push(format!("{package}/Cargo.toml depends on {name}"));
            }
        }
    }
    report("dependencies that must not exist", problems);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = |source: &&Source| {
        let first = source.text.lines().next().unwrap_or_default();
        !first.starts_with("//!") || first.len() < 15 || first.contains("being written")
    };
    let problems = sources().iter().filter(silent).map(|source| source.path.clone()).collect();
    report("the first line of a file begins with //! and says what the file is for", problems);
}

#[test]
fn files_and_functions_are_short() {
    let mut problems = vec![];
    for source in &sources() {
        let lines = source.text.lines().count();
        let max =
            if source.path.ends_with("src/main.rs") { MAIN_LINES_MAX } else { FILE_LINES_MAX };
        if lines > max {
            problems.push(format!("{} has {lines} lines, at most {max}", source.path));
        }
        problems.extend(long_functions(source));
    }
    report("files and functions are short", problems);
}

/// Found by rustfmt's indentation: a function ends at the first `}` in its own column.
fn long_functions(source: &Source) -> Vec<String> {
    let mut open: Option<(usize, usize)> = None;
    let mut problems = vec![];
    for (number, line) in code(source) {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let declares = trimmed.split("fn ").next().is_some_and(|before| {
            trimmed.contains("fn ")
                && before.split_whitespace().all(|word| {
                    matches!(word, "pub" | "async" | "const" | "pub(crate)" | "pub(super)")
                })
        });
        if declares {
            open = Some((number, indent));
        } else if let Some((start, column)) = open
            && trimmed.starts_with('}')
            && indent == column
        {
            let lines = number + 1 - start;
            if lines > FUNCTION_LINES_MAX {
                problems.push(format!(
                    "{}:{start} has {lines} lines, at most {FUNCTION_LINES_MAX}",
                    source.path
                ));
            }
            open = None;
        }
    }
    problems
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let empty = ["utils", "util", "common", "helpers", "helper", "manager", "types", "misc"];
    let named = |source: &&Source| {
        let parts: Vec<_> = source.path.trim_end_matches(".rs").split('/').collect();
        parts.iter().any(|part| empty.contains(part))
    };
    let problems = sources().iter().filter(named).map(|source| source.path.clone()).collect();
    report("modules are named after what they are about", problems);
}

#[test]
fn every_exception_to_a_lint_has_its_reason() {
    let mut problems = vec![];
    for source in &sources() {
        let lines: Vec<_> = source.text.lines().collect();
        for (number, line) in code(source) {
            let allows = ["#[allow(", "#![allow(", "#[expect("].iter().any(|a| line.contains(a));
            // In place, or in a multi-line attribute.
            let near = &lines[number - 1..lines.len().min(number + 7)];
            let end = near.iter().position(|line| line.contains(")]")).unwrap_or(0);
            let says_why =
                near[..=end].iter().any(|line| line.contains("reason =") || line.contains("//"));
            let said_before = number > 1 && lines[number - 2].trim_start().starts_with("//");
            if allows && !says_why && !said_before && source.path != "tests/tests/layering.rs" {
                problems.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report("an allow( has its reason beside it", problems);
}

//! The folders of the gateway are stages, and a stage imports only from those before it. Needs no
//! server.
//!
//! What a stage may use of other crates is the layering test's business.

use std::collections::BTreeSet;

use walgate_tests::source_tree::{SourceFile, read_source_files};

const ROOT: &str = "host/src/";

/// The folders and single files of `host/src`. Each imports from those before it, never from a
/// later one.
const STAGES: &[&str] = &[
    "clock",
    "config",
    "rows",
    "postgres",
    "encode",
    "guest",
    "egress",
    "wal_budget",
    "tables",
    "observe",
    "jetstream",
    "error",
    "policy",
    "context",
    "pipeline_io",
    "schema_registry",
    "assets",
    "snapshot",
    "cdc",
    "supervisor",
];

fn stage_of(path: &str) -> Option<&str> {
    let stage = path.strip_prefix(ROOT)?.split('/').next()?;
    Some(stage.strip_suffix(".rs").unwrap_or(stage)).filter(|stage| *stage != "lib")
}

/// The text before the file's inline tests. Test files may import from any stage.
fn production_text(file: &SourceFile) -> &str {
    let is_test = file.path.ends_with("tests.rs")
        || file.path.ends_with("test_support.rs")
        || file.path.ends_with("guest/programs.rs");
    if is_test { "" } else { file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default() }
}

/// The stages that follow `crate::`, also inside a braced list.
fn imported_stages(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (at, path) in text.match_indices("crate::") {
        let rest = &text[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_names(list)),
            None => found.extend(first_name(rest)),
        }
    }
    found
}

fn first_name(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    Some(&text[..end]).filter(|name| !name.is_empty())
}

/// The first name of each item of a braced list, of which the opening brace is read.
fn first_names(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut names = vec![];
    let mut item = 0;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.extend(first_name(list[item..at].trim_start()));
                return names;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(first_name(list[item..at].trim_start()));
                item = at + 1;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn a_stage_imports_only_from_earlier_stages() {
    let files = read_source_files();
    let mut problems = vec![];
    for file in &files {
        let Some(stage) = stage_of(&file.path) else { continue };
        let Some(order) = STAGES.iter().position(|known| *known == stage) else {
            problems.push(format!("{}: no stage in STAGES", file.path));
            continue;
        };
        for imported in imported_stages(production_text(file)) {
            let later = STAGES.iter().position(|known| *known == imported);
            if later.is_some_and(|later| later > order) {
                problems.push(format!("{} imports the later stage {imported}", file.path));
            }
        }
    }
    assert!(problems.is_empty(), "the order of stages:\n  {}", problems.join("\n  "));
}

#[test]
fn every_stage_exists() {
    let files = read_source_files();
    let existing: BTreeSet<&str> = files.iter().filter_map(|file| stage_of(&file.path)).collect();
    let named: BTreeSet<&str> = STAGES.iter().copied().collect();
    assert_eq!(named, existing);
}

#[test]
fn imports_are_found() {
    let text = "use crate::{\n    config::{Config, Table},\n    egress::outlet::Gate,\n    rows,\n};\n\
                fn f() { crate::policy::action(); }";
    let expected = BTreeSet::from(["config", "egress", "rows", "policy"]);
    assert_eq!(imported_stages(text), expected);
}

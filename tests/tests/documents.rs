//! Rules for the documents: the README is one page, the example of consuming is the compiled one,
//! and pages for developers name existing files. Needs no server. This file does not know whether
//! the commands of a page work.

use std::{
    fs,
    path::{Path, PathBuf},
};

use walgate_tests::configuration_page::{PAGE, render_page};

const README_WORDS_MAX: usize = 900;
const README_COLUMNS_MAX: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

#[test]
fn the_readme_is_one_page() {
    let text = read("README.md");
    let words = text.split_whitespace().count();
    assert!(words <= README_WORDS_MAX, "README.md has {words} words, at most {README_WORDS_MAX}");
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.chars().count()));
    let wide: Vec<_> = numbered.filter(|(_, columns)| *columns > README_COLUMNS_MAX).collect();
    assert!(wide.is_empty(), "lines of README.md above {README_COLUMNS_MAX} columns: {wide:?}");
}

/// Every key with its true default. The remedy for a difference is `cargo xtask docs`.
#[test]
fn the_configuration_page_is_generated_from_the_code() {
    let page = read(PAGE);
    let rendered = render_page();
    for (index, (written, expected)) in page.lines().zip(rendered.lines()).enumerate() {
        assert_eq!(written, expected, "{PAGE}:{}: run cargo xtask docs", index + 1);
    }
    assert_eq!(page.len(), rendered.len(), "{PAGE}: run cargo xtask docs");
}

#[test]
fn the_rust_block_of_consuming_is_the_compiled_example() {
    let page = read("docs/CONSUMING.md");
    let block = page.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(block, Some(&*read("consumers/rust/examples/sqlite.rs")));
}

#[test]
fn source_files_that_pages_name_exist() {
    let sources = source_files();
    let mut missing = vec![];
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        for (index, line) in read(page).lines().enumerate() {
            for path in named_sources(line) {
                // A page may omit the crate that its section is about.
                let ending = format!("/{path}");
                if !sources.iter().any(|source| *source == path || source.ends_with(&ending)) {
                    missing.push(format!("{page}:{}: {path}", index + 1));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no such files:\n  {}", missing.join("\n  "));
}

/// The words of a line that end with `.rs`, except for patterns.
fn named_sources(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |c: char| c.is_alphanumeric() || "_-./*<>{}".contains(c);
    let words = line.split(move |c: char| !is_path(c)).map(|word| word.trim_end_matches('.'));
    let is_file = |word: &&str| word.ends_with(".rs") && !word.starts_with("//");
    words.filter(is_file).filter(|word| !word.contains(['*', '<', '{']))
}

/// Paths relative to the workspace.
fn source_files() -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || ["target", "node_modules"].contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") {
                found
                    .push(path.strip_prefix(root()).expect("below the root").display().to_string());
            }
        }
    }
    found
}

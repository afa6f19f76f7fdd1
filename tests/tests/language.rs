//! How comments and type names of the workspace are written: width, length of sentences, words, and
//! names that two types share. Reads text only and needs no server.

use std::collections::BTreeMap;

use walgate_tests::source_tree::{SourceFile, read_source_files, workspace_root};

const COMMENT_COLUMNS_MAX: usize = 100;
const SENTENCE_WORDS_MAX: usize = 25;

/// Words that hide the actor, or are not the field's own.
const DIALECT: &[&str] = &[
    "told",
    "tells",
    "says",
    "said",
    "somebody",
    "whoever",
    "nobody",
    "anew",
    "whom",
    "by now",
    "goes on",
    "go on",
    "mended",
    "mends",
    "what leaves",
];

/// Type names that two modules of one crate may share: crate, name, reason.
const SHARED_TYPE_NAMES: &[(&str, &str, &str)] =
    &[("cli", "Args", "the arguments of one command, which clap and callers reach by its module")];

/// Files that do not follow the rules yet, by the beginning of their paths.
const PENDING: &[&str] = &[];

/// Consecutive comment lines of one kind and indentation, up to a blank line or a list item.
struct Paragraph {
    /// Of its first line, counted from 1.
    line: usize,
    text: String,
}

fn checked_files() -> Vec<SourceFile> {
    let is_checked = |file: &SourceFile| !PENDING.iter().any(|path| file.path.starts_with(path));
    read_source_files().into_iter().filter(is_checked).collect()
}

fn assert_none(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}

/// The prose of all comments; without tables, code blocks and link targets.
fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut found = vec![];
    let mut open: Option<Paragraph> = None;
    let mut kind = "";
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        let Some((marker, comment)) = split_comment(line) else {
            found.extend(open.take());
            (kind, is_code) = ("", false);
            continue;
        };
        if marker != kind {
            found.extend(open.take());
            (kind, is_code) = (marker, false);
        }
        let is_fence = comment.starts_with("```");
        let is_prose = !is_fence && !is_code && !is_unchecked(comment);
        is_code ^= is_fence;
        if !is_prose || starts_item(comment) {
            found.extend(open.take());
        }
        if is_prose {
            let paragraph =
                open.get_or_insert_with(|| Paragraph { line: index + 1, text: String::new() });
            paragraph.text += comment;
            paragraph.text.push(' ');
        }
    }
    found.extend(open);
    found
}

/// The marker of a comment line with its indentation, and the comment.
fn split_comment(line: &str) -> Option<(&str, &str)> {
    let code = line.trim_start();
    let rest = code.strip_prefix("//")?;
    let rest = rest.strip_prefix(['/', '!']).unwrap_or(rest);
    Some((&line[..line.len() - rest.len()], rest.trim()))
}

/// Empty, a row of a table, or the target of a link.
fn is_unchecked(comment: &str) -> bool {
    comment.is_empty()
        || comment.starts_with('|')
        || (comment.starts_with('[') && comment.contains("]: "))
}

fn starts_item(comment: &str) -> bool {
    let is_numbered = || {
        let digits = comment.trim_start_matches(|c: char| c.is_ascii_digit());
        digits.len() < comment.len() && digits.starts_with(". ")
    };
    ["- ", "* ", "# ", "## "].iter().any(|mark| comment.starts_with(mark)) || is_numbered()
}

/// Splits behind punctuation that a space follows.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = vec![];
    let mut start = 0;
    for (at, _) in text.match_indices(' ') {
        let before = text[..at].trim_end_matches([')', '"', '\'', '*', '`']);
        if before.ends_with(['.', ';', ':', '!', '?']) {
            found.push(&text[start..at]);
            start = at;
        }
    }
    found.push(&text[start..]);
    found
}

fn count_words(sentence: &str) -> usize {
    sentence.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count()
}

/// Whether `phrase` occurs in `text` as whole words, in any case.
fn contains_phrase(text: &str, phrase: &str) -> bool {
    let text = text.to_lowercase();
    text.match_indices(phrase).any(|(at, _)| {
        let is_joined = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let end = at + phrase.len();
        !is_joined(text[..at].chars().next_back()) && !is_joined(text[end..].chars().next())
    })
}

#[test]
fn comments_are_at_most_a_hundred_columns_wide() {
    let mut problems = vec![];
    for SourceFile { path, text } in &checked_files() {
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COMMENT_COLUMNS_MAX && split_comment(line).is_some() {
                problems.push(format!("{path}:{}: {columns} columns", index + 1));
            }
        }
    }
    assert_none("a comment has at most 100 columns", &problems);
}

#[test]
fn sentences_of_comments_are_short() {
    let mut problems = vec![];
    for SourceFile { path, text } in &checked_files() {
        for Paragraph { line, text } in paragraphs(text) {
            for sentence in sentences(&text) {
                let words = count_words(sentence);
                if words > SENTENCE_WORDS_MAX {
                    problems.push(format!("{path}:{line}: {words} words:{sentence}"));
                }
            }
        }
    }
    assert_none("a sentence has at most 25 words", &problems);
}

#[test]
fn comments_use_words_of_the_field() {
    let mut problems = vec![];
    let this = "tests/tests/language.rs";
    for SourceFile { path, text } in checked_files().iter().filter(|file| file.path != this) {
        for Paragraph { line, text } in paragraphs(text) {
            for word in DIALECT.iter().filter(|word| contains_phrase(&text, word)) {
                problems.push(format!("{path}:{line}: \"{word}\""));
            }
        }
    }
    assert_none("a comment names the actor, in the words of the field", &problems);
}

#[test]
fn type_names_are_unique_in_a_crate() {
    let files = checked_files();
    let mut declared: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for file in &files {
        for name in file.text.lines().filter_map(declared_type) {
            declared.entry((crate_of(&file.path), name)).or_default().push(&file.path);
        }
    }
    declared.retain(|_, paths| paths.len() > 1);
    let mut problems = vec![];
    for ((of, name), paths) in &declared {
        if !SHARED_TYPE_NAMES.iter().any(|(a, b, _)| (*a, *b) == (of, *name)) {
            problems.push(format!("{of}: {name} in {}", paths.join(" and ")));
        }
    }
    for (of, name, _) in SHARED_TYPE_NAMES {
        if !declared.contains_key(&((*of).to_owned(), *name)) {
            problems.push(format!("{of}: {name} is an exception without need"));
        }
    }
    assert_none("no two public types of a crate share a name", &problems);
}

/// The name of the type that a line declares for other modules.
fn declared_type(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) "))?;
    let line = line.strip_prefix("unsafe ").unwrap_or(line);
    let kinds = ["struct ", "enum ", "union ", "trait ", "type "];
    let name = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    Some(&name[..end])
}

/// The folder of a file's package, with the target if that is a crate of its own.
fn crate_of(path: &str) -> String {
    let root = workspace_root();
    let parts: Vec<&str> = path.split('/').collect();
    let is_package =
        |depth: &usize| root.join(parts[..*depth].join("/")).join("Cargo.toml").exists();
    let depth = (1..parts.len()).rev().find(is_package).unwrap_or(0);
    let target = match &parts[depth..] {
        ["src", "bin", _, ..] => 3,
        ["tests" | "benches" | "examples", _, ..] => 2,
        _ => 0,
    };
    parts[..depth + target].join("/").trim_end_matches(".rs").to_owned()
}

#[test]
fn prose_is_found_in_comments() {
    let text = [
        "//! One",
        "//! sentence. Another: `a`!",
        "//!",
        "//! - item one",
        "//!   continued",
        "//! - item two",
        "//! | a | table |",
        "//! ```",
        "//! code",
        "//! ```",
        "//! after",
        "fn f() { // trailing",
        "    /// doc",
        "    // plain",
        "}",
    ]
    .join("\n");
    let found: Vec<_> = paragraphs(&text).into_iter().map(|p| (p.line, p.text)).collect();
    let expected = [
        (1, "One sentence. Another: `a`! "),
        (4, "- item one continued "),
        (6, "- item two "),
        (11, "after "),
        (13, "doc "),
        (14, "plain "),
    ];
    assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
    assert_eq!(sentences("One (a.) b. Two: c"), ["One (a.)", " b.", " Two:", " c"]);
    assert_eq!(count_words("one — `two` |"), 2);
    assert!(contains_phrase("By now it is", "by now") && !contains_phrase("untold", "told"));
    assert_eq!(declared_type("    pub(crate) struct Name<'a> {"), Some("Name"));
    assert_eq!(declared_type("type Private = u8;"), None);
    assert_eq!(crate_of("tests/src/bin/chaos/run.rs"), "tests/src/bin/chaos");
    assert_eq!(crate_of("tests/tests/e2e/main.rs"), "tests/tests/e2e");
    assert_eq!(crate_of("wire/src/names.rs"), "wire");
}

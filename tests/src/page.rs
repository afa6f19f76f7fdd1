//! A page of the documentation as a list of steps: its fenced blocks, each with its language and
//! the file that the line before it names. This file does not know how a step is executed.

use std::fmt;

/// One fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence, from 1.
    pub line: usize,
    pub kind: Kind,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Executed by bash.
    Sh,
    /// Executed by psql as a superuser.
    Sql,
    /// The contents of a file.
    Toml { file: String },
    /// The source file of a guest.
    Rust { file: String },
    /// To be read only.
    Text,
}

/// Why a page cannot be executed.
#[derive(Debug, PartialEq, Eq)]
pub struct PageError {
    line: usize,
    problem: String,
}

/// All blocks of a page, in their order.
pub fn parse_blocks(page: &str) -> Result<Vec<Block>, PageError> {
    let mut blocks = vec![];
    let mut open: Option<OpenBlock> = None;
    let mut paragraph_end = "";
    for (index, line) in page.lines().enumerate() {
        let trimmed = line.trim();
        match &mut open {
            None => match trimmed.strip_prefix("```") {
                None if trimmed.is_empty() => {}
                None => paragraph_end = trimmed,
                Some(language) => {
                    let line_number = index + 1;
                    let kind = kind_of(language, paragraph_end)
                        .map_err(|problem| PageError { line: line_number, problem })?;
                    let indent = line.len() - line.trim_start().len();
                    open = Some(OpenBlock { line: line_number, kind, indent, lines: vec![] });
                }
            },
            Some(block) if trimmed != "```" => {
                let cut = block.indent.min(line.len() - line.trim_start().len());
                block.lines.push(&line[cut..]);
            }
            Some(_) => {
                blocks.extend(open.take().map(OpenBlock::close));
                // A file is named directly before its block.
                paragraph_end = "";
            }
        }
    }
    match open {
        None => Ok(blocks),
        Some(block) => {
            Err(PageError { line: block.line, problem: "the block has no end".to_owned() })
        }
    }
}

struct OpenBlock<'a> {
    line: usize,
    kind: Kind,
    /// The indentation of the fence, inside a list.
    indent: usize,
    lines: Vec<&'a str>,
}

impl OpenBlock<'_> {
    fn close(self) -> Block {
        let text = self.lines.iter().map(|line| format!("{line}\n")).collect();
        Block { line: self.line, kind: self.kind, text }
    }
}

fn kind_of(language: &str, paragraph_end: &str) -> Result<Kind, String> {
    let file = || {
        let name = paragraph_end.strip_suffix("`:").and_then(|line| line.rsplit('`').next());
        let name = name.filter(|name| !name.is_empty() && !name.starts_with('/'));
        let problem = || {
            format!(
                "the paragraph before a block of {language} has to end with the file's name: `file`:"
            )
        };
        name.map(str::to_owned).ok_or_else(problem)
    };
    match language {
        "sh" => Ok(Kind::Sh),
        "sql" => Ok(Kind::Sql),
        "toml" => Ok(Kind::Toml { file: file()? }),
        "rust" => Ok(Kind::Rust { file: file()? }),
        "text" => Ok(Kind::Text),
        other => Err(format!(
            "a block of '{other}' cannot be executed; use sh, sql, toml, rust, or text for what is only to be read"
        )),
    }
}

/// Every Postgres URL in executed blocks, once.
pub fn postgres_urls(blocks: &[Block]) -> Vec<String> {
    let executed = blocks.iter().filter(|block| block.kind != Kind::Text);
    let mut urls: Vec<String> = executed
        .flat_map(|block| block.text.split(|c: char| c.is_whitespace() || c == '"' || c == '\''))
        .filter(|word| word.starts_with("postgres://") || word.starts_with("postgresql://"))
        .map(str::to_owned)
        .collect();
    urls.sort();
    urls.dedup();
    urls
}

/// Commands that begin with these words, in blocks of any kind, with their arguments but without
/// comments.
pub fn commands<'a>(blocks: &'a [Block], words: &[&str]) -> Vec<Vec<&'a str>> {
    let shell = blocks.iter().filter(|block| matches!(block.kind, Kind::Sh | Kind::Text));
    let lines = shell.flat_map(|block| block.text.lines());
    let parts = lines.flat_map(|line| line.split(" # ").next().unwrap_or_default().split("&&"));
    let command = |part: &'a str| part.split_whitespace().collect::<Vec<_>>();
    parts.map(command).filter(|command| command.starts_with(words)).collect()
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(line: usize, kind: Kind, text: &str) -> Block {
        Block { line, kind, text: text.to_owned() }
    }

    #[test]
    fn blocks_are_found_with_their_files() {
        let page = "\
            # A page\n\nWrite `walgate.toml`:\n\n```toml\n[postgres]\n  url = 1\n```\n- Then:\n\n  ```sh\n  run &\n    more\n  ```\n\
            ```sql\nselect 1;\n```\n```text\nany\n```\n";
        let toml = Kind::Toml { file: "walgate.toml".to_owned() };
        let expected = [
            block(5, toml, "[postgres]\n  url = 1\n"),
            block(11, Kind::Sh, "run &\n  more\n"),
            block(15, Kind::Sql, "select 1;\n"),
            block(18, Kind::Text, "any\n"),
        ];
        assert_eq!(parse_blocks(page).unwrap(), expected);
    }

    #[test]
    fn blocks_that_cannot_be_executed_are_refused() {
        let problem = |page: &str| parse_blocks(page).unwrap_err().to_string();
        assert!(problem("```\nx\n```\n").contains("line 1: a block of ''"));
        assert!(problem("\n```python\nx\n```\n").contains("line 2: a block of 'python'"));
        assert!(problem("A file:\n```toml\nx\n```\n").contains("file's name"));
        assert!(problem("`/etc/x`:\n```toml\nx\n```\n").contains("file's name"));
        assert!(problem("`a`:\n```toml\nx\n```\n```toml\ny\n```\n").contains("line 5"));
        assert!(problem("```sh\nx\n").contains("no end"));
    }

    #[test]
    fn commands_and_urls_are_found() {
        let page = "```text\ncargo xtask demo    # all of it\nwalgate guest new users && cd users\n```\n\
            ```sh\nwalgate verify --source postgres://a@h:1/d --x 'postgres://a@h:1/d'\n```\n";
        let blocks = parse_blocks(page).unwrap();
        assert_eq!(commands(&blocks, &["cargo", "xtask"]), [["cargo", "xtask", "demo"]]);
        assert_eq!(
            commands(&blocks, &["walgate", "guest"]),
            [["walgate", "guest", "new", "users"]]
        );
        assert_eq!(postgres_urls(&blocks), ["postgres://a@h:1/d"]);
    }
}

//! Parses the texts that Postgres prints for arrays, composites, hstore and vectors.

use super::shape::Type;

/// A nested value; its leaves are texts as Postgres prints them.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Null,
    Leaf(Type, String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

pub fn parse_tree(ty: &Type, text: &str) -> Tree {
    match ty {
        Type::Array(element) => {
            // Lower bounds other than 1 are not published.
            let literal =
                if text.starts_with('[') { text.split_once('=').expect("bounds").1 } else { text };
            Cursor { rest: literal }.read_array(element)
        }
        Type::Composite(fields) => Cursor { rest: text }.read_composite(fields),
        Type::Hstore => Cursor { rest: text }.read_hstore(),
        Type::Vector => {
            let items = text.trim_matches(['[', ']']).split(',');
            Tree::List(items.map(|item| Tree::Leaf(Type::Float4, item.to_owned())).collect())
        }
        leaf => Tree::Leaf(leaf.clone(), text.to_owned()),
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> char {
        let next = self.peek().unwrap_or_else(|| panic!("the value ends too early"));
        self.rest = &self.rest[next.len_utf8()..];
        next
    }

    fn read_array(&mut self, element: &Type) -> Tree {
        assert_eq!(self.next(), '{', "before {:?}", self.rest);
        let mut items = vec![];
        while self.peek() != Some('}') {
            if self.peek() == Some('{') {
                items.push(self.read_array(element));
            } else {
                let (text, quoted) = self.read_word(&[',', '}']);
                items.push(if !quoted && text == "NULL" {
                    Tree::Null
                } else {
                    parse_tree(element, &text)
                });
            }
            if self.peek() == Some(',') {
                self.next();
            }
        }
        self.next();
        Tree::List(items)
    }

    fn read_composite(&mut self, fields: &[(String, Type)]) -> Tree {
        assert_eq!(self.next(), '(', "before {:?}", self.rest);
        let mut pairs = vec![];
        for (name, ty) in fields {
            let (text, quoted) = self.read_word(&[',', ')']);
            let value = if !quoted && text.is_empty() { Tree::Null } else { parse_tree(ty, &text) };
            pairs.push((name.clone(), value));
            self.next();
        }
        Tree::Map(pairs)
    }

    fn read_hstore(&mut self) -> Tree {
        let mut pairs = vec![];
        while self.peek().is_some() {
            let (key, _) = self.read_word(&['=']);
            assert_eq!((self.next(), self.next()), ('=', '>'));
            let (value, quoted) = self.read_word(&[',']);
            let value =
                if !quoted && value == "NULL" { Tree::Null } else { Tree::Leaf(Type::Text, value) };
            pairs.push((key, value));
            while matches!(self.peek(), Some(',' | ' ')) {
                self.next();
            }
        }
        Tree::Map(pairs)
    }

    /// Reads up to one of `ends`, which is not consumed. Also returns whether any part was quoted.
    /// Quotes are doubled or escaped.
    fn read_word(&mut self, ends: &[char]) -> (String, bool) {
        let mut text = String::new();
        let mut inside = false;
        let mut quoted = false;
        while let Some(next) = self.peek() {
            if !inside && ends.contains(&next) {
                break;
            }
            self.next();
            match next {
                '\\' => text.push(self.next()),
                '"' if inside && self.peek() == Some('"') => text.push(self.next()),
                '"' => (inside, quoted) = (!inside, true),
                other => text.push(other),
            }
        }
        (text, quoted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(text: &str) -> Tree {
        Tree::Leaf(Type::Text, text.to_owned())
    }

    #[test]
    fn nested_literals_are_read() {
        let texts = Type::Array(Box::new(Type::Text));
        let list = |items: Vec<Tree>| Tree::List(items);
        assert_eq!(parse_tree(&texts, "{}"), list(vec![]));
        assert_eq!(
            parse_tree(&texts, r#"{"",NULL,"null","a,b","q\"\\",é}"#),
            list(vec![leaf(""), Tree::Null, leaf("null"), leaf("a,b"), leaf("q\"\\"), leaf("é")])
        );
        assert_eq!(
            parse_tree(&texts, "[5:6]={{a},{b}}"),
            list(vec![list(vec![leaf("a")]), list(vec![leaf("b")])])
        );
        let address = Type::Composite(vec![("street".into(), Type::Text), ("tags".into(), texts)]);
        let expected = Tree::Map(vec![
            ("street".into(), leaf("a, \"b\"")),
            ("tags".into(), list(vec![leaf("x y"), leaf("z")])),
        ]);
        assert_eq!(parse_tree(&address, r#"("a, ""b""","{""x y"",z}")"#), expected);
        let pairs = vec![("a b".into(), leaf("1")), ("c".into(), Tree::Null)];
        assert_eq!(parse_tree(&Type::Hstore, r#""a b"=>"1", "c"=>NULL"#), Tree::Map(pairs));
    }
}

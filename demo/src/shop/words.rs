//! The words that the shop's texts are made of, read from `words.txt`. Nothing here knows tables.

use std::sync::LazyLock;

const TEXT: &str = include_str!("words.txt");

pub static WORDS: LazyLock<Words> = LazyLock::new(Words::read);

pub type List = Vec<&'static str>;

#[derive(Debug)]
pub struct Words {
    pub first_names: List,
    pub last_names: List,
    pub streets: List,
    /// Name, country, first digits of its postcodes, with commas between.
    pub cities: List,
    pub mail_hosts: List,
    pub languages: List,
    pub categories: List,
    pub materials: List,
    pub styles: List,
    pub things: List,
    pub sentences: List,
    pub colours: List,
    pub tags: List,
    pub notes: List,
    pub carriers: List,
    pub payments: List,
    pub channels: List,
}

impl Words {
    fn read() -> Words {
        Words {
            first_names: section("first_names"),
            last_names: section("last_names"),
            streets: section("streets"),
            cities: section("cities"),
            mail_hosts: section("mail_hosts"),
            languages: section("languages"),
            categories: section("categories"),
            materials: section("materials"),
            styles: section("styles"),
            things: section("things"),
            sentences: section("sentences"),
            colours: section("colours"),
            tags: section("tags"),
            notes: section("notes"),
            carriers: section("carriers"),
            payments: section("payments"),
            channels: section("channels"),
        }
    }
}

/// From `[name]` to the next empty line; entries stand on lines of their own or with bars between.
fn section(name: &str) -> List {
    let lines = TEXT.lines().skip_while(|line| *line != format!("[{name}]")).skip(1);
    lines.take_while(|line| !line.is_empty()).flat_map(|line| line.split(" | ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_there() {
        let sections = TEXT.lines().filter(|line| line.starts_with('['));
        for header in sections {
            let list = section(header.trim_matches(['[', ']']));
            assert!(list.len() >= 5, "{header}");
            assert!(list.iter().all(|word| !word.trim().is_empty()), "{header}");
        }
        assert!(WORDS.cities.iter().all(|city| city.split(", ").count() == 3));
    }
}

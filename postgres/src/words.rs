//! libpq's words about TLS in a connection string, told apart from those that tokio-postgres understands.
//!
//! Both forms are read: `postgres://…?sslmode=…` and `host=… sslmode=…`. No file is opened here.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Disable,
    /// Encrypted if the server can.
    #[default]
    Prefer,
    /// Encrypted, with whomever answers.
    Require,
    /// With a server whose certificate the CA has signed.
    VerifyCa,
    /// And which bears the host's name.
    VerifyFull,
}

/// Whose certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's.
    System,
    File(PathBuf),
}

/// What a connection string says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub mode: Mode,
    pub roots: Option<Roots>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// What a URL's value may hold as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const MODES: [(&str, Mode); 5] = [
    ("disable", Mode::Disable),
    ("prefer", Mode::Prefer),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

impl Mode {
    /// As one writes it.
    pub fn word(self) -> &'static str {
        MODES.iter().find(|(_, mode)| *mode == self).map_or("", |(word, _)| word)
    }

    /// Whether the server's certificate is looked at.
    pub fn verifies(self) -> bool {
        self >= Mode::VerifyCa
    }
}

/// The connection string without what is ours, and what that says. The error completes "the connection string …".
pub fn split(text: &str) -> Result<(String, Words), String> {
    let mut found = Found::default();
    let rest =
        if is_url(text) { split_url(text, &mut found)? } else { split_pairs(text, &mut found) };
    Ok((rest, found.words()?))
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// The connection string with absolute names of files: relative ones count from `folder`. One that cannot be read
/// stays as it is.
pub fn resolve_files(text: &str, folder: &Path) -> String {
    let Ok((mut rest, words)) = split(text) else { return text.to_owned() };
    let roots = match &words.roots {
        Some(Roots::File(file)) => Some(file),
        _ => None,
    };
    let files = [
        ("sslrootcert", roots),
        ("sslcert", words.certificate.as_ref()),
        ("sslkey", words.key.as_ref()),
    ];
    if files.iter().all(|(_, file)| file.is_none_or(|file| file.is_absolute())) {
        return text.to_owned();
    }
    let mut values = vec![("sslmode", words.mode.word().to_owned())];
    if words.roots == Some(Roots::System) {
        values.push(("sslrootcert", "system".to_owned()));
    }
    let present = files.into_iter().filter_map(|(key, file)| Some((key, folder.join(file?))));
    values.extend(present.map(|(key, file)| (key, file.display().to_string())));
    let mut mark = if query_at(&rest).is_some() { '&' } else { '?' };
    for (key, value) in values {
        if is_url(text) {
            let value = utf8_percent_encode(&value, UNRESERVED);
            rest += &format!("{mark}{key}={value}");
            mark = '&';
        } else {
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            rest += &format!(" {key}='{value}'");
        }
    }
    rest
}

/// Values as they were written.
#[derive(Default)]
struct Found {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Found {
    fn is_ours(key: &str) -> bool {
        ["sslmode", "sslrootcert", "sslcert", "sslkey"].contains(&key)
    }

    /// As in libpq, an empty value is none and the last one counts.
    fn take(&mut self, key: &str, value: String) {
        let value = Some(value).filter(|value| !value.is_empty());
        match key {
            "sslmode" => self.mode = value,
            "sslrootcert" => self.roots = value,
            "sslcert" => self.certificate = value.map(Into::into),
            _ => self.key = value.map(Into::into),
        }
    }

    fn words(self) -> Result<Words, String> {
        let roots = self.roots.map(|roots| match &*roots {
            "system" => Roots::System,
            _ => Roots::File(roots.into()),
        });
        let mode = match &self.mode {
            Some(word) => *MODES
                .iter()
                .find_map(|(name, mode)| (name == word).then_some(mode))
                .ok_or_else(|| {
                    let known = MODES.map(|(name, _)| name).join(", ");
                    format!("says sslmode={word}; it can be {known}")
                })?,
            // Anybody can have a certificate that the system trusts: of use only with a name.
            None if roots == Some(Roots::System) => Mode::VerifyFull,
            None => Mode::default(),
        };
        checked(Words { mode, roots, certificate: self.certificate, key: self.key })
    }
}

/// Combinations that would look safer than they are are refused.
fn checked(mut words: Words) -> Result<Words, String> {
    let mode = words.mode.word();
    match (&words.roots, words.mode) {
        (Some(_), Mode::Disable | Mode::Prefer) => Err(format!(
            "has sslrootcert, but sslmode={mode} checks no certificate: write sslmode=verify-full"
        )),
        (Some(Roots::System), Mode::Require | Mode::VerifyCa) => Err(format!(
            "has sslrootcert=system with sslmode={mode}: anybody can have a certificate that the system trusts, so \
             write sslmode=verify-full"
        )),
        (None, Mode::VerifyCa | Mode::VerifyFull) => Err(format!(
            "has sslmode={mode}, but not whom to trust: add sslrootcert=FILE with the CA's certificate in PEM, or \
             sslrootcert=system"
        )),
        // libpq's rule, for those who rely on it.
        (Some(Roots::File(_)), Mode::Require) => {
            words.mode = Mode::VerifyCa;
            Ok(words)
        }
        _ => Ok(words),
    }
}

/// Where the query of a URL begins, as tokio-postgres sees it: a password may hold a question mark.
fn query_at(text: &str) -> Option<usize> {
    let credentials_end = text.find('@').unwrap_or(0);
    Some(credentials_end + text[credentials_end..].find('?')?)
}

fn split_url(text: &str, found: &mut Found) -> Result<String, String> {
    let Some(query_at) = query_at(text) else { return Ok(text.to_owned()) };
    let (before, query) = text.split_at(query_at);
    let mut others = vec![];
    for pair in query[1..].split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !Found::is_ours(key) {
            others.push(pair);
            continue;
        }
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| format!("has a {key} that is not UTF-8"))?;
        found.take(key, value.into_owned());
    }
    others.retain(|pair| !pair.is_empty());
    let mark = if others.is_empty() { "" } else { "?" };
    Ok(format!("{before}{mark}{}", others.join("&")))
}

/// `key = value` pairs; a value is quoted or ends at a blank, and a backslash takes what follows as it is.
/// What is malformed is left for tokio-postgres to refuse.
fn split_pairs(text: &str, found: &mut Found) -> String {
    let mut others = String::new();
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let value_at = after.trim_start();
        let (value, length) = value_of(value_at);
        if Found::is_ours(key.trim()) {
            found.take(key.trim(), value);
        } else {
            others.push_str(&rest[..rest.len() - value_at.len() + length]);
            others.push(' ');
        }
        rest = value_at[length..].trim_start();
    }
    others.push_str(rest);
    others.trim_end().to_owned()
}

/// A value as it is meant, and how many bytes it was written with.
fn value_of(text: &str) -> (String, usize) {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return (value, at + 1),
            c if !quoted && c.is_whitespace() => return (value, at),
            c => value.push(c),
        }
    }
    (value, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        split(text).unwrap().1
    }

    fn refused(text: &str) -> String {
        split(text).unwrap_err()
    }

    #[test]
    fn ours_are_taken_out_of_urls() {
        let url = "postgres://u:a?b@h:1/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fa%20b%2Fca.pem&sslkey=k&sslcert=c";
        let (rest, words) = split(url).unwrap();
        assert_eq!(rest, "postgres://u:a?b@h:1/d?connect_timeout=3");
        let roots = Some(Roots::File("/a b/ca.pem".into()));
        let (certificate, key) = (Some("c".into()), Some("k".into()));
        assert_eq!(words, Words { mode: Mode::VerifyFull, roots, certificate, key });
        let plain = "postgresql://u@h/d?sslmode=require";
        assert_eq!(split(plain).unwrap().0, "postgresql://u@h/d");
    }

    #[test]
    fn ours_are_taken_out_of_pairs() {
        let text = r"host=/run user = u password='it\'s sslmode=no' sslmode=verify-ca sslrootcert = '/a b/ca.pem' dbname=d";
        let (rest, words) = split(text).unwrap();
        assert_eq!(rest, r"host=/run user = u password='it\'s sslmode=no' dbname=d");
        assert_eq!(words.mode, Mode::VerifyCa);
        assert_eq!(words.roots, Some(Roots::File("/a b/ca.pem".into())));
        assert_eq!(split("host=h  garbage").unwrap().0, "host=h garbage");
    }

    #[test]
    fn names_of_files_are_made_absolute() {
        let folder = Path::new("/a b/it's");
        for text in [
            "postgres://u:a?b@h/d?connect_timeout=3&sslmode=verify-full&sslrootcert=ca.pem&sslkey=%2Fk",
            "postgres://u:p?q@h/d?sslmode=require&sslcert=c.pem&sslkey=k.pem",
            r"host=h password='it\'s' sslmode=verify-full sslrootcert='ca file.pem' sslkey=k dbname=d",
            "host=h sslrootcert=system sslcert=c",
        ] {
            let before = split(text).unwrap();
            let after = split(&resolve_files(text, folder)).unwrap();
            assert_eq!(after.0, before.0);
            assert_eq!(after.1.mode, before.1.mode);
            let roots = before.1.roots.map(|roots| match roots {
                Roots::File(file) => Roots::File(folder.join(file)),
                Roots::System => Roots::System,
            });
            assert_eq!(after.1.roots, roots);
            assert_eq!(after.1.certificate, before.1.certificate.map(|file| folder.join(file)));
            assert_eq!(after.1.key, before.1.key.map(|file| folder.join(file)));
        }
        for same in [
            "postgres://u@h/d?sslmode=require",
            "host=h sslmode=verify-full sslrootcert=/ca",
            "host=h sslmode=x",
        ] {
            assert_eq!(resolve_files(same, folder), same);
        }
    }

    #[test]
    fn defaults_are_those_of_libpq() {
        assert_eq!(words("host=h"), Words::default());
        assert_eq!(words("host=h sslmode=").mode, Mode::Prefer);
        assert_eq!(words("host=h sslrootcert=system").mode, Mode::VerifyFull);
        assert_eq!(words("host=h sslmode=require").mode, Mode::Require);
        assert_eq!(words("host=h sslmode=require sslrootcert=ca.pem").mode, Mode::VerifyCa);
    }

    #[test]
    fn what_would_not_protect_is_refused() {
        assert!(refused("host=h sslmode=verifyfull").contains("verify-full"));
        assert!(refused("host=h sslmode=verify-full").contains("sslrootcert=system"));
        assert!(refused("host=h sslrootcert=ca.pem").contains("sslmode=prefer checks no"));
        assert!(refused("host=h sslmode=require sslrootcert=system").contains("anybody"));
    }
}

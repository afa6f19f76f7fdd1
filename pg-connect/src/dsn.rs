//! libpq's TLS parameters in a connection string, separated from those that tokio-postgres reads.
//!
//! Both forms are parsed: `postgres://…?sslmode=…` and `host=… sslmode=…`. No file is opened here.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server offers TLS.
    #[default]
    Prefer,
    /// Encrypted; the server's certificate is not checked.
    Require,
    /// The server's certificate must be signed by the CA.
    VerifyCa,
    /// As `VerifyCa`, and the certificate must be issued for the host's name.
    VerifyFull,
}

/// The source of trusted CA certificates, `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedRoots {
    /// The operating system's CA certificates.
    System,
    File(PathBuf),
}

/// The TLS parameters of a connection string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsParams {
    pub mode: TlsMode,
    pub roots: Option<TrustedRoots>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Characters that a URL's value may hold without encoding.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const MODES: [(&str, TlsMode); 5] = [
    ("disable", TlsMode::Disable),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

impl TlsMode {
    /// The value of `sslmode`.
    pub fn as_str(self) -> &'static str {
        MODES.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }

    /// Whether the server's certificate is checked.
    pub fn verifies_certificate(self) -> bool {
        self >= TlsMode::VerifyCa
    }
}

/// The connection string without the TLS parameters, and those parameters. The error completes the
/// sentence "the connection string …".
pub fn split_tls_params(text: &str) -> Result<(String, TlsParams), String> {
    let mut raw = RawTlsParams::default();
    let rest = if is_url(text) { split_url(text, &mut raw)? } else { split_pairs(text, &mut raw) };
    Ok((rest, raw.validate()?))
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// The connection string with absolute file names: relative names are resolved against `folder`. A
/// string that cannot be parsed is returned unchanged.
pub fn resolve_files(text: &str, folder: &Path) -> String {
    let Ok((mut rest, params)) = split_tls_params(text) else { return text.to_owned() };
    let roots = match &params.roots {
        Some(TrustedRoots::File(file)) => Some(file),
        _ => None,
    };
    let files = [
        ("sslrootcert", roots),
        ("sslcert", params.certificate.as_ref()),
        ("sslkey", params.key.as_ref()),
    ];
    if files.iter().all(|(_, file)| file.is_none_or(|file| file.is_absolute())) {
        return text.to_owned();
    }
    let mut values = vec![("sslmode", params.mode.as_str().to_owned())];
    if params.roots == Some(TrustedRoots::System) {
        values.push(("sslrootcert", "system".to_owned()));
    }
    let present = files.into_iter().filter_map(|(key, file)| Some((key, folder.join(file?))));
    values.extend(present.map(|(key, file)| (key, file.display().to_string())));
    let mut mark = if query_start(&rest).is_some() { '&' } else { '?' };
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

/// The values as written.
#[derive(Default)]
struct RawTlsParams {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl RawTlsParams {
    fn is_tls_key(key: &str) -> bool {
        ["sslmode", "sslrootcert", "sslcert", "sslkey"].contains(&key)
    }

    /// As in libpq, an empty value counts as absent and the last value wins.
    fn set(&mut self, key: &str, value: String) {
        let value = Some(value).filter(|value| !value.is_empty());
        match key {
            "sslmode" => self.mode = value,
            "sslrootcert" => self.roots = value,
            "sslcert" => self.certificate = value.map(Into::into),
            _ => self.key = value.map(Into::into),
        }
    }

    fn validate(self) -> Result<TlsParams, String> {
        let roots = self.roots.map(|roots| match &*roots {
            "system" => TrustedRoots::System,
            _ => TrustedRoots::File(roots.into()),
        });
        let mode = match &self.mode {
            Some(value) => *MODES
                .iter()
                .find_map(|(name, mode)| (name == value).then_some(mode))
                .ok_or_else(|| {
                let known = MODES.map(|(name, _)| name).join(", ");
                format!("has sslmode={value}; possible values are {known}")
            })?,
            // Anybody can get a certificate that the system trusts, so the name must be checked.
            None if roots == Some(TrustedRoots::System) => TlsMode::VerifyFull,
            None => TlsMode::default(),
        };
        reject_unsafe(TlsParams { mode, roots, certificate: self.certificate, key: self.key })
    }
}

/// Rejects combinations that look safer than they are.
fn reject_unsafe(mut params: TlsParams) -> Result<TlsParams, String> {
    let mode = params.mode.as_str();
    match (&params.roots, params.mode) {
        (Some(_), TlsMode::Disable | TlsMode::Prefer) => Err(format!(
            "has sslrootcert, but sslmode={mode} checks no certificate: write sslmode=verify-full"
        )),
        (Some(TrustedRoots::System), TlsMode::Require | TlsMode::VerifyCa) => Err(format!(
            "has sslrootcert=system with sslmode={mode}: anybody can get a \
             certificate that the system trusts, so write sslmode=verify-full"
        )),
        (None, TlsMode::VerifyCa | TlsMode::VerifyFull) => Err(format!(
            "has sslmode={mode}, but names no CA: add sslrootcert=FILE with the CA's certificate \
             in PEM, or sslrootcert=system"
        )),
        // libpq has this rule, and connection strings rely on it.
        (Some(TrustedRoots::File(_)), TlsMode::Require) => {
            params.mode = TlsMode::VerifyCa;
            Ok(params)
        }
        _ => Ok(params),
    }
}

/// Where the query of a URL begins. It is searched behind the credentials, as tokio-postgres does:
/// a password may hold a question mark.
fn query_start(text: &str) -> Option<usize> {
    let credentials_end = text.find('@').unwrap_or(0);
    Some(credentials_end + text[credentials_end..].find('?')?)
}

fn split_url(text: &str, raw: &mut RawTlsParams) -> Result<String, String> {
    let Some(query_start) = query_start(text) else { return Ok(text.to_owned()) };
    let (before, query) = text.split_at(query_start);
    let mut others = vec![];
    for pair in query[1..].split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !RawTlsParams::is_tls_key(key) {
            others.push(pair);
            continue;
        }
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| format!("has a {key} that is not UTF-8"))?;
        raw.set(key, value.into_owned());
    }
    others.retain(|pair| !pair.is_empty());
    let mark = if others.is_empty() { "" } else { "?" };
    Ok(format!("{before}{mark}{}", others.join("&")))
}

/// `key = value` pairs. A value is quoted or ends at a blank; a backslash escapes the next
/// character. Malformed text stays in the remainder, so that tokio-postgres reports it.
fn split_pairs(text: &str, raw: &mut RawTlsParams) -> String {
    let mut others = String::new();
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let value_at = after.trim_start();
        let (value, length) = parse_value(value_at);
        if RawTlsParams::is_tls_key(key.trim()) {
            raw.set(key.trim(), value);
        } else {
            others.push_str(&rest[..rest.len() - value_at.len() + length]);
            others.push(' ');
        }
        rest = value_at[length..].trim_start();
    }
    others.push_str(rest);
    others.trim_end().to_owned()
}

/// The unescaped value, and its length in `text` in bytes.
fn parse_value(text: &str) -> (String, usize) {
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

    fn params_of(text: &str) -> TlsParams {
        split_tls_params(text).unwrap().1
    }

    fn refusal_of(text: &str) -> String {
        split_tls_params(text).unwrap_err()
    }

    #[test]
    fn tls_params_are_split_off_urls() {
        let url = "postgres://u:a?b@h:1/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fa%20b%2Fca.pem&sslkey=k&sslcert=c";
        let (rest, params) = split_tls_params(url).unwrap();
        assert_eq!(rest, "postgres://u:a?b@h:1/d?connect_timeout=3");
        let roots = Some(TrustedRoots::File("/a b/ca.pem".into()));
        let certificate = Some("c".into());
        let key = Some("k".into());
        assert_eq!(params, TlsParams { mode: TlsMode::VerifyFull, roots, certificate, key });
        let plain = "postgresql://u@h/d?sslmode=require";
        assert_eq!(split_tls_params(plain).unwrap().0, "postgresql://u@h/d");
    }

    #[test]
    fn tls_params_are_split_off_pairs() {
        let text = r"host=/run user = u password='it\'s sslmode=no' sslmode=verify-ca sslrootcert = '/a b/ca.pem' dbname=d";
        let (rest, params) = split_tls_params(text).unwrap();
        assert_eq!(rest, r"host=/run user = u password='it\'s sslmode=no' dbname=d");
        assert_eq!(params.mode, TlsMode::VerifyCa);
        assert_eq!(params.roots, Some(TrustedRoots::File("/a b/ca.pem".into())));
        assert_eq!(split_tls_params("host=h  garbage").unwrap().0, "host=h garbage");
    }

    #[test]
    fn file_names_are_made_absolute() {
        let folder = Path::new("/a b/it's");
        for text in [
            "postgres://u:a?b@h/d?connect_timeout=3&sslmode=verify-full&sslrootcert=ca.pem&sslkey=%2Fk",
            "postgres://u:p?q@h/d?sslmode=require&sslcert=c.pem&sslkey=k.pem",
            r"host=h password='it\'s' sslmode=verify-full sslrootcert='ca file.pem' sslkey=k dbname=d",
            "host=h sslrootcert=system sslcert=c",
        ] {
            let before = split_tls_params(text).unwrap();
            let after = split_tls_params(&resolve_files(text, folder)).unwrap();
            assert_eq!(after.0, before.0);
            assert_eq!(after.1.mode, before.1.mode);
            let roots = before.1.roots.map(|roots| match roots {
                TrustedRoots::File(file) => TrustedRoots::File(folder.join(file)),
                TrustedRoots::System => TrustedRoots::System,
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
        assert_eq!(params_of("host=h"), TlsParams::default());
        assert_eq!(params_of("host=h sslmode=").mode, TlsMode::Prefer);
        assert_eq!(params_of("host=h sslrootcert=system").mode, TlsMode::VerifyFull);
        assert_eq!(params_of("host=h sslmode=require").mode, TlsMode::Require);
        assert_eq!(params_of("host=h sslmode=require sslrootcert=ca.pem").mode, TlsMode::VerifyCa);
    }

    #[test]
    fn unsafe_combinations_are_rejected() {
        assert!(refusal_of("host=h sslmode=verifyfull").contains("verify-full"));
        assert!(refusal_of("host=h sslmode=verify-full").contains("sslrootcert=system"));
        assert!(refusal_of("host=h sslrootcert=ca.pem").contains("sslmode=prefer checks no"));
        assert!(refusal_of("host=h sslmode=require sslrootcert=system").contains("anybody"));
    }
}

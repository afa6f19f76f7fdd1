//! Test vectors: a body as it is sent, its headers, and its meaning as JSON.
//!
//! `NAME.json` describes `NAME.bin`, or `NAME.1.bin` and so on for a body in parts. This crate
//! makes them with the wire crate, deterministically. `tests/python/decode_vectors.py` reads them
//! with other libraries.

mod bodies;
mod control;

use std::{fs, path::Path};

use async_nats::HeaderMap;
use serde_json::{Value as Json, json};

pub use bodies::dictionary;

/// One message, or one body in parts.
#[derive(Clone, Debug)]
pub struct Vector {
    pub name: String,
    /// `changes`, `chunk`, `control` or `dictionary`.
    pub kind: &'static str,
    /// The headers of the last part, without `Wg-Part`.
    pub headers: Json,
    pub parts: Vec<Vec<u8>>,
    /// The number of columns in the table's schema; for changes and chunks.
    pub columns: Option<usize>,
    /// The name of the vector that holds the dictionary.
    pub dictionary: Option<String>,
    /// The meaning; or `{"refused": why}` for bodies that a reader must refuse.
    pub expected: Json,
}

/// All vectors that are committed under `tests/vectors`.
pub fn all_vectors() -> Vec<Vector> {
    let mut all = bodies::vectors();
    all.extend(control::vectors());
    all
}

/// Headers as JSON, without those that only NATS reads.
pub fn headers(headers: &HeaderMap) -> Json {
    let ours = |name: &str| {
        name == walgate_wire::CONTENT_ENCODING
            || (name.starts_with("Wg-") && name != walgate_wire::PART)
    };
    let pairs = headers.iter().filter(|(name, _)| ours(name.as_ref()));
    pairs
        .map(|(name, values)| (name.to_string(), json!(values[0].as_str())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

impl Vector {
    /// Replaces the files of this name in the folder.
    pub fn write(&self, folder: &Path) {
        let files: Vec<String> = match self.parts.len() {
            1 => vec![format!("{}.bin", self.name)],
            parts => (1..=parts).map(|part| format!("{}.{part}.bin", self.name)).collect(),
        };
        for (file, bytes) in files.iter().zip(&self.parts) {
            fs::write(folder.join(file), bytes).expect("a vector is written");
        }
        let json = json!({
            "kind": self.kind,
            "headers": self.headers,
            "bodies": files,
            "columns": self.columns,
            "dictionary": self.dictionary,
            "expected": self.expected,
        });
        fs::write(folder.join(format!("{}.json", self.name)), format!("{json}\n"))
            .expect("a vector is written");
    }
}

/// Writes all vectors into a folder and deletes other vectors there. Pages stay.
pub fn write_all(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if matches!(entry.path().extension().and_then(|e| e.to_str()), Some("bin" | "json")) {
            fs::remove_file(entry.path()).expect("an old vector goes");
        }
    }
    all_vectors().iter().for_each(|vector| vector.write(folder));
}

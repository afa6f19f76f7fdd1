//! Dictionaries for tests: small, each another. What they save is not of interest.

use std::{fs, path::Path};

use walgate_wire::train_dictionary;

/// Another for each number.
pub fn numbered(number: u32) -> Vec<u8> {
    let rows: Vec<String> = (0..600u32)
        .map(|i| {
            format!(
                "user{}@example{number}.org likes {} and {}",
                i * 7919 + number,
                i % 17,
                (i * number) % 23
            )
        })
        .collect();
    let sizes: Vec<usize> = rows.iter().map(String::len).collect();
    let trained = train_dictionary(rows.concat().as_bytes(), &sizes, 2048).expect("enough rows");
    trained.bytes().to_vec()
}

/// As a careful operator does: written beside, then renamed.
pub fn drop_in(folder: &Path, token: &str, bytes: &[u8]) {
    let beside = folder.join("incoming");
    fs::write(&beside, bytes).expect("a file");
    fs::rename(&beside, folder.join(format!("{token}.zstd.dict"))).expect("a file renamed");
}

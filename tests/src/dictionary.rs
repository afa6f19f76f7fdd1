//! Small dictionaries for tests, each with other content. How much they save does not matter.

use std::{fs, path::Path};

use walgate_wire::train_dictionary;

/// A different dictionary for each number.
pub fn train_numbered(number: u32) -> Vec<u8> {
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

/// Writes the file beside, then renames it, as a careful operator does.
pub fn drop_in(folder: &Path, token: &str, bytes: &[u8]) {
    let beside = folder.join("incoming");
    fs::write(&beside, bytes).expect("a file");
    fs::rename(&beside, folder.join(format!("{token}.zstd.dict"))).expect("a file renamed");
}

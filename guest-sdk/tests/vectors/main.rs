//! The vectors on disk are those that the layouts make, and what must be refused is.

mod vectors;

use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use walgate_guest::batch::Batch;

const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/guest");

#[test]
fn the_files_are_what_is_made() {
    for (name, json) in vectors::all() {
        let file = Path::new(HOME).join(format!("{name}.json"));
        let text = fs::read_to_string(&file).unwrap_or_default();
        let remedy = "cargo run -p walgate-guest --example write_vectors";
        assert_eq!(
            serde_json::from_str::<Json>(&text).ok(),
            Some(json),
            "{name} has changed: {remedy}"
        );
    }
}

#[test]
fn what_must_be_refused_is() {
    let (_, refused) = vectors::all().pop().unwrap();
    for batch in refused["batches"].as_array().unwrap() {
        let text = batch["bytes"].as_str().unwrap();
        let bytes: Vec<u8> = (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        assert_eq!(vectors::hex(&bytes), text);
        assert!(Batch::decode(&bytes).is_err(), "{}", batch["why"]);
    }
}

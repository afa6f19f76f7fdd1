//! Writes `tests/vectors/guest` again: `cargo run -p walgate-guest --example write_vectors`.

#[path = "../tests/vectors/vectors.rs"]
mod vectors;

use std::fs;

fn main() -> std::io::Result<()> {
    let home = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/guest");
    fs::create_dir_all(home)?;
    for (name, json) in vectors::all() {
        fs::write(format!("{home}/{name}.json"), format!("{json:#}\n"))?;
    }
    Ok(())
}

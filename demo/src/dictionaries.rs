//! The dictionaries that ship with the demo, and how they get into the folder that the gateway
//! watches.
//!
//! They are in `dictionaries/` of the source tree. `walgate train` trained them on this shop.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use walgate_wire::Token;

use walgate_host::assets::{dictionaries::file_name, write_whole};

const SHIPPED: [(&str, &[u8]); 3] = [
    ("users", include_bytes!("../../dictionaries/users.zstd.dict")),
    ("products", include_bytes!("../../dictionaries/products.zstd.dict")),
    ("orders", include_bytes!("../../dictionaries/orders.zstd.dict")),
];

/// Puts one file for each table into `folder`, each atomically.
pub fn drop_into(folder: &Path) -> Result<()> {
    for (table, dictionary) in SHIPPED {
        ensure!(!dictionary.is_empty(), "no dictionary for {table} was built into this program");
        let path = folder.join(file_name(&Token::parse(table)?));
        write_whole(&path, dictionary).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

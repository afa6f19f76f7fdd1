//! The dictionaries that ship with the demo: how they get into the folder that the gateway watches.
//!
//! They lie in `dictionaries/` of the source tree, trained by `walgate train` on this shop.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use walgate_wire::Token;

use walgate_host::assets::{dictionaries::file_name, write_whole};

const SHIPPED: [(&str, &[u8]); 3] = [
    ("users", include_bytes!("../../dictionaries/users.zstd.dict")),
    ("products", include_bytes!("../../dictionaries/products.zstd.dict")),
    ("orders", include_bytes!("../../dictionaries/orders.zstd.dict")),
];

/// Puts one file a table into `folder`, each whole or not at all.
pub fn drop_into(folder: &Path) -> Result<()> {
    for (table, dictionary) in SHIPPED {
        ensure!(!dictionary.is_empty(), "no dictionary for {table} was built into this program");
        let path = folder.join(file_name(&Token::parse(table)?));
        write_whole(&path, dictionary).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

//! Write guests for [Walgate](https://github.com/walgate/walgate).
//!
//! A guest is a small program, compiled to WebAssembly. It decides which rows and columns of a
//! Postgres table the gateway publishes, and with which values.
//!
//! ```
//! use walgate_guest::prelude::*;
//!
//! #[derive(Columns)]                     // the columns to read; no others are copied to the guest
//! struct User<'a> { email: &'a str, country: Option<&'a str> }
//!
//! #[transform(hide("password_hash"), replace("email"))]
//! fn users(user: User<'_>, out: &mut Out<'_>) -> Verdict {
//!     if user.country != Some("DE") { return Verdict::Drop }
//!     out.email(mask(user.email));
//!     Verdict::Keep
//! }
//!
//! let table = Table::new("users").key("id", "bigint").column("email", "text")
//!     .nullable("country", "text").column("password_hash", "text");
//! let mut guest = walgate_guest::test::Guest::<users>::new(&table).unwrap();
//! let line = r#"{"op":"insert",
//!     "new":{"id":1,"email":"ada@example.org","country":"DE","password_hash":"x"}}"#;
//! let outcomes = guest.run_json(&line.replace('\n', "")).unwrap();
//! assert_eq!(outcomes[0].row()["email"], "a***@example.org".into());
//! assert!(!outcomes[0].row().contains_key("password_hash"));
//! ```
//!
//! A guest imports the [`prelude`] and has one function with [`macro@transform`]. Its tests use
//! [`test`](crate::test), which runs the guest natively. The other modules are the contract between
//! the macros, this crate and the gateway; a guest does not name them.
//!
//! `docs/GUESTS.md` is the tutorial. It specifies all data between gateway and guest.

#![warn(missing_docs)]

extern crate self as walgate_guest;

pub mod batch;
mod civil;
pub mod columns;
pub mod decisions;
pub mod field;
#[cfg(not(target_arch = "wasm32"))]
pub mod fit;
mod kind;
pub mod layout;
pub mod log;
mod numeric;
pub mod output;
mod packed;
pub mod parameters;
mod plan;
mod redact;
mod scalars;
mod table;
#[cfg(not(target_arch = "wasm32"))]
pub mod test;
mod times;
pub mod transform;
mod uuid;
#[cfg(target_arch = "wasm32")]
pub mod wasm;

pub use batch::Op;
pub use columns::{AllColumns, Any, Columns};
pub use field::Cell;
pub use kind::{Kind, Type};
pub use numeric::{Decimal, NotDecimal, Numeric};
pub use packed::{Packed, PackedArray, PackedMap, PackedValue};
pub use parameters::Parameters;
pub use plan::{GuestPlan, Output, Read};
pub use redact::{Masked, mask};
pub use scalars::Json;
pub use table::{Column, Table};
pub use times::{Date, Time, Timestamp};
pub use transform::{Row, Verdict};
pub use uuid::{NotUuid, Uuid};
pub use walgate_guest_macros::{Columns, Parameters, transform};

/// The names that a guest needs: `use walgate_guest::prelude::*;`.
pub mod prelude {
    pub use crate::{
        AllColumns, Any, Cell, Columns, Date, Decimal, Json, Numeric, Op, Packed, PackedValue,
        Parameters, Row, Table, Time, Timestamp, Uuid, Verdict, log, mask, transform,
    };
}

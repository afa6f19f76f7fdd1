//! Write guests for [Walgate](https://github.com/walgate/walgate): small programs, compiled to WebAssembly, that
//! decide which rows and columns of a Postgres table leave, and as what.
//!
//! ```
//! use walgate_guest::prelude::*;
//!
//! #[derive(Columns)]                       // what the guest reads; nothing else is copied to it
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
//! let seen = guest.run_json(r#"{"op":"insert","new":{"id":1,"email":"ada@example.org","country":"DE","password_hash":"x"}}"#);
//! assert_eq!(seen.unwrap()[0].row()["email"], "a***@example.org".into());
//! ```
//!
//! docs/GUESTS.md is the tutorial and specifies everything that crosses between gateway and guest.

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
pub use packed::{Array, Map, Packed, Value};
pub use parameters::Parameters;
pub use plan::{Output, Plan, Read};
pub use redact::{Masked, mask};
pub use scalars::Json;
pub use table::{Column, Table};
pub use times::{Date, Time, Timestamp};
pub use transform::{Row, Verdict};
pub use uuid::{NotUuid, Uuid};
pub use walgate_guest_macros::{Columns, Parameters, transform};

/// What a guest needs.
pub mod prelude {
    pub use crate::{
        AllColumns, Any, Cell, Columns, Date, Decimal, Json, Numeric, Op, Packed, Parameters, Row,
        Table, Time, Timestamp, Uuid, Value, Verdict, log, mask, transform,
    };
}

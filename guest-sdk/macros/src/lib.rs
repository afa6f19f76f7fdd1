//! The macros of `walgate-guest`. Use them through that crate, which the generated code relies on.
//!
//! They transform syntax and do not know tables.

#![warn(missing_docs)]

mod arguments;
mod columns;
mod parameters;
mod transform;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

/// Declares the columns that a guest reads: one per field.
///
/// The column has the name of the field, or that of `#[column("Name")]`. The type of a field is
/// `bool`, `i16`, `i32`, `i64`, `u32`, `f32`, `f64`, `&str`, `&[u8]`, `Uuid`, `Timestamp`, `Date`,
/// `Time`, `Numeric`, `Json` or `Packed`. Use `Option<…>` for columns that can be NULL, and
/// `Cell<…>` for those that can be *unchanged*.
///
/// ```ignore
/// #[derive(Columns)]
/// struct User<'a> {
///     email: &'a str,
///     #[column("Home Country")]
///     country: Option<&'a str>,
/// }
/// ```
#[proc_macro_derive(Columns, attributes(column))]
pub fn columns(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    columns::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Declares the parameters of a guest: one per field.
///
/// The parameter has the name of the field, or that of `#[parameter("name")]`. The type of a field
/// implements `FromStr`. A parameter may be omitted if its field is an `Option`, or has a default
/// as in `#[parameter(default = "DE")]`.
///
/// ```ignore
/// #[derive(Parameters)]
/// struct Config {
///     #[parameter(default = "DE")]
///     region: String,
///     #[parameter("max_rows")]
///     limit: Option<u32>,
/// }
/// ```
#[proc_macro_derive(Parameters, attributes(parameter))]
pub fn parameters(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    parameters::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a function a guest. The gateway calls it for each row.
///
/// ```ignore
/// #[transform(
///     hide("password_hash", "phone"),          // consumers do not receive these columns
///     replace("email"),                        // overwrites values, keeps the type
///     replace("born", "date"),                 // overwrites values, changes the type
///     add("total", "numeric", not_null),       // adds a column; without not_null it is nullable
///     never_drops,                             // the function never returns Verdict::Drop
/// )]
/// fn users(user: User<'_>, row: Row<User<'_>>, config: &Config, out: &mut Out<'_>) -> Verdict {
/// ```
///
/// The function takes these arguments in any order, each at most once:
/// - the columns that it reads: a struct with `#[derive(Columns)]`, or `AllColumns<'_>`;
/// - `Row<User<'_>>`: the operation and the old row;
/// - `&Config`: the parameters, a struct with `#[derive(Parameters)]`;
/// - `&mut Out<'_>`: a generated struct with one method per replaced and added column.
///
/// It returns `Verdict` or `Result<Verdict, E>`. If a column's name is not a Rust identifier, name
/// the method: `replace("Home Country" as country)`.
#[proc_macro_attribute]
pub fn transform(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as arguments::TransformArgs);
    let function = parse_macro_input!(item as ItemFn);
    transform::expand(&arguments, &function).unwrap_or_else(syn::Error::into_compile_error).into()
}

//! The macros of `walgate-guest`: text in, text out. What the code they write relies on is in that crate;
//! use them through it.

mod columns;
mod items;
mod parameters;
mod transform;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

/// The columns that a guest reads: one a field, by the field's name or `#[column("Name")]`.
#[proc_macro_derive(Columns, attributes(column))]
pub fn columns(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    columns::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// What a guest is configured with: one parameter a field, by the field's name or `#[parameter("name")]`.
/// `#[parameter(default = "DE")]` makes it one that may be left out, as an `Option` does.
#[proc_macro_derive(Parameters, attributes(parameter))]
pub fn parameters(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    parameters::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a guest of a function that is asked about each row.
///
/// `#[transform(hide("a", "b"), replace("c"), replace("d", "date"), add("e", "numeric"), never_drops)]`
///
/// The function takes, in any order and each at most once: the columns it reads (a struct with
/// `#[derive(Columns)]`, or `AllColumns<'_>`), `&mut Out<'_>` (what it writes: made here, with a method for each
/// replaced and added column), `Row<User<'_>>` (operation and old row) and `&T` (parameters). It
/// returns `Verdict` or `Result<Verdict, E>`.
#[proc_macro_attribute]
pub fn transform(words: TokenStream, item: TokenStream) -> TokenStream {
    let items = parse_macro_input!(words as items::Items);
    let function = parse_macro_input!(item as ItemFn);
    transform::expand(&items, &function).unwrap_or_else(syn::Error::into_compile_error).into()
}

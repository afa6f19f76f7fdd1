//! `#[transform]`: the function stays as it is; beside it come `Out` and a type of the function's name that
//! runs it.

use proc_macro2::{Group, Ident, Punct, Spacing, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Error, FnArg, ItemFn, Result, Type};

use crate::items::{Items, Written};

pub fn expand(items: &Items, function: &ItemFn) -> Result<TokenStream> {
    if let Some(word) = &function.sig.asyncness {
        return Err(Error::new_spanned(word, "a guest is asked and answers: no async"));
    }
    let takes = Takes::of(function)?;
    if let (Some(written), false) = (items.written().next(), takes.out) {
        let message = "this column is written, but the function takes no `out: &mut Out<'_>` to write it with";
        return Err(Error::new_spanned(&written.column, message));
    }
    let out = out(items, function);
    let guest = guest(items, function, &takes);
    let wasm = wasm(function);
    Ok(quote! { #function #out #guest #wasm })
}

/// What the function takes.
struct Takes {
    columns: Option<Type>,
    parameters: Option<Type>,
    out: bool,
    /// In the function's order.
    arguments: Vec<TokenStream>,
}

impl Takes {
    fn of(function: &ItemFn) -> Result<Takes> {
        let mut takes =
            Takes { columns: None, parameters: None, out: false, arguments: Vec::new() };
        let mut row = false;
        for input in &function.sig.inputs {
            let FnArg::Typed(argument) = input else {
                return Err(Error::new_spanned(input, "a transform is a free function"));
            };
            let twice = || Error::new_spanned(argument, TAKES);
            let (passed, fresh) = match &*argument.ty {
                Type::Reference(reference) if reference.mutability.is_some() => {
                    if !is_named(&reference.elem, "Out") {
                        return Err(twice());
                    }
                    (quote!(&mut out), !std::mem::replace(&mut takes.out, true))
                }
                Type::Reference(reference) => {
                    let parameters = (*reference.elem).clone();
                    (quote!(parameters), takes.parameters.replace(parameters).is_none())
                }
                other if is_named(other, "Row") => {
                    (quote!(asked.row()), !std::mem::replace(&mut row, true))
                }
                other => (quote!(columns), takes.columns.replace(other.clone()).is_none()),
            };
            if !fresh {
                return Err(twice());
            }
            takes.arguments.push(passed);
        }
        Ok(takes)
    }
}

const TAKES: &str = "a transform takes, each at most once: the columns it reads, `&mut Out<'_>`, `Row<…>` and `&` its parameters";

fn is_named(t: &Type, name: &str) -> bool {
    matches!(t, Type::Path(path) if path.path.segments.last().is_some_and(|s| s.ident == name))
}

/// With a method for each column that is written.
fn out(items: &Items, function: &ItemFn) -> TokenStream {
    let visibility = &function.vis;
    let setters = items.written().enumerate().map(|(index, written)| {
        let Written { column, setter, type_name, .. } = written;
        let marker = match type_name {
            Some((_, marker)) => marker.clone(),
            None => Ident::new("Text", column.span()),
        };
        let kind = type_name.as_ref().map_or("text".into(), |(name, _)| name.value());
        let doc = format!("Sets the column `{}` ({kind}) of the row that leaves.", column.value());
        quote! {
            #[doc = #doc]
            #[inline]
            #[allow(dead_code, reason = "a guest need not set every column")]
            #visibility fn #setter(
                &mut self,
                value: impl ::walgate_guest::output::Fits<::walgate_guest::output::types::#marker>,
            ) {
                ::walgate_guest::output::set::<::walgate_guest::output::types::#marker>(self.decisions, #index, value);
            }
        }
    });
    quote! {
        /// What of the row is written. A replaced column that is not set stays as it is, an added one is NULL.
        #visibility struct Out<'o> {
            #[allow(dead_code, reason = "a guest may only filter")]
            decisions: &'o mut ::walgate_guest::decisions::Decisions,
        }

        impl Out<'_> {
            #(#setters)*
        }
    }
}

/// The type that runs the function. Functions and structs with braces do not share names.
fn guest(items: &Items, function: &ItemFn, takes: &Takes) -> TokenStream {
    let (visibility, name) = (&function.vis, &function.sig.ident);
    let unit = quote!(());
    let columns =
        takes.columns.as_ref().map_or(unit.clone(), |t| in_batch(t.to_token_stream(), "walgate"));
    let read = takes.columns.as_ref().map_or(unit.clone(), |t| in_batch(t.to_token_stream(), "_"));
    let parameters = takes.parameters.as_ref().map_or(unit, ToTokens::to_token_stream);
    let arguments = &takes.arguments;
    let make_out = takes.out.then(|| quote!(let mut out = Out { decisions };));
    let hides = &items.hides;
    let (replaces, adds) = (items.replaces.iter().map(written), items.adds.iter().map(written));
    let filters = !items.never_drops;
    let doc =
        format!("The guest that [`{name}()`] is: for `walgate_guest::test::Guest::<{name}>`.");
    quote! {
        #[doc = #doc]
        #[allow(non_camel_case_types, dead_code, reason = "named like the function it is made of")]
        #visibility struct #name {}

        // Outside of wasm and tests nothing runs a guest: without this it would be said to be unused.
        const _: #name = #name {};

        impl ::walgate_guest::transform::Transform for #name {
            const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
            const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
            const SHAPE: ::walgate_guest::transform::Shape = ::walgate_guest::transform::Shape {
                hides: &[#(#hides),*],
                replaces: &[#(#replaces),*],
                adds: &[#(#adds),*],
                filters: #filters,
            };
            type Parameters = #parameters;

            fn reads(
                table: &::walgate_guest::Table,
            ) -> ::core::result::Result<::std::vec::Vec<::walgate_guest::Read>, ::std::string::String> {
                <#read as ::walgate_guest::columns::Columns<'_>>::reads(table)
            }

            #[allow(unused_variables, reason = "a guest takes what it needs")]
            fn process<'walgate>(
                parameters: &Self::Parameters,
                batch: &'walgate ::walgate_guest::batch::Batch<'walgate>,
                decisions: &mut ::walgate_guest::decisions::Decisions,
            ) -> ::core::result::Result<(), ::walgate_guest::layout::Malformed> {
                ::walgate_guest::transform::rows::<#columns, _>(batch, decisions, #filters, |columns, asked, decisions| {
                    #make_out
                    #name(#(#arguments),*)
                })
            }
        }
    }
}

fn written(written: &Written) -> TokenStream {
    let column = &written.column;
    let type_name = written.type_name.as_ref().map_or(String::new(), |(name, _)| name.value());
    let nullable = match written.nullable {
        Some(nullable) => quote!(::core::option::Option::Some(#nullable)),
        None => quote!(::core::option::Option::None),
    };
    quote! {
        ::walgate_guest::transform::Written { column: #column, type_name: #type_name, nullable: #nullable }
    }
}

/// The type with another lifetime in place of the function's own.
fn in_batch(tokens: TokenStream, lifetime: &str) -> TokenStream {
    let mut out = TokenStream::new();
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                let name = tokens.next();
                let is_static = matches!(&name, Some(TokenTree::Ident(ident)) if ident == "static");
                out.extend([TokenTree::from(Punct::new('\'', Spacing::Joint))]);
                match name {
                    Some(name) if is_static => out.extend([name]),
                    other => {
                        let span =
                            other.map_or_else(proc_macro2::Span::call_site, |name| name.span());
                        out.extend([TokenTree::from(Ident::new(lifetime, span))]);
                    }
                }
            }
            TokenTree::Group(group) => {
                let inner = in_batch(group.stream(), lifetime);
                out.extend([TokenTree::from(Group::new(group.delimiter(), inner))]);
            }
            other => out.extend([other]),
        }
    }
    out
}

/// The exports, and the place of the one instance.
fn wasm(function: &ItemFn) -> TokenStream {
    let name = &function.sig.ident;
    quote! {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "generated: exports of the component model pass pointers")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: ::core::cell::RefCell<
                    ::core::option::Option<::walgate_guest::transform::Instance<#name>>
                > = const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            impl ::walgate_guest::wasm::Stored for #name {
                fn with<R>(
                    visit: impl FnOnce(
                        &::core::cell::RefCell<::core::option::Option<::walgate_guest::transform::Instance<Self>>>,
                    ) -> R,
                ) -> R {
                    INSTANCE.with(visit)
                }
            }

            ::walgate_guest::wasm::export!(#name with_types_in ::walgate_guest::wasm);
        };
    }
}

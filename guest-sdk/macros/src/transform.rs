//! `#[transform]`: generates `Out`, and a type with the name of the function that runs it.
//!
//! The function itself is not changed.

use proc_macro2::{Group, Ident, Punct, Spacing, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Error, FnArg, ItemFn, Result, Type};

use crate::arguments::{TransformArgs, WrittenColumn};

/// Generates the guest of a function with `#[transform]`.
pub fn expand(arguments: &TransformArgs, function: &ItemFn) -> Result<TokenStream> {
    if let Some(word) = &function.sig.asyncness {
        return Err(Error::new_spanned(
            word,
            "a guest cannot be async: the gateway calls it for each row",
        ));
    }
    let signature = Signature::of(function)?;
    if let (Some(written), false) = (arguments.written().next(), signature.out) {
        let message = "this column is written, but the function takes no `out: &mut Out<'_>` to write it with";
        return Err(Error::new_spanned(&written.column, message));
    }
    let out = out_struct(arguments, function);
    let guest = guest_type(arguments, function, &signature);
    let wasm = wasm_exports(function);
    Ok(quote! { #function #out #guest #wasm })
}

/// The arguments that the function takes.
struct Signature {
    columns: Option<Type>,
    parameters: Option<Type>,
    out: bool,
    /// The expressions to call the function with, in its order.
    call: Vec<TokenStream>,
}

impl Signature {
    fn of(function: &ItemFn) -> Result<Signature> {
        let mut signature =
            Signature { columns: None, parameters: None, out: false, call: Vec::new() };
        let mut row = false;
        for input in &function.sig.inputs {
            let FnArg::Typed(argument) = input else {
                return Err(Error::new_spanned(input, "a transform is a free function"));
            };
            let unexpected = || Error::new_spanned(argument, EXPECTED_ARGUMENTS);
            let (passed, is_first) = match &*argument.ty {
                Type::Reference(reference) if reference.mutability.is_some() => {
                    if !is_named(&reference.elem, "Out") {
                        return Err(unexpected());
                    }
                    (quote!(&mut out), !std::mem::replace(&mut signature.out, true))
                }
                Type::Reference(reference) => {
                    let parameters = (*reference.elem).clone();
                    (quote!(parameters), signature.parameters.replace(parameters).is_none())
                }
                other if is_named(other, "Row") => {
                    (quote!(context.row()), !std::mem::replace(&mut row, true))
                }
                other => (quote!(columns), signature.columns.replace(other.clone()).is_none()),
            };
            if !is_first {
                return Err(unexpected());
            }
            signature.call.push(passed);
        }
        Ok(signature)
    }
}

const EXPECTED_ARGUMENTS: &str = "a transform takes, each at most once: the columns it reads, `&mut Out<'_>`, `Row<…>` and `&` its parameters";

fn is_named(t: &Type, name: &str) -> bool {
    matches!(t, Type::Path(path) if path.path.segments.last().is_some_and(|s| s.ident == name))
}

/// The struct `Out`, with a method for each written column.
fn out_struct(arguments: &TransformArgs, function: &ItemFn) -> TokenStream {
    let visibility = &function.vis;
    let setters = arguments.written().enumerate().map(|(index, written)| {
        let WrittenColumn { column, setter, type_name, .. } = written;
        let marker = match type_name {
            Some((_, marker)) => marker.clone(),
            None => Ident::new("Text", column.span()),
        };
        let kind = type_name.as_ref().map_or("text".into(), |(name, _)| name.value());
        let doc = format!("Sets the column `{}` ({kind}) of the published row.", column.value());
        quote! {
            #[doc = #doc]
            #[inline]
            #[allow(dead_code, reason = "a guest need not set every column")]
            #visibility fn #setter(
                &mut self,
                value: impl ::walgate_guest::output::Fits<::walgate_guest::output::types::#marker>,
            ) {
                ::walgate_guest::output::set_value::<::walgate_guest::output::types::#marker>(self.decisions, #index, value);
            }
        }
    });
    quote! {
        /// The written columns of a row.
        ///
        /// A replaced column that is not set keeps its value, an added column that is not set is
        /// NULL.
        #visibility struct Out<'o> {
            #[allow(dead_code, reason = "a guest may only filter")]
            decisions: &'o mut ::walgate_guest::decisions::Decisions,
        }

        impl Out<'_> {
            #(#setters)*
        }
    }
}

/// The type that runs the function.
///
/// It may have the function's name: functions and structs with braces are in different namespaces.
fn guest_type(arguments: &TransformArgs, function: &ItemFn, signature: &Signature) -> TokenStream {
    let (visibility, name) = (&function.vis, &function.sig.ident);
    let unit = quote!(());
    let columns = signature
        .columns
        .as_ref()
        .map_or(unit.clone(), |t| with_lifetime(t.to_token_stream(), "walgate"));
    let read = signature
        .columns
        .as_ref()
        .map_or(unit.clone(), |t| with_lifetime(t.to_token_stream(), "_"));
    let parameters = signature.parameters.as_ref().map_or(unit, ToTokens::to_token_stream);
    let call = &signature.call;
    let make_out = signature.out.then(|| quote!(let mut out = Out { decisions };));
    let hides = &arguments.hides;
    let (replaces, adds) =
        (arguments.replaces.iter().map(written_column), arguments.adds.iter().map(written_column));
    let filters = !arguments.never_drops;
    let doc = format!("The guest of [`{name}()`], for `walgate_guest::test::Guest::<{name}>`.");
    quote! {
        #[doc = #doc]
        #[allow(non_camel_case_types, dead_code, reason = "it has the name of the function")]
        #visibility struct #name {}

        // Natively only tests use the type: without this the compiler would report it as unused.
        const _: #name = #name {};

        impl ::walgate_guest::transform::Transform for #name {
            const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
            const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
            const STATIC_PLAN: ::walgate_guest::transform::StaticPlan = ::walgate_guest::transform::StaticPlan {
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

            #[allow(unused_variables, reason = "a guest may ignore some arguments")]
            fn process<'walgate>(
                parameters: &Self::Parameters,
                batch: &'walgate ::walgate_guest::batch::Batch<'walgate>,
                decisions: &mut ::walgate_guest::decisions::Decisions,
            ) -> ::core::result::Result<(), ::walgate_guest::layout::Malformed> {
                ::walgate_guest::transform::process_rows::<#columns, _>(batch, decisions, #filters, |columns, context, decisions| {
                    #make_out
                    #name(#(#call),*)
                })
            }
        }
    }
}

fn written_column(written: &WrittenColumn) -> TokenStream {
    let column = &written.column;
    let type_name = written.type_name.as_ref().map_or(String::new(), |(name, _)| name.value());
    let nullable = match written.nullable {
        Some(nullable) => quote!(::core::option::Option::Some(#nullable)),
        None => quote!(::core::option::Option::None),
    };
    quote! {
        ::walgate_guest::transform::WrittenColumn { column: #column, type_name: #type_name, nullable: #nullable }
    }
}

/// Replaces every lifetime of a type but `'static`.
fn with_lifetime(tokens: TokenStream, lifetime: &str) -> TokenStream {
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
                let inner = with_lifetime(group.stream(), lifetime);
                out.extend([TokenTree::from(Group::new(group.delimiter(), inner))]);
            }
            other => out.extend([other]),
        }
    }
    out
}

/// The exports, and the static of the only instance.
fn wasm_exports(function: &ItemFn) -> TokenStream {
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

            impl ::walgate_guest::wasm::StoredInstance for #name {
                fn with_instance<R>(
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

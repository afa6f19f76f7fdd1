//! `#[derive(Parameters)]`: each field of a struct parses a parameter of the guest.
//!
//! This module does not know the configuration.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, Expr, ExprLit, Field, Ident, Lit, LitStr, Result, Token, Type};

use crate::columns::named_fields;

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "parameters outlive every batch: no lifetimes and no types",
        ));
    }
    let fields = named_fields(input)?;
    let args = fields.iter().map(|field| ParameterArgs::of(field)).collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = args.iter().map(|args| &args.name).collect();
    let values = fields.iter().zip(&args).map(|(field, args)| field_value(field, args));
    let struct_name = &input.ident;
    Ok(quote! {
        impl ::walgate_guest::parameters::Parameters for #struct_name {
            fn parse(table: &::walgate_guest::Table) -> ::core::result::Result<Self, ::std::string::String> {
                ::walgate_guest::parameters::refuse_others(table, &[#(#names),*])?;
                ::core::result::Result::Ok(#struct_name { #(#values),* })
            }
        }
    })
}

fn field_value(field: &Field, args: &ParameterArgs) -> TokenStream {
    let (ident, t, name) = (&field.ident, &field.ty, &args.name);
    let sdk = quote!(::walgate_guest::parameters);
    if is_option(t) {
        return quote_spanned!(t.span()=> #ident: #sdk::optional(table, #name)?);
    }
    let optional = quote_spanned!(t.span()=> #sdk::optional::<#t>(table, #name)?);
    match &args.default {
        None => quote_spanned!(t.span()=> #ident: #sdk::required::<#t>(table, #name)?),
        // A text is parsed like that of the configuration.
        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => quote! {
            #ident: match #optional {
                ::core::option::Option::Some(value) => value,
                ::core::option::Option::None => #text.parse::<#t>().map_err(|error| {
                    ::std::format!("the default of the parameter {}: {error}", #name)
                })?,
            }
        },
        Some(default) => quote!(#ident: #optional.unwrap_or_else(|| #default)),
    }
}

fn is_option(t: &Type) -> bool {
    matches!(t, Type::Path(path) if path.path.segments.last().is_some_and(|s| s.ident == "Option"))
}

/// `#[parameter("name", default = …)]`, both optional.
struct ParameterArgs {
    name: String,
    default: Option<Expr>,
}

impl ParameterArgs {
    fn of(field: &Field) -> Result<ParameterArgs> {
        let own =
            || field.ident.as_ref().map(|ident| ident.unraw().to_string()).unwrap_or_default();
        let attribute = field.attrs.iter().find(|attribute| attribute.path().is_ident("parameter"));
        let Some(attribute) = attribute else {
            return Ok(ParameterArgs { name: own(), default: None });
        };
        let mut args = attribute.parse_args::<ParameterArgs>()?;
        if args.name.is_empty() {
            args.name = own();
        }
        Ok(args)
    }
}

impl Parse for ParameterArgs {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut args = ParameterArgs { name: String::new(), default: None };
        if input.peek(LitStr) {
            args.name = input.parse::<LitStr>()?.value();
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if !input.is_empty() {
            let word = input.parse::<Ident>()?;
            if word != "default" {
                return Err(Error::new_spanned(word, "expected `default = …`"));
            }
            input.parse::<Token![=]>()?;
            args.default = Some(input.parse()?);
        }
        Ok(args)
    }
}

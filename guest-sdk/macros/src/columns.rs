//! `#[derive(Columns)]`: each field of a struct reads a column.
//!
//! This module does not know the types of columns; the traits of `walgate_guest::field` do.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, GenericParam, Index, Lifetime, LitStr, Result};

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let fields = named_fields(input)?;
    let lifetime = only_lifetime(input)?;
    let (struct_name, generics) = (&input.ident, &input.generics);
    let (impl_lifetime, lifetime) = match lifetime {
        Some(lifetime) => (quote!(<#lifetime>), lifetime.clone()),
        None => (quote!(<'walgate>), Lifetime::new("'walgate", input.ident.span())),
    };
    let (_, type_generics, _) = generics.split_for_impl();
    let names = fields.iter().map(|field| column_name(field)).collect::<Result<Vec<_>>>()?;
    let types: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    let count = fields.len();
    let indexes: Vec<_> = (0..count).map(Index::from).collect();
    let sdk = quote!(::walgate_guest::field);
    let views = types.iter().map(|t| quote_spanned!(t.span()=> #sdk::View<#lifetime, #t>));
    let reads =
        types.iter().zip(&names).map(|(t, name)| quote!(#sdk::plan_read::<#t>(table, #name)?));
    let opens =
        types.iter().zip(&indexes).map(|(t, i)| quote!(#sdk::open_column::<#t>(&columns[#i])?));
    let gets = fields.iter().zip(&names).zip(&indexes).map(|((field, name), i)| {
        let (ident, t) = (&field.ident, &field.ty);
        quote! {
            #ident: match <#t as #sdk::Field<#lifetime>>::get(&views.#i, row) {
                ::core::result::Result::Ok(value) => value,
                ::core::result::Result::Err(fault) => {
                    return ::core::result::Result::Err(#sdk::Fault::message(fault, #name));
                }
            }
        }
    });
    Ok(quote! {
        impl #impl_lifetime ::walgate_guest::columns::Columns<#lifetime> for #struct_name #type_generics {
            type Views = (#(#views,)*);

            fn reads(
                table: &::walgate_guest::Table,
            ) -> ::core::result::Result<::std::vec::Vec<::walgate_guest::Read>, ::std::string::String> {
                ::core::result::Result::Ok(::std::vec![#(#reads),*])
            }

            fn open(batch: &#lifetime ::walgate_guest::batch::Batch<#lifetime>) -> ::core::option::Option<Self::Views> {
                let columns = batch.columns();
                if columns.len() != #count {
                    return ::core::option::Option::None;
                }
                ::core::option::Option::Some((#(#opens,)*))
            }

            #[inline]
            fn read(views: &Self::Views, row: usize) -> ::core::result::Result<Self, ::std::string::String> {
                ::core::result::Result::Ok(#struct_name { #(#gets),* })
            }
        }
    })
}

/// The fields of a struct, for both derives. Each must have a name.
pub fn named_fields(input: &DeriveInput) -> Result<Vec<&Field>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(fields.named.iter().collect()),
            _ => Err(Error::new_spanned(
                &input.ident,
                "a struct with named fields is needed: each is a name",
            )),
        },
        _ => Err(Error::new_spanned(&input.ident, "a struct is needed")),
    }
}

fn only_lifetime(input: &DeriveInput) -> Result<Option<&Lifetime>> {
    let mut parameters = input.generics.params.iter();
    let lifetime = match parameters.next() {
        None => return Ok(None),
        Some(GenericParam::Lifetime(parameter)) => &parameter.lifetime,
        Some(other) => return Err(Error::new_spanned(other, ONE_LIFETIME)),
    };
    match parameters.next() {
        None => Ok(Some(lifetime)),
        Some(other) => Err(Error::new_spanned(other, ONE_LIFETIME)),
    }
}

const ONE_LIFETIME: &str =
    "columns take at most one lifetime, that of the batch they are read from, and no types";

fn column_name(field: &Field) -> Result<String> {
    let attribute = field.attrs.iter().find(|attribute| attribute.path().is_ident("column"));
    match (attribute, &field.ident) {
        (Some(attribute), _) => Ok(attribute.parse_args::<LitStr>()?.value()),
        (None, Some(ident)) => Ok(ident.unraw().to_string()),
        (None, None) => Ok(format_ident!("_").to_string()),
    }
}

//! From a struct or enum to an error that crosses the wire and comes back as what it was.
//!
//! The ERROR of lymph is a map with `type` and `message`; further keys are allowed there and carry the fields.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Fields, Ident, Result};

/// A struct, or one variant of an enum.
struct Shape<'a> {
    /// The error's name on the wire.
    kind: String,
    /// How it is written in Rust.
    path: TokenStream,
    fields: &'a Fields,
}

/// Expands `#[derive(Declared)]`.
pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    if let Some(parameter) = item.generics.params.first() {
        return Err(Error::new_spanned(
            parameter,
            "a declared error has no generic parameters: the caller must know it",
        ));
    }
    let ident = &item.ident;
    let shapes: Vec<Shape<'_>> = match &item.data {
        Data::Struct(data) => {
            vec![Shape {
                kind: ident.unraw().to_string(),
                path: quote!(#ident),
                fields: &data.fields,
            }]
        }
        Data::Enum(data) if data.variants.is_empty() => {
            return Err(Error::new_spanned(ident, "an error without variants can never be raised"));
        }
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                let name = &variant.ident;
                let kind = name.unraw().to_string();
                Shape { kind, path: quote!(#ident::#name), fields: &variant.fields }
            })
            .collect(),
        Data::Union(_) => {
            return Err(Error::new_spanned(ident, "a declared error is a struct or an enum"));
        }
    };
    let kinds = shapes.iter().map(|shape| &shape.kind);
    let to = shapes.iter().map(to_fault);
    let from = shapes.iter().map(from_fault);
    Ok(quote! {
        #[automatically_derived]
        impl ::hilum_worker::Declared for #ident {
            const KINDS: &'static [&'static str] = &[#(#kinds),*];

            fn fault(&self) -> ::hilum_worker::Fault {
                let message = ::hilum_worker::__private::message(self);
                match self { #(#to)* }
            }
        }

        #[automatically_derived]
        impl ::hilum_worker::Raised for #ident {
            fn from_fault(fault: &::hilum_worker::Fault) -> ::core::option::Option<Self> {
                match fault.kind() {
                    #(#from)*
                    _ => ::core::option::Option::None,
                }
            }
        }
    })
}

/// The fields of a shape: what they are bound to, and their names on the wire.
fn names(fields: &Fields) -> Vec<(Ident, String)> {
    let name = |(index, field): (usize, &syn::Field)| match &field.ident {
        Some(ident) => (format_ident!("field_{}", ident.unraw()), ident.unraw().to_string()),
        None => (format_ident!("field_{index}"), index.to_string()),
    };
    fields.iter().enumerate().map(name).collect()
}

/// The pattern, or the expression, that names all fields.
fn braces(shape: &Shape<'_>) -> TokenStream {
    let path = &shape.path;
    let members = shape.fields.members();
    let bound = names(shape.fields).into_iter().map(|(ident, _)| ident);
    quote!(#path { #(#members: #bound),* })
}

fn to_fault(shape: &Shape<'_>) -> TokenStream {
    let (kind, braces) = (&shape.kind, braces(shape));
    let (bound, keys): (Vec<Ident>, Vec<String>) =
        names(shape.fields).into_iter().filter(|(_, key)| key != "message").unzip();
    let ignored =
        names(shape.fields).into_iter().filter(|(_, key)| key == "message").map(|(ident, _)| ident);
    quote! {
        #braces => {
            #(let _ = #ignored;)*
            ::hilum_worker::Fault::new(#kind, message) #(.with(#keys, #bound))*
        }
    }
}

fn from_fault(shape: &Shape<'_>) -> TokenStream {
    let (kind, braces) = (&shape.kind, braces(shape));
    let bound = names(shape.fields)
        .into_iter()
        .map(|(ident, key)| quote!(let #ident = fault.field(#key)?;));
    quote! {
        #kind => {
            #(#bound)*
            ::core::option::Option::Some(#braces)
        }
    }
}

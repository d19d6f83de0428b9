//! From methods to a struct with the same methods, which calls them elsewhere.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Error, Ident, ItemTrait, Result, TraitItem, Type, Visibility};

use crate::method::{self, Kind, Method, Wrong};

/// Expands `#[proxy]`: the trait is only a description and is not kept. What is wrong in it is kept in `wrong`.
///
/// # Errors
/// When no proxy can be made of it at all.
pub(crate) fn expand_trait(item: &ItemTrait, wrong: &mut Wrong) -> Result<TokenStream> {
    if let Some(parameter) = item.generics.params.first() {
        return Err(Error::new_spanned(parameter, "a proxy has no generic parameters"));
    }
    let methods: Vec<Method> =
        item.items.iter().filter_map(|member| wrong.unless(method(member))).collect();
    let name = format_ident!("{}Proxy", item.ident.unraw());
    let doc = method::help(&item.attrs);
    Ok(expand(&item.vis, &name, &doc, &methods))
}

fn method(member: &TraitItem) -> Result<Method> {
    let TraitItem::Fn(function) = member else {
        return Err(Error::new_spanned(member, "a proxy's trait has methods only"));
    };
    if let Some(body) = &function.default {
        return Err(Error::new_spanned(body, "the service has the body: end the method with `;`"));
    }
    Method::of_trait(&function.attrs, &function.sig)
}

/// The struct and its methods.
pub(crate) fn expand(vis: &Visibility, name: &Ident, doc: &str, methods: &[Method]) -> TokenStream {
    let errors = methods.iter().filter_map(|method| error_enum(vis, name, method));
    let calls = methods.iter().map(|method| call(vis, name, method));
    quote! {
        #[doc = #doc]
        ///
        /// Made of a `Proxy`, which says which service is meant, and how long is waited.
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "generated: not every caller needs every method")]
        #vis struct #name {
            proxy: ::hilum_worker::Proxy,
        }

        #[automatically_derived]
        impl ::core::convert::From<::hilum_worker::Proxy> for #name {
            fn from(proxy: ::hilum_worker::Proxy) -> Self {
                Self { proxy }
            }
        }

        #[automatically_derived]
        #[allow(
            dead_code, clippy::all, clippy::pedantic,
            reason = "generated: it is as the service's methods are"
        )]
        impl #name {
            #(#calls)*
        }

        #(#errors)*
    }
}

fn call(vis: &Visibility, proxy: &Ident, method: &Method) -> TokenStream {
    let Method { ident, name, help, .. } = method;
    let idents: Vec<&Ident> = method.parameters().map(|parameter| &parameter.ident).collect();
    let types: Vec<_> = method.parameters().map(|parameter| &parameter.ty).collect();
    let error = match method.raises.as_slice() {
        [] => quote!(::hilum_worker::Undeclared),
        [one] => quote!(#one),
        _ => {
            let several = error_name(proxy, method);
            quote!(#several)
        }
    };
    // A raw method acknowledges or answers anything: its value is taken as it comes.
    let value = match method.kind {
        Kind::Rpc => {
            let value = owned(&method.output.value);
            quote!(#value)
        }
        _ => quote!(::hilum_worker::Value),
    };
    let arguments = arguments(method);
    quote! {
        #[doc = #help]
        #vis async fn #ident(&self, #(#idents: #types),*)
            -> ::core::result::Result<#value, ::hilum_worker::CallError<#error>>
        {
            self.proxy.call_typed(#name, &#arguments).await
        }
    }
}

/// What a method is called with, as one value. What is not given is not sent: then the other side's own default holds.
pub(crate) fn arguments(method: &Method) -> TokenStream {
    let idents = method.parameters().map(|parameter| &parameter.ident);
    let fields = method.parameters().map(|parameter| {
        let (ident, ty) = (&parameter.ident, &parameter.ty);
        let skip = parameter
            .optional
            .then(|| quote!(#[serde(skip_serializing_if = "::core::option::Option::is_none")]));
        quote!(#skip #ident: #ty)
    });
    quote! {{
        #[derive(::hilum_worker::__private::serde::Serialize)]
        #[serde(crate = "::hilum_worker::__private::serde")]
        struct Arguments { #(#fields),* }
        Arguments { #(#idents),* }
    }}
}

/// What a caller gets of a value that the method only lends.
fn owned(ty: &Type) -> Type {
    match ty {
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => {
                syn::parse_quote!(::std::string::String)
            }
            Type::Slice(slice) => {
                let element = &slice.elem;
                syn::parse_quote!(::std::vec::Vec<#element>)
            }
            other => other.clone(),
        },
        other => other.clone(),
    }
}

fn error_name(proxy: &Ident, method: &Method) -> Ident {
    let stem = proxy.to_string();
    let stem = stem.strip_suffix("Proxy").unwrap_or(&stem);
    let words = method.ident.unraw().to_string();
    let camel: String = words.split('_').map(capital).collect();
    format_ident!("{stem}{camel}Error", span = method.ident.span())
}

fn capital(word: &str) -> String {
    let mut characters = word.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The one error of a method that raises several.
fn error_enum(vis: &Visibility, proxy: &Ident, method: &Method) -> Option<TokenStream> {
    if method.raises.len() < 2 {
        return None;
    }
    let name = error_name(proxy, method);
    let doc = format!("What `{}` raises.", method.name);
    let types = &method.raises;
    let variants: Vec<Ident> = (1..=types.len()).map(|n| variant(&types[n - 1], n)).collect();
    Some(quote! {
        #[doc = #doc]
        #[derive(Debug)]
        #[allow(dead_code, missing_docs, reason = "generated: the variants are the errors by their names")]
        #vis enum #name { #(#variants(#types)),* }

        #[automatically_derived]
        impl ::core::fmt::Display for #name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self { #(Self::#variants(error) => ::core::fmt::Display::fmt(error, f)),* }
            }
        }

        #[automatically_derived]
        impl ::core::error::Error for #name {}

        #[automatically_derived]
        impl ::hilum_worker::Raised for #name {
            fn from_fault(fault: &::hilum_worker::Fault) -> ::core::option::Option<Self> {
                #(
                    if let ::core::option::Option::Some(error) =
                        <#types as ::hilum_worker::Raised>::from_fault(fault)
                    {
                        return ::core::option::Option::Some(Self::#variants(error));
                    }
                )*
                ::core::option::Option::None
            }
        }
    })
}

fn variant(ty: &Type, n: usize) -> Ident {
    match ty {
        Type::Path(path) => match path.path.segments.last() {
            Some(segment) => segment.ident.clone(),
            None => format_ident!("Error{n}"),
        },
        _ => format_ident!("Error{n}"),
    }
}

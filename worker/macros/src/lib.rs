//! The attributes of `hilum-worker`. Use them from there, where they are documented.
//!
//! ```text
//! impl Echo { #[rpc] … }  ─ method ─► what the author wrote, checked ─┬─ interface ─► impl Interface for Echo (with what `handler` makes)
//! trait Billing { … }     ─ method ─►                                 └─ proxy ─────► struct EchoProxy
//! enum EchoError { … }    ─ declared ─► impl Declared for EchoError
//! ```
//!
//! Everything generated is written in paths that begin with `::hilum_worker`, so that nothing of the author's is in the way.

mod declared;
mod handler;
mod interface;
mod method;
mod proxy;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use syn::parse_macro_input;

use self::method::Wrong;

/// Makes an `impl` block an interface; see `hilum_worker::interface`.
#[proc_macro_attribute]
pub fn interface(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::ItemImpl);
    let mut wrong = Wrong::default();
    let options = wrong.unless(syn::parse(attribute)).unwrap_or_default();
    let expanded = interface::expand(options, item, &mut wrong);
    let mut tokens = wrong.unless(expanded).unwrap_or_default();
    tokens.extend(wrong.shown());
    tokens.into()
}

/// Makes a trait a typed proxy of a service that is written elsewhere; see `hilum_worker::proxy`.
#[proc_macro_attribute]
pub fn proxy(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let _nothing = parse_macro_input!(attribute as syn::parse::Nothing);
    let item = parse_macro_input!(item as syn::ItemTrait);
    let mut wrong = Wrong::default();
    let expanded = proxy::expand_trait(&item, &mut wrong);
    let mut tokens = wrong.unless(expanded).unwrap_or_default();
    tokens.extend(wrong.shown());
    tokens.into()
}

/// Lets a struct or enum cross the wire as an ERROR; see `hilum_worker::Declared`.
#[proc_macro_derive(Declared)]
pub fn declared(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    declared::expand(&item).unwrap_or_else(syn::Error::into_compile_error).into()
}

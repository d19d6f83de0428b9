//! What an author is told about a mistake. (What compiles is tested in `hilum-worker`.)

use proc_macro2::TokenStream;
use quote::quote;

use crate::method::Wrong;
use crate::{declared, interface, proxy};

/// The messages of the errors that these tokens are refused with, a line each.
fn refused(attribute: TokenStream, item: TokenStream) -> String {
    let expand = || {
        let mut wrong = Wrong::default();
        interface::expand(syn::parse2(attribute)?, syn::parse2(item)?, &mut wrong)?;
        wrong.or(())
    };
    said(&expand().expect_err("it was taken"))
}

fn said(error: &syn::Error) -> String {
    error.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join("\n")
}

/// The message for a method in an otherwise good `impl`.
fn method(method: TokenStream) -> String {
    refused(quote!(), quote! { impl Echo { #method } })
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

#[test]
fn receivers() {
    assert_says(&method(quote! { #[rpc] async fn f(&mut self) {} }), &["`&self`", "`Mutex`"]);
    assert_says(&method(quote! { #[rpc] async fn f(self) {} }), &["`&self`"]);
    assert_says(&method(quote! { #[rpc] async fn f(text: String) {} }), &["`&self`"]);
}

#[test]
fn parameters() {
    assert_says(
        &method(quote! { #[rpc] async fn f(&self, text: &str) {} }),
        &["`String` for `&str`"],
    );
    assert_says(&method(quote! { #[rpc] async fn f(&self, ctx: Context) {} }), &["`&Context`"]);
    assert_says(&method(quote! { #[rpc] async fn f(&self, (a, b): (u8, u8)) {} }), &["has a name"]);
    assert_says(
        &method(quote! { #[rpc] async fn f(&self, a: impl Into<String>) {} }),
        &["one type"],
    );
    assert_says(
        &method(quote! { #[rpc] async fn f<T>(&self, a: T) {} }),
        &["no generic parameters"],
    );
}

#[test]
fn channels() {
    assert_says(
        &method(quote! { #[rpc] async fn f(&self, c: ReplyChannel) {} }),
        &["`#[raw_rpc]`"],
    );
    assert_says(&method(quote! { #[raw_rpc] async fn f(&self) {} }), &["`channel: ReplyChannel`"]);
    let both = quote! { #[rpc] #[raw_rpc] async fn f(&self, c: ReplyChannel) {} };
    assert_says(&method(both), &["is enough"]);
}

#[test]
fn options() {
    assert_says(
        &method(quote! { #[rpc(raise(A))] async fn f(&self) {} }),
        &["`raises(…)`", "`name ="],
    );
    assert_says(
        &method(quote! { #[rpc(raises(A))] async fn f(&self) -> u8 { 1 } }),
        &["returns a `Result`"],
    );
    assert_says(&method(quote! { #[rpc(name = "a.b")] async fn f(&self) {} }), &["no dots"]);
    let raw = quote! { #[raw_rpc(raises(A))] async fn f(&self, c: ReplyChannel) {} };
    assert_says(&method(raw), &["`channel.error(…)`"]);
    let twice = quote! { #[rpc] async fn f(&self) {} #[rpc(name = "f")] async fn g(&self) {} };
    assert_says(&method(twice), &["another method `f`"]);
    assert_says(&refused(quote!(configuration = A), quote!(impl Echo {})), &["`config = Type`"]);
}

#[test]
fn hooks() {
    assert_says(
        &method(quote! { async fn on_start(&mut self) {} }),
        &["async fn on_start(&self, ctx: &Context) -> Result<()>"],
    );
    assert_says(
        &method(quote! { async fn on_stop(&self, a: u8, b: u8) {} }),
        &["async fn on_stop(&self, ctx: &Context)"],
    );
    assert_says(&method(quote! { async fn on_stop(&self) -> Result<()> {} }), &["log it"]);
    assert_says(
        &method(quote! { async fn from_config(c: C) -> Self {} }),
        &["fn from_config(config: …) -> Result<Echo>"],
    );
    assert_says(
        &method(quote! { fn is_healthy(&self, ctx: &Context) -> bool {} }),
        &["fn is_healthy(&self) -> bool"],
    );
}

#[test]
fn a_hook_that_must_not_wait_is_named_with_its_form() {
    let said = method(quote! { async fn is_healthy(&self) -> bool { true } });
    assert_says(&said, &["write `fn is_healthy(&self) -> bool`, which waits for nothing"]);
}

/// One mistake at a time takes a compiler's run each; without the implementation each is followed by one of `main!`.
#[test]
fn all_mistakes_are_told_at_once_and_the_rest_is_implemented() {
    let item = quote! {
        impl Echo {
            #[rpc] async fn first(&mut self) {}
            #[rpc] async fn good(&self, text: String) -> String { text }
            #[rpc] async fn second(&self, a: &str, b: &[u8]) {}
            async fn is_healthy(&self) -> bool { true }
        }
    };
    let mut wrong = Wrong::default();
    let item = syn::parse2(item).expect("an impl");
    let text = interface::expand(interface::Options::default(), item, &mut wrong);
    let text = text.expect("expanded").to_string();
    let said = said(&wrong.or(()).expect_err("it was taken"));
    assert_eq!(said.lines().count(), 4, "{said}");
    assert_says(&text, &["impl :: hilum_worker :: Interface for Echo", "name : \"good\""]);
    assert!(!text.contains("name : \"second\"") && !text.contains("# [rpc]"), "{text}");
}

#[test]
fn blocks() {
    assert_says(&refused(quote!(), quote!(impl Clone for Echo {})), &["not that of a trait"]);
    assert_says(
        &refused(
            quote!(),
            quote!(
                impl<T> Echo<T> {}
            ),
        ),
        &["no generic parameters"],
    );
    let with_body: syn::ItemTrait = syn::parse_quote! { trait Echo { async fn f(&self) {} } };
    let mut wrong = Wrong::default();
    proxy::expand_trait(&with_body, &mut wrong).expect("a proxy of the rest");
    assert_says(&said(&wrong.or(()).expect_err("taken")), &["end the method with `;`"]);
    let union: syn::DeriveInput = syn::parse_quote! { enum E {} };
    assert_says(
        &declared::expand(&union).expect_err("taken").to_string(),
        &["can never be raised"],
    );
}

#[test]
fn what_is_not_marked_is_the_authors_own() {
    let item = syn::parse_quote! {
        impl Echo {
            const N: usize = 3;
            fn helper(&mut self, text: &str) -> usize { text.len() }
        }
    };
    let options = syn::parse2(quote!()).expect("options");
    let mut wrong = Wrong::default();
    let text = interface::expand(options, item, &mut wrong).expect("expanded").to_string();
    wrong.or(()).expect("nothing wrong");
    assert!(
        text.contains("helper")
            && text.contains("METHODS : & 'static [:: hilum_worker :: Method] = & []"),
        "{text}"
    );
}

#[test]
fn handlers() {
    assert_says(&method(quote! { #[event] async fn f(&self) {} }), &["says which events"]);
    assert_says(&method(quote! { #[event("a", often)] async fn f(&self) {} }), &["`retry = N`"]);
    let empty = method(quote! { #[event("")] async fn f(&self) {} });
    assert_says(&empty, &["the type of an event has 1 to 255 bytes, this one has 0"]);
    let gap = method(quote! { #[event("a..b")] async fn f(&self) {} });
    assert_says(&gap, &["`a..b` is no type of an event", "none of them empty"]);
    let queue = method(quote! { #[event("a", queue = "")] async fn f(&self) {} });
    assert_says(&queue, &["the name of a queue has 1 to 255 bytes"]);
    assert_says(
        &method(quote! { #[event("a", prefetch = 0)] async fn f(&self) {} }),
        &["1 to 1000"],
    );
    assert_says(&method(quote! { #[task("a")] async fn f(&self) {} }), &["expected"]);
    assert_says(&method(quote! { #[task(once)] async fn f(&self) {} }), &["`sequential`"]);
    assert_says(
        &method(quote! { #[event("a")] async fn f(&self, c: ReplyChannel) {} }),
        &["nobody waits"],
    );
    assert_says(&method(quote! { #[event("a")] #[task] async fn f(&self) {} }), &["is enough"]);
    assert_says(
        &method(quote! { #[event("a", once, retry = 1)] async fn f(&self) {} }),
        &["leave out `retry`"],
    );
}

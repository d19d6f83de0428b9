//! From event handlers and tasks to the part of `impl Interface` that is told of events, and a typed handle that queues tasks.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Ident, Type, Visibility};

use crate::method::{Argument, Kind, Method};
use crate::proxy::arguments;

/// The table of handlers and their arms; nothing where there are none.
pub(crate) fn implementation(ty: &Type, handlers: &[Method]) -> TokenStream {
    if handlers.is_empty() {
        return TokenStream::new();
    }
    let table = handlers.iter().map(entry);
    let arms = handlers.iter().enumerate().map(|(index, method)| arm(index, ty, method));
    quote! {
        const HANDLERS: &'static [::hilum_worker::EventHandler] = &[#(#table),*];

        fn handle(
            self: ::std::sync::Arc<Self>,
            call: ::hilum_worker::EventCall,
        ) -> ::hilum_worker::__private::Answer {
            match call.index() {
                #(#arms)*
                _ => ::std::boxed::Box::pin(async {
                    ::core::result::Result::Err(::hilum_worker::__private::Failure::Unknown)
                }),
            }
        }
    }
}

fn entry(method: &Method) -> TokenStream {
    let Method { name, help, handling, .. } = method;
    let patterns = &handling.patterns;
    let option = |value: Option<TokenStream>| match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    };
    let queue = option(handling.queue.as_ref().map(|queue| quote!(#queue)));
    let prefetch = option(handling.prefetch.map(|prefetch| quote!(#prefetch)));
    let (sequential, broadcast, once) = (handling.sequential, handling.broadcast, handling.once);
    let (retry, task) = (handling.retry, method.kind == Kind::Task);
    let parameters = method.parameters().map(|parameter| parameter.ident.unraw().to_string());
    let optional = method.parameters().map(|parameter| parameter.optional);
    quote! {
        ::hilum_worker::EventHandler {
            name: #name,
            patterns: &[#(#patterns),*],
            queue: #queue,
            sequential: #sequential,
            broadcast: #broadcast,
            once: #once,
            retry: #retry,
            prefetch: #prefetch,
            task: #task,
            parameters: &[#(::hilum_worker::Parameter { name: #parameters, optional: #optional }),*],
            help: #help,
        }
    }
}

/// The arm of one handler: what it takes of the body, by name, and the author's function.
fn arm(index: usize, ty: &Type, method: &Method) -> TokenStream {
    let ident = &method.ident;
    let idents: Vec<&Ident> = method.parameters().map(|parameter| &parameter.ident).collect();
    let types = method.parameters().map(|parameter| &parameter.ty);
    let arguments = method.arguments.iter().map(|argument| match argument {
        Argument::Context => quote!(context),
        Argument::Channel => quote!(channel),
        Argument::Event { lent: true } => quote!(&*event),
        Argument::Event { lent: false } => quote!((*event).clone()),
        Argument::Parameter(parameter) => {
            let ident = &parameter.ident;
            quote!(#ident)
        }
    });
    // A task is ours alone: what it does not know is a mistake. An event may tell more than a handler needs.
    let strict = (method.kind == Kind::Task).then(|| quote!(#[serde(deny_unknown_fields)]));
    let read = (!idents.is_empty()).then(|| {
        quote! {
            #[derive(::hilum_worker::__private::serde::Deserialize)]
            #[serde(crate = "::hilum_worker::__private::serde")]
            #strict
            struct Arguments { #(#idents: #types),* }
            let Arguments { #(#idents),* } = ::hilum_worker::__private::event_arguments(&event)?;
        }
    });
    let wait = method.is_async.then(|| quote!(.await));
    let called = quote!(<#ty>::#ident(&*self, #(#arguments),*) #wait);
    let answer = if method.output.fallible {
        quote! {
            match #called {
                ::core::result::Result::Ok(_) => ::core::result::Result::Ok(()),
                ::core::result::Result::Err(error) => ::core::result::Result::Err(
                    ::hilum_worker::__private::failed(::core::convert::Into::into(error), &[]),
                ),
            }
        }
    } else {
        quote! {{
            #called;
            ::core::result::Result::Ok(())
        }}
    };
    quote! {
        #index => ::std::boxed::Box::pin(async move {
            let (context, event) = call.open();
            let context = &context;
            #read
            #answer
        }),
    }
}

/// `EchoTasks`: a method for each task, which puts it into the queue.
pub(crate) fn tasks(vis: &Visibility, ident: &Ident, handlers: &[Method]) -> TokenStream {
    let tasks: Vec<&Method> = handlers.iter().filter(|method| method.kind == Kind::Task).collect();
    if tasks.is_empty() {
        return TokenStream::new();
    }
    let name = format_ident!("{}Tasks", ident.unraw());
    let doc = format!("Puts tasks of an `{ident}` into their queue.");
    let methods = tasks.iter().map(|method| {
        let Method { ident, name, help, .. } = method;
        let idents: Vec<&Ident> = method.parameters().map(|parameter| &parameter.ident).collect();
        let types = method.parameters().map(|parameter| &parameter.ty);
        let arguments = arguments(method);
        quote! {
            #[doc = #help]
            #vis fn #ident(&self, #(#idents: #types),*) -> ::hilum_worker::Emit {
                self.context.task(#name, &#arguments)
            }
        }
    });
    quote! {
        #[doc = #doc]
        ///
        /// Made of a context of that interface; each is queued when it is awaited.
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "generated: not every interface queues its own tasks")]
        #vis struct #name {
            context: ::hilum_worker::Context,
        }

        #[automatically_derived]
        impl ::core::convert::From<&::hilum_worker::Context> for #name {
            fn from(context: &::hilum_worker::Context) -> Self {
                Self { context: ::core::clone::Clone::clone(context) }
            }
        }

        #[automatically_derived]
        #[allow(
            dead_code, clippy::all, clippy::pedantic,
            reason = "generated: it is as the tasks are"
        )]
        impl #name {
            #(#methods)*
        }
    }
}

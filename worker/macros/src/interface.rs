//! From an `impl` block to `impl Interface` and a typed proxy.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Error, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, Result, ReturnType, Token, Type,
    Visibility,
};

use crate::handler;
use crate::method::{self, Argument, Kind, Method, Wrong};
use crate::proxy;

/// What stands in `#[interface(…)]`.
#[derive(Debug)]
pub(crate) struct Options {
    config: Option<Type>,
    proxy: Visibility,
}

impl Default for Options {
    fn default() -> Self {
        Self { config: None, proxy: syn::parse_quote!(pub(crate)) }
    }
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            input.parse::<Token![=]>()?;
            match key.to_string().as_str() {
                "config" => options.config = Some(input.parse()?),
                "proxy" => options.proxy = input.parse()?,
                _ => {
                    return Err(Error::new(
                        key.span(),
                        "known are `config = Type` and `proxy = pub`",
                    ));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

/// The hooks that an author may write beside the methods.
#[derive(Debug, Default)]
struct Hooks {
    create: Option<TokenStream>,
    start: Option<TokenStream>,
    stop: Option<TokenStream>,
    healthy: Option<TokenStream>,
}

/// Expands `#[interface]`: what the author wrote, an implementation of what is right in it, and what is wrong, which is kept in `wrong`.
///
/// With the implementation `main!` and the callers have no errors of their own, which would hide the author's.
///
/// # Errors
/// When there is nothing to implement it for.
pub(crate) fn expand(
    options: Options,
    mut item: ItemImpl,
    wrong: &mut Wrong,
) -> Result<TokenStream> {
    if let Some((_, path, _)) = &item.trait_ {
        return Err(Error::new_spanned(
            path,
            "an interface is the type's own `impl`, not that of a trait",
        ));
    }
    if let Some(parameter) = item.generics.params.first() {
        return Err(Error::new_spanned(parameter, "an interface has no generic parameters"));
    }
    let ty = (*item.self_ty).clone();
    let Type::Path(path) = &ty else {
        return Err(Error::new_spanned(&ty, "an interface is the `impl` of a struct"));
    };
    let Some(ident) = path.path.segments.last().map(|segment| segment.ident.clone()) else {
        return Err(Error::new_spanned(&ty, "an interface is the `impl` of a struct"));
    };

    let mut methods: Vec<Method> = Vec::new();
    let mut hooks = Hooks::default();
    for member in &mut item.items {
        let ImplItem::Fn(function) = member else { continue };
        match wrong.unless(Method::read(&function.attrs, &function.sig)) {
            Some(Some(method)) if methods.iter().any(|other| other.name == method.name) => {
                let message = format!("there is another method `{}`", method.name);
                wrong.unless(Err::<(), _>(Error::new_spanned(&function.sig.ident, message)));
            }
            Some(Some(method)) => methods.push(method),
            Some(None) => {
                wrong.unless(hook(&ident, &ty, function, &mut hooks));
            }
            None => {}
        }
        function.attrs.retain(|attribute| method::kind_of(attribute).is_none());
    }

    item.attrs.push(syn::parse_quote! {
        #[allow(
            clippy::unused_async, clippy::needless_pass_by_value,
            reason = "a method is async and owns its arguments, whatever it does with them"
        )]
    });
    let (calls, handlers): (Vec<Method>, Vec<Method>) =
        methods.into_iter().partition(|method| method.kind.is_call());
    let interface = implementation(&options, &ident, &ty, &calls, &handlers, &hooks);
    let name = format_ident!("{}Proxy", ident.unraw());
    let doc = format!("Calls an `{ident}` elsewhere.");
    let proxy = proxy::expand(&options.proxy, &name, &doc, &calls);
    let tasks = handler::tasks(&options.proxy, &ident, &handlers);
    Ok(quote! { #item #interface #proxy #tasks })
}

/// Reads a function that is no method: a hook, or the author's own business.
fn hook(ident: &Ident, ty: &Type, function: &ImplItemFn, hooks: &mut Hooks) -> Result<()> {
    let signature = &function.sig;
    let name = signature.ident.to_string();
    if !matches!(name.as_str(), "on_start" | "on_stop" | "from_config" | "is_healthy") {
        return Ok(());
    }
    let called = &signature.ident;
    let wait = signature.asyncness.map(|_| quote!(.await));
    let has_self = matches!(signature.inputs.first(), Some(FnArg::Receiver(_)));
    let fallible = match &signature.output {
        ReturnType::Default => false,
        ReturnType::Type(_, ty) => method::last_is(ty, "Result"),
    };
    if name == "from_config" {
        if has_self || signature.inputs.len() != 1 || signature.asyncness.is_some() {
            return Err(Error::new_spanned(
                signature,
                format!(
                    "write `fn from_config(config: …) -> Result<{ident}>`; what takes time belongs in `on_start`"
                ),
            ));
        }
        let call = quote!(<#ty>::#called(config));
        hooks.create = Some(if fallible {
            quote!(#call.map_err(::core::convert::Into::into))
        } else {
            quote!(::core::result::Result::Ok(#call))
        });
        return Ok(());
    }
    let mutable = matches!(signature.inputs.first(), Some(FnArg::Receiver(receiver)) if receiver.mutability.is_some());
    let plain = name == "is_healthy";
    let wanted = if plain { 1 } else { 2 };
    if !has_self
        || mutable
        || signature.inputs.len() > wanted
        || (plain && signature.asyncness.is_some())
    {
        let form = match name.as_str() {
            "is_healthy" => {
                "fn is_healthy(&self) -> bool`, which waits for nothing: what takes time belongs in a task that keeps the answer, `async fn on_start(&self, ctx: &Context) -> Result<()>"
            }
            "on_stop" => "async fn on_stop(&self, ctx: &Context)",
            _ => "async fn on_start(&self, ctx: &Context) -> Result<()>",
        };
        return Err(Error::new_spanned(signature, format!("write `{form}`")));
    }
    let context = (signature.inputs.len() == 2).then(|| quote!(context));
    let call = quote!(<#ty>::#called(self, #context) #wait);
    match name.as_str() {
        "on_start" if fallible => {
            hooks.start = Some(quote!(#call.map_err(::core::convert::Into::into)));
        }
        "on_start" => hooks.start = Some(quote!({ #call; ::core::result::Result::Ok(()) })),
        "on_stop" if fallible => {
            return Err(Error::new_spanned(
                &signature.output,
                "nobody is left to take the error: log it",
            ));
        }
        "on_stop" => hooks.stop = Some(quote!({ #call; })),
        _ => hooks.healthy = Some(call),
    }
    Ok(())
}

fn implementation(
    options: &Options,
    ident: &Ident,
    ty: &Type,
    methods: &[Method],
    handlers: &[Method],
    hooks: &Hooks,
) -> TokenStream {
    let handlers = handler::implementation(ty, handlers);
    let name = ident.unraw().to_string();
    let config = match &options.config {
        Some(config) => quote!(#config),
        None => quote!(::hilum_worker::NoConfig),
    };
    let create = match (&hooks.create, &options.config) {
        (Some(create), _) => create.clone(),
        (None, Some(config)) => quote_spanned! { config.span() => {
            let mut this = <#ty as ::core::default::Default>::default();
            this.config = config;
            ::core::result::Result::Ok(this)
        }},
        (None, None) => quote_spanned! { ident.span() => {
            let _ = config;
            ::core::result::Result::Ok(<#ty as ::core::default::Default>::default())
        }},
    };
    let table = methods.iter().map(table_entry);
    let arms = methods.iter().enumerate().map(|(index, method)| arm(index, ty, method));
    let start = hooks.start.as_ref().map(|body| {
        quote! {
            async fn start(&self, context: &::hilum_worker::Context)
                -> ::core::result::Result<(), ::hilum_worker::Error>
            {
                #body
            }
        }
    });
    let stop = hooks.stop.as_ref().map(|body| {
        quote! { async fn stop(&self, context: &::hilum_worker::Context) #body }
    });
    let healthy = hooks.healthy.as_ref().map(|body| quote! { fn healthy(&self) -> bool { #body } });
    quote! {
        #[automatically_derived]
        #[allow(
            clippy::all, clippy::pedantic, unused_variables, unused_mut,
            reason = "generated: it is as the author's methods are"
        )]
        impl ::hilum_worker::Interface for #ty {
            type Config = #config;
            const TYPE: &'static str = #name;
            const METHODS: &'static [::hilum_worker::Method] = &[#(#table),*];

            fn create(config: Self::Config) -> ::core::result::Result<Self, ::hilum_worker::Error> {
                #create
            }

            fn call(
                self: ::std::sync::Arc<Self>,
                call: ::hilum_worker::__private::Call,
            ) -> ::hilum_worker::__private::Answer {
                match call.index() {
                    #(#arms)*
                    _ => ::hilum_worker::__private::unknown(call),
                }
            }

            #handlers
            #start
            #stop
            #healthy
        }
    }
}

fn table_entry(method: &Method) -> TokenStream {
    let Method { name, help, raises, .. } = method;
    let parameters = method.parameters().map(|parameter| parameter.ident.unraw().to_string());
    let optional = method.parameters().map(|parameter| parameter.optional);
    quote! {
        ::hilum_worker::Method {
            name: #name,
            parameters: &[#(::hilum_worker::Parameter { name: #parameters, optional: #optional }),*],
            help: #help,
            raises: &[#(<#raises as ::hilum_worker::Declared>::KINDS),*],
        }
    }
}

/// The arm of one method: arguments by name, the author's function, its result as an answer.
fn arm(index: usize, ty: &Type, method: &Method) -> TokenStream {
    let Method { ident, raises, .. } = method;
    let idents: Vec<&Ident> = method.parameters().map(|parameter| &parameter.ident).collect();
    let types = method.parameters().map(|parameter| &parameter.ty);
    let arguments = method.arguments.iter().map(|argument| match argument {
        Argument::Context => quote!(context),
        Argument::Channel => quote!(channel),
        Argument::Event { .. } => quote!(event),
        Argument::Parameter(parameter) => {
            let ident = &parameter.ident;
            quote!(#ident)
        }
    });
    let wait = method.is_async.then(|| quote!(.await));
    let called = quote!(<#ty>::#ident(&*self, #(#arguments),*) #wait);
    let answer = match (method.kind, method.output.fallible) {
        (Kind::Rpc, true) => quote! {
            match #called {
                ::core::result::Result::Ok(value) => ::hilum_worker::__private::reply(&channel, &value),
                ::core::result::Result::Err(error) => ::core::result::Result::Err(
                    ::hilum_worker::__private::failed(
                        ::core::convert::Into::into(error),
                        &[#(::hilum_worker::__private::declared::<#raises>),*],
                    ),
                ),
            }
        },
        (Kind::Rpc, false) => quote!(::hilum_worker::__private::reply(&channel, &#called)),
        (_, true) => quote! {
            match #called {
                ::core::result::Result::Ok(_) => ::core::result::Result::Ok(()),
                ::core::result::Result::Err(error) => ::core::result::Result::Err(
                    ::hilum_worker::__private::failed(::core::convert::Into::into(error), &[]),
                ),
            }
        },
        // A raw one; handlers have arms of their own.
        (_, false) => quote! {{
            #called;
            ::core::result::Result::Ok(())
        }},
    };
    quote! {
        #index => ::std::boxed::Box::pin(async move {
            #[derive(::hilum_worker::__private::serde::Deserialize)]
            #[serde(crate = "::hilum_worker::__private::serde", deny_unknown_fields)]
            struct Arguments { #(#idents: #types),* }
            let (context, request, channel) = call.open();
            let context = &context;
            let Arguments { #(#idents),* } = ::hilum_worker::__private::arguments(&request)?;
            #answer
        }),
    }
}

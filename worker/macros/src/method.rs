//! One method as its author wrote it, checked, with messages that say what to write instead.

use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Ident, Lit, Meta, Pat, PathArguments,
    Result, ReturnType, Signature, Token, Type,
};

/// How a method answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `#[rpc]`: by what it returns.
    Rpc,
    /// `#[raw_rpc]`: by its `ReplyChannel`.
    Raw,
    /// `#[event(…)]`: not at all; it is told.
    Event,
    /// `#[task]`: not at all; it is queued.
    Task,
}

impl Kind {
    /// Whether somebody calls it and waits.
    pub(crate) fn is_call(self) -> bool {
        matches!(self, Self::Rpc | Self::Raw)
    }
}

/// What an argument of the Rust method is.
#[derive(Debug)]
pub(crate) enum Argument {
    /// The call's context.
    Context,
    /// The channel of a raw method.
    Channel,
    /// The event of a handler: lent, or its own.
    Event {
        /// Whether it is `&Event`.
        lent: bool,
    },
    /// A parameter of the call.
    Parameter(Box<Parameter>),
}

/// A parameter of the call.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// Its name in Rust, and on the wire without `r#`.
    pub(crate) ident: Ident,
    /// Its type.
    pub(crate) ty: Type,
    /// Whether it may be left out.
    pub(crate) optional: bool,
}

/// What a method returns.
#[derive(Debug)]
pub(crate) struct Output {
    /// The type of the value.
    pub(crate) value: Type,
    /// Whether it is a `Result`.
    pub(crate) fallible: bool,
}

/// Mistakes so far: an author is told all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Wrong(Option<Error>);

impl Wrong {
    /// The value; a mistake is kept.
    pub(crate) fn unless<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                match &mut self.0 {
                    Some(errors) => errors.combine(error),
                    none => *none = Some(error),
                }
                None
            }
        }
    }

    /// The value, if there was no mistake.
    pub(crate) fn or<T>(self, value: T) -> Result<T> {
        self.0.map_or(Ok(value), Err)
    }

    /// The mistakes as the compiler shows them; nothing where there are none.
    pub(crate) fn shown(self) -> proc_macro2::TokenStream {
        self.0.map(Error::into_compile_error).unwrap_or_default()
    }
}

/// A method that can be called from elsewhere.
#[derive(Debug)]
pub(crate) struct Method {
    /// Its name in Rust.
    pub(crate) ident: Ident,
    /// Its name on the wire.
    pub(crate) name: String,
    /// How it answers.
    pub(crate) kind: Kind,
    /// Its arguments after `&self`, in order.
    pub(crate) arguments: Vec<Argument>,
    /// The error types that cross the wire.
    pub(crate) raises: Vec<Type>,
    /// What it returns.
    pub(crate) output: Output,
    /// Whether it must be awaited.
    pub(crate) is_async: bool,
    /// Its documentation, dedented.
    pub(crate) help: String,
    /// How a handler is told.
    pub(crate) handling: Handling,
}

/// What stands in `#[event(…)]` and `#[task(…)]`.
#[derive(Debug, Default)]
pub(crate) struct Handling {
    pub(crate) patterns: Vec<String>,
    pub(crate) queue: Option<String>,
    pub(crate) sequential: bool,
    pub(crate) broadcast: bool,
    pub(crate) once: bool,
    pub(crate) retry: u32,
    pub(crate) prefetch: Option<u32>,
}

/// What stands in `#[rpc(…)]`.
#[derive(Debug, Default)]
struct Options {
    name: Option<String>,
    raises: Vec<Type>,
    handling: Handling,
}

impl Method {
    /// The method that these attributes and this signature declare; `None` when no attribute makes it one.
    pub(crate) fn read(attributes: &[Attribute], signature: &Signature) -> Result<Option<Self>> {
        let mut found = None;
        for attribute in attributes {
            let Some(kind) = kind_of(attribute) else { continue };
            if found.is_some() {
                return Err(Error::new_spanned(
                    attribute,
                    "one of `#[rpc]`, `#[raw_rpc]`, `#[event(…)]` and `#[task]` is enough",
                ));
            }
            let options = if kind.is_call() {
                options(attribute, kind)?
            } else {
                Options { handling: handling(attribute, kind)?, ..Options::default() }
            };
            found = Some((kind, options));
        }
        let Some((kind, options)) = found else { return Ok(None) };
        Self::new(kind, options, attributes, signature).map(Some)
    }

    /// A method of a trait, which needs no attribute.
    pub(crate) fn of_trait(attributes: &[Attribute], signature: &Signature) -> Result<Self> {
        match Self::read(attributes, signature)? {
            Some(method) if !method.kind.is_call() => Err(Error::new_spanned(
                &signature.ident,
                "nobody calls an event handler or a task: a proxy has methods that are called",
            )),
            Some(method) if method.kind == Kind::Raw => Err(Error::new_spanned(
                &signature.ident,
                "to a caller a raw method is like any other: write `#[rpc]`, or nothing",
            )),
            Some(method) => Ok(method),
            None => Self::new(Kind::Rpc, Options::default(), attributes, signature),
        }
    }

    fn new(
        kind: Kind,
        options: Options,
        attributes: &[Attribute],
        signature: &Signature,
    ) -> Result<Self> {
        if let Some(parameter) = signature.generics.params.first() {
            return Err(Error::new_spanned(
                parameter,
                "a method that is called from elsewhere has no generic parameters",
            ));
        }
        let arguments = arguments(kind, signature)?;
        let output = output(&signature.output);
        if kind == Kind::Rpc && !options.raises.is_empty() && !output.fallible {
            return Err(Error::new_spanned(
                &signature.ident,
                "a method with `raises(…)` returns a `Result`: its errors are looked for there",
            ));
        }
        let name = options.name.unwrap_or_else(|| signature.ident.unraw().to_string());
        if name.is_empty()
            || name.contains('.')
            || name.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(Error::new_spanned(
                &signature.ident,
                "a method's name has no dots or spaces: what follows the last dot of a subject is the method",
            ));
        }
        Ok(Self {
            ident: signature.ident.clone(),
            name,
            kind,
            arguments,
            raises: options.raises,
            output,
            is_async: signature.asyncness.is_some(),
            help: help(attributes),
            handling: options.handling,
        })
    }

    /// The parameters of the call, in order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Parameter(parameter) => Some(&**parameter),
            _ => None,
        })
    }
}

/// Whether an attribute is one of ours.
pub(crate) fn kind_of(attribute: &Attribute) -> Option<Kind> {
    let last = attribute.path().segments.last()?;
    match last.ident.to_string().as_str() {
        "rpc" => Some(Kind::Rpc),
        "raw_rpc" => Some(Kind::Raw),
        "event" => Some(Kind::Event),
        "task" => Some(Kind::Task),
        _ => None,
    }
}

fn options(attribute: &Attribute, kind: Kind) -> Result<Options> {
    let mut options = Options::default();
    if matches!(attribute.meta, Meta::Path(_)) {
        return Ok(options);
    }
    attribute.parse_nested_meta(|meta| {
        if meta.path.is_ident("name") {
            let name: syn::LitStr = meta.value()?.parse()?;
            options.name = Some(name.value());
            return Ok(());
        }
        if meta.path.is_ident("raises") {
            if kind == Kind::Raw {
                return Err(
                    meta.error("a raw method says its errors itself, by `channel.error(…)`")
                );
            }
            let content;
            syn::parenthesized!(content in meta.input);
            options.raises =
                Punctuated::<Type, Token![,]>::parse_terminated(&content)?.into_iter().collect();
            return Ok(());
        }
        Err(meta.error("known are `name = \"…\"` and `raises(…)`"))
    })?;
    Ok(options)
}

/// Reads `#[event("a.*", "b", sequential, retry = 3)]`, or `#[task(retry = 3)]`.
fn handling(attribute: &Attribute, kind: Kind) -> Result<Handling> {
    let mut handling = Handling::default();
    if !matches!(attribute.meta, Meta::Path(_)) {
        attribute.parse_args_with(|input: ParseStream<'_>| {
            while !input.is_empty() {
                handling_option(input, kind, &mut handling)?;
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        })?;
    }
    if kind == Kind::Event && handling.patterns.is_empty() {
        let message = "`#[event]` says which events: `#[event(\"order.paid\")]`, with `*` for one word and `#` for any number";
        return Err(Error::new_spanned(attribute, message));
    }
    if handling.once && handling.retry > 0 {
        return Err(Error::new_spanned(
            attribute,
            "what is handled once is not tried again: leave out `retry`",
        ));
    }
    Ok(handling)
}

fn handling_option(input: ParseStream<'_>, kind: Kind, handling: &mut Handling) -> Result<()> {
    let name = |what: &str, text: syn::LitStr| {
        let length = text.value().len();
        if (1..=255).contains(&length) {
            return Ok(text.value());
        }
        Err(Error::new(text.span(), format!("{what} has 1 to 255 bytes, this one has {length}")))
    };
    if kind == Kind::Event && input.peek(syn::LitStr) {
        let text: syn::LitStr = input.parse()?;
        let span = text.span();
        let pattern = name("the type of an event", text)?;
        if pattern.split('.').any(str::is_empty) {
            let message = format!(
                "`{pattern}` is no type of an event: that is words with dots between them, none of them empty, like `order.paid`"
            );
            return Err(Error::new(span, message));
        }
        handling.patterns.push(pattern);
        return Ok(());
    }
    let key = input.call(Ident::parse_any)?;
    match (key.to_string().as_str(), kind) {
        ("sequential", _) => handling.sequential = true,
        ("broadcast", Kind::Event) => handling.broadcast = true,
        ("once", Kind::Event) => handling.once = true,
        ("retry", _) => {
            input.parse::<Token![=]>()?;
            handling.retry = input.parse::<syn::LitInt>()?.base10_parse()?;
        }
        ("prefetch", _) => {
            input.parse::<Token![=]>()?;
            let number: syn::LitInt = input.parse()?;
            let prefetch = number.base10_parse()?;
            if !(1..=1000).contains(&prefetch) {
                return Err(Error::new(
                    number.span(),
                    "`prefetch` is from 1 to 1000 events at once",
                ));
            }
            handling.prefetch = Some(prefetch);
        }
        ("queue", Kind::Event) => {
            input.parse::<Token![=]>()?;
            handling.queue = Some(name("the name of a queue", input.parse()?)?);
        }
        (_, Kind::Event) => {
            let message = "known are types of events in quotes, `sequential`, `broadcast`, `once`, `retry = N`, `prefetch = N` and `queue = \"…\"`";
            return Err(Error::new(key.span(), message));
        }
        _ => {
            let message = "known are `sequential`, `retry = N` and `prefetch = N`";
            return Err(Error::new(key.span(), message));
        }
    }
    Ok(())
}

fn arguments(kind: Kind, signature: &Signature) -> Result<Vec<Argument>> {
    let mut inputs = signature.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver))
            if receiver.reference.is_some()
                && receiver.mutability.is_none()
                && receiver.colon_token.is_none() => {}
        other => {
            let message = "a method takes `&self` first: an interface answers several calls at once, so what changes belongs in a \
                           `Mutex` or an atomic";
            return Err(match other {
                Some(argument) => Error::new_spanned(argument, message),
                None => Error::new_spanned(&signature.ident, message),
            });
        }
    }
    let mut arguments = Vec::new();
    let mut wrong = Wrong::default();
    for input in inputs {
        let FnArg::Typed(input) = input else { continue };
        arguments.extend(wrong.unless(argument(kind, input)));
    }
    wrong.or(arguments).and_then(|arguments| with_its_channel(kind, signature, arguments))
}

fn argument(kind: Kind, input: &syn::PatType) -> Result<Argument> {
    Ok(match &*input.ty {
        Type::Reference(reference) if last_is(&reference.elem, "Context") => Argument::Context,
        Type::Reference(reference) if !kind.is_call() && last_is(&reference.elem, "Event") => {
            Argument::Event { lent: true }
        }
        Type::Path(_) if !kind.is_call() && last_is(&input.ty, "Event") => {
            Argument::Event { lent: false }
        }
        Type::Path(_) if last_is(&input.ty, "Context") => {
            return Err(Error::new_spanned(&input.ty, "the context is lent: write `&Context`"));
        }
        Type::Path(_) if last_is(&input.ty, "ReplyChannel") => Argument::Channel,
        Type::Reference(_) => {
            return Err(Error::new_spanned(
                &input.ty,
                "a parameter comes from the wire and is owned: write `String` for `&str`, `Vec<…>` for `&[…]`",
            ));
        }
        Type::ImplTrait(_) => {
            return Err(Error::new_spanned(
                &input.ty,
                "a parameter has one type, which is read from the wire",
            ));
        }
        ty => {
            let Pat::Ident(pattern) = &*input.pat else {
                return Err(Error::new_spanned(
                    &input.pat,
                    "a parameter has a name: callers give it by that",
                ));
            };
            Argument::Parameter(Box::new(Parameter {
                ident: pattern.ident.clone(),
                ty: ty.clone(),
                optional: last_is(ty, "Option"),
            }))
        }
    })
}

/// The arguments, if a channel is among them where one has to be, and nowhere else.
fn with_its_channel(
    kind: Kind,
    signature: &Signature,
    arguments: Vec<Argument>,
) -> Result<Vec<Argument>> {
    let channels =
        arguments.iter().filter(|argument| matches!(argument, Argument::Channel)).count();
    match (kind, channels) {
        (Kind::Rpc | Kind::Event | Kind::Task, 0) | (Kind::Raw, 1) => Ok(arguments),
        (Kind::Event | Kind::Task, _) => Err(Error::new_spanned(
            &signature.ident,
            "nobody waits for an answer of it: it has no `ReplyChannel`",
        )),
        (Kind::Rpc, _) => Err(Error::new_spanned(
            &signature.ident,
            "a method with a `ReplyChannel` answers by it: write `#[raw_rpc]`",
        )),
        (Kind::Raw, _) => Err(Error::new_spanned(
            &signature.ident,
            "a raw method answers by its channel: give it one `channel: ReplyChannel`",
        )),
    }
}

/// Whether a type's last word is this one.
pub(crate) fn last_is(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == name))
}

fn output(output: &ReturnType) -> Output {
    let unit = || syn::parse_quote!(());
    let ReturnType::Type(_, ty) = output else { return Output { value: unit(), fallible: false } };
    if !last_is(ty, "Result") {
        return Output { value: (**ty).clone(), fallible: false };
    }
    let Type::Path(path) = &**ty else { return Output { value: unit(), fallible: true } };
    let value = path.path.segments.last().and_then(|segment| match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty.clone()),
                _ => None,
            })
        }
        _ => None,
    });
    Output { value: value.unwrap_or_else(unit), fallible: true }
}

/// The text of `///`, without what all its lines are indented by, and without empty lines around it.
pub(crate) fn help(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let Meta::NameValue(meta) = &attribute.meta
            && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value
        {
            let text = text.value();
            lines.extend(text.split('\n').map(|line| line.trim_end().to_owned()));
        }
    }
    let indent = |line: &String| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.is_empty()).map(indent).min().unwrap_or(0);
    let dedented: Vec<&str> = lines.iter().map(|line| line.get(common..).unwrap_or("")).collect();
    dedented.join("\n").trim().to_owned()
}

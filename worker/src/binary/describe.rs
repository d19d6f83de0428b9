//! `inspect` of a program: its interfaces as text, and in the words of `lymph.inspect`.

use std::io::Write;

use crate::event::EventHandler;
use crate::interface::Method;

/// A method in lymph's words.
pub(super) fn as_json(interface: &str, method: &Method) -> serde_json::Value {
    let parameters: Vec<&str> = method.parameters.iter().map(|parameter| parameter.name).collect();
    let optional: Vec<&str> = method
        .parameters
        .iter()
        .filter(|parameter| parameter.optional)
        .map(|parameter| parameter.name)
        .collect();
    let raises: Vec<&str> = method.raises.iter().flat_map(|kinds| kinds.iter().copied()).collect();
    serde_json::json!({
        "name": format!("{interface}.{}", method.name),
        "params": parameters,
        "optional": optional,
        "raises": raises,
        "help": method.help,
    })
}

/// An event handler or a task in the same words.
pub(super) fn handler_as_json(interface: &str, handler: &EventHandler) -> serde_json::Value {
    let parameters: Vec<&str> = handler.parameters.iter().map(|it| it.name).collect();
    serde_json::json!({
        "name": format!("{interface}.{}", handler.name),
        "task": handler.task,
        "events": handler.patterns_of(interface),
        "params": parameters,
        "help": handler.help,
    })
}

/// The events and tasks of an interface.
pub(super) fn describe_handlers(out: &mut Vec<u8>, interface: &str, handlers: &[EventHandler]) {
    for handler in handlers {
        let parameters: Vec<&str> = handler.parameters.iter().map(|it| it.name).collect();
        let (kind, parameters) =
            (if handler.task { "task" } else { "event" }, parameters.join(", "));
        let _ = writeln!(out, "{kind} {interface}.{}({parameters})", handler.name);
        for line in handler.help.lines() {
            let _ = writeln!(out, "    {line}");
        }
        let _ = writeln!(out, "    hears {}\n", handler.patterns_of(interface).join(", "));
    }
}

/// An interface as `lymph inspect` prints it.
pub(super) fn describe(out: &mut Vec<u8>, interface: &str, methods: &[Method]) {
    let mut methods: Vec<&Method> = methods.iter().collect();
    methods.sort_by_key(|method| method.name);
    // Writing to a Vec cannot fail.
    let _ = writeln!(out, "RPC interface of {interface}\n");
    for method in methods {
        let parameters: Vec<String> = method
            .parameters
            .iter()
            .map(|parameter| {
                format!("{}{}", parameter.name, if parameter.optional { "=nil" } else { "" })
            })
            .collect();
        let _ = writeln!(out, "rpc {interface}.{}({})", method.name, parameters.join(", "));
        for line in method.help.lines() {
            let _ = writeln!(out, "    {line}");
        }
        let raises: Vec<&str> =
            method.raises.iter().flat_map(|kinds| kinds.iter().copied()).collect();
        if !raises.is_empty() {
            let _ = writeln!(out, "    raises {}", raises.join(", "));
        }
        let _ = writeln!(out);
    }
}

//! The calls of interface `node`, as they come and as they are listed.

use hilum_shared::protocol::control::{self, Fault};
use hilum_shared::registry::directory;
use hilum_shared::rpc::ChangeLoglevel;
use hilum_shared::wire::message::{Message, NIL};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fault;

/// What a client asks of the runtime.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `node.status`: answer with a `Snapshot`.
    Status,
    /// `node.get_processes`: answer with the instances, of one service where named.
    GetProcesses(GetProcesses),
    /// `node.start`
    Start(control::Targets),
    /// `node.stop`
    Stop(control::Targets),
    /// `node.restart`
    Restart(control::Targets),
    /// `node.scale`
    Scale(control::Scale),
    /// `node.signal`
    Signal(control::Send),
    /// `node.reload`
    Reload(control::Reload),
    /// `node.events`: answer with the events after a number.
    Events(Events),
    /// `node.abort_on_failure`
    AbortOnFailure,
    /// `node.shutdown`
    Shutdown(control::Shutdown),
    /// `node.wait`
    Wait(control::Wait),
    /// `node.await`
    Await(control::Await),
    /// `lymph.change_loglevel`: answer nil, and go back after `period`.
    ChangeLoglevel(ChangeLoglevel),
    /// `lymph.get_metrics`: answer with `[name, value, tags]` of each figure.
    Metrics,
    /// `registry.register`
    Register(Box<directory::Register>),
    /// `registry.unregister`
    Unregister(directory::Unregister),
    /// `registry.lookup`
    Lookup(directory::LookupService),
    /// `registry.discover`
    Discover,
    /// `registry.watch`: held until there is news.
    Watch(directory::Watch),
    /// Not a call: the client, which registered something without a token, is gone.
    Departed,
    /// Not a call: the client of the call with this id is gone, and no answer will be sent.
    Cancel,
}

/// `node.get_processes`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetProcesses {
    /// A service; `None` = all.
    #[serde(default)]
    pub service_type: Option<String>,
}

/// `node.events`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Only events with a higher number.
    #[serde(default)]
    pub since: u64,
}

/// Arguments of a method; nil and absent stand for no arguments.
pub(super) fn arguments<T: serde::de::DeserializeOwned>(message: &Message) -> Result<T, Fault> {
    let empty = [0x80];
    let body = if message.body == NIL { &empty } else { message.body.as_slice() };
    // A struct may also be packed as an array, which would give places a meaning that only names have.
    if !matches!(body.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(usage(message, "the body is not a map of arguments"));
    }
    rmp_serde::from_slice(body).map_err(|error| {
        // MessagePack's own error names neither the argument nor what is wanted there.
        let value = rmp_serde::from_slice::<Value>(body).ok();
        let wrong = value.map(serde_path_to_error::deserialize::<_, T>).and_then(Result::err);
        let wrong = wrong.map_or_else(|| error.to_string(), |wrong| wrong.to_string());
        usage(message, &wrong)
    })
}

fn usage(message: &Message, what: &str) -> Fault {
    let text = format!("arguments of `{}`: {what}", message.subject);
    fault("usage", text, "`lymph.inspect` lists the methods and their arguments")
}

/// Targets, also by the one service of `service_type`.
fn targets(message: &Message) -> Result<control::Targets, Fault> {
    let mut targets: control::Targets = arguments(message)?;
    let GetProcesses { service_type } = arguments(message)?;
    targets.targets.extend(service_type);
    Ok(targets)
}

/// The call of a method of interface `node`; `None` = there is no such method.
pub(super) fn decode(method: &str, message: &Message) -> Option<Result<Call, Fault>> {
    Some(match method {
        "status" => Ok(Call::Status),
        "get_processes" => arguments(message).map(Call::GetProcesses),
        "start" => targets(message).map(Call::Start),
        "stop" => targets(message).map(Call::Stop),
        "restart" => targets(message).map(Call::Restart),
        "scale" => arguments(message).map(Call::Scale),
        "signal" => arguments(message).map(Call::Signal),
        "reload" => arguments(message).map(Call::Reload),
        "events" => arguments(message).map(Call::Events),
        "abort_on_failure" => Ok(Call::AbortOnFailure),
        "shutdown" => arguments(message).map(Call::Shutdown),
        "wait" => arguments(message).map(Call::Wait),
        "await" => arguments(message).map(Call::Await),
        _ => return None,
    })
}

/// The call of a method of interface `registry`.
pub(super) fn decode_registry(method: &str, message: &Message) -> Option<Result<Call, Fault>> {
    Some(match method {
        "register" => arguments(message).map(|args| Call::Register(Box::new(args))),
        "unregister" => arguments(message).map(Call::Unregister),
        "lookup" => arguments(message).map(Call::Lookup),
        "discover" => Ok(Call::Discover),
        "watch" => arguments(message).map(Call::Watch),
        _ => return None,
    })
}

const TARGETS: &[&str] = &["targets", "service_type", "deps", "rolling", "grace"];

/// Name, parameters, help of every method.
const METHODS: &[(&str, &[&str], &str)] = &[
    ("node.status", &[], "The whole node, its services and instances."),
    ("node.get_processes", &["service_type"], "The instances, of one service where named."),
    ("node.start", TARGETS, "Start instances, with their dependencies unless `deps` is false."),
    ("node.stop", TARGETS, "Stop instances until nothing of them is left."),
    (
        "node.restart",
        TARGETS,
        "Restart instances; `rolling`: one after another, each when the one before is ready.",
    ),
    ("node.scale", &["changes"], "Set or change process counts: [{service, count, relative}]."),
    ("node.signal", &["targets", "signal"], "Send a signal by name or number."),
    ("node.reload", &["dry_run"], "Read the configuration again and apply the difference."),
    ("node.events", &["since"], "Lifecycle events with a higher number than `since`."),
    ("node.abort_on_failure", &[], "End the cluster when an instance fails, or has failed."),
    ("node.shutdown", &["grace", "reason"], "Stop everything, then the node."),
    ("node.wait", &["operation"], "Answered when the operation is done."),
    (
        "node.await",
        &["targets", "state"],
        "Answered when every target is ready, running, stopped, or has ended (exit).",
    ),
    (
        "registry.register",
        &["service", "instance", "token"],
        "Enter an instance; it ends with the run of the token, else with the connection.",
    ),
    ("registry.unregister", &["service", "id"], "Take an instance out."),
    ("registry.lookup", &["service"], "The instances of a service."),
    ("registry.discover", &[], "All services with their instances."),
    (
        "registry.watch",
        &["services"],
        "Answered when a service has another version than the one that is named.",
    ),
    ("lymph.ping", &["payload"], "The payload."),
    ("lymph.status", &[], "Endpoint and identity."),
    ("lymph.inspect", &[], "This list."),
    (
        "lymph.change_loglevel",
        &["qualname", "loglevel", "period"],
        "Change the level of a logger for a while.",
    ),
    ("lymph.get_metrics", &[], "Figures of the node and of its instances as [name, value, tags]."),
];

pub(super) fn methods() -> Vec<Value> {
    METHODS
        .iter()
        .map(|(name, params, help)| json!({"name": name, "version": "None", "params": params, "help": help}))
        .collect()
}

#[cfg(test)]
/// Every method of both interfaces, as `lymph.inspect` lists them.
pub(in crate::channels) fn method_names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|(name, ..)| *name)
}

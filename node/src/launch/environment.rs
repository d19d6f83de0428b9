//! The environment of one run, each variable with where it comes from.
//!
//! Order, the later wins: one default of ours, inherited, the user's own (`user:`), the file, what the node sets.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use hilum_shared::config::spec::{AliveKind, ServiceSpec};
use hilum_shared::name::InstanceId;
use hilum_shared::protocol::env;
use serde_json::{Map, Value};

use super::context::{Context, References};
use super::prepare::{LaunchError, Start};
use crate::driver::identity::Account;

/// One variable of an instance. Most of it is borrowed: an environment is made at each start and at each crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVar<'a> {
    /// Its name.
    pub name: Cow<'a, OsStr>,
    /// Its value.
    pub value: Cow<'a, OsStr>,
    /// Where it comes from, for people: `inherited`, `hilum.yml:12`, `hilum`.
    pub origin: Cow<'a, str>,
}

impl EnvVar<'_> {
    /// The same, for whoever lets go of what it was made from.
    pub fn into_owned(self) -> EnvVar<'static> {
        EnvVar {
            name: self.name.into_owned().into(),
            value: self.value.into_owned().into(),
            origin: self.origin.into_owned().into(),
        }
    }
}

/// The origin of what comes from the node's own environment.
pub const INHERITED: &str = "inherited";
/// The origin of what the node sets.
pub const OURS: &str = "hilum";
/// About so many are set by the node.
const USUAL: usize = 32;
/// The first descriptor of `LISTEN_FDS` (`man 3 sd_listen_fds`).
pub const FIRST_SOCKET: i32 = 3;

/// Variables as they were set, one after the other; without a value where one was taken out. A list that is sorted once costs less
/// than a map, and one is made at each start and each crash.
type Variables<'a> = Vec<(Cow<'a, OsStr>, Option<Cow<'a, OsStr>>, Cow<'a, str>)>;

/// The environment of one run, in the order of the names. `LISTEN_PID` is empty: the child fills it in.
///
/// # Errors
/// When a `$(…)` has no value.
pub fn environment<'a>(
    start: Start<'a>,
    account: &'a Account,
) -> Result<Vec<EnvVar<'a>>, LaunchError> {
    let added = added(start, account)?;
    let from = &start.context.inherited;
    let mut all = Vec::with_capacity(from.len() + added.len());
    let inherited = start.spec.launch.inherit_env.then_some(from);
    let mut inherited = inherited.into_iter().flatten().peekable();
    let as_it_was = |(name, value): (&'a OsString, &'a OsString)| EnvVar {
        name: name.into(),
        value: value.into(),
        origin: INHERITED.into(),
    };
    // Both lists are in the order of the names.
    for (name, value, origin) in added {
        while let Some(one) = inherited.next_if(|(other, _)| **other < *name) {
            all.push(as_it_was(one));
        }
        inherited.next_if(|(other, _)| **other == *name);
        all.extend(value.map(|value| EnvVar { name, value, origin }));
    }
    all.extend(inherited.map(as_it_was));
    Ok(all)
}

/// The same without what is inherited: what the configuration and the node gave it.
///
/// # Errors
/// When a `$(…)` has no value.
pub fn given<'a>(start: Start<'a>, account: &'a Account) -> Result<Vec<EnvVar<'a>>, LaunchError> {
    let added = added(start, account)?.into_iter();
    Ok(added
        .filter_map(|(name, value, origin)| Some(EnvVar { name, value: value?, origin }))
        .collect())
}

/// What a run has or lacks besides what it inherits, in the order of the names.
fn added<'a>(start: Start<'a>, account: &'a Account) -> Result<Variables<'a>, LaunchError> {
    let Start { context, spec, instance, .. } = start;
    let mut all = Variables::with_capacity(spec.launch.env.len() + USUAL);
    // A program that buffers its lines in blocks looks dead through a pipe.
    const UNBUFFERED: &str = "PYTHONUNBUFFERED";
    if !(spec.launch.inherit_env && context.inherited.contains_key(OsStr::new(UNBUFFERED))) {
        set(&mut all, UNBUFFERED, text("1"), OURS);
    }
    if let Some(user) = &spec.launch.user {
        for (name, value) in &account.variables {
            set(&mut all, *name, text(value), format!("user `{user}`"));
        }
    }
    let references = References { instance, ports: &context.ports };
    for (name, entry) in &spec.launch.env {
        let value = entry.value.as_ref().map(|template| template.expand(&references)).transpose();
        let value =
            value.map_err(|source| LaunchError::Template { key: format!("env.{name}"), source })?;
        all.push((text(name), value.map(own), entry.origin.as_str().into()));
    }
    identify(&mut all, start);
    ports(&mut all, context, spec, instance);
    sockets(&mut all, context, spec);
    Ok(settled(all))
}

/// In the order of the names, the last value of each.
fn settled(mut all: Variables<'_>) -> Variables<'_> {
    all.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    // The later of two is kept in the place of the earlier.
    all.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
    all
}

fn set<'a>(
    all: &mut Variables<'a>,
    name: impl Into<Cow<'a, str>>,
    value: Cow<'a, OsStr>,
    origin: impl Into<Cow<'a, str>>,
) {
    let name = match name.into() {
        Cow::Borrowed(name) => text(name),
        Cow::Owned(name) => own(name),
    };
    all.push((name, Some(value), origin.into()));
}

fn text(text: &str) -> Cow<'_, OsStr> {
    Cow::Borrowed(OsStr::new(text))
}

fn own<'a>(text: String) -> Cow<'a, OsStr> {
    Cow::Owned(OsString::from(text))
}

fn identify<'a>(all: &mut Variables<'a>, start: Start<'a>) {
    let Start { context, spec, instance, run, token } = start;
    let Context { endpoints, .. } = context;
    let (mut interval, mut timeout) = (context.heartbeat_interval, context.heartbeat_timeout);
    let alive = spec.policy.alive.as_ref();
    if let Some(alive) = alive.filter(|alive| alive.kind == AliveKind::Heartbeat) {
        (interval, timeout) = (alive.interval, alive.timeout);
    }
    for (name, value) in [
        (env::NODE, text(&endpoints.node)),
        ("LYMPH_NODE", text(&endpoints.node)),
        (env::SHUTDOWN, text(&endpoints.shutdown)),
        (env::HEARTBEAT, text(&endpoints.heartbeat)),
        (env::LOG, text(&endpoints.log)),
        (env::EVENTS, text(&endpoints.events)),
        (env::LOG_ENDPOINT, text(&endpoints.log_endpoint)),
        ("LYMPH_MONITOR", text(&endpoints.log_endpoint)),
        ("NOTIFY_SOCKET", endpoints.notify.as_os_str().into()),
        (env::LOCK, context.lock.as_os_str().into()),
        (env::CLUSTER, text(&context.cluster_mark)),
        (env::TOKEN, text(token)),
        (env::HEARTBEAT_INTERVAL, own(seconds(interval))),
        (env::HEARTBEAT_TIMEOUT, own(seconds(timeout))),
        (env::PROJECT, text(&context.project)),
        (env::SERVICE, text(spec.name.as_str())),
        ("LYMPH_SERVICE_NAME", text(spec.name.as_str())),
        (env::INSTANCE, own(instance.to_string())),
        (env::INDEX, own(instance.index.to_string())),
        (env::RUN, own(run.to_string())),
        ("LYMPH_NODE_IP", own(context.container_ip.to_string())),
        ("LYMPH_NODE_CONFIG", context.config.as_os_str().into()),
    ] {
        set(all, name, value, OURS);
    }
    if let Some(alive) = alive.filter(|alive| alive.kind == AliveKind::Notify) {
        set(all, "WATCHDOG_USEC", own(alive.interval.as_micros().to_string()), OURS);
    }
}

/// Seconds as a decimal number that every language reads.
fn seconds(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => duration.as_secs().to_string(), // the same text for less
        _ => duration.as_secs_f64().to_string(),
    }
}

fn ports(all: &mut Variables<'_>, context: &Context, spec: &ServiceSpec, instance: &InstanceId) {
    let Some(numbers) = context.ports.get(instance) else {
        return;
    };
    for (at, port) in spec.launch.ports.iter().enumerate() {
        let Some(number) = numbers.get(&port.name).map(u16::to_string) else {
            continue;
        };
        if at == 0 {
            set(all, "PORT", own(number.clone()), OURS);
        }
        let name = port.name.to_ascii_uppercase().replace(['-', '.'], "_");
        set(all, format!("PORT_{name}"), own(number), OURS);
    }
}

fn sockets(all: &mut Variables<'_>, context: &Context, spec: &ServiceSpec) {
    let sockets = spec.launch.sockets.iter();
    let passed: Vec<_> = sockets.filter(|socket| context.sockets.get(socket).is_some()).collect();
    if passed.is_empty() {
        return;
    }
    let mut by_port = Map::new();
    for (socket, fd) in passed.iter().zip(FIRST_SOCKET..) {
        by_port.insert(socket.port.to_string(), Value::from(fd));
    }
    // A colon separates the names, so none may hold one.
    let names: Vec<String> = passed.iter().map(|socket| socket.name.replace(':', "_")).collect();
    set(all, "LISTEN_FDS", own(passed.len().to_string()), OURS);
    set(all, "LISTEN_FDNAMES", own(names.join(":")), OURS);
    set(all, "LISTEN_PID", text(""), OURS);
    set(all, "LYMPH_SHARED_SOCKET_FDS", own(Value::from(by_port).to_string()), OURS);
}

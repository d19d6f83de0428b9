//! The environment of one run, each variable with where it comes from.
//!
//! Order, the later wins: inherited, the user's own (`user:`), the file, what the node sets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use hilum_shared::config::spec::{AliveKind, ServiceSpec};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::env;
use serde_json::{Map, Value};

use super::context::{Context, References};
use super::prepare::LaunchError;
use crate::driver::identity::Account;

/// One variable of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: OsString,
    /// Its value.
    pub value: OsString,
    /// Where it comes from, for people: `inherited`, `hilum.yml:12`, `hilum`.
    pub origin: Cow<'static, str>,
}

/// The origin of what comes from the node's own environment.
pub const INHERITED: &str = "inherited";
/// The origin of what the node sets.
const OURS: &str = "hilum";
/// The first descriptor of `LISTEN_FDS` (`man 3 sd_listen_fds`).
pub const FIRST_SOCKET: i32 = 3;

type Variables = BTreeMap<OsString, (OsString, Cow<'static, str>)>;

/// The environment of one run, in the order of the names. `LISTEN_PID` is empty: the child fills it in.
///
/// # Errors
/// When a `$(…)` has no value.
pub fn environment(
    context: &Context,
    spec: &ServiceSpec,
    account: &Account,
    instance: &InstanceId,
    run: Run,
    token: &str,
) -> Result<Vec<EnvVar>, LaunchError> {
    let mut all = Variables::new();
    if spec.launch.inherit_env {
        for (name, value) in &context.inherited {
            all.insert(name.clone(), (value.clone(), INHERITED.into()));
        }
    }
    if let Some(user) = &spec.launch.user {
        for (name, value) in &account.variables {
            set(&mut all, name, value, format!("user `{user}`"));
        }
    }
    let references = References { instance, ports: &context.ports };
    for (name, entry) in &spec.launch.env {
        match &entry.value {
            None => {
                all.remove(OsStr::new(name));
            }
            Some(template) => {
                let value = template.expand(&references).map_err(|source| {
                    LaunchError::Template { key: format!("env.{name}"), source }
                })?;
                set(&mut all, name, &value, entry.origin.clone());
            }
        }
    }
    // A program that buffers its lines in blocks looks dead through a pipe.
    if !all.contains_key(OsStr::new("PYTHONUNBUFFERED")) && !removed(spec, "PYTHONUNBUFFERED") {
        ours(&mut all, "PYTHONUNBUFFERED", "1");
    }
    identify(&mut all, context, spec, instance, run, token);
    ports(&mut all, context, spec, instance);
    sockets(&mut all, context, spec);
    Ok(all.into_iter().map(|(name, (value, origin))| EnvVar { name, value, origin }).collect())
}

fn set(all: &mut Variables, name: &str, value: &str, origin: impl Into<Cow<'static, str>>) {
    all.insert(name.into(), (value.into(), origin.into()));
}

fn ours(all: &mut Variables, name: &str, value: &str) {
    set(all, name, value, OURS);
}

fn removed(spec: &ServiceSpec, name: &str) -> bool {
    let entry = spec.launch.env.get(name);
    entry.is_some_and(|entry| entry.value.is_none())
}

fn identify(
    all: &mut Variables,
    context: &Context,
    spec: &ServiceSpec,
    instance: &InstanceId,
    run: Run,
    token: &str,
) {
    let Context { endpoints, .. } = context;
    let (mut interval, mut timeout) = (context.heartbeat_interval, context.heartbeat_timeout);
    let alive = spec.policy.alive.as_ref();
    if let Some(alive) = alive.filter(|alive| alive.kind == AliveKind::Heartbeat) {
        (interval, timeout) = (alive.interval, alive.timeout);
    }
    let ip = context.container_ip.to_string();
    let config = context.config.to_string_lossy();
    for (name, value) in [
        (env::NODE, endpoints.node.as_str()),
        ("LYMPH_NODE", &endpoints.node),
        (env::SHUTDOWN, &endpoints.shutdown),
        (env::HEARTBEAT, &endpoints.heartbeat),
        (env::LOG, &endpoints.log),
        (env::EVENTS, &endpoints.events),
        (env::LOG_ENDPOINT, &endpoints.log_endpoint),
        ("LYMPH_MONITOR", &endpoints.log_endpoint),
        ("NOTIFY_SOCKET", &endpoints.notify.to_string_lossy()),
        (env::LOCK, &context.lock.to_string_lossy()),
        (env::CLUSTER, &context.cluster_mark),
        (env::TOKEN, token),
        (env::HEARTBEAT_INTERVAL, &seconds(interval)),
        (env::HEARTBEAT_TIMEOUT, &seconds(timeout)),
        (env::PROJECT, &context.project),
        (env::SERVICE, spec.name.as_str()),
        ("LYMPH_SERVICE_NAME", spec.name.as_str()),
        (env::INSTANCE, &instance.to_string()),
        (env::INDEX, &instance.index.to_string()),
        (env::RUN, &run.to_string()),
        ("LYMPH_NODE_IP", &ip),
        ("LYMPH_NODE_CONFIG", &config),
    ] {
        ours(all, name, value);
    }
    if let Some(alive) = alive.filter(|alive| alive.kind == AliveKind::Notify) {
        let micros = alive.interval.as_micros().to_string();
        ours(all, "WATCHDOG_USEC", &micros);
    }
}

/// Seconds as a decimal number that every language reads.
fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

fn ports(all: &mut Variables, context: &Context, spec: &ServiceSpec, instance: &InstanceId) {
    let Some(numbers) = context.ports.get(instance) else {
        return;
    };
    for (at, port) in spec.launch.ports.iter().enumerate() {
        let Some(number) = numbers.get(&port.name).map(u16::to_string) else {
            continue;
        };
        if at == 0 {
            ours(all, "PORT", &number);
        }
        let name = port.name.to_ascii_uppercase().replace(['-', '.'], "_");
        ours(all, &format!("PORT_{name}"), &number);
    }
}

fn sockets(all: &mut Variables, context: &Context, spec: &ServiceSpec) {
    let passed: Vec<_> =
        spec.launch.sockets.iter().filter_map(|&at| context.sockets.get(at)).collect();
    if passed.is_empty() {
        return;
    }
    let mut by_port = Map::new();
    for (socket, fd) in passed.iter().zip(FIRST_SOCKET..) {
        by_port.insert(socket.port.to_string(), Value::from(fd));
    }
    // A colon separates the names, so none may hold one.
    let names: Vec<String> = passed.iter().map(|socket| socket.name.replace(':', "_")).collect();
    ours(all, "LISTEN_FDS", &passed.len().to_string());
    ours(all, "LISTEN_FDNAMES", &names.join(":"));
    ours(all, "LISTEN_PID", "");
    ours(all, "LYMPH_SHARED_SOCKET_FDS", &Value::from(by_port).to_string());
}

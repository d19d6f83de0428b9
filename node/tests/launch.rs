//! What an instance is started with, seen from inside it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod common;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use common::spec::{context, service};
use common::{FIXTURE, capture, read_all};
use hilum_node::core::input::{FailureClass, SpawnFailure};
use hilum_node::driver::spawn::Spawner;
use hilum_node::launch::context::Context;
use hilum_node::launch::prepare::{LaunchError, Start};
use hilum_shared::config::spec::{
    AliveCheck, AliveKind, EnvValue, PortChoice, PortConflict, PortSpec, ReadyCheck, ReadyKind,
    ServiceSpec, SocketSpec,
};
use hilum_shared::config::template::Template;
use hilum_shared::name::{InstanceId, Run};
use serde_json::{Value, json};

fn start<'a>(context: &'a Context, spec: &'a ServiceSpec, instance: &'a InstanceId) -> Start<'a> {
    Start { context, spec, instance, run: Run(4), token: "secret" }
}

fn socket(name: &str) -> SocketSpec {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    SocketSpec { name: name.into(), host: "127.0.0.1".into(), port: free }
}

fn web(index: u32) -> InstanceId {
    InstanceId::parse(&format!("web.{index}")).unwrap()
}

fn set(spec: &mut ServiceSpec, name: &str, value: Option<&str>) {
    let entry = EnvValue { value: value.map(Template::new), origin: "hilum.yml:7".into() };
    spec.launch.env.insert(name.into(), entry);
}

fn by_name(start: &Start<'_>) -> BTreeMap<String, (String, String)> {
    let text = |os: &std::ffi::OsStr| os.to_str().unwrap().to_owned();
    let account = start.account().unwrap();
    let all = start.environment(&account).unwrap();
    all.iter().map(|v| (text(&v.name), (text(&v.value), v.origin.to_string()))).collect()
}

#[test]
fn the_file_overrides_what_is_inherited_and_the_node_overrides_the_file() {
    let mut spec = service("web", &["x"]);
    set(&mut spec, "LANG", Some("de"));
    set(&mut spec, "HOME", None);
    set(&mut spec, "HILUM_TOKEN", Some("forged"));
    set(&mut spec, "WHO", Some("$(instance.id) of $(service.name)"));
    let (context, instance) = (context(), web(3));
    let all = by_name(&start(&context, &spec, &instance));
    let of = |name: &str| all.get(name).map(|(value, origin)| (value.as_str(), origin.as_str()));
    assert_eq!(of("PATH"), Some(("/usr/bin:/bin", "inherited")));
    assert_eq!(of("LANG"), Some(("de", "hilum.yml:7")));
    assert_eq!(of("HOME"), None);
    assert_eq!(of("WHO"), Some(("web.3 of web", "hilum.yml:7")));
    assert_eq!(of("HILUM_TOKEN"), Some(("secret", "hilum")));
    assert_eq!(of("HILUM_INSTANCE"), Some(("web.3", "hilum")));
    assert_eq!(of("HILUM_INDEX"), Some(("3", "hilum")));
    assert_eq!(of("HILUM_RUN"), Some(("4", "hilum")));
    assert_eq!(of("LYMPH_SERVICE_NAME"), Some(("web", "hilum")));
    assert_eq!(of("HILUM_HEARTBEAT_TIMEOUT"), Some(("5", "hilum")));
    assert_eq!(of("NOTIFY_SOCKET"), Some(("/run/notify.sock", "hilum")));
    assert_eq!(of("PYTHONUNBUFFERED"), Some(("1", "hilum")));
    assert_eq!(of("WATCHDOG_USEC"), None);
    assert_eq!(of("LISTEN_FDS"), None);
}

#[test]
fn nothing_is_inherited_when_it_is_not_wanted() {
    let mut spec = service("web", &["x"]);
    spec.launch.inherit_env = false;
    set(&mut spec, "PYTHONUNBUFFERED", None);
    let (context, instance) = (context(), web(1));
    let all = by_name(&start(&context, &spec, &instance));
    assert!(!all.contains_key("PATH"));
    assert!(!all.contains_key("PYTHONUNBUFFERED"), "removed by the file");
    assert!(all.contains_key("HILUM_NODE"));
}

#[test]
fn a_watchdog_and_a_services_own_heartbeat_are_told() {
    let (context, instance) = (context(), web(1));
    let mut spec = service("web", &["x"]);
    let alive = |kind| AliveCheck {
        kind,
        interval: Duration::from_millis(250),
        timeout: Duration::from_millis(1500),
        failures: 3,
        diagnose: None,
    };
    spec.policy.alive = Some(alive(AliveKind::Notify));
    let all = by_name(&start(&context, &spec, &instance));
    assert_eq!(all["WATCHDOG_USEC"].0, "250000");
    assert_eq!(all["HILUM_HEARTBEAT_INTERVAL"].0, "1");
    spec.policy.alive = Some(alive(AliveKind::Heartbeat));
    let all = by_name(&start(&context, &spec, &instance));
    assert_eq!(all["HILUM_HEARTBEAT_INTERVAL"].0, "0.25");
    assert_eq!(all["HILUM_HEARTBEAT_TIMEOUT"].0, "1.5");
}

#[test]
fn ports_are_told_by_name_and_in_texts() {
    let (mut context, instance) = (context(), web(2));
    let mut spec = service("web", &["x", "--port=$(port.http)", "$(port.web.1.http)"]);
    for name in ["http", "admin-ui"] {
        spec.launch.ports.push(PortSpec {
            name: name.into(),
            choice: PortChoice::Auto,
            conflict: PortConflict::Next,
        });
    }
    for (index, numbers) in [(1, [8001, 9001]), (2, [8002, 9002])] {
        let names = ["http".to_owned(), "admin-ui".to_owned()];
        context.ports.insert(web(index), names.into_iter().zip(numbers).collect());
    }
    let start = start(&context, &spec, &instance);
    let all = by_name(&start);
    assert_eq!(all["PORT"].0, "8002");
    assert_eq!(all["PORT_HTTP"].0, "8002");
    assert_eq!(all["PORT_ADMIN_UI"].0, "9002");
    let prepared = start.prepare().unwrap();
    let argv: Vec<&[u8]> = prepared.request.argv.iter().collect();
    assert_eq!(argv, [b"x".as_slice(), b"--port=8002", b"8001"]);
}

#[test]
fn shared_sockets_arrive_with_the_right_pid_and_both_spellings() {
    let (context, instance) = (context(), web(1));
    let mut spec = service("web", &[FIXTURE, "report"]);
    spec.launch.sockets = vec![socket("a:b"), socket("api")];
    context.sockets.bind(&spec.launch.sockets).unwrap();
    let [first, second] = [0, 1].map(|at: usize| spec.launch.sockets[at].port.to_string());
    let mut request = start(&context, &spec, &instance).prepare().unwrap().request;
    let reader = capture(&mut request);
    let child = Spawner::new().unwrap().spawn(&mut request, None).unwrap();
    let said: Value = serde_json::from_str(&read_all(reader, request)).unwrap();
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.pid as i32), None).unwrap();
    let env = &said["environment"];
    assert_eq!(env["LISTEN_PID"], child.pid.to_string());
    assert_eq!(env["LISTEN_FDS"], "2");
    assert_eq!(env["LISTEN_FDNAMES"], "a_b:api");
    let fds: Value =
        serde_json::from_str(env["LYMPH_SHARED_SOCKET_FDS"].as_str().unwrap()).unwrap();
    assert_eq!(fds, json!({first: 3, second: 4}));
    let descriptors = said["descriptors"].as_object().unwrap();
    assert_eq!(descriptors.len(), 5, "{descriptors:?}");
    assert!(descriptors["3"].as_str().unwrap().starts_with("socket:"));
}

#[test]
fn a_hook_has_the_environment_without_sockets() {
    let (context, instance) = (context(), web(1));
    let mut spec = service("web", &["x"]);
    spec.launch.sockets = vec![socket("api")];
    context.sockets.bind(&spec.launch.sockets).unwrap();
    let command = [Template::new("hook"), Template::new("$(instance.index)")];
    let more = [("HILUM_EXIT_CODE", "3".to_owned())];
    let request = start(&context, &spec, &instance)
        .prepare_command(&command, "hooks.on_crash", &more)
        .unwrap();
    assert!(request.descriptors.is_empty());
    assert_eq!(request.listen_pid, None);
    let env: Vec<String> =
        request.env.iter().map(|e| String::from_utf8_lossy(e).into_owned()).collect();
    assert!(env.contains(&"HILUM_EXIT_CODE=3".to_owned()));
    assert!(env.contains(&"HILUM_INSTANCE=web.1".to_owned()));
    assert!(!env.iter().any(|entry| entry.starts_with("LISTEN_")), "{env:?}");
    let tried: Vec<&[u8]> = request.candidates.iter().collect();
    assert_eq!(tried, [b"/usr/bin/hook".as_slice(), b"/bin/hook"]);
}

#[test]
fn a_relative_folder_is_in_the_project_folder() {
    let (context, instance) = (context(), web(3));
    let mut spec = service("web", &["x"]);
    for (given, expected) in [
        (None, "/tmp"),
        (Some("./data/$(instance.index)"), "/tmp/data/3"),
        (Some("/srv"), "/srv"),
        (Some("."), "/tmp"),
    ] {
        spec.launch.directory = given.map(Template::new);
        let folder = start(&context, &spec, &instance).directory().unwrap();
        assert_eq!(folder, Path::new(expected));
    }
}

#[test]
fn mistakes_are_permanent_and_name_the_key() {
    let (context, instance) = (context(), web(1));
    let failure = |context: &Context, spec: &ServiceSpec| {
        let error: LaunchError = start(context, spec, &instance).prepare().unwrap_err();
        let failure = SpawnFailure::from(error);
        assert_eq!(failure.class, FailureClass::Permanent);
        failure.message
    };
    let spec = service("web", &["x", "$(port.http)"]);
    assert_eq!(failure(&context, &spec), "`command[1]`: `$(port.http)` is not known here");
    assert_eq!(failure(&context, &service("web", &[])), "`command` is empty");
    assert_eq!(failure(&context, &service("web", &[""])), "`command` is empty");
    let text = failure(&context, &service("web", &["x\0y"]));
    assert!(text.contains("NUL"), "{text}");
    let mut spec = service("web", &["x"]);
    set(&mut spec, "A=B", Some("x"));
    assert!(failure(&context, &spec).contains("`A=B`"));
    let mut spec = service("web", &["x"]);
    spec.launch.user = Some("no-such-user".into());
    assert_eq!(failure(&context, &spec), "user `no-such-user` is not known on this machine");
    let mut spec = service("web", &["x"]);
    spec.policy.ready = Some(ReadyCheck {
        kind: ReadyKind::NotifyFd(3),
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        failures: 1,
        within: Duration::ZERO,
    });
    assert_eq!(start(&context, &spec, &instance).prepare().unwrap().notify_fd, Some(3));
    spec.launch.sockets = vec![socket("api")];
    context.sockets.bind(&spec.launch.sockets).unwrap();
    assert!(failure(&context, &spec).contains("`ready.notify_fd: 3` is taken"));
}

//! A service as plain as can be, and the context of a node that is not there.

use std::collections::BTreeMap;
use std::time::Duration;

use hilum_node::launch::context::{Context, Endpoints, Ports};
use hilum_shared::config::spec::{
    Color, Hooks, Kind, Launch, LevelFrom, Limits, LogPolicy, Multiline, OnFailure, Policy,
    RestartPolicy, RestartWhen, ServiceSpec, StopPolicy,
};
use hilum_shared::config::template::Template;
use hilum_shared::name::ServiceName;
use hilum_shared::signal::Signal;
use hilum_shared::units::Bytes;

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn service(name: &str, command: &[&str]) -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::parse(name).unwrap(),
        numprocesses: 1,
        launch: Launch {
            command: command.iter().map(|text| Template::new(*text)).collect(),
            directory: None,
            inherit_env: true,
            env: BTreeMap::new(),
            ports: Vec::new(),
            sockets: Vec::new(),
            tty: false,
            limits: Limits::default(),
            user: None,
            group: None,
            umask: None,
            nice: None,
            cpus: None,
            no_new_privs: false,
        },
        policy: Policy {
            kind: Kind::Service,
            autostart: true,
            profiles: Vec::new(),
            depends_on: Vec::new(),
            restart: RestartPolicy {
                when: RestartWhen::Always,
                min_uptime: SECOND,
                delay: SECOND,
                factor: 2.0,
                max_delay: SECOND,
                jitter: 0.0,
                reset_after: SECOND,
                limit: None,
                within: SECOND,
                success: vec![0],
            },
            on_failure: OnFailure::Continue,
            ready: None,
            alive: None,
            stop: StopPolicy { signal: Signal::TERM, timeout: SECOND, exec: None },
            rolling: None,
            watch: None,
            reload: None,
            hooks: Hooks::default(),
            log: LogPolicy {
                max_line: Bytes(65536),
                level_from: LevelFrom::Auto,
                multiline: Multiline::Auto,
                color: Color::Keep,
                rate: None,
                file: None,
            },
            max_age: None,
            schedule: None,
            start_stagger: Duration::ZERO,
            memory: None,
            description: None,
            labels: BTreeMap::new(),
        },
    }
}

pub(crate) fn context() -> Context {
    Context {
        project: "shop".into(),
        project_dir: "/tmp".into(),
        container_ip: "127.0.0.1".parse().unwrap(),
        endpoints: Endpoints {
            node: "ipc:///run/node.sock".into(),
            shutdown: "ipc:///run/shutdown.sock".into(),
            heartbeat: "ipc:///run/heartbeat.sock".into(),
            log: "ipc:///run/log.sock".into(),
            log_endpoint: "ipc:///run/pub.sock".into(),
            notify: "/run/notify.sock".into(),
        },
        lock: "/srv/.hilum/hilum.yml/lock".into(),
        config: "/srv/hilum.yml".into(),
        cluster_mark: "0123456789ab.n".into(),
        heartbeat_interval: SECOND,
        heartbeat_timeout: 5 * SECOND,
        inherited: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("LANG".into(), "C".into()),
            ("HOME".into(), "/node".into()),
        ],
        sockets: Vec::new(),
        ports: Ports::new(),
        nofile: None,
    }
}

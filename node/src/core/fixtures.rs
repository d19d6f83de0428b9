//! Clusters for the core's tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::*;
use hilum_shared::config::template::Template;
use hilum_shared::name::ServiceName;
use hilum_shared::registry::Choice;
use hilum_shared::signal::Signal;
use hilum_shared::units::Bytes;

/// A service with all defaults.
pub(crate) fn service(name: &str, count: u32) -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::parse(name).unwrap(),
        numprocesses: count,
        launch: Launch {
            command: vec![Template::new("true")],
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
                min_uptime: Duration::from_secs(1),
                delay: Duration::from_millis(500),
                factor: 2.0,
                max_delay: Duration::from_secs(30),
                jitter: 0.2,
                reset_after: Duration::from_secs(60),
                limit: None,
                within: Duration::from_secs(300),
                success: vec![0],
            },
            on_failure: OnFailure::Continue,
            ready: None,
            alive: None,
            stop: StopPolicy { signal: Signal::TERM, timeout: Duration::from_secs(10), exec: None },
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

/// A cluster of these.
pub(crate) fn cluster(services: Vec<ServiceSpec>) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: "test".into(),
        services: services.into_iter().map(|spec| (spec.name.clone(), Arc::new(spec))).collect(),
        ..empty()
    })
}

fn empty() -> Cluster {
    Cluster {
        profiles: Vec::new(),
        name: String::new(),
        files: Vec::new(),
        content: 0,
        services: BTreeMap::new(),
        sockets: Vec::new(),
        container: ContainerSpec {
            ip: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            log_endpoint: None,
            port: None,
            registry: Choice::default(),
        },
        logs: LogsSpec {
            dir: None,
            budget: Bytes(1 << 30),
            keep_free: 0.05,
            segment: Bytes(64 << 20),
            max_age: None,
            compress: false,
            overflow: Overflow::Block,
        },
        node: NodeSpec {
            run_dir: None,
            heartbeat_interval: Duration::from_secs(1),
            heartbeat_timeout: Duration::from_secs(5),
            start_parallel: 64,
            stop_timeout: Duration::from_secs(30),
            on_all_exited: None,
            watch_config: true,
            stats_interval: Duration::from_secs(2),
            metrics: None,
        },
        warnings: Vec::new(),
    }
}

/// `needs` on `service` under `condition`, all of it.
pub(crate) fn needs(service: &str, condition: Condition) -> Dependency {
    Dependency {
        service: ServiceName::parse(service).unwrap(),
        condition,
        quorum: Quorum::All,
        timeout: None,
        on_restart: OnDependencyRestart::Ignore,
    }
}

/// Readiness of this kind, with the defaults.
pub(crate) fn ready(kind: ReadyKind) -> ReadyCheck {
    ReadyCheck {
        kind,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        failures: 3,
        within: Duration::from_secs(60),
    }
}

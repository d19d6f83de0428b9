//! What people see when a configuration is wrong. Update with `INSTA_UPDATE=always cargo test --workspace --test config_diagnostics`.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "config_support/mod.rs"]
mod config_support;

use config_support::Project;
use std::fmt::Write as _;

/// One test per case, its name the snapshot's.
macro_rules! cases {
    ($($name:ident: $yaml:expr;)*) => { $(
        #[test]
        fn $name() {
            let project = Project::new($yaml);
            let folder = project.path("");
            let complaints = project.complaints().replace(folder.to_str().unwrap(), "[PROJECT]/");
            insta::with_settings!({filters => [(r"machine has \d+", "machine has [N]")]}, {
                insta::assert_snapshot!(stringify!($name), complaints);
            });
        }
    )* };
}

cases! {
    unknown_key_names_the_nearest: "instances:\n  web:\n    comand: ./web\n    numprocesses: 2\n";
    keys_of_other_tools_are_translated: "services:\n  web: {}\ninstances:\n  web:\n    cmd: ./web\n    replicas: 3\n    healthcheck: {}\n";
    duplicate_keys: "instances:\n  web: {command: a}\n  db: {command: b}\n  web: {command: c}\n";
    all_errors_at_once: "instances:\n  web:\n    command: ./web 'oops\n    numprocesses: -1\n    stop: {timeout: 10x, signal: TRM}\n    tty: yes\n    umask: 22\n    depends_on: [dbb]\n  db: {command: x, nice: 40, ready: http}\n";
    bad_indentation: "instances:\n  web:\n    command: x\n   numprocesses: 2\n";
    tab_indentation: "instances:\n\tweb:\n\t\tcommand: x\n";
    half_written: "instances:\n  web:\n    command: [a, b\n";
    open_quote: "instances:\n  web:\n    command: \"./web\n";
    colon_in_a_text: "instances:\n  web:\n    description: web: the front\n    command: x\n";
    not_a_map: "- a\n- b\n";
    map_in_quotes: "instances:\n  a: {command: x, watch: {paths: ['*.py'], action: 'run: make assets'}}\n  b: {command: x, ready: 'tcp: 127.0.0.1:80'}\n";
    empty_file: "# nothing yet\n";
    two_documents: "instances: {}\n---\ninstances: {}\n";
    unknown_alias: "instances:\n  web: *nobody\n";
    dependency_unknown: "instances:\n  web: {command: x, depends_on: [databse]}\n  database: {command: y}\n";
    dependency_cycle: "instances:\n  a: {command: x, depends_on: [b]}\n  b: {command: x, depends_on: [c]}\n  c:\n    command: x\n    depends_on:\n      a: {condition: started}\n  d: {command: x, depends_on: [d]}\n";
    dependency_quorum: "instances:\n  a: {command: x, depends_on: {b: {quorum: 4}, c: {condition: completed}, d: {quorum: 150%}}}\n  b: {command: x, numprocesses: 3}\n  c: {command: x}\n  d: {command: x}\n";
    variables_unset: "env: {A: $(env.HOEM), B: $(envv.X), C: $(var.x), D: \"$(env.X\", E: $(env.1)}\ninstances:\n  web: {command: x $(instance.idx) $(port.http), ports: {htpt: auto}, description: $(instance.id)}\n";
    all_references_of_one_value_at_once: "instances:\n  web: {command: x $(env.NO_SUCH_ONE) $(port.nope) $(instance.idx) $(env.Q)}\n";
    not_supported_yet: "instances:\n  web: {command: x}\ncontainer: {events: {class: amqp}}\nnode: {web: {}}\n";
    metrics_listen: "instances: {web: {command: x, ports: {p: 9464}}}\nnode: {metrics: {listen: 'localhost:9464'}}\n";
    metrics_without_an_address: "node: {metrics: {}}\n";
    metrics_at_a_port_of_a_service: "instances: {web: {command: x, ports: {p: 9464}}}\nnode: {metrics: {listen: '0.0.0.0:9464'}}\n";
    ready_kinds: "instances:\n  a: {command: x, ready: {tcp: '127.0.0.1:80', http: 'http://x/'}}\n  b: {command: x, ready: {interval: 1s}}\n  c: {command: x, ready: {notify_fd: 2}}\n  d: {command: x, ready: heartbeet}\n  e: {command: x, ready: {tcp: 'localhost'}}\n  f: {command: x, ready: {http: 'https://x/'}}\n  g: {command: x, ready: {notify: false}}\n  h: {command: x, ready: {delay: 2m}}\n  i: {command: x, ready: {log: '(open'}}\n  j: {command: x, ready: {http: 'http://x:0/'}}\n  k: {command: x, ready: {http: 'http://[::1]:66000/'}}\n";
    alive_and_heartbeats: "instances:\n  a: {command: x, alive: {heartbeat: true, interval: 5s, timeout: 1s}}\n  b: {command: x, alive: {notify: true, timeout: 3s}}\nnode: {heartbeat: {interval: 5s}}\n";
    ports: "sockets: [{port: 8080}]\ninstances:\n  a: {command: x, numprocesses: 10, ports: {p: {base: 65530, per_instance: true}, q: 70000, r: 8080}}\n  b: {command: x, numprocesses: 2, ports: {p: 9000, '1x': auto, a-b: auto, a_b: auto}, sockets: [frnt]}\n  c: {command: x, ports: {p: {per_instance: true}, q: 9000}}\n";
    jobs_and_schedules: "instances:\n  a: {command: x, schedule: {every: 1m}}\n  b: {command: x, kind: job, schedule: {cron: '61 * * * *'}}\n  c: {command: x, kind: job, schedule: {cron: '* * * * *', every: 1m}}\n  d: {command: x, kind: job, schedule: {overlap: skip}}\n  e: {command: x, kind: job, restart: always}\n  f: {command: x, kind: job, schedule: {cron: '0 0 31 2 *'}}\n";
    restart_and_rolling: "instances:\n  a: {command: x, restart: {delay: 1m, factor: 0.5, jitter: 30, within: 1m}}\n  b: {command: x, rolling: {max_unavailable: 0}}\n  c: {command: x, rolling: {min_ready: 5m}}\n  d: {command: x, restart: sometimes, stop: {timeout: 5m}}\n  e: {command: x, watch: {paths: ['*.py'], action: reload}}\n";
    machine: "instances:\n  a: {command: x, user: nobody-here, group: none-here, cpus: 4000}\n  b: {command: x, directory: missing/folder}\n";
    sizes_and_logs: "instances:\n  a: {command: x, log: {max_line: 2MiB}, limits: {nofile: -1, memory: lots}}\nlogs: {budget: 1MB, segment: 1MiB, keep_free: 100%}\ncontainer: {ip: localhost, log_endpoint: '127.0.0.1:5600'}\n";
    levels_and_records: "instances:\n  a: {command: x, log: {level_from: josn, multiline: '('}}\n  b: {command: x, log: {level_from: 'json:', multiline: off}}\n  c: {command: x, log: {level_from: 'regex:('}}\n";
    words_of_a_shell: "instances:\n  a: {command: 'cat x | sort > $HOME/y'}\n  b: {command: 'cat x | sort', shell: true}\n  c: {command: [ls, '*', '|']}\n  d: {command: x, ready: {exec: 'test -e /run/*.pid'}, hooks: {before_start: 'mkdir a && mkdir b'}}\n  e: {command: x $(port.p) '| $X', ports: {p: auto}}\n";
    paths_of_sockets_are_short: "instances:\n  a: {command: x, ready: {unix: /run/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.sock}}\n";
    names: "instances:\n  'a b': {command: x}\n  '': {command: x}\n  ok: {command: []}\n  nothing:\n";
    a_procfile: "instances:\n  a: sleep 1\n  b: './b --x \"it''s\" | cat'\n  c: [./c]\n";
    restart_in_the_words_of_compose: "instances:\n  a: {command: x, restart: unless-stopped}\n  b: {command: x, restart: 'no'}\n  c: {command: x, restart: 'on-failure:5'}\n  d: {command: x, restart: on-failure}\n  e: {command: x, restart: no}\n";
    wrong_shapes: "name: [a]\nenv: [A=1]\ninstances:\n  a: ./a\n  b: {command: {x: y}, env: A=1, depends_on: 5, hooks: ./x, ports: [80]}\nsockets: 80\n";
    merge_key_of_a_text: "x-a: &a text\ninstances:\n  web:\n    <<: *a\n    command: x\n";
    lymph_backends_are_a_warning: "container:\n  registry: {class: 'lymph.discovery.zookeeper:ZookeeperServiceRegistry', zkclient: 'dep:kz'}\n  events: {class: 'lymph.events.kombu:KombuEventSystem'}\ndependencies: {kz: {hosts: 'a:1'}}\ninstances: {web: {command: x}}\n";
    registry_that_is_not_the_nodes: "instances:\n  web: {command: x, alive: rpc}\ncontainer: {registry: {class: static, hosts: {echo: tcp://127.0.0.1:1}}}\n";
    registry_of_ones_own: "container: {registry: {class: 'our.package:Registry', x: y}}\ninstances: {web: {command: x}}\n";
    defaults_that_are_no_map: "defaults: fast\ninstances: {web: {command: x}}\n";
    registry_of_lymphs_coordinator: "container:\n  registry: {class: 'lymph.discovery.service:CoordinatorServiceRegistry', coordinator_endpoint: 'tcp://127.0.0.1:9000'}\ninstances: {web: {command: x}}\n";
    registry_class: "container: {registry: {class: zookeper, hosts: 'a:1'}}\n";
    registry_without_hosts: "container: {registry: {class: zookeeper}}\n";
    registry_with_odd_hosts: "container: {registry: {class: zookeeper, hosts: 'http://a:1'}}\n";
    registry_of_a_dependency_that_is_not_there: "registry: {class: zookeeper, zkclient: 'dep:kz'}\n";
    registry_variable_unset: "container: {registry: {class: zookeeper, hosts: $(env.ZK_HOSTS)}}\n";
    registry_static_without_hosts: "container: {registry: static}\n";
    registry_static: "container: {registry: {class: static, hosts: {echo: [nowhere]}, port: 1}}\n";
    an_unset_variable_in_a_list_is_said_once: "instances:\n  web: {command: [./web, $(env.NOPE_HERE)]}\n";
    a_shared_socket_answers_for_nobody: "sockets: [{host: 127.0.0.1, port: 4080}]\ninstances:\n  web: {command: x, ready: {tcp: '127.0.0.1:4080'}, alive: {tcp: '127.0.0.1:4080'}}\n  own: {command: x, ready: {tcp: '127.0.0.1:4081'}}\n";
    error_in_defaults_is_said_once: "defaults:\n  stop: {timeout: soon}\n  foo: 1\ninstances:\n  a: {command: x}\n  b: {command: y}\n";
    control_codes_stay_in_the_file: "instances:\n  \"w\\eeb\": {command: x}\n";
}

#[test]
fn errors_of_included_files_name_their_file() {
    let project =
        Project::new("include: [a.yml, missing.yml]\ninstances: {web: {command: x, tty: 3}}\n")
            .file("a.yml", "include: b/c.yml\ninstances: {db: {command: y, nicee: 3}}\n")
            .file("b/c.yml", "instances: {db: [}\n");
    insta::assert_snapshot!(project.complaints());
}

#[test]
fn files_that_include_one_another_are_an_error() {
    let project = Project::new("include: a.yml\n").file("a.yml", "include: [hilum.yml]\n");
    let complaints = project.complaints();
    assert!(complaints.contains("files include one another: "), "{complaints}");
    assert!(complaints.contains("include[0], a.yml:1:11"), "{complaints}");
}

#[test]
fn wrong_files_of_variables_are_explained() {
    let project = Project::new("instances: {web: {command: x, env_file: [a.env, missing.env]}}\n")
        .file("a.env", "A=1\nnonsense\nB='open\n")
        .file(".env", "1=2\n");
    insta::assert_snapshot!(project.complaints());
}

#[test]
fn what_is_not_text_is_refused() {
    let complaints = Project::new("").file("hilum.yml", b"a: 1\nb: \xff\n").complaints();
    assert!(complaints.contains("byte 0xff is not UTF-8"), "{complaints}");
    assert!(complaints.contains("hilum.yml:2:4"), "{complaints}");
    let complaints = Project::new("").file("hilum.yml", vec![b' '; 5 << 20]).complaints();
    assert!(complaints.contains("it is larger than 4 MiB"), "{complaints}");
}

#[test]
fn an_explosion_of_aliases_ends_soon() {
    let mut text = "x-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let item = format!("*a{}", level - 1);
        let _ = writeln!(text, "x-{level}: &a{level} [{}]", [item.as_str(); 10].join(", "));
    }
    let start = std::time::Instant::now();
    let complaints = Project::new(&text).complaints();
    assert!(complaints.contains("too much"), "{complaints}");
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    for text in
        ["[".repeat(100_000), "a: ".to_owned() + &"{a: ".repeat(50_000), "- ".repeat(50_000)]
    {
        let complaints = Project::new(&text).complaints();
        assert!(complaints.contains("error"), "{complaints}");
    }
}

#[test]
fn the_words_of_other_programs_are_one_error_each_that_says_ours() {
    let wrong =
        Project::new("instances: {web: {run: x, ready: {tcp: ':1', every: 1s}}}").complaints();
    assert!(wrong.contains("did you mean `command`?"), "{wrong}");
    assert!(wrong.contains("did you mean `interval`?"), "{wrong}");
    assert!(!wrong.contains("missing"), "{wrong}");
    let job = "instances: {web: {command: x, kind: job, schedule: hourly}}";
    let wrong = Project::new(job).complaints();
    assert!(wrong.contains("its keys are `cron`, `every` or `overlap`"), "{wrong}");
}

#[test]
fn diagnostics_are_json_for_tools() {
    let wrong = Project::new("instances:\n  web:\n    comand: x\n").load().unwrap_err();
    let json = serde_json::to_value(&wrong).unwrap();
    assert_eq!(json[0]["path"], "instances.web.comand");
    assert_eq!((&json[0]["line"], &json[0]["column"]), (&3.into(), &5.into()));
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["help"], "did you mean `command`?");
    assert_eq!(json[0]["snippet"], "    comand: x");
}

#[test]
fn colour_is_only_in_the_coloured_form() {
    let wrong = Project::new("instances: 3\n").load().unwrap_err();
    assert!(wrong.render(true).contains("\x1b[1;31m"));
    assert!(!wrong.render(false).contains('\x1b'));
}

//! What a configuration means: files in, a cluster out.

#[path = "config_support/mod.rs"]
mod config_support;

use config_support::Project;
use hilum_shared::config::spec::{Condition, Kind, RestartWhen};

#[test]
fn the_example_of_the_reference_loads() {
    let project = Project::new(
        "name: shop\nenv: {RUST_LOG: info}\ninstances:\n  echo:\n    command: ./echo --config='conf/my echo.yml'\n    numprocesses: 10\n  demo:\n    command: [python3, demo.py]\n    depends_on: [echo]\nsockets: [{host: 127.0.0.1, port: 4080}]\n",
    );
    let loaded = project.load().unwrap();
    let cluster = &loaded.cluster;
    assert_eq!(cluster.name, "shop");
    let echo = cluster.service("echo").unwrap();
    let words: Vec<_> =
        echo.launch.command.iter().map(hilum_shared::config::template::Template::source).collect();
    assert_eq!(words, ["./echo", "--config=conf/my echo.yml"]);
    assert_eq!(echo.numprocesses, 10);
    assert_eq!(echo.policy.kind, Kind::Service);
    assert_eq!(echo.policy.restart.when, RestartWhen::Always);
    assert_eq!(echo.launch.env["RUST_LOG"].origin, "hilum.yml:2");
    assert_eq!(echo.launch.sockets, [0]);
    let demo = cluster.service("demo").unwrap();
    assert_eq!(demo.policy.depends_on[0].condition, Condition::Started);
    assert_eq!(demo.policy.ready, None);
}

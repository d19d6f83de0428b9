//! A service's configuration as its author and its user see it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;

use hilum_shared::config::Diagnostics;
use hilum_shared::config::service::{Section, ServiceOptions, load};
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Echo {
    greeting: String,
    limit: Option<usize>,
    mode: Mode,
    hosts: Vec<String>,
    inner: BTreeMap<String, f64>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Loud,
    Quiet,
    Every {
        seconds: u32,
    },
}

fn read(files: &[(&str, &str)], env: &[(&str, &str)]) -> (TempDir, Result<Section, Diagnostics>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ServiceOptions { folder: folder.path().to_owned(), env, ..Default::default() };
    let section = load(&options);
    (folder, section)
}

fn good(files: &[(&str, &str)], env: &[(&str, &str)]) -> Section {
    read(files, env).1.unwrap()
}

#[test]
fn a_section_becomes_a_type_and_a_scalar_what_the_type_asks_for() {
    let text = "interfaces:\n  echo@1.2:\n    greeting: 1.10\n    limit: 3\n    mode: quiet\n    hosts: [a, 'b']\n    inner: {x: 1, y: .5}\n  empty:\n";
    let config = good(&[(".lymph.yml", text)], &[]);
    let interfaces = config.get("interfaces").entries().unwrap();
    assert_eq!(
        interfaces.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["echo@1.2", "empty"]
    );
    let expected = Echo {
        greeting: "1.10".into(),
        limit: Some(3),
        mode: Mode::Quiet,
        hosts: vec!["a".into(), "b".into()],
        inner: [("x".to_owned(), 1.0), ("y".to_owned(), 0.5)].into(),
    };
    assert_eq!(interfaces[0].1.read::<Echo>().unwrap(), expected);
    assert_eq!(interfaces[1].1.read::<Echo>().unwrap(), Echo::default());
    assert_eq!(config.get("plugins").read::<Option<Echo>>().unwrap(), None);
    let text = "interfaces: {e: {mode: {every: {seconds: 3}}}}";
    let every =
        good(&[(".lymph.yml", text)], &[]).get("interfaces").get("e").read::<Echo>().unwrap();
    assert_eq!(every.mode, Mode::Every { seconds: 3 });
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    for (below, expected) in [
        (
            "greating: x",
            [
                "unknown key `greating`",
                "did you mean `greeting`?",
                ".lymph.yml:3:5",
                "interfaces.echo.greating",
            ],
        ),
        (
            "limit: many",
            [
                "expected a whole number, not below 0, found `many`",
                "",
                ".lymph.yml:3:12",
                "interfaces.echo.limit",
            ],
        ),
        (
            "hosts: {a: b}",
            ["expected a list, found a map", "", ".lymph.yml:3:12", "interfaces.echo.hosts"],
        ),
        (
            "hosts: [[1]]",
            ["expected a text, found a list", "", ".lymph.yml:3:13", "interfaces.echo.hosts[0]"],
        ),
        (
            "mode: silent",
            [
                "unknown value `silent`",
                "known: `loud`, `quiet` or `every`",
                ".lymph.yml:3:11",
                "interfaces.echo.mode",
            ],
        ),
        (
            "inner: {x: y}",
            ["expected a number, found `y`", "", ".lymph.yml:3:16", "interfaces.echo.inner.x"],
        ),
    ] {
        let text = format!("interfaces:\n  echo:\n    {below}\n");
        let (_folder, config) = read(&[(".lymph.yml", &text)], &[]);
        let error =
            config.unwrap().get("interfaces").get("echo").read::<Echo>().unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{below}: no `{part}` in\n{error}");
        }
    }
}

#[test]
fn the_nodes_sections_lie_below_the_services_one_level_deep() {
    let node = "container: {ip: 10.0.0.1, rpc: {port: 1}, registry: {class: embedded}}\ninterfaces: {never: {}}\ninstances: {x: {command: $(env.NOT_THERE)}}\n";
    let own = "container: {rpc: {connection: {timeout: 4}}}\nname: me\n";
    let config = good(
        &[("node.yml", node), ("own.yml", own)],
        &[("LYMPH_NODE_CONFIG", "node.yml"), ("LYMPH_CONFIG", "own.yml")],
    );
    let container = config.get("container");
    assert_eq!(container.get("ip").text().unwrap().as_deref(), Some("10.0.0.1"));
    assert!(!container.get("rpc").get("port").is_given());
    assert!(container.get("rpc").get("connection").get("timeout").is_given());
    assert!(!config.get("interfaces").is_given());
    assert_eq!(config.get("name").text().unwrap().as_deref(), Some("me"));
}

#[test]
fn variables_and_what_the_node_fills_in_are_replaced() {
    let text = "interfaces:\n  e:\n    greeting: $(env.WHO:-x) $(instance.id) $$(kept\n    limit: $(port.http)\n    hosts: $(var.hosts)\n";
    let env =
        [("LYMPH_VARS", "v.yml"), ("WHO", "me"), ("HILUM_INSTANCE", "echo.3"), ("PORT_HTTP", "81")];
    let files = [(".lymph.yml", text), ("v.yml", "hosts: [p, q]\n")];
    let echo = good(&files, &env).get("interfaces").get("e").read::<Echo>().unwrap();
    assert_eq!((echo.greeting.as_str(), echo.limit), ("me echo.3 $(kept", Some(81)));
    assert_eq!(echo.hosts, ["p", "q"]);
    let (_folder, config) = read(&files, &env[..2]);
    let error = config.unwrap_err().to_string();
    assert!(
        error.contains("`$(port.http)` is not known here") && error.contains(".lymph.yml:4:12"),
        "{error}"
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (_folder, config) = read(&[], &[("LYMPH_CONFIG", "gone.yml")]);
    let error = config.unwrap_err().to_string();
    assert!(error.contains("gone.yml` of `LYMPH_CONFIG`: there is no such file"), "{error}");
    let (_folder, config) = read(&[(".lymph.yml", "interface: {}")], &[]);
    let error = config.unwrap_err().to_string();
    assert!(
        error.contains("unknown key `interface`") && error.contains("did you mean `interfaces`?"),
        "{error}"
    );
    let (_folder, config) = read(&[(".lymph.yml", "- a")], &[]);
    assert!(config.unwrap_err().to_string().contains("a configuration is a map of keys"));
    assert!(!good(&[], &[]).get("interfaces").is_given());
    assert!(!good(&[(".lymph.yml", "# nothing\n")], &[]).get("interfaces").is_given());
}

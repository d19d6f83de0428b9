//! Syntax errors: all of them are listed at once, and with them what is wrong in the rest.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "config_support/mod.rs"]
mod config_support;

use config_support::Project;
use hilum_shared::config::Severity;
use proptest::prelude::*;

/// Lines that are no YAML where keys of a service stand.
const WRONG: [&str; 21] = [
    "    description: web: the front",
    "    description: [a, b",
    "    description: \"open",
    "    description: 'open",
    "    description: 'it's",
    "    description: {a: b",
    "    env: {A: 1, B: [2}",
    "\t\tnice: 3",
    "    description: *nobody",
    "    description: @x",
    "    description: `x`",
    "    description: %x",
    "    description: ]",
    "    just some words",
    "    - item",
    "    \"nice: 3",
    "    description: \"a\" b",
    "    description: [a] b",
    "    description: !<x y",
    "    description: > x",
    "    ]",
];

/// The lines of a valid service, whose order and number vary.
fn service(name: &str, variant: u8) -> Vec<String> {
    let mut lines = vec![format!("  {name}:"), "    command: [./run, 'a: b']".to_owned()];
    let more = [
        "    numprocesses: 2",
        "    stop: {timeout: 3s, signal: INT}",
        "    # a comment, 'not closed",
        "    tty: true",
        "",
    ];
    lines.extend(more.iter().take(usize::from(variant % 6)).map(|line| (*line).to_owned()));
    if variant.is_multiple_of(3) {
        lines.extend(
            ["    labels:", "      a: \"b\"", "      c: |", "        d: [", "    nice: 3"]
                .map(str::to_owned),
        );
    }
    if variant % 4 == 1 {
        lines.extend(
            ["    depends_on:", "      - first", "    ports:", "      http: auto"]
                .map(str::to_owned),
        );
    }
    lines
}

/// Where a line may be put in: after the name, or where a line of the same depth stands.
fn places(lines: &[String]) -> Vec<usize> {
    let fits = |line: &String| line.starts_with("    ") && !line.starts_with("     ");
    (1..=lines.len()).filter(|at| lines.get(*at).is_none_or(fits)).collect()
}

/// Lines of the errors of a text, each with its message.
fn errors(text: &str) -> Vec<(usize, String)> {
    let Err(wrong) = Project::new(text).load() else {
        return Vec::new();
    };
    let errors = wrong.0.into_iter().filter(|one| one.severity == Severity::Error);
    errors.map(|one| (one.line.unwrap_or(0), one.message)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn errors_in_several_services_are_one_each_and_nothing_else_is_wrong(
        services in proptest::collection::vec(
            (any::<u8>(), proptest::option::of((0..WRONG.len(), any::<prop::sample::Index>()))),
            1..9,
        ),
        twisted in any::<bool>(),
    ) {
        let mut text = vec!["name: shop".to_owned(), "instances:".to_owned(), "  first: {command: x}".to_owned()];
        let mut expected = Vec::new();
        for (number, (variant, wrong)) in services.into_iter().enumerate() {
            let mut lines = service(&format!("s{number}"), variant);
            if let Some((wrong, at)) = wrong {
                let places = places(&lines);
                let at = places[at.index(places.len())];
                lines.insert(at, WRONG[wrong].to_owned());
                expected.push(text.len() + at + 1);
            }
            text.extend(lines);
        }
        if twisted {
            text.push("  last: {command: x, comand: y, depends_on: [s0]}".to_owned());
            expected.push(text.len());
        }
        let text = text.join("\n") + "\n";
        let found = errors(&text);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        prop_assert_eq!(&lines, &expected, "{:#?}\n{}", found, text);
    }

    #[test]
    fn what_is_torn_anywhere_ends_soon_and_is_never_accepted(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\"':&*!|>%@`\t\n -]{1,3}"), 1..12),
    ) {
        let mut text: String = (0..20).flat_map(|n| service(&format!("s{n}"), n)).fold("instances:\n".to_owned(), |text, line| text + &line + "\n");
        for (at, what) in cuts {
            let at = at.index(text.len());
            text.insert_str(at, &what);
        }
        let begun = std::time::Instant::now();
        let found = errors(&text);
        prop_assert!(begun.elapsed().as_secs() < 20);
        let strict = serde_yaml::from_str::<serde_yaml::Value>(&text);
        // Duplicate keys and tabs are judged alike; what serde_yaml cannot read, nobody starts.
        prop_assert!(strict.is_ok() || !found.is_empty(), "{}", text);
        let mut once = found.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), found.len(), "{:#?}", found);
    }
}

#[test]
fn what_a_broken_part_would_have_said_is_not_missed_elsewhere() {
    // A service, another one's port, its readiness, a default, an anchor, a shared socket.
    let text = "x-base: &base {command: [x}\ndefaults:\n  stop: {timeout: ]\nsockets:\n  - {name: front, port: [}\ninstances:\n  a: {<<: *base, sockets: [front]}\n  b: {command: x, depends_on: [db2, c]}\n  db2: : {command: y\n  c:\n    command: 'x\n    ports: {p: auto}\n  d: {command: x $(port.c.1.p), env: {A: $(port.c.1.q)}}\n";
    let found = errors(text);
    let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 3, 5, 9, 11], "{found:#?}");
}

#[test]
fn unknown_names_are_told_unless_they_may_be_in_what_could_not_be_read() {
    // `db` and its port are lost, and so are the defaults.
    let text = "defaults: {nice: 5]\ninstances:\n  web:\n    command: x $(port.http) $(port.db.1.sql) $(port.api.1.http)\n    depends_on: [db, dbb, api]\n    sockets: [front]\n  db: {command: y, ports: {sql: auto]\n  api: {command: z}\n";
    let found = errors(text);
    let said: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    let expected = ["no port `http`", "no service `dbb`", "no socket `front`"];
    for expected in expected {
        assert!(said.iter().any(|said| said.contains(expected)), "{expected}: {said:#?}");
    }
    // Two brackets, `$(port.http)` of web and of api, and the two others.
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn a_part_that_is_brought_in_from_elsewhere_may_hold_any_name() {
    for lost in ["  <<: *services ]", "  \"d\\x62\": ]"] {
        let text = format!(
            "x-all: &services {{a: {{command: y}}}}\ninstances:\n  web: {{command: x, depends_on: [db]}}\n{lost}\n"
        );
        let found = errors(&text);
        assert_eq!(found.len(), 1, "{lost}: {found:#?}");
    }
}

#[test]
fn the_rest_of_a_broken_service_is_judged_too() {
    let text = "instances:\n  web:\n    description: web: the front\n    comand: x\n    ready: {interval: 1s, tcp: *x}\n    tty: yes\n  db: {command: x, depends_on: [webb]}\n";
    let found = errors(text);
    let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7], "{found:#?}");
}

#[test]
fn a_broken_file_of_variables_or_an_included_one_hides_nothing_and_blames_nobody() {
    let mut project = Project::new("include: part.yml\ninstances:\n  a: {command: x $(var.port) $(var.lost), depends_on: [b], nicee: 1}\n")
        .file("part.yml", "instances:\n  b: {command: y\n  c: {command: z, nice: high}\n")
        .file("vars.yml", "port: 1\nlost: [}\nmore: ]\n");
    project.options.vars = Some("vars.yml".into());
    let complaints = project.complaints();
    let count = complaints.matches("error: ").count();
    for expected in
        ["vars.yml:2:7", "vars.yml:3:7", "part.yml:2:6", "part.yml:3:25", "hilum.yml:3:60"]
    {
        assert!(complaints.contains(expected), "{expected}: {complaints}");
    }
    assert_eq!(count, 5, "{complaints}");
}

#[test]
fn a_file_full_of_errors_is_given_up_soon() {
    let text = format!("instances:\n{}", "  a: ]\n".repeat(5000));
    let found = errors(&text);
    assert!(
        found.iter().any(|(_, message)| message.contains("too many syntax errors")),
        "{found:?}"
    );
    assert!(found.len() <= 101, "{}", found.len());
}

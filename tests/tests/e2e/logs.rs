//! The log of everything.

use hilum_tests::{Cluster, LIMIT, wait_until};
use serde_json::Value;

const TALK: &str = r#"
instances:
  web:
    command: sh -c 'echo to out; echo to err >&2; printf "\377\376 not text\n"; echo "ERROR it broke"; printf unfinished'
    restart: never
  db: {command: sh -c 'echo db here; exec sleep 1000'}
"#;

fn json(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn all_that_was_written_is_there_also_when_the_node_is_gone() {
    let cluster = Cluster::up(TALK);
    cluster.wait_state("web.1", "completed");
    for node in ["up", "down"] {
        let lines = json(&cluster.logs("web --json"));
        let of = |stream: &str| -> Vec<&str> {
            lines
                .iter()
                .filter(|line| line["stream"] == stream)
                .map(|line| line["line"].as_str().unwrap())
                .collect()
        };
        assert_eq!(of("err"), ["to err"], "node {node}");
        assert_eq!(
            of("out"),
            ["to out", "\u{fffd}\u{fffd} not text", "ERROR it broke", "unfinished"]
        );
        let odd = lines.iter().find(|line| !line["raw_base64"].is_null()).unwrap();
        assert_eq!(odd["raw_base64"], "//4gbm90IHRleHQ=");
        assert!(lines.iter().any(|line| line["partial"] == true && line["line"] == "unfinished"));
        assert!(lines.iter().all(|line| line["instance"] == "web.1"));
        let mut numbers: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
        let sorted = numbers.clone();
        numbers.sort_unstable();
        assert_eq!(numbers, sorted);
        if node == "up" {
            cluster.down();
        }
    }
}

#[test]
fn logs_are_chosen_by_what_is_asked_for() {
    let cluster = Cluster::up(TALK);
    cluster.wait_state("web.1", "completed");
    cluster.wait_log("db here");
    assert_eq!(cluster.logs("--stream err --no-prefix"), "to err\n");
    assert_eq!(cluster.logs("--grep ^to --stream out,err --no-prefix").lines().count(), 2);
    assert_eq!(cluster.logs("--level critical web --stream out"), "");
    assert_eq!(
        cluster.logs("--level info db --stream out --no-prefix"),
        "db here\n",
        "no level counts as INFO"
    );
    assert_eq!(cluster.logs("-n 1 db --stream out").lines().count(), 1);
    assert_eq!(cluster.logs("--since 1h db --stream out --no-prefix"), "db here\n");
    assert_eq!(cluster.logs("--until 1h"), "");
    cluster.run("logs nobody").code(2);
    cluster.run("logs --grep (").code(2);
}

#[test]
fn following_goes_on_through_restarts_and_loses_nothing() {
    let yaml = "
instances:
  count:
    command: sh -c 'for i in $$(seq 1 200); do echo run $HILUM_RUN line $i; done; test $HILUM_RUN = 3 && exec sleep 1000; exit 1'
    restart: {delay: 10ms, min_uptime: 0s}
";
    let cluster = Cluster::new(yaml);
    let follow = cluster.start(&["logs", "-f", "-n", "all", "--no-prefix", "--stream", "out"]);
    cluster.ok("up -d");
    follow.wait_out("run 3 line 200");
    let expected: Vec<String> = (1..=3)
        .flat_map(|run| (1..=200).map(move |line| format!("run {run} line {line}")))
        .collect();
    let seen = follow.out();
    assert_eq!(seen.lines().filter(|line| line.starts_with("run ")).collect::<Vec<_>>(), expected);
}

#[test]
fn a_flood_is_kept_whole_and_does_not_hold_the_node() {
    let cluster =
        Cluster::up("instances: {web: {command: sh -c 'seq 1 50000; echo end', restart: never}}");
    let began = std::time::Instant::now();
    cluster.ps();
    assert!(began.elapsed() < std::time::Duration::from_secs(2));
    cluster.wait_log("end");
    let lines = cluster.logs("web --stream out --no-prefix");
    assert_eq!(lines.lines().count(), 50_001);
    assert!(lines.ends_with("50000\nend\n"));
}

#[test]
fn a_stop_answers_when_all_that_was_written_can_be_read() {
    let yaml = "instances: {web: {command: \"sh -c 'trap \\\"seq 1 2000; echo goodbye; exit 0\\\" TERM; touch up; while :; do sleep 0.02; done'\"}}";
    let cluster = Cluster::up(yaml);
    wait_until(LIMIT, "a start", || cluster.path("up").exists());
    cluster.ok("stop web");
    assert!(cluster.logs("--stream out --no-prefix").ends_with("2000\ngoodbye\n"));
}

#[test]
fn a_terminal_is_given_where_asked_for() {
    let cluster = Cluster::up(
        "instances: {web: {command: sh -c 'test -t 1 && echo a terminal', tty: true, restart: never}}",
    );
    cluster.wait_log("a terminal");
}

#[test]
fn no_line_comes_before_the_word_that_its_run_was_started() {
    // Forty at once, which write the moment they run and are restarted: the log thread is busy all the while.
    let cluster = Cluster::up(
        "instances: {web: {command: [/bin/echo, here], numprocesses: 40, restart: {policy: always, delay: 50ms, max_delay: 50ms}}}",
    );
    wait_until(LIMIT, "hundreds of runs", || {
        cluster.json("ps --json")["instances"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["run"].as_u64() >= Some(8)))
    });
    cluster.ok("stop web");
    let mut started = std::collections::BTreeMap::new();
    let mut lines = 0;
    for record in json(&cluster.logs("web --json")) {
        let run = (record["instance"].to_string(), record["run"].as_u64().unwrap());
        if record["event"] == "started" || record["fields"]["event"] == "started" {
            let at = record["fields"]["at"].as_f64().or(record["at"].as_f64()).unwrap();
            started.insert(run, at);
        } else if record["stream"] == "out" {
            lines += 1;
            let said = started.get(&run).unwrap_or_else(|| panic!("{record} comes first"));
            assert!(record["at"].as_f64().unwrap() >= *said - 0.000_001, "{record}, {said}");
        }
    }
    assert!(lines >= 300, "{lines}");
}

#[test]
fn following_ends_at_the_time_that_was_given() {
    let cluster = Cluster::up(
        "instances: {web: {command: \"sh -c 'while :; do echo tick; sleep 0.05; done'\"}}",
    );
    cluster.wait_log("tick");
    cluster.run("logs -f --until 1h").code(0);
    let begun = seconds();
    let end = begun.ceil() + 1.0;
    let date = ["-u", "-d", &format!("@{end}"), "+%FT%TZ"].map(str::to_owned);
    let date = std::process::Command::new("date").args(date).output().unwrap();
    let end_as_text = String::from_utf8(date.stdout).unwrap();
    let told = cluster.run_words(&["logs", "-f", "--json", "--until", end_as_text.trim()]);
    let at = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["at"].as_f64();
    let at: Vec<f64> = told.code(0).out.lines().filter_map(at).collect();
    assert!(at.iter().all(|at| *at <= end), "{end}: {at:?}");
    assert!(at.iter().any(|at| *at > begun), "it goes on with what comes from {begun} on: {at:?}");
}

fn seconds() -> f64 {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_secs_f64()
}

#[test]
fn a_start_is_stamped_when_it_was_made() {
    let cluster = Cluster::up(
        "instances: {web: {command: [date, +%s.%N], numprocesses: 60, restart: never}}",
    );
    wait_until(LIMIT, "all to end", || {
        cluster.logs("--stream out --no-prefix").lines().count() == 60
    });
    let told = cluster.run_words(&["logs", "--json"]).code(0).out;
    let records = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let (mut started, mut ran) = (Vec::new(), std::collections::BTreeMap::new());
    for record in records {
        let name = record["instance"].as_str().unwrap_or_default().to_owned();
        if record["fields"]["event"] == "started" {
            started.push((name, record["at"].as_f64().unwrap()));
        } else if record["stream"] == "out" {
            ran.insert(name, record["line"].as_str().unwrap().parse::<f64>().unwrap());
        }
    }
    assert_eq!((started.len(), ran.len()), (60, 60));
    for pair in started.windows(2) {
        let [(one, at), (next, _)] = pair else { unreachable!() };
        let own = ran[next];
        assert!(
            *at <= own,
            "{next} ran at {own}: {one}, started before it, is said to be so at {at}"
        );
    }
}

#[test]
fn a_config_that_cannot_be_read_hides_no_log_that_lies_elsewhere() {
    let yaml =
        "instances: {web: {command: sh -c 'echo here; exec sleep 1000'}}\nlogs: {dir: elsewhere}\n";
    let cluster = Cluster::up(yaml);
    cluster.wait_log("here");
    cluster.configure("instances: {web: [");
    assert!(cluster.logs("web").contains("here"));
    assert!(cluster.events("web").contains(&"started".to_owned()));
    assert!(cluster.ok("crash").is_empty());
    cluster.configure(yaml);
}

#[test]
fn times_are_moments_and_in_order() {
    let cluster = Cluster::up(TALK);
    cluster.wait_log("db here");
    let all = json(&cluster.logs("db --stream out --json"));
    let at = all[0]["at"].as_f64().unwrap();
    for since in [format!("{at:.6}"), format!("@{}", at as u64 - 1), "-10m".into()] {
        assert_eq!(
            cluster.logs(&format!("db --stream out --no-prefix --since {since}")),
            "db here\n",
            "{since}"
        );
    }
    assert_eq!(cluster.logs(&format!("db --stream out --since {:.0}", at + 5.0)), "");
    let refused = cluster.run("logs --since 5m --until 10m");
    assert_eq!(refused.status.code(), Some(2), "{}", refused.err);
    assert!(refused.err.contains("is later than"), "{}", refused.err);
}

#[test]
fn following_goes_on_when_somebody_removes_the_folder() {
    let cluster = Cluster::up(
        "instances: {web: {command: sh -c 'while :; do i=$((i+1)); echo line $i.; sleep 0.02; done'}}",
    );
    let follow = cluster.start(&["logs", "-f", "web"]);
    let last = |text: &str| -> u64 {
        let numbers = text.split("line ").filter_map(|rest| rest.split('.').next()?.parse().ok());
        numbers.max().unwrap_or(0)
    };
    for _ in 0..3 {
        follow.wait_out(&format!("line {}.", last(&follow.out()) + 5));
        std::fs::remove_dir_all(cluster.path(".hilum/hilum.yml/logs")).unwrap();
        let before = last(&follow.out());
        wait_until(LIMIT, "lines of the new folder", || last(&follow.out()) > before + 20);
    }
}

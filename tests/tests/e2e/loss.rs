//! What cannot be kept is counted and said, and a flood harms only who makes it.
#![allow(clippy::unwrap_used, reason = "a test fails where it is disappointed, helpers included")]

use std::time::Instant;

use hilum_tests::{Cluster, LIMIT, wait_until};
use serde_json::{Value, json};

fn gaps(cluster: &Cluster, arguments: &str) -> Vec<Value> {
    let all = cluster.logs(&format!("{arguments} --json"));
    let lines = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["dropped"].is_u64()).collect()
}

#[test]
fn lines_beyond_the_rate_are_counted_in_the_timeline_in_events_and_in_ps() {
    let yaml = "
instances:
  loud: {command: sh -c 'seq 1 500; exec sleep 1000', log: {rate: 100}}
  calm: {command: sh -c 'seq 1 50; exec sleep 1000', log: {rate: 100}}
";
    let cluster = Cluster::up(yaml);
    wait_until(LIMIT, "a gap", || !gaps(&cluster, "loud").is_empty());
    let dropped: u64 =
        gaps(&cluster, "loud").iter().map(|gap| gap["dropped"].as_u64().unwrap()).sum();
    let kept = cluster.logs("loud --stream out --no-prefix");
    let lines = kept.lines().filter(|line| line.parse::<u32>().is_ok()).count() as u64;
    assert_eq!(lines + dropped, 500);
    assert!(kept.contains("lines dropped (rate limit)"), "{kept}");
    let told = dropped_events(&cluster, "loud", "rate", false);
    let stats = cluster.json("logs loud --stats --json");
    let loud = cluster.wait("loud.1", "the flag", |loud| loud["flags"] == json!(["lines-dropped"]));
    let by = json!({"rate": dropped});
    assert_eq!((told, &loud["dropped"], &loud["dropped_by"]), (dropped, &json!(dropped), &by));
    assert_eq!(stats["names"]["loud.1"]["dropped"], dropped);
    assert_eq!(stats["names"]["loud.1"]["dropped_by"], by);
    let table = cluster.ok("ps");
    assert!(table.contains(&format!("lines dropped: rate {dropped}")), "{table}");
    assert!(gaps(&cluster, "loud").iter().all(|gap| gap["why"] == "rate"));
    assert!(gaps(&cluster, "calm").is_empty());
    let calm = cluster.instance("calm.1");
    assert_eq!((&calm["flags"], &calm["dropped_by"]), (&json!([]), &json!({})));
    // A new run has lost nothing yet.
    cluster.configure(&yaml.replace("seq 1 500", "seq 1 5"));
    cluster.ok("up -d");
    cluster.wait("loud.1", "no flag", |loud| loud["run"] == 2 && loud["flags"] == json!([]));
}

/// Lines that events tell of, all of them for this reason.
fn dropped_events(cluster: &Cluster, target: &str, why: &str, kept: bool) -> u64 {
    let all = cluster.ok(&format!("events {target} --json"));
    let events = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let dropped = events.filter(|event| event["event"] == "lines-dropped").inspect(|event| {
        assert_eq!((&event["why"], &event["kept"]), (&json!(why), &json!(kept)));
    });
    dropped.map(|event| event["lines"].as_u64().unwrap()).sum()
}

#[test]
fn with_overflow_drop_a_flood_at_full_speed_costs_a_quiet_neighbour_no_line() {
    let yaml = "
instances:
  flood: {command: yes a line that says nothing at all, numprocesses: 3}
  calm:
    command: >-
      sh -c 'i=0; while test $i -lt 300; do i=$((i+1)); echo calm $i; sleep 0.005; done; exec sleep 1000'
logs: {budget: 64MiB, overflow: drop}
";
    let cluster = Cluster::new(&yaml.replace("$(", "$$("));
    cluster.ok("up -d");
    let shown = || cluster.logs("calm --stream out --no-prefix");
    wait_until(LIMIT, "its last line", || shown().contains("calm 300"));
    cluster.ok("stop flood");
    let wanted: Vec<String> = (1..=300).map(|number| format!("calm {number}")).collect();
    assert_eq!(shown().lines().collect::<Vec<_>>(), wanted);
    assert_eq!(cluster.instance("calm.1")["dropped"], 0);
}

/// As `lymph tail` does: a SUB socket, frames `[LEVEL, endpoint, text]`.
fn subscriber(endpoint: &str, high_water: i32) -> zmq::Socket {
    let tail = zmq::Context::new().socket(zmq::SUB).unwrap();
    tail.set_rcvhwm(high_water).unwrap();
    tail.set_rcvtimeo(200).unwrap();
    tail.set_subscribe(b"").unwrap();
    tail.connect(endpoint).unwrap();
    tail
}

/// Reads until it is told of missing lines, or `end` has come: how many came, how many it was told of.
fn listen(cluster: &Cluster, tail: &zmq::Socket, endpoint: &str, end: u64) -> (u64, u64) {
    let (mut got, mut last) = (0, 0);
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < LIMIT, "{got} came, up to {last}");
        let Ok(frames) = tail.recv_multipart(0) else {
            cluster.ok("signal CONT web"); // word comes with the next line, and an event is one
            continue;
        };
        assert_eq!(frames[1], endpoint.as_bytes());
        let text = String::from_utf8(frames[2].clone()).unwrap();
        if let Some(number) = text.strip_prefix("web.1 out | ") {
            assert_eq!(frames[0], b"INFO");
            let number = number.parse::<u64>().expect("a number");
            assert!(number > last, "{number} after {last}");
            last = number;
            got += 1;
            if number == end {
                return (got, 0);
            }
        } else if let Some(gap) = text.strip_prefix("* node | … ")
            && gap.ends_with("a subscriber of the log endpoint was too slow)")
        {
            assert_eq!(
                frames[0], b"INFO",
                "the topic of what it missed: it may listen to no other"
            );
            return (got, gap.split(' ').find_map(|word| word.parse().ok()).expect("a number"));
        }
    }
}

#[test]
fn a_subscriber_that_does_not_keep_up_is_told_how_much_it_missed_and_the_files_miss_nothing() {
    const LINES: u64 = 100_000;
    let cluster = Cluster::new("instances: {}");
    let endpoint = format!("ipc://{}", cluster.path("pub.sock").display());
    cluster.configure(&format!(
        "
container: {{log_endpoint: '{endpoint}'}}
instances:
  web: {{command: sh -c 'until test -e go; do sleep 0.01; done; seq 1 {LINES}; exec sleep 1000'}}
"
    ));
    cluster.ok("up -d");
    let (awake, asleep) = (subscriber(&endpoint, 0), subscriber(&endpoint, 10));
    wait_until(LIMIT, "both to have seen something", || {
        cluster.ok("signal CONT web");
        [&awake, &asleep].iter().all(|tail| tail.poll(zmq::POLLIN, 10).unwrap() > 0)
    });
    cluster.write("go", "");
    let (got, told) = listen(&cluster, &awake, &endpoint, LINES);
    assert!(got == LINES || told > 0, "{got} came, {told} were told of");
    let kept = || {
        let lines = cluster.logs("web --stream out --no-prefix");
        lines.lines().filter(|line| line.parse::<u64>().is_ok()).count() as u64
    };
    wait_until(LIMIT, "all lines in the files", || kept() == LINES);
    let (got, told) = listen(&cluster, &asleep, &endpoint, u64::MAX);
    // Events are lines, too.
    assert!((LINES..LINES + 500).contains(&(got + told)), "{got} came, {told} were told of");
    let missed = || cluster.ps()["node"]["missed_by"]["subscriber"].as_u64();
    wait_until(LIMIT, "the account of what it missed", || missed().is_some());
    wait_until(LIMIT, "the same of the events", || {
        Some(dropped_events(&cluster, "", "subscriber", true)) == missed()
    });
    // The timeline itself misses nothing.
    assert!(gaps(&cluster, "").is_empty());
    assert_eq!(cluster.ps()["node"]["dropped"], 0);
}

/// Since 1970.
fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_flood_delays_neither_restarts_nor_the_lines_of_others_nor_who_follows_them() {
    // Each tick says when it was written.
    let yaml = "
instances:
  flood: {command: sh -c 'exec yes a line that says nothing at all', numprocesses: 1}
  tick:
    command: >-
      sh -c 'i=0; while test $i -lt 100; do i=$((i+1)); echo tick $i $(date +%s.%N); sleep 0.01; done; exec sleep 1000'
    autostart: false
  crash:
    command: sh -c 'echo life $HILUM_RUN; sleep 0.05; test $HILUM_RUN = 5 && exec sleep 1000; exit 1'
    autostart: false
    restart: {delay: 10ms, min_uptime: 0s}
logs: {budget: 64MiB}
";
    let cluster = Cluster::new(&yaml.replace("$(", "$$("));
    cluster.ok("up -d");
    let follow =
        cluster.start(&["logs", "-f", "tick", "crash", "--no-prefix", "--stream", "out", "--json"]);
    cluster.ok("start tick crash --no-wait");
    let mut shown = Vec::new();
    for number in 1..=100 {
        follow.wait_out(&format!("tick {number} "));
        shown.push(now());
    }
    follow.wait_out("life 5");
    cluster.ok("stop flood");
    let out = follow.out();
    let records = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (mut ticks, mut lives, mut captured) = (Vec::new(), Vec::new(), Vec::new());
    for record in records {
        let words: Vec<&str> = record["line"].as_str().unwrap().split(' ').collect();
        match words[..] {
            ["tick", number, written] => {
                ticks.push(number.to_owned());
                captured.push((record["at"].as_f64().unwrap(), written.parse::<f64>().unwrap()));
            }
            ["life", run] => lives.push(run.to_owned()),
            _ => panic!("{record}"),
        }
    }
    assert!(ticks.iter().map(|tick| tick.parse::<u32>().unwrap()).eq(1..=100), "{ticks:?}");
    assert_eq!(lives, ["1", "2", "3", "4", "5"]);
    assert!(gaps(&cluster, "tick crash").is_empty());
    // It is a few milliseconds where nothing else runs.
    let written = captured.iter().map(|(_, written)| *written);
    let to_capture = median(captured.iter().map(|(at, written)| at - written).collect());
    let to_screen = median(written.zip(shown).map(|(written, shown)| shown - written).collect());
    assert!(
        to_capture < 1.0 && to_screen < 2.0,
        "{to_capture}s to be read, {to_screen}s to be seen"
    );
}

//! Events between services, through the node's broker.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hilum_tests::{Cluster, LIMIT, events, signal, wait_until};

/// A line of `heard`: instance, interface, what, which event.
type Line = (String, String, String, u32);

fn config(services: &[(&str, &str, u32)]) -> String {
    let binary = events();
    let one = |(name, words, count): &(&str, &str, u32)| {
        format!(
            "  {name}: {{command: {binary} {words}, numprocesses: {count}, ready: heartbeat}}\n"
        )
    };
    format!("instances:\n{}", services.iter().map(one).collect::<String>())
}

fn up(services: &[(&str, &str, u32)]) -> Cluster {
    let cluster = Cluster::new(&config(services));
    cluster.ok("up -d --wait");
    cluster
}

fn emit(cluster: &Cluster, kind: &str, n: u32) {
    cluster.run_words(&["emit", kind, &format!("{{\"n\": {n}}}")]).code(0);
}

fn heard(cluster: &Cluster) -> Vec<Line> {
    let text = cluster.read("heard");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |at: usize| words[at].to_owned();
        (word(0), word(1), word(2), words[3].parse().unwrap())
    };
    whole.lines().map(line).collect()
}

/// The events of which this is written down, by any instance of this interface, in order.
fn of(cluster: &Cluster, interface: &str, what: &str) -> Vec<u32> {
    let lines = heard(cluster).into_iter();
    lines.filter(|line| line.1 == interface && line.2 == what).map(|line| line.3).collect()
}

fn who(cluster: &Cluster, what: &str) -> BTreeSet<String> {
    let lines = heard(cluster).into_iter();
    lines.filter(|line| line.2 == what).map(|line| line.0).collect()
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn each_event_goes_to_one_instance_of_each_service() {
    let cluster = up(&[
        ("heard", "instance --interface Heard", 3),
        ("other", "instance --interface Other", 1),
    ]);
    let all: Vec<u32> = (1..=12).collect();
    for n in &all {
        emit(&cluster, "job.x", *n);
    }
    wait_until(LIMIT, "all is done by both", || {
        ["heard", "other"].iter().all(|it| of(&cluster, it, "job-done").len() >= all.len())
    });
    for interface in ["heard", "other"] {
        assert_eq!(sorted(of(&cluster, interface, "job-begun")), all, "each once by {interface}");
    }
    assert_eq!(who(&cluster, "job-done").len(), 4, "each instance took part");
    emit(&cluster, "job", 13); // `job.#` means it, `job.*` does not
    wait_until(LIMIT, "one more", || of(&cluster, "heard", "job-done").contains(&13));
    assert!(!of(&cluster, "other", "job-begun").contains(&13));
    let nobody = cluster.run("emit nobody.cares").code(0);
    assert!(nobody.err.contains("no service has subscribed"), "{}", nobody.err);
}

#[test]
fn a_killed_consumer_loses_nothing() {
    let cluster = up(&[("heard", "instance", 2)]);
    cluster.write("hold", "");
    let all: Vec<u32> = (1..=6).collect();
    for n in &all {
        emit(&cluster, "job.x", *n);
    }
    wait_until(LIMIT, "all are begun", || of(&cluster, "heard", "job-begun").len() == all.len());
    let of_it = |line: &&Line| line.0 == "heard.1" && line.1 == "heard";
    let lost = heard(&cluster).iter().filter(of_it).count();
    assert!(lost > 0);
    signal("KILL", cluster.pid("heard.1"));
    wait_until(LIMIT, "what it had is begun again", || {
        of(&cluster, "heard", "job-begun").len() == all.len() + lost
    });
    std::fs::remove_file(cluster.path("hold")).unwrap();
    wait_until(LIMIT, "all are done", || of(&cluster, "heard", "job-done").len() == all.len());
    assert_eq!(sorted(of(&cluster, "heard", "job-done")), all);
}

#[test]
fn a_drain_finishes_what_is_begun_and_what_comes_waits_for_the_next() {
    let cluster = up(&[("heard", "instance", 1)]);
    cluster.write("hold", "");
    emit(&cluster, "job.x", 1);
    wait_until(LIMIT, "it is begun", || !of(&cluster, "heard", "job-begun").is_empty());
    let stop = cluster.start(&["stop", "heard"]);
    cluster.wait_state("heard.1", "stopping");
    emit(&cluster, "job.x", 2);
    std::fs::remove_file(cluster.path("hold")).unwrap();
    stop.finish(LIMIT).code(0);
    assert_eq!(of(&cluster, "heard", "job-done").first(), Some(&1));
    emit(&cluster, "job.x", 3);
    cluster.ok("start heard");
    wait_until(LIMIT, "the rest is done", || of(&cluster, "heard", "job-done").len() == 3);
    assert_eq!(of(&cluster, "heard", "job-begun"), [1, 2, 3]);
}

#[test]
fn a_broadcast_reaches_every_instance_and_a_row_keeps_its_order() {
    let cluster = up(&[("heard", "instance", 3)]);
    emit(&cluster, "all", 1);
    wait_until(LIMIT, "all have heard", || who(&cluster, "all-done").len() == 3);
    cluster.ok("scale heard=1");
    cluster.write("hold", "");
    for n in 1..=5 {
        emit(&cluster, "row", n);
    }
    wait_until(LIMIT, "one is begun", || !of(&cluster, "heard", "row-begun").is_empty());
    std::fs::remove_file(cluster.path("hold")).unwrap();
    wait_until(LIMIT, "all are done", || of(&cluster, "heard", "row-done").len() == 5);
    let row: Vec<(String, u32)> = heard(&cluster)
        .into_iter()
        .filter(|line| line.2.starts_with("row"))
        .map(|line| (line.2, line.3))
        .collect();
    let expected: Vec<(String, u32)> =
        (1..=5).flat_map(|n| [("row-begun".to_owned(), n), ("row-done".to_owned(), n)]).collect();
    assert_eq!(row, expected, "one at a time, in order");
}

#[test]
fn a_delayed_event_comes_when_its_time_is_over() {
    let cluster = up(&[("heard", "instance", 1)]);
    let begun = Instant::now();
    cluster.run_words(&["emit", "job.x", "{\"n\": 1}", "--delay", "1500ms"]).code(0);
    emit(&cluster, "job.x", 2);
    wait_until(LIMIT, "both are done", || of(&cluster, "heard", "job-done").len() == 2);
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert_eq!(of(&cluster, "heard", "job-done"), [2, 1]);
}

#[test]
fn tasks_are_done_by_the_command_worker_and_by_nobody_else() {
    let cluster = up(&[("heard", "instance", 1), ("tasks", "worker", 2)]);
    for n in 1..=4 {
        emit(&cluster, "lymph.tasks.heard.work", n);
    }
    emit(&cluster, "job.x", 5);
    wait_until(LIMIT, "all are done", || {
        of(&cluster, "heard.worker", "task-done").len() == 4
            && of(&cluster, "heard", "job-done").len() == 1
    });
    assert_eq!(sorted(of(&cluster, "heard.worker", "task-done")), [1, 2, 3, 4]);
    assert!(who(&cluster, "task-begun").iter().all(|instance| instance.starts_with("tasks.")));
    assert_eq!(who(&cluster, "job-begun"), ["heard.1".to_owned()].into());
}

#[test]
fn every_subscriber_sees_every_event_also_after_the_node_was_restarted() {
    let cluster = up(&[("heard", "instance", 1)]);
    let plain = cluster.start(&["-v", "subscribe", "job.*", "other.#"]);
    let json = cluster.start(&["-v", "subscribe", "#", "--json"]);
    plain.wait_out("subscribed");
    json.wait_out("subscribed");
    let words = ["emit", "job.x", "{\"n\": 7, \"text\": \"a\\u001b\"}", "--trace-id", "t-1"];
    cluster.run_words(&words).code(0);
    plain.wait_out("job.x: {");
    json.wait_out("\"trace_id\":\"t-1\"");
    assert!(!plain.out().contains('\u{1b}'), "nothing reaches the terminal that moves its cursor");
    wait_until(LIMIT, "the service has it, too", || of(&cluster, "heard", "job-done") == [7]);

    cluster.ok("down");
    cluster.ok("up -d --wait");
    wait_until(LIMIT, "both are subscribed again", || {
        emit(&cluster, "other.again", 8);
        plain.out().contains("other.again") && json.out().contains("other.again")
    });
    for subscriber in [plain, json] {
        signal("INT", subscriber.pid());
        subscriber.finish(LIMIT);
    }
}

#[test]
fn wrong_events_are_refused_with_what_to_write_instead() {
    let cluster = up(&[("heard", "instance", 1)]);
    let refused = cluster.run("emit job.*").code(2);
    assert!(refused.err.contains("hilum subscribe"), "{}", refused.err);
    let refused = cluster.run_words(&["emit", "job.x", "{n: 1}"]).code(2);
    assert!(refused.err.contains("not JSON"), "{}", refused.err);
    cluster.ok("down");
    for verb in ["emit x", "subscribe x"] {
        cluster.run(verb).code(3);
    }
}

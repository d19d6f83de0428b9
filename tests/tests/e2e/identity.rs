//! Which cluster is meant: by the path of its configuration, also where links are on the way that somebody switches.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use hilum_tests::{Cluster, LIMIT, Outcome, wait_until};

fn yaml(count: u32) -> String {
    format!("name: shop\ninstances: {{web: {{command: sleep 1000, numprocesses: {count}}}}}\n")
}

/// Points a link elsewhere in one step, as `kubectl` and deployments do.
fn switch(link: &Path, target: &str) {
    let new = link.with_file_name("new-link");
    symlink(target, &new).unwrap();
    std::fs::rename(new, link).unwrap();
}

/// Runs a command where a shell has gone by this path.
#[track_caller]
fn at(cluster: &Cluster, folder: &str, arguments: &str) -> Outcome {
    let shell = format!("cd {} && exec \"$@\"", cluster.path(folder).display());
    let words: Vec<&str> = arguments.split_whitespace().collect();
    cluster.start_by(&["sh", "-c", &shell, "sh"], &words).finish(LIMIT)
}

#[track_caller]
fn node(outcome: &Outcome) -> u64 {
    let ps: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    ps["node"]["pid"].as_u64().unwrap()
}

/// As many clusters as run in this test.
fn projects(cluster: &Cluster) -> usize {
    cluster.json("ls --json")["projects"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["config"].as_str().unwrap().starts_with(cluster.dir().to_str().unwrap()))
        .count()
}

#[test]
fn a_configuration_of_kubernetes_is_one_cluster_before_and_after_it_is_switched() {
    let cluster = Cluster::new("");
    std::fs::remove_file(cluster.path("hilum.yml")).unwrap();
    cluster.write("..2026_11/hilum.yml", &yaml(1));
    cluster.write("..2026_12/hilum.yml", &yaml(2));
    symlink("..2026_11", cluster.path("..data")).unwrap();
    symlink("..data/hilum.yml", cluster.path("hilum.yml")).unwrap();
    cluster.ok("up -d");
    let before = node(&cluster.run("ps --json").code(0));
    switch(&cluster.path("..data"), "..2026_12");
    std::fs::remove_dir_all(cluster.path("..2026_11")).unwrap();
    // by itself
    cluster.wait_state("web.2", "running");
    assert_eq!(node(&cluster.run("ps --json").code(0)), before);
    cluster.run("up -d").code(0).says("runs already");
    assert_eq!(projects(&cluster), 1);
    // a plain file in the link's place, and a link again
    std::fs::remove_file(cluster.path("hilum.yml")).unwrap();
    cluster.configure(&yaml(3));
    cluster.wait_state("web.3", "running");
    cluster.write("elsewhere.yml", &yaml(4));
    switch(&cluster.path("hilum.yml"), "elsewhere.yml");
    cluster.wait_state("web.4", "running");
    cluster.ok("reload");
    cluster.down();
    assert!(cluster.path(".hilum/hilum.yml/logs").is_dir());
}

/// `current` leads to `releases/7`.
fn released(watched: bool) -> Cluster {
    let cluster = Cluster::new("");
    std::fs::remove_file(cluster.path("hilum.yml")).unwrap();
    let watch = format!("node: {{watch_config: {watched}}}\n");
    cluster.write("releases/7/hilum.yml", &format!("{watch}{}", yaml(1)));
    cluster.write("releases/8/hilum.yml", &format!("{watch}{}", yaml(2)));
    symlink("releases/7", cluster.path("current")).unwrap();
    cluster
}

#[test]
fn a_release_that_is_switched_is_the_same_cluster() {
    let cluster = released(false);
    let current = "-c current/hilum.yml";
    cluster.run(&format!("{current} up -d")).code(0);
    let before = node(&cluster.run(&format!("{current} ps --json")).code(0));
    switch(&cluster.path("current"), "releases/8");
    assert_eq!(node(&cluster.run(&format!("{current} ps --json")).code(0)), before);
    assert_eq!(node(&at(&cluster, "current", "ps --json").code(0)), before, "it is the same file");
    cluster.run(&format!("{current} up -d")).code(0).says("runs already").says("+ web.2");
    assert_eq!(projects(&cluster), 1);
    // its first release goes, and its state folder with it
    std::fs::remove_dir_all(cluster.path("releases/7")).unwrap();
    assert_eq!(node(&cluster.run(&format!("{current} ps --json")).code(0)), before);
    cluster.run(&format!("{current} down")).code(0).says("stopped");
    cluster.assert_empty();
}

#[test]
fn a_release_that_is_switched_is_noticed_where_the_file_is_watched() {
    let cluster = released(true);
    at(&cluster, "current", "up -d").code(0);
    switch(&cluster.path("current"), "releases/8");
    let so = || at(&cluster, "current", "ps").out.contains("web.2");
    wait_until(LIMIT, "the new release", so);
    // what is started from now on runs in the new one
    let cwd = || {
        let ps = at(&cluster, "current", "ps --json").code(0).out;
        let ps: serde_json::Value = serde_json::from_str(&ps).unwrap();
        let second =
            ps["instances"].as_array().unwrap().iter().find(|one| one["instance"] == "web.2");
        let pid = second?["pid"].as_u64()?;
        std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
    };
    wait_until(LIMIT, "its folder", || cwd() == Some(cluster.path("releases/8")));
    at(&cluster, "current", "down").code(0).says("stopped");
    cluster.assert_empty();
}

#[test]
fn a_node_keeps_its_folders_when_the_link_to_them_is_switched() {
    let cluster = Cluster::new("");
    std::fs::remove_file(cluster.path("hilum.yml")).unwrap();
    let go = cluster.path("go").display().to_string();
    let script =
        format!("echo here; until test -e {go}; do sleep 0.02; done; seq 1 30000; exec sleep 1000");
    for release in ["7", "8"] {
        let yaml = format!(
            "node: {{run_dir: run, watch_config: false}}\nlogs: {{dir: logs, segment: 64KiB}}\ninstances: {{web: {{command: [sh, -c, '{script}']}}}}\n"
        );
        cluster.write(&format!("releases/{release}/hilum.yml"), &yaml);
    }
    symlink("releases/7", cluster.path("current")).unwrap();
    let hilum = |words: &str| at(&cluster, "current", words);
    hilum("up -d").code(0);
    let first = node(&hilum("ps --json").code(0));
    switch(&cluster.path("current"), "releases/8");
    cluster.write("go", "");
    wait_until(LIMIT, "its lines", || hilum("logs -n 1 --no-prefix").out.contains("30000"));
    assert!(!cluster.path("releases/8/logs").exists(), "the log is where it was");
    assert!(!hilum("logs").code(0).out.contains("dropped"));
    assert_eq!(node(&hilum("ps --json").code(0)), first);
    hilum("up -d").code(0).says("runs already");
    assert_eq!(projects(&cluster), 1, "also with a run folder of its own");
    hilum("down").code(0).says("stopped");
    assert!(!cluster.path("releases/7/run").exists(), "nothing is left of the sockets");
    assert_eq!(projects(&cluster), 0);
    cluster.assert_empty();
}

#[test]
fn a_folder_has_one_cluster_however_it_is_spelled() {
    let cluster = Cluster::new("");
    std::fs::remove_file(cluster.path("hilum.yml")).unwrap();
    cluster.write("real/sub/hilum.yml", &yaml(1));
    cluster.write("real/sub/below/x", "");
    symlink("real", cluster.path("linked")).unwrap();
    symlink("real/sub/below", cluster.path("inner")).unwrap();
    at(&cluster, "linked/sub", "up -d").code(0);
    let real = cluster.path("real/sub/hilum.yml");
    let first = node(&at(&cluster, "linked/sub", "ps --json").code(0));
    for folder in ["real/sub", "linked/sub/below", "real/sub/below", "inner"] {
        assert_eq!(node(&at(&cluster, folder, "ps --json").code(0)), first, "{folder}");
    }
    let named = [
        real.to_str().unwrap(),
        "linked/sub/hilum.yml",
        "linked/../real/./sub/hilum.yml",
        "inner/../hilum.yml",
    ];
    for config in named {
        assert_eq!(
            node(&cluster.run(&format!("-c {config} ps --json")).code(0)),
            first,
            "{config}"
        );
    }
    // with its node down, too
    cluster.run("-c real/sub/hilum.yml down").code(0);
    assert!(at(&cluster, "linked/sub", "logs").code(0).out.contains("started"));
    assert!(at(&cluster, "real/sub/below", "logs").code(0).out.contains("started"));
}

#[test]
fn a_second_name_of_a_file_means_the_cluster_that_runs_it() {
    let cluster = Cluster::up(&yaml(1));
    cluster.write("other/x", "");
    symlink("../hilum.yml", cluster.path("other/shop.yml")).unwrap();
    let first = node(&cluster.run("ps --json").code(0));
    let other = cluster.run("-c other/shop.yml up -d").code(0);
    other.says("runs already").says("is the same file as");
    assert_eq!(node(&cluster.run("-c other/shop.yml ps --json").code(0)), first);
    assert_eq!(projects(&cluster), 1);
    // by another name of the project it is another cluster, if that is wanted
    cluster.run("-p two -c other/shop.yml up -d").code(0);
    assert_eq!(projects(&cluster), 2);
    assert_ne!(node(&cluster.run("-p two -c other/shop.yml ps --json").code(0)), first);
    cluster.run("-p two -c hilum.yml down").code(0).says("stopped");
    assert_eq!(projects(&cluster), 1);
    cluster.down();
    // where none runs, each is its own
    cluster.run("-c other/shop.yml up -d").code(0);
    assert!(cluster.path("other/.hilum/shop.yml").is_dir());
    cluster.run("-c other/shop.yml down").code(0);
}

#[test]
fn a_configuration_that_is_gone_with_its_link_is_still_that_of_its_cluster() {
    let cluster = released(false);
    cluster.run("-c current/hilum.yml up -d").code(0);
    std::fs::remove_file(cluster.path("current")).unwrap();
    cluster.run("-c current/hilum.yml ps").code(0).says("web.1");
    cluster.run("-c current/hilum.yml down").code(0).says("stopped");
    cluster.run("-c current/hilum.yml ps").code(2).says("cannot read config");
    cluster.assert_empty();
}

#[test]
fn two_clusters_do_not_share_a_run_folder() {
    let cluster = Cluster::new("");
    let own = |count| {
        format!("node: {{run_dir: {}}}\n{}", cluster.path("sockets").display(), yaml(count))
    };
    cluster.configure(&own(1));
    cluster.write("other.yml", &own(2));
    cluster.ok("up -d");
    let config = cluster.path("hilum.yml").display().to_string();
    cluster.run("-c other.yml up -d").code(1).says("node.run_dir").says(&config);
    cluster.wait_state("web.1", "running");
    cluster.down();
    cluster.run("-c other.yml up -d").code(0);
    cluster.run("-c other.yml down").code(0);
}

#[test]
fn of_two_clusters_with_one_run_folder_that_start_together_one_runs() {
    let cluster = Cluster::new("");
    let run = cluster.path("sockets").display().to_string();
    for name in ["one", "two"] {
        cluster.write(&format!("{name}.yml"), &format!("node: {{run_dir: {run}}}\n{}", yaml(1)));
    }
    for _ in 0..4 {
        let starting = ["one", "two"]
            .map(|name| (name, cluster.start(&["-c", &format!("{name}.yml"), "up", "-d"])));
        let ended = starting.map(|(name, up)| (name, up.finish(LIMIT)));
        let (up, refused): (Vec<_>, Vec<_>) =
            ended.into_iter().partition(|(_, outcome)| outcome.status.success());
        assert_eq!((up.len(), refused.len()), (1, 1), "of the two");
        let name = up[0].0;
        let (_, refused) = refused.into_iter().next().unwrap();
        refused.code(1).says("belongs to the node of");
        cluster.run(&format!("-c {name}.yml down")).code(0).says("stopped");
    }
    cluster.assert_empty();
}

#[test]
fn a_run_folder_of_the_users_keeps_what_is_in_it() {
    let cluster = Cluster::new("node: {run_dir: mine}\ninstances: {web: {command: sleep 1000}}");
    cluster.write("mine/precious/file", "kept");
    let mode = || cluster.path("mine").metadata().unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(cluster.path("mine"), std::fs::Permissions::from_mode(0o755)).unwrap();
    cluster.ok("up -d");
    assert_eq!(mode(), 0o755);
    cluster.down();
    assert_eq!(cluster.read("mine/precious/file"), "kept");
    assert_eq!(std::fs::read_dir(cluster.path("mine")).unwrap().count(), 1, "no socket is left");
    cluster.ok("up -d");
    cluster.down();
    // nothing of others: it goes as it came
    std::fs::remove_dir_all(cluster.path("mine")).unwrap();
    cluster.ok("up -d");
    cluster.down();
    assert!(!cluster.path("mine").exists());
    cluster.write("mine", "a file");
    cluster.run("up -d").code(1).says("is a file, a link or another user's");
}

//! What a node does on a disk that is full, and what is said of what was lost.

use std::os::unix::fs::PermissionsExt;

use hilum_tests::{Cluster, LIMIT, signal, wait_until};

/// A folder that holds so many bytes, unmounted in the end; `None` where we may not mount.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn mount(at: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("a folder");
        let size = format!("size={size}");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        eprintln!("skipped: a tmpfs cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn on_a_full_disk_nothing_is_started_or_all_is_supervised_and_stopped_in_order() {
    const PAGE: usize = 4096;
    const PAGES: usize = 16;
    let script = "#!/bin/sh\ntrap 'echo bye >> $1; exit 0' TERM\necho up >> $1\nwhile :; do sleep 0.02; done\n";
    let (mut refused, mut ran) = (0, 0);
    for room in 0..8 {
        let cluster = Cluster::new("instances: {}");
        let Some(disk) = SmallDisk::mount(cluster.path("disk"), &format!("{}", PAGES * PAGE))
        else {
            return;
        };
        let (service, said) = (cluster.path("service"), cluster.path("said"));
        cluster.write("service", script);
        std::fs::set_permissions(&service, PermissionsExt::from_mode(0o755)).unwrap();
        let command = format!("[{}, {}]", service.display(), said.display());
        cluster.write("disk/hilum.yml", &format!("instances: {{web: {{command: {command}}}}}\n"));
        // The configuration has a page.
        std::fs::write(disk.0.join("fill"), vec![1; (PAGES - 1 - room) * PAGE]).unwrap();
        let hilum = |words: &str| cluster.run(&format!("-c disk/hilum.yml {words}"));
        let up = hilum("up -d");
        if !up.status.success() {
            assert!(up.err.contains("No space left on device"), "{}", up.err);
            assert_eq!(cluster.read("said"), "", "started and then given up: {}", up.err);
            refused += 1;
            continue;
        }
        ran += 1;
        wait_until(LIMIT, "a start", || cluster.read("said") == "up\n");
        // Now it is full for certain.
        let rest = std::fs::OpenOptions::new().append(true).open(disk.0.join("fill")).unwrap();
        while std::io::Write::write(&mut &rest, &[1; PAGE]).is_ok() {}
        let ps: serde_json::Value = serde_json::from_str(&hilum("ps --json").code(0).out).unwrap();
        let pid = ps["instances"][0]["pid"].as_u64().unwrap();
        signal("KILL", u32::try_from(pid).unwrap());
        wait_until(LIMIT, "a restart", || cluster.read("said") == "up\nup\n");
        hilum("down").code(0);
        assert_eq!(cluster.read("said"), "up\nup\nbye\n");
    }
    assert!(refused > 0 && ran > 0, "{refused} refused, {ran} ran");
}

#[test]
fn what_a_full_disk_takes_to_the_end_is_told_by_down_and_by_up_and_is_a_gap_of_the_next_start() {
    let cluster = Cluster::new("instances: {}");
    let Some(disk) = SmallDisk::mount(cluster.path("disk"), "1m") else {
        return;
    };
    let script = "echo here; until test -e ../go; do sleep 0.02; done; seq 1 3000; touch ../said; exec sleep 1000";
    cluster.write(
        "disk/hilum.yml",
        &format!("instances: {{web: {{command: [sh, -c, '{script}']}}}}\n"),
    );
    let hilum = |words: &str| cluster.run(&format!("-c disk/hilum.yml -C disk {words}"));
    let lost_in = |text: &str| -> u64 {
        let rest = text.split(" lines are lost: ").nth(1).unwrap_or_else(|| panic!("{text}"));
        assert!(rest.contains("of web.1 (disk full)"), "{text}");
        text.split(" lines are lost").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let fill = || {
        let fill = std::fs::OpenOptions::new().create(true).append(true).open(disk.0.join("fill"));
        let fill = fill.unwrap();
        while std::io::Write::write(&mut &fill, &[1; 4096]).is_ok() {}
        cluster.write("go", "");
        wait_until(LIMIT, "its lines", || cluster.path("said").exists());
        std::fs::remove_file(cluster.path("said")).unwrap();
    };
    let gaps = || -> Vec<u64> {
        let all = hilum("logs web --json").code(0).out;
        let all = all.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        all.filter_map(|line| line["dropped"].as_u64()).collect()
    };
    hilum("up -d").code(0);
    wait_until(LIMIT, "its first line", || hilum("logs web").out.contains("here"));
    fill();
    let by_down = lost_in(&hilum("down").code(0).err);
    assert!(by_down > 2000, "{by_down}");
    std::fs::remove_file(disk.0.join("fill")).unwrap();
    std::fs::remove_file(cluster.path("go")).unwrap();
    // In the foreground the end is known, too, and no node has died.
    let up = cluster.start(&["-c", "disk/hilum.yml", "-C", "disk", "up"]);
    wait_until(LIMIT, "the gap", || !gaps().is_empty());
    up.wait_out("here");
    fill();
    signal("INT", up.pid());
    let by_up = lost_in(&up.finish(LIMIT).code(0).err);
    // A node that cannot write it either, and is killed, takes nothing of it along.
    if hilum("up -d").status.success() {
        let ps: serde_json::Value = serde_json::from_str(&hilum("ps --json").code(0).out).unwrap();
        signal("KILL", u32::try_from(ps["node"]["pid"].as_u64().unwrap()).unwrap());
    }
    std::fs::remove_file(disk.0.join("fill")).unwrap();
    hilum("up -d").code(0);
    let events = hilum("events web --json").code(0).out;
    assert_eq!(events.matches("lines-dropped").count(), 2, "{events}");
    hilum("down").code(0);
    let told = gaps();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0] <= by_down && told[1] <= by_up, "{told:?} {by_down} {by_up}");
}

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use hilum_shared::config::load;
use tempfile::TempDir;

use super::*;

/// Long for a busy machine; a change is reported within a second.
const LIMIT: Duration = Duration::from_secs(20);

struct Room {
    dir: TempDir,
    watcher: Watcher,
    changes: mpsc::Receiver<Changed>,
}

impl Room {
    /// A project that watches these globs with a short debounce.
    fn new(watch: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write(&dir.path().join(path), text);
        }
        let (sender, changes) = mpsc::channel(16);
        let mut room = Self { dir, watcher: Watcher::new(sender), changes };
        room.configure(watch);
        room.settle();
        while room.changes.try_recv().is_ok() {}
        room
    }

    fn configure(&mut self, watch: &str) {
        let yaml = format!("instances:\n  web:\n    command: sleep 1\n    watch: {watch}\n");
        write(&self.path("hilum.yml"), &yaml);
        // What is younger than the watcher counts as changed.
        std::thread::sleep(2 * TICK);
        self.reload();
    }

    fn reload(&mut self) {
        let options = LoadOptions {
            files: vec![self.path("hilum.yml")],
            project_dir: self.dir.path().to_owned(),
            ..LoadOptions::default()
        };
        let loaded = load(&options).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        self.watcher.watch(&loaded.cluster, &options);
    }

    /// Waits until the thread has everything in view: a change of the configuration is then reported, and alone.
    fn settle(&mut self) {
        write(&self.path(".env"), &format!("X={:?}", Instant::now()));
        assert_eq!(self.next(), Changed::Config);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        write(&self.path(path), text);
    }

    fn next(&mut self) -> Changed {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.changes.try_recv() {
                Ok(change) => return change,
                Err(error) => {
                    assert!(Instant::now() < deadline, "no change was reported: {error}");
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    fn expect(&mut self, path: &str) {
        match self.next() {
            Changed::Files { service, path: first } => {
                assert_eq!((service.as_str(), first.as_str()), ("web", path));
            }
            Changed::Config => panic!("expected a change of {path}"),
        }
    }

    /// Everything that has happened so far brought nothing: what happens now is the next to be reported.
    fn expect_nothing(&mut self, sign: &str) {
        // Longer than the debounce, so that it cannot hide behind the sign.
        std::thread::sleep(Duration::from_millis(300));
        self.write(sign, &format!("{:?}", Instant::now()));
        self.expect(sign);
        assert!(self.changes.try_recv().is_err());
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

const PY: &str = "{paths: ['**/*.py'], debounce: 50ms}";

#[test]
fn a_file_that_is_written_in_place_or_replaced_by_rename_is_reported_each_time() {
    let mut room = Room::new(PY, &[("src/a.py", "1")]);
    room.write("src/a.py", "2");
    room.expect("src/a.py");
    for text in ["3", "4"] {
        room.write("src/a.new", text);
        fs::rename(room.path("src/a.new"), room.path("src/a.py")).unwrap();
        room.expect("src/a.py");
    }
    fs::remove_file(room.path("src/a.py")).unwrap();
    room.expect("src/a.py");
}

#[test]
fn a_file_in_directories_made_a_moment_ago_is_reported() {
    let mut room = Room::new(PY, &[]);
    room.write("n1/n2/n3/a.py", "1");
    room.expect("n1/n2/n3/a.py");
    room.write("n1/n2/n3/a.py", "2");
    room.expect("n1/n2/n3/a.py");
}

#[test]
fn many_changes_in_a_row_are_one() {
    let mut room = Room::new("{paths: [src], debounce: 400ms}", &[("src/a.py", "1")]);
    for number in 0..20 {
        room.write(&format!("src/{number}.py"), "x");
        std::thread::sleep(Duration::from_millis(5));
    }
    room.expect("src/0.py");
    std::thread::sleep(Duration::from_millis(600));
    assert!(room.changes.try_recv().is_err());
}

#[test]
fn the_same_content_is_no_change() {
    let mut room = Room::new(PY, &[("a.py", "1"), ("b.py", "1")]);
    room.write("a.py", "1");
    room.write("c.new", "1");
    fs::rename(room.path("c.new"), room.path("a.py")).unwrap();
    room.write("gone.py", "for a moment");
    fs::remove_file(room.path("gone.py")).unwrap();
    room.expect_nothing("b.py");
}

#[test]
fn what_is_ignored_is_no_change() {
    let watch = "{paths: ['**'], ignore: ['*.tmp', '/out/'], debounce: 50ms}";
    let files = [(".gitignore", "node_modules/\n*.log\nhilum.yml\n.env\n"), ("a.py", "1")];
    let mut room = Room::new(watch, &files);
    for path in [
        "node_modules/x/y.js",
        "src/a.log",
        "out/a.py",
        "x.tmp",
        ".git/index",
        ".hilum/run",
        ".a.py.swp",
    ] {
        room.write(path, "1");
    }
    room.expect_nothing("a.py");
    assert!(kernel_watches(&room.path("src")), "the look at the kernel's watches works");
    assert!(
        !kernel_watches(&room.path("node_modules"))
            && !kernel_watches(&room.path("node_modules/x"))
    );
}

#[test]
fn what_a_glob_writes_out_is_watched_though_ignored_and_what_its_wildcards_find_is_not() {
    let watch = "{paths: ['build/*.py', 'gen/**', one.tmp, '*.tmp'], debounce: 50ms}";
    let ignored = "build/\ngen\n*.tmp\n*.log\n";
    let files = [(".gitignore", ignored), ("build/a.py", "1"), ("gen/x/a", "1"), ("one.tmp", "1")];
    let mut room = Room::new(watch, &files);
    for (hidden, named) in
        [("two.tmp", "build/a.py"), ("gen/x/a.log", "gen/x/a"), ("three.tmp", "one.tmp")]
    {
        room.write(hidden, "2");
        room.expect_nothing(named);
    }
}

/// Whether the kernel watches a directory for this process.
fn kernel_watches(dir: &Path) -> bool {
    let inode =
        format!(" ino:{:x} ", std::os::unix::fs::MetadataExt::ino(&dir.metadata().unwrap()));
    let all = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let mut texts = all.map(|entry| fs::read_to_string(entry.path()).unwrap_or_default());
    texts.any(|text| text.lines().any(|line| line.starts_with("inotify ") && line.contains(&inode)))
}

#[test]
fn a_changed_gitignore_counts_from_then_on() {
    let mut room =
        Room::new("{paths: ['src/**'], debounce: 50ms}", &[(".gitignore", ""), ("src/a", "1")]);
    room.write(".gitignore", "*.log");
    room.write("src/x.log", "1");
    room.expect_nothing("src/a");
    room.write(".gitignore", "");
    room.expect("src/x.log");
}

#[test]
fn a_directory_that_goes_and_comes_back_is_still_watched() {
    let mut room = Room::new("{paths: [src], debounce: 50ms}", &[("src/deep/a.py", "1")]);
    fs::remove_dir_all(room.path("src")).unwrap();
    room.expect("src/deep/a.py");
    room.write("src/deep/a.py", "2");
    room.expect("src/deep/a.py");
    room.write("new/deep/a.py", "3");
    fs::rename(room.path("src"), room.path("old")).unwrap();
    fs::rename(room.path("new"), room.path("src")).unwrap();
    room.expect("src/deep/a.py");
    room.write("src/deep/a.py", "4");
    room.expect("src/deep/a.py");
}

#[test]
fn a_base_that_is_not_there_yet_is_waited_for() {
    let mut room = Room::new("{paths: ['later/on/*.py', conf/app.conf], debounce: 50ms}", &[]);
    room.write("later/on/a.py", "1");
    room.expect("later/on/a.py");
    room.write("conf/app.conf", "1");
    room.expect("conf/app.conf");
    room.write("conf/app.conf", "2");
    room.expect("conf/app.conf");
}

#[test]
fn what_a_link_leads_to_is_watched() {
    let files = [("v1/a.py", "1"), ("v2/a.py", "2"), ("far/real.py", "1")];
    let mut room = Room::new("{paths: [current, 'here/*.py'], debounce: 50ms}", &files);
    fs::create_dir(room.path("here")).unwrap();
    symlink(room.path("far/real.py"), room.path("here/a.py")).unwrap();
    room.expect("here/a.py");
    room.write("far/real.py", "2");
    room.expect("here/a.py");
    symlink("v1", room.path("current")).unwrap();
    room.expect("current/a.py");
    room.write("v1/a.py", "3");
    room.expect("current/a.py");
    symlink("v2", room.path("next")).unwrap();
    fs::rename(room.path("next"), room.path("current")).unwrap();
    room.expect("current/a.py");
    room.write("v2/a.py", "4");
    room.expect("current/a.py");
}

#[test]
fn the_configuration_is_reported_when_its_content_changes() {
    let mut room = Room::new(PY, &[]);
    let text = fs::read_to_string(room.path("hilum.yml")).unwrap();
    room.write("hilum.yml", &text);
    room.settle();
    room.write("hilum.new", &format!("{text}# more\n"));
    fs::rename(room.path("hilum.new"), room.path("hilum.yml")).unwrap();
    assert_eq!(room.next(), Changed::Config);
    room.write(OVERRIDE, "env: {A: '1'}");
    assert_eq!(room.next(), Changed::Config);
    fs::remove_file(room.path(OVERRIDE)).unwrap();
    assert_eq!(room.next(), Changed::Config);
}

#[test]
fn a_configuration_behind_links_is_followed() {
    let mut room = Room::new(PY, &[]);
    let text = fs::read_to_string(room.path("hilum.yml")).unwrap();
    room.write("v1/hilum.yml", &format!("{text}# 1\n"));
    room.write("v2/hilum.yml", &format!("{text}# 2\n"));
    symlink("v1", room.path("data")).unwrap();
    symlink("data/hilum.yml", room.path("link.yml")).unwrap();
    fs::rename(room.path("link.yml"), room.path("hilum.yml")).unwrap();
    assert_eq!(room.next(), Changed::Config);
    symlink("v2", room.path("next")).unwrap();
    fs::rename(room.path("next"), room.path("data")).unwrap();
    assert_eq!(room.next(), Changed::Config);
    room.write("v2/hilum.yml", &format!("{text}# 3\n"));
    assert_eq!(room.next(), Changed::Config);
}

#[test]
fn a_reload_changes_what_is_watched_and_loses_nothing() {
    let mut room = Room::new(PY, &[("a.py", "1"), ("b.txt", "1")]);
    room.reload();
    room.write("a.py", "2");
    room.expect("a.py");
    room.configure("{paths: ['*.txt'], debounce: 50ms}");
    room.write("b.txt", "2");
    let changes = [room.next(), room.next()];
    assert!(
        changes.contains(&Changed::Config)
            && changes
                .iter()
                .any(|change| matches!(change, Changed::Files { path, .. } if path == "b.txt")),
        "{changes:?}"
    );
    room.write("a.py", "3");
    room.expect_nothing("b.txt");
}

#[test]
fn without_watches_of_the_kernel_it_is_looked_every_few_seconds() {
    let mut room = Room::new(PY, &[("a.py", "1")]);
    room.watcher.shared.post(|mail| mail.exhausted = true);
    room.write("a.py", "2");
    room.expect("a.py");
    room.write("new/b.py", "2");
    room.expect("new/b.py");
    room.settle();
    assert!(room.watcher.warnings()[0].contains("max_user_watches"));
}

#[test]
fn nothing_is_watched_where_nothing_asks_for_it() {
    let (sender, _changes) = mpsc::channel(1);
    let mut watcher = Watcher::new(sender);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hilum.yml");
    write(&file, "node: {watch_config: false}\ninstances: {web: {command: sleep 1}}\n");
    let options = LoadOptions {
        files: vec![file],
        project_dir: dir.path().to_owned(),
        ..LoadOptions::default()
    };
    watcher.watch(&load(&options).unwrap().cluster, &options);
    assert!(!watcher.running);
}

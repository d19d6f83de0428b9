//! The spawner against the real kernel: what the child is, and what is said when it cannot be.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod common;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use common::{FIXTURE, NothingLeft, capture, fixture, read_all, unique_token};
use hilum_node::core::input::FailureClass;
use hilum_node::driver::request::{Identity, Rlimit, Session, SpawnRequest, Stdio, Strings};
use hilum_node::driver::spawn::{Child, Spawner};
use hilum_node::driver::spawn_error::Stage;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use serde_json::{Value, json};

fn wait(child: &Child) -> WaitStatus {
    waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap()
}

/// What the fixture says of itself when started by this request.
fn report(spawner: &mut Spawner, mut request: SpawnRequest) -> (Child, Value) {
    let reader = capture(&mut request);
    let child = spawner.spawn(&mut request, None).unwrap();
    let text = read_all(reader, request);
    assert!(matches!(wait(&child), WaitStatus::Exited(_, 0)), "exit status");
    (child, serde_json::from_str(&text).unwrap())
}

fn request(args: &[&str]) -> SpawnRequest {
    fixture(&unique_token(), args)
}

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn the_child_leads_its_own_session_and_dies_with_us() {
    let (child, said) = report(&mut Spawner::new().unwrap(), request(&["report"]));
    assert_eq!(said["pid"], child.pid);
    assert_eq!(said["session"], child.pid);
    assert_eq!(said["group"], child.pid);
    assert_eq!(said["parent"], std::process::id());
    assert_eq!(said["death_signal"], libc::SIGKILL);
}

#[test]
fn no_descriptor_but_the_wanted_ones_reaches_the_child() {
    let mut spawner = Spawner::new().unwrap();
    // One low, one high, both without close-on-exec.
    let low = File::open("/proc/self/exe").unwrap();
    nix::fcntl::fcntl(&low, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let high = nix::fcntl::fcntl(&low, nix::fcntl::FcntlArg::F_DUPFD(300)).unwrap();
    let (_, said) = report(&mut spawner, request(&["report"]));
    let descriptors = said["descriptors"].as_object().unwrap();
    let mut names: Vec<&String> = descriptors.keys().collect();
    names.sort();
    assert_eq!(names, ["0", "1", "2"], "{descriptors:?} (leaked {high})");
    assert_eq!(descriptors["0"], "/dev/null");
    assert!(descriptors["1"].as_str().unwrap().starts_with("pipe:"));
    nix::unistd::close(high).unwrap();
}

#[test]
fn descriptors_arrive_at_their_numbers_even_when_numbers_overlap() {
    let mut spawner = Spawner::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<Arc<OwnedFd>> = (0..8)
        .map(|number| {
            Arc::new(OwnedFd::from(File::create(dir.path().join(number.to_string())).unwrap()))
        })
        .collect();
    // Targets that are other sources' numbers, one that is its own, one far away.
    let numbers: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let mut targets: Vec<i32> = numbers.clone();
    targets.rotate_left(1);
    targets.swap(3, 5);
    *targets.last_mut().unwrap() = 700;
    let mut request = request(&["report"]);
    for (file, target) in files.iter().zip(&targets) {
        request.descriptors.push((Arc::clone(file), *target));
    }
    let (_, said) = report(&mut spawner, request);
    let descriptors = said["descriptors"].as_object().unwrap();
    assert_eq!(descriptors.len(), 3 + files.len(), "{descriptors:?}");
    for (number, target) in targets.iter().enumerate() {
        let path = dir.path().join(number.to_string());
        assert_eq!(descriptors[&target.to_string()], json!(path));
    }
}

#[test]
fn many_shared_sockets_are_numbered_from_three() {
    let mut spawner = Spawner::new().unwrap();
    let mut request = request(&["report"]);
    let file = Arc::new(OwnedFd::from(File::open("/etc/passwd").unwrap()));
    for target in 3..53 {
        request.descriptors.push((Arc::clone(&file), target));
    }
    let at = request.env.push(b"LISTEN_PID=          ").unwrap();
    request.listen_pid = Some(at + "LISTEN_PID=".len());
    let (child, said) = report(&mut spawner, request);
    assert_eq!(said["descriptors"].as_object().unwrap().len(), 53);
    assert_eq!(said["environment"]["LISTEN_PID"], child.pid.to_string(), "the child's own pid");
}

#[test]
fn the_pipe_ends_when_the_child_does() {
    // A copy that stays behind in a slot of ours would keep it open for ever.
    let mut spawner = Spawner::new().unwrap();
    for _ in 0..3 {
        let mut request = request(&["exit", "0"]);
        let reader = capture(&mut request);
        let child = spawner.spawn(&mut request, None).unwrap();
        assert_eq!(read_all(reader, request), "");
        wait(&child);
    }
}

#[test]
fn signals_are_as_after_boot() {
    // Rust ignores SIGPIPE; a blocked TERM would make the child deaf.
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(nix::sys::signal::SIGTERM);
    set.thread_block().unwrap();
    let (_, said) = report(&mut Spawner::new().unwrap(), request(&["report"]));
    assert_eq!(said["blocked"], "0000000000000000");
    // The fixture's own runtime ignores SIGPIPE (bit 12), nothing else.
    assert_eq!(said["ignored"], "0000000000001000");
    let now = nix::sys::signal::SigSet::thread_get_mask().unwrap();
    assert!(now.contains(nix::sys::signal::SIGTERM), "our own mask is as before");
    set.thread_unblock().unwrap();
}

#[test]
fn limits_umask_nice_and_processors_are_set() {
    let mut request = request(&["report"]);
    for (name, resource, soft, hard) in
        [("nofile", libc::RLIMIT_NOFILE, 123, 456), ("core", libc::RLIMIT_CORE, 0, 0)]
    {
        request.limits.push(Rlimit { name, resource: resource as i32, soft, hard });
    }
    request.umask = Some(0o027);
    request.nice = Some(5);
    request.cpus = Some(vec![0]);
    request.no_new_privs = true;
    let (_, said) = report(&mut Spawner::new().unwrap(), request);
    let limits = said["limits"].as_str().unwrap();
    let line = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap().split_ascii_whitespace();
        words.take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("Max open files"), ["123", "456"]);
    assert_eq!(line("Max core file size"), ["0", "0"]);
    assert_eq!(said["umask"], "0027");
    assert_eq!(said["nice"], 5);
    assert_eq!(said["cpus"], "0");
    assert_eq!(said["no_new_privs"], "1");
}

#[test]
fn the_dye_is_in_the_child_and_in_its_children() {
    let mut request = request(&["report"]);
    let reader = capture(&mut request);
    let dye = hilum_node::driver::dye::Colour::of("0123456789ab").shade(7);
    let child = Spawner::new().unwrap().spawn(&mut request, Some(dye)).unwrap();
    let said: Value = serde_json::from_str(&read_all(reader, request)).unwrap();
    wait(&child);
    let limits = said["limits"].as_str().unwrap();
    assert_eq!(hilum_node::driver::dye::parse(limits), Some(dye));
}

#[test]
fn another_user_is_become_with_his_groups_and_we_stay_visible() {
    if !root() {
        return;
    }
    let mut request = request(&["report"]);
    // The fixture may lie in a folder that only we may enter: a system program says it, too.
    request.candidates.clear();
    request.candidates.push(b"/bin/sh").unwrap();
    request.argv.clear();
    for argument in [
        "sh",
        "-c",
        "id -u; id -g; id -G; grep PPid /proc/self/status; cat /proc/$PPID/stat >/dev/null && echo seen",
    ] {
        request.argv.push(argument.as_bytes()).unwrap();
    }
    request.identity = Some(Identity {
        name: "nobody".into(),
        uid: 65534,
        gid: 65533,
        groups: Some(vec![65533, 1234]),
    });
    request.directory = Some(CString::new("/").unwrap());
    let reader = capture(&mut request);
    let child = Spawner::new().unwrap().spawn(&mut request, None).unwrap();
    let text = read_all(reader, request);
    wait(&child);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["65534", "65533", "65533 1234"], "{text}");
    let mut dumpable = nix::sys::prctl::get_dumpable();
    assert!(matches!(dumpable, Ok(true)), "{dumpable:?}");
    dumpable = nix::sys::prctl::get_dumpable();
    assert!(dumpable.unwrap());
}

#[test]
fn a_program_is_found_by_its_candidates_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("not-executable"), "x").unwrap();
    let mut request = request(&["exit", "7"]);
    request.candidates.clear();
    for path in ["/nowhere/x", "/etc/passwd/x", FIXTURE] {
        request.candidates.push(path.as_bytes()).unwrap();
    }
    let mut spawner = Spawner::new().unwrap();
    let child = spawner.spawn(&mut request, None).unwrap();
    assert!(matches!(wait(&child), WaitStatus::Exited(_, 7)));
    // Relative to the working folder of the child.
    let link = dir.path().join("tool");
    std::os::unix::fs::symlink(FIXTURE, &link).unwrap();
    request.candidates = Strings::default();
    request.candidates.push(b"./tool").unwrap();
    request.directory = Some(CString::new(dir.path().to_str().unwrap()).unwrap());
    let child = spawner.spawn(&mut request, None).unwrap();
    assert!(matches!(wait(&child), WaitStatus::Exited(_, 7)));
}

fn failure(change: impl FnOnce(&mut SpawnRequest)) -> hilum_node::driver::spawn_error::SpawnError {
    let mut request = request(&["exit", "0"]);
    change(&mut request);
    Spawner::new().unwrap().spawn(&mut request, None).unwrap_err()
}

fn program(request: &mut SpawnRequest, path: &str) {
    request.program = path.into();
    request.candidates.clear();
    request.candidates.push(path.as_bytes()).unwrap();
}

#[test]
fn a_failed_exec_says_what_is_wrong_with_which_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let data = file("data", "x", 0o644);
    let shebang = file("shebang", "#! /no/such/shell -e\n", 0o755);
    let text = file("text", "echo no shebang\n", 0o755);
    let folder = dir.path().to_str().unwrap().to_owned();
    for (path, expected) in [
        ("/no/such/program".to_owned(), "program `/no/such/program` not found (ENOENT)".to_owned()),
        (data.clone(), format!("program `{data}` is not executable (EACCES)")),
        (folder.clone(), format!("program `{folder}` is a directory (EACCES)")),
        (
            shebang.clone(),
            format!("interpreter `/no/such/shell` of program `{shebang}` not found (ENOENT)"),
        ),
        (
            text.clone(),
            format!(
                "program `{text}` has no format that this machine executes, and no `#!` line (ENOEXEC)"
            ),
        ),
    ] {
        let error = failure(|request| program(request, &path));
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.class(), FailureClass::Permanent);
        assert_eq!(error.path.as_deref(), Some(path.as_ref()));
    }
}

#[test]
fn a_program_that_is_in_no_folder_of_its_path_is_said_with_the_path() {
    let error = failure(|request| {
        program(request, "serve");
        request.candidates.clear();
        request.candidates.push(b"/usr/nothing/serve").unwrap();
        request.env.push(b"PATH=/usr/nothing").unwrap();
    });
    assert_eq!(
        error.to_string(),
        "program `serve` not found in its PATH, which `hilum env` shows (ENOENT)"
    );
}

#[test]
fn a_missing_directory_or_an_unattainable_limit_is_named() {
    let error = failure(|request| request.directory = Some(CString::new("/no/such").unwrap()));
    assert_eq!(error.to_string(), "directory `/no/such` not found (ENOENT)");
    assert_eq!(error.stage, Stage::Directory);
    let error = failure(|request| request.cpus = Some(vec![1000]));
    assert_eq!(error.stage, Stage::Cpus);
    let error = failure(|request| {
        request.limits.push(Rlimit {
            name: "nofile",
            resource: libc::RLIMIT_NOFILE as i32,
            soft: 1 << 40,
            hard: 1 << 40,
        });
    });
    assert!(error.to_string().contains("`limits.nofile`"), "{error}");
}

#[test]
fn failures_leave_neither_zombies_nor_descriptors() {
    let mut spawner = Spawner::new().unwrap();
    let mut request = request(&["exit", "0"]);
    program(&mut request, "/no/such/program");
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    spawner.spawn(&mut request, None).unwrap_err();
    let before = count();
    for _ in 0..400 {
        let reader = capture(&mut request);
        spawner.spawn(&mut request, None).unwrap_err();
        drop(reader);
        request.stdio = Stdio::Null;
    }
    // Other tests of this process open descriptors, too, but never 300; 400 leaks would show.
    assert!(count() < before + 300);
}

#[test]
fn an_inherited_session_is_ours() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let mut request = fixture(&token, &["report"]);
    request.session = Session::Inherited;
    let (_, said) = report(&mut Spawner::new().unwrap(), request);
    let own = nix::unistd::getsid(None).unwrap().as_raw();
    assert_eq!(said["session"], own);
}

//! Hooks, probes and signals against real processes, with the table of a process that is no subreaper.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]
#![allow(unsafe_code, reason = "one test is a debugger")]

mod common;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use common::spec::{context, service};
use common::{FIXTURE, NothingLeft, capture, fixture, marked, unique_token, wait_until};
use hilum_node::core::action::Scope;
use hilum_node::core::input::Pulse;
use hilum_node::driver::child::Processes;
use hilum_node::driver::command::{self, CommandError};
use hilum_node::driver::probe::Question;
use hilum_node::driver::procfs;
use hilum_node::driver::request::Strings;
use hilum_node::driver::sweep::Remains;
use hilum_node::launch::prepare::Start;
use hilum_shared::config::spec::Probe;
use hilum_shared::config::template::Template;
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::signal::{Exit, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

/// Runs a test in a runtime with a table of its own and, where wanted, somebody who takes exits.
fn with_processes<F: Future<Output = ()>>(take: bool, test: impl FnOnce(Processes) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let processes = Processes::new(&unique_token()).unwrap();
        let watched = processes.clone();
        let taker = async {
            if !take {
                std::future::pending::<()>().await;
            }
            loop {
                watched.wait().await.unwrap();
                watched.take_exits();
            }
        };
        tokio::select! {
            () = test(processes) => {}
            () = taker => unreachable!("it never ends"),
            () = tokio::time::sleep(LIMIT) => panic!("took longer than {LIMIT:?}"),
        }
    });
}

fn web() -> InstanceId {
    InstanceId::parse("web.1").unwrap()
}

#[test]
fn a_command_that_exits_nonzero_has_failed() {
    with_processes(true, async |processes| {
        let token = unique_token();
        let run = |args: &[&str]| command::run(&processes, fixture(&token, args), LIMIT);
        assert_eq!(run(&["exit", "0"]).await, Ok(()));
        assert_eq!(run(&["exit", "3"]).await.unwrap_err().to_string(), "exit 3");
        let killed = run(&["raise", "6"]).await.unwrap_err().to_string();
        assert!(killed.starts_with("killed by ABRT"), "{killed}");
    });
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    with_processes(true, async |processes| {
        let request = fixture(&token, &["escape-and-stay"]);
        let result = command::run(&processes, request, SHORT).await;
        assert_eq!(result, Err(CommandError::TimedOut(SHORT)));
        assert_eq!(result.unwrap_err().to_string(), "timed out after 300ms");
    });
    wait_until("all is gone", || marked(&token).is_empty());
}

#[test]
fn a_command_whose_question_is_dropped_is_killed() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    with_processes(true, async |processes| {
        let run = command::run(&processes, fixture(&token, &["leave-child"]), LIMIT);
        // Ends at once, its child would not.
        assert_eq!(run.await, Ok(()));
        let run = command::run(&processes, fixture(&token, &["sleep"]), LIMIT);
        let _ = tokio::time::timeout(SHORT, run).await.unwrap_err();
    });
    wait_until("all is gone", || marked(&token).is_empty());
}

#[test]
fn a_question_is_told_in_a_line_with_its_references_filled_in() {
    let (context, spec, instance) = (context(), service("web", &["x"]), web());
    let start =
        Start { context: &context, spec: &spec, instance: &instance, run: Run(1), token: "t" };
    let told = |words: &[&str]| {
        let words = words.iter().map(|word| Template::new(*word)).collect();
        Question::new(&Probe::Exec(words), &start).unwrap().to_string()
    };
    assert_eq!(told(&["pg_isready", "-q"]), "exec pg_isready -q");
    let filled = format!("exec check {}", instance.index);
    assert_eq!(told(&["check", "$(instance.index)"]), filled);
    let long = told(&["sh", "-c", &format!("a\n{}", "ö".repeat(100))]);
    assert_eq!(long, format!("exec sh -c a {}…", "ö".repeat(52)));
}

/// Asks one question of a plain service.
async fn ask(processes: &Processes, probe: Probe, timeout: Duration) -> Result<(), String> {
    let (context, spec, instance) = (context(), service("web", &["x"]), web());
    let start =
        Start { context: &context, spec: &spec, instance: &instance, run: Run(1), token: "t" };
    let question = Question::new(&probe, &start).map_err(|error| error.to_string())?;
    let asked = format!("{question}: ");
    let answer = question.ask(&start, processes, timeout).await;
    answer.map_err(|wrong| wrong.strip_prefix(&asked).expect("what was asked").to_owned())
}

#[test]
fn tcp_and_unix_probes_connect_or_say_why_not() {
    with_processes(false, async |processes| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tcp = Probe::Tcp(Template::new(format!("127.0.0.1:{port}")));
        assert_eq!(ask(&processes, tcp.clone(), LIMIT).await, Ok(()));
        drop(listener);
        // A child of another test, on its way to exec, may hold a copy for a moment.
        while ask(&processes, tcp.clone(), LIMIT).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let said = ask(&processes, tcp, LIMIT).await;
        assert_eq!(said, Err("connection refused".into()));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let unix = Probe::Unix(Template::new(path.to_str().unwrap()));
        assert_eq!(ask(&processes, unix.clone(), LIMIT).await, Err("entity not found".into()));
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(ask(&processes, unix, LIMIT).await, Ok(()));
    });
}

#[test]
fn http_probes_judge_by_the_status() {
    with_processes(false, async |processes| {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.0 399 X\r\n\r\n", Ok(())),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Err("HTTP status 503".to_owned())),
            ("SSH-2.0-OpenSSH\r\n", Err("no HTTP answer".to_owned())),
            ("", Err("no HTTP answer".to_owned())),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let serve = async {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let length = client.read(&mut request).await.unwrap();
                client.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&request[..length]).into_owned()
            };
            let probe = Probe::Http(Template::new(format!("http://127.0.0.1:{port}/health")));
            let (said, asked) = tokio::join!(ask(&processes, probe, LIMIT), serve);
            assert_eq!(said, expected, "{answer}");
            assert!(asked.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"), "{asked}");
        }
        // Takes the connection and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let probe = Probe::Http(Template::new(format!("http://127.0.0.1:{port}/")));
        let said = ask(&processes, probe, SHORT).await;
        assert_eq!(said, Err("no answer within 300ms".into()));
    });
}

#[test]
fn exec_probes_tell_the_last_line() {
    with_processes(true, async |processes| {
        let exec = |script: &str| {
            let words = ["/bin/sh", "-c", script];
            Probe::Exec(words.map(Template::literal).into())
        };
        let ask = |script: &str, limit| ask(&processes, exec(script), limit);
        assert_eq!(ask("exit 0", LIMIT).await, Ok(()));
        let said = ask("echo one; echo 'not yet' >&2; exit 4", LIMIT).await;
        assert_eq!(said, Err("exit 4: not yet".into()));
        let said =
            ask("head -c 300000 /dev/zero | tr '\\0' x; echo; echo end; exit 1", LIMIT).await;
        assert_eq!(said, Err("exit 1: end".into()));
        let said = ask("test \"$HILUM_INSTANCE\" = web.1", LIMIT).await;
        assert_eq!(said, Ok(()), "the instance's environment");
        let said = ask("sleep 3600", SHORT).await;
        assert_eq!(said, Err("timed out after 300ms".into()));
        let none = Probe::Exec(vec![Template::new("/no/such/program")]);
        let said = self::ask(&processes, none, LIMIT).await;
        assert_eq!(said, Err("program `/no/such/program` not found (ENOENT)".into()));
    });
}

fn look(processes: &Processes) -> Pulse {
    let before = processes.glance(&web(), Run(1));
    std::thread::sleep(SHORT);
    processes.inspect(&web(), Run(1), &before)
}

#[test]
fn a_traced_run_is_seen() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    with_processes(false, async |processes| {
        let mut request = fixture(&token, &["ignore-term"]);
        let reader = capture(&mut request);
        let pid = processes.spawn(&web(), Run(1), &token, &mut request).unwrap();
        wait_until("it runs", || procfs::Stat::read(pid).is_some_and(|stat| stat.state == b'S'));
        // SAFETY: no pointers; the child is ours and lives.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
        assert_eq!(seized, 0, "{}", std::io::Error::last_os_error());
        assert_eq!(look(&processes), Pulse::Traced);
        processes.kill(&[(web(), Run(1))]);
        processes.wait().await.unwrap();
        processes.take_exits();
        assert_eq!(processes.sweep(&[(web(), Run(1))])[0].2, Remains::Empty);
        drop(reader);
    });
}

#[test]
fn a_run_that_gets_no_processor_is_told_from_one_that_hangs() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    with_processes(false, async |processes| {
        let busy = |nice| {
            let mut request = fixture(&token, &[]);
            request.program = "/bin/sh".into();
            request.candidates = Strings::default();
            request.candidates.push(b"/bin/sh").unwrap();
            request.argv = Strings::default();
            for argument in ["sh", "-c", "while :; do :; done"] {
                request.argv.push(argument.as_bytes()).unwrap();
            }
            (request.nice, request.cpus) = (Some(nice), Some(vec![0]));
            request
        };
        processes.spawn(&web(), Run(1), &token, &mut busy(5)).unwrap();
        wait_until("alone it has a processor", || look(&processes) == Pulse::Alive);
        let rivals: Vec<InstanceId> =
            (1..=8).map(|n| InstanceId::parse(&format!("rival.{n}")).unwrap()).collect();
        for rival in &rivals {
            processes.spawn(rival, Run(1), &token, &mut busy(0)).unwrap();
        }
        wait_until("it is starved", || look(&processes) == Pulse::Starved);
        let mut all: Vec<_> = rivals.into_iter().map(|rival| (rival, Run(1))).collect();
        all.push((web(), Run(1)));
        processes.kill(&all);
        wait_until("all are gone", || {
            processes.take_exits();
            processes.sweep(&all).iter().all(|(_, _, remains)| *remains == Remains::Empty)
        });
    });
}

#[test]
fn a_stopped_run_is_seen_and_takes_term() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    with_processes(false, async |processes| {
        let mut request = fixture(&token, &["stop-self"]);
        processes.spawn(&web(), Run(1), &token, &mut request).unwrap();
        wait_until("it is stopped", || look(&processes) == Pulse::Stopped);
        processes.signal(&web(), Run(1), Signal::TERM, Scope::Group).unwrap();
        processes.wait().await.unwrap();
        let exits = processes.take_exits();
        let by_term = Exit::Signal { signal: Signal::TERM, core: false };
        assert_eq!(exits, [(web(), Run(1), by_term)]);
        let usage = processes.usage(&web(), Run(1)).unwrap();
        assert!(usage.peak_rss.is_none_or(|peak| peak.0 > 0));
        assert_eq!(processes.sweep(&[(web(), Run(1))])[0].2, Remains::Empty);
        // Gone is success.
        processes.signal(&web(), Run(1), Signal::TERM, Scope::Leader).unwrap();
        assert_eq!(look(&processes), Pulse::Alive);
        assert_eq!(processes.pid(&web(), Run(1)), None);
    });
}

#[test]
fn a_deaf_run_is_killed_and_its_processes_are_known_as_its_own() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    with_processes(false, async |processes| {
        let mut request = fixture(&token, &["ignore-term"]);
        let reader = capture(&mut request);
        let pid = processes.spawn(&web(), Run(1), &token, &mut request).unwrap();
        let mut request2 = fixture(&token, &["escape-and-stay"]);
        processes.spawn(&web(), Run(2), &token, &mut request2).unwrap();
        assert_eq!(processes.owner_of(pid), Some((web(), Run(1))));
        assert_eq!(processes.owner_of(std::process::id()), None);
        assert_eq!(processes.owner_of(1), None);
        let mut first = std::io::BufReader::new(reader);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut first, &mut line).unwrap();
        assert_eq!(line, "deaf\n");
        processes.signal(&web(), Run(1), Signal::TERM, Scope::Group).unwrap();
        let runs = [(web(), Run(1))];
        let Remains::Left { pids, stuck } = processes.sweep(&runs).remove(0).2 else {
            panic!("it is deaf");
        };
        assert_eq!((pids, stuck), (vec![pid], false));
        processes.kill(&runs);
        processes.wait().await.unwrap();
        assert_eq!(processes.take_exits().len(), 1);
        assert_eq!(processes.sweep(&runs)[0].2, Remains::Empty);
        drop((first, request));
        // The other one goes with everything.
        wait_until("nothing is left", || {
            processes.take_exits();
            processes.kill_everything().is_empty()
        });
    });
    assert_eq!(marked(&token), Vec::<u32>::new());
}

#[test]
fn a_terminal_is_the_childs_and_passes_its_output_unchanged() {
    with_processes(false, async |processes| {
        let (ours, theirs) = hilum_node::driver::pty::output().unwrap();
        let token = unique_token();
        let mut request = fixture(&token, &[]);
        request.candidates.clear();
        request.candidates.push(b"/bin/sh").unwrap();
        request.argv.clear();
        for word in ["sh", "-c", "test -t 1 && test -t 2 && ! test -t 0 && echo one > /dev/tty"] {
            request.argv.push(word.as_bytes()).unwrap();
        }
        request.stdio = hilum_node::driver::request::Stdio::OutputTerminal(theirs);
        processes.spawn(&web(), Run(1), &token, &mut request).unwrap();
        drop(request);
        processes.wait().await.unwrap();
        let (_, _, exit) = processes.take_exits().remove(0);
        assert_eq!(exit, Exit::Code(0));
        let mut text = [0; 64];
        let length = nix::unistd::read(&ours, &mut text).unwrap();
        assert_eq!(&text[..length], b"one\n");
        processes.sweep(&[(web(), Run(1))]);
    });
}

#[test]
fn many_exits_at_once_are_one_batch_each_run_once() {
    with_processes(false, async |processes| {
        let token = unique_token();
        let mut runs = Vec::new();
        for number in 1..=100 {
            let mut request = fixture(&token, &["exit", "0"]);
            processes.spawn(&web(), Run(number), &token, &mut request).unwrap();
            runs.push((web(), Run(number)));
        }
        let mut ended = Vec::new();
        while ended.len() < runs.len() {
            processes.wait().await.unwrap();
            ended.extend(processes.take_exits().into_iter().map(|(i, r, _)| (i, r)));
        }
        ended.sort();
        assert_eq!(ended, runs);
        let swept = processes.sweep(&runs);
        assert!(swept.iter().all(|(_, _, remains)| *remains == Remains::Empty));
        let zombies = procfs::children(std::process::id())
            .into_iter()
            .filter(|&pid| procfs::command_line(pid).is_some_and(|text| text.contains(FIXTURE)));
        assert_eq!(zombies.count(), 0);
    });
}

//! Echo of 100 bytes: services of ours beside a bare libzmq DEALER and ROUTER, gRPC (`tonic`) and `tarpc`, in the same run.
//!
//! `scripts/bench rpc`. Each server is a process, and so is the client; all of them are one thread of tokio, besides libzmq's own.
//! The kinds take turns within each round, so that all have the same weather; ratios are those of the rounds, and their
//! median is shown. Processor time is that of client and servers together.

mod bare;
mod grpc;
mod ours;
mod tarpc_echo;
mod turns;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use turns::Figure;

/// Bytes of an echo.
const SIZE: usize = 100;

/// Who is measured. The first is what the others are compared with.
const KINDS: [&str; 5] = ["libzmq", "service", "rpc", "tonic", "tarpc"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", kind, address] => serve(kind, address),
        ["call", kind, in_flight, servers @ ..] => {
            let (pids, addresses): (Vec<_>, Vec<_>) =
                servers.iter().filter_map(|server| server.split_once('@')).unzip();
            let plan = turns::Plan::new(in_flight.parse().unwrap(), &pids);
            println!("{}", call(kind, &addresses, plan));
        }
        rest => measure(rest),
    }
}

fn serve(kind: &str, address: &str) {
    match kind {
        "libzmq" => bare::serve(address),
        "service" => turns::runtime().block_on(ours::serve_service(address)),
        "rpc" => turns::runtime().block_on(ours::serve_rpc(address)),
        "tonic" => turns::runtime().block_on(grpc::serve(address)),
        "tarpc" => turns::runtime().block_on(tarpc_echo::serve(address)),
        other => panic!("no kind {other}"),
    }
}

fn call(kind: &str, addresses: &[&str], plan: turns::Plan) -> Figure {
    match kind {
        "libzmq" => bare::call(addresses, plan),
        "service" => turns::runtime().block_on(ours::call_service(addresses, plan)),
        "rpc" => turns::runtime().block_on(ours::call_rpc(addresses, plan)),
        "tonic" => turns::runtime().block_on(grpc::call(addresses, plan)),
        "tarpc" => turns::runtime().block_on(tarpc_echo::call(addresses, plan)),
        other => panic!("no kind {other}"),
    }
}

/// A server process; ended with its guard.
struct Served(Child, String);

impl Served {
    fn start(kind: &str, address: &str) -> Self {
        let mut child = program(&["serve", kind, address]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().to_owned())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(args);
    command
}

/// One measurement of one kind.
fn once(kind: &str, address: &str, servers: usize, in_flight: usize) -> Figure {
    let folder = tempfile::Builder::new().prefix("hilum-bench-").tempdir_in("/tmp").unwrap();
    let served: Vec<Served> = (0..servers)
        .map(|at| {
            Served::start(
                kind,
                &address.replace("FOLDER", &format!("{}/{at}", folder.path().display())),
            )
        })
        .collect();
    let places: Vec<String> =
        served.iter().map(|Served(child, at)| format!("{}@{at}", child.id())).collect();
    let in_flight = in_flight.to_string();
    let mut args = vec!["call", kind, &in_flight];
    args.extend(places.iter().map(String::as_str));
    let done = program(&args).stderr(Stdio::inherit()).output().unwrap();
    assert!(done.status.success(), "{kind}: the client failed");
    String::from_utf8(done.stdout).unwrap().trim().parse().unwrap()
}

/// `--rounds N`, and `--only WORD` for rows whose name holds the word.
fn measure(args: &[&str]) {
    let option = |name: &str| {
        args.iter().position(|arg| *arg == name).and_then(|at| args.get(at + 1)).copied()
    };
    let rounds: usize = option("--rounds").map_or(5, |text| text.parse().expect("--rounds NUMBER"));
    let only = option("--only").unwrap_or_default();
    println!(
        "echo of {SIZE} bytes, medians of {rounds} rounds; libzmq: a bare DEALER and ROUTER, service: `#[interface]` and proxy"
    );
    println!("of hilum-worker, rpc: hilum's calls without them; CPU is that of client and servers");
    for (transport, address) in [("ipc", "ipc://FOLDER"), ("tcp", "tcp://127.0.0.1:*")] {
        for servers in [1, 4] {
            for in_flight in [1, 64] {
                let name = format!(
                    "{transport}, {servers} server{}, {in_flight} in flight",
                    if servers == 1 { "" } else { "s" }
                );
                if !name.contains(only) {
                    continue;
                }
                let mut all: [Vec<Figure>; KINDS.len()] = Default::default();
                for _ in 0..rounds {
                    for (kind, figures) in KINDS.iter().zip(&mut all) {
                        figures.push(once(kind, address, servers, in_flight));
                    }
                }
                show(&name, in_flight, &all);
            }
        }
    }
}

/// One row of the table, with what was asked of it.
fn show(name: &str, in_flight: usize, all: &[Vec<Figure>; KINDS.len()]) {
    let serial = in_flight == 1;
    let read: fn(&Figure) -> f64 = if serial { |one| one.median } else { |one| one.rate };
    println!("\n{name}");
    for (kind, figures) in KINDS.iter().zip(all) {
        let against = |other: usize| {
            median(figures.iter().zip(&all[other]).map(|(one, other)| read(one) / read(other)))
        };
        let (to_libzmq, to_tonic) = (against(0), against(3));
        let verdict = match (*kind, serial) {
            ("service" | "rpc", true) => {
                format!("  bar ≤ 1.5 of libzmq: {}", said(to_libzmq <= 1.5))
            }
            ("service" | "rpc", false) => format!(
                "  bar ≥ 0.6 of libzmq: {}, ahead of tonic: {}",
                said(to_libzmq >= 0.6),
                said(to_tonic > 1.0)
            ),
            _ => String::new(),
        };
        let figure = median(figures.iter().map(read));
        let shown = if serial {
            format!("{figure:>9.1} µs, p99 {:>7.1} µs", median(figures.iter().map(|one| one.p99)))
        } else {
            format!("{figure:>9.0} calls/s         ")
        };
        println!(
            "  {kind:<8}{shown}  CPU {:>5.1} µs a call  {to_libzmq:>6.2} of libzmq {to_tonic:>6.2} of tonic{verdict}",
            median(figures.iter().map(|one| one.cpu)),
        );
    }
}

fn said(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

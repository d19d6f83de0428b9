//! Echo of 100 bytes: calls of ours beside a bare libzmq DEALER and ROUTER, in the same run, server and client each a process.
//!
//! `cargo bench -p hilum-shared --bench rpc`, or `scripts/bench rpc`. One line a measurement; `--rounds N` repeats all of it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement may panic, and prints what it found"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hilum_shared::registry::Memory;
use hilum_shared::rpc::{
    CallOptions, Client, Config, Endpoint, Interface, Method, Server, Sockets,
};
use serde::{Deserialize, Serialize};

const SIZE: usize = 100;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1500);

#[derive(Clone, Serialize, Deserialize)]
struct Echo {
    text: String,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "serve", "bare", address] => serve_bare(address),
        [_, "serve", _, address] => runtime().block_on(serve(address)),
        _ => {
            let at = args.iter().position(|arg| arg == "--rounds");
            let rounds = at.and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(3);
            measure(rounds);
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server process; ended with its guard.
struct Served(Child, String);

impl Served {
    fn start(kind: &str, address: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", kind, address])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
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

fn serve_bare(address: &str) {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::ROUTER).unwrap();
    socket.bind(address).unwrap();
    println!("{}", socket.get_last_endpoint().unwrap().unwrap());
    loop {
        let frames = socket.recv_multipart(0).unwrap();
        socket.send_multipart(frames, 0).unwrap();
    }
}

async fn serve(address: &str) {
    let echo = Method::rpc("echo", |args: Echo, _| async move { Ok(args.text) });
    let server = Arc::new(Server::new("bench").interface(Interface::new("bench").method(echo)));
    let endpoint =
        Endpoint::open(Arc::new(Sockets), &[address], server, Config::default()).await.unwrap();
    println!("{}", endpoint.address());
    std::future::pending::<()>().await;
}

/// Round trips per second, and the median of one in microseconds where one is in flight.
#[derive(Clone, Copy)]
struct Figure {
    rate: f64,
    median: f64,
}

fn bare(address: &str, in_flight: usize) -> Figure {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::DEALER).unwrap();
    socket.connect(address).unwrap();
    let body = vec![b'x'; SIZE];
    let turn = |until: Duration| {
        let begun = Instant::now();
        let mut sent = std::collections::VecDeque::new();
        let mut times = Vec::new();
        for _ in 0..in_flight {
            socket.send(body.as_slice(), 0).unwrap();
            sent.push_back(Instant::now());
        }
        while begun.elapsed() < until {
            socket.recv_bytes(0).unwrap();
            times.push(sent.pop_front().unwrap().elapsed());
            socket.send(body.as_slice(), 0).unwrap();
            sent.push_back(Instant::now());
        }
        for _ in 0..in_flight {
            socket.recv_bytes(0).unwrap();
        }
        figure(times, begun.elapsed())
    };
    turn(WARM_UP);
    turn(MEASURED)
}

fn ours(address: &str, in_flight: usize) -> Figure {
    runtime().block_on(async {
        let client = Client::new(Endpoint::caller().await.unwrap(), Arc::new(Memory::new()));
        let options = CallOptions {
            target: Some(address.to_owned()),
            timeout: Duration::from_secs(30),
            ..CallOptions::default()
        };
        let turn = async |until: Duration| {
            let begun = Instant::now();
            let tasks: Vec<_> = (0..in_flight)
                .map(|_| {
                    let (client, options) = (client.clone(), options.clone());
                    tokio::spawn(async move {
                        let args = Echo { text: "x".repeat(SIZE) };
                        let mut times = Vec::new();
                        while begun.elapsed() < until {
                            let sent = Instant::now();
                            let text: String =
                                client.call("bench.echo", &args, &options).await.unwrap();
                            assert_eq!(text.len(), SIZE);
                            times.push(sent.elapsed());
                        }
                        times
                    })
                })
                .collect();
            let mut times = Vec::new();
            for task in tasks {
                times.extend(task.await.unwrap());
            }
            figure(times, begun.elapsed())
        };
        turn(WARM_UP).await;
        turn(MEASURED).await
    })
}

fn figure(mut times: Vec<Duration>, within: Duration) -> Figure {
    times.sort();
    let median = times[times.len() / 2].as_secs_f64() * 1e6;
    Figure { rate: times.len() as f64 / within.as_secs_f64(), median }
}

fn measure(rounds: usize) {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    println!("echo of {SIZE} bytes, medians of {rounds} rounds");
    println!("{:<22} {:>12} {:>12} {:>8}", "", "bare libzmq", "hilum", "ratio");
    for (transport, address) in [
        ("ipc", format!("ipc://{}/", folder.path().display())),
        ("tcp", "tcp://127.0.0.1:*".into()),
    ] {
        for in_flight in [1, 64] {
            let mut all = [Vec::new(), Vec::new()];
            for round in 0..rounds {
                for (at, kind) in ["bare", "ours"].into_iter().enumerate() {
                    let unique = match transport {
                        "ipc" => format!("{address}{kind}{in_flight}{round}"),
                        _ => address.clone(),
                    };
                    let served = Served::start(kind, &unique);
                    let measure = if kind == "bare" { bare } else { ours };
                    all[at].push(measure(&served.1, in_flight));
                }
            }
            let middle = |figures: &[Figure], read: fn(&Figure) -> f64| {
                let mut values: Vec<f64> = figures.iter().map(read).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let (unit, read): (_, fn(&Figure) -> f64) = if in_flight == 1 {
                ("µs", |one| one.median)
            } else {
                ("calls/s", |one| one.rate)
            };
            let [bare, ours] = [middle(&all[0], read), middle(&all[1], read)];
            let name = format!("{transport}, {in_flight} in flight, {unit}");
            println!("{name:<22} {bare:>12.0} {ours:>12.0} {:>8.2}", ours / bare);
        }
    }
}

//! How a client is measured: so many calls in flight, for a while.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1000);

/// Every program of the comparison runs on one thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Calls a second.
    pub rate: f64,
    /// Of a round trip, in microseconds.
    pub median: f64,
    /// Of a round trip, in microseconds.
    pub p99: f64,
    /// Processor time of client and servers, in microseconds a call.
    pub cpu: f64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.rate, self.median, self.p99, self.cpu)
    }
}

impl FromStr for Figure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
        match words.as_deref() {
            Ok([rate, median, p99, cpu]) => {
                Ok(Self { rate: *rate, median: *median, p99: *p99, cpu: *cpu })
            }
            _ => Err(format!("no figure: {text:?}")),
        }
    }
}

/// How many calls at once, and which processes besides the client work for them.
pub struct Plan {
    pub in_flight: usize,
    pids: Vec<u32>,
}

impl Plan {
    pub fn new(in_flight: usize, servers: &[&str]) -> Self {
        let servers = servers.iter().map(|pid| pid.parse().unwrap());
        Self { in_flight, pids: servers.chain([std::process::id()]).collect() }
    }

    /// Runs `turn` twice, once to warm up; it works until the moment that it is given and returns the time of each call.
    pub async fn run(&self, mut turn: impl AsyncFnMut(Instant) -> Vec<Duration>) -> Figure {
        turn(Instant::now() + WARM_UP).await;
        let (before, begun) = (self.cpu(), Instant::now());
        let mut times = turn(begun + MEASURED).await;
        let (within, used) = (begun.elapsed(), self.cpu() - before);
        times.sort();
        let share = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e6;
        let calls = times.len() as f64;
        Figure {
            rate: calls / within.as_secs_f64(),
            median: share(50),
            p99: share(99),
            cpu: used as f64 / 1e3 / calls,
        }
    }

    /// As many tasks as calls in flight; each calls one `caller` after the other.
    pub async fn tasks<C, F>(&self, callers: &[C], echo: fn(C, String) -> F) -> Figure
    where
        C: Clone + 'static,
        F: Future<Output = String> + 'static,
    {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(self.run(async |until| {
                let tasks: Vec<_> = (0..self.in_flight)
                    .map(|first| {
                        let callers = callers.to_vec();
                        tokio::task::spawn_local(async move {
                            let mut times = Vec::new();
                            let mut callers = callers.iter().cycle().skip(first % callers.len());
                            while Instant::now() < until {
                                let text = "x".repeat(super::SIZE);
                                let caller = callers.next().unwrap().clone();
                                let sent = Instant::now();
                                let answer = echo(caller, text).await;
                                times.push(sent.elapsed());
                                assert_eq!(answer.len(), super::SIZE);
                            }
                            times
                        })
                    })
                    .collect();
                let mut times = Vec::new();
                for task in tasks {
                    times.extend(task.await.unwrap());
                }
                times
            }))
            .await
    }

    /// Nanoseconds of processor time of all threads so far.
    fn cpu(&self) -> u64 {
        let tasks =
            self.pids.iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok());
        let files = tasks.flatten().flatten().map(|task| task.path().join("schedstat"));
        let texts = files.filter_map(|path| std::fs::read_to_string(path).ok());
        texts.filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum()
    }
}

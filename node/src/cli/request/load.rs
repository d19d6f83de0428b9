//! Many requests at once: how many a second, and how long they took.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hilum_shared::rpc::{CallOptions, Client, Error};
use hilum_shared::wire::Value;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::caller::{Caller, Place};
use super::super::exit::{CliError, ExitStatus, Outcome};
use super::super::output::Output;

/// The percentiles that are shown, lymph's.
const PERCENTILES: [f64; 10] = [0.0, 50.0, 90.0, 95.0, 97.0, 98.0, 99.0, 99.5, 99.9, 100.0];
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);
/// Between two tries of a lane while nobody is there to be called: at first, and at most.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Kinds of failures that are told apart; a service may invent any number.
const KINDS: usize = 20;

/// What is to be done.
pub(super) struct Load<'a> {
    pub(super) subject: &'a str,
    pub(super) place: &'a Place,
    pub(super) body: Value,
    pub(super) options: CallOptions,
    pub(super) requests: u32,
    pub(super) concurrency: u32,
}

/// One of the callers that run at once.
struct Lane {
    client: Client,
    subject: Arc<str>,
    body: Arc<Value>,
    options: CallOptions,
    /// Requests that nobody has taken yet.
    left: Arc<AtomicU32>,
    done: mpsc::UnboundedSender<Result<Duration, Error>>,
}

impl Lane {
    async fn run(self) {
        let take = |left: u32| left.checked_sub(1);
        let mut pause = PAUSE;
        while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            let begun = Instant::now();
            let answer = self.client.request(&self.subject, &*self.body, &self.options).await;
            let absent = answer.as_ref().is_err_and(nobody_there);
            if self.done.send(answer.map(|_| begun.elapsed())).is_err() {
                return;
            }
            if absent {
                // Such an answer costs no time: all requests would be used up in a moment, and a processor with them.
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            } else {
                pause = PAUSE;
            }
        }
    }
}

/// Whether a call failed because nobody took it, so that it may succeed once somebody is there.
fn nobody_there(error: &Error) -> bool {
    error.not_sent()
        || matches!(
            error,
            Error::NoSuchService { .. }
                | Error::NoneAlive { .. }
                | Error::NoneCompatible { .. }
                | Error::Registry(_)
        )
}

/// Whether a first call that failed so is counted with those that follow; after any other failure another word is needed.
pub(super) fn may_pass(error: &Error) -> bool {
    nobody_there(error)
        || error.is_transient()
        || error.kind().is_some()
        || matches!(error, Error::Nack { .. })
}

impl Load<'_> {
    /// Sends them; Ctrl-C ends it early, and what there is by then is shown.
    pub(super) async fn run(self, caller: &Caller<'_>) -> Outcome {
        let out = caller.session.out;
        let (client, _) = caller.prepared(self.place, self.options.clone()).await?;
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        // Its length is bounded by the number of requests.
        let (done, mut answers) = mpsc::unbounded_channel();
        let left = Arc::new(AtomicU32::new(self.requests));
        let mut lanes = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..self.concurrency {
            // Each may go to another of several endpoints.
            let (_, options) = caller.prepared(self.place, self.options.clone()).await?;
            let lane = Lane {
                client: client.clone(),
                subject: self.subject.into(),
                body: Arc::new(self.body.clone()),
                options,
                left: Arc::clone(&left),
                done: done.clone(),
            };
            lanes.spawn(lane.run());
        }
        drop(done);
        let mut figures = Figures::default();
        let mut looks = tokio::time::interval(LOOK);
        let mut drawn = 0;
        loop {
            tokio::select! {
                answer = answers.recv() => match answer {
                    Some(answer) => figures.count(answer),
                    None => break,
                },
                _ = looks.tick() => {
                    drawn = out.redraw(drawn, &[format!("{} of {}", figures.total(), self.requests)]);
                }
                _ = &mut interrupt => {
                    lanes.abort_all();
                    out.redraw(drawn, &[]);
                    drawn = 0;
                    out.note("interrupted: this is what there is");
                    break;
                }
            }
        }
        out.redraw(drawn, &[]);
        figures.elapsed = begun.elapsed();
        figures.times.sort_unstable();
        self.show(out, &figures)?;
        Ok(figures.status())
    }

    fn show(&self, out: Output, figures: &Figures) -> Result<(), CliError> {
        if out.json {
            let mut json = figures.to_json();
            json["requests"] = self.requests.into();
            json["concurrency"] = self.concurrency.into();
            return out.json(&json);
        }
        let address = &self.place.address;
        let mut text = format!(
            "{} at {address}: {} of {} requests answered, {} at once\n\n",
            self.subject,
            figures.times.len(),
            self.requests,
            self.concurrency
        );
        text.push_str(&figures.to_string());
        out.text(&text)
    }
}

/// What came of them.
#[derive(Debug, Default)]
struct Figures {
    /// Of those that were answered; sorted at the end.
    times: Vec<Duration>,
    timeouts: u64,
    errors: BTreeMap<String, u64>,
    elapsed: Duration,
}

impl Figures {
    fn count(&mut self, answer: Result<Duration, Error>) {
        match answer {
            Ok(time) => self.times.push(time),
            Err(Error::Timeout { .. }) => self.timeouts += 1,
            Err(error) => {
                let named = error.kind().map(str::to_owned);
                let other = CliError::Call { error: Box::new(error), help: None, trace_id: None };
                let kind = named.unwrap_or_else(|| other.code().to_owned());
                let known = self.errors.len() < KINDS || self.errors.contains_key(&kind);
                let kind = if known { kind } else { "other".to_owned() };
                *self.errors.entry(kind).or_default() += 1;
            }
        }
    }

    fn total(&self) -> u64 {
        self.times.len() as u64 + self.timeouts + self.errors.values().sum::<u64>()
    }

    fn status(&self) -> ExitStatus {
        match (self.times.is_empty(), self.timeouts, self.errors.is_empty()) {
            (_, 0, true) => ExitStatus::Done,
            (true, _, true) => ExitStatus::TimedOut,
            _ => ExitStatus::Failed,
        }
    }

    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn timeout_rate(&self) -> f64 {
        self.timeouts as f64 / self.total().max(1) as f64
    }

    /// In seconds.
    fn mean(&self) -> Option<f64> {
        let sum: f64 = self.times.iter().map(Duration::as_secs_f64).sum();
        (!self.times.is_empty()).then(|| sum / self.times.len() as f64)
    }

    /// In seconds; of all that were measured, not of a sample.
    fn deviation(&self) -> Option<f64> {
        let mean = self.mean()?;
        let squares: f64 = self.times.iter().map(|time| (time.as_secs_f64() - mean).powi(2)).sum();
        Some((squares / self.times.len() as f64).sqrt())
    }

    /// The time within which so many of a hundred were answered (nearest rank).
    fn percentile(&self, percent: f64) -> Option<Duration> {
        let rank = (percent / 100.0 * self.times.len() as f64).ceil() as usize;
        self.times.get(rank.max(1) - 1).copied()
    }

    fn to_json(&self) -> Json {
        let percentiles: serde_json::Map<String, Json> = PERCENTILES
            .iter()
            .map(|percent| {
                let time = self.percentile(*percent).map(|time| time.as_secs_f64());
                (percent.to_string(), json!(time))
            })
            .collect();
        json!({
            "requests": null,
            "concurrency": null,
            "answered": self.times.len(),
            "timeouts": self.timeouts,
            "errors": self.errors,
            "elapsed": self.elapsed.as_secs_f64(),
            "requests_per_second": self.rate(),
            "mean": self.mean(),
            "stddev": self.deviation(),
            "timeout_rate": self.timeout_rate(),
            "percentiles": percentiles,
        })
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |seconds: f64| format!("{:.3} ms", seconds * 1000.0);
        writeln!(f, "Requests per second:    {:.2}", self.rate())?;
        if let (Some(mean), Some(deviation)) = (self.mean(), self.deviation()) {
            writeln!(f, "Mean time per request:  {} (stddev {})", ms(mean), ms(deviation))?;
        }
        writeln!(f, "Timeout rate:           {:.2} %", 100.0 * self.timeout_rate())?;
        if !self.errors.is_empty() {
            let kinds = self.errors.iter().fold(String::new(), |mut text, (kind, count)| {
                let comma = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{comma}{count} {kind}"); // a String takes all
                text
            });
            writeln!(f, "Failed:                 {kinds}")?;
        }
        writeln!(f, "Total time:             {:.2} s", self.elapsed.as_secs_f64())?;
        if self.times.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nPercentiles:")?;
        for percent in PERCENTILES {
            if let Some(time) = self.percentile(percent) {
                writeln!(f, "  {:>5} %  {:>12}", percent.to_string(), ms(time.as_secs_f64()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(times: impl IntoIterator<Item = u64>) -> Figures {
        let times: Vec<Duration> = times.into_iter().map(Duration::from_millis).collect();
        Figures { times, elapsed: Duration::from_secs(2), ..Figures::default() }
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let hundred = figures(1..=100);
        let at = |percent| hundred.percentile(percent).unwrap().as_millis();
        assert_eq!([at(0.0), at(50.0), at(99.0), at(99.9), at(100.0)], [1, 50, 99, 100, 100]);
        assert_eq!(figures([7]).percentile(50.0), Some(Duration::from_millis(7)));
        assert_eq!(figures([]).percentile(50.0), None);
        let mean = figures([2, 4]);
        assert!((mean.mean().unwrap() - 0.003).abs() < 1e-9);
        assert!((mean.deviation().unwrap() - 0.001).abs() < 1e-9);
        assert!((hundred.rate() - 50.0).abs() < 1e-9);
    }

    #[test]
    fn what_failed_is_counted_by_its_kind_and_ends_with_its_code() {
        let mut some = figures([1]);
        assert_eq!(some.status(), ExitStatus::Done);
        some.count(Err(Error::Nack { subject: "a.b".into() }));
        some.count(Err(Error::Nack { subject: "a.b".into() }));
        assert_eq!(some.errors.values().sum::<u64>(), 2);
        assert_eq!(some.status(), ExitStatus::Failed);
        let mut none = figures([]);
        none.count(Err(Error::Timeout { subject: "a.b".into(), after: Duration::from_secs(1) }));
        assert_eq!(none.status(), ExitStatus::TimedOut);
        assert!((none.timeout_rate() - 1.0).abs() < 1e-9);
    }
}

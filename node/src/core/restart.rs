//! When and how fast an ended run is followed by the next: backoff with jitter and reset, and a budget.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use hilum_shared::config::spec::{Kind, RestartPolicy, RestartWhen};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::signal::Exit;
use hilum_shared::units::format_duration;

use super::time::Moment;

/// Automatic restarts of one instance so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Restarts since the last run that lasted.
    consecutive: u32,
    /// So many of them were delayed.
    delayed: u32,
    /// Failures in a row before the policy's `min_uptime`.
    crashes: u32,
    /// Ends in a row that came so soon, also with success, or before it was ready; of a job its failures.
    in_vain: u32,
    /// The next start is an automatic restart, not counted yet.
    again: bool,
    /// Times of restarts, none older than the policy's `within`; kept only under a limit.
    recent: VecDeque<Moment>,
}

/// How a run ended, as far as the policy cares.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The leader's end; `None` when it could not be started.
    pub exit: Option<Exit>,
    /// Whether the node ended it because something was wrong with it.
    pub fault: bool,
    /// Whether it had been ready.
    pub ready: bool,
    /// How long it ran.
    pub uptime: Duration,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next run, after this delay.
    Again(Duration),
    /// Nothing: it has done its work.
    Completed,
    /// Nothing: given up, and why.
    GiveUp(Option<String>),
}

impl History {
    /// Forgets everything, as after a start by hand.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many failures in a row came before the policy's `min_uptime`.
    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    /// How many ends in a row came before the policy's `min_uptime`, however it ended, or before it was ready; of a job,
    /// how many were failures.
    pub fn in_vain(&self) -> u32 {
        self.in_vain
    }

    /// A run begins: whether it is an automatic restart.
    pub fn begin(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// The next start is ordered, and no automatic restart.
    pub fn ordered(&mut self) {
        self.again = false;
    }

    /// Decides what follows `end`, and counts it.
    pub fn judge(
        &mut self,
        policy: &RestartPolicy,
        kind: Kind,
        end: End,
        now: Moment,
        who: (&InstanceId, Run),
    ) -> Verdict {
        let verdict = self.verdict(policy, kind, end, now, who);
        self.again = matches!(verdict, Verdict::Again(_));
        verdict
    }

    fn verdict(
        &mut self,
        policy: &RestartPolicy,
        kind: Kind,
        end: End,
        now: Moment,
        (id, run): (&InstanceId, Run),
    ) -> Verdict {
        let success = !end.fault
            && matches!(end.exit, Some(Exit::Code(code)) if policy.success.contains(&code));
        let too_soon = end.uptime < policy.min_uptime;
        let crashed = !success && too_soon;
        let in_vain = match kind {
            Kind::Service => too_soon || !end.ready,
            Kind::Job => !success,
        };
        self.in_vain = if in_vain { self.in_vain.saturating_add(1) } else { 0 };
        self.crashes = if crashed { self.crashes.saturating_add(1) } else { 0 };
        match policy.when {
            RestartWhen::Always => {}
            RestartWhen::OnFailure | RestartWhen::Never if success => return Verdict::Completed,
            RestartWhen::Never => return Verdict::GiveUp(None),
            RestartWhen::OnFailure => {}
        }
        // A job that is restarted `always` and succeeds has no reason to hurry or to give up.
        if kind == Kind::Job && success {
            self.clear();
            return Verdict::Again(policy.delay);
        }
        if let Some(limit) = policy.limit {
            let oldest = now - policy.within;
            while self.recent.front().is_some_and(|at| *at < oldest) {
                self.recent.pop_front();
            }
            if self.recent.len() >= limit as usize {
                let within = format_duration(policy.within);
                return Verdict::GiveUp(Some(match limit {
                    0 => "not restarted: `restart.limit` is 0".to_owned(),
                    1 => format!("restarted once within {within}"),
                    _ => format!("restarted {limit} times within {within}"),
                }));
            }
            self.recent.push_back(now);
        }
        if end.uptime >= policy.reset_after {
            (self.consecutive, self.delayed) = (0, 0);
        }
        let delay = if self.consecutive == 0 && end.uptime >= policy.min_uptime {
            Duration::ZERO
        } else {
            let delay = self.delay(policy, id, run);
            self.delayed = self.delayed.saturating_add(1);
            delay
        };
        self.consecutive = self.consecutive.saturating_add(1);
        Verdict::Again(delay)
    }

    fn delay(&self, policy: &RestartPolicy, id: &InstanceId, run: Run) -> Duration {
        let steps = self.delayed.min(1000) as i32;
        let longest = policy.max_delay.as_secs_f64();
        let plain = (policy.delay.as_secs_f64() * policy.factor.powi(steps)).min(longest);
        let share = policy.jitter * (2.0 * fraction((id, run)) - 1.0);
        Duration::try_from_secs_f64((plain * (1.0 + share)).clamp(0.0, longest))
            .unwrap_or(policy.max_delay)
    }
}

/// A number from 0 to 1 that depends on `key` only: chance that can be replayed.
pub fn fraction(key: impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RestartPolicy {
        RestartPolicy {
            when: RestartWhen::Always,
            min_uptime: Duration::from_secs(1),
            delay: Duration::from_millis(500),
            factor: 2.0,
            max_delay: Duration::from_secs(30),
            jitter: 0.0,
            reset_after: Duration::from_secs(60),
            limit: None,
            within: Duration::from_secs(300),
            success: vec![0],
        }
    }

    fn ended(code: i32, uptime: f64) -> End {
        let uptime = Duration::from_secs_f64(uptime);
        End { exit: Some(Exit::Code(code)), fault: false, ready: true, uptime }
    }

    fn judge(history: &mut History, policy: &RestartPolicy, end: End, at: u64) -> Verdict {
        let id = InstanceId::parse("web.1").unwrap();
        history.judge(policy, Kind::Service, end, Moment(Duration::from_secs(at)), (&id, Run(1)))
    }

    #[test]
    fn the_first_restart_after_a_good_run_is_at_once_and_the_next_back_off() {
        let mut history = History::default();
        let delays: Vec<Verdict> =
            [5.0, 0.1, 0.1, 0.1].map(|up| judge(&mut history, &policy(), ended(1, up), 0)).into();
        let millis = |ms| Verdict::Again(Duration::from_millis(ms));
        assert_eq!(delays, [millis(0), millis(500), millis(1000), millis(2000)]);
    }

    #[test]
    fn each_delay_is_longer_than_the_one_before_also_where_the_first_run_crashes() {
        let mut history = History::default();
        let delays: Vec<Verdict> =
            [0.1, 0.1, 0.1].map(|up| judge(&mut history, &policy(), ended(1, up), 0)).into();
        let millis = |ms| Verdict::Again(Duration::from_millis(ms));
        assert_eq!(delays, [millis(500), millis(1000), millis(2000)]);
    }

    #[test]
    fn ends_in_vain_are_quick_ones_however_it_ended_and_failures_of_a_job() {
        let id = InstanceId::parse("web.1").unwrap();
        let in_vain = |kind, ends: &[End]| {
            let mut history = History::default();
            for end in ends {
                history.judge(&policy(), kind, *end, Moment::default(), (&id, Run(1)));
            }
            history.in_vain()
        };
        assert_eq!(in_vain(Kind::Service, &[ended(0, 0.1); 3]), 3);
        assert_eq!(in_vain(Kind::Service, &[ended(1, 0.1), ended(0, 0.1), ended(0, 5.0)]), 0);
        assert_eq!(in_vain(Kind::Job, &[ended(1, 5.0); 3]), 3);
        assert_eq!(in_vain(Kind::Job, &[ended(1, 5.0), ended(0, 0.1)]), 0);
    }

    #[test]
    fn delays_stop_growing_at_the_longest_and_start_anew_after_a_long_run() {
        let mut history = History::default();
        for _ in 0..50 {
            judge(&mut history, &policy(), ended(1, 0.1), 0);
        }
        assert_eq!(
            judge(&mut history, &policy(), ended(1, 0.1), 0),
            Verdict::Again(Duration::from_secs(30))
        );
        assert_eq!(
            judge(&mut history, &policy(), ended(1, 61.0), 0),
            Verdict::Again(Duration::ZERO)
        );
    }

    #[test]
    fn jitter_stays_in_its_share_and_replays() {
        let policy = RestartPolicy { jitter: 0.2, ..policy() };
        for run in 1..200 {
            let id = InstanceId::parse("web.1").unwrap();
            let delay = |mut history: History| {
                history.judge(
                    &policy,
                    Kind::Service,
                    ended(1, 0.0),
                    Moment::default(),
                    (&id, Run(run)),
                )
            };
            let Verdict::Again(first) = delay(History::default()) else { panic!("given up") };
            assert_eq!(Verdict::Again(first), delay(History::default()));
            assert!((400..=600).contains(&first.as_millis()), "{first:?}");
        }
    }

    #[test]
    fn a_limit_counts_restarts_in_its_window_only() {
        let policy = RestartPolicy { limit: Some(2), ..policy() };
        let mut history = History::default();
        assert!(matches!(judge(&mut history, &policy, ended(1, 0.0), 0), Verdict::Again(_)));
        assert!(matches!(judge(&mut history, &policy, ended(1, 0.0), 10), Verdict::Again(_)));
        assert!(matches!(
            judge(&mut history, &policy, ended(1, 0.0), 20),
            Verdict::GiveUp(Some(_))
        ));
        assert!(matches!(judge(&mut history, &policy, ended(1, 0.0), 305), Verdict::Again(_)));
        let none = RestartPolicy { limit: Some(0), ..policy };
        let Verdict::GiveUp(Some(why)) = judge(&mut history, &none, ended(1, 0.0), 700) else {
            panic!("restarted")
        };
        assert_eq!(why, "not restarted: `restart.limit` is 0");
    }

    #[test]
    fn success_ends_what_is_restarted_on_failure_only_and_a_signal_is_a_failure() {
        let policy =
            RestartPolicy { when: RestartWhen::OnFailure, success: vec![0, 3], ..policy() };
        let mut history = History::default();
        assert_eq!(judge(&mut history, &policy, ended(3, 0.0), 0), Verdict::Completed);
        let killed = Exit::Signal { signal: hilum_shared::signal::Signal::KILL, core: false };
        let end = End { exit: Some(killed), ..ended(0, 0.0) };
        assert!(matches!(judge(&mut history, &policy, end, 0), Verdict::Again(_)));
        let fault = End { fault: true, ..ended(0, 0.0) };
        assert!(matches!(judge(&mut history, &policy, fault, 0), Verdict::Again(_)));
        let never = RestartPolicy { when: RestartWhen::Never, ..policy };
        assert_eq!(judge(&mut history, &never, ended(1, 0.0), 0), Verdict::GiveUp(None));
    }
}

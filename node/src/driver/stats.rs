//! Processor time and memory of runs, read from kept-open `/proc/PID/stat`. Sampled only when somebody
//! looks or a limit needs it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::units::Bytes;

use super::procfs::{self, Stat};

/// Two looks that are closer than this say nothing of the time between: clock ticks are 10 ms long.
const CLOSEST: Duration = Duration::from_millis(200);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breadth {
    /// The leader: cheap.
    Leader,
    /// All processes of its session: one pass over `/proc` for all runs together.
    Session,
}

/// A run and its leader.
pub type Target = (InstanceId, Run, u32);

/// One look at one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Processor time in percent of one processor since the look before, at first since the start.
    /// `None` where too little time has passed to say.
    pub cpu_percent: Option<f64>,
    /// Resident memory now.
    pub rss: Bytes,
    /// The most that was seen.
    pub peak_rss: Bytes,
    /// Whether the leader is stopped, by a signal or by a debugger.
    pub paused: bool,
}

/// Remembers the look before.
#[derive(Debug)]
pub struct Sampler {
    seen: HashMap<(InstanceId, Run), Seen>,
    ticks_per_second: f64,
    page: u64,
}

#[derive(Debug)]
struct Seen {
    file: File,
    at: Instant,
    ticks: u64,
    percent: Option<f64>,
    peak: u64,
}

impl Sampler {
    /// Has seen nothing yet.
    pub fn new() -> Self {
        let value = |name| nix::unistd::sysconf(name).ok().flatten();
        Self {
            seen: HashMap::new(),
            ticks_per_second: value(nix::unistd::SysconfVar::CLK_TCK).unwrap_or(100) as f64,
            page: value(nix::unistd::SysconfVar::PAGE_SIZE).unwrap_or(4096) as u64,
        }
    }

    /// Looks at these runs and forgets all others. A run that has ended is absent from the answer.
    pub fn sample(
        &mut self,
        runs: &[Target],
        breadth: Breadth,
    ) -> HashMap<(InstanceId, Run), Sample> {
        let now = Instant::now();
        let sessions = match breadth {
            Breadth::Session if !runs.is_empty() => by_session(),
            _ => HashMap::new(),
        };
        let mut before = std::mem::take(&mut self.seen);
        let mut samples = HashMap::with_capacity(runs.len());
        for (instance, run, pid) in runs {
            let key = (instance.clone(), *run);
            let known = before.remove(&key);
            let Some((seen, sample)) = self.look(known, *pid, sessions.get(pid), now) else {
                continue;
            };
            samples.insert(key.clone(), sample);
            self.seen.insert(key, seen);
        }
        samples
    }

    /// The most resident memory of a run when it was looked at, where it was.
    pub fn peak(&self, instance: &InstanceId, run: Run) -> Option<Bytes> {
        Some(Bytes(self.seen.get(&(instance.clone(), run))?.peak))
    }

    fn look(
        &self,
        known: Option<Seen>,
        pid: u32,
        session: Option<&(u64, u64)>,
        now: Instant,
    ) -> Option<(Seen, Sample)> {
        let file = match &known {
            Some(seen) => &seen.file,
            None => &File::open(format!("/proc/{pid}/stat")).ok()?,
        };
        let mut buffer = [0; 1024];
        // An open file stays with its process: after its end this is ESRCH, never somebody else's.
        let length = file.read_at(&mut buffer, 0).ok()?;
        let stat = Stat::parse(&buffer[..length]).filter(|stat| !stat.is_zombie())?;
        let leader = (stat.user_ticks + stat.system_ticks, stat.resident_pages);
        let (ticks, pages) = session.copied().unwrap_or(leader);
        let rss = pages * self.page;
        let (since, ticks_before, percent_before, peak) = match &known {
            Some(seen) => (now - seen.at, seen.ticks, seen.percent, seen.peak),
            None => (self.age(stat.start)?, 0, None, 0),
        };
        let peak = peak.max(rss);
        let spent = ticks.saturating_sub(ticks_before) as f64 / self.ticks_per_second;
        let too_close = since < CLOSEST;
        let percent =
            if too_close { percent_before } else { Some(100.0 * spent / since.as_secs_f64()) };
        let sample = Sample {
            cpu_percent: percent,
            rss: Bytes(rss),
            peak_rss: Bytes(peak),
            paused: matches!(stat.state, b'T' | b't'),
        };
        let seen = match known {
            Some(seen) if too_close => Seen { peak, ..seen },
            known => Seen {
                file: match known {
                    Some(seen) => seen.file,
                    None => File::open(format!("/proc/{pid}/stat")).ok()?,
                },
                at: now,
                ticks,
                percent,
                peak,
            },
        };
        Some((seen, sample))
    }

    /// How long ago a process with this start time began.
    fn age(&self, start: u64) -> Option<Duration> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        let age = uptime - start as f64 / self.ticks_per_second;
        Duration::try_from_secs_f64(age.max(0.0)).ok()
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

/// Processor ticks and resident pages of each session.
fn by_session() -> HashMap<u32, (u64, u64)> {
    let mut sessions: HashMap<u32, (u64, u64)> = HashMap::new();
    for stat in procfs::all().into_iter().filter_map(Stat::read) {
        let sum = sessions.entry(stat.session).or_default();
        sum.0 += stat.user_ticks + stat.system_ticks;
        sum.1 += stat.resident_pages;
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = std::process::id();
        let target: Target = (InstanceId::parse("web.1").unwrap(), Run(1), own);
        let key = (target.0.clone(), target.1);
        let mut sampler = Sampler::new();
        let runs = [target];
        let first = sampler.sample(&runs, Breadth::Leader)[&key];
        assert!(first.rss > Bytes(100_000), "{first:?}");
        // Busy until it shows: the machine may give us little.
        let mut busy = first;
        let end = Instant::now() + Duration::from_secs(30);
        while busy.cpu_percent.is_none_or(|percent| percent < 5.0) {
            assert!(Instant::now() < end, "{busy:?}");
            let pause = Instant::now() + CLOSEST;
            while Instant::now() < pause {
                std::hint::spin_loop();
            }
            busy = sampler.sample(&runs, Breadth::Leader)[&key];
        }
        assert!(busy.peak_rss >= busy.rss);
        let soon = Instant::now();
        let again = sampler.sample(&runs, Breadth::Leader)[&key];
        if soon.elapsed() < CLOSEST / 2 {
            assert_eq!(again.cpu_percent, busy.cpu_percent, "too close to say anew");
        }
        let whole = sampler.sample(&runs, Breadth::Session);
        assert!(whole.contains_key(&key));
    }

    #[test]
    fn a_process_that_is_gone_is_absent() {
        let target: Target = (InstanceId::parse("web.1").unwrap(), Run(1), u32::MAX);
        assert!(Sampler::new().sample(&[target], Breadth::Leader).is_empty());
    }
}

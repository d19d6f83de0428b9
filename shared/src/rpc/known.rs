//! What a client knows of the services that it calls: their instances, which of them is called next, and whether a service that is gone
//! may be back in a moment.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::CallOptions;
use super::endpoint::Endpoint;
use super::error::Error;
use super::wire::Liveness;
use crate::registry::{Instance, Lookup, Registry, RegistryError, Version, VersionRequest};

/// How long a service that was there is waited for: a restart of all its instances takes about so long.
const RETURN: Duration = Duration::from_secs(10);
/// How soon those that refused a connection are asked again meanwhile.
const AGAIN: Duration = Duration::from_millis(100);

/// The services that a client has asked its registry for.
pub(super) struct Services {
    registry: Arc<dyn Registry>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that have an instance, or had one.
    known: HashMap<String, Arc<Known>>,
    /// Those that the registry is being asked for: one question each, however many wait for its answer.
    asked: HashMap<String, Weak<Asked>>,
}

/// Where the answer of the registry will come.
type Asked = watch::Sender<Option<Result<Arc<Known>, RegistryError>>>;

impl Services {
    pub(super) fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry, state: Mutex::default() }
    }

    pub(super) fn registry(&self) -> &Arc<dyn Registry> {
        &self.registry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The live view of a service's instances, where there is one.
    pub(super) fn known(&self, service: &str) -> Option<Arc<Known>> {
        self.state().known.get(service).cloned()
    }

    /// Asks the registry for it, or waits with those who asked already.
    pub(super) async fn look_up(self: &Arc<Self>, service: &str) -> Result<Arc<Known>, Error> {
        let mut answer = {
            let mut state = self.state();
            if let Some(known) = state.known.get(service) {
                return Ok(Arc::clone(known));
            }
            match state.asked.get(service).and_then(Weak::upgrade) {
                Some(asked) => asked.subscribe(),
                None => {
                    let asked = Arc::new(Asked::new(None));
                    state.asked.insert(service.to_owned(), Arc::downgrade(&asked));
                    let answer = asked.subscribe();
                    // A task of its own: who stops waiting does not end it for the others.
                    tokio::spawn(Arc::clone(self).ask_registry(service.to_owned(), asked));
                    answer
                }
            }
        };
        let answer = answer.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?;
        answer.clone().expect("it was waited for").map_err(Error::from)
    }

    /// Asks for a service, and tells all that wait for it.
    async fn ask_registry(self: Arc<Self>, service: String, asked: Arc<Asked>) {
        let found = self.registry.lookup(&service).await;
        let found = found.map(|lookup| Arc::new(Known::new(lookup)));
        {
            let mut state = self.state();
            // Whoever comes from now on asks anew.
            state.asked.remove(&service);
            // Names come from the program, so they are few; names that nobody has are not kept.
            if let Ok(known) = &found
                && known.was_there
            {
                state.known.insert(service, Arc::clone(known));
            }
        }
        asked.send_replace(Some(found));
    }
}

/// A service, as far as it is known.
pub(super) struct Known {
    lookup: Lookup,
    turn: AtomicUsize,
    /// Whether it had an instance when it was looked up.
    was_there: bool,
    /// The versions of all instances that are known to have been there.
    seen: RwLock<Vec<Option<String>>>,
    /// Whether any of them has ever answered.
    has_answered: AtomicBool,
    /// Whether `away` says something.
    is_away: AtomicBool,
    /// Since when nobody is there, as far as it was called; by the version that was asked for, if any.
    away: Mutex<HashMap<Option<String>, Missed>>,
}

/// Since when a version is missed.
struct Missed {
    asked: Option<VersionRequest>,
    since: Instant,
}

/// So many versions are missed at a time at most; more are asked for only by a program that takes them from strangers.
const MOST_MISSED: usize = 64;

/// One instance, as a call goes to it.
pub(super) struct Chosen {
    pub(super) address: String,
    pub(super) version: Option<String>,
}

impl Known {
    fn new(lookup: Lookup) -> Self {
        let seen: Vec<_> = lookup.instances().iter().map(|one| one.version.clone()).collect();
        Self {
            was_there: !seen.is_empty(),
            seen: RwLock::new(seen),
            lookup,
            turn: AtomicUsize::new(0),
            has_answered: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
            away: Mutex::default(),
        }
    }

    /// An instance of this version answered a call.
    pub(super) fn answered(&self, version: Option<&str>) {
        if !self.has_answered.load(Ordering::Relaxed) {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        if self.is_away.load(Ordering::Relaxed) {
            let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
            away.retain(|_, missed| {
                missed.asked.as_ref().is_some_and(|asked| !asked.admits(version))
            });
            self.is_away.store(!away.is_empty(), Ordering::Relaxed);
        }
    }

    /// An instance of this version is there.
    fn saw(&self, version: Option<&str>) {
        let is_known = {
            let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
            seen.iter().any(|one| one.as_deref() == version)
        };
        if !is_known {
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            seen.push(version.map(str::to_owned));
        }
    }

    /// Until when it is waited for, from when it was first missed.
    fn awaited_until(&self, asked: Option<&VersionRequest>) -> Instant {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_away.store(true, Ordering::Relaxed);
        if away.len() >= MOST_MISSED {
            away.retain(|_, missed| missed.since.elapsed() < RETURN);
        }
        let missed = away.entry(asked.map(ToString::to_string));
        missed.or_insert_with(|| Missed { asked: asked.cloned(), since: Instant::now() }).since
            + RETURN
    }

    /// Nobody could be called: waits, no longer than until `deadline`, whether that was for a moment only; whether to look again.
    pub(super) async fn may_be_back(
        &self,
        error: &Error,
        asked: Option<&VersionRequest>,
        tried: &[String],
        deadline: Instant,
    ) -> bool {
        let fits = |version: Option<&str>| asked.is_none_or(|asked| asked.admits(version));
        let was_there = || {
            let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
            seen.iter().any(|version| fits(version.as_deref()))
        };
        let until = match error {
            Error::NoneAlive { .. } => self.awaited_until(asked).min(deadline),
            Error::NoneCompatible { .. } if was_there() => self.awaited_until(asked).min(deadline),
            _ => return false,
        };
        if Instant::now() >= until {
            return false;
        }
        // Where this version never was, anybody's return says that it is not there.
        let any = !was_there();
        let is_there = |one: &Instance| any || fits(one.version.as_deref());
        if !self.lookup.instances().iter().any(is_there) {
            let mut view = self.lookup.clone();
            let back = view.wait_for(|instances| instances.iter().any(is_there));
            return tokio::time::timeout_at(until, back).await.is_ok_and(|back| back.is_some());
        }
        // Those that are there and silent are known to be so; those that refuse may be about to begin, where they were well before.
        if tried.is_empty() || !self.has_answered.load(Ordering::Relaxed) {
            return false;
        }
        tokio::time::sleep_until(until.min(Instant::now() + AGAIN)).await;
        Instant::now() < until
    }

    /// Whether an instance that was not tried yet is well, beside this one.
    pub(super) fn is_another_well(
        &self,
        endpoint: &Endpoint,
        options: &CallOptions,
        tried: &[String],
        this: &str,
    ) -> bool {
        let asked = options.version.as_ref();
        self.lookup.instances().iter().any(|instance| {
            let (address, liveness) = address(endpoint, instance);
            asked.is_none_or(|asked| asked.admits(instance.version.as_deref()))
                && address != this
                && !tried.iter().any(|other| other == address)
                && matches!(liveness, Liveness::Responsive | Liveness::Unknown)
        })
    }

    /// The instance to call: not one that was tried while there are others.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn choose(
        &self,
        endpoint: &Endpoint,
        service: &str,
        options: &CallOptions,
        tried: &[String],
    ) -> Result<Chosen, Error> {
        let all = self.lookup.instances();
        if all.is_empty() {
            let service = service.to_owned();
            let asked = options.version.as_ref();
            let a_moment_ago = self.was_there && Instant::now() < self.awaited_until(asked);
            return Err(if a_moment_ago {
                Error::NoneAlive { service, count: 0 }
            } else {
                Error::NoSuchService { service }
            });
        }
        let asked = options.version.as_ref();
        let mut count = 0;
        let mut choice = Vec::with_capacity(all.len());
        for instance in all.iter() {
            if !asked.is_none_or(|asked| asked.admits(instance.version.as_deref())) {
                continue;
            }
            count += 1;
            let (address, liveness) = address(endpoint, instance);
            let was_tried = tried.iter().any(|other| other == address);
            choice.extend(
                Standing::of(liveness, was_tried).map(|standing| (standing, address, instance)),
            );
        }
        if count == 0 {
            return Err(none_compatible(service, asked, &all));
        }
        let best = choice.iter().map(|(standing, ..)| *standing).min();
        let Some(best) = best.filter(|best| *best < Standing::Tried || options.retries > 0) else {
            return Err(Error::NoneAlive { service: service.to_owned(), count });
        };
        choice.retain(|(standing, ..)| *standing == best);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let pending = |at: usize| endpoint.waiting(choice[at].1);
        let (_, address, chosen) = choice[options.balance.pick(choice.len(), turn, pending)];
        if asked.is_some() {
            self.saw(chosen.version.as_deref());
        }
        Ok(Chosen { address: address.to_owned(), version: chosen.version.clone() })
    }
}

/// Where an instance is called, and how that is: the faster way, unless that is closed to us (another user's folder,
/// another mount).
fn address<'a>(endpoint: &Endpoint, instance: &'a Instance) -> (&'a str, Liveness) {
    let local = instance.dial();
    let far = instance.endpoint.as_str();
    match endpoint.liveness(local) {
        Liveness::Refused if local != far => (far, endpoint.liveness(far)),
        liveness => (local, liveness),
    }
}

/// How well an instance can be called, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Alive,
    /// One that gave no sign when it was called last.
    Doubtful,
    /// One that refused a moment ago may be back: asking costs nothing, where there is no other.
    Refused,
    /// The same again is better than none, for a call that may be tried again.
    Tried,
}

impl Standing {
    /// `None`: not to be called.
    fn of(liveness: Liveness, was_tried: bool) -> Option<Self> {
        match (liveness, was_tried) {
            (Liveness::Unresponsive, _) | (Liveness::Refused, true) => None,
            (Liveness::Refused, false) => Some(Self::Refused),
            (_, true) => Some(Self::Tried),
            (Liveness::Doubtful, false) => Some(Self::Doubtful),
            (_, false) => Some(Self::Alive),
        }
    }
}

fn none_compatible(service: &str, asked: Option<&VersionRequest>, all: &[Instance]) -> Error {
    let mut versions: Vec<Option<Version>> = all
        .iter()
        .map(|one| one.version.as_deref().and_then(|text| Version::parse(text).ok()))
        .collect();
    versions.sort();
    versions.dedup();
    Error::NoneCompatible {
        service: service.to_owned(),
        asked: asked.map(ToString::to_string).unwrap_or_default(),
        available: versions
            .iter()
            .map(|version| version.as_ref().map_or("none", Version::as_str).to_owned())
            .collect(),
    }
}

//! The registry that a node keeps: inputs in, answers out; no sockets, no clock.
//!
//! An entry belongs to an **owner**, whose end is its end: the node names the run of an instance that it started (told by its token), or the
//! connection of a stranger. Every change of a service gives it a new version. A watch names the versions that its
//! asker has seen and is answered as soon as one of them is another: nothing that happens between two watches is missed.
//!
//! The messages are those of interface `registry` on the node's control endpoint.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Instance;

/// The interface's name on the node's control endpoint.
pub const INTERFACE: &str = "registry";

/// How long a node holds a watch before it answers that nothing has changed, in seconds.
pub const WATCH_HOLD: u64 = 30;

/// Entries that one owner may have: names times versions of one container.
pub const MAX_OF_OWNER: usize = 1000;

/// Entries in all.
pub const MAX_ENTRIES: usize = 100_000;

/// The largest instance, in bytes of its JSON; lymph's have some 400.
pub const MAX_INSTANCE: usize = 16 << 10;

/// Services that one watch may name.
pub const MAX_WATCHED: usize = 10_000;

/// The longest name of a service, in bytes.
pub const MAX_NAME: usize = 255;

/// `registry.register`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// The service's name.
    pub service: String,
    /// The instance; the `id` must not be empty.
    pub instance: Instance,
    /// The run's token (`HILUM_TOKEN`); without one the entry belongs to the connection.
    #[serde(default)]
    pub token: Option<String>,
}

/// `registry.unregister`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unregister {
    /// The service's name.
    pub service: String,
    /// The instance's id.
    pub id: String,
}

/// `registry.lookup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupService {
    /// The service's name.
    pub service: String,
}

/// `registry.watch`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The services, each with the version that the asker has seen; any other number asks for an answer at once.
    pub services: BTreeMap<String, u64>,
}

/// A service: the answer of `registry.lookup`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Another one after each change; 0 = nobody has entered it.
    pub version: u64,
    /// Its instances, by id.
    pub instances: Vec<Instance>,
}

/// Services by name: the answer of `registry.watch` (those that changed) and of `registry.discover` (all).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Views {
    /// By name.
    pub services: BTreeMap<String, View>,
}

/// Why an entry is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Empty, too long, or with a control character.
    #[error("`{0}` cannot be the name of a service")]
    Name(String),
    /// An instance needs both.
    #[error("an instance needs an `id` and an `endpoint`")]
    Incomplete,
    /// See [`MAX_OF_OWNER`].
    #[error("more than {MAX_OF_OWNER} entries of one process")]
    TooMany,
    /// See [`MAX_ENTRIES`].
    #[error("the registry is full: {MAX_ENTRIES} entries")]
    Full,
    /// See [`MAX_INSTANCE`].
    #[error("an instance of {0} bytes is too large: at most {MAX_INSTANCE}")]
    TooLarge(usize),
}

/// An answer to a watch that waited.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Which watch.
    pub ticket: u64,
    /// What changed.
    pub views: Views,
}

/// Who offers what.
#[derive(Debug, Default)]
pub struct Directory {
    services: BTreeMap<String, Service>,
    of_owner: BTreeMap<String, BTreeSet<(String, String)>>,
    /// Owners who cannot answer for the moment: what they have entered stands, and is not found.
    withheld: BTreeSet<String>,
    watches: BTreeMap<u64, Waiting>,
    version: u64,
    /// All entries.
    count: usize,
}

#[derive(Debug, Default)]
struct Service {
    version: u64,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    owner: String,
    instance: Instance,
}

#[derive(Debug)]
struct Waiting {
    owner: String,
    services: BTreeMap<String, u64>,
}

impl Directory {
    /// An empty directory. `epoch` is where versions begin: another one in each life of a node, so that nobody takes this
    /// one's versions for those that an earlier node gave.
    pub fn new(epoch: u64) -> Self {
        Self { version: epoch, ..Self::default() }
    }

    /// Enters an instance, in place of one with the same id, whoever had entered that.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn register(
        &mut self,
        owner: &str,
        service: &str,
        instance: Instance,
    ) -> Result<Vec<Answer>, Refusal> {
        if service.is_empty() || service.len() > MAX_NAME || service.chars().any(char::is_control) {
            return Err(Refusal::Name(service.chars().take(80).collect()));
        }
        if instance.id.is_empty() || instance.endpoint.is_empty() {
            return Err(Refusal::Incomplete);
        }
        let size = instance.to_json().len();
        if size > MAX_INSTANCE {
            return Err(Refusal::TooLarge(size));
        }
        let key = (service.to_owned(), instance.id.clone());
        let known = self.entry(&key).is_some();
        let owned = self.of_owner.get(owner);
        if owned.is_some_and(|owned| owned.len() >= MAX_OF_OWNER && !owned.contains(&key)) {
            return Err(Refusal::TooMany);
        }
        if !known && self.count >= MAX_ENTRIES {
            return Err(Refusal::Full);
        }
        self.count += usize::from(!known);
        self.of_owner.entry(owner.to_owned()).or_default().insert(key.clone());
        let entries = &mut self.services.entry(service.to_owned()).or_default().entries;
        let entry = Entry { owner: owner.to_owned(), instance };
        match entries.insert(key.1.clone(), entry) {
            Some(before) if before.owner != owner => {
                let unchanged = entries[&key.1].instance == before.instance;
                self.disown(&before.owner, &key);
                if unchanged {
                    return Ok(Vec::new());
                }
            }
            Some(before) if entries[&key.1].instance == before.instance => return Ok(Vec::new()),
            _ => {}
        }
        Ok(self.changed(&[service]))
    }

    /// Takes an instance out; one that is not there changes nothing.
    pub fn unregister(&mut self, service: &str, id: &str) -> Vec<Answer> {
        let entry = self.services.get_mut(service).and_then(|found| found.entries.remove(id));
        let Some(entry) = entry else { return Vec::new() };
        self.count -= 1;
        self.disown(&entry.owner, &(service.to_owned(), id.to_owned()));
        self.changed(&[service])
    }

    /// An owner has ended: its entries and its watches go with it.
    pub fn gone(&mut self, owner: &str) -> Vec<Answer> {
        self.watches.retain(|_, waiting| waiting.owner != owner);
        self.withheld.remove(owner);
        let mut services = BTreeSet::new();
        for (service, id) in self.of_owner.remove(owner).unwrap_or_default() {
            if let Some(found) = self.services.get_mut(&service) {
                found.entries.remove(&id);
                self.count -= 1;
                services.insert(service);
            }
        }
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        self.changed(&services)
    }

    /// An owner cannot answer for the moment, or can again.
    pub fn withhold(&mut self, owner: &str, withheld: bool) -> Vec<Answer> {
        let news = if withheld {
            self.withheld.insert(owner.to_owned())
        } else {
            self.withheld.remove(owner)
        };
        if !news {
            return Vec::new();
        }
        let owned = self.of_owner.get(owner).into_iter().flatten();
        let services: BTreeSet<String> = owned.map(|(service, _)| service.clone()).collect();
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        self.changed(&services)
    }

    /// A service as it is.
    pub fn lookup(&self, service: &str) -> View {
        let Some(found) = self.services.get(service) else { return View::default() };
        let there = found.entries.values().filter(|entry| !self.withheld.contains(&entry.owner));
        let instances = there.map(|entry| entry.instance.clone()).collect();
        View { version: found.version, instances }
    }

    /// Every service that has an instance.
    pub fn discover(&self) -> Views {
        let view = |name: &String| (name.clone(), self.lookup(name));
        let views = self.services.keys().map(view).filter(|(_, view)| !view.instances.is_empty());
        Views { services: views.collect() }
    }

    /// A watch: answered at once where a version is another than was seen, else later, or by [`Directory::expire`]. An earlier watch of
    /// the same owner is answered with what it knows already.
    pub fn watch(&mut self, ticket: u64, owner: &str, watch: Watch) -> Vec<Answer> {
        let before: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, waiting)| waiting.owner == owner)
            .map(|(ticket, _)| *ticket)
            .collect();
        let mut answers: Vec<Answer> =
            before.into_iter().filter_map(|ticket| self.expire(ticket)).collect();
        let waiting = Waiting { owner: owner.to_owned(), services: watch.services };
        match self.news(&waiting) {
            Some(views) => answers.push(Answer { ticket, views }),
            None => drop(self.watches.insert(ticket, waiting)),
        }
        answers
    }

    /// A watch has waited long enough, or its asker does not wait any longer.
    pub fn expire(&mut self, ticket: u64) -> Option<Answer> {
        self.watches.remove(&ticket)?;
        Some(Answer { ticket, views: Views::default() })
    }

    /// The entries of an owner, with the services' names.
    pub fn of_owner(&self, owner: &str) -> impl Iterator<Item = (&str, &Instance)> {
        let keys = self.of_owner.get(owner).into_iter().flatten();
        keys.filter_map(|key| Some((key.0.as_str(), &self.entry(key)?.instance)))
    }

    /// Those who have entries.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.of_owner.keys().map(String::as_str)
    }

    fn entry(&self, (service, id): &(String, String)) -> Option<&Entry> {
        self.services.get(service)?.entries.get(id)
    }

    /// What a watch has not seen.
    fn news(&self, waiting: &Waiting) -> Option<Views> {
        let version = |name: &str| self.services.get(name).map_or(0, |found| found.version);
        let services: BTreeMap<String, View> = waiting
            .services
            .iter()
            .filter(|(name, seen)| version(name) != **seen)
            .map(|(name, _)| (name.clone(), self.lookup(name)))
            .collect();
        (!services.is_empty()).then_some(Views { services })
    }

    fn disown(&mut self, owner: &str, key: &(String, String)) {
        if let Some(owned) = self.of_owner.get_mut(owner) {
            owned.remove(key);
            if owned.is_empty() {
                self.of_owner.remove(owner);
            }
        }
    }

    /// Gives services their next version, and answers who waits for them.
    fn changed(&mut self, services: &[&str]) -> Vec<Answer> {
        for service in services {
            self.version += 1;
            if let Some(found) = self.services.get_mut(*service) {
                found.version = self.version;
                if found.entries.is_empty() {
                    self.services.remove(*service);
                }
            }
        }
        let mut answers = Vec::new();
        for (ticket, waiting) in &self.watches {
            if let Some(views) = self.news(waiting) {
                answers.push(Answer { ticket: *ticket, views });
            }
        }
        for answer in &answers {
            self.watches.remove(&answer.ticket);
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instance(port: u16) -> Instance {
        Instance::new("echo", &format!("tcp://127.0.0.1:{port}"), None)
    }

    fn watch(services: &[(&str, u64)]) -> Watch {
        Watch {
            services: services.iter().map(|(name, seen)| ((*name).to_owned(), *seen)).collect(),
        }
    }

    #[test]
    fn an_entry_ends_with_its_owner() {
        let mut directory = Directory::new(100);
        directory.register("echo.1#1", "echo", instance(1)).unwrap();
        directory.register("echo.2#1", "echo", instance(2)).unwrap();
        assert_eq!(directory.lookup("echo").instances.len(), 2);
        directory.gone("echo.1#1");
        assert_eq!(directory.lookup("echo").instances, [instance(2)]);
        directory.gone("echo.2#1");
        assert_eq!(directory.lookup("echo"), View::default());
        assert!(directory.discover().services.is_empty());
    }

    #[test]
    fn who_cannot_answer_is_not_found_until_it_can() {
        let mut directory = Directory::new(0);
        directory.register("echo.1#1", "echo", instance(1)).unwrap();
        directory.register("echo.2#1", "echo", instance(2)).unwrap();
        let seen = directory.lookup("echo").version;
        directory.watch(7, "x", watch(&[("echo", seen)]));
        let answers = directory.withhold("echo.1#1", true);
        assert_eq!(answers[0].views.services["echo"].instances, [instance(2)]);
        assert!(directory.withhold("echo.1#1", true).is_empty(), "no news");
        directory.withhold("echo.2#1", true);
        assert!(directory.discover().services.is_empty());
        assert_eq!(directory.owners().count(), 2, "what they entered stands");
        directory.withhold("echo.1#1", false);
        assert_eq!(directory.lookup("echo").instances, [instance(1)]);
        directory.gone("echo.2#1");
        directory.register("echo.2#1", "echo", instance(2)).unwrap();
        assert_eq!(directory.lookup("echo").instances.len(), 2);
    }

    #[test]
    fn the_next_run_takes_over_and_the_end_of_the_last_one_does_not_touch_it() {
        let mut directory = Directory::new(0);
        directory.register("echo.1#1", "echo", instance(1)).unwrap();
        directory.register("echo.1#2", "echo", instance(1)).unwrap();
        assert!(directory.gone("echo.1#1").is_empty());
        assert_eq!(directory.lookup("echo").instances, [instance(1)]);
    }

    #[test]
    fn a_watch_is_answered_when_something_it_has_not_seen_happens() {
        let mut directory = Directory::new(0);
        directory.register("a", "echo", instance(1)).unwrap();
        let seen = directory.lookup("echo").version;
        assert!(directory.watch(1, "w", watch(&[("echo", seen), ("other", 0)])).is_empty());
        assert!(directory.register("a", "third", instance(3)).unwrap().is_empty());
        assert!(directory.register("a", "echo", instance(1)).unwrap().is_empty(), "nothing new");
        let answers = directory.register("b", "other", instance(2)).unwrap();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].ticket, 1);
        assert_eq!(answers[0].views.services.keys().collect::<Vec<_>>(), ["other"]);
        // What happened between two watches is told at once.
        let other = directory.lookup("other").version;
        directory.unregister("echo", &instance(1).id);
        let answers = directory.watch(2, "w", watch(&[("echo", seen), ("other", other)]));
        assert_eq!(answers[0].views.services["echo"], View::default());
    }

    #[test]
    fn an_owner_has_one_watch() {
        let mut directory = Directory::new(0);
        assert!(directory.watch(1, "w", watch(&[("a", 0)])).is_empty());
        let answers = directory.watch(2, "w", watch(&[("a", 0), ("b", 0)]));
        assert_eq!(answers, [Answer { ticket: 1, views: Views::default() }]);
        assert_eq!(directory.expire(1), None);
        assert!(directory.expire(2).is_some());
        directory.watch(3, "w", watch(&[("a", 0)]));
        directory.gone("w");
        assert!(directory.register("x", "a", instance(1)).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_an_entry_is_refused() {
        let mut directory = Directory::new(0);
        for name in ["", "a\nb", &"x".repeat(MAX_NAME + 1)] {
            assert!(matches!(directory.register("o", name, instance(1)), Err(Refusal::Name(_))));
        }
        assert_eq!(directory.register("o", "a", Instance::default()), Err(Refusal::Incomplete));
        for port in 0..MAX_OF_OWNER as u16 {
            directory.register("o", "a", instance(port)).unwrap();
        }
        assert_eq!(directory.register("o", "a", instance(2000)), Err(Refusal::TooMany));
        assert_eq!(directory.register("o", "a", instance(7)), Ok(Vec::new()), "known already");
        let mut large = instance(3000);
        large.more.insert("x".into(), "y".repeat(MAX_INSTANCE).into());
        assert!(matches!(directory.register("p", "a", large), Err(Refusal::TooLarge(_))));
        assert!(directory.of_owner("p").next().is_none(), "what is refused leaves nothing");
        directory.register("p", "a", instance(2000)).unwrap();
    }

    proptest! {
        /// Whoever watches again and again knows in the end what is there.
        #[test]
        fn a_watcher_never_misses_the_last_word(steps in proptest::collection::vec((0..4_u8, 0..3_u8, 0..3_u16), 0..60)) {
            let mut directory = Directory::new(7);
            let mut known: BTreeMap<String, View> = BTreeMap::new();
            let mut ticket = 0;
            let names = ["a", "b"];
            let take = |known: &mut BTreeMap<String, View>, answers: Vec<Answer>, ticket: u64| {
                let mut answered = false;
                for answer in answers {
                    answered |= answer.ticket == ticket;
                    known.extend(answer.views.services);
                }
                answered
            };
            let mut waits = false;
            for (what, owner, port) in steps {
                if !waits {
                    ticket += 1;
                    let services = names.iter()
                        .map(|name| ((*name).to_owned(), known.get(*name).map_or(u64::MAX, |view| view.version)))
                        .collect();
                    let answers = directory.watch(ticket, "w", Watch { services });
                    waits = !take(&mut known, answers, ticket);
                }
                let (owner, service) = (format!("o{owner}"), names[usize::from(port % 2)]);
                let answers = match what {
                    0 | 1 => directory.register(&owner, service, instance(port)).unwrap(),
                    2 => directory.unregister(service, &instance(port).id),
                    _ => directory.gone(&owner),
                };
                if take(&mut known, answers, ticket) {
                    waits = false;
                }
                let listed: usize = directory.discover().services.values().map(|view| view.instances.len()).sum();
                let owned: usize = directory.owners().map(|owner| directory.of_owner(owner).count()).sum();
                prop_assert_eq!((listed, owned), (directory.count, directory.count));
                if waits {
                    for name in names {
                        prop_assert_eq!(known.get(name).cloned().unwrap_or_default(), directory.lookup(name));
                    }
                }
            }
        }
    }
}

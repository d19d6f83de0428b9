//! The node's registry: whose entries are taken, and when they end.
//!
//! An entry made with a run's token belongs to the run. It is taken while the run is up, and gone the moment the run has ended, is told to
//! stop, or is given up as silent: a service that is about to leave gets no new calls. While it is paused it is not found. All others belong to the connection
//! over which they came. [`Directory`] keeps them.

use std::collections::VecDeque;
use std::time::Duration;

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::registry::directory::{Answer, Directory, MAX_WATCHED, WATCH_HOLD};

use super::Supervisor;
use super::request::fault;
use crate::core::action::{Action, Reply};
use crate::core::input::{Entry, Owner, RequestId};
use crate::core::output::Output;
use crate::core::time::Now;

/// The directory and those who wait for news of it.
#[derive(Debug)]
pub(super) struct Registry {
    directory: Directory,
    /// Watches and when they are answered at last; all are held equally long, so the oldest is the first.
    held: VecDeque<(super::Moment, RequestId)>,
}

impl Registry {
    /// Empty. Versions begin at `epoch`; see [`Directory::new`].
    pub(super) fn new(epoch: u64) -> Self {
        Self { directory: Directory::new(epoch), held: VecDeque::new() }
    }

    /// When the oldest watch is answered at the latest.
    pub(super) fn deadline(&self) -> Option<super::Moment> {
        self.held.front().map(|(at, _)| *at)
    }

    fn answer(&mut self, answers: Vec<Answer>, out: &mut Output) {
        for Answer { ticket, views } in answers {
            let id = RequestId(ticket);
            self.held.retain(|(_, other)| *other != id);
            out.action(Action::Reply { id, reply: Reply::Views(views) });
        }
    }

    /// An owner has ended.
    pub(super) fn gone(&mut self, owner: &Owner, out: &mut Output) {
        let answers = self.directory.gone(&owner.key());
        self.answer(answers, out);
    }

    /// An owner cannot answer for the moment, or can again.
    pub(super) fn withhold(&mut self, owner: &Owner, withheld: bool, out: &mut Output) {
        let answers = self.directory.withhold(&owner.key(), withheld);
        self.answer(answers, out);
    }
}

impl Supervisor {
    /// Somebody asks the registry.
    pub(super) fn entry(&mut self, id: RequestId, owner: &Owner, entry: Entry, now: Now) {
        let out = &mut self.out;
        let directory = &mut self.registry.directory;
        let result = match entry {
            Entry::Register { service, instance } => {
                if let Owner::Run(who, run) = owner
                    && !self.services.get(&who.service).is_some_and(|service| {
                        service
                            .instances
                            .get(&who.index)
                            .is_some_and(|it| it.offers() == Some(*run))
                    })
                {
                    let message = format!("{who} is on its way out, or this run of it has ended");
                    let reply = Reply::Fault(fault("refused", message, None));
                    return out.action(Action::Reply { id, reply });
                }
                directory
                    .register(&owner.key(), &service, *instance)
                    .map(|answers| (answers, Reply::Nothing))
                    .map_err(|refusal| refusal.to_string())
            }
            Entry::Unregister { service, id } => {
                Ok((directory.unregister(&service, &id), Reply::Nothing))
            }
            Entry::Lookup { service } => Ok((Vec::new(), Reply::View(directory.lookup(&service)))),
            Entry::Discover => Ok((Vec::new(), Reply::Views(directory.discover()))),
            Entry::Watch(watch) => {
                if watch.services.len() <= MAX_WATCHED {
                    self.registry.held.push_back((now.mono + HOLD, id));
                    let answers = directory.watch(id.0, &owner.key(), watch);
                    return self.registry.answer(answers, out);
                }
                Err(format!("a watch names at most {MAX_WATCHED} services"))
            }
        };
        let reply = match result {
            Ok((answers, reply)) => {
                self.registry.answer(answers, out);
                reply
            }
            Err(message) => Reply::Fault(fault("refused", message, None)),
        };
        if *owner != Owner::Node {
            out.action(Action::Reply { id, reply });
        }
        self.offered(now);
    }

    /// Somebody who had entries is gone.
    pub(super) fn departed(&mut self, owner: &Owner, now: Now) {
        self.registry.gone(owner, &mut self.out);
        self.offered(now);
    }

    /// The client of a watch is gone.
    pub(super) fn unwatch(&mut self, id: RequestId) {
        if self.registry.directory.expire(id.0).is_some() {
            self.registry.held.retain(|(_, other)| *other != id);
        }
    }

    /// Answers the watches that were held long enough.
    pub(super) fn expire_watches(&mut self, now: Now) {
        while let Some((_, id)) = self.registry.held.pop_front_if(|(at, _)| *at <= now.mono) {
            let answers = self.registry.directory.expire(id.0);
            self.registry.answer(answers.into_iter().collect(), &mut self.out);
        }
    }

    /// Where a run is called, by what it has registered.
    pub fn address(&self, id: &InstanceId, run: Run) -> Option<&str> {
        let owner = Owner::Run(id.clone(), run).key();
        let mut entries = self.registry.directory.of_owner(&owner);
        entries.next().map(|(_, instance)| instance.dial())
    }

    /// Tells instances whose readiness depends on it what they have registered now.
    pub(super) fn offered(&mut self, now: Now) {
        let concerned: Vec<InstanceId> = self
            .services
            .values()
            .filter(|service| service.spec.policy.needs_registry())
            .flat_map(|service| service.instances.values())
            .filter(|instance| instance.offers().is_some())
            .map(|instance| instance.id.clone())
            .collect();
        for id in concerned {
            let Some(instance) = self.instance(&id) else { continue };
            let owner = Owner::Run(id.clone(), instance.run).key();
            let names: Vec<String> =
                self.registry.directory.of_owner(&owner).map(|(name, _)| name.to_owned()).collect();
            self.with(&id, |instance, out| instance.offered(&names, now.mono, out));
        }
    }

    /// The runs that have entries.
    #[cfg(test)]
    pub(in crate::core) fn registered(&self) -> Vec<String> {
        self.registry.directory.owners().map(str::to_owned).collect()
    }
}

/// How long a watch is held.
const HOLD: Duration = Duration::from_secs(WATCH_HOLD);

//! What an operator asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hilum_shared::config::spec::Dependency;
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::control::{
    Accepted, Await, AwaitState, Change, Fault, Outcome, Targets,
};
use hilum_shared::signal::Signal;

use super::stop::Order;
use super::vain::Vain;
use super::{Options, Supervisor};
use crate::core::action::{Action, Reply, Scope};
use crate::core::event::EventKind;
use crate::core::input::{Request, RequestId};
use crate::core::instance::{Instance, Phase, Want};
use crate::core::operation::{Awaiting, Expect, Items, Waiting};
use crate::core::service::{Service, meets};
use crate::core::target;
use crate::core::time::Now;

/// The result of a signal to what does not run.
const NOT_SENT: &str = "not sent: it does not run";

impl Supervisor {
    pub(super) fn request(&mut self, id: RequestId, request: Request, now: Now) {
        let answer = match request {
            Request::Start(targets) => self.start(&targets, now).map(Reply::Accepted),
            Request::Stop(targets) => self.stop(&targets, now).map(Reply::Accepted),
            Request::Restart { targets, fresh, note } => {
                if let Some(fresh) = fresh {
                    self.refresh(&targets, &fresh);
                }
                self.restart(&targets, now).map(|mut accepted| {
                    accepted.notes.extend(note);
                    Reply::Accepted(accepted)
                })
            }
            Request::Scale(scale) => self.scale(&scale, now).map(Reply::Accepted),
            Request::Signal { targets, signal } => {
                self.signal(&targets, signal).map(Reply::Accepted)
            }
            Request::AbortOnFailure => {
                self.abort_on_failure(now);
                Ok(Reply::Nothing)
            }
            Request::Shutdown { grace, reason } => {
                Ok(Reply::Accepted(self.shutdown(grace, &reason, now)))
            }
            Request::Wait(wait) => match self.operations.wait(wait.operation, id) {
                Waiting::Done(outcome) => Ok(Reply::Outcome(outcome)),
                Waiting::Later => return,
                Waiting::Unknown => Err(fault(
                    "unknown-operation",
                    format!("operation {} is not known", wait.operation),
                    None,
                )),
            },
            Request::Await(what) => match self.await_state(id, &what) {
                Ok(()) => return self.check_awaiting(None),
                Err(fault) => Err(fault),
            },
            Request::Cancel(call) => {
                self.operations.cancel(call);
                self.unwatch(call);
                self.awaiting.retain(|awaiting| awaiting.request != call);
                return;
            }
        };
        let reply = answer.unwrap_or_else(Reply::Fault);
        self.out.action(Action::Reply { id, reply });
    }

    /// The instances that `patterns` mean; none = all.
    fn resolve(&self, patterns: &[String]) -> Result<Vec<InstanceId>, Fault> {
        let mut found: Vec<InstanceId> = Vec::new();
        if patterns.is_empty() {
            return Ok(self.instances().filter(|i| !i.dropping).map(|i| i.id.clone()).collect());
        }
        let mut seen = BTreeSet::new();
        for pattern in patterns {
            let mut any = self.services.contains_key(pattern.as_str());
            for instance in self.instances() {
                let id = &instance.id;
                if target::matches(pattern, id.service.as_str(), id.index) {
                    any = true;
                    if seen.insert(id.clone()) {
                        found.push(id.clone());
                    }
                }
            }
            if !any {
                return Err(self.unknown(pattern));
            }
        }
        Ok(found)
    }

    /// The same without those on their way out for good: they are not called back by a name.
    fn resolve_staying(&self, patterns: &[String]) -> Result<Vec<InstanceId>, Fault> {
        let mut ids = self.resolve(patterns)?;
        ids.retain(|id| self.instance(id).is_some_and(|instance| !instance.dropping));
        Ok(ids)
    }

    pub(super) fn unknown(&self, pattern: &str) -> Fault {
        let near: Vec<&str> = target::nearest(
            pattern.split('.').next().unwrap_or(pattern),
            self.services.keys().map(ServiceName::as_str),
        );
        let help = if near.is_empty() {
            let names: Vec<&str> = self.services.keys().map(ServiceName::as_str).take(20).collect();
            format!("services here: {}", names.join(", "))
        } else {
            format!(
                "did you mean {}?",
                near.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
            )
        };
        fault("unknown-target", format!("no service or instance `{pattern}`"), Some(help))
    }

    /// Starts `ids`; what they need too, unless told otherwise.
    fn start(&mut self, targets: &Targets, now: Now) -> Result<Accepted, Fault> {
        self.refuse_while_stopping()?;
        let named = !targets.targets.is_empty();
        let mut ids = self.resolve_staying(&targets.targets)?;
        if !named {
            let options = &self.options;
            // what is wanted is on its way by itself
            let idle = |i: &Instance| i.want == Want::Down || i.phase == Phase::Failed;
            ids.retain(|id| {
                self.services.get(&id.service).is_some_and(|service| enabled(service, options))
                    && self.instance(id).is_some_and(|i| i.phase != Phase::Completed && idle(i))
            });
        }
        let asked: BTreeSet<ServiceName> = ids.iter().map(|id| id.service.clone()).collect();
        let notes = self.start_without_processes(targets);
        let mut all = ids.clone();
        if targets.deps {
            let needed = self.graph.with_dependencies(asked.iter().cloned());
            for name in needed.difference(&asked) {
                let Some(service) = self.services.get(name) else { continue };
                let down = |i: &&Instance| !i.dropping && !i.is_up() && i.phase != Phase::Completed;
                all.extend(service.instances.values().filter(down).map(|i| i.id.clone()));
            }
        }
        self.set_want(&all, Want::Up);
        // A scheduled job that was not named waits for its time.
        for name in asked.iter().filter(|_| named) {
            if let Some(service) = self.services.get_mut(name)
                && service.spec.policy.schedule.is_some()
            {
                service.due = true;
            }
        }
        let mut items = Items::new();
        for id in all {
            self.wave.remove(&id);
            let Some(instance) = self.instance(&id) else { continue };
            let instance_is_up = instance.is_up();
            let expect = if instance.ready() && instance.want == Want::Up {
                Err("unchanged")
            } else if instance.is_up() {
                Ok(Expect::UpAfter(Run(instance.run.0.saturating_sub(1))))
            } else {
                Ok(Expect::UpAfter(instance.run))
            };
            let deps = targets.deps;
            let later = self.waits_for_a_time(&id.service, now, deps) && !instance_is_up;
            let expect = if later { Err("scheduled") } else { expect };
            self.with(&id, |instance, out| {
                instance.ignore_deps = !deps;
                instance.want_up(now.mono, out);
            });
            items.push((id, "start", expect));
        }
        Ok(self.operations.begin(items, notes))
    }

    /// A service without processes is started, too: those that it is scaled to come up. The answer is what to tell
    /// whoever asked for it by name.
    fn start_without_processes(&mut self, targets: &Targets) -> Vec<String> {
        let notes = self.without_processes(&targets.targets, ": scale it");
        for service in self.services.values_mut().filter(|service| service.instances.is_empty()) {
            let name = service.spec.name.as_str();
            let named = targets.targets.iter().any(|pattern| target::matches(pattern, name, 1));
            if named || (targets.targets.is_empty() && enabled(service, &self.options)) {
                service.want = Want::Up;
            }
        }
        notes
    }

    /// What to tell whoever names services that have nobody to be told.
    fn without_processes(&self, patterns: &[String], advice: &str) -> Vec<String> {
        let empty = self.services.values().filter(|service| service.instances.is_empty());
        let names = empty.map(|service| service.spec.name.as_str());
        let named = |name: &&str| patterns.iter().any(|one| target::matches(one, name, 1));
        names.filter(named).map(|name| format!("`{name}` has no processes{advice}")).collect()
    }

    /// Remembers what a whole service is wanted to be, for instances that come later.
    fn set_want(&mut self, ids: &[InstanceId], want: Want) {
        let mut meant: BTreeMap<&ServiceName, BTreeSet<u32>> = BTreeMap::new();
        for id in ids {
            meant.entry(&id.service).or_default().insert(id.index);
        }
        for (name, indexes) in meant {
            let Some(service) = self.services.get_mut(name) else { continue };
            let whole = service.instances.keys().all(|index| indexes.contains(index));
            if whole || want == Want::Up {
                service.want = want;
            }
        }
    }

    fn stop(&mut self, targets: &Targets, now: Now) -> Result<Accepted, Fault> {
        let ids = self.resolve(&targets.targets)?;
        let grace = grace(targets.grace);
        self.set_want(&ids, Want::Down);
        let names: BTreeSet<ServiceName> = ids.iter().map(|id| id.service.clone()).collect();
        let names: Vec<ServiceName> = names.into_iter().collect();
        let dependents = self.running_dependents(&names);
        let mut notes = self.without_processes(&targets.targets, "");
        if !dependents.is_empty() {
            let list: Vec<&str> = dependents.iter().map(ServiceName::as_str).collect();
            notes.push(format!("still running, though they depend on it: {}", list.join(", ")));
        }
        let mut items = Items::new();
        for id in ids {
            let Some(instance) = self.instance(&id) else { continue };
            // What another's failure stopped would come back with that one.
            let rests = instance.phase == Phase::Down
                && instance.want == Want::Down
                && instance.stopped_for.is_none();
            items.push((
                id.clone(),
                "stop",
                if rests { Err("unchanged") } else { Ok(Expect::Down) },
            ));
            if !rests {
                self.end_later(&id, Order::stop("stopped by hand", grace));
            }
        }
        let accepted = self.operations.begin(items, notes);
        self.release_wave(now);
        Ok(accepted)
    }

    fn restart(&mut self, targets: &Targets, now: Now) -> Result<Accepted, Fault> {
        self.refuse_while_stopping()?;
        let ids = self.resolve_staying(&targets.targets)?;
        let notes = self.start_without_processes(targets);
        self.set_want(&ids, Want::Up);
        let mut items = Items::new();
        let mut by_service: Vec<(ServiceName, Vec<InstanceId>)> = Vec::new();
        for id in ids {
            let Some(instance) = self.instance(&id) else { continue };
            items.push((id.clone(), "restart", Ok(Expect::UpAfter(instance.run))));
            if let Some(service) = self.services.get_mut(&id.service) {
                service.due = true;
            }
            match by_service.last_mut() {
                Some((name, list)) if *name == id.service => list.push(id),
                _ => by_service.push((id.service.clone(), vec![id])),
            }
        }
        let accepted = self.operations.begin(items, notes);
        for (name, ids) in by_service {
            if targets.rolling {
                self.roll(&name, ids, Vec::new(), "restarted by hand", None, now);
            } else {
                for id in ids {
                    self.leave_roll(&id);
                    self.end_later(&id, Order::restart("restarted by hand", grace(targets.grace)));
                }
            }
        }
        self.release_wave(now);
        Ok(accepted)
    }

    /// What is waited for of an instance that is new: nobody waits for a schedule's time.
    pub(super) fn expect_of_new(
        &self,
        name: &ServiceName,
        want: Want,
        run: Run,
        now: Now,
    ) -> Result<Expect, &'static str> {
        match want {
            Want::Down => Err("stopped"),
            Want::Up if self.waits_for_a_time(name, now, true) => Err("scheduled"),
            Want::Up => Ok(Expect::UpAfter(run)),
        }
    }

    /// Whether what a service starts next waits for a schedule's time: its own, or with `deps` that of one that it needs.
    pub(super) fn waits_for_a_time(&self, name: &ServiceName, now: Now, deps: bool) -> bool {
        let Some(service) = self.services.get(name) else { return false };
        let due = service.due || service.fires_at.is_some_and(|at| at <= now.mono);
        let own = service.spec.policy.schedule.is_some() && !due;
        // No service needs itself: a configuration with a circle is refused.
        let needs = |dependency: &Dependency| {
            let met = |other: &Service| {
                other.quorum(dependency, |instance| meets(instance, dependency.condition))
            };
            self.services.get(&dependency.service).is_some_and(|other| !met(other))
                && self.waits_for_a_time(&dependency.service, now, deps)
        };
        own || deps && service.spec.policy.depends_on.iter().any(needs)
    }

    fn signal(&mut self, patterns: &[String], signal: Signal) -> Result<Accepted, Fault> {
        if patterns.is_empty() {
            return Err(fault("usage", "say whom to send the signal to".into(), None));
        }
        let mut items = Items::new();
        for id in self.resolve(patterns)? {
            let Some(instance) =
                self.services.get_mut(&id.service).and_then(|s| s.instances.get_mut(&id.index))
            else {
                continue;
            };
            let Some(life) = instance.life.as_mut().filter(|life| life.pid.is_some()) else {
                items.push((id, "signal", Err(NOT_SENT)));
                continue;
            };
            life.signalled = Some(signal);
            let run = instance.run;
            self.out.event(instance, EventKind::Signalled(signal.name()));
            self.out.action(Action::Signal {
                instance: id.clone(),
                run,
                signal,
                scope: Scope::Leader,
            });
            items.push((id, "signal", Err("sent")));
        }
        let notes = self.without_processes(patterns, "");
        Ok(self.operations.begin(items, notes))
    }

    fn shutdown(&mut self, grace: Option<Duration>, reason: &str, now: Now) -> Accepted {
        let reason = if reason.is_empty() { "stopped by hand" } else { reason };
        let items = self
            .instances()
            .filter(|i| !i.at_rest())
            .map(|i| (i.id.clone(), "stop", Ok(Expect::Down)))
            .collect();
        let accepted = self.operations.begin(items, Vec::new());
        self.shut_down(reason, grace, 0, now);
        accepted
    }

    pub(super) fn refuse_while_stopping(&self) -> Result<(), Fault> {
        if self.going.is_some() {
            let help = Some("wait until it is down, then `up`".to_owned());
            return Err(fault("refused", "the node is on its way down".into(), help));
        }
        Ok(())
    }

    fn await_state(&mut self, request: RequestId, what: &Await) -> Result<(), Fault> {
        let mut ids = self.resolve(&what.targets)?;
        if what.targets.is_empty() && what.state != AwaitState::Stopped {
            // What nobody wants up will not come up.
            ids.retain(|id| self.instance(id).is_some_and(|i| i.want == Want::Up));
        }
        let instances = ids
            .into_iter()
            .filter_map(|id| {
                let instance = self.instance(&id)?;
                // Where nothing runs, the end of the next run is meant.
                let run = if instance.at_rest() { instance.run.next() } else { instance.run };
                Some((id, run))
            })
            .collect();
        self.awaiting.push(Awaiting { request, state: what.state, instances });
        Ok(())
    }

    pub(super) fn outcome_of(&self, awaiting: &Awaiting, ok: bool) -> Outcome {
        let mut vain = Vain::of(self);
        let changed = awaiting.instances.iter().filter_map(|(id, _)| {
            let instance = self.instance(id)?;
            Some(Change {
                instance: Some(id.clone()),
                action: "wait".into(),
                result: Some(instance.state_word().into()),
                reason: vain.why(instance).or_else(|| instance.reason.clone()),
            })
        });
        Outcome { changed: changed.collect(), survivors: Vec::new(), ok }
    }
}

/// Whether `up` starts it without being told by name.
fn enabled(service: &Service, options: &Options) -> bool {
    let policy = &service.spec.policy;
    policy.autostart
        && (policy.profiles.is_empty()
            || policy.profiles.iter().any(|profile| options.profiles.contains(profile)))
}

fn grace(seconds: Option<f64>) -> Option<Duration> {
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok())
}

pub(super) fn fault(code: &str, message: String, help: Option<String>) -> Fault {
    Fault { code: code.to_owned(), message, help }
}

/// Whether a service that comes with a new configuration is started.
pub(super) fn starts_by_itself(service: &Service, options: &Options) -> bool {
    enabled(service, options)
}

//! The simulated operating system: what actions do to its processes, and what they report.

use super::*;

impl World {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Spawn { instance, run, spec } => self.spawn(instance, run, &spec),
            Action::Signal { instance, run, signal, scope } => {
                self.signal((instance, run), signal, scope);
            }
            Action::SignalLeft { instance, run, .. } => {
                let process = self.processes.get_mut(&(instance, run)).expect("nothing was left");
                assert!(!process.leader, "the leader still lives");
                if !process.stubborn {
                    process.leftovers = 0;
                }
            }
            Action::Kill { instance, run } => {
                let key = (instance, run);
                let process = self.processes.get_mut(&key);
                let Some(process) = process else { return self.report(key, Report::Empty) };
                if process.deaf > 0 {
                    process.deaf -= 1;
                    return self.report(key, Report::Left { pids: vec![1], stuck: false });
                }
                process.leftovers = 0;
                if process.leader {
                    process.leader = false;
                    self.report(
                        key,
                        Report::Exited(Exit::Signal { signal: Signal::KILL, core: false }),
                    );
                } else {
                    self.report(key, Report::Empty);
                }
            }
            Action::Sweep { instance, run } => {
                let key = (instance, run);
                let empty = self.processes.get(&key).is_none_or(Process::empty);
                self.report(
                    key,
                    if empty {
                        Report::Empty
                    } else {
                        Report::Left { pids: vec![2], stuck: false }
                    },
                );
            }
            Action::Order { instance, run, order, .. } => {
                let key = (instance, run);
                if self.processes.get(&key).is_none_or(|process| !process.subscribed) {
                    return self.report(key, Report::Unheard);
                }
                let obeys =
                    matches!(order, OrderKind::Shutdown { .. }) && !self.processes[&key].stubborn;
                if obeys {
                    self.report(
                        key.clone(),
                        Report::Beat { state: WorkerState::Draining, status: None, told: SILENCE },
                    );
                    self.end(&key, Exit::Code(0));
                }
            }
            Action::Inspect { instance, run } => {
                let key = (instance, run);
                let pulse = match self.processes.get(&key) {
                    Some(process) if process.paused => Pulse::Stopped,
                    Some(process) if process.starved => Pulse::Starved,
                    _ => Pulse::Alive,
                };
                self.report(key, Report::Pulse(pulse));
            }
            Action::Hook { instance, run, point, .. } => {
                self.report((instance, run), Report::HookDone { point, result: Ok(()) });
            }
            Action::Forget { instance, run } => {
                if let Some(process) = self.processes.remove(&(instance, run)) {
                    assert!(process.empty(), "forgotten while it lives: {process:?}");
                }
            }
            Action::Exit(code) => {
                assert!(
                    self.processes.values().all(Process::empty),
                    "the node leaves processes behind"
                );
                self.exits.push(code);
            }
            Action::Reply { id, reply } => {
                assert!(self.open.remove(&id.0), "answered twice: {reply:?}");
                self.replies.insert(id.0, reply);
            }
            Action::Publish(event) => {
                let who = event.instance.map_or("*".into(), |id| id.to_string());
                self.events.push(format!("{who} {}", event.kind.name()));
                self.said = event.kind.text();
            }
            Action::StartProbe { .. }
            | Action::StopProbe { .. }
            | Action::Reserve(_)
            | Action::Drop { .. } => {}
            Action::RunWatchCommand { .. } => self.watch_commands += 1,
        }
    }

    fn spawn(&mut self, instance: InstanceId, run: Run, spec: &ServiceSpec) {
        let twin =
            self.processes.iter().find(|((id, _), process)| *id == instance && !process.empty());
        assert!(twin.is_none(), "two runs of {instance} at once");
        for dependency in spec
            .policy
            .depends_on
            .iter()
            .filter(|d| d.condition == Condition::Ready && d.quorum == Quorum::All)
        {
            let any_down = self.core.instances().any(|other| {
                other.id.service == dependency.service
                    && !other.dropping
                    && other.id.index <= self.count(&dependency.service)
                    && !self.is_ready(&other.id)
            });
            let forced = self.core.instance(&instance).is_some_and(|i| i.ignore_deps);
            assert!(
                forced || !any_down,
                "{instance} starts before {} is ready",
                dependency.service
            );
        }
        let key = (instance, run);
        match self.nature.spawn {
            1 => {
                let failure =
                    SpawnFailure { message: "EAGAIN".into(), class: FailureClass::Shortage };
                return self.report(key, Report::SpawnFailed(failure));
            }
            2 => {
                let failure =
                    SpawnFailure { message: "ENOENT".into(), class: FailureClass::Permanent };
                return self.report(key, Report::SpawnFailed(failure));
            }
            4 => {
                let failure = SpawnFailure {
                    message: "port 80 is held".into(),
                    class: FailureClass::Conflict,
                };
                return self.report(key, Report::SpawnFailed(failure));
            }
            _ => {}
        }
        let process = Process {
            leader: true,
            leftovers: self.nature.leftovers,
            stubborn: self.nature.stubborn,
            deaf: self.nature.deaf,
            ..Process::default()
        };
        self.processes.insert(key.clone(), process);
        self.report(key, Report::Spawned { pid: 7 });
    }

    fn count(&self, name: &hilum_shared::name::ServiceName) -> u32 {
        self.core.count(name.as_str())
    }

    fn is_ready(&self, id: &InstanceId) -> bool {
        self.processes.iter().any(|((other, _), process)| {
            other == id
                && process.leader
                && (process.ready || !self.ready_kinds.contains(id.service.as_str()))
        })
    }

    fn signal(&mut self, key: Key, signal: Signal, scope: Scope) {
        let spawn_failed = |input: &Input| {
            matches!(input, Input::Report { instance, run, report: Report::SpawnFailed(_) }
                if *instance == key.0 && *run == key.1)
        };
        let Some(process) = self.processes.get_mut(&key) else {
            assert!(self.pending.iter().any(spawn_failed), "a signal without a process");
            return;
        };
        match signal {
            Signal::STOP => process.paused = true,
            Signal::CONT => process.paused = false,
            Signal::TERM => {
                process.paused = false;
                if scope == Scope::Group && !process.stubborn {
                    process.leftovers = 0;
                }
                if !process.stubborn {
                    self.end(&key, Exit::Signal { signal, core: false });
                }
            }
            _ => {}
        }
    }

    pub(super) fn end(&mut self, key: &Key, exit: Exit) {
        if let Some(process) = self.processes.get_mut(key)
            && std::mem::take(&mut process.leader)
        {
            self.report(key.clone(), Report::Exited(exit));
        }
    }
}

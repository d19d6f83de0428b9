//! Actions of the core, carried out.

use std::time::Duration;

use hilum_shared::name::{InstanceId, Run};

use super::{Output, REMEMBERED, Runtime};
use crate::channels::shutdown::Heard;
use crate::core::action::{Action, Reply};
use crate::core::event::{Event, EventKind};
use crate::core::input::{Input, Report, RequestId};
use crate::log::handle::NodeRecord;

/// After a node that was stopped goes on, beats that came meanwhile reach the loop within this: they are heard before a
/// silent one is judged.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

impl Runtime {
    pub(super) fn apply(&mut self, action: Action) {
        match action {
            Action::Spawn { instance, run, spec } => {
                let report = match self.spawn(&instance, run, &spec) {
                    Ok(pid) => Report::Spawned { pid },
                    Err(failure) => {
                        self.parts.roster.forget(&instance, run);
                        Report::SpawnFailed(failure)
                    }
                };
                // A batch may follow before the core hears of it.
                let now = self.parts.clock.now();
                self.spawned.push_back((Input::Report { instance, run, report }, now));
            }
            Action::Signal { instance, run, signal, scope } => {
                if let Err(error) = self.parts.processes.signal(&instance, run, signal, scope) {
                    tracing::warn!(%instance, %run, %signal, %error, "signal not sent");
                }
            }
            Action::SignalLeft { instance, run, signal, pids } => {
                self.parts.processes.signal_left(&instance, run, signal, &pids);
            }
            Action::Kill { instance, run } => {
                if let Some(held) = self.held.get_mut(&(instance.clone(), run)) {
                    held.hooks.drain(..).for_each(|hook| hook.abort());
                    if let Some(leaf) = &held.leaf {
                        let _ = leaf.kill(); // the sweep kills what an old kernel's group cannot
                    }
                }
                self.kills.push((instance, run));
            }
            Action::Sweep { instance, run } => self.sweeps.push((instance, run)),
            Action::Order { instance, run, order, reason } => {
                if self.parts.shutdown.order(&instance, run, order, &reason) == Heard::Nobody {
                    self.queue.push_back(Input::Report { instance, run, report: Report::Unheard });
                }
            }
            Action::StartProbe { instance, run, purpose, spec } => {
                self.start_probe(instance, run, purpose, spec);
            }
            Action::StopProbe { instance, run, purpose } => {
                if let Some(held) = self.held.get_mut(&(instance, run))
                    && let Some(probe) = held.probes[purpose as usize].take()
                {
                    probe.abort();
                }
            }
            Action::Inspect { instance, run } => {
                let (processes, inbox) = (self.parts.processes.clone(), self.parts.inbox.clone());
                let before = processes.glance(&instance, run);
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(ON_ITS_WAY).await;
                    let report = Report::Pulse(processes.inspect(&instance, run, &before));
                    let _ = inbox.send(Input::Report { instance, run, report }).await; // the loop may be gone already
                });
            }
            Action::Hook { instance, run, point, hook, spec, exit } => {
                self.run_hook(instance, run, point, &hook, &spec, exit);
            }
            Action::Forget { instance, run } => self.forget(&instance, run),
            Action::Reserve(instances) => self.reserve_ports(&instances),
            Action::Drop { instance } => self.give_up_ports(&instance),
            Action::RunWatchCommand { spec, command } => self.run_watch_command(&spec, &command),
            Action::Publish(event) => self.publish(event),
            Action::Reply { id, reply } => self.reply(id, reply),
            Action::Exit(code) => self.exit = Some(code),
        }
    }

    fn forget(&mut self, instance: &InstanceId, run: Run) {
        self.parts.shutdown.retract(instance, run);
        self.parts.roster.forget(instance, run);
        self.parts.log.close(instance.clone(), run);
        if let Some(held) = self.held.remove(&(instance.clone(), run)) {
            // Hooks go on: `after_stop` and `on_crash` may have just begun, and each has its own limit.
            let tasks = held.probes.into_iter().flatten().chain(held.readiness);
            tasks.for_each(|task| task.abort());
        }
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        if id == RequestId(0) {
            self.first = Some(reply);
            return;
        }
        match reply {
            // Now, because it waits for what has ended by now.
            Reply::Outcome(outcome) => self.answer_when_written(id, outcome),
            reply => self.answers.push((id, reply)),
        }
    }

    /// Sends the answers of this turn.
    pub(super) fn tell(&mut self) {
        for (id, reply) in std::mem::take(&mut self.answers) {
            match reply {
                Reply::Accepted(accepted) => self.parts.control.reply(id, &accepted),
                Reply::Reloaded(reloaded) => self.parts.control.reply(id, &reloaded),
                Reply::Outcome(outcome) => self.parts.control.reply(id, &outcome),
                Reply::Fault(fault) => self.parts.control.fault(id, &fault),
                Reply::Views(views) => self.parts.control.reply(id, &views),
                Reply::View(view) => self.parts.control.reply(id, &view),
                Reply::Nothing => self.parts.control.reply(id, &()),
            }
        }
    }

    /// History: one record in the timeline, and a few in memory for `node.events`.
    fn publish(&mut self, event: Event) {
        if let EventKind::NodeStopping(reason) = &event.kind {
            self.reason.clone_from(reason);
        }
        if let EventKind::Exited { crash: true, .. } = event.kind {
            self.begin_dossier(&event);
        }
        if let (EventKind::Exited { .. }, Some(instance), Some(run)) =
            (&event.kind, &event.instance, event.run)
        {
            self.output_ends(instance, run);
        }
        tracing::debug!(
            event = event.kind.name(),
            instance = event.instance.as_ref().map(tracing::field::display),
            run = event.run.map(|run| run.0),
            pid = event.pid,
            "{}",
            event.kind.text()
        );
        let record = NodeRecord {
            at: event.at,
            service: event.service.clone(),
            instance: event.instance.clone(),
            run: event.run,
            pid: event.pid,
            level: Some(event.kind.level()),
            text: event.kind.text(),
            fields: serde_json::to_string(&event).unwrap_or_default(), // no event is refused
        };
        match self.fresh_output(&event) {
            Some(Output { source, stdout, stderr }) => {
                self.parts.log.attach_after(record, source, stdout, stderr);
            }
            None => self.parts.log.node(record),
        }
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// What is to be read after this event.
    fn fresh_output(&mut self, event: &Event) -> Option<Output> {
        let (EventKind::Started, Some(instance), Some(run)) =
            (&event.kind, &event.instance, event.run)
        else {
            return None;
        };
        self.held.get_mut(&(instance.clone(), run))?.output.take()
    }
}

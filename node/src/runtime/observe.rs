//! What runs beside the loop for one instance: probes, hooks, the readiness pipe, memory samples.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::{AliveKind, Hook, ReadyKind, ServiceSpec};
use hilum_shared::config::template::Template;
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::Level;
use hilum_shared::signal::Exit;
use hilum_shared::wire::message::new_id;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::{Aside, Runtime};
use crate::core::input::{HookPoint, Input, ProbePurpose, Report};
use crate::driver::probe::{ProbeError, Question};
use crate::driver::request::{SpawnRequest, Stdio};
use crate::driver::stats::Breadth;
use crate::driver::{command, pipes};
use crate::launch::prepare::{LaunchError, Start};
use crate::log::handle::{NodeRecord, Source};

impl Runtime {
    pub(super) fn start_probe(
        &mut self,
        instance: InstanceId,
        run: Run,
        purpose: ProbePurpose,
        spec: Arc<ServiceSpec>,
    ) {
        let key = (instance, run);
        let Some(held) = self.held.get_mut(&key) else { return };
        let context = Rc::clone(&self.context);
        let processes = self.parts.processes.clone();
        let inbox = self.parts.inbox.clone();
        let token = held.token.clone();
        let address = self.parts.core.address(&key.0, run).map(str::to_owned);
        let task = tokio::task::spawn_local(async move {
            let (instance, run) = key;
            let start =
                Start { context: &context, spec: &spec, instance: &instance, run, token: &token };
            let Some((question, interval, timeout)) = question(&start, &spec, purpose, address)
            else {
                return;
            };
            // Until it is ready for the first time it is asked more often: nobody likes to wait a whole
            // interval for a server that was up after a tenth of it.
            let mut pause = if purpose == ProbePurpose::Ready { interval / 16 } else { interval };
            loop {
                let answer = match &question {
                    Ok(question) => question.ask(&start, &processes, timeout).await,
                    Err(error) => Err(error.to_string()),
                };
                let (ok, detail) = (answer.is_ok(), answer.err().unwrap_or_default());
                let report = Report::Probe { purpose, ok, detail };
                let input = Input::Report { instance: instance.clone(), run, report };
                if inbox.send(input).await.is_err() {
                    return;
                }
                pause = if ok { interval } else { (pause * 2).min(interval) };
                tokio::time::sleep(pause).await;
            }
        });
        if let Some(before) = held.probes[purpose as usize].replace(task) {
            before.abort();
        }
    }

    pub(super) fn run_hook(
        &mut self,
        instance: InstanceId,
        run: Run,
        point: HookPoint,
        hook: &Hook,
        spec: &Arc<ServiceSpec>,
        exit: Option<Exit>,
    ) {
        if point == HookPoint::OnCrash && self.is_reporting_a_crash(&instance, run) {
            return;
        }
        let mut facts = vec![("HILUM_HOOK", point.as_str().to_owned())];
        if let Some(pid) = self.parts.processes.pid(&instance, run) {
            facts.push(("HILUM_PID", pid.to_string()));
        }
        match exit {
            Some(Exit::Code(code)) => facts.push(("HILUM_EXIT_CODE", code.to_string())),
            Some(Exit::Signal { signal, .. }) => facts.push(("HILUM_EXIT_SIGNAL", signal.name())),
            None => {}
        }
        if point == HookPoint::BeforeStart {
            // The first process of the run is this one: the program gets the same token.
            let held = self.held.entry((instance.clone(), run)).or_default();
            held.token = new_id();
        }
        let prepared = self.prepare(&instance, run, spec, &hook.command, point.as_str(), &facts);
        let request = match prepared {
            Ok(request) => request,
            Err(error) => {
                let report = Report::HookDone { point, result: Err(error.to_string()) };
                return self.queue.push_back(Input::Report { instance, run, report });
            }
        };
        let processes = self.parts.processes.clone();
        let inbox = self.parts.inbox.clone();
        let timeout = hook.timeout;
        let (key, id) = ((instance.clone(), run), instance.clone());
        let task = tokio::task::spawn_local(async move {
            let result =
                command::run(&processes, request, timeout).await.map_err(|error| error.to_string());
            let report = Report::HookDone { point, result };
            let _ = inbox.send(Input::Report { instance, run, report }).await; // the loop may be gone already
        });
        if point == HookPoint::OnCrash {
            self.crash_hooks.insert(id, task.abort_handle());
        }
        let hooks = &mut self.held.entry(key).or_default().hooks;
        hooks.retain(|hook| !hook.is_finished());
        hooks.push(task);
    }

    /// Whether the `on_crash` of an earlier crash still runs: one at a time, or a hook that hangs piles up in a crash loop.
    fn is_reporting_a_crash(&mut self, instance: &InstanceId, run: Run) -> bool {
        self.crash_hooks.retain(|_, hook| !hook.is_finished());
        let busy = self.crash_hooks.contains_key(instance);
        if busy {
            self.parts.log.node(NodeRecord {
                at: self.parts.clock.now().wall,
                service: Some(instance.service.clone()),
                instance: Some(instance.clone()),
                run: Some(run),
                level: Some(Level::Warning),
                text: "on_crash is left out: that of an earlier crash still runs".to_owned(),
                ..NodeRecord::default()
            });
        }
        busy
    }

    pub(super) fn run_watch_command(&mut self, spec: &Arc<ServiceSpec>, words: &[String]) {
        let instance = InstanceId::new(spec.name.clone(), 1);
        let words: Vec<Template> = words.iter().map(|word| Template::new(word.as_str())).collect();
        let run = self.parts.core.instance(&instance).map_or(Run(0), |instance| instance.run);
        let request = match self.prepare(&instance, run, spec, &words, "watch.action", &[]) {
            Ok(request) => request,
            Err(error) => {
                let (service, result) = (spec.name.clone(), Err(error.to_string()));
                return self.queue.push_back(Input::WatchActionDone { service, result });
            }
        };
        let processes = self.parts.processes.clone();
        let inbox = self.parts.inbox.clone();
        let service = spec.name.clone();
        tokio::task::spawn_local(async move {
            let result = command::run(&processes, request, WATCH_COMMAND).await;
            let result = result.map_err(|error| error.to_string());
            let _ = inbox.send(Input::WatchActionDone { service, result }).await; // the loop may be gone already
        });
    }

    /// A command in the instance's place; its output goes where the instance's goes.
    fn prepare(
        &self,
        instance: &InstanceId,
        run: Run,
        spec: &Arc<ServiceSpec>,
        words: &[Template],
        key: &str,
        facts: &[(&str, String)],
    ) -> Result<SpawnRequest, LaunchError> {
        let token = self.held.get(&(instance.clone(), run)).map_or("", |held| held.token.as_str());
        let start = Start { context: &self.context, spec, instance, run, token };
        let mut request = start.prepare_command(words, key, facts)?;
        if let (Ok((out, stdout)), Ok((err, stderr))) = (pipes::output(), pipes::output()) {
            request.stdio = Stdio::Pipes { stdout, stderr };
            let policy = Arc::new(spec.policy.log.clone());
            let source =
                Source { instance: instance.clone(), run, pid: 0, policy, ready_pattern: None };
            self.parts.log.attach_aside(source, out, err);
        }
        Ok(request)
    }

    /// Readiness as s6 has it: a newline on the pipe.
    pub(super) fn await_newline(
        &self,
        instance: InstanceId,
        run: Run,
        reader: OwnedFd,
    ) -> JoinHandle<()> {
        let inbox = self.parts.inbox.clone();
        tokio::task::spawn_local(async move {
            let Ok(mut reader) = pipe::Receiver::from_owned_fd(reader) else { return };
            let mut buffer = [0; 64];
            loop {
                match reader.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) if buffer[..length].contains(&b'\n') => break,
                    Ok(_) => {}
                }
            }
            let _ = inbox.send(Input::Report { instance, run, report: Report::Ready }).await; // the loop may be gone
        })
    }

    /// As long as an instance with a memory limit runs, its memory is looked at.
    pub(super) fn begin_sampling(&mut self) {
        if self.sampling.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let sender = self.aside.0.clone();
        let interval = self.parts.cluster.node.stats_interval.max(Duration::from_millis(100));
        self.sampling = Some(tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(interval).await;
                if sender.send(Aside::SampleMemory).is_err() {
                    return;
                }
            }
        }));
    }

    pub(super) fn sample_memory(&mut self) {
        let limited: Vec<_> = self
            .parts
            .core
            .instances()
            .filter(|instance| instance.spec.policy.memory.is_some())
            .filter_map(|instance| {
                Some((instance.id.clone(), instance.run, instance.life.as_ref()?.pid?))
            })
            .collect();
        if limited.is_empty() {
            if let Some(task) = self.sampling.take() {
                task.abort();
            }
            return;
        }
        for ((instance, run), sample) in self.memory.sample(&limited, Breadth::Session) {
            self.queue.push_back(Input::Report {
                instance,
                run,
                report: Report::Memory(sample.rss),
            });
        }
    }
}

/// A watch command has no limit of its own in the configuration.
const WATCH_COMMAND: Duration = Duration::from_secs(600);

/// What is asked how often for how long; `None` where nothing is to be asked.
fn question(
    start: &Start<'_>,
    spec: &ServiceSpec,
    purpose: ProbePurpose,
    address: Option<String>,
) -> Option<(Result<Question, ProbeError>, Duration, Duration)> {
    match purpose {
        ProbePurpose::Ready => {
            let check = spec.policy.ready.as_ref()?;
            let question = match &check.kind {
                ReadyKind::Probe(probe) => Question::new(probe, start),
                ReadyKind::File(path) => Question::file(path, start),
                _ => return None,
            };
            Some((question, check.interval, check.timeout))
        }
        ProbePurpose::Alive => {
            let check = spec.policy.alive.as_ref()?;
            let question = match &check.kind {
                AliveKind::Probe(probe) => Question::new(probe, start),
                // One that has no address yet is asked when it has.
                AliveKind::Rpc => Ok(Question::Rpc(address?)),
                AliveKind::Heartbeat | AliveKind::Notify => return None,
            };
            Some((question, check.interval, check.timeout))
        }
    }
}

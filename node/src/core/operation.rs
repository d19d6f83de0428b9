//! Long work that a client may wait for: every order gets a number, every instance in it a result.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::control::{Accepted, AwaitState, Change, Outcome};

use super::input::RequestId;
use super::instance::{Instance, Phase, Want};
use super::service::is_job;

/// So many finished operations are remembered for a late `wait`.
const REMEMBERED: usize = 64;

/// What an operation waits for of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// That a run after this one is ready.
    UpAfter(Run),
    /// That nothing of it is left.
    Down,
}

/// What is begun: of each instance the action, and what is waited for or, where nothing is to be done, the result.
pub type Items = Vec<(InstanceId, &'static str, Result<Expect, &'static str>)>;

#[derive(Clone, Debug)]
struct Item {
    change: Change,
    expect: Option<Expect>,
}

/// One order and what became of it.
#[derive(Clone, Debug, Default)]
struct Operation {
    items: BTreeMap<InstanceId, Item>,
    open: usize,
    survivors: Vec<u32>,
    waiters: Vec<RequestId>,
}

/// All operations of a node's life, the finished ones only so far as they are remembered.
#[derive(Clone, Debug, Default)]
pub struct Operations {
    next: u64,
    open: BTreeMap<u64, Operation>,
    finished: VecDeque<(u64, Outcome)>,
}

/// What a client that waits is told at once.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// It is done.
    Done(Outcome),
    /// The answer follows.
    Later,
    /// No such operation, or finished too long ago.
    Unknown,
}

/// Answers that became possible.
pub type Answers = Vec<(RequestId, Outcome)>;

impl Operations {
    /// Begins an operation with these instances: action, and what is expected (`None`: nothing to
    /// wait for, the result stands already).
    pub fn begin(&mut self, items: Items, notes: Vec<String>) -> Accepted {
        self.next += 1;
        let mut operation = Operation::default();
        for (id, action, expect) in items {
            let change = Change {
                instance: Some(id.clone()),
                action: action.to_owned(),
                result: expect.err().map(str::to_owned),
                reason: None,
            };
            operation.items.insert(id, Item { change, expect: expect.ok() });
        }
        // An instance may be named twice, to be started and restarted; the last word counts.
        operation.open = operation.items.values().filter(|item| item.expect.is_some()).count();
        let changed = operation.items.values().map(|item| item.change.clone()).collect();
        let accepted = Accepted { operation: self.next, changed, notes };
        if operation.open == 0 {
            self.finish(self.next, &operation);
        } else {
            self.open.insert(self.next, operation);
        }
        accepted
    }

    /// Answers now when the operation is done, else later.
    pub fn wait(&mut self, number: u64, request: RequestId) -> Waiting {
        if let Some(operation) = self.open.get_mut(&number) {
            operation.waiters.push(request);
            return Waiting::Later;
        }
        let finished = self.finished.iter().find(|(done, _)| *done == number);
        finished.map_or(Waiting::Unknown, |(_, outcome)| Waiting::Done(outcome.clone()))
    }

    /// Forgets a client's waiting.
    pub fn cancel(&mut self, request: RequestId) {
        for operation in self.open.values_mut() {
            operation.waiters.retain(|waiter| *waiter != request);
        }
    }

    /// The instances whose coming up is waited for.
    pub fn waited_for(&self) -> BTreeSet<InstanceId> {
        let items = self.open.values().flat_map(|operation| &operation.items);
        let up = items.filter(|(_, item)| matches!(item.expect, Some(Expect::UpAfter(_))));
        up.map(|(id, _)| id.clone()).collect()
    }

    /// Looks at an instance again; `killed` when a stop of it needed KILL.
    pub fn settle(&mut self, instance: &Instance, killed: bool, answers: &mut Answers) {
        let mut done = Vec::new();
        for (number, operation) in &mut self.open {
            let Some(item) = operation.items.get_mut(&instance.id) else { continue };
            let Some(expect) = item.expect else { continue };
            operation
                .survivors
                .retain(|pid| !instance.at_rest() || !instance.survivors().contains(pid));
            let Some(result) = result(expect, instance, killed) else { continue };
            item.expect = None;
            item.change.result = Some(result.to_owned());
            item.change.reason = match result {
                SUPERSEDED => Some("another order came after it".to_owned()),
                _ => instance.reason.clone(),
            };
            operation.open -= 1;
            if operation.open == 0 {
                done.push(*number);
            }
        }
        self.answer(done, answers);
    }

    /// What was done with this instance, as part of what is not done yet, was taken back.
    pub fn take_back(&mut self, instance: &InstanceId, why: &str) {
        for operation in self.open.values_mut() {
            if let Some(item) = operation.items.get_mut(instance)
                && item.expect.is_none()
                && item.change.result.is_some()
            {
                item.change.result = Some("kept".to_owned());
                item.change.reason = Some(why.to_owned());
            }
        }
    }

    /// What was begun with this instance will not be done: `result` says what became of it, and `why`.
    pub fn give_up(
        &mut self,
        instance: &InstanceId,
        result: &'static str,
        why: &str,
        answers: &mut Answers,
    ) {
        let mut done = Vec::new();
        for (number, operation) in &mut self.open {
            let Some(item) = operation.items.get_mut(instance) else { continue };
            if !matches!(item.expect, Some(Expect::UpAfter(_))) {
                continue;
            }
            item.expect = None;
            item.change.result = Some(result.to_owned());
            item.change.reason = Some(why.to_owned());
            operation.open -= 1;
            if operation.open == 0 {
                done.push(*number);
            }
        }
        self.answer(done, answers);
    }

    /// What an operation still waits for, for another one that waits for the same.
    pub fn open_items(
        &self,
        number: u64,
    ) -> impl Iterator<Item = (InstanceId, &'static str, Expect)> {
        let items = self.open.get(&number).into_iter().flat_map(|operation| &operation.items);
        items.filter_map(|(id, item)| {
            let expect = item.expect?;
            let action = match expect {
                Expect::Down => "stop",
                Expect::UpAfter(Run(0)) => "start",
                Expect::UpAfter(_) => "restart",
            };
            Some((id.clone(), action, expect))
        })
    }

    fn answer(&mut self, done: Vec<u64>, answers: &mut Answers) {
        for number in done {
            if let Some(operation) = self.open.remove(&number) {
                let outcome = self.finish(number, &operation);
                answers.extend(operation.waiters.iter().map(|waiter| (*waiter, outcome.clone())));
            }
        }
    }

    fn finish(&mut self, number: u64, operation: &Operation) -> Outcome {
        let changed: Vec<Change> =
            operation.items.values().map(|item| item.change.clone()).collect();
        let ok = !changed
            .iter()
            .any(|change| matches!(change.result.as_deref(), Some("failed" | "kept" | SUPERSEDED)));
        let outcome = Outcome { changed, survivors: operation.survivors.clone(), ok };
        self.finished.push_back((number, outcome.clone()));
        if self.finished.len() > REMEMBERED {
            self.finished.pop_front();
        }
        outcome
    }
}

/// What an operation does no longer, because somebody wants something else by now.
const SUPERSEDED: &str = "superseded";

fn result(expect: Expect, instance: &Instance, killed: bool) -> Option<&'static str> {
    match expect {
        Expect::UpAfter(run) => match (&instance.phase, instance.want) {
            (Phase::Failed, _) => Some("failed"),
            (_, Want::Down) => Some(SUPERSEDED),
            (Phase::Completed, _) if instance.run > run => Some("completed"),
            _ if instance.ready() && instance.run > run => {
                Some(if instance.spec.policy.ready.is_some() { "ready" } else { "started" })
            }
            _ => None,
        },
        Expect::Down => match instance.want {
            Want::Up => Some(SUPERSEDED),
            Want::Down if instance.at_rest() => Some(if killed { "killed" } else { "stopped" }),
            Want::Down => None,
        },
    }
}

/// A call that is answered when instances are in a state.
#[derive(Clone, Debug)]
pub struct Awaiting {
    /// Whose call.
    pub request: RequestId,
    /// What is waited for.
    pub state: AwaitState,
    /// Of whom; for `exit` with the run whose end counts.
    pub instances: Vec<(InstanceId, Run)>,
}

/// Whether the instance is where it is waited for: `None` not yet, else whether that is a success.
pub fn arrived(state: AwaitState, run: Run, instance: &Instance) -> Option<bool> {
    match state {
        AwaitState::Ready => match instance.phase {
            Phase::Failed => Some(false),
            Phase::Completed => Some(true),
            _ if is_job(&instance.spec) => instance.has_succeeded().then_some(true),
            _ => instance.ready().then_some(true),
        },
        AwaitState::Running => match instance.phase {
            Phase::Failed => Some(false),
            Phase::Completed => Some(true),
            _ => instance.started().then_some(true),
        },
        AwaitState::Stopped => {
            let gone = instance.at_rest()
                && !matches!(instance.phase, Phase::Backoff { .. })
                && !instance.waits();
            gone.then_some(true)
        }
        AwaitState::Exit => {
            // One that has ended for good will not end again.
            let over = matches!(instance.phase, Phase::Completed | Phase::Failed);
            let ended = over || instance.run > run || (instance.run == run && instance.at_rest());
            ended.then_some(true)
        }
    }
}

//! A service that answers as a test says, and remembers what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hilum_shared::rpc::{Endpoint, Handler, Incoming};
use hilum_shared::wire::{Value, to_value};
use serde::Serialize;

use super::events::same;
use crate::args::Args;
use crate::fault::{Declared, Fault};

/// A service that answers as a test says. A method that the test says nothing of answers with an error that says so, of the type
/// `NotPrepared`. Clones are the same mock.
///
/// Its assertions panic with all calls that came.
#[derive(Clone)]
pub struct RpcMock {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Answer>,
    calls: Vec<MockCall>,
    endpoint: Option<Endpoint>,
}

/// The result, the error, or for `None` a refusal.
type Answer = Arc<dyn Fn(Value) -> Option<Result<Value, Fault>> + Send + Sync>;

/// A call that came.
#[derive(Clone, Debug, PartialEq)]
pub struct MockCall {
    /// The method, without the service.
    pub method: String,
    /// Its arguments, a map.
    pub args: Value,
    /// Its trace.
    pub trace_id: Option<String>,
}

impl RpcMock {
    pub(super) fn new(name: &str) -> (Self, Arc<dyn Handler>) {
        let shared = Arc::new(Shared { name: name.to_owned(), state: Mutex::default() });
        let weak = Arc::downgrade(&shared);
        let handler = move |incoming: Incoming| {
            // A mock that the test has dropped refuses, as everything unknown does.
            if let Some(shared) = weak.upgrade() {
                shared.take(incoming);
            }
        };
        (Self { shared }, Arc::new(handler))
    }

    /// Stays reachable as long as the mock lives.
    pub(super) fn keep(&self, endpoint: Endpoint) {
        self.shared.state().endpoint = Some(endpoint);
    }

    /// Lets a method return this.
    pub fn returns<T: Serialize + ?Sized>(&self, method: &str, value: &T) {
        let value = to_value(value).expect("the value has a MessagePack form");
        self.answers(method, move |_| Ok(value.clone()));
    }

    /// Lets a method raise this.
    pub fn raises<E: Declared>(&self, method: &str, error: &E) {
        let fault = error.fault();
        self.answers(method, move |_| Err(fault.clone()));
    }

    /// Lets a method answer what a function makes of its arguments.
    pub fn answers(
        &self,
        method: &str,
        answer: impl Fn(Value) -> Result<Value, Fault> + Send + Sync + 'static,
    ) {
        self.set(method, move |args| Some(answer(args)));
    }

    /// Lets a method refuse (NACK), as one does that fails without an error of its own.
    pub fn refuses(&self, method: &str) {
        self.set(method, |_| None);
    }

    fn set(
        &self,
        method: &str,
        answer: impl Fn(Value) -> Option<Result<Value, Fault>> + Send + Sync + 'static,
    ) {
        self.shared.state().answers.insert(method.to_owned(), Arc::new(answer));
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<MockCall> {
        self.shared.state().calls.clone()
    }

    /// Forgets the calls so far.
    pub fn forget(&self) {
        self.shared.state().calls.clear();
    }

    /// Asserts that a method was called with these arguments, maybe among other calls.
    #[track_caller]
    pub fn assert_called_with(&self, method: &str, args: Args) {
        let (count, expected) = (self.count(method, Some(&args)), shown(method, &args));
        assert!(count > 0, "{expected} was not called; {}", self.account());
    }

    /// Asserts that a method was called exactly once, and with these arguments.
    #[track_caller]
    pub fn assert_called_once_with(&self, method: &str, args: Args) {
        self.assert_called_with(method, args);
        self.assert_called_times(method, 1);
    }

    /// Asserts how many times a method was called.
    #[track_caller]
    pub fn assert_called_times(&self, method: &str, times: usize) {
        let count = self.count(method, None);
        assert!(
            count == times,
            "`{method}` was called {count} times, not {times}; {}",
            self.account()
        );
    }

    /// Asserts that a method was not called.
    #[track_caller]
    pub fn assert_not_called(&self, method: &str) {
        self.assert_called_times(method, 0);
    }

    fn count(&self, method: &str, args: Option<&Args>) -> usize {
        let expected =
            args.map(|args| to_value(args).expect("the arguments have a MessagePack form"));
        let like = |call: &&MockCall| {
            call.method == method
                && expected.as_ref().is_none_or(|expected| same(&call.args, expected))
        };
        self.shared.state().calls.iter().filter(like).count()
    }

    fn account(&self) -> String {
        let state = self.shared.state();
        let calls: Vec<String> =
            state.calls.iter().map(|call| format!("{}{}", call.method, call.args)).collect();
        match calls.as_slice() {
            [] => format!("`{}` was not called at all", self.shared.name),
            calls => format!("`{}` was asked: {}", self.shared.name, calls.join(", ")),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, incoming: Incoming) {
        let Incoming { message, channel } = incoming;
        let Some((_, method)) = message.interface_and_method() else { return };
        let args: Value = message.unpack().unwrap_or_default();
        let answer = {
            let mut state = self.state();
            let (method, trace_id) = (method.to_owned(), message.headers.trace_id.clone());
            let answer = state.answers.get(&method).cloned();
            state.calls.push(MockCall { method, args: args.clone(), trace_id });
            answer
        };
        let answer = match answer {
            Some(answer) => answer(args),
            None => {
                let method = message.interface_and_method().map_or("", |(_, method)| method);
                let text = format!(
                    "the test has not said what `{}.{method}` answers: `returns`, `raises`, `answers` or `refuses` of its mock do",
                    self.name
                );
                return channel.error("NotPrepared", &text).expect("a text can be sent");
            }
        };
        let sent = match answer {
            Some(Ok(value)) => channel.reply(&value),
            Some(Err(fault)) => channel.error_with(&fault.to_body()),
            None => channel.nack(),
        };
        sent.expect("a value can be sent, and it is the first answer");
    }
}

fn shown(method: &str, args: &Args) -> String {
    match to_value(args) {
        Ok(value) => format!("`{method}`{value}"),
        Err(_) => format!("`{method}`"),
    }
}

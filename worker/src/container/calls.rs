//! From a request to the method of an interface, and from what becomes of it to the answer and the log.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hilum_shared::rpc::{self, Handler, Incoming, Request, Server, TurnedAway};
use hilum_shared::wire::{Value, to_value};
use tokio::sync::Notify;

use super::build::{Installed, Part};
use super::served::{Open, Outcome, Served, Unfinished};
use super::settings::Settings;
use crate::channel::ReplyChannel;
use crate::component::{AnyComponent, FailedCall};
use crate::context::{Context, Process};
use crate::interface::{AnyInterface, Call, Failure, answer};
use crate::log;

/// Answers all requests of a process.
pub(super) struct Calls {
    server: Server,
    shared: Arc<Shared>,
    served: Served,
}

struct Shared {
    /// Known while the endpoint is open, which leads back here.
    process: RwLock<Option<Arc<Process>>>,
    components: Vec<Arc<dyn AnyComponent>>,
    running: Running,
    refused: Option<Refused>,
}

/// Hears the subject of each call that is answered with a NACK, and the reason, which the caller does not get.
pub(crate) type Refused = Arc<dyn Fn(&str, &str) + Send + Sync>;

impl Calls {
    pub(super) fn new(
        interfaces: &[Installed],
        components: &[Part],
        settings: &Settings,
        refused: Option<Refused>,
    ) -> Self {
        let shared = Arc::new(Shared {
            process: RwLock::default(),
            components: components.iter().map(|part| Arc::clone(&part.component)).collect(),
            running: Running::default(),
            refused: refused.clone(),
        });
        let asked = Arc::downgrade(&shared);
        let metrics = move || {
            let process = asked.upgrade().and_then(|shared| shared.process());
            let series =
                process.map(|process| process.figures.registry.series()).unwrap_or_default();
            to_value(&series).unwrap_or_else(|_| Value::List(Vec::new())) // figures and texts always pack
        };
        let subjects = interfaces.iter().flat_map(|installed| {
            let methods = installed.interface.methods().iter();
            methods.map(|method| format!("{}.{}", installed.name, method.name))
        });
        let served = Served::new(subjects);
        let counted = served.clone();
        let mut server = Server::default()
            .change_loglevel(change_level)
            .metrics(metrics)
            .turned_away(move |subject, why| {
                counted.turned_away(subject, why);
                if let (TurnedAway::Unknown, Some(tell)) = (why, &refused) {
                    tell(subject, "there is no such interface, version or method");
                }
            });
        for installed in interfaces {
            server = server.interface(interface(installed, settings, &shared, &served));
        }
        Self { server, shared, served }
    }

    /// Says where the process is, and who it is.
    pub(super) fn open(&self, process: &Arc<Process>, address: &str) {
        process.figures.registry.add(self.served.clone());
        self.shared.set(Some(Arc::clone(process)));
        self.server.set_endpoint(address);
    }

    /// Answers nothing any more.
    pub(super) fn close(&self) {
        self.shared.set(None);
    }

    /// Calls that are being worked on.
    pub(super) fn running(&self) -> usize {
        self.shared.running.count.load(Ordering::SeqCst)
    }

    /// Waits until no call is being worked on.
    pub(super) async fn idle(&self) {
        loop {
            let ended = self.shared.running.none.notified();
            if self.running() == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Shared {
    fn set(&self, process: Option<Arc<Process>>) {
        *self.process.write().unwrap_or_else(PoisonError::into_inner) = process;
    }

    fn process(&self) -> Option<Arc<Process>> {
        self.process.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Handler for Calls {
    fn request(&self, incoming: Incoming) {
        self.server.request(incoming);
    }
}

/// An interface as the server knows it.
fn interface(
    installed: &Installed,
    settings: &Settings,
    shared: &Arc<Shared>,
    served: &Served,
) -> rpc::Interface {
    let mut interface = rpc::Interface::new(&installed.name);
    if let Some(version) = &installed.version {
        interface = interface.at_version(version.clone());
    }
    if let Some(size) = settings.pool {
        interface = interface.concurrency(size, settings.queue);
    }
    let name: Arc<str> = installed.name.as_str().into();
    for (index, method) in installed.interface.methods().iter().enumerate() {
        let help = method.help;
        let (shared, name) = (Arc::clone(shared), Arc::clone(&name));
        let target = Arc::clone(&installed.interface);
        let figures = Arc::clone(served.of(&format!("{name}.{}", method.name)));
        let run = move |request: Request, channel: rpc::ReplyChannel| {
            let (shared, name, target) =
                (Arc::clone(&shared), Arc::clone(&name), Arc::clone(&target));
            let open = Open::begin(&figures);
            let channel = ReplyChannel { inner: channel, open };
            async move { serve(&shared, name, target, index, request, channel).await }
        };
        let parameters = method.parameters.iter().map(|parameter| parameter.name);
        let optional = method.parameters.iter().filter(|parameter| parameter.optional);
        let optional = optional.map(|parameter| parameter.name);
        let raises = method.raises.iter().flat_map(|kinds| kinds.iter().copied());
        let method =
            rpc::Method::raw(method.name, run).params(parameters).optional(optional).raises(raises);
        let method = method.help(help);
        interface = interface.method(method);
    }
    interface
}

/// One call, from its arguments to its answer.
async fn serve(
    shared: &Shared,
    interface: Arc<str>,
    target: Arc<dyn AnyInterface>,
    index: usize,
    request: Request,
    channel: ReplyChannel,
) {
    let Some(process) = shared.process() else {
        return; // not open: the end of the channel refuses
    };
    let _counted = Counted::new(&shared.running);
    let asked = request.clone();
    let (subject, trace_id) = (asked.subject(), asked.trace_id());
    let context =
        Context { process, interface: Arc::clone(&interface), trace_id: Arc::clone(trace_id) };
    let unfinished = Unfinished::new(&channel.open);
    let call = Call { index, context, request, channel: channel.clone() };
    let answered = answer(target, call).await;
    unfinished.finished();
    let Err(failure) = answered else { return };
    let method = subject.rsplit('.').next().unwrap_or_default();
    let failed = |error: &(dyn std::error::Error + Send + Sync + 'static)| {
        let failed = FailedCall { interface: &interface, method, trace_id, error };
        shared.components.iter().for_each(|component| component.on_error(&failed));
    };
    if let Some(tell) = &shared.refused
        && !matches!(failure, Failure::Declared(_))
    {
        tell(subject, &failure.to_string());
    }
    let outcome = match &failure {
        Failure::Arguments(_) | Failure::Unknown => Outcome::Refused,
        _ => Outcome::Nack,
    };
    match failure {
        Failure::Declared(fault) => {
            tracing::debug!(subject, error = %fault, "raised");
            channel.fault(&fault);
            return;
        }
        Failure::Arguments(error) => tracing::warn!(subject, %error, "wrong arguments: refused"),
        Failure::Unknown => tracing::warn!(subject, "unknown method: refused"),
        Failure::Result(error) => {
            tracing::error!(subject, %error, "the result cannot be sent: refused");
            failed(&error);
        }
        Failure::Error(error) => {
            tracing::error!(subject, error = %chain(&*error), "failed: refused");
            failed(&*error);
        }
        Failure::Panic(text) => {
            tracing::error!(subject, "the method panicked: refused");
            failed(&Panicked(text));
        }
    }
    if !channel.is_answered() {
        channel.sent(outcome, channel.inner.nack());
    }
}

/// A panic as the error that components hear of.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(super) struct Panicked(pub(super) String);

/// An error with what it says of its causes.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Calls that are being worked on.
#[derive(Default)]
struct Running {
    count: AtomicUsize,
    /// Told when the last one ends.
    none: Notify,
}

/// One of them, until it is dropped.
struct Counted<'a>(&'a Running);

impl<'a> Counted<'a> {
    fn new(running: &'a Running) -> Self {
        running.count.fetch_add(1, Ordering::SeqCst);
        Self(running)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

fn change_level(logger: &str, level: &str, period: Duration) -> Result<(), rpc::Failure> {
    log::change_level(logger, level, period.as_secs_f64()).map_err(|error| {
        tracing::warn!(logger, level, "the level was not changed: {error}");
        rpc::Failure::new("LevelError", error.to_string())
    })
}

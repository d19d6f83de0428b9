//! Logging: `tracing` events become structured records of the node, and lines on stderr where they must.
//!
//! | | with a node | without |
//! |---|---|---|
//! | any event that `--loglevel`, `RUST_LOG` or `logging` lets through (default `info`) | a record | a line on stderr |
//! | `error` | also a line on stderr, at once | a line on stderr |
//! | a panic | also on stderr, at once; a record of level CRITICAL | on stderr |
//!
//! `--logfile` takes the lines that would go to stderr, but for those of the panic itself.
//!
//! Records wait in 1 MiB here, and in the kernel. When both are full the node does not take them, and the logging
//! call waits, as long as the node is there ([`Overflow::Wait`]): the node knows that it holds records back and does
//! not count it as silence. At the end of the process they wait for the node as long as the grace allows; what it has not taken then is
//! counted on stderr. A node that is gone lets go whoever waits; from then on events go to stderr.

mod config;
mod layer;
mod level;
mod queue;
mod stderr;

use std::fs::File;
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::Once;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use config::levels_of;
pub use layer::LogLayer;
pub use level::{LevelError, change as change_level};
pub(crate) use level::{Start, level_word};
pub(crate) use queue::{Queue, Shipping};
use stderr::Traced;

/// What a logging call does when the node does not take records fast enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It waits, while the node is there. Nothing is lost.
    #[default]
    Wait,
    /// The record is dropped and counted ([`LogLayer::dropped`]), and the node shows the gap.
    Drop,
}

/// The target under which a panic is logged.
const PANIC_TARGET: &str = "panic";

impl LogLayer {
    pub(crate) fn new(queue: Option<std::sync::Arc<Queue>>) -> Self {
        Self { queue }
    }
}

/// Makes this process' `tracing` go to `layer` and to stderr, or the file in its place, unless the author has set up another already.
pub(crate) fn install(layer: LogLayer, start: Start, file: Option<File>) {
    let (filter, changeable) = level::filter(start);
    let colored =
        file.is_none() && std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let writer = match file {
        Some(file) => BoxMakeWriter::new(file),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let stderr = tracing_subscriber::fmt::layer()
        .event_format(Traced(tracing_subscriber::fmt::format().with_ansi(colored)))
        .with_writer(writer)
        .with_ansi(colored)
        // It would panic where stderr is broken, which is what a dead node leaves.
        .log_internal_errors(false);
    let sent = layer.clone();
    let shown = dynamic_filter_fn(move |metadata, _| {
        // A panic is on stderr already, by the hook that was there before ours.
        metadata.target() != PANIC_TARGET
            && (*metadata.level() == tracing::Level::ERROR || !sent.is_open())
    });
    let subscriber =
        tracing_subscriber::registry().with(filter).with(layer).with(stderr.with_filter(shown));
    // An author's own subscriber stays; it may hold `Builder::log_layer`.
    if subscriber.try_init().is_ok() {
        changeable();
    }
    hook_panics();
}

/// Makes each panic of this process a record, after it was shown on stderr as before. Done once, by `run`; for
/// authors with a subscriber of their own.
pub fn hook_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            record_panic(info);
        }));
    });
}

fn record_panic(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("a panic without a text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(target: PANIC_TARGET, place, thread = thread.name().unwrap_or("?"), "{text}");
}

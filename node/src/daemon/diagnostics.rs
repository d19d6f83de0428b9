//! The node's own diagnostics: `tracing` into a file beside the logs, or to stderr in the foreground.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::driver::signals;

/// Old files of diagnostics that stay, one a day.
const FILES: usize = 5;
/// Lines that may wait for the disk, then they are lost. Their room is taken at once: 32 bytes each.
const WAITING: usize = 4096;

type Handle = reload::Handle<LevelFilter, Registry>;

static LEVEL: Mutex<Option<(Handle, LevelFilter)>> = Mutex::new(None);
/// Counts changes, so that an old one's end does not undo a newer one.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Where the diagnostics go.
pub(super) enum Sink<'a> {
    /// To stderr.
    Stderr,
    /// To `node.log.DATE` in this folder.
    Folder(&'a Path),
    /// To this file.
    File(&'a Path),
}

/// Begins. Keep the guard until the last line.
pub(super) fn begin(sink: &Sink<'_>, level: Option<&str>) -> Option<WorkerGuard> {
    let level = level.and_then(parse).unwrap_or(LevelFilter::INFO);
    let (filter, handle) = reload::Layer::new(level);
    if let Ok(mut kept) = LEVEL.lock() {
        *kept = Some((handle, level));
    }
    let appender = match sink {
        Sink::Stderr => None,
        Sink::Folder(folder) => rolling::Builder::new()
            .rotation(rolling::Rotation::DAILY)
            .filename_prefix("node.log")
            .max_log_files(FILES)
            .build(folder)
            .ok(),
        Sink::File(path) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            let name = path.file_name().unwrap_or(path.as_os_str());
            rolling::Builder::new()
                .rotation(rolling::Rotation::NEVER)
                .filename_prefix(name.to_string_lossy())
                .build(folder)
                .ok()
        }
    };
    let layer = fmt::layer().with_target(false).with_ansi(false);
    let (result, guard) = match appender {
        Some(appender) => {
            let (writer, guard) = signals::blocked(|| {
                NonBlockingBuilder::default().buffered_lines_limit(WAITING).finish(appender)
            });
            let subscriber = Registry::default().with(filter).with(layer.with_writer(writer));
            (tracing::subscriber::set_global_default(subscriber), Some(guard))
        }
        None => {
            let subscriber =
                Registry::default().with(filter).with(layer.with_writer(std::io::stderr));
            (tracing::subscriber::set_global_default(subscriber), None)
        }
    };
    debug_assert!(result.is_ok(), "begun twice");
    guard
}

/// Changes the level for a while; zero = for good.
///
/// # Errors
/// A sentence, when the level is not known.
pub(crate) fn change_level(level: &str, period: Duration) -> Result<(), String> {
    let level = parse(level).ok_or_else(|| {
        format!("`{level}` is no level: give DEBUG, INFO, WARNING, ERROR or CRITICAL")
    })?;
    set(level);
    let change = CHANGES.fetch_add(1, Ordering::Relaxed) + 1;
    if !period.is_zero() {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(period).await;
            let first = LEVEL.lock().ok().and_then(|kept| kept.as_ref().map(|(_, level)| *level));
            if CHANGES.load(Ordering::Relaxed) == change
                && let Some(first) = first
            {
                set(first);
            }
        });
    }
    Ok(())
}

fn set(level: LevelFilter) {
    if let Ok(kept) = LEVEL.lock()
        && let Some((handle, _)) = kept.as_ref()
    {
        let _ = handle.reload(level); // fails only when the subscriber is gone
    }
}

fn parse(text: &str) -> Option<LevelFilter> {
    if text.eq_ignore_ascii_case("trace") {
        return Some(LevelFilter::TRACE);
    }
    use hilum_shared::protocol::Level;
    Some(match Level::parse(text)? {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error | Level::Critical => LevelFilter::ERROR,
    })
}

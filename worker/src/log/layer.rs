//! From an event of `tracing` to a record: its fields, those of its spans, its trace.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hilum_shared::protocol::{Level, LogRecord};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::PANIC_TARGET;
use super::queue::{Patience, Queue};
use crate::heart::unix_now;
use crate::trace::trace_id;

/// The longest message, in bytes, as `log.max_line` by default.
const MAX_MESSAGE: usize = 64 << 10;
/// The longest text of a field, in bytes.
const MAX_TEXT: usize = 4 << 10;
/// Fields of one record, its spans' included: with [`MAX_TEXT`] they stay far below a frame's 1 MiB.
const MAX_FIELDS: usize = 100;

/// A layer of `tracing` that sends each event as a structured record to the node. Does nothing where there is none.
///
/// A field `trace_id`, of the event or of the nearest span that has one, becomes the record's trace; where there is
/// none, that of the task ([`crate::trace`]). Fields of spans are fields of the record; the event's own and those of
/// inner spans win.
#[derive(Clone, Debug)]
pub struct LogLayer {
    pub(super) queue: Option<Arc<Queue>>,
}

impl LogLayer {
    /// Records that were dropped for lack of room, ever.
    pub fn dropped(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.dropped())
    }

    /// Whether records go to a node now; if not, something else must show the events.
    pub fn is_open(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.is_open())
    }
}

/// What a span knows.
struct SpanFields(Collected);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if self.queue.is_none() {
            return;
        }
        // Before the lock: a value's own Debug may do anything, also log.
        let mut collected = Collected::default();
        attributes.record(&mut collected);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(collected));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut collected = Collected::default();
        values.record(&mut collected);
        if let Some(span) = context.span(id)
            && let Some(SpanFields(there)) = span.extensions_mut().get_mut::<SpanFields>()
        {
            collected.inherit(std::mem::take(there));
            *there = collected;
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(queue) = &self.queue else { return };
        let mut collected = Collected::default();
        event.record(&mut collected);
        // From the innermost outwards.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(fields)) = span.extensions().get::<SpanFields>() {
                collected.inherit(fields.clone());
            }
        }
        let metadata = event.metadata();
        let panic = metadata.target() == PANIC_TARGET;
        let patience = if panic { Patience::None } else { Patience::AsSet };
        let level = if panic { Level::Critical } else { level(*metadata.level()) };
        let logger = collected.bridged().unwrap_or_else(|| metadata.target().to_owned());
        let record = LogRecord {
            instance: queue.instance().clone(),
            seq: None,
            at: unix_now(),
            level: level.as_str().to_owned(),
            logger,
            message: collected.message,
            fields: collected.fields,
            trace_id: collected.trace_id.or_else(trace_id),
        };
        // Dropped: counted there. Closed: the stderr layer shows it.
        queue.push(record, patience);
    }
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::TRACE | tracing::Level::DEBUG => Level::Debug,
        tracing::Level::INFO => Level::Info,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::ERROR => Level::Error,
    }
}

#[derive(Clone, Debug, Default)]
struct Collected {
    message: String,
    fields: BTreeMap<String, Value>,
    trace_id: Option<String>,
}

impl Collected {
    /// Takes over what an outer span knows and this does not.
    fn inherit(&mut self, outer: Self) {
        for (name, value) in outer.fields {
            if self.fields.len() >= MAX_FIELDS {
                break;
            }
            self.fields.entry(name).or_insert(value);
        }
        if self.trace_id.is_none() {
            self.trace_id = outer.trace_id;
        }
    }

    /// The logger of an event that came from the `log` crate, whose bridge puts it into fields.
    fn bridged(&mut self) -> Option<String> {
        let logger = self.fields.remove("log.target")?;
        self.fields.retain(|name, _| !name.starts_with("log."));
        logger.as_str().map(str::to_owned)
    }

    fn put(&mut self, field: &Field, value: Value) {
        if self.fields.len() < MAX_FIELDS {
            self.fields.insert(field.name().to_owned(), value);
        }
    }

    fn put_text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = cut(text, MAX_MESSAGE),
            "trace_id" => self.trace_id = Some(cut(text, MAX_TEXT)),
            _ => self.put(field, Value::from(cut(text, MAX_TEXT))),
        }
    }
}

/// Cuts a text that is too long, and shows that it was.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push('…');
    }
    text
}

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record_number(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record_number(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.put(field, number.into()),
            None => self.put_text(field, value.to_string()), // NaN and infinity have no JSON
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        self.put_text(field, text);
    }
}

impl Collected {
    fn record_number(&mut self, field: &Field, value: Value) {
        if field.name() == "trace_id" {
            self.trace_id = Some(value.to_string());
        } else {
            self.put(field, value);
        }
    }
}

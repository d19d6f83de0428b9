//! Lines on stderr, with the trace of their task: a record has it, too.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::trace::trace_id;

/// A format with the task's trace at the end of each line that does not show it already.
pub(super) struct Traced<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(trace) = trace_id() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        if line.contains(&trace) {
            writeln!(writer, "{line}")
        } else {
            writeln!(writer, "{line} trace_id={trace}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[tokio::test]
    async fn a_line_shows_the_trace_of_its_task_once() {
        let lines = Lines::default();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Traced(tracing_subscriber::fmt::format().without_time().with_ansi(false)))
            .with_writer(lines.clone())
            .with_ansi(false);
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        tracing::info!("outside");
        crate::trace::with_trace("abc", async {
            tracing::info!(a = 1, "within");
            tracing::info!(trace_id = "abc", "with its own");
        })
        .await;
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told: Vec<&str> = text.lines().map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(told, ["outside", "within a=1 trace_id=abc", "with its own trace_id=\"abc\""]);
    }
}

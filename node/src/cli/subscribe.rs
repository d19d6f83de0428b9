//! `subscribe`: shows events as they are emitted, beside the services that work on them.

use std::time::Duration;

use hilum_shared::events::{
    Answer, Embedded, EventError, EventSystem as _, MAX_PREFETCH, Subscription,
};
use hilum_shared::wire::Event;
use hilum_shared::wire::message::new_id;
use serde_json::json;

use super::emit;
use super::exit::{CliError, ExitStatus, Outcome};
use super::output::{Stream, Style, printable, reader_gone};
use super::session::Session;

/// The words of `subscribe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum subscribe order.paid\n  \
    hilum subscribe 'order.*' 'user.#'      `*` is one word, `#` any number of words\n  \
    hilum subscribe '#' --json | jq .body\n\n\
    Every subscriber sees every event from now on, and takes none away from the services. Ends with Ctrl-C.")]
pub(crate) struct SubscribeArgs {
    /// Types of events, with wildcards
    #[arg(value_name = "EVENT", required = true)]
    events: Vec<String>,
}

/// How often it is looked whether our reader is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Runs `subscribe`.
pub(crate) fn run(session: &Session, args: &SubscribeArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::failed(format!("starting: {error}")))?;
    runtime.block_on(listen(session, args))
}

/// Shows events; ends when the node does, or with whoever reads.
pub(crate) async fn listen(session: &Session, args: &SubscribeArgs) -> Outcome {
    args.events.iter().try_for_each(|event| emit::check_kind(event))?;
    let place = session.node()?.run_dir.endpoint("events.sock");
    let failed = |error: EventError| CliError::failed(error.to_string());
    let events = Embedded::open(place, None).await;
    let events = events.map_err(|error| CliError::failed(format!("starting: {error}")))?;
    let subscription = Subscription {
        queue: format!("hilum-subscribe-{}", new_id()),
        patterns: args.events.clone(),
        broadcast: true,
        prefetch: Some(MAX_PREFETCH),
        ..Subscription::default()
    };
    let mut subscriber = events.subscribe(subscription).await.map_err(failed)?;
    session.out.detail("subscribed");
    let mut out = session.out.stream();
    loop {
        let Ok(next) = tokio::time::timeout(LOOK, subscriber.next()).await else {
            if reader_gone() {
                return Ok(ExitStatus::Done);
            }
            continue;
        };
        let Some(delivery) = next else {
            return Err(CliError::failed("the subscription has ended"));
        };
        show(session, &delivery.event, &mut out)?;
        out.flush()?;
        delivery.answer(Answer::Done);
    }
}

fn show(session: &Session, event: &Event, out: &mut Stream) -> Result<(), CliError> {
    if session.out.json {
        return out.json(&json!({
            "type": event.kind,
            "headers": event.headers.to_json(),
            "body": event.body.to_json(),
            "source": event.source,
        }));
    }
    let kind = session.out.paint.paint(Style::Good, &printable(&event.kind));
    out.line(&format!("{kind}: {}", printable(&event.body.to_string())))
}

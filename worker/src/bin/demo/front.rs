//! The way in for browsers: HTTP in front of a call.

use std::sync::OnceLock;

use hilum_worker::http::axum::Router;
use hilum_worker::http::axum::extract::{Path, State};
use hilum_worker::http::axum::http::StatusCode;
use hilum_worker::http::axum::routing::get;
use hilum_worker::http::{Config, Server, Serving};
use hilum_worker::prelude::*;
use hilum_worker::trace::trace_id;

/// Shouts for who comes by HTTP: `GET /shout/hello`. `conf/front.yml` gives it its port.
#[derive(Debug, Default)]
pub(crate) struct Front {
    config: Config,
    serving: OnceLock<Serving>,
}

#[interface(config = Config)]
impl Front {
    async fn on_start(&self, ctx: &Context) -> Result<()> {
        let routes = Router::new().route("/shout/{text}", get(shout)).with_state(ctx.clone());
        let bound = Server::new(routes).config(self.config.clone()).bind()?;
        tracing::info!(target: "front", "try http://{}/shout/hello", bound.address());
        let _ = self.serving.set(bound.start(ctx.worker())); // it starts once
        Ok(())
    }

    async fn on_stop(&self, _ctx: &Context) {
        if let Some(serving) = self.serving.get() {
            serving.ended().await;
        }
    }
}

/// One request: the call that it makes has its trace, which the response tells in `X-Trace-Id`.
async fn shout(
    State(ctx): State<Context>,
    Path(text): Path<String>,
) -> Result<String, (StatusCode, String)> {
    let mut demo = ctx.proxy("demo");
    if let Some(trace) = trace_id() {
        demo = demo.trace_id(trace);
    }
    let answer: Result<String, _> = demo.call("shout", args! { text }).await;
    answer.map(|text| text + "\n").map_err(|error| {
        tracing::warn!(target: "front", "not shouted: {error}");
        (StatusCode::BAD_GATEWAY, format!("{error}\n"))
    })
}

//! Calls the echo, and is called itself: one request goes through two services, under one trace.

use std::time::Duration;

use hilum_worker::CallError;
use hilum_worker::prelude::*;
use tokio::time::{interval, sleep};

use crate::echo::EchoProxy;

/// What stands below `interfaces.demo`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DemoConfig {
    /// Whom it calls.
    echo: String,
    /// Seconds between two calls of its own.
    every: f64,
}

impl Default for DemoConfig {
    fn default() -> Self {
        Self { echo: "echo".to_owned(), every: 3.5 }
    }
}

/// What `echo` would not do.
#[derive(Debug, thiserror::Error, Declared)]
#[error("{reason}")]
pub(crate) struct NotShouted {
    reason: String,
}

/// Shouts by way of the echo.
#[derive(Debug, Default)]
pub(crate) struct Demo {
    config: DemoConfig,
}

#[interface(config = DemoConfig)]
impl Demo {
    /// Returns the text in upper case and with an exclamation mark.
    #[rpc(raises(NotShouted))]
    async fn shout(&self, ctx: &Context, text: String) -> Result<String> {
        let echo = EchoProxy::from(ctx.proxy(&self.config.echo).timeout(Duration::from_secs(2)));
        match echo.upper(text).await {
            Ok(upper) => {
                tracing::info!(target: "demo", "shouting");
                let text = format!("{upper}!");
                ctx.emit("demo.shouted", args! { text: &text }).await?;
                Ok(text)
            }
            Err(CallError::Declared(error)) => Err(NotShouted { reason: error.to_string() }.into()),
            Err(CallError::Failed(error)) => Err(error.into()),
        }
    }

    async fn on_start(&self, ctx: &Context) -> Result<()> {
        let period = Duration::try_from_secs_f64(self.config.every)?.max(Duration::from_millis(10));
        tokio::spawn(keep_asking(ctx.clone(), ctx.proxy("demo"), period));
        Ok(())
    }
}

/// Asks for a shout again and again, each under a trace of its own.
async fn keep_asking(ctx: Context, demo: Proxy, period: Duration) {
    let mut ticks = interval(period);
    for request in 1_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = ctx.worker().draining() => return,
        }
        let text = format!("request {request}");
        let asked: Result<String, _> = demo.new_trace().call("shout", args! { text }).await;
        match asked {
            Ok(answer) => {
                ctx.worker().set_status(answer);
            }
            Err(_) if ctx.worker().drain().is_some() => return,
            Err(error) => {
                tracing::warn!(target: "demo", "not answered: {error}");
                sleep(period).await; // echo may be starting
            }
        }
    }
}

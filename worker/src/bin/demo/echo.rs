//! Says things back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hilum_worker::prelude::*;

/// What stands below `interfaces.echo`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EchoConfig {
    /// The longest text that is said back, in characters.
    limit: usize,
}

impl Default for EchoConfig {
    fn default() -> Self {
        Self { limit: 1000 }
    }
}

/// A text of more characters than are said back.
#[derive(Debug, thiserror::Error, Declared)]
#[error("{length} characters are too many: the limit is {limit}")]
pub(crate) struct TextTooLong {
    length: usize,
    limit: usize,
}

/// Says things back.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    config: EchoConfig,
    answered: AtomicU64,
}

#[interface(config = EchoConfig)]
impl Echo {
    /// Returns the text as it is.
    #[rpc(raises(TextTooLong))]
    async fn echo(&self, text: String) -> Result<String, TextTooLong> {
        self.check(&text)?;
        Ok(text)
    }

    /// Returns the text in upper case.
    ///
    /// Takes a fifth of a second, as if it were hard.
    #[rpc(raises(TextTooLong))]
    async fn upper(&self, ctx: &Context, text: String) -> Result<String, TextTooLong> {
        self.check(&text)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let characters = text.chars().count();
        tracing::info!(target: "echo", characters, "said `{text}` in upper case");
        let answered = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
        ctx.worker().set_status(format!("{answered} answered"));
        Ok(text.to_uppercase())
    }

    /// Acknowledges at once, and says when the time is over.
    #[raw_rpc]
    async fn slow(&self, channel: ReplyChannel, seconds: f64) {
        channel.ack().await;
        let Ok(wait) = Duration::try_from_secs_f64(seconds) else { return };
        tokio::time::sleep(wait).await;
        tracing::info!(target: "echo", seconds, "waited");
    }

    async fn on_stop(&self, ctx: &Context) {
        let reason = ctx.worker().drain().map(|drain| drain.reason).unwrap_or_default();
        let answered = self.answered.load(Ordering::Relaxed);
        tracing::info!(target: "echo", reason, answered, "nothing left to do");
    }

    fn check(&self, text: &str) -> Result<(), TextTooLong> {
        let (length, limit) = (text.chars().count(), self.config.limit);
        if length > limit { Err(TextTooLong { length, limit }) } else { Ok(()) }
    }
}

//! Hears what the demo shouts, and has it printed: an event, and work that may wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hilum_worker::prelude::*;

/// Hears shouts. `conf/board.yml` gives it a version.
#[derive(Debug, Default)]
pub(crate) struct Board {
    heard: AtomicU64,
}

#[interface]
impl Board {
    /// Returns how many shouts this process has heard.
    #[rpc]
    async fn heard(&self) -> Result<u64> {
        Ok(self.heard.load(Ordering::Relaxed))
    }

    /// One process of the service gets each event.
    #[event("demo.shouted", retry = 1)]
    async fn on_shouted(&self, ctx: &Context, text: String) -> Result<()> {
        let heard = self.heard.fetch_add(1, Ordering::Relaxed) + 1;
        ctx.worker().set_status(format!("{heard} heard"));
        BoardTasks::from(ctx).print(text).await?;
        Ok(())
    }

    /// Done by the command `worker` only, here by the service `printer`.
    #[task]
    async fn print(&self, text: String) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(100)).await; // as if it had paper
        tracing::info!(target: "board", "printed `{text}`");
        Ok(())
    }
}

//! A worker on the library that behaves as its first argument says.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use hilum_worker::{ServiceResult, Worker};
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    hilum_worker::run(serve).await
}

async fn serve(worker: Worker) -> ServiceResult {
    let what = std::env::args().nth(1).unwrap_or_default();
    let run = worker.contract().run.map_or(0, |run| run.0);
    worker.set_status(format!("as {what}"));
    worker.ready();
    match what.as_str() {
        // Blocks the task that beats, in the first run only.
        "hang" if run == 1 => {
            while !Path::new("hang").exists() {
                sleep(Duration::from_millis(20)).await;
            }
            tracing::warn!("about to hang");
            std::thread::sleep(Duration::from_secs(1000));
        }
        "log" => {
            tracing::debug!("a detail");
            tracing::info!(answer = 42, "a fact");
            tracing::warn!("a doubt");
            tracing::error!("a fault");
        }
        "panic" if run == 1 => panic!("planned"),
        _ => {}
    }
    loop {
        tokio::select! {
            () = worker.reload() => tracing::info!("asked to reload"),
            drain = worker.draining() => {
                tracing::info!("draining: {}", drain.reason);
                if what == "drain" {
                    sleep(Duration::from_millis(700)).await;
                    std::fs::write("drained", "")?;
                }
                return Ok(());
            }
        }
    }
}

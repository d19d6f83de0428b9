//! A worker on the library that behaves as its first argument says.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use hilum_worker::http::axum::{Router, routing::get};
use hilum_worker::http::{Config, Server};
use hilum_worker::{Builder, ServiceResult, Worker};
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut worker = Builder::new();
    if std::env::args().any(|what| what == "leave" || what == "fall") {
        worker = worker.grace(Duration::from_secs(60)); // a slow machine is no reason to give up
    }
    worker.run(serve).await
}

async fn serve(worker: Worker) -> ServiceResult {
    let what = std::env::args().nth(1).unwrap_or_default();
    let run = worker.contract().run.map_or(0, |run| run.0);
    worker.set_status(format!("as {what}"));
    if what == "web" {
        return web(worker).await;
    }
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
        // Ends by itself, or by a panic, with many records that nobody may have read.
        "leave" | "fall" => {
            while !Path::new("leave").exists() {
                sleep(Duration::from_millis(20)).await;
            }
            // More than a socket's buffer holds; what does not fit waits in the library.
            for n in 0..5000 {
                tracing::info!(n, "{:100}", "numbered");
            }
            std::fs::write(format!("written.{}", std::process::id()), "")?;
            // It is there still when its node has been silent for twice as long as it may be.
            let silence = 2 * worker.contract().timeout;
            std::thread::spawn(move || {
                std::thread::sleep(silence);
                std::fs::write(format!("patient.{}", std::process::id()), "")
            });
            assert!(what == "leave", "planned");
            return Ok(());
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

/// Tells who it is, at once or slowly, on the shared socket of `WEB_PORT` or of the name `WEB_SOCKET`.
async fn web(worker: Worker) -> ServiceResult {
    let contract = worker.contract();
    let instance = contract.instance.as_ref().map(ToString::to_string).unwrap_or_default();
    let me = format!("{instance} {}", contract.run.map_or(0, |run| run.0));
    let slowly = me.clone();
    let routes = Router::new().route("/", get(|| async move { me })).route(
        "/slow",
        get(|| async move {
            sleep(Duration::from_millis(100)).await;
            slowly
        }),
    );
    let config = Config {
        port: std::env::var("WEB_PORT").ok().map(|port| port.parse()).transpose()?,
        socket: std::env::var("WEB_SOCKET").ok(),
        ..Config::default()
    };
    let bound = Server::new(routes).config(config).bind()?;
    if !bound.is_shared() {
        return Err("the socket is not shared".into());
    }
    worker.ready();
    bound.serve(&worker).await?;
    Ok(())
}

//! The services of the demo cluster (`conf/demo.yml`): `hilum-demo clock|echo|flaky`.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hilum_worker::{ServiceResult, Worker};
use tokio::time::{interval, sleep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["clock"] => hilum_worker::run(clock).await,
        ["echo"] => hilum_worker::run(echo).await,
        ["flaky"] => hilum_worker::run(flaky).await,
        _ => {
            // A broken stderr changes nothing of the exit code.
            let _ = writeln!(std::io::stderr().lock(), "usage: hilum-demo clock|echo|flaky");
            ExitCode::from(2)
        }
    }
}

/// Says the time every five seconds.
async fn clock(worker: Worker) -> ServiceResult {
    sleep(Duration::from_millis(300)).await; // as if it had something to load
    worker.ready();
    let mut ticks = interval(Duration::from_secs(5));
    let mut count = 0_u64;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
                count += 1;
                worker.set_metric("ticks", count as f64);
                worker.set_status(format!("{count} ticks"));
                let (hour, minute, second) = (now / 3600 % 24, now / 60 % 60, now % 60);
                tracing::info!(target: "clock", count, "it is {hour:02}:{minute:02}:{second:02} UTC");
            }
            () = worker.reload() => tracing::info!(target: "clock", "configuration read again"),
            drain = worker.draining() => {
                tracing::info!(target: "clock", reason = drain.reason, "the clock stops");
                return Ok(());
            }
        }
    }
}

/// Answers a request every few seconds; busy while it does, and done with it before it leaves.
async fn echo(worker: Worker) -> ServiceResult {
    worker.ready();
    for request in 1_u64.. {
        tokio::select! {
            () = sleep(Duration::from_millis(3500 + mixed(request) % 2000)) => {
                let _busy = worker.busy();
                worker.set_status(format!("request {request}"));
                let took = Duration::from_millis(200 + mixed(request) % 400);
                sleep(took).await;
                let trace_id = format!("{:08x}", mixed(request) & 0xffff_ffff);
                let elapsed_ms = took.as_millis() as u64;
                tracing::info!(
                    target: "echo",
                    trace_id,
                    request,
                    elapsed_ms,
                    "answered request {request} in {elapsed_ms} ms"
                );
            }
            drain = worker.draining() => {
                let (reason, requests) = (drain.reason, request - 1);
                tracing::info!(target: "echo", reason, requests, "nothing left to do");
                break;
            }
        }
    }
    Ok(())
}

/// Works for a while, complains, and crashes: after ten to twenty seconds, or `DEMO_PATIENCE` milliseconds.
async fn flaky(worker: Worker) -> ServiceResult {
    worker.ready();
    let run = worker.contract().run.map_or(1, |run| run.0);
    let patience = match std::env::var("DEMO_PATIENCE") {
        Ok(text) => text.parse()?,
        Err(_) => 10_000 + mixed(u64::from(run)) % 10_000,
    };
    tokio::select! {
        () = sleep(Duration::from_millis(patience)) => {}
        _ = worker.draining() => {
            tracing::info!(target: "flaky", "told to leave before it could crash");
            return Ok(());
        }
    }
    tracing::warn!(target: "flaky", run, "this does not look good");
    let sectors: Vec<u64> = Vec::new();
    let sector = sectors.first().expect("the demo's disk has a sector");
    tracing::info!(target: "flaky", sector, "read");
    Ok(())
}

/// A number that differs from process to process and from call to call (splitmix64's last steps).
fn mixed(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(u64::from(std::process::id()) << 20);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

//! The services of the demo cluster (`conf/demo.yml`): `clock` and `flaky` are plain services, `echo` and `demo` interfaces that call
//! one another, `board` one that hears of it by an event and leaves work to others, `front` the way in by HTTP.

mod board;
mod caller;
mod echo;
mod front;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hilum_worker::{Binary, ServiceResult, Worker};
use tokio::time::{interval, sleep};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("clock") => plain(hilum_worker::run(clock)),
        Some("flaky") => plain(hilum_worker::run(flaky)),
        _ => Binary::new("hilum-demo", env!("CARGO_PKG_VERSION"))
            .interface::<echo::Echo>()
            .interface::<caller::Demo>()
            .interface::<board::Board>()
            .interface::<front::Front>()
            .main(),
    }
}

/// Runs a service that has no interface.
fn plain(service: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(service),
        Err(_) => ExitCode::FAILURE, // no descriptor for a runtime: none for words either
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

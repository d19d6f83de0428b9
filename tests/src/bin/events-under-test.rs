//! A service that writes down what it hears, a line each in the file `heard`: who, which handler, what became of it, which event. While a file `hold`
//! is there its handlers do not end.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use hilum_worker::prelude::*;
use tokio::time::sleep;

/// Between two looks for `hold`.
const LOOK: Duration = Duration::from_millis(10);

fn note(ctx: &Context, what: &str, n: u32) -> Result<()> {
    let who = ctx.worker().contract().instance.as_ref().map(ToString::to_string);
    let line = format!("{} {} {what} {n}\n", who.unwrap_or_default(), ctx.interface());
    let mut file = std::fs::File::options().create(true).append(true).open("heard")?;
    Ok(file.write_all(line.as_bytes())?)
}

async fn handle(ctx: &Context, what: &str, n: u32) -> Result<()> {
    note(ctx, &format!("{what}-begun"), n)?;
    while Path::new("hold").exists() {
        sleep(LOOK).await;
    }
    note(ctx, &format!("{what}-done"), n)
}

/// Hears much.
#[derive(Default)]
struct Heard;

#[interface]
impl Heard {
    /// One of us.
    #[event("job.#")]
    async fn on_job(&self, ctx: &Context, n: u32) -> Result<()> {
        handle(ctx, "job", n).await
    }

    /// All of us.
    #[event("all", broadcast)]
    async fn on_all(&self, ctx: &Context, n: u32) -> Result<()> {
        handle(ctx, "all", n).await
    }

    /// One after the other.
    #[event("row", sequential)]
    async fn on_row(&self, ctx: &Context, n: u32) -> Result<()> {
        handle(ctx, "row", n).await
    }

    /// For the command `worker`.
    #[task]
    async fn work(&self, ctx: &Context, n: u32) -> Result<()> {
        handle(ctx, "task", n).await
    }
}

/// Hears little.
#[derive(Default)]
struct Other;

#[interface]
impl Other {
    #[event("job.*")]
    async fn on_job(&self, ctx: &Context, n: u32) -> Result<()> {
        handle(ctx, "job", n).await
    }
}

hilum_worker::main!(Heard, Other);

//! Whoever works here never comes back, until it is mended: by waiting, or without a pause until the gate opens.

use std::time::Duration;

use midair_plugin::{Ctx, Plugin, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let often = Duration::from_millis(2);
    Plugin::new()
        .every(often, "waits", waits)
        .every(often, "spins", |ctx| spins(&ctx))
        .on("paid", |_: u32, ctx| waits(ctx))
        .on("sent", |_: u32, ctx| spins(&ctx))
        .get("/hanging", |_, ctx: Ctx| ctx.counter("hanging").get().wait().map(|count| count.to_string()))
        .get("/open", |_, ctx: Ctx| ctx.counter("gate").add(1).wait().map(|_| "1"))
}

fn hangs() -> bool {
    midair_fixtures::variant() != "mended"
}

async fn waits(ctx: Ctx) -> Result<()> {
    if hangs() {
        ctx.counter("hanging").add(1).await?;
        ctx.sleep(Duration::from_secs(3600)).await?;
    }
    Ok(())
}

fn spins(ctx: &Ctx) -> Result<()> {
    if hangs() {
        ctx.counter("hanging").add(1).wait()?;
    }
    while hangs() && ctx.counter("gate").get().wait()? == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

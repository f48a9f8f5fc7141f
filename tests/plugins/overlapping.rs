//! Jobs whose beats wait until they may go on.

use std::time::Duration;

use midair_plugin::{Beat, Ctx, Every, Overlap, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let (often, seldom) = (Every::new(Duration::from_millis(2)), Every::new(Duration::from_millis(20)));
    Plugin::new()
        .every(Duration::from_millis(2), "skips", wait)
        .every_with(often.overlap(Overlap::Queue), "queues", |_: Beat, ctx| wait(ctx))
        .every_with(seldom.overlap(Overlap::Parallel), "beside", |_: Beat, ctx| wait(ctx))
        .get("/open", open)
}

async fn wait(ctx: Ctx) -> Result<()> {
    while ctx.counter("open").get().await? == 0 {
        ctx.sleep(Duration::from_millis(2)).await?;
    }
    Ok(())
}

async fn open(_: Request, ctx: Ctx) -> Result<String> {
    Ok(ctx.counter("open").add(1).await?.to_string())
}

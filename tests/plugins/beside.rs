//! Whatever goes on beside a request says that it began, and a while after it was told of the end that it ended; but not when a
//! request to `/hold` came before.

use midair_plugin::{Beat, Ctx, Every, On, Overlap, Plugin, Request, Result};
use std::time::Duration;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .get("/begin", begin)
        .get("/hold", |_, ctx: Ctx| ctx.counter("hold").add(1).wait().map(|_| "held"))
        .get("/wait", |_, ctx: Ctx| async move {
            wait(&ctx, "the request").await;
            "told"
        })
        .task("declared", |ctx: Ctx| async move { wait(&ctx, "the task").await })
        .task("lazy", |_| std::future::pending::<()>())
        .every_with(Every::new(Duration::from_millis(5)).overlap(Overlap::Queue), "beat", |_: Beat, ctx: Ctx| async move {
            wait(&ctx, "a beat").await
        })
        .on_with(On::new("numbers").queue(8), |number: u64, ctx: Ctx| async move { wait(&ctx, &format!("message {number}")).await })
}

async fn begin(_: Request, ctx: Ctx) -> Result<&'static str> {
    for number in 1..=3_u64 {
        ctx.emit("numbers", &number).await?;
    }
    let inside = ctx.clone();
    drop(ctx.spawn(async move { wait(&inside, "what was spawned").await }));
    drop(ctx.spawn_free("free", |ctx| async move { wait(&ctx, "what is free").await }));
    Ok("begun")
}

async fn wait(ctx: &Ctx, what: &str) {
    ctx.info(format!("{what} began"));
    ctx.retiring().await;
    if ctx.counter("hold").get().await.unwrap_or(0) > 0 {
        let _ = ctx.sleep(Duration::from_secs(3600)).await;
    }
    let _ = ctx.sleep(Duration::from_millis(200)).await;
    ctx.info(format!("{what} ended"));
}

//! A request that runs until another one says that it may end.

use midair_fixtures::variant;
use midair_plugin::{Ctx, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| variant()).get("/long", long).get("/end", end)
}

async fn long(_: Request, ctx: Ctx) -> Result<String> {
    ctx.info("has begun");
    while ctx.counter("end").get().await? == 0 {
        ctx.sleep(std::time::Duration::from_millis(5)).await?;
    }
    let called = ctx.call(Request::build("GET", "/").finish()?).await?;
    Ok(format!("{} {} {}", variant(), ctx.generation(), called.text()))
}

async fn end(_: Request, ctx: Ctx) -> Result<String> {
    Ok(ctx.counter("end").add(1).await?.to_string())
}

//! Says each number to the host, which may keep it waiting there.

use midair_fixtures::variant;
use midair_plugin::{Ctx, On, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let at_once = if variant() == "one at once" { 1 } else { 3 };
    let plugin = if variant() == "without numbers" { Plugin::new() } else { Plugin::new().on("numbers", heard) };
    plugin
        .on_with(On::new("few").queue(4), heard)
        .on_with(On::new("many").queue(20).at_once(at_once), heard)
        .get("/", |_, _| if variant() == "2" { "2" } else { "1" })
        .get("/try", |_, ctx: Ctx| ctx.try_emit("few", &100).wait().map(|()| "emitted"))
        .get("/wait", |_, ctx: Ctx| ctx.emit("few", &101).wait().map(|()| "emitted"))
        .get("/await", later)
}

async fn later(_: Request, ctx: Ctx) -> Result<&'static str> {
    ctx.emit("few", &102).await?;
    Ok("emitted")
}

async fn heard(number: u64, ctx: Ctx) -> Result<()> {
    match number {
        1_000_404 => Err(midair_plugin::Error::internal("on purpose")),
        1_000_500 => panic!("on purpose"),
        1_000_999 => std::future::pending().await,
        _ => ctx.service("heard").call(&number).await,
    }
}

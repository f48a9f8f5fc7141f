//! A request that waits for longer than any test.

use midair_fixtures::variant;
use midair_plugin::{Ctx, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| variant()).get("/wait", wait)
}

async fn wait(_: Request, ctx: Ctx) -> Result<&'static str> {
    ctx.info("waiting");
    ctx.sleep(std::time::Duration::from_secs(600)).await?;
    Ok(variant())
}

//! A request that sleeps until a file is there, which its environment names.

use midair_plugin::{Ctx, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/sleep", sleep)
}

async fn sleep(_: Request, ctx: Ctx) -> Result<&'static str> {
    ctx.info("sleeps");
    let wake = std::env::var("WAKE")?;
    while !std::path::Path::new(&wake).exists() {
        ctx.sleep(std::time::Duration::from_millis(5)).await?;
    }
    Ok("slept")
}

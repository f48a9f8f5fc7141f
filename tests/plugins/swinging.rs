//! Stamps (generation, variant) before and after it waits, and of a nested call.

use midair_plugin::{Ctx, Json, Plugin, Request, Result};
use serde_json::{Value, json};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/now", |_, ctx| Json(stamp(&ctx))).get("/later", later)
}

fn stamp(ctx: &Ctx) -> Value {
    json!([ctx.generation(), variant()])
}

async fn later(_: Request, ctx: Ctx) -> Result<Json<Value>> {
    let before = stamp(&ctx);
    ctx.sleep(std::time::Duration::from_millis(3)).await?;
    let nested = ctx.call(Request::build("GET", "/now").finish()?).await?.json::<Value>()?;
    Ok(Json(json!([before, nested, stamp(&ctx)])))
}

fn variant() -> u64 {
    midair_fixtures::variant().parse().unwrap_or(u64::MAX)
}

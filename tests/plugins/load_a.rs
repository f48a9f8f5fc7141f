//! Stamps (generation, variant), and asks the other one, `load_b`, for its variant.

use midair_plugin::{Ctx, Json, Plugin, Request, Result};
use serde_json::{Value, json};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/pair", pair).get("/slow/{ms}", slow)
}

fn stamp(ctx: &Ctx) -> Value {
    json!([ctx.generation(), variant()])
}

async fn ask_b(ctx: &Ctx) -> Result<Value> {
    Ok(json!(ctx.call(Request::build("GET", "/b").finish()?).await?.json::<u64>()?))
}

async fn pair(_: Request, ctx: Ctx) -> Result<Json<Value>> {
    Ok(Json(json!({ "stamps": [stamp(&ctx)], "b": ask_b(&ctx).await? })))
}

async fn slow(req: Request, ctx: Ctx) -> Result<Json<Value>> {
    let before = stamp(&ctx);
    ctx.sleep(std::time::Duration::from_millis(req.param("ms")?)).await?;
    Ok(Json(json!({ "stamps": [before, stamp(&ctx)], "b": ask_b(&ctx).await? })))
}

fn variant() -> u64 {
    midair_fixtures::variant().parse().unwrap_or(u64::MAX)
}

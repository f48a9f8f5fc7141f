//! Says something in `init`, which fails in one of its variants, and asks the services of the host.

use midair_plugin::{Ctx, Error, Json, Plugin, Request, Result};
use serde_json::{Value, json};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().init(init).on("ready", ready).get("/ask/{name}", ask)
}

fn init(ctx: Ctx) -> Result<()> {
    for number in 0..3_u32 {
        ctx.emit("ready", &(ctx.generation(), number)).wait()?;
    }
    if midair_fixtures::variant() == "fails" { Err(Error::internal("on purpose")) } else { Ok(()) }
}

fn ready((generation, number): (u64, u32), ctx: Ctx) -> Result<()> {
    ctx.service("note").call(&(generation, ctx.generation(), number)).wait()
}

async fn ask(req: Request, ctx: Ctx) -> Json<Value> {
    let answer = ctx.service(&req.param::<String>("name").unwrap_or_default()).call::<_, Value>(&21).await;
    Json(answer.unwrap_or_else(|error| json!(error.to_string())))
}

//! Makes memory on one side that the other side reads and lets go, in every way there is.

use std::time::Duration;

use midair_fixtures::variant;
use midair_plugin::{Ctx, IntoResponse, Json, Plugin, Request, Response, Result, StatusCode};
use serde_json::{Value, json};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .table::<Value>("values")
        .init(|ctx| {
            ctx.counter("inits").add(1).wait()?;
            Ok(())
        })
        .post("/values/{key}", put)
        .get("/values/{key}", get)
        .get("/called/{key}", called)
        .get("/panic", |req: Request, _| -> &'static str { panic!("a string for {}", req.path()) })
        .get("/error", |_, _| -> Result<&'static str> {
            let _: u32 = "x".parse()?;
            Ok("")
        })
        .get("/version", |_, _| variant())
}

async fn put(req: Request, ctx: Ctx) -> Result<StatusCode> {
    ctx.sleep(Duration::from_millis(1)).await?;
    ctx.table("values").put(&req.param::<String>("key")?, &req.json::<Value>()?).await?;
    Ok(StatusCode::CREATED)
}

async fn get(req: Request, ctx: Ctx) -> Result<Response> {
    let value = ctx.table::<Value>("values").get(&req.param::<String>("key")?).await?;
    ctx.info(format!("found {value:?}"));
    Json(json!({ "value": value })).into_response().header("x-made", "there")
}

async fn called(req: Request, ctx: Ctx) -> Result<Response> {
    ctx.call(Request::build("GET", &format!("/values/{}", req.param::<String>("key")?)).finish()?).await
}

//! Answers in ways that HTTP has rules for.

use midair_plugin::{Ctx, Plugin, Request, Response, Result, StatusCode};
use serde::Deserialize;
use std::time::Duration;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .get("/lies", |_, _| -> Result<Response> {
            Response::new(StatusCode::OK, "abc")
                .header("content-length", "50")?
                .header("transfer-encoding", "chunked")?
                .header("connection", "close")?
                .header("x-kept", "yes")
        })
        .get("/early", |_, _| StatusCode::EARLY_HINTS)
        .get("/nothing", |_, _| StatusCode::NO_CONTENT)
        .get("/hello", |_, _| "hello")
        .get("/query", |req: Request, _| -> Result<String> { Ok(req.query::<Asked>()?.q) })
        .post("/take", |req: Request, _| req.body().len().to_string())
        .get("/large", |_, _| vec![b'x'; 60 << 20])
        .get("/slow/{gate}", slow)
}

#[derive(Deserialize)]
struct Asked {
    q: String,
}

/// Is done when the file named is there.
async fn slow(req: Request, ctx: Ctx) -> Result<&'static str> {
    let gate: String = req.param("gate")?;
    while !std::path::Path::new(&gate).exists() {
        ctx.sleep(Duration::from_millis(5)).await?;
    }
    Ok("done")
}

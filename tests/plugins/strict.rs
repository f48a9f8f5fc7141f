//! Takes what makes sense, and nothing else.

use midair_plugin::{Ctx, Plugin, Request, Result, StatusCode};

midair_plugin::export!(plugin);

#[derive(serde::Deserialize)]
struct Order {
    count: u32,
}

fn plugin() -> Plugin {
    Plugin::new()
        .get("/", |_, _| "home")
        .post("/orders", order)
        .get("/items/{name}", item)
        .get("/page", page)
        .post("/echo", |req: Request, _| req.body().len().to_string())
        .get("/none", |_, _| StatusCode::NO_CONTENT)
}

async fn order(req: Request, _: Ctx) -> Result<String> {
    Ok(req.json::<Order>()?.count.to_string())
}

fn item(req: Request, _: Ctx) -> Result<String> {
    req.param("name")
}

fn page(req: Request, _: Ctx) -> Result<String> {
    Ok(req.query::<Order>()?.count.to_string())
}

//! A table of carts, which each variant stores in another form or doesn't declare, a cell, a counter, and an `init` that may fail.

use midair_fixtures::variant;
use midair_plugin::{Ctx, Error, Json, Plugin, Request, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

midair_plugin::export!(plugin);

#[derive(Serialize, Deserialize)]
struct Cart<T> {
    items: Vec<T>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    name: String,
    count: u32,
}

#[derive(Serialize, Deserialize)]
struct ItemInWords {
    name: String,
    count: String,
}

#[derive(Serialize, Deserialize)]
struct ItemWithNote {
    name: String,
    #[serde(default)]
    note: String,
    count: u64,
}

fn plugin() -> Plugin {
    let plugin = Plugin::new();
    match variant() {
        "in words" => routes::<ItemInWords>(plugin.table::<Cart<ItemInWords>>("carts")),
        "with notes" => routes::<ItemWithNote>(plugin.table::<Cart<ItemWithNote>>("carts")),
        "undeclared" => routes::<Item>(plugin),
        "undeclared, in words" => routes::<ItemInWords>(plugin),
        "panics while put together" => panic!("while put together"),
        _ => routes::<Item>(plugin.table::<Cart<Item>>("carts")),
    }
}

fn routes<T: Serialize + DeserializeOwned + Send + Sync + 'static>(plugin: Plugin) -> Plugin {
    plugin
        .init(init)
        .get("/carts/{key}", get::<T>)
        .post("/carts/{key}", put::<T>)
        .get("/hits", |_, ctx: Ctx| ctx.counter("hits").add(1).wait().map(|hits| hits.to_string()))
        .get("/started", |_, ctx: Ctx| ctx.counter("started").get().wait().map(|started| started.to_string()))
}

fn init(ctx: Ctx) -> Result<()> {
    match variant() {
        "init fails" => {
            ctx.counter("started").add(100).wait()?;
            return Err(Error::internal("no stock"));
        }
        "init fails by an error of std" => {
            "many".parse::<u32>()?;
        }
        "init panics" => {
            ctx.counter("started").add(100).wait()?;
            panic!("at the start");
        }
        "mended" => drop(ctx.counter("mended").add(1).wait()?),
        _ => {}
    }
    ctx.counter("started").add(1).wait()?;
    Ok(())
}

async fn get<T: Serialize + DeserializeOwned>(req: Request, ctx: Ctx) -> Result<Json<Option<Cart<T>>>> {
    Ok(Json(ctx.table::<Cart<T>>("carts").get(&req.param::<String>("key")?).await?))
}

async fn put<T: Serialize + DeserializeOwned>(req: Request, ctx: Ctx) -> Result<()> {
    ctx.table::<Cart<T>>("carts").put(&req.param::<String>("key")?, &req.json::<Cart<T>>()?).await?;
    Ok(())
}

//! Many values of a type that is migrated: variant `new` reads what `old` wrote, and the other way round.

use midair_plugin::{Ctx, Json, Plugin, Request, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

midair_plugin::export!(plugin);

#[derive(Serialize, Deserialize)]
struct Old {
    url: String,
}

#[derive(Serialize, Deserialize)]
struct New {
    urls: Vec<String>,
}

fn plugin() -> Plugin {
    let plugin = Plugin::new().get("/", |_, _| "here");
    if midair_fixtures::variant() == "new" {
        let table = plugin.table::<New>("links").migrate(|old: Old| New { urls: vec![old.url] });
        let table = table.reverse(|new: &New| Old { url: new.urls.concat() });
        let make = |n| New { urls: vec![format!("v{n}")] };
        table.post("/fill/{from}/{to}", move |req, ctx| fill(req, ctx, make)).get("/links/{n}", get::<New>)
    } else {
        let make = |n| Old { url: format!("u{n}") };
        plugin.table::<Old>("links").post("/fill/{from}/{to}", move |req, ctx| fill(req, ctx, make)).get("/links/{n}", get::<Old>)
    }
}

async fn fill<T: Serialize + DeserializeOwned>(req: Request, ctx: Ctx, make: fn(u32) -> T) -> Result<()> {
    let links = ctx.table::<T>("links");
    let numbers = req.param::<u32>("from")?..req.param::<u32>("to")?;
    let batch = numbers.fold(ctx.batch(), |batch, n| batch.put(&links, &format!("{n:08}"), &make(n)));
    batch.commit().await?;
    Ok(())
}

async fn get<T: Serialize + DeserializeOwned>(req: Request, ctx: Ctx) -> Result<Json<Option<T>>> {
    Ok(Json(ctx.table::<T>("links").get(&format!("{:08}", req.param::<u32>("n")?)).await?))
}

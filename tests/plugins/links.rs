//! A table of links: each variant stores them in another form, or reads the form before in another way.

use std::time::Duration;

use midair_fixtures::word;
use midair_plugin::{Ctx, Json, Plugin, Request, Result, StatusCode};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

midair_plugin::export!(plugin);

/// A form in which a link is stored.
trait Form: Serialize + DeserializeOwned + Send + Sync + 'static {
    fn of(url: String) -> Self;
}

#[derive(Serialize, Deserialize)]
struct First {
    url: String,
}

#[derive(Serialize, Deserialize)]
struct Second {
    urls: Vec<String>,
}

/// As the first one, which it reads slowly, and at one value not at all.
#[derive(Serialize)]
struct Slow {
    url: String,
}

/// As the first one, which can't be read at one value.
#[derive(Serialize, Deserialize)]
struct Even {
    #[serde(deserialize_with = "even")]
    url: String,
}

impl Form for First {
    fn of(url: String) -> Self {
        Self { url }
    }
}

impl Form for Second {
    fn of(url: String) -> Self {
        Self { urls: vec![url] }
    }
}

impl Form for Slow {
    fn of(url: String) -> Self {
        Self { url }
    }
}

impl<'de> Deserialize<'de> for Slow {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let First { url } = First::deserialize(from)?;
        std::thread::sleep(Duration::from_millis(12));
        if url == "u57" { Err(Error::custom("an odd link")) } else { Ok(Self { url }) }
    }
}

fn even<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    let url = String::deserialize(from)?;
    pause();
    if url == "u57" { Err(Error::custom("an odd link")) } else { Ok(url) }
}

/// As many milliseconds as the variant's second word says.
fn pause() {
    std::thread::sleep(Duration::from_millis(word(1).parse().unwrap_or(0)));
}

fn plugin() -> Plugin {
    let plugin = Plugin::new();
    match word(0) {
        "plain" => routes::<Second>(plugin.table::<Second>("links")),
        "one-way" => routes::<Second>(plugin.table::<Second>("links").migrate(up)),
        "both-ways" => {
            routes::<Second>(plugin.table::<Second>("links").migrate(up).reverse(|new: &Second| First { url: new.urls.join(" ") }))
        }
        "slow" => routes::<Slow>(plugin.table::<Slow>("links")),
        "panics" => routes::<Second>(plugin.table::<Second>("links").migrate(|old: First| {
            pause();
            assert!(old.url != "u57", "an odd link");
            up(old)
        })),
        "fails" => routes::<Second>(plugin.table::<Second>("links").migrate(|old: Even| Second { urls: vec![old.url] })),
        _ => routes::<First>(plugin.table::<First>("links")),
    }
}

fn up(old: First) -> Second {
    Second { urls: vec![old.url] }
}

fn routes<T: Form>(plugin: Plugin) -> Plugin {
    plugin
        .get("/links/{key}", get::<T>)
        .post("/links/{key}", put::<T>)
        .post("/brief/{key}", brief::<T>)
        .post("/fill/{count}", fill::<T>)
        .get("/count", count::<T>)
        .get("/fail", |_, _| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn get<T: Form>(req: Request, ctx: Ctx) -> Result<Json<Option<T>>> {
    Ok(Json(ctx.table::<T>("links").get(&req.param::<String>("key")?).await?))
}

async fn put<T: Form>(req: Request, ctx: Ctx) -> Result<()> {
    ctx.table::<T>("links").put(&req.param::<String>("key")?, &req.json::<T>()?).await?;
    Ok(())
}

async fn brief<T: Form>(req: Request, ctx: Ctx) -> Result<()> {
    ctx.table::<T>("links").put_for(&req.param::<String>("key")?, &req.json::<T>()?, Duration::from_millis(50)).await?;
    Ok(())
}

async fn fill<T: Form>(req: Request, ctx: Ctx) -> Result<()> {
    let links = ctx.table::<T>("links");
    for chunk in (0..req.param::<u32>("count")?).collect::<Vec<_>>().chunks(1_000) {
        let put = |batch: midair_plugin::Batch, n: &u32| batch.put(&links, &format!("{n:08}"), &T::of(format!("u{n}")));
        chunk.iter().fold(ctx.batch(), put).commit().await?;
    }
    Ok(())
}

async fn count<T: Form>(_: Request, ctx: Ctx) -> Result<String> {
    Ok(ctx.table::<T>("links").count().await?.to_string())
}

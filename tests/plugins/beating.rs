//! Writes down each beat of `rank`, with its number and its generation; one that comes twice is counted.

use std::time::Duration;

use midair_fixtures::word;
use midair_plugin::{Beat, Ctx, Every, Json, Overlap, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    // The period in milliseconds, and what else there is.
    let every = Every::new(Duration::from_millis(word(0).parse().unwrap_or(0))).overlap(Overlap::Parallel);
    let plugin = Plugin::new().get("/log", log);
    match word(1) {
        "without" => plugin,
        "other" => plugin.every_with(every, "rank", rank).get("/other", |_, _| "2"),
        _ => plugin.every_with(every, "rank", rank),
    }
}

async fn rank(beat: Beat, ctx: Ctx) -> Result<()> {
    let log = ctx.table::<u64>("log");
    if !log.insert(&format!("{:09}", beat.number), &ctx.generation()).await? {
        ctx.counter("twice").add(1).await?;
    }
    Ok(())
}

async fn log(_: Request, ctx: Ctx) -> Result<Json<(Vec<(String, u64)>, i64)>> {
    Ok(Json((ctx.table::<u64>("log").scan("").await?, ctx.counter("twice").get().await?)))
}

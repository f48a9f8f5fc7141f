//! Greets as its config says; by its variant it needs more of the config, or has more routes and hooks.

use midair_plugin::{Ctx, Error, Plugin, Request, Result};

midair_plugin::export!(plugin);

#[derive(serde::Deserialize)]
struct Settings {
    #[serde(default)]
    greeting: String,
    #[serde(default)]
    limits: Limits,
}

#[derive(Default, serde::Deserialize)]
struct Limits {
    max: u32,
}

#[derive(serde::Deserialize)]
struct NeedsFirst {
    first: String,
}

#[derive(serde::Deserialize)]
struct NeedsSecond {
    second: String,
}

#[derive(serde::Deserialize)]
struct NeedsMore {
    needed: String,
}

fn plugin() -> Plugin {
    let greeter = || Plugin::new().config::<Settings>().get("/", greet).get("/long", long).get("/end", end);
    match midair_fixtures::variant() {
        "first" => Plugin::new().config::<NeedsFirst>().get("/first", |_, ctx: Ctx| ctx.config::<NeedsFirst>().first.clone()),
        "second" => Plugin::new().config::<NeedsSecond>().get("/second", |_, ctx: Ctx| ctx.config::<NeedsSecond>().second.clone()),
        "needed" => Plugin::new().config::<NeedsMore>().get("/needed", |_, ctx: Ctx| ctx.config::<NeedsMore>().needed.clone()),
        // It asks for what it doesn't declare.
        "undeclared" => Plugin::new().get("/", greet),
        "minds" => greeter().init(init).selftest("greets", greets).smoke("GET /", 200),
        "bad" => greeter().get("/bad", |_, _| -> &str { panic!("on trial") }),
        "other" => greeter().get("/other", |_, _| "other code"),
        _ => greeter(),
    }
}

fn greet(_: Request, ctx: Ctx) -> String {
    let settings = ctx.config::<Settings>();
    format!("{} {}", settings.greeting, settings.limits.max)
}

async fn long(_: Request, ctx: Ctx) -> Result<String> {
    let before = ctx.config::<Settings>();
    ctx.info("has begun");
    while ctx.counter("end").get().await? == 0 {
        ctx.sleep(std::time::Duration::from_millis(5)).await?;
    }
    let called = ctx.call(Request::build("GET", "/").finish()?).await?;
    Ok(format!("{} {} {}", before.greeting, ctx.config::<Settings>().greeting, called.text()))
}

async fn end(_: Request, ctx: Ctx) -> Result<String> {
    Ok(ctx.counter("end").add(1).await?.to_string())
}

fn init(ctx: Ctx) -> Result<()> {
    let max = ctx.config::<Settings>().limits.max;
    if max < 10 { Ok(()) } else { Err(Error::internal(format!("max is {max}, which is too much"))) }
}

fn greets(ctx: Ctx) -> Result<()> {
    let answer = ctx.call(Request::build("GET", "/").finish()?).wait()?;
    let own = format!("{} {}", ctx.config::<Settings>().greeting, ctx.config::<Settings>().limits.max);
    if answer.text() == own && own.starts_with("real") { Ok(()) } else { Err(Error::internal(answer.text().to_owned())) }
}

//! Counts its starts. Its `init`, unlike the probe's, writes, and comes to the end that its variant names behind the folder; where that isn't
//! the usual one, it starts a thread before that goes on to try all that can be asked for, once the file `late` is in the folder.

use std::fs;
use std::path::Path;
use std::time::Duration;

use midair_fixtures::{variant, word};
use midair_plugin::{Ctx, Error, Plugin, Request, Result};
use serde_json::json;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().init(init).get("/state", state).post("/touch", touch)
}

fn folder() -> &'static Path {
    Path::new(word(0))
}

fn init(ctx: Ctx) -> Result<()> {
    if ctx.is_probe() {
        return Ok(());
    }
    ctx.counter("starts").add(1).wait()?;
    let of = ctx.cell::<u32>("of");
    of.set(&1).wait()?;
    match variant().split_once(' ').map_or("", |(_, end)| end) {
        "hangs" => {
            of.set(&2).wait()?;
            go_on(&ctx);
            while !folder().join("end").exists() {
                std::thread::yield_now();
            }
            Ok(())
        }
        "fails" => {
            of.set(&3).wait()?;
            go_on(&ctx);
            Err(Error::internal("no stock"))
        }
        "panics" => {
            of.set(&4).wait()?;
            go_on(&ctx);
            panic!("at the start")
        }
        "starts with 5" => of.set(&5).wait().map(drop),
        _ => Ok(()),
    }
}

fn go_on(ctx: &Ctx) {
    let ctx = ctx.clone();
    std::thread::spawn(move || {
        while !folder().join("late").exists() {
            std::thread::yield_now();
        }
        let call = Request::build("POST", "/touch").finish().map(|request| ctx.call(request).wait().err());
        let tried = [
            ("add", ctx.counter("starts").add(100).wait().err()),
            ("read", ctx.counter("starts").get().wait().err()),
            ("set", ctx.cell::<u32>("of").set(&100).wait().err()),
            ("put", ctx.table::<u32>("table").put("late", &100).wait().err()),
            ("sleep", ctx.sleep(Duration::from_millis(1)).wait().err()),
            ("call", call.unwrap_or_else(Some)),
        ];
        let told: Vec<_> = tried.iter().map(|(what, error)| (what, error.as_ref().map(|error| error.to_string()))).collect();
        fs::write(folder().join("tried.new"), json!(told).to_string()).expect("a file");
        fs::rename(folder().join("tried.new"), folder().join("tried")).expect("a file");
    });
}

fn state(_: Request, ctx: Ctx) -> Result<String> {
    let (starts, touched) = (ctx.counter("starts").get().wait()?, ctx.counter("touched").get().wait()?);
    Ok(json!([starts, ctx.cell::<u32>("of").get().wait()?, ctx.table::<u32>("table").get("late").wait()?, touched]).to_string())
}

fn touch(_: Request, ctx: Ctx) -> Result<()> {
    ctx.counter("touched").add(1).wait()?;
    Ok(())
}

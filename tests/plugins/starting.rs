//! What may go wrong, or well, in the hooks that run before a publish: by its variant.

use std::process::Command;
use std::time::Duration;

use midair_plugin::{Ctx, Error, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let plugin = Plugin::new().get("/", |_, _| "bad").get("/inits", |_, ctx: Ctx| count(&ctx));
    match midair_fixtures::variant() {
        "init fails" => plugin.init(|_| fail("no stock")),
        "init panics" => plugin.init(|_| -> Result<()> { panic!("at the start") }),
        "init hangs" => plugin.init(|_| -> Result<()> { hang() }),
        "init exits" => plugin.init(|_| -> Result<()> { std::process::exit(3) }),
        "init takes all memory" => plugin.init(|_| fail(Vec::<u8>::with_capacity(std::hint::black_box(6 << 30)).capacity())),
        "init fails in the host" => plugin.init(|ctx: Ctx| {
            ctx.counter("inits").add(1).wait()?;
            ctx.info("init runs");
            if ctx.is_probe() { Ok(()) } else { fail("not in here") }
        }),
        "init starts processes" => plugin.init(start_processes),
        "init is fine" => plugin.init(|_| Ok(())),
        "a route twice" => plugin.init(|_| -> Result<()> { Ok(()) }).get("/", |_, _| "twice"),
        "smoke makes no sense" => plugin.smoke("healthz", 200),
        "self-test fails" => plugin.selftest("fine", |_| Ok(())).selftest("stock", |ctx| {
            ctx.warn("counted");
            fail("seven are missing")
        }),
        "self-test panics" => plugin.selftest("stock", |_| panic!("no shelf")),
        "self-test aborts" => plugin.selftest("stock", |_| std::process::abort()),
        "self-test hangs" => plugin.selftest("stock", |_| hang()),
        "smoke fails" => {
            let healthz = |_, _| -> Result<String> { Err(Error::internal("no stock")) };
            plugin.get("/healthz", healthz).smoke("GET /healthz", 200)
        }
        "smoke of another method" => plugin.smoke("POST /", 200),
        "smoke hangs" => plugin.get("/never", |_, _| std::future::pending::<()>()).smoke("GET /never", 200),
        "all of it" => all_of_it(plugin),
        other => panic!("there is no variant {other:?}"),
    }
}

fn count(ctx: &Ctx) -> String {
    ctx.counter("inits").get().wait().map_or_else(|error| error.to_string(), |inits| inits.to_string())
}

fn fail(why: impl ToString) -> Result<()> {
    Err(Error::internal(why.to_string()))
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn start_processes(ctx: Ctx) -> Result<()> {
    let version = Command::new("/proc/self/exe").arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with("midair ") {
        return fail(format!("it said {version:?}"));
    }
    let sleeper = Command::new("sleep").arg("3600").spawn()?;
    ctx.info(format!("sleeper {}", sleeper.id()));
    std::process::abort()
}

fn all_of_it(plugin: Plugin) -> Plugin {
    let inits = |ctx: Ctx| {
        ctx.counter("inits").add(1).wait()?;
        Ok(())
    };
    let routes = |ctx: Ctx| {
        ctx.counter("inits").add(10).wait()?;
        let answer = ctx.call(Request::build("GET", "/inits").finish()?).wait()?.text();
        if ctx.is_probe() && answer == "11" { Ok(()) } else { fail(answer) }
    };
    let smoked = plugin.init(inits).selftest("routes", routes).get("/later", later);
    smoked.smoke("GET /later?by=20", 200).smoke("HEAD /nowhere", 404)
}

async fn later(_: Request, ctx: Ctx) -> Result<&'static str> {
    ctx.sleep(Duration::from_millis(20)).await?;
    ctx.counter("inits").add(100).await?;
    Ok("later")
}

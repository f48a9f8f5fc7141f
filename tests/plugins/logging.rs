//! Logs in all ways there are.

use std::fmt;
use std::time::Duration;

use midair_fixtures::word;
use midair_plugin::{Ctx, Plugin, Request, Result};
use tracing::Instrument;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    tracing::info!("put together");
    Plugin::new()
        .get(&path("fields"), fields)
        .get(&path("levels"), levels)
        .get(&path("record"), |_, _| {
            log::warn!(target: &format!("{}::records", word(0)), "{} record, {}", if word(2) == "another" { "another" } else { "a" }, 7);
            log::debug!("none");
            "done"
        })
        .get(&path("ctx"), |_, ctx| {
            ctx.warn("by ctx");
            "done"
        })
        .get(&path("debug"), |_, _| {
            tracing::info!(value = ?Chatty, "outer");
            "done"
        })
        .get(&path("thread"), |_, _| {
            std::thread::spawn(|| LAST.with(|_| ())).join().expect("it ends");
            "done"
        })
        .get(&path("forgets"), |_, _| {
            std::mem::forget(tracing::info_span!("forgotten").entered());
            "done"
        })
        .get(&path("plain"), |_, _| {
            tracing::info!("plain");
            "done"
        })
        .get(&path("panic"), |_, _| -> &'static str { panic!("on purpose") })
        .get(&path("too_much"), |_, _| {
            tracing::error!("too much");
            log::error!("too much");
            "done"
        })
        .get(&path("too_wide"), |_, _| {
            tracing::info_span!("too wide").in_scope(|| tracing::info!("within"));
            "done"
        })
        .get(&path("last_too_much"), |_, _| {
            std::thread::spawn(|| WORST.with(|_| ())).join().expect("it ends");
            "done"
        })
        .get(&path("flood/{from}/{to}"), flood)
        .get(&path("late/{file}"), late)
        .get(&path("spans/{n}"), spans)
        .get(&path("work"), work)
}

fn fields(_: Request, _: Ctx) -> &'static str {
    let failed = fmt_error();
    let failed: &(dyn std::error::Error + 'static) = &failed;
    tracing::warn!(
        target: "billing", signed = -7_i64, unsigned = u64::MAX, float = 1.5, truth = true, text = "words", debug = ?Some(1),
        display = %"shown", failed, missing = tracing::field::Empty, "all {}", "kinds"
    );
    "done"
}

#[derive(Debug)]
struct Failed(std::num::ParseIntError);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it failed")
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

fn fmt_error() -> Failed {
    Failed("x".parse::<u8>().expect_err("no number"))
}

fn levels(_: Request, _: Ctx) -> &'static str {
    tracing::trace!("a level");
    tracing::debug!("a level");
    tracing::info!("a level");
    tracing::warn!("a level");
    tracing::error!("a level");
    "done"
}

struct Chatty;

impl fmt::Debug for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tracing::info!("inner");
        f.write_str("chatty")
    }
}

struct Last;

impl Drop for Last {
    fn drop(&mut self) {
        tracing::info!("a thread ends");
    }
}

struct Worst;

impl Drop for Worst {
    fn drop(&mut self) {
        tracing::error!("too much");
    }
}

thread_local! {
    static LAST: Last = const { Last };
    static WORST: Worst = const { Worst };
}

/// Records of ever other targets: each is a callsite of its own.
fn flood(req: Request, _: Ctx) -> Result<&'static str> {
    for n in req.param::<u32>("from")?..req.param::<u32>("to")? {
        log::info!(target: &format!("flood::{n}"), "record {n}");
    }
    Ok("done")
}

/// Logs on a thread that holds nothing of the host's, when the file named is there.
fn late(req: Request, _: Ctx) -> Result<&'static str> {
    let file = req.param::<String>("file")?;
    std::thread::spawn(move || {
        while !std::path::Path::new(&file).exists() {
            std::thread::sleep(Duration::from_millis(1))
        }
        tracing::info!(variant = variant(), "an event, late");
        tracing::info_span!("span of late").in_scope(|| log::warn!("a record, late"));
        LAST.with(|_| ());
    });
    Ok("done")
}

async fn spans(req: Request, ctx: Ctx) -> Result<&'static str> {
    let n: u64 = req.param("n")?;
    let request = tracing::info_span!("request", n, later = tracing::field::Empty);
    let recorded = request.clone();
    async move {
        tracing::info!(n, "before");
        for _ in 0..3 {
            ctx.sleep(Duration::from_millis(5)).await?;
            async { ctx.sleep(Duration::from_millis(1)).await.map(|()| tracing::info!(n, "inside")) }
                .instrument(tracing::info_span!("inner"))
                .await?;
        }
        recorded.record("later", "recorded");
        tracing::info!(parent: &recorded, n, "after");
        tracing::info!(parent: None, n, "apart");
        Ok("done")
    }
    .instrument(request)
    .await
}

async fn work(_: Request, ctx: Ctx) -> Result<String> {
    async {
        ctx.sleep(Duration::from_micros(10)).await?;
        tracing::info!(variant = variant(), "worked");
        Ok(ctx.generation().to_string())
    }
    .instrument(tracing::info_span!("work"))
    .await
}

/// A path of this plugin's: the first word of the variant tells plugins of one host apart.
fn path(rest: &str) -> String {
    format!("/{}/{rest}", word(0))
}

fn variant() -> u64 {
    word(1).parse().unwrap_or(1)
}

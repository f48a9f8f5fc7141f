//! Says its variant at `/`, and behaves as it says at `/x`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use midair_fixtures::variant;
use midair_plugin::{Ctx, Error, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| variant()).get("/x", x).get("/wait", wait).get("/die", |request, _| die(request.query_str()))
}

async fn x(request: Request, ctx: Ctx) -> Result<&'static str> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    // What takes its time whichever code asks for it.
    if let Some(milliseconds) = request.header("x-takes").and_then(|header| header.parse().ok()) {
        ctx.sleep(Duration::from_millis(milliseconds)).await?;
    }
    match variant() {
        // One in fifty, from the first one on.
        "panics" if calls.is_multiple_of(50) => panic!("one in fifty"),
        "slow" => ctx.sleep(Duration::from_millis(100)).await?,
        "fails" => return Err(Error::internal("always")),
        _ => {}
    }
    Ok(variant())
}

/// Ends the process, in one of the ways in which code does.
fn die(how: &str) -> String {
    match how {
        "overflow" => deeper(0).to_string(),
        "thread" => format!("{:?}", std::thread::spawn(|| -> u8 { std::process::abort() }).join()),
        "panics" => {
            let _ends = Ends;
            panic!("and once more while it unwinds")
        }
        _ => std::process::abort(),
    }
}

#[allow(unconditional_recursion, reason = "it is to overflow the stack")]
fn deeper(level: u64) -> u64 {
    std::hint::black_box([level; 64])[0] + deeper(level + 1)
}

struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        panic!("while another one unwinds");
    }
}

async fn wait(_: Request, ctx: Ctx) -> Result<&'static str> {
    ctx.info("waiting");
    ctx.sleep(Duration::from_secs(600)).await?;
    Ok(variant())
}

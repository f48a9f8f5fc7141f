//! Panics in every place there is, at the start if its variant says so. The lines that do are found by the comments behind them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use midair_fixtures::variant;
use midair_plugin::{Bytes, Ctx, Plugin, Request, Result, StatusCode};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let noisy = Noisy;
    Plugin::new()
        .init(init)
        .get("/", |_, _| "alive")
        .get("/text", |_, _| text())
        .get("/string", string)
        .get("/any", |_, _| -> &'static str { std::panic::panic_any(7_u32) }) // any
        .get("/bomb", bomb)
        .get("/later", later)
        .get("/late_drop", late_drop)
        .get("/ready_drop", |_, _| Dropping { is_ready: true })
        .get("/given_up", |_, _| Dropping { is_ready: false })
        .get("/index", |_, _| index(&[]).to_string())
        .get("/thread", |_, _| thread())
        .get("/body", |_, _| Bytes::from_owner(Body))
        .get("/waker", waker)
        .get("/kept", move |_, _| {
            let _ = &noisy;
            "kept"
        })
}

fn init(_: Ctx) -> Result<()> {
    if variant() == "starts badly" {
        panic!("at the start") // start
    }
    Ok(())
}

#[inline(never)]
fn text() -> &'static str {
    total(3)
}

#[inline(never)]
fn total(count: u32) -> &'static str {
    if count > 0 {
        panic!("a text") // text
    }
    "none"
}

fn string(req: Request, _: Ctx) -> &'static str {
    panic!("a string for {}", req.path()) // string
}

struct Bomb(u8);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Bomb(self.0 - 1))
        }
    }
}

fn bomb(_: Request, _: Ctx) -> &'static str {
    std::panic::panic_any(Bomb(2)) // bomb
}

async fn later(_: Request, ctx: Ctx) -> Result<String> {
    ctx.sleep(Duration::from_millis(1)).await?;
    deep().await;
    Ok(String::new())
}

async fn deep() {
    panic!("later") // later
}

struct Noisy;

impl Drop for Noisy {
    fn drop(&mut self) {
        panic!("in a drop") // drop
    }
}

async fn late_drop(_: Request, ctx: Ctx) -> Result<String> {
    let _noisy = Noisy;
    ctx.sleep(Duration::from_millis(1)).await?;
    Ok("answered".to_owned())
}

/// A future that panics when it is dropped, done or not.
struct Dropping {
    is_ready: bool,
}

impl Future for Dropping {
    type Output = StatusCode;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StatusCode> {
        if self.is_ready { Poll::Ready(StatusCode::OK) } else { Poll::Pending }
    }
}

impl Drop for Dropping {
    fn drop(&mut self) {
        panic!("a future's drop") // future
    }
}

struct Body;

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        b"a body"
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        panic!("a body's drop") // body
    }
}

/// Hands the host a waker that panics, and waits until the host has used it.
fn waker(_: Request, ctx: Ctx) -> &'static str {
    struct Bad(AtomicBool);
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
            panic!("in a waker") // waker
        }
    }
    let bad = Arc::new(Bad(false.into()));
    let mut sleep = Box::pin(async move { ctx.sleep(Duration::from_millis(1)).await });
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&bad.clone().into())).is_pending());
    while !bad.0.load(Ordering::SeqCst) {
        std::thread::yield_now()
    }
    "woken"
}

#[inline(never)]
fn index(list: &[u32]) -> u32 {
    list[list.len() + 2] // index
}

fn thread() -> &'static str {
    std::thread::spawn(|| panic!("in a thread")).join().err().map_or("fine", |_| "joined") // thread
}

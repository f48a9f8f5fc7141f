//! What does a panic cost, and what is told of it?

use midair_tests::host::{Launch, Midair};
use midair_tests::project::Project;
use serde_json::Value;

/// Panics in every place there is. The lines that do are looked for by their comments.
const SOURCE: &str = r#"
use std::pin::Pin;
use std::task::{Context, Poll};
use midair_plugin::{Ctx, Plugin, Request, Result, StatusCode};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let noisy = Noisy;
    Plugin::new()
        .init(|ctx| {
            if ctx.counter("starts").add(1).wait()? == -1 { starts_badly() }
            Ok(())
        })
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
        .get("/body", |_, _| midair_plugin::Bytes::from_owner(Body))
        .get("/waker", waker)
        .get("/kept", move |_, _| { let _ = &noisy; "kept" })
}

fn starts_badly() { panic!("at the start") }

#[inline(never)]
fn text() -> &'static str { total(3) }

#[inline(never)]
fn total(count: u32) -> &'static str {
    if count > 0 { panic!("a text") } // text
    "none"
}

fn string(req: Request, _: Ctx) -> &'static str { panic!("a string for {}", req.path()) } // string

struct Bomb(u8);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 { std::panic::panic_any(Bomb(self.0 - 1)) }
    }
}

fn bomb(_: Request, _: Ctx) -> &'static str { std::panic::panic_any(Bomb(2)) } // bomb

async fn later(_: Request, ctx: Ctx) -> Result<String> {
    ctx.sleep(std::time::Duration::from_millis(1)).await?;
    deep().await;
    Ok(String::new())
}

async fn deep() { panic!("later") } // later

struct Noisy;

impl Drop for Noisy {
    fn drop(&mut self) { panic!("in a drop") } // drop
}

async fn late_drop(_: Request, ctx: Ctx) -> Result<String> {
    let _noisy = Noisy;
    ctx.sleep(std::time::Duration::from_millis(1)).await?;
    Ok("answered".to_owned())
}

/// A future that panics when it is dropped, done or not.
struct Dropping { is_ready: bool }

impl Future for Dropping {
    type Output = StatusCode;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StatusCode> {
        if self.is_ready { Poll::Ready(StatusCode::OK) } else { Poll::Pending }
    }
}

impl Drop for Dropping {
    fn drop(&mut self) { panic!("a future's drop") } // future
}

struct Body;

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] { b"a body" }
}

impl Drop for Body {
    fn drop(&mut self) { panic!("a body's drop") } // body
}

/// Hands the host a waker that panics, and waits until the host has used it.
fn waker(_: Request, ctx: Ctx) -> &'static str {
    struct Bad(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Bad {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            panic!("in a waker") // waker
        }
    }
    let bad = std::sync::Arc::new(Bad(false.into()));
    let mut sleep = Box::pin(async move { ctx.sleep(std::time::Duration::from_millis(1)).await });
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&bad.clone().into())).is_pending());
    while !bad.0.load(std::sync::atomic::Ordering::SeqCst) { std::thread::yield_now() }
    "woken"
}

#[inline(never)]
fn index(list: &[u32]) -> u32 { list[list.len() + 2] } // index

fn thread() -> &'static str {
    std::thread::spawn(|| panic!("in a thread")).join().err().map_or("fine", |_| "joined") // thread
}
"#;

/// The line of `SOURCE` that ends with the comment `mark`.
fn line(mark: &str) -> usize {
    SOURCE.lines().position(|line| line.ends_with(&format!("// {mark}"))).expect("a marked line") + 1
}

#[track_caller]
fn panicked(midair: &mut Midair) -> Value {
    midair.wait_for("panicked", |event| event["event"] == "panicked")
}

/// Waits until new code serves and its private copy is whole: the names of frames stand at its end, and the host waits for them for
/// a moment and no longer.
#[track_caller]
fn published(midair: &mut Midair) {
    midair.published();
    midair.wait_for("committed", |event| event["event"] == "committed");
}

fn frames(event: &Value) -> Vec<&str> {
    event["frames"].as_array().map(|frames| frames.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[test]
fn fault_18_g10_a_panic_of_any_kind_costs_a_500_and_its_frames_name_the_plugin_s_lines() {
    let project = Project::plugin("wall", SOURCE);
    let mut midair = Launch::dev(&[project.root()]).arg("--request-timeout").arg("20").start();
    published(&mut midair);
    let mut requests = 0;
    for (path, message, mark, functions) in [
        ("/text", "a text", "text", &["wall::total", "wall::text", "wall::plugin"][..]),
        ("/string", "a string for /string", "string", &["wall::string"]),
        ("/any", "a payload that is no text", "any", &["wall::plugin"]),
        ("/bomb", "a payload that is no text", "bomb", &["wall::bomb"]),
        ("/later", "later", "later", &["wall::deep", "wall::later"]),
        ("/late_drop", "in a drop", "drop", &["<wall::Noisy as core::ops::drop::Drop>::drop"]),
        ("/ready_drop", "a future's drop", "future", &["<wall::Dropping as core::ops::drop::Drop>::drop"]),
        ("/index", "index out of bounds: the len is 0 but the index is 2", "index", &["wall::index", "wall::plugin"]),
    ] {
        let answer = midair.get(path);
        assert_eq!((answer.status, answer.generation()), (500, 1), "{path}: {answer:?}");
        assert!(answer.body.contains(message), "{path}: {answer:?}");
        let event = panicked(&mut midair);
        requests += 1;
        assert_eq!((event["message"].as_str(), event["generation"].as_u64()), (Some(message), Some(1)), "{event}");
        assert!(event["handler"].as_str().is_some_and(|handler| handler.starts_with("wall::")), "{event}");
        let place = format!("src/lib.rs:{}", line(mark));
        assert!(event["location"].as_str().is_some_and(|at| at.starts_with(&format!("{place}:"))), "{path}: {event}");
        let frames = frames(&event);
        assert!(frames.first().is_some_and(|frame| frame.ends_with(&format!("({place})"))), "{path}: {event:#}");
        let mut rest = frames.iter();
        for function in functions {
            assert!(rest.any(|frame| frame.starts_with(function)), "{path}: {function} isn't in its place in {event:#}");
        }
        let last = frames.last().copied().unwrap_or_default();
        assert!(!last.starts_with("midair_plugin") && !last.contains("catch_unwind"), "{path}: {event:#}");
        let status = midair.status();
        let serving = &status["plugins"][0];
        assert_eq!((&serving["panics"], &serving["generation"]), (&requests.into(), &1.into()), "{status}");
        assert_eq!(midair.get("/").body, "alive", "after {path}");
    }
    assert!(midair.terminate().status.success());
}

#[test]
fn fault_18_g10_a_panic_that_no_request_waits_for_is_told_too() {
    let project = Project::plugin("aside", SOURCE);
    let mut midair = Launch::dev(&[project.root()]).arg("--request-timeout").arg("0.2").arg("--keep").arg("0").start();
    published(&mut midair);
    let told = |midair: &mut Midair, message: &str, mark: &str| {
        let event = panicked(midair);
        assert_eq!((event["message"].as_str(), event["handler"].as_str()), (Some(message), Some("")), "{event}");
        assert_eq!((event["plugin"].as_str(), event["generation"].as_u64()), (Some("aside"), Some(1)), "{event}");
        let place = format!("(src/lib.rs:{})", line(mark));
        assert!(frames(&event).iter().any(|frame| frame.ends_with(&place)), "{event:#}");
    };
    // Its request is over when the future is dropped.
    assert!(matches!(midair.get("/given_up").status, 503 | 504));
    told(&mut midair, "a future's drop", "future");
    assert_eq!(midair.get("/thread").body, "joined");
    told(&mut midair, "in a thread", "thread");
    assert_eq!(midair.get("/body").body, "a body");
    told(&mut midair, "a body's drop", "body");
    assert_eq!(midair.get("/waker").body, "woken");
    told(&mut midair, "in a waker", "waker");
    let status = midair.status();
    assert_eq!((&status["plugins"][0]["panics"], &status["plugins"][0]["census"]["panics"]), (&0.into(), &4.into()), "{status}");
    // Dropped with the plugin: what its handlers hold.
    assert_eq!(midair.get("/kept").body, "kept");
    project.save("src/lib.rs", &super::dev::saying("two"));
    midair.published();
    told(&mut midair, "in a drop", "drop");
    assert_eq!(midair.get("/").body, "two");
    assert!(midair.terminate().status.success());
}

#[test]
fn fault_18_g10_a_panic_in_init_rejects_and_names_the_line() {
    let project = Project::plugin("badstart", &SOURCE.replace("== -1 {", "> 0 {"));
    let mut midair = Launch::dev(&[project.root()]).start();
    let rejected = midair.rejected("E_INIT");
    let place = SOURCE.lines().position(|line| line.contains("at the start")).expect("a line") + 1;
    let reason = rejected["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&format!("at the start at src/lib.rs:{place}:")), "{rejected}");
    project.save("src/lib.rs", &super::dev::saying("mended"));
    midair.published();
    assert_eq!(midair.get("/").body, "mended");
}

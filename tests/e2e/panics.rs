//! What does a panic cost, and what is told of it?

use midair_tests::fixture::{self, Placed};
use midair_tests::host::{Launch, Midair};
use midair_tests::repository;
use serde_json::Value;

/// The plugin that panics in every place there is.
const FILE: &str = "tests/plugins/exploding.rs";

/// The line that ends with the comment `mark`, as places are told.
#[track_caller]
fn place(mark: &str) -> String {
    let source = repository::read(FILE);
    let line = source.lines().position(|line| line.ends_with(&format!("// {mark}"))).expect("a marked line") + 1;
    format!("{FILE}:{line}")
}

/// A host that tells of breaches only, as in development.
fn launch(placed: &Placed) -> Launch {
    Launch::run(&[&placed.path]).arg("--on-breach").arg("report").arg("--generation-header")
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
    let placed = fixture::artifact("exploding").placed();
    let mut midair = launch(&placed).arg("--request-timeout").arg("20").start();
    published(&mut midair);
    let mut requests = 0;
    for (path, message, mark, functions) in [
        ("/text", "a text", "text", &["exploding::total", "exploding::text", "exploding::plugin"][..]),
        ("/string", "a string for /string", "string", &["exploding::string"]),
        ("/any", "a payload that is no text", "any", &["exploding::plugin"]),
        ("/bomb", "a payload that is no text", "bomb", &["exploding::bomb"]),
        ("/later", "later", "later", &["exploding::deep", "exploding::later"]),
        ("/late_drop", "in a drop", "drop", &["<exploding::Noisy as core::ops::drop::Drop>::drop"]),
        ("/ready_drop", "a future's drop", "future", &["<exploding::Dropping as core::ops::drop::Drop>::drop"]),
        ("/index", "index out of bounds: the len is 0 but the index is 2", "index", &["exploding::index", "exploding::plugin"]),
    ] {
        let answer = midair.get(path);
        assert_eq!((answer.status, answer.generation()), (500, 1), "{path}: {answer:?}");
        assert!(!answer.body.contains(message), "in development alone whoever asks is told: {path}: {answer:?}");
        let event = panicked(&mut midair);
        requests += 1;
        assert_eq!((event["message"].as_str(), event["generation"].as_u64()), (Some(message), Some(1)), "{event}");
        assert!(event["handler"].as_str().is_some_and(|handler| handler.starts_with("exploding::")), "{event}");
        let place = place(mark);
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
    let placed = fixture::artifact("exploding").named("aside").placed();
    let mut midair = launch(&placed).arg("--request-timeout").arg("0.2").arg("--keep").arg("0").start();
    published(&mut midair);
    let told = |midair: &mut Midair, message: &str, mark: &str| {
        let event = panicked(midair);
        assert_eq!((event["message"].as_str(), event["handler"].as_str()), (Some(message), Some("")), "{event}");
        assert_eq!((event["plugin"].as_str(), event["generation"].as_u64()), (Some("aside"), Some(1)), "{event}");
        let place = format!("({})", place(mark));
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
    fixture::artifact("saying").named("aside").variant("two").save_in(placed.folder());
    midair.published();
    told(&mut midair, "in a drop", "drop");
    assert_eq!(midair.get("/").body, "two");
    assert!(midair.terminate().status.success());
}

#[test]
fn fault_18_g10_a_panic_in_init_rejects_and_names_the_line() {
    let placed = fixture::artifact("exploding").named("badstart").variant("starts badly").placed();
    let mut midair = launch(&placed).start();
    let rejected = midair.rejected("E_INIT");
    let reason = rejected["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&format!("at the start at {}:", place("start"))), "{rejected}");
    fixture::artifact("saying").named("badstart").variant("mended").save_in(placed.folder());
    midair.published();
    assert_eq!(midair.get("/").body, "mended");
}

//! Do plugins work that were built in another way than the host?

use std::fs;
use std::process::Command;

use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use midair_tests::repository;
use serde_json::json;

use crate::run::left_out;

/// Makes memory on one side that the other side reads and lets go, in every way there is.
const SOURCE: &str = "
use midair_plugin::{Ctx, IntoResponse, Json, Plugin, Request, Response, Result, StatusCode};
use serde_json::{Value, json};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .table::<Value>(\"values\")
        .init(|ctx| { ctx.counter(\"inits\").add(1).wait()?; Ok(()) })
        .post(\"/values/{key}\", put)
        .get(\"/values/{key}\", get)
        .get(\"/called/{key}\", called)
        .get(\"/panic\", |req: Request, _| -> &'static str { panic!(\"a string for {}\", req.path()) })
        .get(\"/error\", |_, _| -> Result<&'static str> { let _: u32 = \"x\".parse()?; Ok(\"\") })
        .get(\"/version\", |_, _| \"version 1\")
}

async fn put(req: Request, ctx: Ctx) -> Result<StatusCode> {
    ctx.sleep(std::time::Duration::from_millis(1)).await?;
    ctx.table(\"values\").put(&req.param::<String>(\"key\")?, &req.json::<Value>()?).await?;
    Ok(StatusCode::CREATED)
}

async fn get(req: Request, ctx: Ctx) -> Result<Response> {
    let value = ctx.table::<Value>(\"values\").get(&req.param::<String>(\"key\")?).await?;
    ctx.info(format!(\"found {value:?}\"));
    Ok(Json(json!({ \"value\": value })).into_response().header(\"x-made\", \"there\")?)
}

async fn called(req: Request, ctx: Ctx) -> Result<Response> {
    ctx.call(Request::build(\"GET\", &format!(\"/values/{}\", req.param::<String>(\"key\")?)).finish()?).await
}
";

/// Keeps a header before each block, so that memory that is freed on the wrong side is noticed at once: by whoever frees it.
const ALLOCATOR: &str = "
mod allocator {
    use std::alloc::{GlobalAlloc, Layout, System};

    struct Marked;

    #[global_allocator]
    static GLOBAL: Marked = Marked;

    const MARK: u64 = 0x006d_6964_6169_7221;

    fn widened(layout: Layout) -> (Layout, usize) {
        Layout::new::<u64>().extend(layout).expect(\"small enough\")
    }

    unsafe impl GlobalAlloc for Marked {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let (wide, offset) = widened(layout);
            let start = unsafe { System.alloc(wide.pad_to_align()) };
            if start.is_null() {
                return start;
            }
            let block = unsafe { start.add(offset) };
            unsafe { block.sub(8).cast::<u64>().write_unaligned(MARK) };
            block
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            let (wide, offset) = widened(layout);
            let mark = unsafe { block.sub(8).cast::<u64>() };
            if unsafe { mark.read_unaligned() } != MARK {
                std::process::abort();
            }
            unsafe { mark.write_unaligned(0) };
            unsafe { System.dealloc(block.sub(offset), wide.pad_to_align()) }
        }
    }
}
";

/// Asks for everything, often enough that memory is used again.
#[track_caller]
fn works(midair: &Midair) {
    let http = midair.http();
    for round in 0..50 {
        let value = json!({ "round": round, "text": "x".repeat(round * 40) });
        assert_eq!(http.post(&format!("/values/{round}"), &value).status, 201, "{}", midair.story());
        for path in ["/values", "/called"] {
            let answer = http.get(&format!("{path}/{round}"));
            assert_eq!((answer.status, answer.header("x-made")), (200, Some("there")));
            assert_eq!(answer.json(), json!({ "value": value }));
        }
        assert_eq!((http.get("/panic").status, http.get("/error").status), (500, 500));
    }
}

#[test]
fn a_plugin_with_an_allocator_of_its_own_is_served_and_swapped() {
    let source = format!("{SOURCE}{ALLOCATOR}");
    let project = Project::plugin("allocates", &source);
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    works(&midair);
    project.save("src/lib.rs", &source.replace("version 1", "version 2"));
    midair.published();
    assert_eq!(midair.get("/version").body, "version 2");
    works(&midair);
    assert_eq!(midair.get("/values/7").json()["value"]["round"], 7);
    // A retired generation's memory is let go by its own side, too.
    project.save("src/lib.rs", &SOURCE.replace("version 1", "version 3"));
    midair.published();
    works(&midair);
    assert_eq!(midair.terminate().status.code(), Some(0));
}

#[test]
#[ignore = "tests/long builds"]
fn a_plugin_built_by_the_nightly_compiler_is_served_or_refused_with_a_reason() {
    let nightly = || {
        let mut cargo = Command::new("rustup");
        // What this test's own cargo says would win otherwise.
        cargo.args(["run", "nightly", "cargo"]).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("CARGO");
        cargo
    };
    if !nightly().arg("-V").output().is_ok_and(|output| output.status.success()) {
        left_out("there is no nightly compiler here");
        return;
    }
    let project = Project::plugin("nightly", SOURCE);
    let folder = tempfile::tempdir().expect("a folder");
    let path = project.build_with(nightly(), &repository::shared_target().join("nightly"), folder.path()).remove(0);
    let bytes = fs::read(&path).expect("it was built");
    let words = String::from_utf8_lossy(&bytes).contains("nightly");
    assert!(words, "it was built by the nightly compiler");
    let mut midair = Launch::run(&[&path]).start();
    let outcome = midair.outcome();
    if outcome["event"] == "published" {
        works(&midair);
        project::save(&path, &bytes);
    } else {
        assert!(outcome["code"].is_string() && outcome["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{outcome}");
    }
    assert_eq!(midair.terminate().status.code(), Some(0));
}

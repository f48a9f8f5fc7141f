//! Does what needs a tokio of its own work in a plugin, and does it end with its generation?

use std::fs;
use std::path::Path;

use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use midair_tests::size;
use serde_json::Value;

use crate::inside::until;

const DEPENDENCIES: &str = r#"futures-util = { version = "0.3", default-features = false, features = ["async-await-macro", "std"] }
reqwest = { version = "0.12", default-features = false }
sqlx = { version = "0.8", default-features = false, features = ["runtime-tokio", "sqlite"] }
tokio = { version = "1", features = ["fs", "macros", "rt", "sync", "time"] }"#;

const SOURCE: &str = r#"
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use midair_plugin::{Ctx, Plugin, Request, Result};
use sqlx::Row;

midair_plugin::export!(plugin);

const VERSION: &str = "one";

fn plugin() -> Plugin {
    Plugin::new()
        .get("/", |_, _| VERSION)
        .get("/fetch", fetch)
        .get("/sqlite", sqlite)
        .get("/file", file)
        .get("/wakers", wakers)
        .get("/spawned", spawned)
        .get("/sync", |_, _| tokio::runtime::Handle::current().block_on(async { VERSION }))
}

/// Asks the server whose address the query is, for `/`.
async fn fetch(req: Request, _: Ctx) -> Result<String> {
    let address = req.query_str().to_owned();
    Ok(reqwest::get(format!("http://{address}/")).await?.text().await?)
}

async fn sqlite(_: Request, _: Ctx) -> Result<String> {
    let pool = sqlx::sqlite::SqlitePool::connect("sqlite::memory:").await?;
    sqlx::query("create table t (n integer)").execute(&pool).await?;
    for n in 1..=4 {
        sqlx::query("insert into t values (?)").bind(n).execute(&pool).await?;
    }
    let sum: i64 = sqlx::query("select sum(n) from t").fetch_one(&pool).await?.try_get(0)?;
    pool.close().await;
    Ok(format!("{sum}"))
}

async fn file(_: Request, _: Ctx) -> Result<String> {
    let text = tokio::fs::read_to_string("/proc/self/comm").await?;
    Ok(text.trim().to_owned())
}

/// Wakers of every kind: of select!, of sets of futures, of channels, of tokio's timer and of the host's.
async fn wakers(_: Request, ctx: Ctx) -> Result<String> {
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let sender = ctx.spawn(async move {
        for n in 0..20 {
            tokio::time::sleep(Duration::from_micros(100)).await;
            if send.send(n).await.is_err() { break }
        }
    });
    let mut all: FuturesUnordered<_> = (0..20u64).map(|n| { let ctx = ctx.clone(); async move {
        if n % 2 == 0 { tokio::time::sleep(Duration::from_millis(n)).await } else { ctx.sleep(Duration::from_millis(n)).await? }
        Ok::<_, midair_plugin::Error>(n)
    }}).collect();
    let (mut received, mut done) = (0, 0);
    while received < 20 || done < 20 {
        tokio::select! {
            Some(_) = receive.recv(), if received < 20 => received += 1,
            Some(n) = all.next(), if done < 20 => { n?; done += 1 }
        }
    }
    sender.await?;
    Ok(format!("{received} {done}"))
}

async fn spawned(_: Request, _: Ctx) -> Result<String> {
    Ok(tokio::spawn(async { tokio::time::sleep(Duration::from_millis(1)).await; VERSION.to_owned() }).await?)
}
"#;

/// The artifacts of two versions of a plugin with a tokio of its own.
fn two(name: &str, source: &str, dependencies: &str, folder: &Path) -> [Vec<u8>; 2] {
    ["one", "two"].map(|version| {
        let project = Project::plugin(name, &source.replace("\"one\"", &format!("{version:?}")));
        fs::read(&project.with_dependencies("tokio", dependencies).build_to(folder)[0]).expect("it was built")
    })
}

#[test]
#[ignore = "tests/long builds"]
fn a_plugin_with_a_tokio_of_its_own_fetches_asks_a_database_reads_files_and_is_swapped() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = two("own-tokio", SOURCE, DEPENDENCIES, folder.path());
    let path = folder.path().join("libserved.so");
    project::save(&path, &artifacts[0]);
    // Committed after its first answer: so there is something to go back to.
    let mut midair = Launch::run(&[&path]).arg("--probation").arg("0").arg("--probation-requests").arg("1").start();
    midair.published();
    works(&midair, "one");
    project::save(&path, &artifacts[1]);
    midair.published();
    works(&midair, "two");
    let rollback = midair.client(&["rollback"]).output().expect("it runs");
    assert!(rollback.status.success(), "{}", String::from_utf8_lossy(&rollback.stderr));
    works(&midair, "one");
}

fn works(midair: &Midair, version: &str) {
    let fetch = format!("/fetch?{}", midair.http().0);
    let expected =
        [("/", version), (&fetch, version), ("/sqlite", "10"), ("/wakers", "20 20"), ("/spawned", version), ("/sync", version)];
    for (path, expected) in expected {
        let answer = midair.get(path);
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{path}: {}", midair.story());
    }
    assert!(midair.get("/file").body.starts_with("midair"), "its name is the host's");
}

/// Threads, descriptors and tasks of the process, but for the threads that answer whoever asks for this.
fn has(midair: &Midair) -> [usize; 3] {
    let entries = |folder: &str| fs::read_dir(format!("/proc/{}/{folder}", midair.pid())).into_iter().flatten().flatten();
    let is_admin =
        |thread: &fs::DirEntry| fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "midair-admin\n");
    let tasks = midair.status()["tasks"].as_array().map_or(0, Vec::len);
    [entries("task").filter(|thread| !is_admin(thread)).count(), entries("fd").count(), tasks]
}

const TIME: &str = "tokio = { version = \"1\", features = [\"time\"] }";

const SMALL: &str = r#"
use midair_plugin::{Ctx, Plugin, Request, Result};
use std::time::Duration;

midair_plugin::export!(plugin);

const VERSION: &str = "one";

fn plugin() -> Plugin {
    Plugin::new().get("/", root).task("beat", |ctx: Ctx| async move {
        tokio::spawn(std::future::pending::<()>());
        ctx.retiring().await;
    })
}

async fn root(_: Request, _: Ctx) -> Result<&'static str> {
    Ok(tokio::spawn(async { tokio::time::sleep(Duration::from_micros(50)).await; VERSION }).await?)
}
"#;

const STUBBORN: &str = r#"
use midair_plugin::{Plugin, Request};
use tokio::runtime::Handle;

midair_plugin::export!(plugin);

const VERSION: &str = "one";

/// Needs a tokio to be made and to be dropped, as pools of connections do.
struct Pool(Handle);

impl Pool {
    fn new() -> Self {
        Self(Handle::current())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let there = Handle::try_current().map(|here| here.id() == self.0.id());
        eprintln!("the pool ended inside of its tokio: {:?}", there.ok());
    }
}

fn plugin() -> Plugin {
    let pool = Pool::new();
    tokio::spawn(async {});
    Plugin::new()
        .get("/", move |_: Request, _| format!("{VERSION} {}", pool.0.id() == Handle::current().id()))
        .get("/forgets", |_: Request, _| {
            let here = Handle::current();
            std::mem::forget(here.enter());
            "it stays inside"
        })
}
"#;

#[test]
fn what_a_plugin_has_lives_inside_its_tokio_from_its_function_on_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = two("stubborn", STUBBORN, TIME, folder.path());
    let path = folder.path().join("libserved.so");
    project::save(&path, &artifacts[0]);
    let args = ["--probation", "0", "--probation-requests", "1", "--keep", "0", "--retire-timeout", "0", "--workers", "1"];
    let mut midair = args.iter().fold(Launch::run(&[&path]), |launch, arg| launch.arg(arg)).start();
    midair.published();
    for _ in 0..3 {
        assert_eq!((midair.get("/").body.as_str(), midair.get("/forgets").status), ("one true", 200), "{}", midair.story());
    }
    project::save(&path, &artifacts[1]);
    midair.published();
    assert_eq!(midair.get("/").body, "two true");
    midair.wait_for_stderr("the pool ended inside of its tokio: Some(true)");
    assert!(midair.terminate().status.success());
}

/// Swaps back and forth until the old generations are gone.
fn swap(midair: &mut Midair, path: &Path, artifacts: &[Vec<u8>; 2], swaps: std::ops::Range<usize>) {
    for swap in swaps {
        project::save(path, &artifacts[swap % 2]);
        let published = midair.published();
        assert_eq!(midair.get("/").body, ["one", "two"][swap % 2]);
        // Only then it is known which of those before are let go.
        let is_it = |event: &Value| event["event"] == "committed" && event["generation"] == published["generation"];
        midair.wait_for("its commit", is_it);
    }
    // Their ends come in their own time: old generations are dropped one after the other, beside everything.
    until("the old generations and their threads to be gone", || {
        let generations = midair.admin().get("/generations").json();
        let there = generations["generations"].as_array().cloned().unwrap_or_default();
        let threads: u64 = there.iter().filter_map(|one| one["census"]["threads"].as_u64()).sum();
        there.len() == KEPT && midair.status()["plugins"][0]["census"]["threads"] == threads
    });
}

/// Generations that stay: what serves, and one that is kept.
const KEPT: usize = 2;

fn swaps_leave_nothing(swaps: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let dependencies = TIME;
    let artifacts = two("small-tokio", SMALL, dependencies, folder.path());
    let path = folder.path().join("libserved.so");
    project::save(&path, &artifacts[0]);
    let args = ["--probation", "0", "--probation-requests", "1", "--keep", "1", "--retire-timeout", "0"];
    let mut midair = args.iter().fold(Launch::run(&[&path]), |launch, arg| launch.arg(arg)).start();
    midair.published();
    swap(&mut midair, &path, &artifacts, 1..6);
    // Who looks has connections of its own, which come and go: what stays is what it has at least.
    let least = |one: [usize; 3], other: [usize; 3]| std::array::from_fn(|which| one[which].min(other[which]));
    let few: [usize; 3] = (0..50).map(|_| has(&midair)).reduce(least).expect("some looks");
    swap(&mut midair, &path, &artifacts, 6..swaps + 1);
    let mut many = [usize::MAX; 3];
    until(&format!("no more threads, descriptors and tasks than {few:?}"), || {
        many = least(many, has(&midair));
        many.iter().zip(few).all(|(many, few)| *many <= few)
    });
}

#[test]
fn threads_descriptors_and_tasks_after_many_swaps_are_those_after_five() {
    swaps_leave_nothing(size(50, 500));
}

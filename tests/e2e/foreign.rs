//! Do plugins work that were built in another way than the host?

use std::fs;
use std::process::Command;

use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use midair_tests::repository;
use serde_json::json;

use crate::run::left_out;

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
    let version = |plugin: &str, version| fixture::artifact(plugin).named("allocates").variant(version);
    let placed = version("allocating", "version 1").placed();
    // Some of what is asked for fails, as it should.
    let mut midair = Launch::run(&[&placed.path]).arg("--on-breach").arg("report").start();
    midair.published();
    works(&midair);
    version("allocating", "version 2").save_in(placed.folder());
    midair.published();
    assert_eq!(midair.get("/version").body, "version 2");
    works(&midair);
    assert_eq!(midair.get("/values/7").json()["value"]["round"], 7);
    // A retired generation's memory is let go by its own side, too.
    version("exchanging", "version 3").save_in(placed.folder());
    midair.published();
    assert_eq!(midair.get("/version").body, "version 3");
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
    let project = Project::plugin("nightly", &fixture::source("exchanging", "version 1"));
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

//! What becomes of a plugin's state, and of its start, when its code is replaced?

use std::path::Path;
use std::time::Instant;

use midair_tests::fixture::{self, Fixture, Placed};
use midair_tests::host::{Launch, Midair};
use midair_tests::patience;
use midair_tests::project::save;
use serde_json::{Value, json};

/// A host of the plugin of carts, and the folder of its artifact. What is tried is no trial of answers.
fn serving(name: &str, variant: &str) -> (Placed, Midair) {
    let placed = carts(name, variant).placed();
    let mut midair = Launch::run(&[&placed.path]).arg("--generation-header").arg("--on-breach").arg("report").start();
    midair.published();
    (placed, midair)
}

fn carts(name: &str, variant: &str) -> Fixture {
    fixture::artifact("carts").named(name).variant(variant)
}

#[test]
fn fault_33_a_value_that_new_code_cannot_read_refuses_it_with_key_path_and_expectation() {
    let (placed, mut midair) = serving("carts", "");
    let cart = json!({ "items": [{ "name": "tea", "count": 2 }, { "name": "milk", "count": 1 }] });
    assert_eq!(midair.http().post("/carts/ann", &cart).status, 200);

    carts("carts", "in words").save_in(placed.folder());
    let reason = midair.rejected("E_STATE")["reason"].as_str().unwrap_or_default().to_owned();
    for part in ["carts", "ann", "items[0].count", "string"] {
        assert!(reason.contains(part), "{part} is missing in {reason:?}");
    }
    assert_eq!(midair.get("/carts/ann").json(), cart);

    carts("carts", "with notes").save_in(placed.folder());
    midair.published();
    let newer = json!({ "items": [{ "name": "tea", "note": "", "count": 2 }, { "name": "milk", "note": "", "count": 1 }] });
    assert_eq!(midair.get("/carts/ann").json(), newer);
}

#[test]
fn an_undeclared_table_that_cannot_be_read_is_an_error_of_the_request_that_reads_it() {
    let (placed, mut midair) = serving("undeclared", "undeclared");
    assert_eq!(midair.http().post("/carts/ann", &json!({ "items": [{ "name": "tea", "count": 2 }] })).status, 200);
    carts("undeclared", "undeclared, in words").save_in(placed.folder());
    midair.published();
    assert_eq!(midair.get("/carts/ann").status, 500);
    let failed = midair.wait_for("its error", |event| event["event"] == "failed")["error"].to_string();
    assert!(["ann", "items[0].count", "string"].iter().all(|part| failed.contains(part)), "{failed}");
}

#[test]
fn fault_13_g6_an_init_that_fails_or_panics_is_refused_and_what_it_wrote_never_happened() {
    let (placed, mut midair) = serving("inits", "");
    assert_eq!((midair.get("/started").body.as_str(), midair.get("/hits").body.as_str()), ("1", "1"));
    let generation = midair.get("/started").generation();
    for (variant, words) in
        [("init fails", "no stock"), ("init fails by an error of std", "invalid digit"), ("init panics", "at the start")]
    {
        carts("inits", variant).save_in(placed.folder());
        let rejected = midair.rejected("E_INIT");
        assert!(rejected["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{variant}: {rejected}");
        let answer = midair.get("/started");
        assert_eq!((answer.body.as_str(), answer.generation()), ("1", generation), "{variant}");
    }
    carts("inits", "mended").save_in(placed.folder());
    midair.published();
    assert_eq!((midair.get("/started").body.as_str(), midair.get("/hits").body.as_str()), ("2", "2"));
}

#[test]
fn a_plugin_whose_constructor_function_panics_is_refused() {
    let (placed, mut midair) = serving("constructs", "");
    carts("constructs", "panics while put together").save_in(placed.folder());
    let rejected = midair.wait_for("rejected", |event| event["event"] == "rejected");
    assert!(rejected["reason"].as_str().is_some_and(|reason| reason.contains("while put together")), "{rejected}");
    assert_eq!(midair.get("/hits").body, "1");
}

/// The plugin with a table of links, in one form or another.
fn links(name: &str, variant: &str) -> Vec<u8> {
    fixture::artifact("links").named(name).variant(variant).bytes()
}

fn unreadable(midair: &Midair) -> Value {
    midair.status()["plugins"][0]["unreadable"].clone()
}

/// Asks until it is as wanted.
#[track_caller]
fn until<T: PartialEq + std::fmt::Debug>(wanted: &T, ask: impl Fn() -> T) {
    let deadline = Instant::now() + patience();
    loop {
        let found = ask();
        if found == *wanted {
            return;
        }
        assert!(Instant::now() < deadline, "waited for {wanted:?}, found {found:?}");
        std::thread::yield_now();
    }
}

/// A host that serves this, commits at once, and holds a hundred links.
fn filled(serving: &Path) -> Midair {
    let launch =
        Launch::run(&[serving]).arg("--generation-header").arg("--probation").arg("0").arg("--probation-requests").arg("0");
    let mut midair = launch.start();
    midair.published();
    assert_eq!(midair.http().post("/fill/100", &json!({})).status, 200);
    midair.wait_for("committed", |event| event["event"] == "committed");
    midair
}

#[test]
fn fault_33_g13_a_migration_lets_newer_code_read_and_what_it_reverses_is_read_after_a_rollback() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, plain, one_way, both_ways] = fixture::artifacts("links", "migrates", ["", "plain", "one-way", "both-ways"]);
    let serving = folder.path().join("libmigrates.so");
    save(&serving, &first);
    let (data, file) = (folder.path().join("data"), folder.path().join("state.redb"));
    let mut midair = Launch::run_committed(&serving, &data).arg("--state").arg(&file).start();
    midair.published();
    midair.wait_for("a look at the artifact's path", |event| event["event"] == "unchanged");
    let post =
        |midair: &Midair, key: &str, body: Value| assert_eq!(midair.http().post(&format!("/links/{key}"), &body).status, 200);
    let get = |midair: &Midair, key: &str| midair.get(&format!("/links/{key}"));
    post(&midair, "old", json!({ "url": "o" }));

    // A type that can't read what is there is refused; with a way up it goes live and reads it.
    save(&serving, &plain);
    let rejected = midair.rejected("E_STATE");
    let reason = rejected["reason"].as_str().unwrap_or_default();
    assert!(["links[\"old\"]", "urls"].iter().all(|part| reason.contains(part)), "{reason}");
    assert!(rejected["help"].as_str().is_some_and(|help| help.contains(".migrate")), "{rejected}");
    save(&serving, &both_ways);
    assert_eq!(midair.outcome()["event"], "published", "{}", midair.story());
    assert_eq!(get(&midair, "old").json(), json!({ "urls": ["o"] }));
    post(&midair, "new", json!({ "urls": ["a", "b"] }));
    assert_eq!(get(&midair, "new").json(), json!({ "urls": ["a", "b"] }));

    // Back: the old code reads what was never rewritten, and the old form of what the new code wrote.
    let rolled_back = midair.client(&["rollback"]).output().expect("a client");
    assert!(rolled_back.status.success(), "{rolled_back:?}");
    midair.wait_for("rolled_back", |event| event["event"] == "rolled_back");
    assert_eq!((get(&midair, "old").json(), get(&midair, "new").json()), (json!({ "url": "o" }), json!({ "url": "a b" })));
    assert_eq!(unreadable(&midair), json!({}));

    // Without a way back: counted, and an error that names table, key and numbers.
    save(&serving, &one_way);
    midair.published();
    (0..3).for_each(|n| post(&midair, &format!("lost{n}"), json!({ "urls": ["x"] })));
    assert!(midair.client(&["rollback"]).output().expect("a client").status.success());
    midair.wait_for("rolled_back", |event| event["event"] == "rolled_back");
    assert_eq!((get(&midair, "old").json(), get(&midair, "new").json()), (json!({ "url": "o" }), json!({ "url": "a b" })));
    assert_eq!((get(&midair, "lost1").status, unreadable(&midair)), (500, json!({ "links": 3 })));
    let shown = midair.client(&["status"]).output().expect("a client");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let row = shown.lines().skip_while(|line| !line.starts_with("CAN'T READ")).nth(1).unwrap_or_default();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["migrates", "links", "3"], "{shown}");
    let failed = midair.wait_for("failed", |event| event["event"] == "failed");
    let error = failed["error"].as_str().unwrap_or_default();
    assert!(["links[\"lost1\"]", "schema 2", "reads schema 1"].iter().all(|part| error.contains(part)), "{error}");
    post(&midair, "lost1", json!({ "url": "mended" }));
    assert_eq!(unreadable(&midair), json!({ "links": 2 }));

    // Started again it serves as it did, and says so once; what was never committed is refused as before.
    assert!(midair.terminate().status.success());
    let again = Launch::run(&[&serving]).arg("--data").arg(&data).arg("--state").arg(&file);
    let mut midair = again.arg("--probation").arg("0").arg("--probation-requests").arg("0").start();
    midair.published();
    midair.rejected("E_HELD");
    assert_eq!((get(&midair, "lost1").json(), get(&midair, "lost0").status), (json!({ "url": "mended" }), 500));
    assert_eq!(unreadable(&midair), json!({ "links": 2 }));
    let warnings = || -> Vec<String> { midair.all("warning").iter().map(|event| event["message"].to_string()).collect() };
    until(&(1, 1), || (warnings().len(), midair.all("committed").len()));
    let warning = warnings().remove(0);
    let named = ["migrates=1 was committed and serves", "links[\\\"lost0\\\"]", "schema 2", "reads schema 1"];
    assert!(named.iter().all(|part| warning.contains(part)), "{warning}");
    save(&serving, &plain);
    midair.rejected("E_STATE");
    assert_eq!(get(&midair, "old").json(), json!({ "url": "o" }));
}

#[test]
fn fault_33_a_value_that_the_sample_passed_over_takes_new_code_back() {
    let folder = tempfile::tempdir().expect("a folder");
    // The sample ends after 20 ms: reading so slowly it sees two values of a thousand, and not the one that is odd.
    let mut artifacts = fixture::artifacts("links", "reads", ["", "slow"]);
    let serving = folder.path().join("libreads.so");
    save(&serving, &artifacts[0]);
    let mut midair = filled(&serving);
    let before = midair.get("/links/00000057").generation();
    save(&serving, &artifacts[1]);
    midair.published();
    let back = midair.wait_for("rolled_back", |event| event["event"] == "rolled_back" || event["event"] == "committed");
    assert_eq!((back["event"].as_str(), back["to"].as_u64()), (Some("rolled_back"), Some(before)), "{back}");
    let reason = back["reason"].as_str().unwrap_or_default();
    assert!(["links[\"00000057\"]", "an odd link"].iter().all(|part| reason.contains(part)), "{reason}");
    assert_eq!(midair.get("/links/00000057").json(), json!({ "url": "u57" }));

    // In development it is told and counted, and the code stays.
    drop(midair);
    save(&serving, &artifacts[0]);
    let mut midair = Launch::run(&[&serving]).arg("--generation-header").arg("--on-breach").arg("report").start();
    midair.published();
    assert_eq!(midair.http().post("/fill/100", &json!({})).status, 200);
    artifacts.reverse();
    save(&serving, &artifacts[0]);
    midair.published();
    let breached = midair.wait_for("breached", |event| event["event"] == "breached");
    assert!(breached["reason"].as_str().is_some_and(|reason| reason.contains("links[\"00000057\"]")), "{breached}");
    until(&json!({ "links": 1 }), || unreadable(&midair));
    assert_eq!(midair.get("/links/00000058").status, 200);
}

#[test]
fn fault_32_a_migration_that_breaks_at_one_value_of_many_is_refused_or_taken_back_and_no_value_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = links("breaks", "");
    let serving = folder.path().join("libbreaks.so");
    save(&serving, &first);
    let mut midair = filled(&serving);
    let all_there = |midair: &Midair| {
        for n in [0, 56, 57, 58, 99] {
            let answer = midair.get(&format!("/links/{n:08}"));
            assert_eq!((answer.json(), answer.generation()), (json!({ "url": format!("u{n}") }), 1));
        }
        assert_eq!((midair.get("/count").body.as_str(), unreadable(midair)), ("100", json!({})));
    };
    // The sample has 20 ms: without a pause it sees all hundred values, and with one but two or three of them.
    for (variant, words) in [("panics 0", "can't be read: an odd link at tests/plugins/links.rs:"), ("fails 0", "an odd link")] {
        save(&serving, links("breaks", variant));
        // The 20 ms go by the clock. What goes live since the machine stood still meanwhile is taken back, and tried once more.
        let mut rejected = midair.outcome();
        for _ in 0..20 {
            if rejected["event"] == "published" {
                midair.wait_for("rolled_back", |event| event["event"] == "rolled_back");
                assert_eq!(midair.admin().ask("POST", "/reload?force", &[], "").status, 202);
                rejected = midair.outcome();
            }
        }
        let is = (rejected["event"].as_str(), rejected["code"].as_str());
        assert_eq!(is, (Some("rejected"), Some("E_STATE")), "{rejected}\n{}", midair.story());
        let reason = rejected["reason"].as_str().unwrap_or_default();
        assert!(["links[\"00000057\"]", "an odd link", words].iter().all(|part| reason.contains(part)), "{rejected}");
        all_there(&midair);
    }
    for variant in ["panics 12", "fails 12"] {
        save(&serving, links("breaks", variant));
        midair.published();
        let back = midair.wait_for("rolled_back", |event| event["event"] == "rolled_back" || event["event"] == "committed");
        assert_eq!(
            (back["event"].as_str(), back["to"].as_u64(), back["by"].as_str()),
            (Some("rolled_back"), Some(1), Some("breach"))
        );
        let reason = back["reason"].as_str().unwrap_or_default();
        assert!(["links[\"00000057\"]", "an odd link"].iter().all(|part| reason.contains(part)), "{back}");
        all_there(&midair);
    }
}

#[test]
fn a_value_that_was_put_for_a_while_is_gone_after_it_in_memory_and_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifact = fixture::artifact("links").named("ends").save_in(folder.path());
    let file = folder.path().join("state");
    for launch in [Launch::run(&[&artifact]), Launch::run(&[&artifact]).arg("--state").arg(&file)] {
        let mut midair = launch.arg("--no-probe").start();
        midair.published();
        for key in ["a", "b", "c"] {
            assert_eq!(midair.http().post(&format!("/brief/{key}"), &json!({ "url": "x" })).status, 200);
        }
        assert_eq!(midair.http().post("/links/a", &json!({ "url": "stays" })).status, 200);
        until(&Value::Null, || midair.get("/links/b").json());
        until(&"1".to_owned(), || midair.get("/count").body);
        assert_eq!(midair.get("/links/a").json(), json!({ "url": "stays" }));
        // Nobody sees them, and a moment later they are gone.
        until(&json!(1), || midair.admin().get("/state").json()["tables"][0]["values"].clone());
    }
}

//! What can be asked of a running host, and by whom?

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use midair_tests::cargo;
use midair_tests::fixture::{self, Fixture};
use midair_tests::host::Launch;
use midair_tests::project::Project;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::dev::saying;
use crate::inside::until;

/// The plugin `name` that says `text` at `/`.
fn artifact(name: &str, text: &str) -> Fixture {
    fixture::artifact("saying").named(name).variant(text)
}

pub(crate) fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn status_shows_plugins_and_attempts_to_people_and_to_scripts() {
    let project = Project::plugin("shown", &saying("one"));
    let mut midair = Launch::dev(&[project.root()]).start();
    let published = midair.published();
    project.save("src/lib.rs", "fn");
    midair.rejected("E_BUILD");
    assert_eq!(midair.get("/").body, "one");
    // Who has the answer may ask before the call is over.
    until("the call to be over", || {
        let status = midair.status();
        status["leases"] == json!([]) && status["plugins"][0]["requests"] == 1
    });

    let (code, stdout, _) = said(&mut midair.client(&["status"]));
    assert_eq!(code, Some(0));
    assert!(["shown", "rejected", "E_BUILD"].iter().all(|word| stdout.contains(word)), "{stdout}");

    let (code, stdout, _) = said(&mut midair.client(&["status", "--json"]));
    assert_eq!(code, Some(0));
    let status: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(status, midair.status());
    let plugin = &status["plugins"][0];
    assert_eq!((&plugin["plugin"], &plugin["generation"], &plugin["digest"]), (&json!("shown"), &json!(1), &published["digest"]));
    assert_eq!(plugin["requests"], 1);
    // The lock file that the first build completes counts as a newer edit and may overtake it.
    let attempts: Vec<&Value> =
        status["attempts"].as_array().expect("a list").iter().filter(|attempt| attempt["outcome"] != "superseded").collect();
    let outcomes: Vec<_> = attempts.iter().map(|attempt| &attempt["outcome"]).collect();
    assert_eq!(outcomes, ["published", "rejected"]);
    let phases = attempts[0]["phases_us"].as_object().expect("times of steps");
    assert!(["build", "stage", "inspect", "load", "check", "publish"].iter().all(|step| phases.contains_key(*step)), "{phases:?}");

    let (code, stdout, _) = said(Command::new(cargo::midair()).args(["status", "--data"]).arg(midair.data()));
    assert_eq!(code, Some(0), "the data folder knows the address");
    assert!(stdout.contains("shown"), "{stdout}");
}

#[test]
fn g22_each_attempt_has_one_record() {
    let project = Project::plugin("recorded", &saying("one"));
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    for text in ["two", "three", "four"] {
        project.save("src/lib.rs", &saying(text));
        midair.published();
    }
    project.save("src/lib.rs", "fn");
    midair.rejected("E_BUILD");
    let status = midair.status();
    let attempts = status["attempts"].as_array().expect("a list");
    let ids: Vec<_> = attempts.iter().map(|attempt| attempt["id"].as_u64().expect("a number")).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let outcome = |name: &str| attempts.iter().filter(|attempt| attempt["outcome"] == name).count();
    assert_eq!(
        (outcome("published"), outcome("rejected")),
        (midair.all("published").len(), midair.all("rejected").len()),
        "{status}"
    );
}

#[test]
fn events_follows_what_happens_as_the_host_tells_it() {
    let placed = artifact("followed", "one").placed();
    let mut midair = Launch::run(&[&placed.path]).start();
    midair.published();
    let mut client = midair.client(&["events", "--json"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(client.stdout.take().expect("a pipe")).lines();
    let mut next_published = || -> Value {
        lines
            .by_ref()
            .map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("JSON"))
            .find(|event| event["event"] == "published")
            .expect("it goes on until the host ends")
    };
    assert_eq!(next_published(), midair.all("published")[0], "what was before is told too");
    artifact("followed", "two").save_in(placed.folder());
    assert_eq!(midair.published(), next_published());
    let ended = midair.terminate();
    let rest: Vec<_> = lines.map(|line| line.expect("a line")).collect();
    assert!(rest.last().is_some_and(|line| line.contains("\"stopped\"")), "{rest:?}\n{}", ended.words());
    assert_eq!(client.wait().expect("it ends").code(), Some(0));
}

#[test]
fn reload_looks_again() {
    let placed = artifact("asked", "one").placed();
    let mut midair = Launch::run(&[&placed.path]).start();
    midair.published();
    for args in [&["reload"][..], &["reload", "--force"], &["reload", "--json"]] {
        let (code, stdout, stderr) = said(&mut midair.client(args));
        assert_eq!(code, Some(0), "{args:?}: {stdout}{stderr}");
    }
    midair.outcome();
    assert_eq!(midair.get("/").body, "one");
}

#[test]
fn a_client_without_a_host_ends_with_1_and_names_the_address() {
    // It is bound and nobody listens, so that nobody else gets it meanwhile.
    let bound = TcpSocket::new_v4().expect("a socket");
    bound.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let free = bound.local_addr().expect("an address").to_string();
    for action in ["status", "events", "reload"] {
        let (code, _, stderr) = said(Command::new(cargo::midair()).args([action, "--admin", &free]));
        assert_eq!(code, Some(1), "{action}");
        assert!(stderr.contains(&free), "{action}: {stderr}");
    }
}

#[test]
fn the_admin_listener_refuses_web_pages_and_names_that_may_have_been_rebound() {
    let placed = artifact("guarded", "one").placed();
    let mut midair = Launch::run(&[&placed.path]).start();
    midair.published();
    let admin = midair.admin();
    let own = format!("http://{}", admin.0);
    let attempts = || midair.status()["attempts"].as_array().map(Vec::len);
    let before = attempts();
    for (what, method, page, headers, status) in [
        ("a rebound name", "GET", "/status", &[("host", "evil.example")][..], 403),
        ("a rebound name with the port", "GET", "/events", &[("host", "evil.example:3001")], 403),
        ("a web page's post", "POST", "/reload", &[("origin", "http://evil.example")], 403),
        ("a sandboxed page's post", "POST", "/reload", &[("origin", "null")], 403),
        ("a GET that should be a POST", "GET", "/reload", &[], 405),
        ("a page that isn't there", "GET", "/nowhere", &[], 404),
    ] {
        assert_eq!(admin.ask(method, page, headers, "").status, status, "{what}");
    }
    assert_eq!(attempts(), before, "nothing was started");
    assert_eq!(admin.ask("POST", "/reload", &[("origin", &own)], "").status, 202, "its own page may");
    assert_eq!((admin.get("/healthz").status, admin.get("/readyz").status), (200, 200));
}

#[test]
fn an_admin_address_that_others_reach_needs_a_token() {
    let placed = artifact("tokens", "one").placed();
    let ended = Launch::run(&[&placed.path]).arg("--admin").arg("0.0.0.0:0").end();
    assert!(matches!(ended.status.code(), Some(1 | 2)) && ended.words().contains("token"), "{}", ended.words());

    let midair = Launch::run(&[&placed.path]).env("MIDAIR_ADMIN_TOKEN", Some("sesame")).start();
    let status = |headers: &[(&str, &str)]| midair.admin().ask("GET", "/status", headers, "").status;
    assert_eq!((status(&[]), status(&[("authorization", "Bearer sesam")])), (401, 401));
    assert_eq!(status(&[("authorization", "Bearer sesame")]), 200);
    let ask = |token: &str| said(midair.client(&["status"]).env("MIDAIR_ADMIN_TOKEN", token)).0;
    assert_eq!((ask("sesame"), ask("wrong")), (Some(0), Some(1)));
}

#[test]
fn the_admin_listener_can_be_switched_off() {
    let placed = artifact("alone", "one").placed();
    let mut midair = Launch::run(&[&placed.path]).arg("--admin").arg("off").start();
    midair.published();
    assert_eq!(midair.all("listening")[0]["admin"], Value::Null);
    assert_eq!(midair.get("/").body, "one");
}

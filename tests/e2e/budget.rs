//! What becomes of a host that has loaded as much as it may?

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::{cargo, patience, project};
use serde_json::{Value, json};

use crate::run::one_and_two;

#[test]
fn fault_25_g4_over_the_budget_a_swap_is_refused_and_nobody_is_killed() {
    let artifacts = fixture::artifacts("waiting", "hello", ["one", "two"]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libhello.so");
    project::save(&path, &artifacts[0]);
    let mut midair = Launch::run(&[&path]).arg("--most-libraries").arg("3").arg("--generation-header").start();
    midair.published();
    let mut waits = midair.http().connect();
    waits.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").expect("it can be sent");
    midair.wait_for("a call", |event| event["event"] == "log" && event["message"] == "waiting");
    for swap in [1, 0] {
        project::save(&path, &artifacts[swap]);
        midair.published();
    }
    let told: Value = midair.admin().get("/generations").json();
    assert_eq!(told["budget"]["libraries"], json!({ "used": 3, "limit": 3 }), "{told}");
    for share in ["maps", "descriptors", "bytes"] {
        let share = &told["budget"][share];
        let (used, limit) = (share["used"].as_u64(), share["limit"].as_u64());
        assert!(used.is_some_and(|used| used > 0) && used < limit, "{told}");
    }
    let table = midair.client(&["generations"]).output().expect("it runs");
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("3 of 3 libraries"), "{table}");

    let maps = told["libraries"]["maps"].clone();
    project::save(&path, &artifacts[1]);
    let rejected = midair.rejected("E_BUDGET");
    assert_eq!((&rejected["stage"], &rejected["subject"]), (&json!("load"), &json!("hello")), "{rejected}");
    let said = format!("{} {}", rejected["reason"], rejected["help"]);
    for word in ["3 of at most 3 libraries", "restart the host", "--most-libraries", "hello=1 ", "wait"] {
        assert!(said.contains(word), "{word} is missing in {said}");
    }
    let answer = midair.get("/");
    assert_eq!((answer.body.as_str(), answer.generation()), ("one", 3));
    let after: Value = midair.admin().get("/generations").json();
    assert_eq!(after["libraries"]["maps"], maps, "nothing was opened");
    let blockers = |told: &Value| told["generations"][0]["blockers"].as_array().map(Vec::len);
    assert_eq!((blockers(&told), blockers(&after)), (Some(1), Some(1)), "nobody was killed");
    // What runs already needs no room, nor does going back.
    project::save(&path, &artifacts[0]);
    midair.wait_for("unchanged", |event| event["event"] == "unchanged");
}

/// A connection that the host has taken, since a request on it was answered, and that stays.
#[track_caller]
fn answered(midair: &Midair) -> TcpStream {
    let mut connection = midair.http().connect();
    connection.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("it can be sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\none") {
        let mut piece = [0; 1024];
        let length = connection.read(&mut piece).expect("an answer");
        assert!(length > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..length]);
    }
    connection
}

#[test]
fn fault_35_where_descriptors_get_short_a_swap_is_refused_before_it_takes_the_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libhello.so");
    project::save(&path, &one_and_two()[0]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 100 && exec \"$0\" \"$@\""]).arg(cargo::midair());
    let mut midair = Launch::of(limited, "run", &[&path]).arg("--workers").arg("2").start();
    midair.published();
    let share = |midair: &Midair| {
        let told: Value = midair.admin().get("/generations").json();
        let share = &told["budget"]["descriptors"];
        (share["used"].as_u64().expect("it is known"), share["limit"].as_u64().expect("it is known"))
    };
    assert_eq!(share(&midair).1, 90);
    let until = Instant::now() + patience();
    let mut connections = Vec::new();
    // Sixteen are what a swap takes; each question takes one for a moment. What was answered has been taken and is counted.
    while share(&midair).0 + 16 <= 95 {
        assert!(Instant::now() < until, "{:?} with {} connections", share(&midair), connections.len());
        connections.push(answered(&midair));
    }
    project::save(&path, &one_and_two()[1]);
    let rejected = midair.rejected("E_BUDGET");
    let said = format!("{} {}", rejected["reason"], rejected["help"]);
    assert!(said.contains("descriptors open") && said.contains("fewer connections"), "{rejected}");
    assert_eq!(midair.get("/").body, "one");
    drop(connections);
    while share(&midair).0 + 16 > 85 {
        assert!(Instant::now() < until, "{:?} without connections", share(&midair));
    }
    assert_eq!(midair.admin().ask("POST", "/reload", &[], "").status, 202);
    midair.published();
    assert_eq!(midair.get("/").body, "two");
}

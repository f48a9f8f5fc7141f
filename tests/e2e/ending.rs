//! How does a host end?

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use midair_tests::client::read_answer;
use midair_tests::fixture::{self, Placed};
use midair_tests::host::{Launch, Midair};
use midair_tests::patience;
use midair_tests::project::{self, Project};
use rustix::process::Signal;
use serde_json::json;

use crate::inside::until;

/// A host with one request that sleeps until it is [woken](wake), and so much time for it at the end.
#[track_caller]
pub(crate) fn with_a_sleeper(name: &str, drain: &str) -> (Placed, Midair, TcpStream) {
    let placed = fixture::artifact("sleeping").named(name).placed();
    let launch = Launch::run(&[&placed.path]).env("WAKE", placed.folder().join("wake").to_str());
    let mut midair = launch.arg("--drain-timeout").arg(drain).start();
    midair.published();
    let mut stream = midair.http().connect();
    write!(stream, "GET /sleep HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it can be sent");
    midair.wait_for("the sleeper's log", |event| event["event"] == "log" && event["message"] == "sleeps");
    (placed, midair, stream)
}

pub(crate) fn wake(placed: &Placed) {
    project::save(&placed.folder().join("wake"), "");
}

#[test]
fn sigterm_sigint_and_sigquit_let_requests_finish_and_end_with_0() {
    let signals = [("term", Signal::TERM, "SIGTERM"), ("interrupt", Signal::INT, "SIGINT"), ("quit", Signal::QUIT, "SIGQUIT")];
    for (name, signal, said) in signals {
        let (placed, mut midair, mut stream) = with_a_sleeper(name, "3600");
        midair.signal(signal);
        let stopping = midair.wait_for("stopping", |event| event["event"] == "stopping");
        assert_eq!((stopping["signal"].as_str(), stopping["in_flight"].as_u64()), (Some(said), Some(1)));
        wake(&placed);
        let answer = read_answer(&mut stream).expect("the request finishes");
        assert_eq!((answer.status, answer.body.as_str()), (200, "slept"));
        let ended = midair.ended("its end");
        assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
        let last = ended.events.last().expect("it says something");
        assert_eq!((last["event"].as_str(), last["abandoned"].as_u64()), (Some("stopped"), Some(0)));
    }
}

#[test]
fn a_host_that_ends_takes_no_new_connections() {
    let (placed, mut midair, mut stream) = with_a_sleeper("closes", "3600");
    midair.signal(Signal::TERM);
    midair.wait_for("stopping", |event| event["event"] == "stopping");
    // While the request goes on the host is there, and so nobody else gets the port.
    let address = midair.http().0;
    until("connections to be refused", || match TcpStream::connect(address) {
        // One that was taken just before is closed with the listener.
        Ok(mut taken) => {
            taken.set_read_timeout(Some(patience())).expect("a deadline can be set");
            let _ = taken.read(&mut [0]);
            false
        }
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    });
    wake(&placed);
    assert_eq!(read_answer(&mut stream).expect("the request finishes").status, 200);
    let ended = midair.ended("its end");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
}

#[test]
fn a_request_that_outlasts_the_drain_is_counted_and_the_end_is_still_0() {
    let (_placed, midair, _stream) = with_a_sleeper("outlasts", "0.1");
    let ended = midair.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
    assert_eq!(ended.events.last().and_then(|last| last["abandoned"].as_u64()), Some(1), "{}", ended.words());
}

#[test]
fn a_second_signal_ends_at_once() {
    let (_placed, mut midair, _stream) = with_a_sleeper("hurried", "3600");
    midair.signal(Signal::TERM);
    midair.wait_for("stopping", |event| event["event"] == "stopping");
    midair.signal(Signal::TERM);
    let ended = midair.ended("its end after the second signal, long before the drain's deadline");
    assert!(!ended.status.success(), "an end that was forced is told from one that wasn't: {:?}", ended.status);
}

#[test]
fn a_build_that_runs_is_ended_with_the_host() {
    let project = Project::plugin(
        "forever",
        "midair_plugin::export!(plugin);\nfn plugin() -> midair_plugin::Plugin { midair_plugin::Plugin::new() }\n",
    );
    // If nobody ends it, it ends with its folder: it mustn't keep other builds waiting for ever.
    let script = "use std::{path::Path, thread, time::Duration};\n\nfn main() {\n    \
                  while Path::new(\"build.rs\").exists() { thread::sleep(Duration::from_millis(9)) }\n}\n";
    project.save("build.rs", script);
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.wait_for("building", |event| event["event"] == "building");
    let ended = midair.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
}

#[test]
fn two_signals_at_once_end_the_host_without_a_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libhello.so");
    project::save(&path, &crate::run::one_and_two()[0]);
    for _ in 0..20 {
        let mut midair = Launch::run(&[&path]).arg("--admin").arg("off").start();
        midair.published();
        midair.signal(Signal::INT);
        midair.signal(Signal::INT);
        let ended = midair.ended("two signals");
        assert!(matches!(ended.status.code(), Some(0 | 130)), "{}\n{}", ended.status, ended.words());
    }
}

#[test]
fn an_artifact_that_is_named_twice_is_served_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libhello.so");
    project::save(&path, &crate::run::one_and_two()[0]);
    let mut midair = Launch::run(&[&path, &path]).start();
    midair.published();
    assert_eq!((midair.get("/").body.as_str(), midair.admin().get("/readyz").status), ("one", 200));
    assert!(midair.all("rejected").is_empty());
}

/// A host with all that it is to wait for, and a request that is being answered.
#[track_caller]
fn with_work(placed: &Placed, holds: bool, timeout: &str) -> (Midair, TcpStream) {
    let mut midair = Launch::run(&[&placed.path]).arg("--drain-timeout").arg(timeout).start();
    midair.published();
    if holds {
        assert_eq!(midair.get("/hold").body, "held");
    }
    let mut stream = midair.http().connect();
    write!(stream, "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it can be sent");
    assert_eq!(midair.get("/begin").body, "begun");
    let all =
        ["the request", "the task", "a beat", "message 1", "what was spawned", "what is free"].map(|what| format!("{what} began"));
    until("all to begin", || {
        let told = midair.all("log");
        all.iter().all(|began| told.iter().any(|event| event["message"] == **began))
    });
    (midair, stream)
}

#[test]
fn the_end_is_told_and_waits_for_what_goes_on_beside_requests() {
    let placed = fixture::artifact("beside").placed();
    let (midair, mut stream) = with_work(&placed, false, "3600");
    midair.signal(Signal::TERM);
    assert_eq!(read_answer(&mut stream).expect("the request finishes").body, "told");
    let ended = midair.ended("its end, though a task that may be dropped goes on");
    let said = |what: &str| ended.events.iter().filter(|event| event["message"] == what).count();
    for what in ["the request", "the task", "message 1", "message 2", "message 3", "what was spawned", "what is free"] {
        assert_eq!(said(&format!("{what} ended")), 1, "{what}: {}", ended.words());
    }
    assert_eq!((said("a beat began"), said("a beat ended")), (1, 1), "none begins at the end: {}", ended.words());
    let last = ended.events.last().expect("it says something");
    assert_eq!(*last, json!({ "event": "stopped", "abandoned": 0, "tasks": 0, "beats": 0, "messages": 0 }));

    let (midair, _stream) = with_work(&placed, true, "0.3");
    let ended = midair.terminate();
    let last = ended.events.last().expect("it says something");
    assert_eq!(*last, json!({ "event": "stopped", "abandoned": 1, "tasks": 3, "beats": 1, "messages": 3 }), "{}", ended.words());
    assert_eq!(ended.status.code(), Some(0));
}

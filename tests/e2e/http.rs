//! What does HTTP on the wire look like when handlers, clients and the end of the host misbehave?

use std::fs;
use std::io::Read;
use std::net::TcpStream;

use midair_tests::client::read_answer;
use midair_tests::fixture::{self, Placed};
use midair_tests::host::{Ended, Launch, Midair};
use midair_tests::project;
use rustix::process::Signal;

use crate::inside::until;

fn manners(name: &str, args: &[&str]) -> (Placed, Midair) {
    let placed = fixture::artifact("manners").named(name).placed();
    let launch = args.iter().fold(Launch::run(&[&placed.path]), |launch, arg| launch.arg(arg));
    let mut midair = launch.start();
    midair.published();
    (placed, midair)
}

#[test]
fn what_a_handler_says_of_framing_is_left_out_and_its_answer_arrives_whole() {
    let (_placed, mut midair) = manners("manners", &[]);
    let lies = midair.get("/lies");
    assert_eq!((lies.status, lies.body.as_str(), lies.header("x-kept")), (200, "abc", Some("yes")));
    assert_eq!((lies.header("content-length"), lies.header("transfer-encoding")), (Some("3"), None));

    assert_eq!(midair.get("/early").status, 500);
    let failed = midair.wait_for("failed", |event| event["event"] == "failed");
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("status 103")), "{failed}");

    let head = |path| midair.http().ask("HEAD", path, &[], "");
    let (hello, nothing) = (head("/hello"), head("/nothing"));
    assert_eq!((hello.status, hello.header("content-length"), hello.body.as_str()), (200, Some("5"), ""));
    assert_eq!((nothing.status, nothing.header("content-length")), (204, None));

    assert_eq!(midair.get("/query?q=%C3%A9").body, "é");
    let query = midair.get("/query?q=%FF");
    assert_eq!((query.status, query.body.as_str()), (400, "the query isn't UTF-8"));
}

#[test]
fn a_client_that_sends_a_body_over_the_limit_before_it_listens_is_told_413() {
    let (_placed, midair) = manners("toolarge", &["--body-limit", "64KiB"]);
    let body = |size| "x".repeat(size);
    for size in [70_000, 300_000, 3_000_000] {
        for _ in 0..5 {
            let answer = midair.http().ask("POST", "/take", &[], &body(size));
            assert_eq!((answer.status, answer.body.as_str()), (413, "the body is larger than 65536 bytes\n"));
        }
    }
    assert_eq!(midair.http().ask("POST", "/take", &[], &body(64 << 10)).body, "65536");
}

/// Sends a request on a connection of its own and leaves its answer unread.
fn send(midair: &Midair, path: &str) -> TcpStream {
    use std::io::Write;
    let mut stream = midair.http().connect();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it is sent");
    stream
}

#[test]
fn while_the_host_drains_it_isnt_ready_and_refuses_connections_and_what_runs_finishes() {
    let (_placed, mut midair) = manners("drains", &["--drain-timeout", "120"]);
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("open");
    assert_eq!(midair.admin().get("/readyz").status, 200);
    let mut slow = send(&midair, &format!("/slow/{}", gate.to_str().expect("a path").replace('/', "%2F")));
    until("it to be in flight", || midair.status()["leases"].as_array().is_some_and(|leases| !leases.is_empty()));
    midair.signal(Signal::TERM);
    midair.wait_for("stopping", |event| event["event"] == "stopping");
    until("it not to be ready any more", || midair.admin().get("/readyz").status != 200);
    until("connections to be refused", || TcpStream::connect(midair.http().0).is_err());
    fs::write(&gate, "").expect("a file");
    let answer = read_answer(&mut slow).expect("a whole answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    let ended = midair.ended("a drain");
    assert_eq!((ended.status.code(), abandoned(&ended)), (Some(0), Some(0)));
}

#[test]
fn an_answer_that_nobody_reads_is_told_as_abandoned() {
    let (_placed, mut midair) = manners("unread", &["--drain-timeout", "1"]);
    let mut large = send(&midair, "/large");
    let mut first = [0; 1];
    large.read_exact(&mut first).expect("it begins");
    midair.signal(Signal::TERM);
    midair.wait_for("stopping", |event| event["event"] == "stopping");
    let ended = midair.ended("a drain");
    assert_eq!((ended.status.code(), abandoned(&ended)), (Some(0), Some(1)));
}

fn abandoned(ended: &Ended) -> Option<u64> {
    ended.events.iter().find(|event| event["event"] == "stopped").and_then(|event| event["abandoned"].as_u64())
}

#[test]
fn without_the_probe_a_constructor_that_hangs_is_given_up_and_named_and_the_host_still_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libhello.so");
    project::save(&path, &crate::run::one_and_two()[0]);
    // Long enough for what is no more than slow.
    let mut midair = Launch::run(&[&path]).arg("--no-probe").arg("--step-timeout").arg("6").start();
    midair.published();
    project::save(&path, crate::run::hello("constructing", "hangs"));
    midair.rejected("E_TIMEOUT");
    project::save(&path, &crate::run::one_and_two()[1]);
    let rejected = midair.rejected("E_TIMEOUT");
    assert!(rejected["reason"].as_str().is_some_and(|reason| reason.contains("still busy with hello")), "{rejected}");
    midair.signal(Signal::TERM);
    assert_eq!(midair.ended("SIGTERM with a stuck loader").status.code(), Some(0));
}

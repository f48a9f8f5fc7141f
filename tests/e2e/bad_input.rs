//! What does midair say to what makes no sense?

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use midair_tests::cargo;
use midair_tests::client::read_answer;
use midair_tests::fixture;
use midair_tests::host::Launch;
use midair_tests::project::{Kind, Project};
use serde_json::Value;

use crate::dev::saying;

#[test]
fn wrong_usage_ends_with_2_and_one_message() {
    for (args, words) in [
        (&["serve"][..], "serve"),
        (&["run"], "ARTIFACT"),
        (&["dev", "--listen", "nowhere"], "--listen"),
        (&["dev", "--no-such-option"], "--no-such-option"),
        (&[], "Usage"),
    ] {
        let output = Command::new(cargo::midair()).args(args).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(words) && output.stdout.is_empty(), "{args:?}: {stderr}");
    }
}

#[test]
fn help_and_version_end_with_0() {
    for args in [&["--help"][..], &["dev", "--help"], &["run", "--help"], &["--version"]] {
        let output = Command::new(cargo::midair()).args(args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("midair"), "{args:?}");
    }
}

#[test]
fn a_folder_without_a_plugin_is_told_what_a_plugin_is() {
    let project = Project::packages(&[("just_a_library", Kind::Library, "")]);
    let nothing = tempfile::tempdir().expect("a folder");
    for (folder, words) in [(project.root(), "midair-plugin"), (nothing.path(), "Cargo.toml")] {
        let ended = Launch::dev(&[]).inside(folder).end();
        let words_said = ended.words();
        assert!(matches!(ended.status.code(), Some(1 | 2)), "{words_said}");
        assert!(words_said.contains(words), "{words_said}");
    }
    let ended = Launch::dev(&["/no/such/folder".as_ref()]).end();
    assert!(ended.words().contains("/no/such/folder"), "{}", ended.words());
}

#[test]
fn two_plugins_to_choose_from_are_both_named_with_the_command_for_each() {
    let project = Project::packages(&[("pick_a", Kind::Plugin, &saying("a")), ("pick_b", Kind::Plugin, &saying("b"))]);
    let ended = Launch::dev(&[]).inside(project.root()).end();
    let words = ended.words();
    assert!(matches!(ended.status.code(), Some(1 | 2)), "{words}");
    for command in ["midair dev pick_a", "midair dev pick_b"] {
        assert!(words.contains(command), "{command:?} is missing in {words}");
    }
}

#[test]
fn a_port_in_use_ends_with_1_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr().map(|addr| (listener, addr)));
    let (_listener, addr) = taken.expect("a port");
    let placed = fixture::artifact("saying").placed();
    for option in ["--listen", "--admin"] {
        let ended = Launch::run(&[&placed.path]).arg(option).arg(addr.to_string()).end();
        let words = ended.words();
        assert_eq!(ended.status.code(), Some(1), "{words}");
        assert!(words.contains(&addr.to_string()) && words.contains(option), "{words}");
    }
}

#[test]
fn a_data_folder_in_use_names_the_host_that_has_it() {
    let placed = fixture::artifact("saying").named("dataless").variant("one").placed();
    let launch = || Launch::run(&[&placed.path]);
    let mut first = launch().start();
    first.published();
    let ended = launch().arg("--data").arg(first.data()).end();
    let words = ended.words();
    assert_eq!(ended.status.code(), Some(1), "{words}");
    assert!(words.contains(&first.pid().to_string()), "{words}");
    assert_eq!(first.get("/").body, "one");
    // The folder is free again when its host ends.
    let data = tempfile::tempdir().expect("a folder");
    let with_data = || launch().arg("--data").arg(data.path());
    let mut second = with_data().start();
    second.published();
    assert!(second.terminate().status.success());
    with_data().start().published();
}

#[test]
fn an_artifact_that_is_not_there_ends_run_with_1_and_is_named() {
    let ended = Launch::run(&["/no/such/libshop.so".as_ref()]).end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.words());
    assert!(ended.words().contains("/no/such/libshop.so"), "{}", ended.words());
}

#[test]
fn requests_that_make_no_sense_get_the_status_that_says_why() {
    let placed = fixture::artifact("strict").placed();
    let mut midair = Launch::run(&[&placed.path]).start();
    midair.published();
    let http = midair.http();
    let json = [("content-type", "application/json")];
    let ask = |method: &str, target: &str, body: &str| {
        let answer = http.ask(method, target, if method == "POST" { &json } else { &[] }, body);
        (answer.status, answer.body)
    };
    let is = |text: &str| (200, text.to_owned());

    assert_eq!(ask("POST", "/orders", "{\"count\": 3}"), is("3"));
    for (body, status, words) in
        [("{\"count\":", 400, "EOF"), ("no", 400, "expected"), ("{\"count\": \"x\"}", 422, "count"), ("{}", 422, "count")]
    {
        let answer = ask("POST", "/orders", body);
        assert_eq!(answer.0, status, "{body}: {answer:?}");
        assert!(answer.1.contains(words), "{body}: {answer:?}");
    }
    assert_eq!(http.ask("POST", "/orders", &[("content-type", "text/plain")], "{}").status, 415);

    assert_eq!(ask("GET", "/items/caf%C3%A9%20au%20lait", ""), is("café au lait"), "percent-encoding is decoded");
    assert_eq!(ask("GET", "/items/a%2Fb", ""), is("a/b"), "an encoded slash belongs to its segment");
    assert_eq!(ask("GET", "/items/%FF%FE", "").0, 400, "invalid UTF-8 in a path");
    assert_eq!(ask("GET", "/page?count=2", ""), is("2"));
    for target in ["/page?count=two", "/page?count=%FF", "/page"] {
        assert_eq!(ask("GET", target, "").0, 400, "{target}");
    }
    for target in [&b"/items/\xff\xfe"[..], b"/page?count=\xff"] {
        let request = [b"GET ", target, b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"].concat();
        let status = http.raw(&request).status;
        assert_eq!(status, 400, "raw bytes {target:?}");
    }
    assert_eq!(http.raw(b"NONSENSE\r\n\r\n").status, 400);

    assert_eq!(ask("GET", "/nowhere", "").0, 404);
    let not_allowed = http.ask("DELETE", "/orders", &[], "");
    assert_eq!(
        (not_allowed.status, not_allowed.header("allow").is_some_and(|allow| allow.contains("POST"))),
        (405, true),
        "{not_allowed:?}"
    );
    let options = http.ask("OPTIONS", "/", &[], "");
    let allowed = options.header("allow").unwrap_or_default();
    assert!(matches!(options.status, 200 | 204) && allowed.contains("GET") && allowed.contains("HEAD"), "{options:?}");
    let head = http.ask("HEAD", "/", &[], "");
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", Some("4")));
    assert_eq!(http.ask("HEAD", "/nowhere", &[], "").status, 404);

    let limit = 2 << 20;
    assert_eq!(ask("POST", "/echo", &"x".repeat(limit)), is(&limit.to_string()), "two MiB are allowed");
    assert_eq!(ask("POST", "/echo", &"x".repeat(limit + 1)).0, 413);
    let announced = format!("POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", 1u64 << 40);
    assert_eq!(http.raw(announced.as_bytes()).status, 413, "refused by what it announces");

    assert_eq!(ask("GET", "/", ""), is("home"), "and it still serves");
    assert_eq!(midair.all("panicked"), Vec::<Value>::new());
}

#[test]
fn body_limit_and_request_timeout_are_what_the_command_line_says() {
    let placed = fixture::artifact("manners").placed();
    let launch = || Launch::run(&[&placed.path]);
    let mut midair = launch().arg("--body-limit").arg("1KiB").arg("--request-timeout").arg("5").start();
    midair.published();
    let post = |length: usize| midair.http().ask("POST", "/take", &[], &"x".repeat(length)).status;
    assert_eq!((post(1024), post(1025)), (200, 413));
    assert!(matches!(midair.get("/slow/never").status, 503 | 504), "a request that takes too long is given up");
    drop(midair);

    let mut midair = launch().arg("--body-timeout").arg("0.2").arg("--request-timeout").arg("3600").start();
    midair.published();
    let mut never = midair.http().connect();
    write!(never, "GET /slow/never HTTP/1.1\r\nhost: x\r\n\r\n").expect("it can be sent");
    let mut slow = midair.http().connect();
    write!(slow, "POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nx").expect("it can be sent");
    assert_eq!(read_answer(&mut slow).expect("an answer").status, 408);
    assert_eq!(midair.all("failed"), Vec::<Value>::new(), "long before a handler has had its time");
}

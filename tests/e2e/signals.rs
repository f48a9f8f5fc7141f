//! What do signals ask of a host, and what if a plugin takes them, or ends the process?

use std::io::Write;
use std::process::Command;

use midair_tests::client::read_answer;
use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use midair_tests::{cargo, repository};
use rustix::process::Signal;
use serde_json::Value;

use crate::dev::saying;
use crate::ending::{wake, with_a_sleeper};

fn is(event: &Value, kind: &str) -> bool {
    event["event"] == kind
}

/// The next warning with all these words.
#[track_caller]
fn warned(midair: &mut Midair, words: &[&str]) -> String {
    let message = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
    let fits = |event: &Value| is(event, "warning") && words.iter().all(|word| message(event).contains(word));
    message(&midair.wait_for(&format!("a warning with {words:?}"), fits))
}

/// Waits until it has looked again because it was asked to, and nothing was new.
#[track_caller]
fn looked_again(midair: &mut Midair) {
    midair.wait_for("a look", |event| is(event, "unchanged") && event["trigger"] == "reload");
}

#[test]
fn a_hangup_in_run_looks_again_and_ends_nothing() {
    let (placed, mut midair, mut stream) = with_a_sleeper("hangs_up", "3600");
    midair.signal(Signal::HUP);
    looked_again(&mut midair);
    wake(&placed);
    assert_eq!(read_answer(&mut stream).expect("the request finishes").status, 200);
    assert!(midair.all("stopping").is_empty());
    let ended = midair.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
}

#[test]
fn signals_that_ask_for_nothing_do_nothing_and_the_one_for_an_upgrade_says_so() {
    let (placed, mut midair, mut stream) = with_a_sleeper("ignores", "3600");
    midair.signal(Signal::USR1);
    midair.signal(Signal::ALARM);
    midair.signal(Signal::USR2);
    warned(&mut midair, &["SIGUSR2", "upgrade", "nothing was done", "midair reload"]);
    wake(&placed);
    assert_eq!(read_answer(&mut stream).expect("the request finishes").status, 200);
    let ended = midair.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
}

#[test]
fn a_hangup_cuts_no_drain_short() {
    let (placed, mut midair, mut stream) = with_a_sleeper("drains", "3600");
    midair.signal(Signal::TERM);
    midair.wait_for("stopping", |event| is(event, "stopping"));
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        midair.signal(signal);
    }
    wake(&placed);
    assert_eq!(read_answer(&mut stream).expect("the request finishes").status, 200);
    let ended = midair.ended("its end");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
}

#[test]
fn a_closed_terminal_ends_dev_after_a_drain_and_one_that_is_to_outlive_it_goes_on() {
    let project = Project::plugin("closed", &saying("open"));
    // Whoever runs the tests may be one to outlive a terminal.
    let mut plain = Command::new("env");
    plain.arg("--default-signal=HUP").arg(cargo::midair()).env("CARGO_TARGET_DIR", repository::shared_target());
    let mut midair = Launch::of(plain, "dev", &[project.root()]).start();
    midair.published();
    midair.signal(Signal::HUP);
    let stopping = midair.wait_for("stopping", |event| is(event, "stopping"));
    assert_eq!(stopping["signal"], "SIGHUP");
    let ended = midair.ended("its end after SIGHUP");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());

    let mut nohup = Command::new("nohup");
    nohup.arg(cargo::midair()).env("CARGO_TARGET_DIR", repository::shared_target());
    let mut midair = Launch::of(nohup, "dev", &[project.root()]).start();
    midair.published();
    midair.signal(Signal::HUP);
    // One more that is heard: had the first been, it would be by then.
    midair.signal(Signal::USR2);
    warned(&mut midair, &["SIGUSR2"]);
    assert_eq!(midair.get("/").body, "open");
    midair.signal(Signal::TERM);
    let stopping = midair.wait_for("stopping", |event| is(event, "stopping"));
    assert_eq!(stopping["signal"], "SIGTERM");
    assert!(midair.ended("its end after SIGTERM").status.success());
}

#[test]
fn a_hangup_and_sigquit_while_new_code_is_in_probation_hold_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, data) = (folder.path().join("libhello.so"), folder.path().join("data"));
    let [one, two] = crate::run::one_and_two();
    project::save(&path, one);
    let mut midair = Launch::run_committed(&path, &data).start();
    midair.published();
    project::save(&path, two);
    midair.wait_for("two", |event| is(event, "published") && event["generation"] == 2);
    midair.signal(Signal::HUP);
    looked_again(&mut midair);
    assert_eq!(midair.get("/").body, "two");
    midair.signal(Signal::QUIT);
    let ended = midair.ended("its end after SIGQUIT");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());

    let mut midair = Launch::run(&[&path]).arg("--data").arg(&data).arg("--probation").arg("600").start();
    midair.wait_for("two, again", |event| is(event, "published") && event["trigger"] != "start: what was committed last");
    assert_eq!((midair.get("/").body.as_str(), midair.all("died").len()), ("two", 0), "{}", midair.story());
}

/// A host that serves this variant of the plugin that takes signals.
#[track_caller]
fn signalling(variant: &str) -> (fixture::Placed, Midair) {
    let placed = fixture::artifact("signalling").variant(variant).placed();
    let mut midair = Launch::run(&[&placed.path]).start();
    midair.published();
    (placed, midair)
}

#[test]
fn a_plugin_that_takes_a_signal_is_named_and_the_host_has_its_signal_back() {
    let own = "installed a handler of its own";
    for (variant, signals, words) in [
        ("in plugin", &["SIGTERM", "SIGINT"][..], &["signalling=1", own, "opened"][..]),
        ("in init", &["SIGQUIT"], &["signalling=1", own, "in its init"]),
        ("in init", &["SIGPIPE"], &["signalling=1", "left it to the system", "in its init"]),
        ("in a task", &["SIGTERM"], &["signalling=1", own]),
        ("ignores", &["SIGTERM"], &["signalling=1", "had it ignored"]),
    ] {
        let (_placed, midair) = signalling(variant);
        let said = |words: &[&str]| {
            let warnings = midair.all("warning").into_iter();
            let messages = warnings.map(|event| event["message"].as_str().unwrap_or_default().to_owned());
            messages.into_iter().any(|message| words.iter().all(|word| message.contains(word)))
        };
        // A task begins beside the publish.
        crate::inside::until(&format!("{variant}: a warning of {signals:?}"), || {
            signals.iter().all(|signal| said(&[&[*signal][..], words].concat()))
        });
        assert!(!said(&["SIGUSR1"]) && !said(&["SIGCHLD"]), "what the host doesn't need is a plugin's: {}", midair.story());
        assert_eq!(midair.get("/").body, variant);
        let ended = midair.terminate();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
    }
}

#[test]
fn a_signal_that_a_handler_took_is_found_with_the_next_publish_and_blamed_on_the_one_that_took_it() {
    let (placed, mut midair) = signalling("in a request");
    assert_eq!(midair.get("/take").body, "taken");
    project::save(&placed.path, fixture::artifact("signalling").variant("newer").bytes());
    warned(&mut midair, &["signalling=1 took SIGTERM"]);
    midair.published();
    let ended = midair.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
}

#[test]
fn a_plugin_that_calls_exit_is_no_end_in_good_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let placed = fixture::artifact("signalling").variant("exits").placed();
    let start = || Launch::run(&[&placed.path]).arg("--data").arg(folder.path()).arg("--probation").arg("600").start();
    for status in [0, 3] {
        let mut midair = start();
        midair.published();
        let mut stream = midair.http().connect();
        write!(stream, "GET /exit/{status} HTTP/1.1\r\nhost: x\r\n\r\n").expect("it can be sent");
        let ended = midair.ended("the end by a plugin");
        assert_eq!(ended.status.code(), Some(71), "{}", ended.words());
        for words in [&format!("exit({status})")[..], "code of a plugin", "signalling=1"] {
            assert!(ended.stderr.contains(words), "{words}: {}", ended.words());
        }
    }
    let mut midair = start();
    midair.wait_for("the death", |event| is(event, "died"));
}

#[test]
fn a_child_that_a_plugin_forked_exits_as_it_likes() {
    let (_placed, midair) = signalling("forks");
    assert_eq!(midair.get("/fork").body, "7");
    let ended = midair.terminate();
    assert_eq!((ended.status.code(), ended.stderr.contains("exit")), (Some(0), false), "{}", ended.words());
}

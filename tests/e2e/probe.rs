//! What becomes of code that must not be opened in the process that serves?

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use midair_tests::host::{Launch, Midair};
use midair_tests::project;
use midair_tests::{cargo, patience, probe_cost};
use serde_json::Value;

use crate::run::{Served, hello, one_and_two};

/// Of code that hangs it is waited for no longer; long enough for code that is no more than slow.
const SHORT: &[&str] = &["--step-timeout", "6"];

/// A plugin that says "bad", with code that the system runs while it opens it.
fn constructing(variant: &str) -> Vec<u8> {
    hello("constructing", variant)
}

/// A plugin that says "bad", with hooks that run before it is published.
fn starting(variant: &str) -> Vec<u8> {
    hello("starting", variant)
}

/// What the host has opened, by the names of its private copies.
fn opened(midair: &Midair) -> BTreeSet<String> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", midair.pid())).expect("the host is there");
    maps.lines().filter_map(|line| line.split_once("/staged/")).map(|(_, name)| name.replace(" (deleted)", "")).collect()
}

/// It is refused as said, and the host didn't open it.
#[track_caller]
fn refused_unopened(served: &mut Served, what: &str, bad: &[u8], codes: &[&str], words: &[&str]) {
    let before = opened(&served.midair);
    let seen: Vec<Value> = served.midair.all("published");
    served.refuses(what, bad, codes, words);
    // Two good ones were opened after it, and nothing else.
    let published = served.midair.all("published").len() - seen.len();
    assert_eq!(opened(&served.midair).difference(&before).count(), published, "{what}");
}

/// Asks without a pause until it is dropped; every answer has to be one of the good plugins'.
struct Client(Arc<AtomicBool>, Option<thread::JoinHandle<usize>>);

impl Client {
    fn of(midair: &Midair) -> Self {
        let (http, over) = (midair.http(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&over);
        let asks = move || {
            let mut asked = 0;
            while !ends.load(Ordering::Relaxed) {
                let answer = http.get("/");
                assert!(answer.status == 200 && ["one", "two"].contains(&answer.body.as_str()), "{answer:?}");
                asked += 1;
            }
            asked
        };
        Self(over, Some(thread::spawn(asks)))
    }

    fn asked(mut self) -> usize {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().expect("it runs").join().expect("every answer was good")
    }
}

#[test]
fn fault_14_g8_g6_a_constructor_that_dies_ends_the_probe_and_the_host_never_opens_it() {
    let mut served = Served::one_with(&[]);
    let client = Client::of(&served.midair);
    for (variant, words) in [
        ("segfaults", &["hello", "opening it ended the probe by signal 11 (SIGSEGV)"][..]),
        ("aborts", &["opening it", "signal 6 (SIGABRT)", "its last words: no way"]),
        ("exits", &["opening it ended the probe with exit status 0"]),
        ("kills itself", &["opening it ended the probe by signal 9 (SIGKILL)"]),
    ] {
        refused_unopened(&mut served, variant, &constructing(variant), &["E_PROBE"], words);
    }
    assert!(client.asked() > 0);
    assert_eq!(served.midair.terminate().status.code(), Some(0));
}

#[test]
fn fault_14_g8_g14_a_constructor_that_hangs_costs_its_deadline_and_nothing_else() {
    let mut served = Served::one_with(SHORT);
    let client = Client::of(&served.midair);
    let words = ["opening it took longer than 6 s and was given up"];
    // After it the loader opens other libraries, which it doesn't where it hung in the host.
    refused_unopened(&mut served, "a hang", &constructing("hangs"), &["E_PROBE"], &words);
    assert!(client.asked() > 0);
    assert_eq!(served.midair.terminate().status.code(), Some(0));
}

#[test]
fn what_a_plugin_prints_in_the_probe_neither_blocks_nor_fakes_the_verdict() {
    // So much takes its time where the machine has little.
    let mut served = Served::one_with(&["--step-timeout", "60"]);
    let words = ["signal 6 (SIGABRT)", "its last words: ", "the end of it"];
    refused_unopened(&mut served, "a flood", &constructing("floods, fakes and aborts"), &["E_PROBE"], &words);
    // One that prints as much and is fine.
    let fine = constructing("floods");
    project::save(&served.path(), &fine);
    served.midair.published();
    assert_eq!(served.midair.get("/").body, "bad");
}

#[test]
fn fault_10_what_the_loader_refuses_is_refused_in_the_probe_and_the_host_lives() {
    let mut served = Served::one_with(&[]);
    let unresolved = hello("unresolved", "bad");
    let words = ["midair_has_no_such_function", "in the probe"];
    refused_unopened(&mut served, "an unresolved symbol", &unresolved, &["E_DEPS", "E_PROBE"], &words);
    let (needed, unknown) = (b"libgcc_s.so.1\0", b"libnone_.so.1\0");
    let mut bytes = one_and_two()[1].clone();
    let place = bytes.windows(needed.len()).position(|there| there == needed).expect("every plugin needs it");
    bytes[place..][..unknown.len()].copy_from_slice(unknown);
    refused_unopened(&mut served, "an unknown library", &bytes, &["E_DEPS", "E_PROBE"], &["libnone_.so.1"]);
    assert_eq!(served.midair.terminate().status.code(), Some(0));
}

#[test]
fn fault_13_g6_g14_an_init_that_fails_panics_hangs_or_dies_is_found_in_the_probe_with_the_code_of_its_step() {
    let mut served = Served::one_with(SHORT);
    for (variant, code, words) in [
        ("init fails", "E_INIT", &["its init failed: no stock", "in the probe"][..]),
        ("init panics", "E_INIT", &["its init panicked: at the start", "in the probe"]),
        ("init hangs", "E_TIMEOUT", &["its init took longer than 6 s", "in the probe"]),
        ("init exits", "E_PROBE", &["its init ended the probe with exit status 3"]),
        (
            "init takes all memory",
            "E_PROBE",
            &["its init ended the probe by signal 6 (SIGABRT)", "memory allocation of 6442450944 bytes failed"],
        ),
    ] {
        refused_unopened(&mut served, variant, &starting(variant), &[code], words);
    }
    refused_unopened(&mut served, "a route twice", &starting("a route twice"), &["E_ROUTES"], &["the same route"]);
    let plugin = starting("smoke makes no sense");
    refused_unopened(&mut served, "a plugin function that panics", &plugin, &["E_INIT"], &["write a method and a path"]);
}

#[test]
fn fault_15_g6_a_self_test_or_smoke_that_fails_is_refused_with_its_own_words() {
    let mut served = Served::one_with(SHORT);
    for (variant, words) in [
        ("self-test fails", &["the self-test stock failed: seven are missing"][..]),
        ("self-test panics", &["the self-test stock panicked: no shelf"]),
        ("self-test aborts", &["the self-test stock ended the probe by signal 6"]),
        ("self-test hangs", &["the self-test stock took longer than 6 s"]),
        ("smoke fails", &["the smoke GET /healthz is answered 500, not 200: no stock"]),
        ("smoke of another method", &["the smoke POST / is answered 405, not 200"]),
        ("smoke hangs", &["the smoke GET /never took longer"]),
    ] {
        refused_unopened(&mut served, variant, &starting(variant), &["E_PROBE"], words);
    }
    let logged = served.midair.all("log");
    assert!(logged.iter().any(|event| event["message"] == "in the probe: counted"), "{logged:?}");
}

#[test]
fn a_self_test_sees_what_init_wrote_and_its_own_routes_and_nothing_of_it_stays() {
    let mut served = Served::one_with(&[]);
    project::save(&served.path(), starting("all of it"));
    let published = served.midair.outcome();
    assert!(published["event"] == "published" && published["phases_us"]["probe"].is_u64(), "{published}");
    assert_eq!(served.midair.get("/inits").body, "1", "the state of the host is untouched");
    assert_eq!(served.midair.all("log"), Vec::<Value>::new(), "what passed says nothing");
}

#[test]
fn fault_16_g6_what_works_in_the_probe_and_fails_in_the_host_is_refused_and_nothing_happened() {
    let mut served = Served::one_with(&[]);
    let artifact = starting("init fails in the host");
    served.refuses("an init that fails in the host", &artifact, &["E_INIT"], &["its init failed: not in here"]);
    let rejected = served.midair.all("rejected").remove(0);
    assert!(!rejected["reason"].to_string().contains("probe"), "{rejected}");
    assert_eq!(served.midair.all("log").len(), 1, "what it said in the probe is said again in the host");
    project::save(&served.path(), starting("init is fine"));
    served.midair.published();
    assert_eq!(served.midair.get("/inits").body, "0");
}

#[test]
fn processes_that_a_plugin_starts_in_the_probe_are_no_probes_and_end_with_it() {
    let mut served = Served::one_with(&[]);
    let artifact = starting("init starts processes");
    refused_unopened(&mut served, "a sleeper", &artifact, &["E_PROBE"], &["its init ended the probe by signal 6"]);
    let logged = served.midair.all("log");
    let sleeper =
        logged.iter().find_map(|event| event["message"].as_str()?.strip_prefix("in the probe: sleeper ").map(str::to_owned));
    let stat = PathBuf::from(format!("/proc/{}/stat", sleeper.expect("it said so")));
    let until = Instant::now() + patience();
    // Gone, or dead and not yet taken note of.
    while fs::read_to_string(&stat).is_ok_and(|stat| stat.contains("(sleep)") && !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "it sleeps on");
    }
}

#[test]
fn without_the_probe_status_says_so_and_new_code_is_opened_at_once() {
    for (args, is_on, words) in [(&[][..], true, "probe on"), (&["--no-probe"], false, "probe off")] {
        let mut served = Served::one_with(args);
        assert_eq!(served.midair.status()["probe"], is_on);
        let status = served.midair.client(&["status"]).output().expect("it runs");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.lines().next().is_some_and(|line| line.contains(words)), "{status}");
        project::save(&served.path(), &one_and_two()[1]);
        let published = served.midair.published();
        assert_eq!(published["phases_us"]["probe"].is_u64(), is_on, "{published}");
    }
}

/// A program of somebody's own with a host in it.
fn custom_host() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| cargo::example("custom_host"))
}

#[test]
fn a_program_whose_main_lacks_the_hook_is_told_the_missing_line_and_a_probe_of_it_ends_with_70() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifact = folder.path().join("libhello.so");
    project::save(&artifact, &one_and_two()[0]);
    let line = "midair::probe::hook();";
    for (hook, code, words, answer) in [
        ("first", Value::Null, &[][..], "one"),
        ("never", "E_PROBE".into(), &["this program can't try it", line], "no plugin serves yet\n"),
        ("unless-probe", "E_PROBE".into(), &["with exit status 70", line], "no plugin serves yet\n"),
    ] {
        let output = Command::new(custom_host()).env("HOOK", hook).env("ARTIFACT", &artifact).output().expect("it runs");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{hook}: {error}\n{stdout}\n{stderr}"));
        let reason = told["reason"].as_str().unwrap_or_default();
        assert_eq!((&told["code"], told["answer"].as_str()), (&code, Some(answer)), "{hook}: {told}");
        assert!(words.iter().all(|word| reason.contains(word)), "{hook}: {told}");
    }
    // By hand, as a host would start it.
    for hook in ["first", "never"] {
        let probe = Command::new(custom_host()).env("HOOK", hook).env("ARTIFACT", &artifact).env("MIDAIR_PROBE", "1").output();
        let probe = probe.expect("it runs");
        let stderr = String::from_utf8_lossy(&probe.stderr);
        assert_eq!((probe.status.code(), probe.stdout.len()), (Some(70), 0), "{hook}: {stderr}");
        assert!(stderr.contains("MIDAIR_PROBE") && (hook == "first" || stderr.contains(line)), "{hook}: {stderr}");
    }
}

#[test]
fn where_no_process_can_be_started_the_refusal_names_the_option_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (own, path) = (folder.path().join("midair"), folder.path().join("libhello.so"));
    assert!(Command::new("cp").arg(cargo::midair()).arg(&own).status().expect("cp runs").success());
    project::save(&path, &one_and_two()[0]);
    let mut midair = Launch::of(Command::new(&own), "run", &[&path]).start();
    midair.published();
    let allow = |mode| fs::set_permissions(&own, fs::Permissions::from_mode(mode)).expect("it is ours");
    allow(0o600);
    project::save(&path, &one_and_two()[1]);
    let rejected = midair.rejected("E_PROBE");
    let said = format!("{} {}", rejected["reason"], rejected["help"]);
    assert!(said.contains("can't start itself once more") && said.contains("--no-probe"), "{rejected}");
    allow(0o755);
    assert_eq!(midair.get("/").body, "one");
    assert_eq!(midair.admin().ask("POST", "/reload", &[], "").status, 202);
    midair.published();
    assert_eq!(midair.get("/").body, "two");
}

#[test]
fn the_bench_of_the_probe_still_runs() {
    let report = probe_cost::measure(cargo::midair(), 2);
    assert!(report.contains("a swap without") && report.contains("  probe, median"), "{report}");
}

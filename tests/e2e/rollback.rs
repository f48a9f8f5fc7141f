//! Does what served before come back, by hand and by itself, and does what was bad stay away?

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use midair_tests::client::{Client, read_answer};
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use midair_tests::{fixture, size};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::inside::until;

/// The artifact of the plugin `moody` that has this name, and behaves as it says.
fn artifact(name: &str) -> Vec<u8> {
    fixture::artifact("moody").variant(name).bytes()
}

/// A place for an artifact and for what hosts remember.
struct Site {
    folder: TempDir,
}

impl Site {
    fn with(name: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a folder") };
        site.put(name);
        site
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("libmoody.so")
    }

    fn put(&self, name: &str) {
        project::save(&self.path(), artifact(name));
    }

    fn launch(&self, options: &[&str]) -> Launch {
        let data = self.folder.path().join("data");
        let launch = Launch::run(&[&self.path()]).arg("--generation-header").arg("--data").arg(data);
        options.iter().fold(launch, |launch, option| launch.arg(option))
    }

    /// A host that commits what it publishes after its first request.
    fn quick(&self) -> Midair {
        self.launch(&["--probation", "0", "--probation-requests", "1"]).start()
    }

    /// A host that had its artifact committed by an earlier run, has answered so many requests that a few slow ones say nothing,
    /// and commits nothing by itself.
    fn patient(&self, options: &[&str]) -> Midair {
        let mut first = self.quick();
        first.published();
        commit(&mut first);
        drop(first);
        let options = [&["--probation", "3600", "--probation-requests", "60"][..], options].concat();
        let mut midair = self.launch(&options).start();
        midair.published();
        (0..400).for_each(|_| assert_eq!(midair.get("/x").status, 200));
        midair
    }
}

fn kind(event: &Value, kind: &str) -> bool {
    event["event"] == kind
}

/// Has what serves committed.
#[track_caller]
fn commit(midair: &mut Midair) -> Value {
    assert_eq!(midair.get("/x").status, 200);
    midair.wait_for("committed", |event| kind(event, "committed"))
}

#[track_caller]
fn says(client: Client, name: &str) {
    assert_eq!(client.get("/").body, name);
}

/// Has the process abort.
#[track_caller]
fn dies(client: Client) {
    dies_of(client, "/die");
}

#[track_caller]
fn dies_of(client: Client, path: &str) {
    let mut stream = client.connect();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("it can be sent");
    assert!(read_answer(&mut stream).is_err(), "the process is gone");
}

#[test]
fn fault_42_what_was_rolled_back_by_hand_stays_away_until_it_is_forced() {
    let site = Site::with("one");
    let mut midair = site.quick();
    midair.published();
    assert_eq!(commit(&mut midair)["generation"], 1);
    site.put("two");
    midair.published();
    assert_eq!(midair.status()["plugins"][0]["phase"], "trial");
    says(midair.http(), "two");
    commit(&mut midair);

    let told = midair.client(&["rollback"]).output().expect("it runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.starts_with("moody 1 (") && told.ends_with(") serves again\n"), "{told}");
    let back = midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    assert_eq!((&back["from"], &back["to"], &back["by"]), (&json!(2), &json!(1), &json!("hand")), "{back}");
    let answer = midair.get("/");
    assert_eq!((answer.body.as_str(), answer.generation()), ("one", 1), "the number is the old one");
    let status = midair.status();
    assert_eq!(status["held"]["moody"][0]["digest"], back["digest"]);
    let last = status["attempts"].as_array().and_then(|attempts| attempts.last()).cloned().unwrap_or_default();
    assert_eq!(last["outcome"], "rolled_back", "{last}");

    // No event: the same bytes under a new inode start nothing. No rescan.
    site.put("two");
    assert_eq!(midair.client(&["reload"]).status().expect("it runs").code(), Some(3));
    midair.rejected("E_HELD");
    says(midair.http(), "one");
    // No restart, in good order or not.
    for kill in [false, true] {
        if kill {
            drop(midair);
        } else {
            assert_eq!(midair.terminate().status.code(), Some(0));
        }
        midair = site.quick();
        assert_eq!(midair.published()["trigger"], "start: what was committed last");
        let rejected = midair.rejected("E_HELD");
        assert!(rejected["reason"].as_str().is_some_and(|reason| reason.contains("rolled back")), "{rejected}");
        says(midair.http(), "one");
    }
    // Forward again by its number is a rollback too; here it is gone with the process.
    let refused = midair.client(&["rollback", "moody@2"]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("moody=2 isn't kept"), "{words}");

    assert!(midair.client(&["reload", "--force"]).status().expect("it runs").success());
    midair.published();
    says(midair.http(), "two");
    commit(&mut midair);
    assert!(midair.client(&["rollback", "moody"]).status().expect("it runs").success());
    midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    // Other bytes come by themselves, but don't bring the held ones with them, committed or not.
    site.put("slow");
    midair.published();
    commit(&mut midair);
    says(midair.http(), "slow");
    site.put("two");
    midair.rejected("E_HELD");
    says(midair.http(), "slow");
    assert!(midair.client(&["reload", "--force"]).status().expect("it runs").success());
    midair.published();
    says(midair.http(), "two");
    assert_eq!(midair.status()["held"], json!({}));
}

#[test]
fn fault_19_g12_one_panic_in_fifty_on_trial_brings_the_committed_generation_back_by_itself() {
    let site = Site::with("one");
    // A panic takes longer than an answer, which is not what is tried here.
    let mut midair = site.patient(&["--breach-latency", "1000000"]);
    site.put("panics");
    midair.published();
    for number in 0..201 {
        let (answer, status) = (midair.get("/x"), if number % 50 == 0 { 500 } else { 200 });
        assert_eq!((answer.status, answer.generation()), (status, 2), "{number}\n{}", midair.story());
    }
    let back = midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    assert_eq!(
        (&back["from"], &back["to"], &back["by"], &back["code"]),
        (&json!(2), &json!(1), &json!("breach"), &json!("E_PROBATION"))
    );
    assert!(back["reason"].as_str().is_some_and(|reason| reason.contains("5 of 201 answers failed")), "{back}");
    says(midair.http(), "one");
    // The next good bytes are watched anew.
    site.put("two");
    midair.published();
    says(midair.http(), "two");
}

#[test]
fn fault_20_answers_that_take_five_times_as_long_bring_the_committed_generation_back() {
    let site = Site::with("one");
    let mut midair = site.patient(&[]);
    site.put("slow");
    midair.published();
    let is_back = |midair: &Midair| !midair.all("rolled_back").is_empty();
    let answers: Vec<_> = (0..100).map_while(|_| (!is_back(&midair)).then(|| midair.get("/x"))).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    let comparing = midair.wait_for("comparing", |event| kind(event, "comparing"));
    assert_eq!((&comparing["generation"], &comparing["with"]), (&json!(2), &json!(1)), "{comparing}");
    let back = midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    let reason = back["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("its answers took 1") && reason.contains("in the same time (medians of 20 and "), "{back}");
    let of = |number| answers.iter().filter(|answer| answer.generation() == number).count();
    // Each of two went to the code before, from the suspicion on.
    assert!(of(1) >= 20 && of(2) >= 45, "{} and {}", of(1), of(2));
    says(midair.http(), "one");
}

#[test]
fn fault_20_what_is_slow_with_whichever_code_is_no_breach() {
    let site = Site::with("one");
    let mut midair = site.patient(&[]);
    site.put("two");
    midair.published();
    let x = |midair: &Midair| midair.http().ask("GET", "/x", &[("x-takes", "20")], "");
    let told = |midair: &Midair| !midair.all("compared").is_empty() || !midair.all("rolled_back").is_empty();
    let answers: Vec<_> = (0..2_000).map_while(|_| (!told(&midair)).then(|| x(&midair))).collect();
    let compared = midair.wait_for("compared", |event| kind(event, "compared") || kind(event, "rolled_back"));
    assert!(compared["reason"].as_str().is_some_and(|reason| reason.contains("medians of ")), "{compared}");
    assert_eq!((&compared["event"], &compared["generation"]), (&json!("compared"), &json!(2)), "{compared}");
    for answer in &answers {
        let name = if answer.generation() == 1 { "one" } else { "two" };
        assert_eq!((answer.status, answer.body.as_str()), (200, name), "each answer is of one code");
    }
    assert!(answers.iter().any(|answer| answer.generation() == 1));
    // All goes to the new code again.
    assert!((0..10).all(|_| midair.get("/x").generation() == 2));
    assert_eq!(midair.all("rolled_back"), Vec::<Value>::new());
}

#[test]
#[ignore = "tests/long latency"]
fn latency_of_equal_code_is_no_breach_while_others_want_the_processor() {
    let (trials, requests) = (size(2, 40), 400);
    let site = Site::with("v0");
    let args = ["--probation", "0", "--probation-requests", "400"];
    let mut midair = site.launch(&args).start();
    midair.published();
    let ask = |midair: &Midair, requests: usize| {
        let left = AtomicUsize::new(requests);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                        assert_eq!(midair.http().ask("GET", "/x", &[("x-takes", "1")], "").status, 200);
                    }
                });
            }
        });
    };
    ask(&midair, 500);
    midair.wait_for("committed", |event| kind(event, "committed"));
    for trial in 1..=trials {
        site.put(&format!("v{trial}"));
        midair.published();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // More of them than there are processors.
            for _ in 0..2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            ask(&midair, requests);
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(midair.all("rolled_back"), Vec::<Value>::new(), "trial {trial}");
        // A comparison ends with requests, not by itself.
        while midair.all("committed").len() <= trial {
            ask(&midair, 100);
        }
    }
    let (suspected, equal) = (midair.all("comparing").len(), midair.all("compared").len());
    let _ = writeln!(
        std::io::stdout(),
        "{trials} times equal code: suspected {suspected} times, {equal} times found equal, never rolled back"
    );
    assert_eq!(suspected, equal);
}

#[test]
fn failures_in_a_row_break_the_circuit_and_where_nothing_was_before_they_are_told() {
    let site = Site::with("fails");
    let mut midair = site.launch(&["--probation", "0", "--probation-requests", "20"]).start();
    midair.published();
    (0..5).for_each(|_| assert_eq!(midair.get("/x").status, 500));
    let breached = midair.wait_for("breached", |event| kind(event, "breached"));
    assert!(breached["help"].as_str().is_some_and(|help| help.contains("no earlier generation to go back to")), "{breached}");
    site.put("one");
    midair.published();
    (0..20).for_each(|_| assert_eq!(midair.get("/x").status, 200));
    midair.wait_for("committed", |event| kind(event, "committed"));
    site.put("fails");
    midair.published();
    (0..5).for_each(|_| assert_eq!(midair.get("/x").status, 500));
    let back = midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    assert_eq!((&back["from"], &back["to"]), (&json!(3), &json!(2)));
    assert_eq!(midair.get("/x").body, "one");
}

#[test]
fn fault_19_g12_what_was_never_committed_comes_back_too_by_itself_by_hand_and_after_a_death() {
    let site = Site::with("one");
    let patient = ["--probation", "3600"];
    let mut midair = site.launch(&patient).start();
    midair.published();
    (0..40).for_each(|_| assert_eq!(midair.get("/x").status, 200));
    site.put("fails");
    midair.published();
    let plugin = midair.status()["plugins"][0].clone();
    assert_eq!((&plugin["way_back"], &plugin["way_back_committed"]), (&json!(1), &json!(false)), "{plugin}");
    (0..5).for_each(|_| assert_eq!(midair.get("/x").status, 500));
    let back = midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    assert_eq!((&back["to"], &back["by"]), (&json!(1), &json!("breach")), "{back}");
    assert_eq!((midair.get("/x").body.as_str(), midair.status()["plugins"][0]["phase"].as_str()), ("one", Some("trial")));
    drop(midair);
    // Killed: what failed lies at the path still.
    let mut midair = site.launch(&patient).start();
    assert_eq!(midair.published()["trigger"], "start: what served before the last trial");
    midair.rejected("E_HELD");
    says(midair.http(), "one");
    // On trial over what is on trial: one step back at a time.
    for name in ["two", "slow"] {
        site.put(name);
        midair.published();
    }
    assert!(midair.client(&["rollback"]).status().expect("it runs").success());
    says(midair.http(), "two");
    assert_eq!(midair.status()["plugins"][0]["phase"], "committed", "by hand");
    site.put("panics");
    midair.published();
    assert!(midair.client(&["rollback", "moody@1"]).status().expect("it runs").success());
    says(midair.http(), "one");
}

#[test]
fn fault_42_what_breaches_while_it_is_published_stays_held() {
    let site = Site::with("one");
    let mut midair = site.launch(&["--probation", "0", "--probation-requests", "20"]).start();
    midair.published();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let http = midair.http();
        for _ in 0..4 {
            let (http, is_over) = (http, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = http.get("/x");
                }
            });
        }
        let rounds = || {
            midair.wait_for("committed", |event| kind(event, "committed"));
            site.put("fails");
            for _ in 0..5 {
                midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
                assert_eq!(midair.status()["held"]["moody"][0]["by"], "breach");
                assert_eq!(midair.admin().ask("POST", "/reload", &[], "").status, 202);
                // That it was published may be told after that it went back.
                midair.wait_for("a refusal", |event| kind(event, "rejected") && event["code"] == "E_HELD");
                assert_eq!(midair.admin().ask("POST", "/reload?force", &[], "").status, 202);
            }
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        is_over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn g12_while_the_disk_does_not_answer_a_breach_goes_back_and_admin_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let held = folder.path().join("held");
    let put = |plugin: &str, name: &str| fixture::artifact("pair").named(plugin).variant(name).save_in(folder.path());
    let paths = [put("pair-a", "a1"), put("pair-b", "b1")];
    let preload = folder.path().join("held_disk.so");
    fs::write(&preload, fixture::artifact("held_disk").bytes()).expect("a file");
    let launch = || {
        let launch = Launch::run(&[&paths[0], &paths[1]]).arg("--data").arg(folder.path().join("data"));
        let launch = launch.arg("--probation").arg("0").arg("--probation-requests").arg("5");
        launch.env("LD_PRELOAD", preload.to_str()).env("MIDAIR_DISK_HELD", held.to_str())
    };
    let ask = |midair: &Midair, path: &str, status: u16| (0..5).for_each(|_| assert_eq!(midair.get(path).status, status, "{path}"));
    let phase = |midair: &Midair, at: usize| midair.status()["plugins"][at]["phase"].as_str().map(str::to_owned);
    let mut midair = launch().start();
    (0..2).for_each(|_| drop(midair.published()));
    ask(&midair, "/a", 200);
    ask(&midair, "/b", 200);
    (0..2).for_each(|_| drop(midair.wait_for("committed", |event| kind(event, "committed"))));
    for (plugin, name) in [("pair-a", "a2"), ("pair-b", "b2")] {
        put(plugin, name);
        midair.published();
    }
    fs::write(&held, "").expect("a file");
    // The one is committed, which has to be written down ...
    ask(&midair, "/b", 200);
    until("the one to be committed", || phase(&midair, 1).as_deref() == Some("committed"));
    // ... and the other one goes back meanwhile, as what was committed does when somebody asks.
    ask(&midair, "/a", 500);
    let back = midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    assert_eq!((&back["plugin"], &back["by"]), (&json!("pair-a"), &json!("breach")), "{back}");
    assert_eq!((midair.get("/a").body.as_str(), midair.admin().get("/healthz").status), ("a1", 200));
    assert_eq!(midair.admin().ask("POST", "/rollback?plugin=pair-b", &[], "").status, 200);
    assert_eq!((midair.get("/b").body.as_str(), midair.admin().get("/generations").status), ("b1", 200));
    let told = |midair: &Midair| midair.all("committed").len();
    assert_eq!(told(&midair), 2, "nothing is said to be committed that isn't on the disk");
    fs::remove_file(&held).expect("it is there");
    midair.wait_for("committed", |event| kind(event, "committed"));
    until("what was decided to be on the disk", || {
        let mark = |plugin: &str| fs::read_to_string(folder.path().join(format!("data/marks/{plugin}.json"))).unwrap_or_default();
        ["pair-a", "pair-b"].iter().all(|plugin| mark(plugin).contains("rolled back"))
    });
    drop(midair);
    let mut midair = launch().start();
    (0..2).for_each(|_| assert_eq!(midair.published()["trigger"], "start: what was committed last"));
    midair.rejected("E_HELD");
    assert_eq!(["/a", "/b"].map(|path| midair.get(path).body), ["a1", "b1"]);
}

#[test]
fn in_development_a_breach_is_told_and_the_way_back_offered() {
    let project = Project::plugin("moody-dev", &fixture::source("moody", "one"));
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    project.save("src/lib.rs", &fixture::source("moody", "fails"));
    midair.published();
    (0..5).for_each(|_| assert_eq!(midair.get("/x").status, 500));
    let breached = midair.wait_for("breached", |event| kind(event, "breached"));
    assert_eq!(breached["help"], "`midair rollback moody-dev` puts moody-dev=1 back");
    assert_eq!(midair.get("/x").generation(), 2, "it serves on");
    assert!(midair.client(&["rollback"]).status().expect("it runs").success());
    midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    assert_eq!((midair.get("/x").status, midair.get("/x").generation()), (200, 1));
    // The next save is other bytes.
    project.save("src/lib.rs", &fixture::source("moody", "two"));
    midair.published();
    assert_eq!((midair.get("/").body.as_str(), midair.get("/").generation()), ("two", 3));
}

#[test]
fn fault_21_g11_g20_a_crash_on_trial_starts_what_was_committed_and_quarantines_the_rest() {
    let site = Site::with("one");
    let mut midair = site.quick();
    midair.published();
    commit(&mut midair);
    drop(midair);
    site.put("two");
    let patient = ["--probation", "3600"];
    let mut midair = site.launch(&patient).start();
    assert_eq!(
        (&midair.published()["trigger"], midair.published()["generation"].as_u64()),
        (&json!("start: what was committed last"), Some(2))
    );
    says(midair.http(), "two");
    dies(midair.http());
    let ended = midair.ended("a crash");
    assert!(!ended.status.success());

    let mut midair = site.launch(&patient).start();
    let died = midair.wait_for("died", |event| kind(event, "died"));
    assert!(died["reason"].as_str().is_some_and(|reason| reason.contains("on trial") && reason.contains("quarantined")), "{died}");
    assert_eq!(midair.published()["trigger"], "start: what was committed last");
    midair.rejected("E_HELD");
    says(midair.http(), "one");
    // The artifact may even be gone, or broken.
    drop(midair);
    fs::write(site.path(), "no library").expect("a file");
    let mut midair = site.launch(&patient).start();
    midair.published();
    midair.rejected("E_ELF");
    says(midair.http(), "one");
    site.put("slow");
    midair.published();
    says(midair.http(), "slow");
}

#[test]
fn fault_22_kills_from_outside_hold_nothing_that_was_committed_however_many_there_are() {
    let site = Site::with("one");
    let mut midair = site.quick();
    midair.published();
    commit(&mut midair);
    drop(midair);
    let patient = ["--probation", "3600"];
    for kills in 0..4 {
        let mut midair = site.launch(&patient).start();
        if kills > 0 {
            let died = midair.wait_for("died", |event| kind(event, "died"));
            let reason = died["reason"].as_str().unwrap_or_default();
            assert!(reason.contains("left no word") && reason.ends_with("it is started again"), "{died}");
        }
        let waits = kills == 3;
        assert_eq!(midair.published()["trigger"], "start: what was committed last");
        let says_so = |event: &Value| event["message"].as_str().is_some_and(|message| message.contains("this one waits 1 s"));
        assert_eq!(midair.all("warning").iter().any(says_so), waits, "{}", midair.story());
        says(midair.http(), "one");
        // Dropping it kills it.
        drop(midair);
    }
    assert_eq!(site.launch(&patient).start().status()["held"], json!({}));
}

#[test]
fn fault_21_of_two_plugins_in_probation_only_that_is_held_in_whose_code_the_host_died() {
    for how in ["abort", "overflow", "thread", "panics"] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(format!("lib{name}.so"));
        let put = |name: &str, fixture: &str, variant: &str| {
            let artifact = fixture::artifact(fixture).named(name).variant(variant);
            project::save(&path(name), artifact.bytes());
        };
        put("calm", "exchanging", "one");
        put("moody", "moody", "one");
        let start = |more: &[&str]| {
            let launch = Launch::run(&[&path("calm"), &path("moody")]).arg("--data").arg(folder.path().join("data"));
            more.iter().fold(launch, |launch, option| launch.arg(option)).start()
        };
        let mut midair = start(&["--probation", "0", "--probation-requests", "1"]);
        midair.all_published(&["calm", "moody"]);
        for route in ["/version", "/x"] {
            assert_eq!(midair.get(route).status, 200, "{}", midair.story());
        }
        for _ in 0..2 {
            midair.wait_for("committed", |event| kind(event, "committed"));
        }
        drop(midair);
        let mut midair = start(&["--probation", "3600"]);
        midair.all_published(&["calm", "moody"]);
        for (name, fixture) in [("calm", "exchanging"), ("moody", "moody")] {
            put(name, fixture, "two");
            midair.published();
        }
        dies_of(midair.http(), &format!("/die?{how}"));
        let _ = midair.ended("a crash");
        let mut midair = start(&["--probation", "3600"]);
        let died = midair.wait_for("died", |event| kind(event, "died"));
        let reason = died["reason"].as_str().unwrap_or_default();
        assert!(died["plugin"] == "moody" && reason.contains("in code of moody"), "{how}: {died}");
        midair.wait_for("held", |event| kind(event, "held"));
        assert_eq!(midair.all("died").len(), 1, "{}", midair.story());
        let held = midair.status()["held"].clone();
        assert_eq!(held.as_object().map(|held| held.keys().collect::<Vec<_>>()), Some(vec![&"moody".to_owned()]), "{how}: {held}");
    }
}

#[test]
fn fault_22_three_crashes_in_a_row_end_in_a_host_without_that_plugin_that_says_so() {
    let site = Site::with("one");
    let mut midair = site.quick();
    midair.published();
    commit(&mut midair);
    drop(midair);
    let patient = ["--probation", "3600"];
    site.put("two");
    for deaths in 0..3 {
        let mut midair = site.launch(&patient).start();
        midair.published();
        if deaths > 0 {
            assert!(midair.all("died").iter().any(|died| died["deaths"] == deaths), "{}", midair.story());
        } else {
            // What is on trial dies first, then twice what was committed.
            midair.published();
        }
        dies(midair.http());
        let _ = midair.ended("a crash");
    }
    let mut midair = site.launch(&patient).start();
    let warning = midair.wait_for("a warning", |event| kind(event, "warning"));
    assert!(warning["message"].as_str().is_some_and(|message| message.starts_with("moody isn't started:")), "{warning}");
    midair.rejected("E_HELD");
    assert_eq!(midair.get("/").status, 503);
    assert_eq!(midair.admin().get("/readyz").status, 503);
    // No loop: the next start does the same, and bytes that are neither are taken.
    drop(midair);
    let mut midair = site.launch(&patient).start();
    midair.rejected("E_HELD");
    site.put("slow");
    midair.published();
    says(midair.http(), "slow");
}

#[test]
fn g20_of_two_plugins_whose_artifacts_are_gone_one_that_is_refused_keeps_no_other_from_starting() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b, data) = (folder.path().join("liba.so"), folder.path().join("libb.so"), folder.path().join("data"));
    let poison = folder.path().join("poison");
    let first = pair_a(&format!("a {}", poison.display()));
    let second = pair_b("b");
    project::save(&a, &first);
    project::save(&b, &second);
    let launch = || {
        let launch = Launch::run(&[&a, &b]).arg("--data").arg(&data);
        launch.arg("--probation").arg("0").arg("--probation-requests").arg("1").start()
    };
    let mut midair = launch();
    midair.all_published(&["pair-a", "pair-b"]);
    assert_eq!((midair.get("/a").body.as_str(), midair.get("/b").body.as_str()), ("a", "b"));
    midair.wait_for("committed", |event| kind(event, "committed"));
    midair.wait_for("committed", |event| kind(event, "committed"));
    drop(midair);
    for path in [&a, &b] {
        fs::write(path, "no library").expect("a file");
    }
    let mut midair = launch();
    // Both by one attempt, if both can be started.
    let both = midair.all_published(&["pair-a", "pair-b"]);
    assert_eq!(both[0]["attempt"], both[1]["attempt"], "{both:?}");
    midair.rejected("E_ELF");
    assert_eq!(midair.all("unchanged"), Vec::<Value>::new(), "none is started once more");
    assert!(midair.terminate().status.success());
    fs::write(&poison, "").expect("a file");
    let mut midair = launch();
    // First both, then each by itself.
    (0..2).for_each(|_| drop(midair.rejected("E_INIT")));
    let published = midair.published();
    assert_eq!((&published["plugin"], &published["trigger"]), (&json!("pair-b"), &json!("start: what was committed last")));
    assert_eq!((midair.get("/a").status, midair.get("/b").body.as_str()), (404, "b"));
}

#[test]
fn g20_a_marks_file_that_makes_no_sense_is_put_aside_and_told() {
    let site = Site::with("one");
    let mut midair = site.quick();
    midair.published();
    commit(&mut midair);
    drop(midair);
    let mark = site.folder.path().join("data/marks/moody.json");
    let text = fs::read_to_string(&mark).expect("a mark");
    fs::write(&mark, &text[..text.len() / 2]).expect("cut off");
    let mut midair = site.quick();
    let warning = midair.all("warning").remove(0);
    assert!(warning["message"].as_str().is_some_and(|message| message.contains("moody.json makes no sense")), "{warning}");
    midair.published();
    says(midair.http(), "one");
}

#[test]
fn fault_31_a_rollback_while_a_candidate_is_prepared_goes_first_and_both_leave_a_record() {
    let gate = tempfile::tempdir().expect("a folder");
    let open = gate.path().join("open");
    let version = |name: &str| {
        let variant = format!("{name} {}", gate.path().display());
        fixture::artifact("gated").named("rollback-gate").variant(&variant)
    };
    fs::write(&open, "").expect("a file");
    let placed = version("one").placed();
    let launch = Launch::run(&[&placed.path]).arg("--on-breach").arg("report");
    let mut midair = launch.arg("--step-timeout").arg("120").start();
    midair.published();
    version("two").save_in(placed.folder());
    midair.published();
    fs::remove_file(&open).expect("it was open");
    version("three").save_in(placed.folder());
    midair.wait_for("its init", |event| kind(event, "log") && event["message"] == "preparing");
    assert!(midair.client(&["rollback", "rollback-gate"]).status().expect("it runs").success());
    let back = midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    assert_eq!((&back["from"], &back["to"]), (&json!(2), &json!(1)));
    says(midair.http(), "one");
    fs::write(&open, "").expect("a file");
    let published = midair.published();
    assert_eq!(published["generation"], 3);
    assert_eq!(published["epoch"].as_u64(), back["epoch"].as_u64().map(|epoch| epoch + 1));
    says(midair.http(), "three");
    let attempts = midair.status()["attempts"].clone();
    let outcomes: Vec<_> = attempts
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|attempt| attempt["outcome"].as_str())
        .filter(|outcome| *outcome != "superseded")
        .collect();
    assert_eq!(outcomes, ["published", "published", "rolled_back", "published"]);
}

/// A version of the plugin `pair-a`, whose second one gives up a route, or `pair-b`.
fn pair_a(variant: &str) -> Vec<u8> {
    fixture::artifact("pair").named("pair-a").variant(variant).bytes()
}

fn pair_b(variant: &str) -> Vec<u8> {
    fixture::artifact("pair").named("pair-b").variant(variant).bytes()
}

#[test]
fn fault_41_of_two_plugins_on_trial_the_one_that_breaches_goes_back_alone() {
    let ([a1, a2], [b1, b2, b3]) = (["a1", "a2"].map(pair_a), ["b1", "b2", "b3"].map(pair_b));
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (folder.path().join("liba.so"), folder.path().join("libb.so"));
    let save = |path: &Path, bytes: &[u8]| project::save(path, bytes);
    save(&a, &a1);
    save(&b, &b1);
    let launch = Launch::run(&[&a, &b]).arg("--probation").arg("0").arg("--probation-requests").arg("10");
    let mut midair = launch.arg("--breach-latency").arg("1000000").start();
    midair.all_published(&["pair-a", "pair-b"]);
    (0..10).for_each(|_| assert_eq!((midair.get("/a").status, midair.get("/b").status), (200, 200)));
    midair.wait_for("committed", |event| kind(event, "committed"));
    midair.wait_for("committed", |event| kind(event, "committed"));
    save(&a, &a2);
    midair.published();
    // While a is on trial, nothing may take the route that it would need to go back.
    save(&b, &b3);
    let rejected = midair.rejected("E_ROUTES");
    assert!(
        rejected["reason"].as_str().is_some_and(|reason| reason.contains("had to go back") && reason.contains("/old")),
        "{rejected}"
    );
    save(&b, &b2);
    midair.published();
    assert_eq!((midair.get("/old").status, midair.get("/new").body.as_str()), (404, "new"));
    (0..5).for_each(|_| assert_eq!(midair.get("/a").status, 500));
    let back = midair.wait_for("rolled_back", |event| kind(event, "rolled_back"));
    assert_eq!((&back["plugin"], &back["to"]), (&json!("pair-a"), &json!(1)));
    let bodies = ["/a", "/old", "/b", "/new"].map(|path| midair.get(path).body);
    assert_eq!(bodies, ["a1", "old", "b2", "new"]);
    assert_eq!(midair.all("rolled_back").len(), 1);
    // b is still on trial, and goes on to be committed.
    (0..10).for_each(|_| assert_eq!(midair.get("/b").status, 200));
    let committed = midair.wait_for("committed", |event| kind(event, "committed"));
    assert_eq!((&committed["plugin"], &committed["generation"]), (&json!("pair-b"), &json!(2)));
}

#[test]
fn fault_25_g3_a_call_that_never_ends_is_named_as_what_holds_its_generation() {
    let site = Site::with("one");
    // Nothing is kept to go back to once newer code is committed.
    let mut midair = site.launch(&["--probation", "0", "--probation-requests", "1", "--keep", "0"]).start();
    midair.published();
    let mut stream = midair.http().connect();
    std::io::Write::write_all(&mut stream, b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").expect("it can be sent");
    midair.wait_for("a call", |event| kind(event, "log") && event["message"] == "waiting");
    for name in ["two", "one", "two"] {
        site.put(name);
        midair.published();
        commit(&mut midair);
    }
    let generations: Value = midair.admin().get("/generations").json();
    let first = &generations["generations"][0];
    assert_eq!((&first["generation"], &first["phase"]), (&json!(1), &json!("retired")), "{generations}");
    assert_eq!(first["blockers"].as_array().map(Vec::len), Some(1), "{generations}");
    assert!(
        first["blockers"][0]["call"].as_str().is_some_and(|call| call.starts_with("moody=1 ") && call.contains("wait")),
        "{first}"
    );
    assert!(generations["libraries"]["maps"].as_u64().is_some_and(|maps| maps >= 4), "{generations}");
    let table = midair.client(&["generations"]).output().expect("it runs");
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("retired") && table.contains("committed") && table.contains("wait"), "{table}");
    // Nobody is killed: it is dropped with its client, and then the term is over.
    drop(stream);
    let drained = midair.wait_for("drained", |event| kind(event, "drained") && event["generation"] == 1);
    assert_eq!(drained["plugin"], "moody");
}

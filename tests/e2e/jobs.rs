//! Does a job keep its beat, whatever is swapped meanwhile?

use std::collections::BTreeSet;
use std::time::Duration;

use midair::attempt::Outcome;
use midair::probation::Rules;
use midair_tests::host::Launch;
use midair_tests::{fixture, size};
use serde_json::{Value, json};

use crate::inside::{Inside, until};
use crate::load::show;

/// What `rank` is in the status, or null.
fn job(inside: &Inside, name: &str) -> Value {
    let jobs = inside.status()["jobs"].clone();
    jobs.as_array().into_iter().flatten().find(|job| job["job"] == name).cloned().unwrap_or_default()
}

fn count(inside: &Inside, name: &str, what: &str) -> u64 {
    job(inside, name)[what].as_u64().unwrap_or_default()
}

#[test]
fn every_beat_runs_once_and_none_is_missed_over_two_hundred_swaps() {
    swaps("beating", 5, 200);
}

#[test]
#[ignore = "tests/long jobs"]
fn every_beat_of_a_job_every_100_ms_runs_once_over_two_hundred_swaps() {
    swaps("beating-slowly", 100, size(40, 200));
}

fn swaps(name: &str, period: u64, swaps: u64) {
    let bytes = ["", "other", "without"]
        .map(|variant| fixture::artifact("beating").named(name).variant(&format!("{period} {variant}")).bytes());
    let inside = Inside::new(name);
    let mut last = [inside.publish(&bytes[0]), inside.publish(&bytes[1])];
    for swap in 0..swaps {
        let before = count(&inside, "rank", "beats");
        until("a beat", || count(&inside, "rank", "beats") > before);
        if swap % 20 == 19 {
            last = [last[1], inside.publish(&bytes[(swap / 20 % 2) as usize])];
        } else {
            inside.back_to(last[(swap % 2) as usize]);
        }
    }
    let told = job(&inside, "rank");
    assert_eq!((&told["skipped"], &told["failed"], &told["plugin"]), (&json!(0), &json!(0), &json!(name)), "{told}");
    assert_eq!((&told["period_us"], &told["overlap"]), (&json!(period * 1_000), &json!("parallel")));
    let log = || -> (Vec<(String, u64)>, i64) { serde_json::from_value(inside.get("/log")).expect("a log") };
    // It counts as due a moment before it is begun, and begins nowhere if the job is gone by then.
    let due = told["due"].as_u64().expect("a number");
    until("the beat that was due last", || log().0.iter().any(|(number, _)| number.parse() == Ok(due)));
    inside.publish(&bytes[2]);
    assert_eq!(inside.status()["jobs"], json!([]), "code without the job ends it");
    until("the last beat to end", || inside.host.status().leases.is_empty());
    let (log, twice) = log();
    let numbers: Vec<u64> = log.iter().map(|(number, _)| number.parse().expect("a number")).collect();
    assert_eq!((numbers, twice), ((1..=log.len() as u64).collect(), 0), "each once, and none left out");
    assert!(log.len() as u64 >= due, "{told}");
    show(&format!("{swaps} swaps, {} beats every {period} ms, each once, none missed", log.len()));
    let by: BTreeSet<u64> = log.iter().map(|(_, generation)| *generation).collect();
    assert!(by.len() >= 3, "{by:?}");
}

#[test]
fn another_period_a_removed_job_and_a_way_back_take_effect_with_the_publish() {
    let variants = ["hourly", "often", "none", "no period", "two jobs", "two tasks", "two tables"];
    let bytes = fixture::artifacts("changing", "changing", variants);
    let inside = Inside::new("changing");
    inside.publish(&bytes[0]);
    assert_eq!((count(&inside, "rank", "period_us"), count(&inside, "rank", "beats")), (3_600_000_000, 0));
    until("some time to go by", || count(&inside, "rank", "next_us") < 3_599_900_000);
    let next = count(&inside, "rank", "next_us");
    let first = inside.publish(&bytes[0]);
    assert!(count(&inside, "rank", "next_us") <= next, "a swap begins no period anew");
    inside.publish(&bytes[1]);
    until("beats by the new period", || count(&inside, "rank", "beats") > 3);
    inside.publish(&bytes[2]);
    assert_eq!(inside.status()["jobs"], json!([]));
    for (which, reason) in [
        (3, "its job rank has a period of 0ns, the shortest is 1ms"),
        (4, "two of its jobs are named rank"),
        (5, "two of its tasks are named rank"),
        (6, "two of its tables are named rank"),
    ] {
        let record = inside.swap(&bytes[which]);
        assert_eq!((record.outcome, record.code.map(|code| code.as_str())), (Outcome::Rejected, Some("E_INIT")), "{record:?}");
        assert!(record.reason.as_deref().is_some_and(|told| told.contains(reason)), "{record:?}");
    }
    inside.back_to(first);
    assert_eq!((count(&inside, "rank", "period_us"), count(&inside, "rank", "beats")), (3_600_000_000, 0), "it begins anew");
}

#[test]
fn a_beat_that_is_due_while_the_last_one_runs_is_left_out_or_waits_or_runs_beside_it() {
    let inside = Inside::new("overlapping");
    let bytes = [fixture::artifact("overlapping").bytes()];
    inside.publish(&bytes[0]);
    until("beats left out, and beats beside", || {
        count(&inside, "skips", "skipped") > 3 && count(&inside, "queues", "skipped") > 3 && count(&inside, "beside", "running") > 3
    });
    // Of those that were due, all but these began or were left out: they wait.
    let of = |name: &str| {
        let told = job(&inside, name);
        let [beats, running, due, skipped] =
            ["beats", "running", "due", "skipped"].map(|what| told[what].as_u64().expect("a number"));
        [beats, running, due - beats - skipped]
    };
    assert_eq!((of("skips"), of("queues")), ([1, 1, 0], [1, 1, 1]));
    inside.publish(&bytes[0]);
    let skipped = count(&inside, "queues", "skipped");
    until("a beat more left out", || count(&inside, "queues", "skipped") > skipped + 1);
    assert_eq!((of("skips"), of("queues")), ([1, 1, 0], [1, 1, 1]), "whoever runs and waits goes on through a swap");
    // Its period is so long that a clock that is held up for seconds still makes up for all of them.
    assert_eq!(count(&inside, "beside", "skipped"), 0);
    let held: BTreeSet<String> = inside.host.status().leases.into_iter().map(|lease| lease.handler).collect();
    assert_eq!(held, ["beside", "queues", "skips"].map(str::to_owned).into(), "each shows by its name");
    assert_eq!(inside.get("/open"), json!(1));
    until("all to go on", || ["skips", "queues", "beside"].iter().all(|name| count(&inside, name, "beats") > 5));
    assert!(job(&inside, "skips")["last_us"].is_u64());
}

#[test]
fn a_job_that_panics_on_trial_takes_its_code_back() {
    let bytes = fixture::artifacts("panicking", "panicking-job", ["", "panics"]);
    let rules = Rules { time: Duration::ZERO, requests: 5, ..Rules::PRODUCTION };
    let inside = Inside::by("panicking-job", rules);
    let first = inside.publish(&bytes[0]);
    until("the first to be committed", || inside.status()["plugins"][0]["phase"] == "committed");
    inside.publish(&bytes[1]);
    until("the way back", || inside.status()["plugins"][0]["generation"] == first);
    // The beat that is one too many leads back before it is over, and the way back is stored before it is written down.
    until("all five to be counted", || count(&inside, "rank", "failed") >= 5);
    let back = || inside.host.status().attempts.into_iter().find(|record| record.outcome == Outcome::RolledBack);
    until("the record of the way back", || back().is_some());
    assert_eq!(back().and_then(|back| back.code).map(|code| code.as_str()), Some("E_PROBATION"), "{:?}", back());
    let before = count(&inside, "rank", "beats");
    until("beats of the first", || count(&inside, "rank", "beats") > before + 3);
}

#[test]
fn jobs_show_in_the_status_of_a_host_and_never_run_in_its_probe() {
    let told = fixture::artifact("beating_not_in_the_probe").named("told-job").placed();
    let mut midair = Launch::run(&[&told.path]).start();
    midair.published();
    until("a beat", || midair.status()["jobs"][0]["beats"].as_u64() > Some(0));
    let told = midair.client(&["status"]).output().expect("it runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("JOB ") && told.contains("rank"), "{told}");
    assert_eq!(midair.all("log"), Vec::<Value>::new(), "{}", midair.story());
}

/// What became of the messages of a topic: how many run, how many were handled, and how many failed.
fn messages(inside: &Inside, topic: &str) -> [u64; 3] {
    let topics = inside.status()["topics"].clone();
    let found = topics.as_array().into_iter().flatten().find(|status| status["topic"] == topic).cloned().unwrap_or_default();
    ["running", "delivered", "failed"].map(|what| found["subscribers"][0][what].as_u64().unwrap_or_default())
}

#[test]
fn a_beat_and_a_message_that_hang_are_given_up_once_newer_code_serves_and_job_and_topic_go_on() {
    let inside = Inside::retiring("hanging", Duration::ZERO);
    let bytes = fixture::artifacts("hanging", "hanging", ["", "mended"]);
    let first = inside.publish(&bytes[0]);
    for topic in ["paid", "sent"] {
        (0..2_u32).for_each(|number| inside.host.try_emit(topic, &number).expect("there is room"));
    }
    until("all to hang", || ["waits", "spins"].iter().all(|name| count(&inside, name, "skipped") > 3));
    until("all to hang", || ["paid", "sent"].iter().all(|topic| messages(&inside, topic)[0] == 1));
    // A message counts as running a moment before it is handed to the code that serves.
    until("all to be in the code that hangs", || inside.get("/hanging") == json!(4));
    inside.publish(&bytes[1]);
    until("what waited to go on", || count(&inside, "waits", "beats") > 3 && messages(&inside, "paid") == [0, 1, 1]);
    until("what spins to be left behind", || count(&inside, "spins", "beats") > 3 && messages(&inside, "sent") == [0, 1, 1]);
    // What was left behind goes on before that is said.
    until("what can't be dropped to be told", || inside.was_told("can't be dropped"));
    let told = |words: &str| inside.told().iter().filter(|told| told.contains(words)).count();
    let all = "given up 0 s after newer code was published: a beat of spins, a beat of waits, a message of paid, a message of sent";
    let some = "can't be dropped, though newer code was published: a beat of spins, a message of sent;";
    assert_eq!([all, some].map(told), [1, 1], "{:?}", inside.told());
    let held = || {
        let of = |lease: &midair::swap::LeaseStatus| (lease.generation == first).then(|| lease.handler.clone());
        inside.host.status().leases.iter().filter_map(of).collect::<BTreeSet<_>>()
    };
    assert_eq!(held(), ["sent", "spins"].map(str::to_owned).into(), "what could be dropped was");
    assert_eq!(inside.get("/open"), json!(1));
    until("what span to end", || held().is_empty());
    for name in ["waits", "spins"] {
        assert_eq!(count(&inside, name, "failed"), 1, "{name} is counted once");
    }
    assert_eq!(["paid", "sent"].map(|topic| messages(&inside, topic)), [[0, 1, 1]; 2]);
}

//! What becomes of work that goes on beside requests when its code is replaced, put back or refused?

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use midair::attempt::Outcome;
use midair_tests::client::read_answer;
use midair_tests::fixture::{self, Fixture, Placed};
use midair_tests::host::{Launch, Midair};
use serde_json::Value;

use crate::inside::{Inside, until};

/// Waits until this has happened, before or after what was read last: what runs beside a swap comes in no order with it.
#[track_caller]
fn seen(midair: &mut Midair, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let before = midair.all_events().into_iter().find(&fits);
    before.unwrap_or_else(|| midair.wait_for(what, fits))
}

/// Waits until a plugin's log says this; the line.
#[track_caller]
fn says(midair: &mut Midair, words: &str) -> Value {
    seen(midair, words, |event| event["event"] == "log" && event["message"] == words)
}

fn tasking(name: &str, variant: &str) -> Fixture {
    fixture::artifact("tasking").named(name).variant(variant)
}

/// A host that tells of breaches only, as in development.
fn launch(artifact: &Placed) -> Launch {
    Launch::run(&[&artifact.path]).arg("--on-breach").arg("report").arg("--generation-header")
}

/// The plugin `name`, live; work is given these seconds once it was replaced.
fn serving_with(name: &str, seconds: &str) -> (Placed, Midair) {
    let placed = tasking(name, "one").placed();
    let mut midair = launch(&placed).arg("--retire-timeout").arg(seconds).start();
    midair.published();
    (placed, midair)
}

/// The same with no time at all.
fn serving(name: &str) -> (Placed, Midair) {
    serving_with(name, "0")
}

fn becomes_two(name: &str, placed: &Placed, midair: &mut Midair) {
    tasking(name, "two").save_in(placed.folder());
    midair.published();
    assert_eq!(midair.get("/").body, "two");
}

fn tasks(midair: &Midair) -> Vec<(u64, String)> {
    let status = midair.status();
    let of = |task: &Value| (task["generation"].as_u64().unwrap_or_default(), task["task"].as_str().unwrap_or_default().to_owned());
    status["tasks"].as_array().expect("a list").iter().map(of).collect()
}

#[test]
fn g1_a_task_of_a_request_stays_on_its_code_and_shows_as_the_request() {
    let (placed, mut midair) = serving("tasks-of-requests");
    assert_eq!((midair.get("/begin").body.as_str(), midair.get("/quiet").body.as_str()), ("one", "one"));
    becomes_two("tasks-of-requests", &placed, &mut midair);
    let status = midair.status();
    let leases = status["leases"].as_array().expect("a list");
    for handler in ["begin", "quiet"] {
        let held =
            |lease: &Value| lease["generation"] == 1 && lease["handler"].as_str().is_some_and(|name| name.ends_with(handler));
        assert!(leases.iter().any(held), "{handler}: {status}");
    }
    assert!(
        tasks(&midair).iter().any(|(generation, task)| *generation == 1 && task.starts_with("tests/plugins/tasking.rs:")),
        "{status}"
    );
    assert_eq!(midair.get("/open").status, 200);
    let line = says(&mut midair, "the request's task on one asks Ok(\"one\")");
    assert_eq!(
        (line["generation"].as_u64(), line["swaps"].as_u64()),
        (Some(1), Some(2)),
        "whoever serves, it was the first that spoke"
    );
}

#[test]
fn work_that_may_be_dropped_is_and_other_work_is_named_and_keeps_its_code() {
    let (placed, mut midair) = serving("tasks-of-nobody");
    assert_eq!(midair.get("/free").status, 200);
    assert_eq!(midair.get("/droppable").status, 200);
    says(&mut midair, "stubborn began");
    becomes_two("tasks-of-nobody", &placed, &mut midair);
    says(&mut midair, "dropped on one");
    seen(&mut midair, "a warning that names it", |event| {
        event["event"] == "warning" && event["message"].as_str().is_some_and(|message| message.contains("stubborn still runs"))
    });
    assert!(tasks(&midair).contains(&(1, "stubborn".to_owned())), "{:?}", tasks(&midair));
    let generations = midair.client(&["generations"]).output().expect("it runs");
    let generations = String::from_utf8_lossy(&generations.stdout).into_owned();
    assert!(generations.contains("stubborn"), "{generations}");
    assert_eq!(midair.get("/open").status, 200);
    says(&mut midair, "the free task on one asks Ok(\"two\")");
}

#[test]
fn each_term_of_code_that_came_back_gives_its_work_the_whole_time() {
    let bytes = fixture::artifacts("never_done", "in-terms", ["1", "2"]);
    let inside = Inside::retiring("in-terms", Duration::from_secs(3));
    let [first, second] = [0, 1].map(|which| inside.publish(&bytes[which]));
    assert_eq!(inside.get("/"), 2);
    inside.back_to(first);
    // It belongs to the second term of the first: the time of the first term goes by before that of the other code.
    assert_eq!(inside.get("/"), 1);
    let age = || inside.status()["tasks"].as_array().and_then(|tasks| tasks.last()?["age_us"].as_u64());
    until("some time to go by", || age() > Some(300_000));
    inside.back_to(second);
    let told = |words: &str| inside.told().iter().position(|warning| warning.contains(words));
    until("both to be named", || told("in-terms=1: waits still runs").is_some() && told("in-terms=2: waits still runs").is_some());
    assert_eq!(inside.told().len(), 2, "each once, the older one first: {:?}", inside.told());
    assert!(told("in-terms=2") < told("in-terms=1"), "{:?}", inside.told());
}

/// The call of a handler that `of`, a generation of the list, holds or is held by.
fn call_of<'a>(of: &'a Value, which: &str, handler: &str) -> Option<&'a Value> {
    let key = if which == "leases" { "handler" } else { "call" };
    of[which].as_array()?.iter().find(|lease| lease[key].as_str().is_some_and(|name| name.ends_with(handler)))
}

fn ask(midair: &Midair, path: &str) -> TcpStream {
    let mut stream = midair.http().connect();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it can be sent");
    stream
}

#[test]
fn a_future_that_nothing_wakes_is_shown_with_its_age_and_goes_with_its_client_or_at_its_deadline() {
    let (placed, mut midair) = serving("never-woken");
    let never = ask(&midair, "/never");
    assert_eq!(midair.get("/quiet").body, "one");
    let is_held = |midair: &Midair| call_of(&midair.status(), "leases", "never").is_some();
    until("the call that nothing wakes", || is_held(&midair));
    becomes_two("never-woken", &placed, &mut midair);
    let mut status = midair.status();
    let lease = call_of(&status, "leases", "never").expect("it is held");
    assert!(lease["generation"] == 1 && lease["age_us"].as_u64() > Some(0), "{lease}");
    // The beat of the first is told that newer code serves, and goes beside everything: what nothing wakes is what stays.
    let waits = |task: &Value| {
        let is_of_a_request = task["task"].as_str().is_some_and(|name| name.starts_with("tests/plugins/tasking.rs:"));
        is_of_a_request && task["age_us"].as_u64() > Some(0) && task["busy_us"] == 0
    };
    until("the task that nothing wakes to be all that is left of the first", || {
        status = midair.status();
        let mut left = status["tasks"].as_array().into_iter().flatten().filter(|task| task["generation"] == 1);
        left.next().is_some_and(waits) && left.next().is_none()
    });
    let generations = midair.admin().get("/generations").json();
    let first = &generations["generations"][0];
    let call = call_of(first, "blockers", "never");
    assert!(call.is_some_and(|call| call["age_us"].as_u64() > Some(0)) && first["generation"] == 1, "{generations}");
    // Nobody gives it up but its client.
    drop(never);
    says(&mut midair, "dropped on one");
    until("its lease to end", || !is_held(&midair));
    assert_eq!(midair.get("/").body, "two");
    drop(midair);

    let mut midair = launch(&placed).arg("--request-timeout").arg("0.2").start();
    midair.published();
    let answer = midair.get("/never");
    assert_eq!((answer.status, answer.body.trim_end()), (504, "the handler took longer than 0.2 s"));
    let failed = midair.wait_for("failed", |event| event["event"] == "failed");
    assert!(failed["handler"].as_str().is_some_and(|handler| handler.ends_with("never")), "{failed}");
    says(&mut midair, "dropped on two");
    until("its lease to end", || !is_held(&midair));
    assert_eq!(midair.get("/").body, "two");
}

#[test]
fn fault_26_a_waker_that_is_used_after_its_generation_was_retired_finds_its_future_or_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("gate");
    let noted = |name: &str| until(name, || gate.with_extension(name).exists());
    let placed = tasking("woken-late", "one").placed();
    let gate_is = gate.to_str().expect("a path");
    // What was replaced is let go as soon as what replaced it is committed.
    let launch = launch(&placed)
        .arg("--probation")
        .arg("0")
        .arg("--probation-requests")
        .arg("0")
        .arg("--retire-timeout")
        .arg("0")
        .arg("--keep")
        .arg("0");
    let mut midair = launch.env("GATE", Some(gate_is)).start();
    midair.published();
    // One is in flight, one is dropped when its code is retired, one was given up before, and one is woken by the host.
    let mut woken = ask(&midair, "/woken");
    noted("woken-waits");
    assert_eq!((midair.get("/kept").body.as_str(), midair.get("/foreign").body.as_str()), ("one", "one"));
    ["kept-waits", "foreign-waits"].iter().for_each(|name| noted(name));
    assert!(!gate.with_extension("foreign-woken").exists());
    becomes_two("woken-late", &placed, &mut midair);
    says(&mut midair, "dropped on one");
    noted("foreign-woken");
    until("what was dropped to be off the list", || tasks(&midair).iter().all(|(_, task)| task != "kept"));
    fs::write(&gate, "").expect("it can be written");
    let answer = read_answer(&mut woken).expect("it ends");
    assert_eq!((answer.status, answer.body.as_str(), answer.generation()), (200, "one", 1));
    ["woken", "kept", "foreign"].iter().for_each(|name| noted(name));
    seen(&mut midair, "the end of what ran on the first", |event| event["event"] == "drained" && event["generation"] == 1);
    assert_eq!((midair.get("/").body.as_str(), midair.all("panicked").len()), ("two", 0), "{}", midair.story());
    assert!(midair.terminate().status.success());
}

#[test]
fn work_that_never_pauses_is_named_after_its_time_and_keeps_its_code_until_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("gate");
    let placed = tasking("never-pauses", "one").placed();
    let launch = launch(&placed).arg("--retire-timeout").arg("0").env("GATE", gate.to_str());
    let mut midair = launch.start();
    midair.published();
    assert_eq!(midair.get("/spins").body, "one");
    until("the work to begin", || gate.with_extension("spins-waits").exists());
    becomes_two("never-pauses", &placed, &mut midair);
    seen(&mut midair, "a warning that names it", |event| {
        let said = event["message"].as_str().unwrap_or_default();
        event["event"] == "warning" && said.starts_with("never-pauses=1: spins can't be dropped")
    });
    let status = midair.status();
    let held = |task: &&Value| task["task"] == "spins" && task["generation"] == 1 && task["busy_us"].as_u64() > Some(0);
    assert_eq!(status["tasks"].as_array().into_iter().flatten().filter(held).count(), 1, "{status}");
    let generations = midair.client(&["generations"]).output().expect("it runs");
    let generations = String::from_utf8_lossy(&generations.stdout).into_owned();
    assert!(generations.contains("spins"), "{generations}");
    assert_eq!(midair.get("/").body, "two");
    fs::write(&gate, "").expect("it can be written");
    says(&mut midair, "dropped on one");
    until("the work to be gone", || tasks(&midair).iter().all(|(_, task)| task != "spins"));
}

#[test]
fn a_declared_task_begins_with_each_service_of_its_code_and_is_told_of_the_end() {
    let (placed, mut midair) = serving_with("declared-tasks", "600");
    says(&mut midair, "beat began on one");
    assert_eq!(tasks(&midair), [(1, "beat".to_owned())]);
    becomes_two("declared-tasks", &placed, &mut midair);
    says(&mut midair, "beat began on two");
    assert!(midair.client(&["rollback"]).output().expect("it runs").status.success());
    says(&mut midair, "beat ended on two");
    assert_eq!(midair.get("/").body, "one");
    says(&mut midair, "beat ended on one");
    let began = |event: &&Value| event["message"] == "beat began on one";
    while midair.all_events().iter().filter(began).count() < 2 {
        midair.wait_for("its second beginning", |event| began(&event));
    }
}

#[test]
fn a_task_is_joined_cancelled_timed_out_and_a_panic_of_it_is_told() {
    let (_placed, mut midair) = serving("joined-tasks");
    assert_eq!(midair.get("/joined").body, "42");
    assert_eq!(midair.get("/cancelled").status, 500);
    let cancelled = midair.wait_for("failed", |event| event["event"] == "failed");
    assert!(cancelled["error"].as_str().is_some_and(|error| error.contains("dropped before it was done")), "{cancelled}");
    assert_eq!(midair.get("/late").status, 504);
    assert_eq!(midair.get("/panics").status, 200);
    let panicked = midair.wait_for("panicked", |event| event["event"] == "panicked");
    assert_eq!((&panicked["message"], &panicked["kind"]), (&"in a task".into(), &"task".into()));
    assert!(
        [&panicked["handler"], &panicked["location"]]
            .iter()
            .all(|at| at.as_str().is_some_and(|at| at.contains("tests/plugins/tasking.rs:")))
    );
    assert_eq!(midair.status()["plugins"][0]["panics"], 1);
    assert_eq!(midair.get("/").body, "one");
}

#[test]
fn when_every_thread_for_tasks_is_held_others_stand_in_and_it_is_told_once() {
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
    let (_placed, mut midair) = serving("tasks-that-hold");
    assert_eq!(midair.get("/stuck").status, 200);
    let holds = |event: &Value| event["event"] == "log" && event["message"] == "holds";
    (0..threads).for_each(|_| drop(midair.wait_for("a task that holds a thread", holds)));
    // All of it runs while they are stuck.
    assert_eq!(midair.get("/joined").body, "42");
    assert_eq!(midair.get("/cancelled").status, 500);
    let held = |event: &Value| event["message"].as_str().is_some_and(|message| message.contains("are held without a pause"));
    // Perhaps one of them was held for long before the last one began.
    let told = seen(&mut midair, "a warning", held);
    assert!(told["message"].as_str().is_some_and(|message| message.contains("tasks-that-hold=1 holds")), "{told}");
    assert_eq!(midair.all("warning").iter().filter(|event| held(event)).count(), 1);
    assert_eq!(midair.get("/open").status, 200);

    // What they wait for is handled by a thread like theirs.
    assert_eq!(midair.get("/emits").status, 200);
    let heard = |midair: &Midair| {
        let is_heard = |event: &&Value| event["message"].as_str().is_some_and(|message| message.starts_with("heard"));
        midair.all("log").iter().filter(is_heard).count()
    };
    while heard(&midair) < 3 * threads {
        midair.wait_for("a message that was heard", |event| event["event"] == "log");
    }
}

#[test]
fn fault_43_what_init_spawned_waits_for_the_publish_and_never_runs_in_the_probe_or_when_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = folder.path().join("seen");
    let spawning = |variant: &str| {
        let variant = format!("{variant} {}", seen.display());
        fixture::artifact("spawning_in_init").named("init-spawns").variant(&variant)
    };
    let placed = spawning("one").placed();
    let mut midair = launch(&placed).arg("--no-probe").start();
    midair.published();
    says(&mut midair, "first ran on one");
    spawning("bad").save_in(placed.folder());
    midair.rejected("E_INIT");
    spawning("two").save_in(placed.folder());
    midair.published();
    says(&mut midair, "first ran on two");
    let expected = format!("one {0}\ntwo {0}\n", midair.pid());
    assert_eq!(fs::read_to_string(&seen).expect("it was written"), expected);
    drop(midair);
    fs::remove_file(&seen).expect("a file");
    let mut midair = launch(&placed).start();
    midair.published();
    says(&mut midair, "first ran on two");
    assert_eq!(fs::read_to_string(&seen).expect("it was written"), format!("two {}\n", midair.pid()));
}

#[test]
fn who_waits_for_retirement_since_init_is_told_by_a_refusal_or_when_newer_code_comes_each_time_anew() {
    let notes = tempfile::tempdir().expect("a folder");
    let variant = |end: &str| format!("{} {end}", notes.path().display());
    let waiting = |end: &str| fixture::artifact("waiting_for_retirement").named("waiting").variant(&variant(end)).bytes();
    let bytes = ["", "fails"].map(waiting);
    let inside = Inside::new("waiting");
    let told = |note: &str| until(note, || notes.path().join(note).exists());
    let first = inside.publish(&bytes[0]);
    assert_eq!(inside.swap(&bytes[1]).outcome, Outcome::Rejected);
    told("2-init");
    assert!(!notes.path().join("1-init").exists(), "it serves");
    fs::remove_file(notes.path().join("2-init")).expect("it is there");
    assert_eq!(inside.publish(&bytes[0]), 2);
    told("1-init");
    inside.back_to(first);
    told("2-init");
    assert_eq!(inside.get("/wait"), "waits");
    assert!(!notes.path().join("1-again").exists(), "it serves again");
    inside.back_to(2);
    told("1-again");
}

//! Does what a plugin logs arrive, by whatever way it is logged, however often its code was swapped?

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::process::Output;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use bytes::Bytes;
use midair::attempt::Outcome;
use midair::event::Event;
use midair::probe::Probe;
use midair::swap::{Artifact, Host, Options};
use midair_tests::fixture::{self, Fixture};
use midair_tests::host::{Launch, Midair};
use midair_tests::{patience, size};
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context as Layered, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

/// The plugin of this name, with paths below `prefix`.
fn logging(name: &str, prefix: &str) -> Fixture {
    fixture::artifact("logging").named(name).variant(prefix)
}

fn message(event: &Value, message: &str) -> bool {
    event["event"] == "log" && event["message"] == message
}

#[track_caller]
fn ask(midair: &Midair, path: &str) {
    assert_eq!(midair.get(path).body, "done", "{path}\n{}", midair.story());
}

#[test]
fn fields_of_every_kind_records_and_lines_arrive_with_who_said_them_and_after_an_edit_with_the_new_generation() {
    let placed = logging("tells", "t 1").placed();
    let mut midair = Launch::run(&[&placed.path]).start();
    let built = midair.wait_for("what the plugin function says", |event| message(event, "put together"));
    assert_eq!((&built["generation"], &built["swaps"]), (&json!(1), &json!(0)));
    midair.published();
    for generation in [1, 2] {
        ask(&midair, "/t/fields");
        let told = midair.wait_for("all kinds", |event| message(event, "all kinds"));
        let who = json!({ "plugin": "tells", "generation": generation, "swaps": generation, "pid": midair.pid() });
        for (name, value) in who.as_object().expect("an object") {
            assert_eq!(&told[name], value, "{told}");
        }
        assert_eq!((&told["level"], &told["target"], &told["spans"]), (&json!("warn"), &json!("billing"), &json!([])));
        assert!(told["line"].is_u64() && told["file"].as_str().is_some_and(|file| file.ends_with("plugins/logging.rs")), "{told}");
        let fields = json!({
            "signed": -7, "unsigned": u64::MAX, "float": 1.5, "truth": true, "text": "words", "debug": "Some(1)", "display": "shown",
            "failed": "it failed: invalid digit found in string",
        });
        assert_eq!(told["fields"], fields);
        ask(&midair, "/t/record");
        let record = midair.wait_for("a record", |event| message(event, "a record, 7"));
        assert_eq!(
            (&record["level"], &record["target"], &record["generation"]),
            (&json!("warn"), &json!("t::records"), &json!(generation))
        );
        ask(&midair, "/t/ctx");
        let line = midair.wait_for("a line", |event| message(event, "by ctx"));
        assert_eq!((&line["level"], &line["target"], &line["generation"]), (&json!("warn"), &json!("tells"), &json!(generation)));
        ask(&midair, "/t/debug");
        midair.wait_for("what a Debug says", |event| message(event, "inner"));
        let outer = midair.wait_for("what has it as a field", |event| message(event, "outer"));
        assert_eq!(outer["fields"], json!({ "value": "chatty" }));
        ask(&midair, "/t/thread");
        let end = midair.wait_for("what a thread says at its end", |event| message(event, "a thread ends"));
        assert_eq!(end["generation"], generation);
        assert_eq!(midair.get("/t/panic").status, 500);
        assert_eq!(midair.wait_for("a panic", |event| event["event"] == "panicked")["generation"], generation);
        if generation == 1 {
            logging("tells", "t 2").save_in(placed.folder());
            midair.published();
        }
    }
    let ended = midair.terminate();
    assert!(!ended.stderr.contains("all kinds"), "what plugins say is told once\n{}", ended.stderr);
}

#[test]
fn spans_go_with_their_requests_across_awaits_and_what_is_forgotten_ends_with_its_request() {
    let placed = logging("nests", "n").placed();
    let mut midair = Launch::run(&[&placed.path]).arg("--workers").arg("1").start();
    midair.published();
    ask(&midair, "/n/forgets");
    ask(&midair, "/n/plain");
    let plain = midair.wait_for("a line outside", |event| message(event, "plain"));
    assert_eq!(plain["spans"], json!([]));
    let http = midair.http();
    thread::scope(|scope| {
        (0..8).for_each(|n| drop(scope.spawn(move || assert_eq!(http.get(&format!("/n/spans/{n}")).body, "done"))))
    });
    ask(&midair, "/n/plain");
    assert_eq!(midair.wait_for("a line outside", |event| message(event, "plain"))["spans"], json!([]));
    let mut seen = BTreeMap::<String, usize>::new();
    for told in midair.all("log") {
        let (said, n) = (told["message"].as_str().expect("a text"), &told["fields"]["n"]);
        let spans = match said {
            "before" => json!([{ "name": "request", "fields": { "n": n } }]),
            "inside" => json!([{ "name": "request", "fields": { "n": n } }, { "name": "inner", "fields": {} }]),
            "after" => json!([{ "name": "request", "fields": { "n": n, "later": "recorded" } }]),
            "apart" => json!([]),
            _ => continue,
        };
        assert_eq!(told["spans"], spans, "{told}");
        *seen.entry(said.to_owned()).or_default() += 1;
    }
    let expected = [("after", 8), ("apart", 8), ("before", 8), ("inside", 24)].map(|(said, times)| (said.to_owned(), times));
    assert_eq!(seen, BTreeMap::from(expected), "{}", midair.story());
}

fn client(midair: &Midair, args: &[&str]) -> Output {
    midair.client(args).output().expect("a client")
}

/// The levels at which a plugin tells now, asked by its prefix; a last line says that no more come.
#[track_caller]
fn levels(midair: &mut Midair, plugin: &str) -> Vec<String> {
    let before = midair.all("log").len();
    ask(midair, &format!("/{plugin}/levels"));
    ask(midair, &format!("/{plugin}/ctx"));
    midair.wait_for("the last line", |event| message(event, "by ctx") && event["plugin"] == plugin);
    let told = midair.all("log").into_iter().skip(before).filter(|event| message(event, "a level"));
    told.map(|event| event["level"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn levels_are_changed_by_target_while_two_plugins_run_and_without_a_swap() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts: Vec<_> =
        ["logging", "more_logging"].map(|name| fixture::artifact(name).variant(name).save_in(folder.path())).into();
    let mut midair = Launch::run(&[&artifacts[0], &artifacts[1]]).env("MIDAIR_LOG", Some("warn,more_logging=info")).start();
    midair.all_published(&["logging", "more_logging"]);
    assert_eq!(levels(&mut midair, "logging"), ["warn", "error"]);
    assert_eq!(levels(&mut midair, "more_logging"), ["info", "warn", "error"]);
    let shown = client(&midair, &["log"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "warn,more_logging=info\n");
    let changed = client(&midair, &["log", "warn,logging=trace"]);
    assert!(changed.status.success(), "{changed:?}");
    assert_eq!(levels(&mut midair, "logging"), ["trace", "debug", "info", "warn", "error"]);
    assert_eq!(levels(&mut midair, "more_logging"), ["warn", "error"]);
    let refused = client(&midair, &["log", "info,logging=loud"]);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && words.contains("logging=loud"), "{refused:?}");
    assert_eq!(midair.admin().get("/log").json(), json!({ "filter": "warn,logging=trace" }));
    assert_eq!(levels(&mut midair, "logging"), ["trace", "debug", "info", "warn", "error"]);
    assert!(client(&midair, &["log", "error"]).status.success());
    assert_eq!(midair.admin().get("/log").json(), json!({ "filter": "error" }));
    ask(&midair, "/logging/record");
    for prefix in ["logging", "more_logging"] {
        ask(&midair, &format!("/{prefix}/levels"));
    }
    for plugin in ["logging", "more_logging"] {
        midair.wait_for("the errors", |event| message(event, "a level") && event["plugin"] == plugin && event["level"] == "error");
    }
    let after: Vec<_> = midair.all("log").into_iter().rev().take(2).map(|event| event["level"].clone()).collect();
    assert_eq!(after, ["error", "error"], "{}", midair.story());
    assert_eq!(midair.all("published").len(), 2, "nothing was swapped");
}

#[test]
fn a_filter_that_makes_no_sense_at_the_start_is_wrong_usage() {
    for (arg, env, source) in [(Some("shop=loud"), None, "--log"), (None, Some("shop=loud"), "MIDAIR_LOG")] {
        let mut launch = Launch::run(&["/nowhere/libshop.so".as_ref()]).env("MIDAIR_LOG", env);
        if let Some(filter) = arg {
            launch = launch.arg("--log").arg(filter);
        }
        let ended = launch.end();
        assert!(
            ended.status.code() == Some(2) && ended.stderr.contains(source) && ended.stderr.contains("shop=loud"),
            "{}",
            ended.words()
        );
    }
}

#[test]
fn more_callsites_than_are_kept_are_told_in_their_words_under_one_that_says_so_and_those_before_as_ever() {
    const MOST: u32 = 8_192;
    let placed = logging("many-callsites", "m").placed();
    let mut midair = Launch::run(&[&placed.path]).start();
    midair.published();
    ask(&midair, "/m/fields");
    midair.wait_for("all kinds", |event| message(event, "all kinds"));
    let mut told = BTreeMap::new();
    let mut flood = |midair: &mut Midair, from: u32, to: u32| {
        ask(midair, &format!("/m/flood/{from}/{to}"));
        for n in from..to {
            let said = format!("record {n}");
            let event = midair.wait_for(&said, |event| event["event"] == "log");
            let is_own = event["target"] == format!("flood::{n}");
            assert!(is_own && event["message"] == said || event["target"] == "overflow", "{event}");
            let text = event.to_string();
            assert!(text.contains(&said) && text.contains("many-callsites") && event["level"] == "info", "{event}");
            *told.entry(is_own).or_default() += 1;
        }
        told.clone()
    };
    let counts: BTreeMap<bool, u32> = flood(&mut midair, 0, MOST);
    let (own, over) = (counts[&true], counts[&false]);
    // The plugin and its host's crates have some of their own.
    assert!(own + 200 > MOST && own + over == MOST, "{counts:?}");
    // What was kept is told as before, what comes after it isn't, and code with lines of its own serves and is told of.
    assert_eq!(flood(&mut midair, 0, 10), BTreeMap::from([(true, own + 10), (false, over)]));
    assert_eq!(flood(&mut midair, MOST, MOST + 10), BTreeMap::from([(true, own + 10), (false, over + 10)]));
    ask(&midair, "/m/fields");
    assert_eq!(midair.wait_for("all kinds", |event| message(event, "all kinds"))["fields"]["text"], "words");
    logging("many-callsites", "m 2 another").save_in(placed.folder());
    midair.published();
    ask(&midair, "/m/record");
    let other =
        midair.wait_for("another record", |event| event["event"] == "log" && event.to_string().contains("another record, 7"));
    assert_eq!((&other["generation"], &other["level"], &other["plugin"]), (&json!(2), &json!("warn"), &json!("many-callsites")));
    assert_eq!(midair.all("panicked"), Vec::<Value>::new());
}

#[test]
fn a_thread_of_a_generation_that_was_retired_is_told_of_as_that_generation() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("now");
    let placed = logging("logs-late", "l 1").placed();
    let mut midair = Launch::run(&[&placed.path])
        .arg("--probation")
        .arg("0")
        .arg("--probation-requests")
        .arg("0")
        .arg("--keep")
        .arg("0")
        .start();
    midair.published();
    let escaped = file.to_str().expect("a path").replace('/', "%2F");
    ask(&midair, &format!("/l/late/{escaped}"));
    logging("logs-late", "l 2").save_in(placed.folder());
    midair.published();
    midair.wait_for("the end of what ran on the first", |event| event["event"] == "drained" && event["generation"] == 1);
    std::fs::write(&file, "").expect("it can be written");
    for (said, fields, spans) in [
        ("an event, late", json!({ "variant": 1 }), json!([])),
        ("a record, late", json!({}), json!([{ "name": "span of late", "fields": {} }])),
        ("a thread ends", json!({}), json!([])),
    ] {
        let told = midair.wait_for(said, |event| message(event, said));
        assert_eq!((&told["plugin"], &told["generation"], &told["swaps"]), (&json!("logs-late"), &json!(1), &json!(2)), "{told}");
        assert_eq!((&told["fields"], &told["spans"]), (&fields, &spans), "{told}");
    }
    ask(&midair, "/l/ctx");
    assert_eq!(midair.wait_for("a line", |event| message(event, "by ctx"))["generation"], 2);
    assert!(midair.terminate().status.success());
}

// In this very process, with a subscriber of its own.

/// What was heard of one plugin.
#[derive(Default)]
struct Heard {
    /// Message, generation and the names of the spans around.
    events: Vec<(String, u64, Vec<&'static str>)>,
    spans: u64,
    closed: u64,
}

static HEARD: Mutex<BTreeMap<String, Heard>> = Mutex::new(BTreeMap::new());
static MORE: Condvar = Condvar::new();

fn heard() -> MutexGuard<'static, BTreeMap<String, Heard>> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears what plugins say in this process.
struct Ear;

#[derive(Default)]
struct Read {
    plugin: String,
    generation: u64,
    message: String,
}

impl Visit for Read {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
        if field.name() == midair::logs::FIELD {
            let speaker: midair::logs::Speaker = format!("{value:?}").parse().expect("who speaks");
            (self.plugin, self.generation) = (speaker.plugin, speaker.generation);
        }
    }
}

impl Layer<Registry> for Ear {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Layered<'_, Registry>) {
        let mut read = Read::default();
        assert_ne!(attributes.metadata().name(), "too wide", "a subscriber that panics");
        attributes.record(&mut read);
        if midair::logs::is_of_plugin(attributes.metadata()) {
            heard().entry(read.plugin.clone()).or_default().spans += 1;
            context.span(id).expect("it is new").extensions_mut().insert(read.plugin);
        }
    }

    fn on_close(&self, id: Id, context: Layered<'_, Registry>) {
        let span = context.span(&id).expect("it is about to go");
        if let Some(plugin) = span.extensions().get::<String>() {
            heard().entry(plugin.clone()).or_default().closed += 1;
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Layered<'_, Registry>) {
        if !midair::logs::is_of_plugin(event.metadata()) {
            return;
        }
        let mut read = Read::default();
        event.record(&mut read);
        assert_ne!(read.message, "too much", "a subscriber that panics");
        let spans = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()).map(|span| span.name()).collect();
        heard().entry(read.plugin).or_default().events.push((read.message, read.generation, spans));
        MORE.notify_all();
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Ear);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else in this process sets one");
    });
}

/// Asks and waits; the body.
fn answer(host: &Host, path: &str) -> String {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let request = http::Request::get(path).body(Bytes::new()).expect("a request");
    let mut asked = pin!(host.ask(request));
    loop {
        match asked.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return String::from_utf8_lossy(answer.body()).into_owned(),
            Poll::Pending => thread::park(),
        }
    }
}

/// Swaps two artifacts back and forth, and looks what is heard after each time.
fn back_and_forth(name: &str, swaps: u64) {
    listen();
    let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let paths = [1, 2].map(|variant| logging(name, &format!("b {variant}")).save_in(&folder.path().join(variant.to_string())));
    let host = Host::new(Options { probe: Probe::Off, keep: 0, ..Options::development(data.path()) }).expect("a host");
    let panics = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
    let noted = Arc::clone(&panics);
    host.events().listen(move |event| {
        if let Event::Panicked { generation, .. } = **event {
            noted.0.lock().expect("a lock").push(generation);
            noted.1.notify_all();
        }
        true
    });
    let mut callsites = 0;
    for swap in 1..=swaps {
        let path = paths[(swap % 2) as usize].clone();
        let record = host.swap(host.begin("test"), vec![Artifact { plugin: String::new(), path }]);
        assert_eq!(record.outcome, Outcome::Published, "{record:?}");
        assert_eq!(answer(&host, "/b/work"), swap.to_string());
        {
            let mut heard = heard();
            let events = std::mem::take(&mut heard.get_mut(name).expect("it said something").events);
            let expected = [("put together", vec![]), ("worked", vec!["work"])];
            assert_eq!(events, expected.map(|(said, spans)| (said.to_owned(), swap, spans)), "after swap {swap}");
        }
        if swap % 20 == 0 {
            answer(&host, "/b/panic");
            answer(&host, "/b/thread");
            let (said, more) = &*panics;
            let arrived = more.wait_timeout_while(said.lock().expect("a lock"), patience(), |said| said.last() != Some(&swap));
            assert!(!arrived.expect("a lock").1.timed_out(), "the panic of generation {swap}");
            let until = Instant::now() + patience();
            let mut all = heard();
            let end = ("a thread ends".to_owned(), swap, vec![]);
            while !all.get(name).is_some_and(|heard| heard.events.contains(&end)) {
                let left = until.saturating_duration_since(Instant::now());
                assert!(!left.is_zero(), "the end of a thread of generation {swap}");
                all = MORE.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            all.get_mut(name).expect("it is there").events.clear();
        }
        if swap == 20 {
            callsites = midair::logs::callsites();
        }
    }
    let heard = heard();
    assert_eq!((heard[name].spans, heard[name].closed), (swaps, swaps), "each span was closed");
    // Other tests in this process may bring a few of their own; each swap here would bring three.
    let more = midair::logs::callsites() - callsites;
    assert!(more < 60, "{more} callsites more after {} swaps", swaps - 20);
}

#[test]
fn a_subscriber_that_panics_costs_that_line_is_told_of_once_and_its_plugin_answers_and_logs_on() {
    listen();
    for (name, worst) in [("too-much", "too_much"), ("too-wide", "too_wide"), ("last-too-much", "last_too_much")] {
        let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let path = logging(name, "b").save_in(folder.path());
        let host = Host::new(Options { probe: Probe::Off, ..Options::development(data.path()) }).expect("a host");
        let warnings = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let noted = Arc::clone(&warnings);
        host.events().listen(move |event| {
            if let Event::Warning { message } = &**event {
                noted.0.lock().expect("a lock").push(message.clone());
                noted.1.notify_all();
            }
            true
        });
        let record = host.swap(host.begin("test"), vec![Artifact { plugin: String::new(), path }]);
        assert_eq!(record.outcome, Outcome::Published, "{record:?}");
        for _ in 0..3 {
            assert_eq!((answer(&host, &format!("/b/{worst}")).as_str(), answer(&host, "/b/plain").as_str()), ("done", "done"));
        }
        let (all, more) = &*warnings;
        let told =
            more.wait_timeout_while(all.lock().expect("a lock"), patience(), |all| all.is_empty()).expect("a lock").0.clone();
        let lost = format!("{name}=1: something that it logged was lost, and more may be: the program's subscriber panicked: ");
        assert!(matches!(&told[..], [one] if one.starts_with(&lost) && one.contains("a subscriber that panics")), "{told:?}");
        let heard = heard();
        let said: Vec<_> = heard[name].events.iter().map(|(said, ..)| said.as_str()).filter(|said| *said == "plain").collect();
        assert_eq!(said, ["plain"; 3], "{:?}", heard[name].events);
        assert_eq!(host.status().plugins[0].panics, 0, "no fault of the plugin's");
    }
}

#[test]
fn fault_28_logs_spans_and_panics_arrive_with_the_right_generation_after_many_swaps() {
    back_and_forth("back-and-forth", size(200, 1_000));
}

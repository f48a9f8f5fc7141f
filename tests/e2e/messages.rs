//! Does each message reach one handler, whatever is swapped meanwhile, and what does a custom host do for its plugins?

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use midair::attempt::Outcome;
use midair::probation::Rules;
use midair::swap::{Artifact, Which};
use midair_plugin::message::{decode, encode};
use midair_tests::fixture;
use midair_tests::host::Launch;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::inside::{Inside, until};

/// Variants of the plugin that says each number to the host.
fn says_to_the_host<const N: usize>(plugin: &str, variants: [&str; N]) -> [Vec<u8>; N] {
    fixture::artifacts("hearing", plugin, variants)
}

/// Every number that was said to the host, with the generation that did. A number waits while the gate is at or below it.
struct Hearing {
    heard: Arc<Mutex<Vec<(u64, u64)>>>,
    gate: watch::Sender<u64>,
}

impl Hearing {
    /// Offers it to the plugins of `inside`; a number that `stops` names waits for the gate.
    fn of(inside: &Inside, stops: fn(u64) -> bool) -> Self {
        let (heard, (gate, opened)) = (Arc::<Mutex<Vec<(u64, u64)>>>::default(), watch::channel(0));
        let all = Arc::clone(&heard);
        inside.host.offer_async("heard", move |request: Bytes, caller| {
            let (all, mut opened) = (Arc::clone(&all), opened.clone());
            async move {
                let number: u64 = decode("heard", &request).map_err(|error| error.to_string())?;
                all.lock().expect("a list").push((number, caller.generation));
                if stops(number) {
                    opened.wait_for(|opened| *opened > number).await.map_err(|error| error.to_string())?;
                }
                encode("heard", &()).map(Bytes::from).map_err(|error| error.to_string())
            }
        });
        Self { heard, gate }
    }

    fn count(&self) -> usize {
        self.heard.lock().expect("a list").len()
    }

    fn all(&self) -> Vec<(u64, u64)> {
        self.heard.lock().expect("a list").clone()
    }
}

/// What the status says of the one who takes a topic.
fn taker(inside: &Inside, topic: &str) -> Value {
    let topics = inside.status()["topics"].clone();
    let found = topics.as_array().into_iter().flatten().find(|status| status["topic"] == topic);
    found.map(|status| status["subscribers"][0].clone()).unwrap_or_default()
}

fn counts(inside: &Inside, topic: &str) -> [u64; 5] {
    let of = taker(inside, topic);
    ["queued", "running", "delivered", "failed", "dropped"].map(|what| of[what].as_u64().unwrap_or_default())
}

#[test]
fn ten_thousand_messages_over_fifty_swaps_are_each_handled_once_in_order_by_what_serves_when_its_turn_comes() {
    const SWAPS: u64 = 50;
    const EACH: u64 = 200;
    let inside = Inside::new("tenthousand");
    let hearing = Hearing::of(&inside, |number| number % EACH == 0);
    let bytes = says_to_the_host("tenthousand", ["1", "2"]);
    let generations = [inside.publish(&bytes[1]), inside.publish(&bytes[0])];
    let mut expected = Vec::new();
    // The second one serves. Of each batch it takes the first message, which waits; all others wait in the queue for the next generation.
    for swap in 0..SWAPS {
        let (from, to) = (generations[(swap as usize + 1) % 2], generations[swap as usize % 2]);
        for number in swap * EACH..(swap + 1) * EACH {
            inside.runtime.block_on(inside.host.emit("numbers", &number)).expect("a number can be written");
            expected.push((number, if number % EACH == 0 { from } else { to }));
        }
        until("the first of the batch", || hearing.count() as u64 == swap * EACH + 1);
        assert_eq!(counts(&inside, "numbers")[0], EACH - 1, "the others wait");
        inside.back_to(to);
        hearing.gate.send_replace(swap * EACH + 1);
        until("the whole batch", || {
            let [_, _, delivered, lost @ ..] = counts(&inside, "numbers");
            assert_eq!(lost, [0, 0], "failed or dropped in batch {swap}: {:?}", inside.told());
            delivered >= (swap + 1) * EACH
        });
        assert!(hearing.all() == expected, "lost, doubled or elsewhere in batch {swap}");
    }
    assert_eq!(counts(&inside, "numbers"), [0, 0, SWAPS * EACH, 0, 0]);
}

#[test]
fn who_emits_to_a_full_queue_waits_or_is_told_whose_it_is() {
    let inside = Inside::new("fullqueue");
    let hearing = Hearing::of(&inside, |number| number == 0);
    inside.publish(&says_to_the_host("fullqueue", ["1"])[0]);
    inside.host.try_emit("few", &0_u64).expect("there is room");
    until("the first to be taken", || hearing.count() == 1);
    (1..=4_u64).for_each(|number| inside.host.try_emit("few", &number).expect("there is room for four"));
    let refusal = inside.host.try_emit("few", &5_u64).expect_err("there is no room for a fifth");
    assert_eq!(refusal, "4 messages of few (4 bytes) wait for fullqueue already: nobody got this one; emit it later");
    let mut waits = pin!(inside.host.emit("few", &5_u64));
    assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(counts(&inside, "few"), [4, 1, 0, 0, 0]);
    hearing.gate.send_replace(1);
    inside.runtime.block_on(waits).expect("a number can be written");
    until("all of them", || hearing.count() == 6);
    assert_eq!(hearing.all().iter().map(|(number, _)| *number).collect::<Vec<_>>(), (0..6).collect::<Vec<_>>());
}

#[test]
fn a_plugin_that_emits_to_a_full_queue_is_told_whose_it_is_or_waits_and_the_host_answers_on() {
    let inside = Inside::new("fullforplugins");
    let hearing = Hearing::of(&inside, |number| number == 0);
    inside.publish(&says_to_the_host("fullforplugins", ["1"])[0]);
    inside.host.try_emit("few", &0_u64).expect("there is room");
    until("the first to be taken", || hearing.count() == 1);
    (1..=4_u64).for_each(|number| inside.host.try_emit("few", &number).expect("there is room for four"));
    let full = "4 messages of few (4 bytes) wait for fullforplugins already: nobody got this one; emit it later";
    assert_eq!(inside.get("/try"), full);
    assert_eq!(inside.status()["plugins"][0]["errors"], 1, "an answer of 503 counts as failed");
    // One that waits holds its thread, or nothing at all; both get in when there is room, and not before.
    let waiting = thread::scope(|scope| {
        let ask = |path: &'static str| {
            let host = &inside.host;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                let request = http::Request::get(path).body(Bytes::new()).expect("a request");
                runtime.block_on(host.ask(request)).body().clone()
            })
        };
        let asked = ["/wait", "/await"].map(ask);
        until("both to be in flight", || inside.host.status().leases.len() == 3);
        for _ in 0..20 {
            assert_eq!((inside.get("/"), counts(&inside, "few")), (json!(1), [4, 1, 0, 0, 0]));
        }
        assert!(asked.iter().all(|asked| !asked.is_finished()));
        hearing.gate.send_replace(1);
        asked.map(|asked| asked.join().expect("it is answered"))
    });
    assert_eq!(waiting, ["emitted", "emitted"]);
    until("all of them", || counts(&inside, "few") == [0, 0, 7, 0, 0]);
    let mut heard: Vec<u64> = hearing.all().iter().map(|(number, _)| *number).collect();
    assert_eq!(heard[..5], [0, 1, 2, 3, 4], "in order");
    heard[5..].sort_unstable();
    assert_eq!(heard[5..], [101, 102], "each once, and not the one that was refused");
}

#[test]
fn as_many_messages_as_are_wanted_at_once_are_handled_beside_each_other_and_no_more_over_swaps_too() {
    let inside = Inside::new("atonce");
    let hearing = Hearing::of(&inside, |_| true);
    let bytes = says_to_the_host("atonce", ["1", "one at once"]);
    inside.publish(&bytes[0]);
    (0..12_u64).for_each(|number| inside.host.try_emit("many", &number).expect("there is room"));
    let handled = |running: u64, begun: u64| {
        until("as many as may", || hearing.count() as u64 == begun && counts(&inside, "many")[1] == running);
        let done = begun - running;
        assert_eq!(counts(&inside, "many"), [12 - begun, running, done, 0, 0]);
        let held = inside.host.status().leases.iter().filter(|lease| lease.handler == "many").count();
        assert_eq!(held as u64, running, "each is a call of its own");
    };
    handled(3, 3);
    hearing.gate.send_replace(2);
    handled(3, 5);
    // Fewer: what runs ends, and then there is one. More again: those that wait need no further message.
    inside.publish(&bytes[1]);
    hearing.gate.send_replace(5);
    handled(1, 6);
    hearing.gate.send_replace(6);
    handled(1, 7);
    inside.publish(&bytes[0]);
    handled(3, 9);
    hearing.gate.send_replace(12);
    until("all of them", || counts(&inside, "many") == [0, 0, 12, 0, 0]);
    let mut heard: Vec<u64> = hearing.all().iter().map(|(number, _)| *number).collect();
    heard.sort_unstable();
    assert_eq!(heard, (0..12).collect::<Vec<_>>(), "each once");
}

#[test]
fn a_message_that_cannot_be_read_an_error_a_panic_and_one_that_nothing_wakes_are_told_and_the_next_one_follows() {
    let inside = Inside::new("badmessage");
    let hearing = Hearing::of(&inside, |_| false);
    inside.publish(&says_to_the_host("badmessage", ["1"])[0]);
    inside.host.try_emit("numbers", "no number").expect("there is room");
    for number in [1_000_404_u64, 1_000_500, 1_000_999, 7] {
        inside.host.try_emit("numbers", &number).expect("there is room");
    }
    until("the last of them", || counts(&inside, "numbers")[2] == 1);
    assert_eq!((counts(&inside, "numbers"), hearing.count()), ([0, 0, 1, 4, 0], 1));
    assert!(inside.was_told("Message failed: it waits for what nothing can wake it for, and was dropped"));
    assert!(inside.host.status().leases.is_empty());
    assert!(inside.was_told("failed: a message of numbers can't be read as `u64`"));
    assert!(inside.was_told("Message failed: on purpose"));
    let plugin = inside.status()["plugins"][0].clone();
    assert_eq!((&plugin["requests"], &plugin["errors"], &plugin["panics"]), (&json!(5), &json!(4), &json!(1)));
}

#[test]
fn what_waits_for_code_that_takes_none_is_dropped_and_told() {
    let inside = Inside::new("untaken");
    let hearing = Hearing::of(&inside, |number| number == 0);
    let bytes = says_to_the_host("untaken", ["1", "without numbers"]);
    let first = inside.publish(&bytes[0]);
    inside.host.try_emit("numbers", &0_u64).expect("there is room");
    until("the first to be taken", || hearing.count() == 1);
    (1..=3_u64).for_each(|number| inside.host.try_emit("numbers", &number).expect("there is room"));
    inside.publish(&bytes[1]);
    assert_eq!(counts(&inside, "numbers"), [0, 1, 0, 0, 3]);
    assert!(inside.was_told("untaken: 3 messages of numbers were dropped"));
    inside.host.try_emit("numbers", &4_u64).expect("nobody has to have room");
    hearing.gate.send_replace(1);
    until("the one that ran", || counts(&inside, "numbers")[2] == 1);
    inside.back_to(first);
    inside.host.try_emit("numbers", &5_u64).expect("there is room");
    until("what came after", || counts(&inside, "numbers")[2] == 2);
    assert_eq!(hearing.all().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 5]);
    let topic = inside.status()["topics"].clone();
    assert_eq!((&topic[2]["topic"], &topic[2]["emitted"], &topic[2]["unheard"]), (&json!("numbers"), &json!(6), &json!(1)));
}

#[test]
fn what_waits_for_code_that_takes_none_waits_while_it_is_on_trial() {
    // What is committed by its first request.
    let rules = Rules { time: Duration::ZERO, requests: 1, ..Rules::PRODUCTION };
    let inside = Inside::by("on-trial", rules);
    let hearing = Hearing::of(&inside, |number| number == 0);
    let bytes = says_to_the_host("on-trial", ["1", "without numbers"]);
    let commits = || {
        inside.get("/");
        until("the commit", || inside.status()["plugins"][0]["phase"] == "committed");
    };
    inside.publish(&bytes[0]);
    commits();
    inside.host.try_emit("numbers", &0_u64).expect("there is room");
    until("the first to be taken", || hearing.count() == 1);
    (1..=3_u64).for_each(|number| inside.host.try_emit("numbers", &number).expect("there is room"));
    let second = inside.publish(&bytes[1]);
    assert_eq!(counts(&inside, "numbers"), [3, 1, 0, 0, 0]);
    inside.host.try_emit("numbers", &4_u64).expect("nobody has to have room");
    hearing.gate.send_replace(1);
    until("the one that ran", || counts(&inside, "numbers") == [3, 0, 1, 0, 0]);
    assert_eq!(inside.host.roll_back(&Which::Last).outcome, Outcome::RolledBack);
    until("what waited", || counts(&inside, "numbers") == [0, 0, 4, 0, 0]);
    assert_eq!(hearing.all(), [(0, 1), (1, 1), (2, 1), (3, 1)], "but for what came meanwhile, which nobody took");

    inside.host.try_emit("numbers", &0_u64).expect("there is room");
    until("the gate was opened once", || hearing.count() == 5);
    hearing.gate.send_replace(0);
    inside.host.try_emit("numbers", &0_u64).expect("there is room");
    until("it to be taken", || hearing.count() == 6);
    inside.host.try_emit("numbers", &5_u64).expect("there is room");
    assert_eq!(inside.publish(&bytes[1]), second + 1);
    assert_eq!(counts(&inside, "numbers")[..2], [1, 1]);
    assert!(!inside.was_told("were dropped"));
    commits();
    until("what waited to be dropped", || inside.was_told("on-trial: 1 messages of numbers were dropped"));
    assert_eq!(counts(&inside, "numbers"), [0, 1, 5, 0, 1]);
    hearing.gate.send_replace(1);
}

#[test]
fn fault_43_what_init_emits_waits_for_the_publish_and_is_dropped_with_the_candidate() {
    let inside = Inside::new("speaking");
    let (notes, heard) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (noted, hears) = (Arc::clone(&notes), Arc::clone(&heard));
    inside.host.offer("note", move |request, _| {
        noted.lock().expect("a list").push(decode::<(u64, u64, u32)>("note", &request).map_err(|error| error.to_string())?);
        encode("note", &()).map(Bytes::from).map_err(|error| error.to_string())
    });
    inside.host.on("ready", move |_| *hears.lock().expect("a number") += 1);
    let bytes = fixture::artifacts("speaking", "speaking", ["", "fails"]);
    inside.publish(&bytes[0]);
    // Each is handled by what serves when its turn comes.
    until("what the first emitted", || notes.lock().expect("a list").len() == 3);
    let record = inside.swap(&bytes[1]);
    assert_eq!(record.outcome, Outcome::Rejected, "{record:?}");
    let last = inside.publish(&bytes[0]);
    until("what both emitted", || notes.lock().expect("a list").len() == 6 && *heard.lock().expect("a number") == 6);
    let expected: Vec<(u64, u64, u32)> = [1, last].iter().flat_map(|by| (0..3).map(|number| (*by, *by, number))).collect();
    assert_eq!(*notes.lock().expect("a list"), expected, "in order, and nothing of the one that was rejected");
    assert_eq!(inside.status()["topics"][0]["emitted"], 6);
}

#[test]
fn plugins_that_are_published_or_put_back_together_hear_all_that_each_of_them_says() {
    // In one publish the first of them may speak before anything else is done.
    const NAMES: [&str; 3] = ["chatting-a", "chatting-m", "chatting-z"];
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let artifacts = |paths: &[PathBuf]| paths.iter().map(|path| Artifact { plugin: String::new(), path: path.clone() }).collect();
    let saved =
        |name: &&str, variant: &str, folder: &Path| fixture::artifact("chatting").named(name).variant(variant).save_in(folder);
    let before = NAMES.each_ref().map(|name| saved(name, "", folder.path()));
    let after = NAMES.each_ref().map(|name| saved(name, if *name == "chatting-z" { "takes none" } else { "" }, other.path()));
    let heard = |inside: &Inside, topic: &str, plugin: &str| {
        let topics = inside.host.status().topics;
        let topic = topics.into_iter().find(|status| status.topic == topic).expect("it was said");
        let taker = topic.subscribers.into_iter().find(|status| status.subscriber == plugin);
        (topic.emitted, topic.unheard, taker.map_or(0, |taker| taker.delivered))
    };
    for _ in 0..5 {
        let inside = Inside::new("chatting-z");
        let publish = |paths: &[PathBuf]| inside.host.swap(inside.host.begin("test").force(true), artifacts(paths));
        let said = |inside: &Inside, count| until("what each says", || heard(inside, "by.task", "chatting-a").2 == count);
        assert_eq!(publish(&before).outcome, Outcome::Published);
        said(&inside, 60);
        for name in NAMES {
            until("what all say", || heard(&inside, "by.task", name).2 == 60 && heard(&inside, "by.init", name).2 == 3);
        }
        assert_eq!(publish(&after).outcome, Outcome::Published);
        said(&inside, 120);
        assert_eq!(heard(&inside, "by.task", "chatting-z"), (120, 0, 60), "the last of them takes none");
        assert_eq!(inside.host.roll_back(&Which::Last).outcome, Outcome::RolledBack);
        said(&inside, 180);
        until("what all say that are back", || heard(&inside, "by.task", "chatting-z") == (180, 0, 120));
        // Where the machine stalls, a thread may be held for long by what is quick.
        let held = "threads for work beside requests are held";
        let told: Vec<String> = inside.told().into_iter().filter(|told| !told.contains(held)).collect();
        assert_eq!(told, Vec::<String>::new());
    }
}

#[test]
fn a_service_answers_by_its_name_and_an_unknown_or_broken_one_is_an_error_that_says_so() {
    let inside = Inside::new("asking");
    inside.publish(&fixture::artifact("speaking").named("asking").bytes());
    assert_eq!(inside.get("/ask/double"), "this host offers no service double, nor any other");
    inside.host.offer("double", |request, caller| {
        assert!(caller.plugin == "asking" && caller.generation == 1 && !caller.is_candidate, "{caller:?}");
        let number: u32 = decode("double", &request).map_err(|error| error.to_string())?;
        encode("double", &(2 * number)).map(Bytes::from).map_err(|error| error.to_string())
    });
    inside.host.offer("broken", |_, _| panic!("on purpose"));
    inside.host.offer_async("later", |request, _| async move {
        let mut waited = false;
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Ok(request)
    });
    inside.host.offer_async("late", |_, _| async { panic!("on purpose") });
    inside.host.offer("refuses", |_, _| Err("not today".to_owned()));
    let answers = ["double", "later", "broken", "late", "refuses", "other"].map(|name| inside.get(&format!("/ask/{name}")));
    let other = "this host offers no service other, only broken, double, late, later, refuses";
    let broke = |name: &str| json!(format!("the service {name} panicked: on purpose"));
    assert_eq!(answers, [json!(42), json!(21), broke("broken"), broke("late"), json!("not today"), json!(other)]);
}

#[test]
fn the_probe_has_no_services_and_what_is_emitted_there_reaches_nobody() {
    let speaks = fixture::artifact("speaking_in_the_probe").placed();
    let mut midair = Launch::run(&[&speaks.path]).start();
    let reason = midair.rejected("E_PROBE")["reason"].clone();
    let told = "the probe offers no services, so not mailer either: ask `ctx.is_probe()` first";
    assert!(reason.as_str().is_some_and(|reason| reason.contains(told)), "{reason}");
    assert_eq!(midair.all("log"), Vec::<Value>::new());
}

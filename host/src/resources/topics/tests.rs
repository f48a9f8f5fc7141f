//! Queues, without plugins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn wanted(topics: &[(&str, usize, usize)]) -> Vec<Wanted> {
    topics.iter().map(|(topic, limit, at_once)| Wanted { topic: (*topic).to_owned(), limit: *limit, at_once: *at_once }).collect()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// queued, delivered, failed, dropped.
fn counts(hall: &Hall, topic: &str, subscriber: &str) -> [u64; 4] {
    let topics = hall.list();
    let topic = topics.iter().find(|status| status.topic == topic).expect("the topic is there");
    let of = topic.subscribers.iter().find(|status| status.subscriber == subscriber).expect("it subscribed");
    [of.queued as u64, of.delivered, of.failed, of.dropped]
}

#[test]
fn a_message_is_taken_by_all_queues_of_its_topic_or_by_none() {
    let mut hall = Hall::default();
    hall.subscribe("mail", &wanted(&[("paid", 2, 1)]));
    hall.subscribe("stock", &wanted(&[("paid", 1, 1), ("sent", 9, 1)]));
    assert_eq!(hall.push("paid", &bytes("1")), Ok(vec!["mail".to_owned(), "stock".to_owned()]), "each needs a carrier");
    let full = hall.push("paid", &bytes("2")).expect_err("stock has no room");
    assert_eq!(full.to_string(), "1 messages of paid (1 bytes) wait for stock already: nobody got this one; emit it later");
    assert_eq!(counts(&hall, "paid", "mail"), [1, 0, 0, 0]);
    assert!(hall.take("paid", "stock").expect("one waits").makes_room);
    assert_eq!(hall.push("paid", &bytes("3")), Ok(Vec::new()), "their carriers are on the way");
    let taken: Vec<Bytes> = std::iter::from_fn(|| hall.take("paid", "mail")).map(|taken| taken.message).collect();
    assert_eq!(taken, [bytes("1"), bytes("3")], "in order");
}

#[test]
fn so_many_bytes_wait_and_a_larger_message_waits_alone() {
    let mut hall = Hall::default();
    hall.subscribe("shop", &wanted(&[("a", 9, 1)]));
    let larger = Bytes::from(vec![0; MOST_BYTES + 1]);
    let push = |hall: &mut Hall, message: &Bytes| hall.push("a", message).is_ok();
    assert!(push(&mut hall, &larger), "nothing else waits");
    assert!(!push(&mut hall, &bytes("x")));
    assert!(hall.take("a", "shop").expect("the large one").makes_room);
    let most = larger.slice(2..);
    assert_eq!([&most, &bytes("x"), &bytes("y")].map(|message| push(&mut hall, message)), [true, true, false]);
    assert_eq!(hall.list()[0].subscribers[0].queued_bytes, MOST_BYTES);
}

#[test]
fn who_was_refused_hears_of_room_also_where_newer_code_lets_more_wait() {
    let mut hall = Hall::default();
    hall.subscribe("shop", &wanted(&[("a", 2, 1)]));
    assert_eq!([(); 3].map(|()| hall.push("a", &bytes("x")).is_ok()), [true, true, false]);
    hall.subscribe("shop", &wanted(&[("a", 9, 1)]));
    let makes_room = [(); 2].map(|()| hall.take("a", "shop").expect("two wait").makes_room);
    assert_eq!(makes_room, [true, false]);
}

#[test]
fn what_waits_outlives_a_swap_and_is_kept_for_code_that_may_come_back_or_dropped() {
    let mut hall = Hall::default();
    hall.subscribe("shop", &wanted(&[("a", 9, 1), ("b", 9, 1)]));
    for topic in ["a", "a", "b"] {
        hall.push(topic, &bytes("x")).expect("room");
    }
    let both = wanted(&[("a", 9, 1), ("b", 9, 1)]);
    assert_eq!(hall.subscribe("shop", &wanted(&[("a", 4, 1)])), (Vec::new(), false));
    assert_eq!((counts(&hall, "a", "shop"), counts(&hall, "b", "shop")), ([2, 0, 0, 0], [1, 0, 0, 0]));
    assert!(hall.take("b", "shop").is_none(), "nobody takes it now");
    assert!(!hall.leave("b", "shop"));
    hall.push("b", &bytes("y")).expect("nobody has to have room");
    assert_eq!(hall.list()[1].unheard, 1);
    assert_eq!(hall.drop_all("shop", &both), [], "these may come back");
    assert_eq!(hall.subscribe("shop", &both), (vec!["b".to_owned()], false), "they have");
    assert_eq!(hall.take("b", "shop").map(|taken| taken.message), Some(bytes("x")));
    hall.done("b", "shop", Carried::Well, bytes(""));
    hall.subscribe("shop", &wanted(&[("b", 9, 1)]));
    assert_eq!(hall.drop_all("shop", &wanted(&[("b", 9, 1)])), [("a".to_owned(), 2)]);
    assert_eq!((counts(&hall, "a", "shop"), counts(&hall, "b", "shop")), ([0, 0, 0, 2], [0, 1, 0, 0]));
}

#[test]
fn who_waits_for_room_hears_when_newer_code_takes_no_more() {
    let mut hall = Hall::default();
    hall.subscribe("shop", &wanted(&[("a", 1, 1)]));
    hall.push("a", &bytes("1")).expect("room");
    hall.push("a", &bytes("2")).expect_err("one waits");
    assert_eq!(hall.subscribe("shop", &[]), (Vec::new(), true));
    assert_eq!(hall.subscribe("shop", &[]), (Vec::new(), false), "once");
    hall.push("a", &bytes("2")).expect("nobody has to have room");
}

#[test]
fn a_message_that_reached_nobody_waits_again_as_the_first() {
    let mut hall = Hall::default();
    hall.subscribe("shop", &wanted(&[("a", 9, 1)]));
    ["1", "2"].iter().for_each(|text| drop(hall.push("a", &bytes(text)).expect("room")));
    let taken = hall.take("a", "shop").expect("the first").message;
    // Newer code that takes none serves since, and it hears of that now.
    hall.done("a", "shop", Carried::Nowhere, taken);
    hall.subscribe("shop", &[]);
    assert!(hall.take("a", "shop").is_none() && !hall.leave("a", "shop"));
    assert_eq!((counts(&hall, "a", "shop"), hall.list()[0].subscribers[0].queued_bytes), ([2, 0, 0, 0], 2));
    assert_eq!(hall.subscribe("shop", &wanted(&[("a", 9, 1)])).0, ["a"]);
    assert_eq!(hall.take("a", "shop").map(|taken| taken.message), Some(bytes("1")));
}

#[test]
fn a_carrier_leaves_only_an_empty_queue() {
    let mut hall = Hall::default();
    hall.subscribe("shop", &wanted(&[("a", 9, 1)]));
    hall.push("a", &bytes("1")).expect("room");
    assert!(hall.take("a", "shop").is_some());
    hall.done("a", "shop", Carried::Well, bytes(""));
    assert!(hall.take("a", "shop").is_none());
    // It comes when the carrier has looked for the last time.
    assert_eq!(hall.push("a", &bytes("2")), Ok(Vec::new()));
    assert!(hall.leave("a", "shop"), "it has to look again");
    hall.take("a", "shop").expect("the second");
    hall.done("a", "shop", Carried::Badly, bytes(""));
    assert!(!hall.leave("a", "shop"));
    assert_eq!((hall.push("a", &bytes("3")), counts(&hall, "a", "shop")), (Ok(vec!["shop".to_owned()]), [1, 1, 1, 0]));
}

#[test]
fn newer_code_that_takes_more_or_fewer_at_once_gets_so_many_carriers() {
    let mut hall = Hall::default();
    hall.subscribe("shop", &wanted(&[("a", 9, 1)]));
    (0..6).for_each(|_| drop(hall.push("a", &bytes("x")).expect("room")));
    hall.take("a", "shop").expect("one that runs");
    let (needed, _) = hall.subscribe("shop", &wanted(&[("a", 9, 3)]));
    assert_eq!(needed, ["a", "a"], "what waits needs no further message to get them");
    (0..2).for_each(|_| drop(hall.take("a", "shop").expect("two more that run")));
    assert_eq!(hall.subscribe("shop", &wanted(&[("a", 9, 1)])), (Vec::new(), false));
    for _ in 0..2 {
        hall.done("a", "shop", Carried::Well, bytes(""));
        assert!(hall.take("a", "shop").is_none() && !hall.leave("a", "shop"), "one too many");
    }
    hall.done("a", "shop", Carried::Well, bytes(""));
    assert!(hall.take("a", "shop").is_some());
    assert_eq!(counts(&hall, "a", "shop"), [2, 3, 0, 0]);
}

#[test]
fn what_comes_for_code_that_is_about_to_serve_waits_for_it_and_what_it_takes_no_more_is_still_taken() {
    let mut hall = Hall::default();
    hall.subscribe("shop", &wanted(&[("old", 9, 1), ("both", 9, 1)]));
    let next = wanted(&[("both", 1, 3), ("new", 2, 1)]);
    hall.open("shop", &next);
    let pushed = ["old", "both", "both", "new"].map(|topic| hall.push(topic, &bytes("x")).expect("room").len());
    assert_eq!(pushed, [1, 1, 0, 0], "nobody carries what only the next code takes");
    assert_eq!(hall.subscribe("shop", &next).0, ["both", "both", "new"]);
    assert_eq!(hall.drop_all("shop", &next), [("old".to_owned(), 1)]);
    assert!(hall.take("new", "shop").is_some());
    assert!(hall.list().iter().all(|topic| topic.unheard == 0));
}

#[test]
fn topics_that_nobody_takes_are_counted_and_only_so_many_told_apart() {
    let mut hall = Hall::default();
    for number in 0..MOST_TOPICS + 10 {
        hall.push(&format!("t{number}"), &bytes("x")).expect("nobody has to have room");
    }
    let topics = hall.list();
    assert_eq!((topics.len(), &topics[0].topic[..], topics[0].unheard), (MOST_TOPICS + 1, "...", 10));
}

#[test]
fn a_function_of_the_hosts_gets_each_message_in_order_though_it_panics_at_one() {
    let messages = Messages::new(Tasks::new(), Bus::default());
    let (sender, heard) = channel();
    messages.listen(
        "paid",
        Arc::new(move |message: Bytes| {
            assert_ne!(message, "bad");
            sender.send(message).expect("somebody listens");
        }),
    );
    for message in ["1", "bad", "2", "3"] {
        messages.try_emit("paid", &bytes(message)).expect("there is room");
    }
    let all: Vec<Bytes> = (0..3).map(|_| heard.recv_timeout(PATIENCE).expect("it comes")).collect();
    assert_eq!(all, ["1", "2", "3"]);
}

#[test]
fn who_emits_to_a_full_queue_is_woken_when_there_is_room() {
    #[derive(Default)]
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let messages = Messages::new(Tasks::new(), Bus::default());
    messages.subscribe("shop", &wanted(&[("a", 1, 0)]));
    messages.try_emit("a", &bytes("1")).expect("there is room for one");
    let (woken, mut emits) = (Arc::<Woken>::default(), Box::pin(Arc::clone(&messages).emit("a".to_owned(), bytes("2"))));
    let waker = Waker::from(Arc::clone(&woken));
    assert!(emits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let (topic, subscriber) = ("a".to_owned(), "shop".to_owned());
    let mut carrier = Carrier { messages: Arc::clone(&messages), topic, subscriber, carries: None };
    if let Some(queue) = messages.hall.lock().queue("a", "shop") {
        (queue.at_once, queue.carriers) = (1, 1);
    }
    let first = carrier.take().expect("the first waits").message;
    assert!(woken.0.load(Ordering::SeqCst));
    assert!(emits.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    carrier.done(Carried::Well);
    let second = carrier.take().expect("the second was let in").message;
    carrier.done(Carried::Well);
    assert_eq!([first, second], ["1", "2"]);
}

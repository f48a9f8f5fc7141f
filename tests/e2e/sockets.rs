//! Does a WebSocket live through what happens to the code that handles it?
//!
//! One plugin in several variants, built once: each answers with its number. A test has them swapped by turning a link.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::patience;
use midair_tests::socket::{Heard, Socket};
use serde_json::Value;
use tempfile::TempDir;

/// Variants 0 to 2 differ by their number; 3 has no `/gone`.
const VARIANTS: u32 = 4;

/// Where the variants are, each in a folder of its number.
fn variants() -> &'static Path {
    static VARIANTS_BUILT: OnceLock<TempDir> = OnceLock::new();
    let build = || {
        let folder = tempfile::tempdir().expect("a folder");
        for variant in 0..VARIANTS {
            let variant = variant.to_string();
            fixture::artifact("sockets").variant(&variant).save_in(&folder.path().join(&variant));
        }
        folder
    };
    VARIANTS_BUILT.get_or_init(build).path()
}

/// A host that serves variant 0, and the link that says which it serves.
struct Chat {
    midair: Midair,
    link: PathBuf,
    _folder: TempDir,
}

impl Chat {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("current");
        point(&link, 0);
        let launch = Launch::run(&[&link.join("libsockets.so")]);
        let mut midair = args.iter().fold(launch, |launch, arg| launch.arg(arg)).start();
        midair.published();
        Self { midair, link, _folder: folder }
    }

    /// Swaps to a variant; the number of its generation.
    fn swap(&mut self, variant: u32) -> u64 {
        point(&self.link, variant);
        self.midair.published()["generation"].as_u64().expect("a number")
    }

    fn socket(&self, target: &str) -> Socket {
        self.midair.http().socket(target)
    }

    /// What status says of a route.
    fn route(&self, route: &str) -> Value {
        let status = self.midair.status();
        let routes = status["sockets"].as_array().cloned().unwrap_or_default();
        routes.into_iter().find(|of| of["route"] == route).unwrap_or_else(|| panic!("no {route} in {status}"))
    }

    /// Asks status until it says what is wanted.
    fn until(&self, what: &str, fits: impl Fn(&Self) -> bool) {
        let until = Instant::now() + patience();
        while !fits(self) {
            assert!(Instant::now() < until, "waited for {what}\n{}\n{}", self.midair.status(), self.midair.story());
            thread::yield_now();
        }
    }

    fn logged(&mut self, text: &str) {
        self.midair.wait_for(text, |event| event["event"] == "log" && event["message"] == text);
    }
}

/// Points `link` to a variant, in one step.
fn point(link: &Path, variant: u32) {
    let draft = link.with_extension("draft");
    symlink(variants().join(variant.to_string()), &draft).expect("a link can be made");
    fs::rename(&draft, link).expect("it can be renamed");
}

#[test]
fn fault_24_a_websocket_lives_through_twenty_swaps_with_its_state_and_the_newest_code_handles_its_messages() {
    let mut chat = Chat::start(&[]);
    let mut socket = chat.socket("/chat/one?who=me");
    let mut messages = 0;
    for swap in 0..=20_u32 {
        let variant = swap % 3;
        if swap > 0 {
            chat.swap(variant);
        }
        let texts: Vec<String> = (0..5).map(|number| format!("{swap}.{number}")).collect();
        texts.iter().for_each(|text| socket.send(text));
        for text in texts {
            messages += 1;
            assert_eq!(socket.text(), format!("{variant} {messages} {text}"));
        }
    }
    socket.send_bytes(&[255, 1]);
    assert_eq!(socket.text(), format!("{:?}", bytes::Bytes::from_static(&[255, 1])));
    socket.close(4000, "enough");
    chat.logged("closed 4000 \"enough\" after 106, 0 left");
    chat.until("a connection that is none any more", |chat| chat.route("/chat/{room}")["open"] == 0);
    assert_eq!(chat.route("/chat/{room}")["opened"], 1);
    assert_eq!(chat.midair.status()["rooms"], serde_json::json!({}));
}

#[test]
fn a_rollback_gives_the_next_message_to_the_code_before() {
    // A message is a request that was answered: it commits.
    let mut chat = Chat::start(&["--probation", "0", "--probation-requests", "1"]);
    let mut socket = chat.socket("/chat/back");
    assert_eq!(socket.ask("a"), "0 1 a");
    chat.midair.wait_for("committed", |event| event["event"] == "committed");
    chat.swap(1);
    assert_eq!(socket.ask("b"), "1 2 b");
    let rollback = chat.midair.client(&["rollback", "sockets"]).output().expect("it runs");
    assert_eq!(rollback.status.code(), Some(0), "{rollback:?}");
    assert_eq!(socket.ask("c"), "0 3 c");
}

#[test]
fn a_room_reaches_fifty_connections_across_swaps() {
    let mut chat = Chat::start(&[]);
    let mut sockets: Vec<Socket> = (0..50).map(|_| chat.socket("/chat/hall")).collect();
    let mut other = chat.socket("/chat/elsewhere");
    for swap in 0..4_u32 {
        let variant = swap % 3;
        if swap > 0 {
            chat.swap(variant);
        }
        let speaker = swap as usize * 7;
        sockets[speaker].send(&format!("all round {swap}"));
        for (place, socket) in sockets.iter_mut().enumerate() {
            if place != speaker {
                assert_eq!(socket.text(), format!("{variant} round {swap}"), "{place}");
            }
        }
        assert_eq!(chat.midair.get("/len/hall").body, "50");
    }
    drop(sockets.split_off(40));
    chat.until("ten that left", |chat| chat.midair.get("/len/hall").body == "40");
    assert_eq!(other.ask("only me"), "0 1 only me", "nothing else came");
    assert_eq!(chat.midair.status()["rooms"]["sockets"], 2);
}

#[test]
fn a_plain_request_is_told_to_upgrade_and_open_refuses_with_its_own_answer() {
    let mut chat = Chat::start(&[]);
    let plain = chat.midair.get("/chat/one");
    assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")));
    let refused = |target| chat.midair.http().upgrade(target, &[]).err().map(|(status, _)| status);
    assert_eq!(refused("/chat/forbidden"), Some(401));
    assert_eq!(refused("/nowhere"), Some(404));
    assert_eq!(refused("/chat/broken"), Some(500));
    assert_eq!(refused("/len/one"), Some(200), "a route that takes no WebSocket answers as ever");
    let panicked = chat.midair.wait_for("a panic", |event| event["event"] == "panicked");
    assert_eq!((&panicked["handler"], &panicked["message"]), (&"sockets::open".into(), &"in open".into()), "{panicked}");
    let old = chat.midair.http().upgrade("/chat/one", &[("sec-websocket-version", "8")]).err();
    assert_eq!(old.map(|(status, _)| status), Some(426));
    assert_eq!(chat.midair.status()["sockets"], serde_json::json!([]));
}

#[test]
fn a_panic_or_an_error_in_message_is_told_and_counted_and_the_connection_stays() {
    let mut chat = Chat::start(&[]);
    let mut socket = chat.socket("/chat/one");
    socket.send("panic");
    let panicked = chat.midair.wait_for("a panic", |event| event["event"] == "panicked");
    assert_eq!((&panicked["handler"], &panicked["message"]), (&"sockets::message".into(), &"in message".into()), "{panicked}");
    assert_eq!(panicked["kind"], "socket");
    socket.send("fail");
    let failed = chat.midair.wait_for("an error", |event| event["event"] == "failed");
    assert_eq!((&failed["handler"], &failed["error"]), (&"sockets::message".into(), &"on purpose".into()), "{failed}");
    assert_eq!(failed["kind"], "socket");
    assert_eq!(socket.ask("still here"), "0 3 still here");
    let plugin = &chat.midair.status()["plugins"][0];
    assert_eq!((&plugin["panics"], &plugin["errors"]), (&1.into(), &2.into()), "{plugin}");
}

#[test]
fn a_message_over_the_limit_ends_its_connection_with_1009() {
    let mut chat = Chat::start(&[]);
    let mut socket = chat.socket("/chat/one");
    assert_eq!(socket.ask(&"x".repeat((1 << 20) - 8)).len(), (1 << 20) - 4);
    // More than fits between the two: the host reads on, so that its client hears why.
    socket.try_send(&"x".repeat(8 << 20));
    assert_eq!(socket.hear(), Heard::Closed(1009, "a message has at most 1048576 bytes".to_owned()));
    chat.logged("closed 1009 \"a message has at most 1048576 bytes\" after 1, 0 left");
}

#[test]
fn an_event_that_takes_too_long_is_dropped_told_and_counted_and_the_next_one_follows() {
    let mut chat = Chat::start(&["--request-timeout", "0.2"]);
    let refused = chat.midair.http().upgrade("/chat/stuck", &[]).err().map(|(status, _)| status);
    assert_eq!(refused, Some(504));
    let failed = |chat: &mut Chat, handler: &str| {
        let event = chat.midair.wait_for("a handler that took too long", |event| event["event"] == "failed");
        assert_eq!(
            (&event["handler"], &event["error"]),
            (&format!("sockets::{handler}").into(), &"the handler took longer than 0.2 s".into()),
            "{event}"
        );
    };
    failed(&mut chat, "open");
    let mut socket = chat.socket("/chat/one");
    assert_eq!(socket.ask("stuck"), "before");
    assert_eq!(socket.ask("and now"), "0 2 and now");
    failed(&mut chat, "message");
    socket.close(4002, "stuck");
    failed(&mut chat, "close");
    chat.until("a connection that is none any more", |chat| chat.route("/chat/{room}")["open"] == 0);
    let plugin = &chat.midair.status()["plugins"][0];
    assert_eq!((&plugin["panics"], &plugin["errors"]), (&0.into(), &3.into()), "{plugin}");
    let mut pinned = chat.socket("/stream");
    let mut socket = chat.socket("/chat/one");
    assert_eq!(socket.ask("stuck"), "before");
    assert_eq!(socket.ask("later"), "0 2 later");
    assert_eq!(pinned.ask("still here"), "0 still here", "it is one call for as long as it lasts");
}

#[test]
fn an_operator_sets_what_a_web_socket_may_do() {
    let limits = ["--socket-limit", "1KiB", "--socket-queue", "2", "--socket-queue-limit", "1MiB"];
    let mut chat = Chat::start(&limits);
    let mut socket = chat.socket("/chat/one");
    assert_eq!(socket.ask("hello"), "0 1 hello");
    socket.send("fill");
    let queued = |chat: &Chat| chat.route("/chat/{room}")["queued"].as_u64();
    chat.until("a full queue", |chat| queued(chat) == Some(2));
    for number in 0..500 {
        assert!(matches!(socket.hear(), Heard::Message(_)), "{number}");
        assert!(queued(&chat) <= Some(2));
    }
    chat.logged("filled");
    socket.try_send(&"x".repeat(2 << 10));
    assert_eq!(socket.hear(), Heard::Closed(1009, "a message has at most 1024 bytes".to_owned()));
    drop(chat);

    let chat = Chat::start(&["--socket-queue-limit", "128KiB"]);
    let mut socket = chat.socket("/chat/one");
    assert_eq!(socket.ask("hello"), "0 1 hello");
    socket.send("fill");
    let queued = |chat: &Chat| chat.route("/chat/{room}")["queued_bytes"].as_u64();
    chat.until("a full queue", |chat| queued(chat) == Some(128 << 10));
    (0..500).for_each(|_| {
        assert!(matches!(socket.hear(), Heard::Message(_)));
        assert!(queued(&chat) <= Some(128 << 10));
    });
}

#[test]
fn a_handler_closes_after_what_it_sent_and_a_connection_that_breaks_is_heard_of() {
    let mut chat = Chat::start(&[]);
    let mut socket = chat.socket("/chat/one");
    socket.send("close as you wish");
    socket.send("unheard");
    assert_eq!(socket.hear(), Heard::Message("last".to_owned()));
    assert_eq!(socket.hear(), Heard::Closed(4001, "as you wish".to_owned()));
    chat.logged("closed 4001 \"as you wish\" after 1, 0 left");
    let mut socket = chat.socket("/chat/one");
    assert_eq!(socket.ask("hello"), "0 1 hello");
    socket.stream().shutdown(std::net::Shutdown::Both).expect("it can be broken");
    chat.logged("closed 1006 \"\" after 1, 0 left");
}

#[test]
fn a_send_waits_for_a_client_that_doesnt_read_and_its_queue_has_an_end() {
    let mut chat = Chat::start(&[]);
    let mut socket = chat.socket("/chat/one");
    socket.send("fill");
    let queued = |chat: &Chat| chat.route("/chat/{room}")["queued_bytes"].as_u64().expect("a number");
    let (one, most) = (64 << 10, 4 << 20);
    // Its client may know of the upgrade before the host counts it.
    chat.until("the connection", |chat| chat.midair.status()["sockets"][0]["open"] == 1);
    chat.until("a full queue", |chat| queued(chat) + one > most);
    assert!(queued(&chat) <= most);
    assert!(!chat.midair.all("log").iter().any(|event| event["message"] == "filled"), "it waits");
    // A swap waits for no client either.
    chat.swap(1);
    for number in 0..500 {
        assert!(matches!(socket.hear(), Heard::Message(_)), "{number}");
    }
    chat.logged("filled");
    assert_eq!(socket.ask("and now"), "1 2 and now");
}

/// What the host has in memory now, and the most that it ever had, in bytes.
fn memory(chat: &Chat) -> [usize; 2] {
    let status = fs::read_to_string(Path::new("/proc").join(chat.midair.pid().to_string()).join("status")).expect("its status");
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") << 10
    })
}

#[test]
fn a_flood_waits_at_its_client_while_a_handler_is_slow_and_each_message_is_handled_in_the_end() {
    const MESSAGES: u64 = 1_000;
    const SIZE: u64 = 128 << 10;
    // What the system keeps for a connection is a part of it.
    const MOST: u64 = MESSAGES * SIZE / 4;
    let chat = Chat::start(&[]);
    let mut other = chat.socket("/chat/other");
    assert_eq!(other.ask("a"), "0 1 a");
    let [before, _] = memory(&chat);
    let mut flooding = chat.socket("/chat/one");
    let sent = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&sent);
    let flood = thread::spawn(move || {
        let text = format!("hold {}", "x".repeat(SIZE as usize));
        for _ in 0..MESSAGES {
            flooding.send(&text);
            told.fetch_add(1, Relaxed);
        }
        flooding.ask("done")
    });
    // As long as it is held up no more is taken, and everybody else is answered.
    let last = Cell::new(0);
    chat.until("what is sent to stand still", |chat| {
        let now = sent.load(Relaxed);
        assert!(now * SIZE < MOST, "{now} messages of {SIZE} bytes were taken, and one is handled");
        let is_still = now > 1 && (0..50).all(|_| chat.midair.get("/len/one").body == "1" && sent.load(Relaxed) == now);
        is_still && last.replace(now) == now
    });
    assert_eq!(other.ask("b"), "0 2 b");
    assert_eq!(chat.route("/chat/{room}")["open"], 2);
    other.send("release");
    assert_eq!(flood.join().expect("it is not cut off"), format!("0 {} done", MESSAGES + 1), "none lost");
    let more = memory(&chat)[1].saturating_sub(before);
    assert!(more < 32 << 20, "{more} bytes more, for {} that came", MESSAGES * SIZE);
    assert_eq!(other.ask("c"), "0 4 c");
}

/// The limits are those of every host, half a minute, so this takes as long.
#[test]
fn a_client_that_takes_nothing_of_what_is_sent_is_cut_off_and_named() {
    let mut chat = Chat::start(&["--body-timeout", "2"]);
    let mut stalled = chat.socket("/chat/stalled");
    stalled.send("fill");
    // What still waited for room was told that nobody is there, and isn't handled on.
    chat.logged("closed 1006 \"it takes nothing\" after 1, 0 left");
    let told = chat.midair.wait_for("a warning", |event| event["event"] == "warning");
    let said = told["message"].as_str().unwrap_or_default();
    assert!(said.starts_with("sockets: WebSocket 1 on /chat/{room} took nothing of what was sent to it"), "{told}");
    assert!(!chat.midair.all("log").iter().any(|event| event["message"] == "filled"), "{}", chat.midair.story());
    let route = chat.route("/chat/{room}");
    assert_eq!((&route["stalled"], &route["open"], &route["queued_bytes"]), (&1.into(), &0.into(), &0.into()), "{route}");
    assert_eq!(chat.socket("/chat/stalled").ask("hello"), "0 1 hello");
    drop(stalled);
}

#[test]
fn a_broadcast_closes_who_reads_too_slowly_and_tells_of_it() {
    let mut chat = Chat::start(&[]);
    let mut slow = chat.socket("/chat/slow");
    let mut socket = chat.socket("/chat/one");
    let sent: u64 = socket.ask("flood slow").parse().expect("a number");
    let told = |event: &Value| event["event"] == "warning" && event["message"].to_string().contains("too slowly for a broadcast");
    // What didn't fit any more is dropped; what the network had by then still arrives.
    let mut heard = 0;
    let end = loop {
        match slow.hear() {
            Heard::Message(_) => heard += 1,
            end => break end,
        }
    };
    assert_eq!(end, Heard::Closed(1013, "it reads too slowly".to_owned()));
    assert!(heard < sent && sent < 10_000, "{heard} of {sent}");
    chat.midair.wait_for("a warning", told);
    assert_eq!(chat.route("/chat/{room}")["overrun"], 1);
    assert_eq!(socket.ask("hello"), "0 2 hello");
}

#[test]
fn a_swap_that_removes_the_route_closes_its_connections_with_1012_and_leaves_the_others() {
    // What nothing goes back from by itself: the first code won't come back.
    let mut chat = Chat::start(&["--on-breach", "report"]);
    let mut gone: Vec<Socket> = (0..3).map(|_| chat.socket("/gone")).collect();
    let mut stays = chat.socket("/chat/one");
    assert_eq!(gone[0].ask("hello"), "0 1 hello");
    // The client may have its answer before the handler has ended.
    chat.until("no handler to be busy", |chat| chat.midair.status()["leases"] == serde_json::json!([]));
    // Its handler is busy, and stays so until it is told otherwise.
    gone[1].send("hold");
    chat.until("the handler to be busy", |chat| chat.midair.status()["leases"][0]["generation"] == 1);
    chat.swap(3);
    for socket in &mut gone {
        assert_eq!(socket.hear(), Heard::Closed(1012, "nothing answers here any more".to_owned()));
    }
    drop(gone);
    let told = chat.midair.wait_for("a warning", |event| event["event"] == "warning");
    assert!(told["message"].to_string().contains("lost its route"), "{told}");
    assert_eq!(chat.midair.status()["leases"][0]["generation"], 1, "the event that runs ends by itself");
    assert_eq!(stays.ask("hello"), "3 1 hello");
    stays.send("release");
    chat.until("three that are counted", |chat| chat.route("/gone")["removed"] == 3);
    chat.midair.wait_for("drained", |event| event["event"] == "drained" && event["generation"] == 1);
    assert!(!chat.midair.all("log").iter().any(|event| event["message"].to_string().contains("closed")), "nobody hears of it");
}

#[test]
fn a_connection_whose_route_is_gone_waits_while_that_code_is_on_trial_and_the_code_before_has_it() {
    // What is committed by its first event or request.
    let args = ["--probation", "0", "--probation-requests", "1"];
    let mut chat = Chat::start(&args);
    let mut socket = chat.socket("/gone");
    assert_eq!(socket.ask("a"), "0 1 a");
    chat.midair.wait_for("committed", |event| event["event"] == "committed");
    chat.swap(3);
    assert_eq!(chat.midair.http().upgrade("/gone", &[]).err().map(|(status, _)| status), Some(404), "no new one");
    ["b", "c"].iter().for_each(|text| socket.send(text));
    let rollback = chat.midair.client(&["rollback", "sockets"]).output().expect("it runs");
    assert_eq!(rollback.status.code(), Some(0), "{rollback:?}");
    assert_eq!([socket.text(), socket.text()], ["0 2 b", "0 3 c"]);
    drop(chat);

    let mut chat = Chat::start(&args);
    let (mut waits, mut leaves, mut stays) = (chat.socket("/gone"), chat.socket("/gone"), chat.socket("/chat/one"));
    assert_eq!(waits.ask("a"), "0 1 a");
    chat.midair.wait_for("committed", |event| event["event"] == "committed");
    chat.swap(3);
    waits.send("b");
    (0..3).for_each(|_| leaves.send("never handled"));
    leaves.close(1000, "");
    chat.until("one that left by itself", |chat| chat.route("/gone")["open"] == 1);
    assert_eq!(chat.route("/gone")["removed"], 0);
    assert_eq!(stays.ask("commits"), "3 1 commits");
    assert_eq!(waits.hear(), Heard::Closed(1012, "nothing answers here any more".to_owned()));
    chat.until("one that is counted", |chat| chat.route("/gone")["removed"] == 1);
}

#[test]
fn a_pinned_socket_stays_on_its_generation_and_is_named_for_holding_it() {
    let mut chat = Chat::start(&[]);
    let mut socket = chat.socket("/stream");
    assert_eq!(socket.ask("a"), "0 a");
    for swap in 1..=5 {
        chat.swap(swap % 3);
        assert_eq!(socket.ask("b"), "0 b");
    }
    let mut newer = chat.socket("/stream");
    assert_eq!(newer.ask("c"), "2 c");
    let held = chat.midair.admin().get("/generations").json();
    let first = held["generations"].as_array().and_then(|all| all.iter().find(|of| of["generation"] == 1).cloned());
    let call = first.as_ref().map(|first| first["blockers"][0]["call"].clone());
    assert_eq!(call, Some("sockets=1 sockets::stream".into()), "{held}");
    socket.send("end");
    assert_eq!(socket.hear(), Heard::Closed(1000, String::new()));
    chat.midair.wait_for("drained", |event| event["event"] == "drained" && event["generation"] == 1);
    newer.close(1000, "");
    chat.logged("the stream ended");
}

#[test]
fn the_end_of_the_host_is_said_to_every_connection_and_heard_by_its_handlers() {
    let chat = Chat::start(&[]);
    let mut sockets: Vec<Socket> = (0..5).map(|_| chat.socket("/chat/one")).collect();
    sockets.push(chat.socket("/stream"));
    sockets.iter_mut().for_each(|socket| drop(socket.ask("hello")));
    chat.midair.signal(rustix::process::Signal::TERM);
    for socket in &mut sockets {
        assert_eq!(socket.hear(), Heard::Closed(1001, "the host ends".to_owned()));
        assert_eq!(socket.hear(), Heard::Gone);
    }
    let ended = chat.midair.ended("its end after SIGTERM");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
    let logged: Vec<&str> =
        ended.events.iter().filter(|event| event["event"] == "log").filter_map(|event| event["message"].as_str()).collect();
    let closed = |text: &&&str| text.starts_with("closed 1001 \"the host ends\" after 1");
    assert_eq!(logged.iter().filter(closed).count(), 5, "{}", ended.words());
    assert!(logged.contains(&"the stream ended"), "{}", ended.words());
    assert_eq!(ended.events.last().map(|last| &last["abandoned"]), Some(&0.into()), "{}", ended.words());
    let left: BTreeSet<_> = logged.iter().filter(|text| text.starts_with("closed")).map(|text| text.rsplit(' ').nth(1)).collect();
    assert!(!left.is_empty());
}

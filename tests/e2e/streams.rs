//! What holds of bodies that are made, or taken, piece by piece?

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use midair::probe::Probe;
use midair::swap::{Artifact, Host, Options};
use midair_tests::client::{Answer, read_answer};
use midair_tests::host::{Launch, Midair};
use midair_tests::{fixture, patience, project};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Two variants of a plugin that ticks until its gate is open, among others. Each tick says which generation made it, which variant, and its
/// number.
fn variants() -> &'static [Vec<u8>; 2] {
    static BOTH: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    BOTH.get_or_init(|| fixture::artifacts("streaming", "streaming", ["0", "1"]))
}

/// A host that serves the plugin, and the folder of the artifact.
struct Streaming {
    midair: Midair,
    folder: TempDir,
    swaps: usize,
}

impl Streaming {
    fn with(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("libstreaming.so");
        project::save(&path, &variants()[0]);
        let launch = args.iter().fold(Launch::run(&[&path]), |launch, arg| launch.arg(arg));
        let mut midair = launch.arg("--generation-header").start();
        midair.published();
        Self { midair, folder, swaps: 0 }
    }

    fn swap(&mut self) {
        self.swaps += 1;
        project::save(&self.folder.path().join("libstreaming.so"), &variants()[self.swaps % 2]);
        self.midair.published();
    }

    /// Asks on a connection of its own, and waits until a handler was called.
    fn open(&self, path: &str) -> TcpStream {
        let mut stream = self.midair.http().connect();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it is sent");
        let mut first = [0; 1];
        assert_eq!(stream.peek(&mut first).expect("an answer begins"), 1);
        stream
    }

    fn counter(&self, name: &str) -> u64 {
        let answer = self.midair.get(&format!("/counter/{name}"));
        answer.body.parse().unwrap_or_else(|_| panic!("{answer:?}"))
    }

    fn count(&self, name: &str) {
        assert_eq!(self.midair.http().ask("POST", &format!("/counter/{name}"), &[], "").status, 200);
    }

    #[track_caller]
    fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let end = Instant::now() + patience();
        while !is() {
            assert!(Instant::now() < end, "waited for {what}\n{}", self.midair.story());
            thread::yield_now();
        }
    }

    /// The handlers of the calls in flight.
    fn leases(&self) -> Vec<Value> {
        self.midair.status()["leases"].as_array().cloned().unwrap_or_default()
    }
}

/// Checks that these are all ticks from the first on, none lost or doubled, all of one generation and variant. How many, and whose.
#[track_caller]
fn ticks<'a>(from: u64, lines: impl Iterator<Item = &'a str>) -> (u64, u64) {
    let (mut next, mut of) = (from, None);
    for line in lines {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect();
        assert_eq!(numbers[2], next, "lost or doubled");
        assert_eq!((numbers[0], numbers[1]), *of.get_or_insert((numbers[0], numbers[1])), "another generation");
        next += 1;
    }
    let (generation, variant) = of.expect("some ticks");
    assert_eq!(variant, (generation + 1) % 2, "the code of that generation");
    (next - from, generation)
}

/// The ticks in the text of an event stream.
fn data(body: &str) -> impl Iterator<Item = &str> {
    body.split("\n\n").filter_map(|event| event.strip_prefix("event: tick\ndata: "))
}

#[test]
fn fault_24_a_streamed_body_and_an_event_stream_live_through_twenty_swaps_and_end_on_their_own_generation() {
    let mut host = Streaming::with(&[]);
    let mut streams = [host.open("/ticks/gate"), host.open("/events/gate"), host.open("/nested/gate")];
    for _ in 0..20 {
        host.swap();
    }
    assert_eq!(host.midair.get("/counter/gate").generation(), 21);
    let leases = host.leases();
    let held =
        |name: &str| leases.iter().filter(|lease| lease["handler"].as_str().is_some_and(|handler| handler.contains(name))).count();
    assert_eq!((leases.len(), held("nested")), (4, 1), "three answers, one of them with a nested call: {leases:?}");
    assert!(leases.iter().all(|lease| lease["generation"] == 1 && lease["age_us"].as_u64() > Some(0)), "{leases:?}");
    host.count("gate");
    let [ticked, events, nested] = streams.each_mut().map(|stream| read_answer(stream).expect("a whole answer"));
    let kind = |answer: &Answer| answer.header("content-type").map(str::to_owned);
    assert_eq!((kind(&events).as_deref(), events.header("cache-control")), (Some("text/event-stream"), Some("no-cache")));
    let counts = [ticks(1, ticked.body.lines()), ticks(1, data(&events.body)), ticks(2, nested.body.lines())];
    assert!(counts.iter().all(|(_, generation)| *generation == 1), "{counts:?}");
    host.until("the leases to end", || host.leases().is_empty());
    assert_eq!(host.counter("gone"), 3, "all were dropped");
    assert_eq!((ticked.generation(), host.midair.all("failed").len()), (1, 0));
}

#[test]
fn g01_a_nested_streamed_answer_stays_on_the_generation_of_its_caller() {
    let mut host = Streaming::with(&[]);
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(host.open("/nested/gate"));
        host.swap();
    }
    host.count("gate");
    for (number, mut stream) in (1..).zip(open) {
        let answer = read_answer(&mut stream).expect("a whole answer");
        assert_eq!((ticks(2, answer.body.lines()).1, answer.generation()), (number, number));
    }
}

#[test]
fn g01_a_hundred_event_streams_live_through_fifty_swaps_under_load_and_lose_no_event() {
    let mut host = Streaming::with(&[]);
    let over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (over, asked, client) = (Arc::clone(&over), Arc::clone(&asked), host.midair.http());
            thread::spawn(move || {
                while !over.load(Relaxed) {
                    assert_eq!(client.get("/counter/gate").body, "0");
                    asked.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let open = |host: &Streaming| {
        let mut stream = host.open("/events/gate");
        thread::spawn(move || {
            let answer = read_answer(&mut stream).expect("none is closed");
            let (events, generation) = ticks(1, data(&answer.body));
            assert_eq!(generation, answer.generation());
            events
        })
    };
    let mut streams: Vec<_> = (0..50).map(|_| open(&host)).collect();
    for _ in 0..50 {
        host.swap();
        streams.push(open(&host));
    }
    over.store(true, Relaxed);
    load.into_iter().for_each(|load| load.join().expect("all are answered"));
    assert_eq!(host.leases().len(), 100);
    host.count("gate");
    let counts: Vec<u64> = streams.into_iter().map(|stream| stream.join().expect("a whole stream")).collect();
    let text = format!(
        "100 event streams over 50 swaps: {} events, none lost or doubled, none closed; {} answers beside them\n",
        counts.iter().sum::<u64>(),
        asked.load(Relaxed)
    );
    std::io::stderr().write_all(text.as_bytes()).expect("it can be said");
    host.until("the leases to end", || host.leases().is_empty());
    assert_eq!((counts.len(), host.counter("gone"), host.midair.all("failed").len()), (100, 100, 0));
}

#[test]
fn what_a_client_does_not_take_is_not_made_and_when_it_goes_the_body_is_dropped() {
    // However long it takes nothing here, that is no reason to cut it off.
    let host = Streaming::with(&["--body-timeout", "600"]);
    let mut client = host.open("/endless");
    // 64 KiB each: what the system and hyper keep for a connection is a fraction of it.
    const BOUND: u64 = 512;
    let mut last = 0;
    host.until("what is made to stand still", || {
        let made = host.counter("made");
        assert!(made <= BOUND, "{made} pieces were made for a client that takes none");
        made > 0 && (0..50).all(|_| host.counter("made") == made) && std::mem::replace(&mut last, made) == made
    });
    let mut taken = vec![0; 64 << 10];
    for _ in 0..2 * BOUND {
        client.read_exact(&mut taken).expect("there is more");
    }
    let made = host.counter("made");
    assert!((2 * BOUND - 1..4 * BOUND).contains(&made), "{made} for {} taken", 2 * BOUND);
    assert_eq!(host.counter("gone"), 0);
    drop(client);
    host.until("the body's drop", || host.counter("gone") == 1);
    host.until("the lease to end", || host.leases().is_empty());
}

#[test]
fn an_error_and_a_panic_in_a_body_break_it_off_and_are_told() {
    let mut host = Streaming::with(&[]);
    assert_eq!(read_answer(&mut host.open("/breaks/not")).expect("a whole answer").body, "whole so farwhole so far");
    let before = host.midair.status()["plugins"][0]["errors"].as_u64();
    let broken = |host: &Streaming, how: &str| {
        let (mut stream, mut text) = (host.open(how), String::new());
        // Cut off with or without a reset.
        let _ = stream.read_to_string(&mut text);
        assert!(text.starts_with("HTTP/1.1 200") && text.matches("whole so far").count() == 2, "what was made arrives: {text}");
        assert!(!text.ends_with("0\r\n\r\n"), "it looks whole: {text}");
    };
    broken(&host, "/breaks/error");
    let failed = host.midair.wait_for("failed", |event| event["event"] == "failed");
    assert_eq!(failed["error"], "the body broke off: out of words");
    broken(&host, "/breaks/panic");
    let panicked = host.midair.wait_for("panicked", |event| event["event"] == "panicked");
    assert_eq!(panicked["message"], "lost for words");
    assert_eq!(host.midair.status()["plugins"][0]["errors"].as_u64(), before.map(|before| before + 2));
    assert_eq!(host.midair.get("/counter/gone").status, 200, "it serves on");
}

#[test]
fn asked_within_the_process_a_stream_is_gathered_and_who_asks_for_pieces_gets_one() {
    let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("libstreaming.so");
    project::save(&path, &variants()[0]);
    let host = Host::new(Options { probe: Probe::Off, ..Options::new(data.path()) }).expect("a host");
    let record = host.swap(host.begin("test"), vec![Artifact { plugin: String::new(), path }]);
    assert!(record.code.is_none(), "{record:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let ask = |method: &str, path: &str, body: &'static str| {
        let request = http::Request::builder().method(method).uri(path).body(Bytes::from(body)).expect("a request");
        let answer = runtime.block_on(host.ask(request));
        (answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned())
    };
    assert_eq!(ask("GET", "/breaks/not", ""), (200, "whole so farwhole so far".to_owned()));
    assert_eq!(ask("GET", "/breaks/error", ""), (500, "the body broke off: out of words\n".to_owned()));
    assert_eq!(ask("HEAD", "/endless", ""), (200, String::new()));
    assert_eq!(ask("GET", "/counter/gone", ""), (200, "1".to_owned()));
    assert_eq!(ask("POST", "/upload", "12345"), (200, "5 5".to_owned()));
    assert!(host.status().leases.is_empty());
}

#[test]
fn head_of_a_streamed_answer_has_no_body_and_drops_the_stream() {
    let host = Streaming::with(&[]);
    let answer = host.midair.http().ask("HEAD", "/endless", &[], "");
    assert_eq!((answer.status, answer.body.as_str(), answer.header("content-length")), (200, "", None));
    assert_eq!((host.counter("gone"), host.counter("made")), (1, 0));
}

#[test]
fn the_end_of_the_host_waits_for_streams_up_to_its_deadline() {
    let mut host = Streaming::with(&["--drain-timeout", "1"]);
    let _endless = host.open("/events/gate");
    host.midair.signal(Signal::TERM);
    let stopping = host.midair.wait_for("stopping", |event| event["event"] == "stopping");
    assert_eq!(stopping["in_flight"], 1);
    let ended = host.midair.ended("the drain");
    let stopped = ended.events.iter().find(|event| event["event"] == "stopped").map(|event| event["abandoned"].clone());
    assert_eq!((ended.status.code(), stopped), (Some(0), Some(1.into())));
}

const MIB: usize = 1 << 20;

/// Sends a body of so many bytes, with its length told or in chunks, and reads the answer.
fn send(host: &Streaming, path: &str, size: usize, is_chunked: bool) -> Answer {
    let mut stream = host.midair.http().connect();
    let framing = if is_chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {size}") };
    write!(stream, "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{framing}\r\n\r\n").expect("it is sent");
    let piece = vec![b'x'; 64 << 10];
    let mut left = size;
    while left > 0 {
        let now = left.min(piece.len());
        let mut part = Vec::new();
        if is_chunked {
            part.extend_from_slice(format!("{now:x}\r\n").as_bytes());
        }
        part.extend_from_slice(&piece[..now]);
        if is_chunked {
            part.extend_from_slice(b"\r\n");
        }
        left -= now;
        // The host may answer and close before it has read all; its answer counts.
        if stream.write_all(&part).is_err() {
            break;
        }
    }
    if is_chunked {
        let _ = stream.write_all(b"0\r\n\r\n");
    }
    read_answer(&mut stream).unwrap_or_else(|reason| panic!("{path} {size} {is_chunked}: {reason}"))
}

#[test]
fn a_body_that_work_beside_its_request_lets_go_is_read_and_thrown_away() {
    let mut host = Streaming::with(&[]);
    let answer = send(&host, "/let-go", 4 * MIB, false);
    assert_eq!((answer.status, answer.body.as_str()), (200, "begun"));
    host.midair.wait_for("the end of the work", |event| event["event"] == "log" && event["message"] == "let go");
    let ended = host.midair.terminate();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.words());
}

/// The most memory that the host ever had, in bytes.
fn most_memory(midair: &Midair) -> usize {
    let status = fs::read_to_string(Path::new("/proc").join(midair.pid().to_string()).join("status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") << 10
}

#[test]
fn a_body_of_a_hundred_mebibytes_is_taken_in_pieces_and_never_lies_in_memory_whole() {
    let host = Streaming::with(&[]);
    assert_eq!(send(&host, "/upload", MIB, false).status, 200);
    let before = most_memory(&host.midair);
    for (path, is_chunked) in [("/upload", false), ("/upload", true), ("/pass/upload", false)] {
        let answer = send(&host, path, 100 * MIB, is_chunked);
        let said: Vec<usize> = answer.body.split(' ').rev().take(2).map(|number| number.parse().expect("a number")).collect();
        assert_eq!((answer.status, said[1]), (200, 100 * MIB), "{path}");
        assert!(said[0] <= 2 * MIB, "a piece of {} bytes", said[0]);
    }
    // The kernel adds up what its threads have now and then only: it may seem to shrink.
    let more = || most_memory(&host.midair).saturating_sub(before);
    assert!(more() < 32 * MIB, "{} bytes more", more());
    // The measure bites: the same body, whole.
    assert_eq!(send(&host, "/whole", 100 * MIB, false).body, (100 * MIB).to_string());
    assert!(more() > 90 * MIB);
}

#[test]
fn a_body_in_pieces_is_passed_on_to_handlers_that_want_it_whole_or_in_pieces_and_comes_back() {
    let host = Streaming::with(&[]);
    assert_eq!(send(&host, "/pass/whole", MIB, true).body, format!("200 {MIB}"));
    assert!(send(&host, "/pass/upload", MIB, true).body.starts_with(&format!("200 {MIB} ")));
    assert_eq!(send(&host, "/echo", MIB, true).body, "x".repeat(MIB));
    assert_eq!(send(&host, "/upload", 0, false).body, "0 0");
    assert_eq!(host.midair.http().ask("POST", "/echo", &[], "said").body, "said");
}

#[test]
fn a_body_over_the_limit_is_413_for_the_handler_and_for_the_client() {
    let mut host = Streaming::with(&["--body-limit", "64KiB"]);
    for is_chunked in [true, false] {
        let answer = send(&host, "/limited", MIB, is_chunked);
        assert_eq!((answer.status, answer.body.trim_end()), (413, "the body is larger than 65536 bytes"), "chunked: {is_chunked}");
        let log = host.midair.wait_for("the handler's log", |event| event["event"] == "log");
        assert!(log["message"].as_str().is_some_and(|said| said.contains("413")), "{log}");
    }
    assert_eq!(send(&host, "/limited", 64 << 10, true).status, 200, "the limit itself is none too many");
    assert_eq!(send(&host, "/whole", MIB, false).status, 200, "a route has its own limit");
}

/// Sends five bytes of a thousand.
fn begin(host: &Streaming) -> TcpStream {
    let mut stream = host.midair.http().connect();
    write!(stream, "POST /upload HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n12345")
        .expect("it is sent");
    stream
}

/// Waits until the upload's handler says how `chunk` failed.
#[track_caller]
fn told(host: &mut Streaming, status: &str) {
    let log = host.midair.wait_for("the handler's log", |event| event["event"] == "log");
    assert!(log["message"].as_str().is_some_and(|said| said.starts_with(&format!("after 5: {status}"))), "{log}");
}

#[test]
fn a_client_that_hangs_up_is_an_error_of_the_next_piece() {
    let mut host = Streaming::with(&[]);
    let gone = begin(&host);
    host.until("the handler", || host.counter("uploads") == 1);
    gone.shutdown(Shutdown::Both).expect("it hangs up");
    told(&mut host, "400");
    host.until("the lease to end", || host.leases().is_empty());
}

/// The limits are those of every host, half a minute, so this takes as long.
#[test]
fn a_client_that_sends_nothing_or_takes_nothing_is_cut_off_and_a_quiet_stream_is_not() {
    let mut host = Streaming::with(&["--body-timeout", "2"]);
    let mut quiet = host.open("/quiet/gate");
    let stuck = host.open("/endless");
    let mut dawdles = begin(&host);
    told(&mut host, "408");
    assert_eq!(read_answer(&mut dawdles).expect("an answer").status, 408);
    host.until("the one that takes nothing to be cut off", || host.counter("gone") == 1);
    // The call is over a moment after its body was dropped.
    host.until("its call to be over", || host.leases().len() < 2);
    assert_eq!(host.leases().len(), 1, "the quiet one is there");
    host.count("gate");
    let comments = read_answer(&mut quiet).expect("it ends well").body;
    assert!(!comments.is_empty() && comments.split_terminator(":\n\n").all(str::is_empty), "{comments:?}");
    drop(stuck);
}

#[test]
fn a_handler_that_does_not_read_answers_well() {
    let host = Streaming::with(&[]);
    for (size, is_chunked) in [(1000, false), (3 * MIB, false), (3 * MIB, true)] {
        let answer = send(&host, "/unread", size, is_chunked);
        assert_eq!((answer.status, answer.body.as_str()), (403, "not read"));
    }
    // What was not read is no request.
    let mut kept = host.midair.http().connect();
    let body = "x".repeat(MIB);
    write!(kept, "POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: {MIB}\r\n\r\n{body}").expect("it is sent");
    write!(kept, "GET /counter/gate HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it is sent");
    let mut both = String::new();
    kept.read_to_string(&mut both).expect("both answers");
    assert!(both.starts_with("HTTP/1.1 403") && both.ends_with("\r\n\r\n0") && both.matches("HTTP/1.1").count() == 2, "{both}");
}

#[test]
fn files_are_answered_by_range_and_condition() {
    let host = Streaming::with(&[]);
    let path = host.folder.path().join("page.html");
    fs::write(&path, "0123456789").expect("a file");
    let target = format!("/file?{}", path.display());
    let ask = |headers: &[(&str, &str)]| host.midair.http().ask("GET", &target, headers, "");
    let whole = ask(&[]);
    assert_eq!((whole.status, whole.body.as_str(), whole.header("content-type")), (200, "0123456789", Some("text/html")));
    assert_eq!((whole.header("x-own"), whole.generation()), (Some("yes"), 1));
    let part = ask(&[("range", "bytes=2-4")]);
    assert_eq!((part.status, part.body.as_str(), part.header("content-range")), (206, "234", Some("bytes 2-4/10")));
    let beyond = ask(&[("range", "bytes=20-")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    let tag = whole.header("etag").expect("a tag").to_owned();
    assert_eq!(ask(&[("if-none-match", &tag)]).status, 304);
    assert_eq!(ask(&[("range", "bytes=2-4"), ("if-range", &tag)]).status, 206);
    let other = ask(&[("range", "bytes=2-4"), ("if-range", "\"another\"")]);
    assert_eq!((other.status, other.body.as_str()), (200, "0123456789"));
    let head = host.midair.http().ask("HEAD", &target, &[], "");
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, Some("10"), ""));
    for nothing in [format!("{}.not", path.display()), host.folder.path().display().to_string()] {
        let answer = host.midair.get(&format!("/file?{nothing}"));
        assert_eq!((answer.status, answer.body.as_str()), (404, "no such file\n"));
    }
}

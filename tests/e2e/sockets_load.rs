//! Is any WebSocket or event stream closed, or any of their messages lost or doubled, while code is swapped under load?
//!
//! Each WebSocket's client numbers its messages and waits for the answer to each: the same number, and how many messages the connection has
//! had by the state that the host holds for it. Each stream numbers its events; some were opened before the first swap, others between
//! swaps. Flips are paced by answers, not by time.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use midair_tests::client::{Client, read_answer};
use midair_tests::host::Launch;
use midair_tests::{fixture, patience, size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::load::{point, show};

const VARIANTS: u64 = 4;

/// How often a client sends.
const PERIOD: Duration = Duration::from_secs(1);

/// What the clients saw.
#[derive(Default)]
struct Ledger {
    open: AtomicU64,
    answers: AtomicU64,
    /// Connections that ended before they should.
    closed: AtomicU64,
    /// Answers with another number than was sent last: one was lost, doubled, or overtaken.
    out_of_turn: AtomicU64,
    /// Answers by whose count a message was handled more than once, or not at all.
    miscounted: AtomicU64,
    answered_by: [AtomicU64; VARIANTS as usize],
    over: AtomicBool,
}

#[test]
fn websockets_and_event_streams_live_through_swaps_under_load() {
    let (connections, streams, swaps) = size((100, 10, 20), (1_000, 100, 200));
    drive(connections, streams, swaps);
}

fn drive(connections: u64, streams: u64, swaps: u64) {
    more_files();
    let folder = tempfile::tempdir().expect("a folder");
    for variant in 0..VARIANTS {
        fixture::artifact("counting").variant(&variant.to_string()).save_in(&folder.path().join(variant.to_string()));
    }
    let current = folder.path().join("current");
    point(&current, 0);
    let mut midair = Launch::run(&[&current.join("libcounting.so")]).start();
    midair.published();

    let ledger = Arc::new(Ledger::default());
    let clients = {
        let (ledger, address) = (Arc::clone(&ledger), midair.http().0);
        thread::spawn(move || talk(&ledger, address, connections))
    };
    let start = Instant::now();
    let wait = |ready: &dyn Fn() -> bool, ledger: &Ledger| {
        while !ready() {
            assert!(start.elapsed() < patience() * 4, "too slow: {}", ledger.text(0, start.elapsed()));
            assert_eq!(ledger.closed.load(Relaxed), 0, "{}", ledger.text(0, start.elapsed()));
            // Not in step with the host: this only gives the processor to the clients.
            thread::park_timeout(Duration::from_millis(1));
        }
    };
    wait(&|| ledger.open.load(Relaxed) == connections, &ledger);
    let mut open: Vec<_> = (0..streams / 2).map(|_| listen(midair.http(), 0)).collect();
    for swap in 1..=swaps {
        let answers = ledger.answers.load(Relaxed);
        point(&current, swap % VARIANTS);
        midair.published();
        if (open.len() as u64) < streams {
            open.push(listen(midair.http(), swap % VARIANTS));
        }
        // A fifth of the connections at least has said something to each.
        wait(&|| ledger.answers.load(Relaxed) >= answers + connections / 5, &ledger);
    }
    let (time, status) = (start.elapsed(), midair.status());
    ledger.over.store(true, Relaxed);
    clients.join().expect("the clients end");
    assert_eq!(midair.http().post("/end", &Value::Null).status, 200);
    let events: Vec<u64> = open.into_iter().map(|stream| stream.join().expect("a whole stream")).collect();

    let text = ledger.text(swaps, time);
    let (count, all) = (events.len(), events.iter().sum::<u64>());
    show(&format!("{text} | event streams {count}, none closed | events {all}, none lost or doubled"));
    assert_eq!(count as u64, streams);
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    assert_eq!((count(&ledger.closed), count(&ledger.out_of_turn), count(&ledger.miscounted)), (0, 0, 0), "{text}");
    assert!(ledger.answered_by.iter().all(|variant| count(variant) > 0), "{text}");
    let route = &status["sockets"][0];
    assert_eq!((&route["open"], &route["opened"]), (&connections.into(), &connections.into()), "{route}");
    assert_eq!(midair.all("rejected"), Vec::<Value>::new());
    assert_eq!(midair.terminate().status.code(), Some(0));
}

/// Opens an event stream, which has to come from this variant, and reads it to its end: how many events there were.
fn listen(client: Client, variant: u64) -> JoinHandle<u64> {
    let mut stream = client.connect();
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it is sent");
    assert_eq!(stream.peek(&mut [0]).expect("an answer begins"), 1);
    thread::spawn(move || {
        let answer = read_answer(&mut stream).expect("it isn't closed");
        let mut events = 0;
        for event in answer.body.split_terminator("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
            events += 1;
            assert_eq!(event, format!("{variant} {events}"), "lost, doubled, or of other code");
        }
        events
    })
}

/// Each side of a connection is a file.
fn more_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(16_384, |maximum| maximum.min(16_384));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).expect("a soft limit can be raised");
}

/// Talks over all connections until the ledger is over.
#[tokio::main(flavor = "current_thread")]
async fn talk(ledger: &Arc<Ledger>, address: SocketAddr, connections: u64) {
    let mut clients = tokio::task::JoinSet::new();
    for place in 0..connections {
        let ledger = Arc::clone(ledger);
        clients.spawn(async move {
            if one(&ledger, address, PERIOD.mul_f64(place as f64 / connections as f64)).await.is_none() {
                ledger.closed.fetch_add(1, Relaxed);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client ends well");
    }
}

/// One connection's talk; `None` if it ended too early.
async fn one(ledger: &Ledger, address: SocketAddr, after: Duration) -> Option<()> {
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/count"), stream).await.ok()?;
    ledger.open.fetch_add(1, Relaxed);
    // One after the other, so that some of them talk at any moment.
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + after, PERIOD);
    let mut number = 0_u64;
    while !ledger.over.load(Relaxed) {
        beat.tick().await;
        number += 1;
        socket.send(Message::text(number.to_string())).await.ok()?;
        let answer = loop {
            match socket.next().await?.ok()? {
                Message::Text(answer) => break answer,
                Message::Ping(_) | Message::Pong(_) => {}
                _ => return None,
            }
        };
        let mut words = answer.split(' ').map_while(|word| word.parse::<u64>().ok());
        let (variant, echoed, seen) = (words.next()?, words.next()?, words.next()?);
        ledger.answers.fetch_add(1, Relaxed);
        ledger.out_of_turn.fetch_add(u64::from(echoed != number), Relaxed);
        ledger.miscounted.fetch_add(u64::from(seen != number), Relaxed);
        ledger.answered_by.get(usize::try_from(variant).ok()?)?.fetch_add(1, Relaxed);
    }
    socket.close(None).await.ok()
}

impl Ledger {
    fn text(&self, swaps: u64, time: Duration) -> String {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let by: Vec<u64> = self.answered_by.iter().map(count).collect();
        format!(
            "connections {} | swaps {swaps} in {:.1} s | messages each way {} | closed {} | out of turn {} | miscounted {} | by variant {by:?}",
            count(&self.open),
            time.as_secs_f64(),
            count(&self.answers),
            count(&self.closed),
            count(&self.out_of_turn),
            count(&self.miscounted),
        )
    }
}

//! What does a request cost inside the host, sockets apart?
//!
//! One process, an optimised plugin whose handler answers at once, `Host::ask` in a loop: admission, route, lease, the way into the plugin and back,
//! the answer dropped. The same loop on two threads shows what they share, and the same during swaps what a publish costs those that run.
//! Beside it what a message costs, from the queue to the end of its handler.
//!
//! Rounds of the variants take turns, so that a drift of the machine hits all alike; the ratios are medians over rounds.

use std::io::Write;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use midair::probe::Probe;
use midair::swap::{Artifact, Host, Options};
use midair_tests::project::Project;

const SOURCE: &str = r#"
use midair_plugin::{Ctx, On, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| "hello").get("/async", later).on_with(On::new("numbers").queue(50_000), heard)
}

fn heard(number: u32, ctx: Ctx) -> Result<()> {
    if number > 1 { Ok(()) } else { ctx.service("heard").call(&()).wait() }
}

async fn later(_: Request, _: Ctx) -> &'static str {
    "hello"
}
"#;

/// Rounds of each variant, and requests a thread in each.
const ROUNDS: usize = 21;
const REQUESTS: u32 = 50_000;

fn ask(host: &Host, path: &str) {
    let request = http::Request::get(path).body(Bytes::new()).expect("a request");
    match pin!(host.ask(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => assert_eq!(answer.body().as_ref(), b"hello"),
        Poll::Pending => panic!("this handler answers at once"),
    }
}

/// Nothing, as MessagePack.
const NIL: [u8; 1] = [0xc0];

/// Nanoseconds a request on each of so many threads.
fn round(host: &Host, path: &str, threads: u32) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..REQUESTS).for_each(|_| ask(host, path)));
        }
    });
    start.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS)
}

/// Nanoseconds a message, one after the other.
fn messages(host: &Host, heard: &Receiver<()>) -> f64 {
    let start = Instant::now();
    (1..=REQUESTS).rev().for_each(|number| host.try_emit("numbers", &number).expect("there is room"));
    heard.recv().expect("the last is handled");
    start.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo test` runs benches too, to see that they start; what they measure there says nothing.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let artifact: PathBuf = Project::plugin("asked", SOURCE).build_optimised(folder.path()).remove(0);
    let host = Host::new(Options { probe: Probe::Off, ..Options::new(data.path()) }).expect("a host");
    let swap = || {
        let artifact = Artifact { plugin: String::new(), path: artifact.clone() };
        host.swap(host.begin("bench").force(true), vec![artifact])
    };
    let first = swap();
    assert!(first.code.is_none(), "{first:?}");
    let (told, heard) = channel();
    host.offer("heard", move |_, _| told.send(()).map(|()| Bytes::from_static(&NIL)).map_err(|error| error.to_string()));
    let (mut sync, mut later, mut two, mut swapped, mut swaps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), 0);
    let mut emitted = Vec::new();
    for _ in 0..ROUNDS {
        sync.push(round(&host, "/", 1));
        later.push(round(&host, "/async", 1));
        two.push(round(&host, "/", 2));
        emitted.push(messages(&host, &heard));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    swap();
                    swaps += 1;
                }
            });
            swapped.push(round(&host, "/", 1));
            done.store(true, Ordering::Relaxed);
        });
    }
    let ratio = |of: &[f64]| median(of.iter().zip(&sync).map(|(of, to)| of / to).collect());
    let (two_to_one, swapped_to_not) = (ratio(&two), ratio(&swapped));
    let mut out = std::io::stdout();
    writeln!(out, "{ROUNDS} rounds of {REQUESTS} requests, medians").expect("it can be printed");
    writeln!(out, "a plain handler, one thread        {:7.0} ns", median(sync.clone())).expect("it can be printed");
    writeln!(out, "an async handler, ready at once    {:7.0} ns", median(later)).expect("it can be printed");
    writeln!(out, "two threads, each                  {:7.0} ns ({two_to_one:.2} x)", median(two)).expect("it can be printed");
    writeln!(out, "during {swaps} swaps                   {:7.0} ns ({swapped_to_not:.2} x)", median(swapped))
        .expect("it can be printed");
    writeln!(out, "a message, queued and handled      {:7.0} ns", median(emitted)).expect("it can be printed");
}

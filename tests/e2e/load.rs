//! Is any request lost, or answered by two versions, while code is swapped under load?
//!
//! Two plugins, a and b, are built of one constant, so one flip of a symlink changes both. A request to `/slow` sleeps on the host's
//! clock for longer than a swap takes and stamps (generation, constant) before and after, and once more after asking b; one to `/pair`
//! asks b at once. All stamps of a request must be of one version. Flips are paced by answers, not by time.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use midair_tests::asker::Asker;
use midair_tests::host::Launch;
use midair_tests::{fixture, patience, size};
use serde_json::Value;

const VARIANTS: u64 = 4;
/// What has to be reached. Rounds go on until all of it is.
struct Aim {
    requests: u64,
    flips: u64,
    /// A fifth of the requests at least is pending across a swap.
    pending: u64,
    length: Duration,
    /// More flips than this would only fill memory: each generation is kept.
    most_flips: u64,
}

impl Aim {
    const fn of(requests: u64) -> Self {
        let flips = requests / 150;
        Self { requests, flips, pending: requests / 5, length: Duration::from_millis(requests), most_flips: 2 * flips }
    }
}

/// Answers between two flips: 30,000 requests then see 240 of them.
const ANSWERS_A_FLIP: u64 = 125;
/// Connections with one sleeping request each, and how long each sleeps: some 450 requests/s.
const SLEEPERS: u64 = 180;
const SLEEP_MS: u64 = 400;
/// Connections that ask quick questions, and how many in all each second.
const ASKERS: u64 = 16;
const QUESTIONS_A_SECOND: u64 = 900;

/// What the client saw.
#[derive(Default)]
struct Ledger {
    requests: AtomicU64,
    slow: AtomicU64,
    pending_across_a_swap: AtomicU64,
    transport_errors: AtomicU64,
    unexpected_statuses: AtomicU64,
    mixed: AtomicU64,
    answered_by: [AtomicU64; VARIANTS as usize],
    /// The generation of a that is live, as the host has said.
    live: AtomicU64,
    over: AtomicBool,
}

#[test]
fn g1_g2_load_over_many_swaps_loses_no_request_and_mixes_no_versions() {
    let folder = tempfile::tempdir().expect("a folder");
    for variant in 0..VARIANTS {
        let (variant, folder) = (variant.to_string(), folder.path().join(variant.to_string()));
        for plugin in ["load_a", "load_b"] {
            fixture::artifact(plugin).variant(&variant).save_in(&folder);
        }
    }
    let current = folder.path().join("current");
    point(&current, 0);
    let launch = Launch::run(&[&current.join("libload_a.so"), &current.join("libload_b.so")]);
    let mut midair = launch.arg("--generation-header").start();
    let plugins = ["load_a", "load_b"];
    midair.all_published(&plugins);

    let ledger = Arc::new(Ledger::default());
    ledger.live.store(1, Relaxed);
    let clients = {
        let (ledger, address) = (ledger.clone(), midair.http().0);
        thread::spawn(move || drive(&ledger, address))
    };
    let start = Instant::now();
    let (aim, mut flips, mut answers) = (size(Aim::of(6_000), Aim::of(30_000)), 0, 0);
    loop {
        let (requests, pending) = (ledger.requests.load(Relaxed), ledger.pending_across_a_swap.load(Relaxed));
        if requests >= aim.requests && pending >= aim.pending && flips >= aim.flips && start.elapsed() >= aim.length {
            break;
        }
        assert!(start.elapsed() < 3 * patience(), "too slow: {}\n{}", ledger.text(flips, start.elapsed()), midair.stderr());
        if flips == aim.most_flips || requests < answers + ANSWERS_A_FLIP {
            // Not in step with the host: this only gives the processor to the clients.
            thread::yield_now();
            thread::park_timeout(Duration::from_millis(1));
            continue;
        }
        (flips, answers) = (flips + 1, requests);
        point(&current, flips % VARIANTS);
        let published = midair.all_published(&plugins);
        assert_eq!(published[0]["epoch"], published[1]["epoch"], "one flip, one store\n{}", midair.story());
        ledger.live.store(published[0]["generation"].as_u64().expect("a number"), Relaxed);
    }
    let time = start.elapsed();
    ledger.over.store(true, Relaxed);
    clients.join().expect("the clients end");

    let text = ledger.text(flips, time);
    show(&text);
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    assert_eq!((count(&ledger.transport_errors), count(&ledger.unexpected_statuses), count(&ledger.mixed)), (0, 0, 0), "{text}");
    assert!(count(&ledger.requests) >= aim.requests && flips >= aim.flips, "{text}");
    assert!(count(&ledger.pending_across_a_swap) >= aim.pending, "{text}");
    assert!(ledger.answered_by.iter().all(|variant| count(variant) > 0), "{text}");
    assert_eq!(midair.all("rejected"), Vec::<Value>::new());
    let status = midair.status();
    assert!(status["plugins"].as_array().is_some_and(|plugins| plugins.iter().all(|plugin| plugin["errors"] == 0)), "{status}");
    assert_eq!(midair.terminate().status.code(), Some(0));
}

/// Points `current` to a variant, in one step.
pub(crate) fn point(current: &Path, variant: u64) {
    let draft = current.with_extension("draft");
    symlink(variant.to_string(), &draft).expect("a link can be made");
    fs::rename(&draft, current).expect("it can be renamed");
}

#[expect(clippy::print_stdout, reason = "the ledger is to be seen with --nocapture, and in the output of a failure")]
pub(crate) fn show(text: &str) {
    println!("{text}");
}

/// Asks over keep-alive connections until the ledger is over.
#[tokio::main(flavor = "current_thread")]
async fn drive(ledger: &Arc<Ledger>, address: SocketAddr) {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..SLEEPERS {
        let ledger = ledger.clone();
        clients.spawn(async move {
            let mut asker = Asker::new(address);
            while !ledger.over.load(Relaxed) {
                ledger.ask(&mut asker, &format!("/slow/{SLEEP_MS}")).await;
            }
        });
    }
    for _ in 0..ASKERS {
        let ledger = ledger.clone();
        clients.spawn(async move {
            let mut asker = Asker::new(address);
            let mut beat = tokio::time::interval(Duration::from_micros(1_000_000 * ASKERS / QUESTIONS_A_SECOND));
            while !ledger.over.load(Relaxed) {
                beat.tick().await;
                ledger.ask(&mut asker, "/pair").await;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client ends well");
    }
}

impl Ledger {
    /// One request and what is to be said of its answer. A connection that fails is counted and replaced.
    async fn ask(&self, asker: &mut Asker, path: &str) {
        let answer = asker.get(path).await;
        self.requests.fetch_add(1, Relaxed);
        self.slow.fetch_add(u64::from(path.starts_with("/slow")), Relaxed);
        let Ok(answer) = answer else {
            self.transport_errors.fetch_add(1, Relaxed);
            return;
        };
        if answer.status != 200 {
            self.unexpected_statuses.fetch_add(1, Relaxed);
            return;
        }
        let Some((generation, variant)) = one_version(&answer.body) else {
            self.mixed.fetch_add(1, Relaxed);
            return;
        };
        self.pending_across_a_swap.fetch_add(u64::from(generation < self.live.load(Relaxed)), Relaxed);
        self.answered_by[variant].fetch_add(1, Relaxed);
    }

    fn text(&self, swaps: u64, time: Duration) -> String {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let requests = count(&self.requests);
        let share = |part: u64| 100.0 * part as f64 / requests.max(1) as f64;
        let pending = count(&self.pending_across_a_swap);
        let by: BTreeMap<usize, u64> = self.answered_by.iter().map(count).enumerate().collect();
        format!(
            "requests {requests} in {:.1} s, {:.0}/s | slow {} | swaps {swaps} of two plugins each | pending across a swap {pending} ({:.1} %)\n\
             transport errors {} | unexpected statuses {} | mixed {} | answered by variant {by:?}",
            time.as_secs_f64(),
            requests as f64 / time.as_secs_f64(),
            count(&self.slow),
            share(pending),
            count(&self.transport_errors),
            count(&self.unexpected_statuses),
            count(&self.mixed),
        )
    }
}

/// The generation of a and the variant that answered, if all stamps agree.
fn one_version(body: &[u8]) -> Option<(u64, usize)> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let stamps = answer["stamps"].as_array()?;
    let (generation, variant) = (stamps.first()?[0].as_u64()?, stamps.first()?[1].as_u64()?);
    let agree = stamps.iter().all(|stamp| stamp[0] == generation && stamp[1] == variant) && answer["b"] == variant;
    (agree && variant < VARIANTS).then_some((generation, variant as usize))
}

#[test]
fn an_answer_whose_stamps_differ_counts_as_mixed() {
    for (body, verdict) in [
        ("{\"stamps\":[[5,1],[5,1]],\"b\":1}", Some((5, 1))),
        ("{\"stamps\":[[5,1],[6,1]],\"b\":1}", None),
        ("{\"stamps\":[[5,1],[5,2]],\"b\":1}", None),
        ("{\"stamps\":[[5,1]],\"b\":2}", None),
        ("{\"stamps\":[],\"b\":1}", None),
        ("no", None),
    ] {
        assert_eq!(one_version(body.as_bytes()), verdict, "{body}");
    }
}

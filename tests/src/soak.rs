//! What is lost, mixed or leaked over many swaps?
//!
//! One host serves one plugin, whose artifact is replaced by another variant as soon as the one before is published, while clients ask
//! without a pause. The plugin does what wears a host out: thread-locals with destructors on the host's workers, `std::thread::current()`,
//! threads of its own from `init` and from requests, tasks beside requests, bodies in pieces, a job, and a panic now and then.
//!
//! Every answer bears the generation and the variant, once before the request waits on the host's clock and once after, and the generation
//! in its header. What the process takes is read from `/proc`; how many keys of pthread are free is asked of libc itself, by a handler.
//! The process is weighed while nobody asks, before and after: then what it has more is what the swaps left behind.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::asker::{Asker, Whole};
use crate::host::{Launch, Midair};
use crate::{fixture, patience, project};

const VARIANTS: u64 = 4;
/// Of so many requests one panics, and of so many one starts a thread.
const A_PANIC: u64 = 1000;
const A_THREAD: u64 = 50;
/// How long a request waits on the host's clock, in milliseconds: from one to so many.
const LONGEST_WAIT: u64 = 20;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many swaps.
    pub swaps: u64,
    /// How many requests a second at least.
    pub rate: u64,
    /// Over how long the swaps are spread; as fast as they go if `None`.
    pub time: Option<Duration>,
    /// How many connections ask.
    pub connections: u64,
    /// An answer is late that takes longer.
    pub late: Duration,
    /// After so many swaps the process is weighed.
    pub weigh_each: u64,
    /// Whether fewer free keys of pthread than before are a fault.
    pub keys_count: bool,
    /// More arguments for `midair run`.
    pub args: Vec<String>,
}

impl Plan {
    /// So many swaps at so many requests a second.
    #[must_use]
    pub fn new(swaps: u64, rate: u64) -> Self {
        let weigh_each = swaps.div_ceil(20).max(1);
        Self {
            swaps,
            rate,
            time: None,
            connections: 64,
            late: Duration::from_millis(250),
            weigh_each,
            keys_count: false,
            args: Vec::new(),
        }
    }
}

/// What the clients saw.
#[derive(Default)]
struct Ledger {
    requests: AtomicU64,
    panics: AtomicU64,
    threads: AtomicU64,
    lost: AtomicU64,
    mixed: AtomicU64,
    late: AtomicU64,
    slowest_us: AtomicU64,
    over: AtomicBool,
    /// The first that were lost or mixed, in words.
    wrong: std::sync::Mutex<Vec<String>>,
}

/// What the host's process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Mapped areas.
    pub maps: u64,
    /// What of private copies is on the disk, in KiB: also of those that have no name any more and are still mapped.
    pub copies_kib: u64,
    /// Keys of pthread that can still be made.
    pub free_keys: u64,
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// Swaps that were published.
    pub swaps: u64,
    /// Requests that were answered or lost.
    pub requests: u64,
    /// Requests without the answer that they should have had.
    pub lost: u64,
    /// Answers by more than one version.
    pub mixed: u64,
    /// What went wrong, each in a line; empty if nothing did.
    pub wrong: Vec<String>,
    /// Why it says less than was asked for: fewer requests a second. Depends on the machine.
    pub shortfall: Option<String>,
    /// All of it, for people.
    pub text: String,
}

/// Soaks this binary.
///
/// # Panics
///
/// If the plugin doesn't build, or the host doesn't come up.
#[must_use]
pub fn soak(midair: &Path, plan: &Plan, say: &mut dyn FnMut(&str)) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let (variants, path) = (variants(), folder.path().join("libsoak.so"));
    project::save(&path, &variants[0]);
    let launch = Launch::of(Command::new(midair), "run", &[&path]).arg("--generation-header");
    let mut midair = plan.args.iter().fold(launch, |launch, arg| launch.arg(arg)).start();
    midair.published();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (asker, ledger) = (Asker::new(midair.http().0), Arc::default());
    let mut run = Run {
        midair,
        runtime,
        asker,
        path,
        variants,
        ledger,
        swaps: 0,
        swap_us: Vec::new(),
        wrong: Vec::new(),
        beats: 0,
        left_out: 0,
    };
    run.go(plan, say)
}

fn variants() -> Vec<Vec<u8>> {
    (0..VARIANTS).map(|variant| fixture::artifact("soaking").named("soak").variant(&variant.to_string()).bytes()).collect()
}

struct Run {
    midair: Midair,
    runtime: Runtime,
    asker: Asker,
    path: PathBuf,
    variants: Vec<Vec<u8>>,
    ledger: Arc<Ledger>,
    swaps: u64,
    /// How long each swap took, from the rename to the event, in microseconds.
    swap_us: Vec<f64>,
    wrong: Vec<String>,
    /// Beats of the job, none missed and none twice.
    beats: u64,
    /// Beats that the host left out, as one was waiting already.
    left_out: u64,
}

impl Run {
    fn go(&mut self, plan: &Plan, say: &mut dyn FnMut(&str)) -> Report {
        let mut text = format!("{}\n", Weight::HEAD);
        say(Weight::HEAD);
        let mut note = |moment: &str, weight: &Result<Weight, String>| {
            let line = weight.as_ref().map_or_else(Clone::clone, |weight| weight.line(moment));
            say(&line);
            writeln!(text, "{line}").expect("a string takes it");
        };
        // What a plugin or a connection brings along once isn't a leak: a few of each before the first weighing.
        for _ in 0..VARIANTS {
            self.swap_or_note();
        }
        self.touch();
        let before = self.weigh_at_rest(None);
        note("at rest", &before);
        let start = Instant::now();
        let clients = self.clients(plan);
        let warmed_up = self.swaps;
        while self.swaps < warmed_up + plan.swaps && self.wrong.is_empty() {
            if let Some(time) = plan.time {
                let due = time.mul_f64((self.swaps - warmed_up) as f64 / plan.swaps as f64);
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
            self.swap_or_note();
            if (self.swaps - warmed_up).is_multiple_of(plan.weigh_each) {
                let weight = self.weigh();
                note(&(self.swaps - warmed_up).to_string(), &weight);
            }
        }
        let time = start.elapsed();
        self.ledger.over.store(true, Relaxed);
        clients.join().expect("the clients end");
        let swaps = self.swaps - warmed_up;
        let after = self.weigh_at_rest(before.as_ref().ok());
        note("at rest", &after);
        self.judge(plan, &before, &after);
        self.report(plan, swaps, time, text, &before, &after)
    }

    fn swap_or_note(&mut self) {
        match self.swap() {
            Ok(()) => self.swaps += 1,
            Err(reason) => self.wrong.push(reason),
        }
    }

    /// Renames the next variant over the artifact and waits until it serves.
    fn swap(&mut self) -> Result<(), String> {
        let variant = (self.swaps + 1) % VARIANTS;
        let start = Instant::now();
        project::save(&self.path, &self.variants[variant as usize]);
        let ends = ["published", "rejected", "unchanged", "rolled_back"];
        let event = self.midair.comes("the end of a swap", |event| ends.iter().any(|end| event["event"] == *end));
        let event = event.map_err(|text| format!("swap {}: {}", self.swaps + 1, tail(&text)))?;
        if event["event"] != "published" {
            return Err(format!("swap {}: {event}", self.swaps + 1));
        }
        self.swap_us.push(start.elapsed().as_secs_f64() * 1e6);
        Ok(())
    }

    /// Has what serves use all that it uses.
    fn touch(&mut self) {
        for path in ["/work/1", "/task/1", "/stream/1", "/thread", "/panic"] {
            // If that fails, so does the weighing that follows.
            let _ = self.get(path);
        }
    }

    /// Asks over a connection of our own, kept so that it is always the same descriptor.
    fn get(&mut self, path: &str) -> Result<Whole, String> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(patience(), self.asker.get(path)).await });
        answer.map_err(|late| late.to_string())?.map_err(|lost| format!("{path}: {lost}"))
    }

    /// The job's beats: how many were seen, how many of them more than once, the number of the last, and how many the host says that it
    /// left out, since one was waiting already while one ran.
    fn beats(&mut self) -> Result<[u64; 4], String> {
        let body = self.get("/beats")?.body;
        let counted = serde_json::from_slice::<[u64; 3]>(&body);
        let [beats, twice, last] =
            counted.map_err(|_| format!("the beats can't be counted: {}", String::from_utf8_lossy(&body)))?;
        let left_out = self.midair.status()["jobs"][0]["skipped"].as_u64().unwrap_or_default();
        Ok([beats, twice, last, left_out])
    }

    fn clients(&self, plan: &Plan) -> JoinHandle<()> {
        let (ledger, plan, address) = (self.ledger.clone(), plan.clone(), self.midair.http().0);
        thread::spawn(move || drive(&ledger, &plan, address))
    }

    fn weigh(&mut self) -> Result<Weight, String> {
        // What serves may be new: it is to have its own keys before it takes all the others.
        self.get("/work/1")?;
        self.get("/thread")?;
        let body = self.get("/keys")?.body;
        let keys = String::from_utf8_lossy(&body);
        let free_keys = keys.parse().map_err(|_| format!("the keys can't be counted: {keys}"))?;
        Weight::of(self.midair.pid(), free_keys).map_err(|error| format!("the process can't be weighed: {error}"))
    }

    /// Waits until the process has no more descriptors and threads than `before`, and, if that doesn't come, no longer than that.
    fn weigh_at_rest(&mut self, before: Option<&Weight>) -> Result<Weight, String> {
        let until = Instant::now() + patience() / 6;
        let mut last = self.weigh()?;
        let mut seen = Instant::now();
        loop {
            let now = self.weigh()?;
            let is_flat = before.is_none_or(|before| now.is_flat_since(before));
            // Without anything to compare with, what stays the same for a while is at rest.
            if (now.descriptors, now.threads) != (last.descriptors, last.threads) {
                (last, seen) = (now, Instant::now());
            }
            let rests = seen.elapsed() >= Duration::from_millis(500);
            if (is_flat && rests) || Instant::now() >= until {
                return Ok(now);
            }
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn judge(&mut self, plan: &Plan, before: &Result<Weight, String>, after: &Result<Weight, String>) {
        match (before, after) {
            (Ok(before), Ok(after)) if !after.is_flat_since(before) => self.wrong.push(format!(
                "descriptors and threads aren't flat: {} and {} before, {} and {} after",
                before.descriptors, before.threads, after.descriptors, after.threads
            )),
            (Ok(before), Ok(after)) if plan.keys_count && after.free_keys < before.free_keys => {
                self.wrong.push(format!("of {} free keys {} are left", before.free_keys, after.free_keys));
            }
            (Err(reason), _) | (_, Err(reason)) => self.wrong.push(reason.clone()),
            _ => {}
        }
        match self.beats() {
            Ok([beats, 0, last, left_out]) if last - beats <= left_out => (self.beats, self.left_out) = (beats, last - beats),
            Ok([beats, twice, last, left_out]) => self.wrong.push(format!(
                "of {last} beats of the job {beats} were seen, {twice} of them twice; {left_out} are known to be left out"
            )),
            Err(reason) => self.wrong.push(reason),
        }
        for event in self.midair.all("rolled_back").into_iter().chain(self.midair.all("breached")) {
            self.wrong.push(format!("it went back, or would have: {event}"));
        }
        self.wrong.extend(self.ledger.wrong.lock().expect("nobody panics with it").drain(..));
    }

    fn report(
        &mut self,
        plan: &Plan,
        swaps: u64,
        time: Duration,
        mut text: String,
        before: &Result<Weight, String>,
        after: &Result<Weight, String>,
    ) -> Report {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let ledger = &self.ledger;
        let [requests, lost, mixed] = [&ledger.requests, &ledger.lost, &ledger.mixed].map(count);
        let seconds = time.as_secs_f64();
        let rate = requests as f64 / seconds;
        let shortfall = (rate < 0.99 * plan.rate as f64).then(|| format!("{rate:.0} requests/s are fewer than {}", plan.rate));
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes it");
        line(format!(
            "{swaps} swaps in {seconds:.1} s, {:.1}/s, median {:.1} ms each | {} committed",
            swaps as f64 / seconds,
            crate::statistics::median(&self.swap_us) / 1_000.0,
            self.midair.all("committed").len()
        ));
        line(format!(
            "{requests} requests, {rate:.0}/s | {} with a thread, {} that panicked | lost {lost} | mixed {mixed} | late {} of more than {:?}, \
             the slowest {:.1} ms",
            count(&ledger.threads),
            count(&ledger.panics),
            count(&ledger.late),
            plan.late,
            count(&ledger.slowest_us) as f64 / 1_000.0,
        ));
        line(format!("{} beats of a job, none missed, none twice; {} left out while one waited", self.beats, self.left_out));
        if let (Ok(before), Ok(after)) = (before, after) {
            let each = |now: u64, was: u64| (now as f64 - was as f64) / swaps.max(1) as f64;
            line(format!(
                "a swap: {:+.1} KiB of RSS, {:+.1} KiB of disk, {:+.2} maps, {:+.2} free keys",
                each(after.rss_kib, before.rss_kib),
                each(after.copies_kib, before.copies_kib),
                each(after.maps, before.maps),
                each(after.free_keys, before.free_keys),
            ));
        }
        let wrong = std::mem::take(&mut self.wrong);
        line(match (wrong.is_empty(), &shortfall) {
            (true, None) => "well: nothing was lost, mixed or left behind".to_owned(),
            (true, Some(shortfall)) => format!("NOT WHAT WAS ASKED FOR: {shortfall}"),
            (false, _) => format!("FAILED: {}", wrong.join("\n        ")),
        });
        Report { swaps, requests, lost, mixed, wrong, shortfall, text }
    }
}

impl Weight {
    const HEAD: &str = "     swaps    RSS KiB  descriptors  threads     maps  copies KiB  free keys";

    fn line(&self, moment: &str) -> String {
        let Self { rss_kib, descriptors, threads, maps, copies_kib, free_keys } = self;
        format!("{moment:>10} {rss_kib:>10} {descriptors:>12} {threads:>8} {maps:>8} {copies_kib:>11} {free_keys:>10}")
    }

    /// What the system says of this process.
    ///
    /// # Errors
    ///
    /// It is gone, or somebody else's.
    pub fn of(pid: u32, free_keys: u64) -> std::io::Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let entries = |name: &str| fs::read_dir(process.join(name)).map(|entries| entries.count() as u64);
        let status = fs::read_to_string(process.join("status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        let maps = fs::read_to_string(process.join("maps"))?;
        // The file behind a mapping is found also when its name is gone.
        let of_copy = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let inode = rest.split_ascii_whitespace().nth(3)?;
            let blocks = || fs::metadata(process.join("map_files").join(range)).map(|file| file.blocks()).unwrap_or_default();
            line.contains("/staged/").then(|| (inode.to_owned(), blocks()))
        };
        let copies: BTreeMap<String, u64> = maps.lines().filter_map(of_copy).collect();
        Ok(Self {
            rss_kib: rss.unwrap_or_default(),
            descriptors: entries("fd")?,
            threads: entries("task")?,
            maps: maps.lines().count() as u64,
            copies_kib: copies.values().sum::<u64>() / 2,
            free_keys,
        })
    }

    fn is_flat_since(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors && self.threads <= before.threads
    }
}

/// The end of a long story, where the news is.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.first().copied().unwrap_or_default();
    format!("{first} ..\n{}", lines[lines.len().saturating_sub(8)..].join("\n"))
}

/// Asks over kept connections, each at its own beat, until the ledger is over.
#[tokio::main(flavor = "current_thread")]
async fn drive(ledger: &Arc<Ledger>, plan: &Plan, address: SocketAddr) {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..plan.connections {
        let (ledger, late) = (ledger.clone(), plan.late);
        // A little faster than asked for: a beat that is missed is caught up, one at the very end isn't.
        let beat = Duration::from_nanos(980_000_000 * plan.connections / plan.rate.max(1));
        clients.spawn(async move {
            let mut asker = Asker::new(address);
            let mut beat = tokio::time::interval(beat);
            while !ledger.over.load(Relaxed) {
                beat.tick().await;
                ledger.ask(&mut asker, late).await;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client ends well");
    }
}

/// What one request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Work,
    Thread,
    Panic,
}

/// What is wrong with an answer.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Lost,
    Mixed,
}

impl Ledger {
    async fn ask(&self, asker: &mut Asker, late: Duration) {
        let number = self.requests.fetch_add(1, Relaxed);
        let (about, path) = match number {
            number if number % A_PANIC == A_PANIC / 2 => (About::Panic, "/panic".to_owned()),
            number if number % A_THREAD == 0 => (About::Thread, "/thread".to_owned()),
            number => {
                // What it does beside itself, or in pieces, is of one version as well.
                let how = ["work", "task", "stream", "work"][(number / LONGEST_WAIT % 4) as usize];
                (About::Work, format!("/{how}/{}", 1 + number % LONGEST_WAIT))
            }
        };
        let start = Instant::now();
        let answer = tokio::time::timeout(patience(), asker.get(&path)).await;
        let took = start.elapsed();
        self.slowest_us.fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.late.fetch_add(u64::from(took > late), Relaxed);
        self.panics.fetch_add(u64::from(about == About::Panic), Relaxed);
        self.threads.fetch_add(u64::from(about == About::Thread), Relaxed);
        let (wrong, what) = match answer {
            Ok(Ok(answer)) => (verdict(about, &answer).err(), format!("{answer:?}")),
            Ok(Err(lost)) => (Some(Wrong::Lost), lost.to_string()),
            Err(_) => (Some(Wrong::Lost), format!("no answer in {:?}", patience())),
        };
        let Some(wrong) = wrong else { return };
        let counter = if wrong == Wrong::Lost { &self.lost } else { &self.mixed };
        if counter.fetch_add(1, Relaxed) < 5 {
            self.wrong.lock().expect("nobody panics with it").push(format!("{wrong:?}: request {number} {path}: {what}"));
        }
    }
}

/// Whether the answer is the one that this request should have, by one version.
fn verdict(about: About, answer: &Whole) -> Result<(), Wrong> {
    let expected = if about == About::Panic { 500 } else { 200 };
    let generation = answer.generation.filter(|_| answer.status == expected).ok_or(Wrong::Lost)?;
    if about == About::Panic {
        return Ok(());
    }
    let body: Value = serde_json::from_slice(&answer.body).map_err(|_| Wrong::Lost)?;
    let stamps = if about == About::Thread { vec![body] } else { body.as_array().cloned().ok_or(Wrong::Lost)? };
    let stamp = |stamp: &Value| Some((stamp[0].as_u64()?, stamp[1].as_u64()?));
    let stamps: Vec<(u64, u64)> = stamps.iter().map(stamp).collect::<Option<_>>().ok_or(Wrong::Lost)?;
    // The first generation has variant 0, and each has the one after that of the one before.
    let one = (generation, (generation - 1) % VARIANTS);
    if !stamps.is_empty() && stamps.iter().all(|stamp| *stamp == one) { Ok(()) } else { Err(Wrong::Mixed) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_lost_or_mixed_by_what_it_bears() {
        let check = |about, status, generation, body: &str, expected| {
            let answer = Whole { status, generation, body: body.to_owned().into() };
            assert_eq!(verdict(about, &answer), expected, "{answer:?}");
        };
        check(About::Work, 200, Some(5), "[[5,0],[5,0]]", Ok(()));
        check(About::Work, 200, Some(6), "[[5,0],[5,0]]", Err(Wrong::Mixed));
        check(About::Work, 200, Some(5), "[[5,0],[6,1]]", Err(Wrong::Mixed));
        check(About::Work, 200, Some(5), "[[5,0],[5,1]]", Err(Wrong::Mixed));
        check(About::Work, 200, Some(5), "[]", Err(Wrong::Mixed));
        check(About::Work, 200, Some(5), "what?", Err(Wrong::Lost));
        check(About::Work, 200, None, "[[5,0],[5,0]]", Err(Wrong::Lost));
        check(About::Work, 500, Some(5), "[[5,0],[5,0]]", Err(Wrong::Lost));
        check(About::Thread, 200, Some(7), "[7,2]", Ok(()));
        check(About::Thread, 200, Some(7), "[7,3]", Err(Wrong::Mixed));
        check(About::Panic, 500, Some(7), "the handler panicked", Ok(()));
        check(About::Panic, 200, Some(7), "", Err(Wrong::Lost));
        check(About::Panic, 500, None, "", Err(Wrong::Lost));
    }

    #[test]
    fn a_process_is_flat_with_as_much_as_before_or_less() {
        let before = Weight { descriptors: 10, threads: 4, ..Weight::default() };
        for (descriptors, threads, is_flat) in [(10, 4, true), (9, 3, true), (11, 4, false), (10, 5, false)] {
            assert_eq!(Weight { descriptors, threads, ..before }.is_flat_since(&before), is_flat);
        }
        let own = Weight::of(std::process::id(), 0).expect("this process is there");
        assert!(own.rss_kib > 0 && own.descriptors > 0 && own.threads > 0 && own.maps > 0, "{own:?}");
    }
}

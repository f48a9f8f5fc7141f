//! What holds while many swaps are asked for at once, while code goes back and forth, and when the disk, the descriptors or the process
//! itself give out in the middle of one?

#[path = "../benches/rollback/in_process.rs"]
mod in_process;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use midair::attempt::Outcome;
use midair::probation::Rules;
use midair::probe::Probe;
use midair::swap::{Artifact, Host, Options, Which};
use midair_tests::asker::Asker;
use midair_tests::client::Client;
use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::project;
use midair_tests::random::Random;
use midair_tests::{cargo, patience, rollback_time};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::inside::until;

fn kind(event: &Value, kind: &str) -> bool {
    event["event"] == kind
}

/// Three plugins named `killed` that say their names.
fn one_two_three() -> &'static [Vec<u8>] {
    static ALL: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    ALL.get_or_init(|| fixture::artifacts("saying", "killed", ["one", "two", "three"]))
}

// Many at once.

/// A folder with a gate in it, and the plugins that wait there.
struct Gate {
    folder: TempDir,
    artifacts: Vec<Vec<u8>>,
}

impl Gate {
    fn new(name: &str, says: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let variant = |says: &&str| format!("{says} {}", folder.path().display());
        let artifacts = says.iter().map(|says| fixture::artifact("gated").named(name).variant(&variant(says)).bytes()).collect();
        Self { artifacts, folder }
    }

    fn open(&self) {
        fs::write(self.folder.path().join("open"), "").expect("a file");
    }

    fn shut(&self) {
        fs::remove_file(self.folder.path().join("open")).expect("it was open");
    }

    fn somebody_waits(&self) -> bool {
        self.folder.path().join("here").exists()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("libgated.so")
    }

    fn put(&self, which: usize) {
        project::save(&self.path(), &self.artifacts[which]);
    }
}

#[test]
fn fault_29_g5_a_hundred_reloads_and_a_hundred_renames_at_once_are_one_swap_to_the_newest_content() {
    let gate = Gate::new("gated-run", &["zero", "one", "last"]);
    gate.put(0);
    gate.open();
    let mut midair = Launch::run(&[&gate.path()]).arg("--step-timeout").arg("600").start();
    midair.published();
    gate.shut();
    gate.put(1);
    midair.wait_for("its init", |event| kind(event, "log") && event["message"] == "preparing");
    // All of it while one swap is on its way.
    let admin = midair.admin();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || (0..25).for_each(|_| assert_eq!(admin.ask("POST", "/reload?force", &[], "").status, 202)));
        }
        (0..99).for_each(|number| gate.put(number % 2));
        gate.put(2);
    });
    assert_eq!(midair.get("/").body, "zero");
    gate.open();
    midair.published();
    assert_eq!(midair.published()["trigger"], "reload");
    assert_eq!(midair.get("/").body, "last");
    // Nothing of it is left to do: what is asked for now is the next there is. But word of the last renames may come only now: then there
    // is one more look, which finds what serves.
    assert_eq!(admin.ask("POST", "/reload", &[], "").status, 202);
    let outcome = midair.wait_for("what came of the reload", |event| {
        ["published", "rejected"].iter().any(|end| kind(event, end)) || (kind(event, "unchanged") && event["trigger"] == "reload")
    });
    assert_eq!((&outcome["event"], &outcome["trigger"]), (&json!("unchanged"), &json!("reload")), "{}", midair.story());
    let attempts = midair.status()["attempts"].clone();
    let records: Vec<_> = attempts.as_array().into_iter().flatten().map(|record| (&record["id"], &record["outcome"])).collect();
    let outcomes = ["published", "published", "published", "unchanged", "unchanged"];
    let expected: Vec<_> = (1..).zip(outcomes).map(|(id, as_)| (json!(id), json!(as_))).take(records.len().max(4)).collect();
    assert_eq!(records, expected.iter().map(|(id, as_)| (id, as_)).collect::<Vec<_>>(), "one record each");
}

#[test]
fn fault_29_g5_g22_of_a_hundred_attempts_at_once_each_has_one_record_and_those_overtaken_say_so() {
    const ATTEMPTS: usize = 100;
    let gate = Gate::new("gated-host", &["first", "newest"]);
    gate.put(0);
    let data = tempfile::tempdir().expect("a folder");
    let options = Options { probe: Probe::Off, deadline: patience(), ..Options::new(data.path()) };
    let host = Host::new(options).expect("a host");
    let (barrier, begun) = (Barrier::new(ATTEMPTS), AtomicU64::new(0));
    let swap = || host.swap(host.begin("one of many"), vec![Artifact { plugin: String::new(), path: gate.path() }]);
    let records = thread::scope(|scope| {
        let spawn = |run: &'static str| thread::Builder::new().name(run.to_owned());
        let first = spawn("the-first").spawn_scoped(scope, swap).expect("a thread");
        until("the first one's init", || gate.somebody_waits());
        let other = || {
            barrier.wait();
            begun.fetch_add(1, Relaxed);
            swap()
        };
        let others: Vec<_> = (1..ATTEMPTS).map(|_| spawn("one-of-many").spawn_scoped(scope, other).expect("a thread")).collect();
        gate.put(1);
        barrier.wait();
        // Who handed its attempt over sleeps until there is a record; so does, for a moment, who waits for a lock on the way.
        let mut looks = 0;
        until("all to wait for their turn", || {
            let all_wait = begun.load(Relaxed) == ATTEMPTS as u64 - 1 && sleeping("one-of-many") == ATTEMPTS - 1;
            looks = if all_wait { looks + 1 } else { 0 };
            looks == 20
        });
        gate.open();
        others.into_iter().chain([first]).map(|thread| thread.join().expect("a record")).collect::<Vec<_>>()
    });
    let ids: BTreeSet<u64> = records.iter().map(|record| record.id).collect();
    assert_eq!((records.len(), ids.len()), (ATTEMPTS, ATTEMPTS));
    let count = |outcome| records.iter().filter(|record| record.outcome == outcome).count();
    let counts = [Outcome::Published, Outcome::Superseded].map(count);
    assert_eq!(counts, [2, ATTEMPTS - 2], "the first, and one for all that came later");
    let request = http::Request::get("/").body(Bytes::new()).expect("a request");
    let answer = runtime().block_on(host.ask(request));
    assert_eq!(answer.body().as_ref(), b"newest");
    assert_eq!(host.status().plugins[0].generation, 2);
}

/// How many threads of this process with this name sleep.
fn sleeping(name: &str) -> usize {
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).unwrap_or_default();
    let stats = fs::read_dir("/proc/self/task").expect("this process").flatten().map(of);
    stats.filter(|stat| stat.contains(&format!("({name}) S "))).count()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

// Back and forth.

/// What askers saw while code went back and forth.
#[derive(Default)]
struct Swing {
    over: AtomicBool,
    swaps: AtomicU64,
    /// Answered by the generation of this number.
    by: [AtomicU64; 3],
    /// Of these, with a swap between the question and the answer.
    across: AtomicU64,
    wrong: AtomicU64,
}

#[test]
fn fault_30_g1_back_and_forth_a_thousand_times_a_second_mixes_nothing_and_leaves_no_lease() {
    const SWAPS: u64 = 2_000;
    let folder = tempfile::tempdir().expect("a folder");
    // What is held is written down with each rollback: not the disk is what is tried here.
    let memory = Path::new("/dev/shm");
    let data = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
    let path = folder.path().join("libswing.so");
    let rules = Rules { acts: false, ..Rules::PRODUCTION };
    let options = Options { probe: Probe::Off, recovers: false, durable: false, rules, ..Options::new(data.path()) };
    let host = Host::new(options).expect("a host");
    for bytes in fixture::artifacts("swinging", "swing", ["1", "2"]) {
        project::save(&path, bytes);
        let record = host.swap(host.begin("test"), vec![Artifact { plugin: String::new(), path: path.clone() }]);
        assert_eq!(record.outcome, Outcome::Published, "{record:?}");
    }
    let swing = Arc::new(Swing::default());
    let askers: Vec<_> = (0..2)
        .map(|_| {
            let (host, swing) = (host.clone(), Arc::clone(&swing));
            thread::spawn(move || runtime().block_on(ask_on(&host, &swing)))
        })
        .collect();
    let (asking, start) = (runtime(), Instant::now());
    for swap in 0..SWAPS {
        let to = 1 + swap % 2;
        let record = host.roll_back(&Which::To("swing".to_owned(), to));
        assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
        swing.swaps.fetch_add(1, Relaxed);
        // Whoever asks once it is done gets what it led to.
        assert_eq!(asking.block_on(stamps(&host, "/now")), json!([to, to]), "after swap {swap}");
        thread::park_timeout((start + Duration::from_millis(swap)).saturating_duration_since(Instant::now()));
    }
    // On a machine that hardly ran the askers so far, they get their turn.
    until("answers by both, also across swaps", || {
        let to = 1 + swing.swaps.fetch_add(1, Relaxed) % 2;
        host.roll_back(&Which::To("swing".to_owned(), to));
        [&swing.by[1], &swing.by[2], &swing.across].iter().all(|count| count.load(Relaxed) >= 100)
    });
    swing.over.store(true, Relaxed);
    askers.into_iter().for_each(|asker| asker.join().expect("it ends well"));
    assert_eq!(swing.wrong.load(Relaxed), 0, "mixed or failed");
    until("the last lease to end", || host.status().leases.is_empty());
    let generations = host.generations().generations;
    assert_eq!(generations.iter().map(|generation| generation.generation).collect::<Vec<_>>(), [1, 2]);
    assert!(generations.iter().all(|generation| generation.leases.is_empty() && generation.blockers.is_empty()), "{generations:?}");
    assert_eq!(host.status().epoch, 2 + swing.swaps.load(Relaxed));
}

async fn stamps(host: &Host, path: &str) -> Value {
    let answer = host.ask(http::Request::get(path).body(Bytes::new()).expect("a request")).await;
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| json!(format!("{error}: {answer:?}")))
}

/// Asks eight questions at a time until it is over.
async fn ask_on(host: &Host, swing: &Arc<Swing>) {
    let mut questions = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (host, swing) = (host.clone(), Arc::clone(swing));
        questions.spawn(async move {
            while !swing.over.load(Relaxed) {
                let before = swing.swaps.load(Relaxed);
                let stamps = stamps(&host, "/later").await;
                let across = swing.swaps.load(Relaxed) != before;
                let first = stamps[0].clone();
                let agree = stamps.as_array().is_some_and(|stamps| stamps.len() == 3 && stamps.iter().all(|stamp| *stamp == first));
                match first[0].as_u64().filter(|number| agree && first[1] == *number && (1..=2).contains(number)) {
                    Some(number) => swing.by[number as usize].fetch_add(1, Relaxed),
                    None => swing.wrong.fetch_add(1, Relaxed),
                };
                swing.across.fetch_add(u64::from(across), Relaxed);
            }
        });
    }
    while let Some(ended) = questions.join_next().await {
        ended.expect("an asker ends well");
    }
}

// Refused, and not yet at its end.

#[test]
fn fault_43_g6_g14_of_a_start_that_was_refused_nothing_happens_then_or_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let ends = ["starts", "hangs", "fails", "panics", "starts with 5"];
    let variant = |end: &str| format!("{} {end}", folder.path().display());
    let artifacts = ends.map(|end| fixture::artifact("starting_late").named("late-start").variant(&variant(end)).bytes());
    let path = file("liblate.so");
    project::save(&path, &artifacts[0]);
    // A step has its ten seconds, which the one that hangs takes and no other.
    let mut midair = Launch::run(&[&path]).start();
    midair.published();
    let untouched = json!([1, 1, null, 0]);
    assert_eq!(midair.get("/state").json(), untouched);
    for (artifact, code) in [(1, "E_TIMEOUT"), (2, "E_INIT"), (3, "E_INIT")] {
        project::save(&path, &artifacts[artifact]);
        let rejected = midair.rejected(code);
        assert_eq!(rejected["stage"], "init", "{rejected}");
        assert_eq!(midair.get("/state").json(), untouched, "{code}");
        // Now its thread tries, long after the verdict; and the `init` that was given up comes to an end of its own.
        fs::write(file("late"), "").expect("a file");
        fs::write(file("end"), "").expect("a file");
        until("what was tried late", || file("tried").exists());
        let tried: Value = serde_json::from_slice(&fs::read(file("tried")).expect("a file")).expect("JSON");
        for what in tried.as_array().expect("a list") {
            assert!(what[1].as_str().is_some_and(|error| error.contains("rejected")), "{code}: {what}");
        }
        assert_eq!(tried.as_array().map(Vec::len), Some(6));
        assert_eq!(midair.get("/state").json(), untouched, "{code}, late");
        // The other one stays: the `init` that was given up may see it only now.
        for name in ["late", "tried"] {
            fs::remove_file(file(name)).expect("it is there");
        }
    }
    // The next good one has the next number, as if they had never been.
    project::save(&path, &artifacts[4]);
    assert_eq!(midair.published()["generation"], 2);
    assert_eq!(midair.get("/state").json(), json!([2, 5, null, 0]));
    until("what was refused to be gone, and what served before to be kept", || {
        let generations = midair.admin().get("/generations").json();
        let numbers = generations["generations"].as_array().map(|all| all.iter().map(|one| one["generation"].clone()).collect());
        numbers == Some(vec![json!(1), json!(2)])
    });
}

// No room, no descriptors.

/// A host whose data folder lies on a small file system of its own, in memory.
struct Small {
    folder: TempDir,
    midair: Midair,
    /// The small file system, as seen from here.
    disk: PathBuf,
}

impl Small {
    /// `tmp` is where the host finds the system's folder for what is temporary: also on the small disk, or not.
    fn start(is_all_small: bool) -> Self {
        // Room for a copy of each generation that a test makes: those that were replaced stay mapped, so their room isn't free again.
        let mebibytes = 18 * one_two_three()[0].len().div_ceil(1 << 20);
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("disk");
        fs::create_dir(&inside).expect("a folder");
        let tmp = if is_all_small { inside.join("tmp") } else { folder.path().join("tmp") };
        let path = folder.path().join("libkilled.so");
        project::save(&path, &one_two_three()[0]);
        let script = "mount -t tmpfs -o size=$0m none \"$1\" && mkdir -p \"$2\" && shift 2 && exec \"$@\"";
        let mut unshare = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            unshare.arg("-r");
        }
        unshare.args(["-m", "sh", "-c", script, &mebibytes.to_string()]).arg(&inside).arg(&tmp).arg(cargo::midair());
        let launch = Launch::of(unshare, "run", &[&path]).env("TMPDIR", tmp.to_str()).env("XDG_RUNTIME_DIR", None);
        let launch = launch.arg("--data").arg(inside.join("data")).arg("--probation").arg("0").arg("--probation-requests").arg("1");
        // Seen from a namespace of users, who owns the folders above is unknown.
        let mut midair = launch.arg("--trust-owner").arg("65534").start();
        midair.published();
        let disk = PathBuf::from(format!("/proc/{}/root{}", midair.pid(), inside.display()));
        let small = Self { folder, midair, disk };
        assert_eq!(small.midair.get("/").body, "one");
        small
    }

    fn put(&self, which: usize) {
        project::save(&self.folder.path().join("libkilled.so"), &one_two_three()[which]);
    }

    /// Leaves so many KiB of the disk.
    fn leave(&self, kibibytes: u64) {
        let ballast = self.disk.join("ballast");
        let _ = fs::remove_file(&ballast);
        let about = rustix::fs::statvfs(&self.disk).expect("the disk");
        let free = about.f_bavail * about.f_frsize;
        assert!(free > kibibytes << 10, "the disk is too small: {} KiB are free", free >> 10);
        let file = fs::File::create(&ballast).expect("a file");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, (free - (kibibytes << 10)).max(1))
            .expect("there is room");
    }

    fn make_room(&self) {
        fs::remove_file(self.disk.join("ballast")).expect("it is there");
    }

    fn commit(&mut self) {
        assert_eq!(self.midair.get("/").status, 200);
        self.midair.wait_for("committed", |event| kind(event, "committed"));
    }
}

#[test]
fn fault_35_g17_a_full_disk_refuses_a_swap_at_whichever_step_it_is_full_and_the_next_one_works() {
    let mut small = Small::start(true);
    small.commit();
    let size = one_two_three()[0].len() as u64 / 1024;
    let (mut refused, mut published) = (BTreeSet::new(), 0);
    // Where there is room for the copy, some pages more or less decide about what is written later.
    let rooms = [0, 4, size / 2, size, size + 4, size + 8, size + 12, size + 16, size + 24, size + 64, 2 * size + 1024];
    let mut serves = 0;
    for room in rooms {
        let next = (serves + 1) % 3;
        small.leave(room);
        small.put(next);
        let outcome = small.midair.outcome();
        if kind(&outcome, "rejected") {
            let (reason, help) = (outcome["reason"].as_str().unwrap_or_default(), outcome["help"].as_str().unwrap_or_default());
            assert_eq!(outcome["code"], "E_IO", "{room} KiB: {outcome}");
            assert!(reason.contains("written") && help.contains("make room on the disk"), "{room} KiB: {outcome}");
            refused.insert(outcome["stage"].as_str().unwrap_or_default().to_owned());
            assert_eq!(small.midair.get("/").body, ["one", "two", "three"][serves], "{room} KiB");
            small.make_room();
            assert_eq!(small.midair.admin().ask("POST", "/reload", &[], "").status, 202);
            small.midair.published();
        } else {
            published += 1;
            small.make_room();
        }
        serves = next;
        assert_eq!(small.midair.get("/").body, ["one", "two", "three"][serves], "{room} KiB");
        // That answer commits it, which is written to the same disk: before the next room is measured.
        small.midair.wait_for("committed", |event| kind(event, "committed"));
    }
    assert!(refused.contains("stage") && published > 0, "{refused:?}, {published} published");
}

#[test]
fn fault_35_g17_what_cannot_be_written_down_is_refused_before_publish_and_told_after_it() {
    let mut small = Small::start(false);
    small.commit();
    // The copy finds room elsewhere; what a next run has to know doesn't.
    small.leave(0);
    small.put(1);
    let rejected = small.midair.rejected("E_IO");
    assert_eq!(rejected["stage"], "publish");
    assert!(
        rejected["reason"].as_str().is_some_and(|reason| reason.contains("what is known of killed can't be written")),
        "{rejected}"
    );
    assert_eq!(small.midair.get("/").body, "one");
    small.make_room();
    assert_eq!(small.midair.admin().ask("POST", "/reload", &[], "").status, 202);
    small.midair.published();
    // Full between publish and commit: it serves, and it is said that a next run would start with the one before.
    small.leave(0);
    assert_eq!(small.midair.get("/").body, "two");
    let warning = small.midair.wait_for("a warning", |event| {
        kind(event, "warning")
            && event["message"].as_str().is_some_and(|message| message.contains(" killed ") && message.contains("make room"))
    });
    small.midair.wait_for("committed", |event| kind(event, "committed"));
    assert_eq!(small.midair.get("/").body, "two", "{warning}");
    small.make_room();
    small.put(2);
    small.midair.published();
    small.commit();
    assert_eq!(small.midair.get("/").body, "three");
}

#[test]
fn fault_35_g17_g20_killed_on_a_disk_that_is_full_what_was_committed_starts_where_it_lies() {
    let folder = tempfile::tempdir().expect("a folder");
    let (inside, path) = (folder.path().join("disk"), folder.path().join("libkilled.so"));
    fs::create_dir(&inside).expect("a folder");
    project::save(&path, &one_two_three()[0]);
    let mebibytes = 3 * one_two_three()[0].len().div_ceil(1 << 20);
    // One host after the other on the same disk, which fills up between them.
    let script = "mount -t tmpfs -o size=$0m none \"$1\" && cd \"$1\" && mkdir tmp && shift && \"$@\"; head -c 1G /dev/zero > ballast; exec \"$@\"";
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("-r");
    }
    unshare.args(["-m", "sh", "-c", script, &mebibytes.to_string()]).arg(&inside).arg(cargo::midair());
    let launch = Launch::of(unshare, "run", &[&path]).env("TMPDIR", inside.join("tmp").to_str()).env("XDG_RUNTIME_DIR", None);
    let launch = launch.arg("--data").arg(inside.join("data")).arg("--probation").arg("0").arg("--probation-requests").arg("1");
    let mut midair = launch.arg("--trust-owner").arg("65534").start();
    midair.published();
    assert_eq!(midair.get("/").body, "one");
    midair.wait_for("committed", |event| kind(event, "committed"));
    let first =
        midair.all("listening")[0]["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("a process");
    rustix::process::kill_process(first, Signal::KILL).expect("it is killed");

    let listening = midair.wait_for("another host", |event| kind(event, "listening"));
    let published = midair.published();
    assert_eq!(published["trigger"], "start: what was committed last", "{published}");
    let http = Client(listening["http"].as_str().and_then(|address| address.parse().ok()).expect("an address"), None);
    assert_eq!(http.get("/").body, "one");
    let warnings: Vec<String> = midair.all("warning").iter().map(|event| event["message"].to_string()).collect();
    for words in ["it is started where it lies", "make room on the disk"] {
        assert!(warnings.iter().any(|warning| warning.contains(words)), "{words}: {warnings:#?}");
    }
    // What comes anew can't be written down, and is refused as long as that is so.
    project::save(&path, &one_two_three()[1]);
    let rejected = midair.rejected("E_IO");
    assert!(rejected["help"].as_str().is_some_and(|help| help.contains("make room on the disk")), "{rejected}");
    assert_eq!(http.get("/").body, "one");
}

/// So many descriptors may have the process open, all in all.
fn limit_descriptors(midair: &Midair, to: Option<u64>) {
    let pid = i32::try_from(midair.pid()).ok().and_then(Pid::from_raw).expect("a process id");
    let own = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: to.or(own.current), maximum: own.maximum };
    prlimit(Some(pid), Resource::Nofile, limit).expect("a child's limit can be set");
}

#[test]
fn fault_35_g17_without_descriptors_a_swap_is_refused_at_whichever_step_they_run_out_and_the_next_one_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libkilled.so");
    project::save(&path, &one_two_three()[0]);
    let mut midair = Launch::run(&[&path]).start();
    midair.published();
    let runtime = runtime();
    // Connections from before: a new one takes a descriptor.
    let (mut asker, mut admin) = (Asker::new(midair.http().0), Asker::of(midair.admin()));
    let mut get = |what: &str| {
        let answer = runtime.block_on(asker.get("/")).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((answer.status, answer.body.as_ref()), (200, b"one".as_ref()), "{what}");
    };
    let mut force = || assert_eq!(runtime.block_on(admin.post("/reload?force")).expect("an answer").status, 202);
    get("before");
    force();
    midair.published();
    let (mut refused, mut left) = (Vec::new(), 0);
    loop {
        let open = fs::read_dir(format!("/proc/{}/fd", midair.pid())).expect("the process").count() as u64;
        limit_descriptors(&midair, Some(open + left));
        force();
        let outcome = midair.outcome();
        get(&format!("{left} left"));
        limit_descriptors(&midair, None);
        force();
        midair.published();
        get(&format!("after {left} left"));
        if kind(&outcome, "published") {
            break;
        }
        refused.push(format!("{left}: {} in {}: {} ({})", outcome["code"], outcome["stage"], outcome["reason"], outcome["help"]));
        left += 1;
        assert!(left < 100, "it never works\n{}", refused.join("\n"));
    }
    // Its own copy, or the child, or the library in one of them: each says what it is about.
    assert!(!refused.is_empty(), "there was a limit");
    let is_clear =
        |line: &&String| ["E_IO", "E_PROBE", "E_DEPS"].iter().any(|code| line.contains(code)) && line.contains("os error 24");
    let unclear: Vec<_> = refused.iter().filter(|line| !is_clear(line)).collect();
    assert!(unclear.is_empty(), "{}", refused.join("\n"));
}

// Killed.

/// An artifact and a data folder that outlive hosts.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a folder") };
        site.put(0);
        site
    }

    fn put(&self, which: usize) {
        project::save(&self.folder.path().join("libkilled.so"), &one_two_three()[which]);
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn launch(&self) -> Launch {
        let launch = Launch::run(&[&self.folder.path().join("libkilled.so")]).arg("--data").arg(self.data());
        launch.arg("--probation").arg("0").arg("--probation-requests").arg("1")
    }

    /// The digest that was committed last, as it is written down. Whoever reads it must be able to.
    fn committed(&self) -> Option<String> {
        self.mark()?["committed"].as_str().map(str::to_owned)
    }

    fn mark(&self) -> Option<Value> {
        let text = fs::read_to_string(self.data().join("marks/killed.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}")))
    }

    /// Starts after a kill: what was committed serves at once, something serves in the end, and it is committed, so that kills don't add up.
    #[track_caller]
    fn comes_up(&self, after: &str) -> Midair {
        let committed = self.committed();
        let mut midair = self.launch().start();
        let first = midair.published();
        if let Some(committed) = committed {
            let said = (first["digest"].as_str(), first["trigger"].as_str());
            assert_eq!(said, (Some(committed.as_str()), Some("start: what was committed last")), "{after}\n{}", midair.story());
        }
        let serves = |midair: &Midair| {
            let answer = midair.get("/");
            assert!(answer.status == 200 && ["one", "two", "three"].contains(&answer.body.as_str()), "{after}: {answer:?}");
        };
        serves(&midair);
        if first["trigger"] != "start" {
            // What lies at the artifact's path comes next, if it isn't what was on trial when the host was killed.
            let outcome = midair.outcome();
            let is_held = kind(&outcome, "rejected") && outcome["code"] == "E_HELD";
            assert!(is_held || !kind(&outcome, "rejected"), "{after}: {outcome}");
        }
        until("the commit of what serves", || {
            serves(&midair);
            let serving = midair.status()["plugins"][0].clone();
            // It is written down a moment after it is so.
            let is_written = |mark: Value| mark["committed"] == serving["digest"] && mark["pending"].is_null();
            serving["phase"] == "committed" && self.mark().is_some_and(is_written)
        });
        let unreadable = midair.all("warning").into_iter().find(|warning| warning.to_string().contains("makes no sense"));
        assert_eq!(unreadable, None, "{after}");
        midair
    }
}

/// Ends a host as nobody can prepare for.
fn kill(midair: Midair) {
    midair.signal(Signal::KILL);
    assert!(!midair.ended("its end").status.success());
}

#[test]
fn fault_36_g17_g20_killed_at_each_step_of_a_swap_a_host_comes_up_with_what_was_committed_last() {
    let site = Site::new();
    let mut midair = site.launch().start();
    midair.published();
    assert_eq!(midair.get("/").body, "one");
    midair.wait_for("committed", |event| kind(event, "committed"));
    let staged = site.data().join("staged");
    let copies = || fs::read_dir(&staged).map_or(0, |entries| entries.count());
    let mut lies = 0;
    for step in ["staged", "probed", "published", "committed"] {
        // Neither what serves nor what lies there: that may be held since the last kill.
        let serves = midair.get("/").body;
        let is_new = |which: &usize| ["one", "two", "three"][*which] != serves && *which != lies;
        let next = (0..3).find(is_new).expect("a third one");
        lies = next;
        let before = copies();
        let children = format!("/proc/{0}/task", midair.pid());
        let has_child = || {
            let tasks = fs::read_dir(&children).into_iter().flatten().flatten();
            tasks.into_iter().any(|task| fs::read_to_string(task.path().join("children")).is_ok_and(|line| !line.is_empty()))
        };
        site.put(next);
        match step {
            "staged" => until("the copy", || copies() > before),
            // Who looks may sleep through the moment in which it is there: then it is tried with other bytes.
            "probed" => loop {
                let (mut is_there, is_over) = (false, || midair.unread().iter().any(|event| kind(event, "published")));
                until("the child", || {
                    is_there = has_child();
                    is_there || is_over()
                });
                if is_there {
                    break;
                }
                midair.published();
                lies = (lies + 1) % 3;
                site.put(lies);
            },
            "published" => drop(midair.published()),
            _ => {
                let published = midair.published();
                assert_eq!(midair.get("/").status, 200);
                let is_it = |event: &Value| kind(event, "committed") && event["generation"] == published["generation"];
                midair.wait_for("its commit", is_it);
                assert_eq!(site.committed().as_deref(), midair.status()["plugins"][0]["digest"].as_str());
            }
        }
        kill(midair);
        midair = site.comes_up(step);
    }
}

#[test]
fn fault_36_g17_g20_killed_at_thirty_moments_of_a_burst_of_swaps_a_host_always_comes_up() {
    let site = Site::new();
    let mut midair = site.launch().start();
    midair.published();
    assert_eq!(midair.get("/").status, 200);
    midair.wait_for("committed", |event| kind(event, "committed"));
    // The same moments each time, as far as the machine goes along.
    let mut random = Random::new(0x2545_f491_4f6c_dd1d);
    for round in 0..30 {
        let moment = Instant::now() + Duration::from_micros(random.below(400_000) as u64);
        let mut which = round;
        while Instant::now() < moment {
            site.put(which % 3);
            which += 1;
            // What answers is committed: so the kill also comes between a publish and its commit.
            assert_eq!(midair.get("/").status, 200);
        }
        kill(midair);
        midair = site.comes_up(&format!("round {round}, {} renames", which - round));
    }
}

#[test]
fn the_bench_of_rollback_still_runs() {
    let report = format!("{}{}", in_process::measure(4), rollback_time::measure(cargo::midair(), 2));
    assert!(["Host::roll_back", "by hand", "by breach"].iter().all(|line| report.contains(line)), "{report}");
}

//! What becomes of a plugin's threads, thread-locals and keys when its code doesn't serve any more?

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use midair_tests::fixture::{self, Placed};
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{Project, save};
use midair_tests::{cargo, is_full, patience, repository, size};
use serde_json::{Value, json};

use crate::inside::until;

/// What stands in for the system's functions in a plugin, and must not in a host.
const NAMES: [&str; 6] = [
    "__cxa_thread_atexit_impl",
    "pthread_create",
    "pthread_key_create",
    "pthread_key_delete",
    "pthread_setspecific",
    "pthread_getspecific",
];

/// Asks until the census of `plugin` is as wished; each request is a visit of a worker's.
#[track_caller]
fn wait_for_census(midair: &Midair, plugin: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + patience();
    loop {
        let status = midair.status();
        let of_plugin = status["plugins"].as_array().and_then(|all| all.iter().find(|one| one["plugin"] == plugin));
        let census = of_plugin.map_or(Value::Null, |one| one["census"].clone());
        if fits(&census) {
            return census;
        }
        assert!(Instant::now() < until, "waited for {what}: {census}\n{}", midair.story());
        assert_eq!(midair.get("/").status, 200);
    }
}

/// The plugin that uses what the census counts, called so.
fn using(name: &str, variant: &str) -> Placed {
    fixture::artifact("using").named(name).variant(variant).placed()
}

/// Newer code takes its place, which uses nothing and says "version 2".
#[track_caller]
fn replace(placed: &Placed, name: &str, midair: &mut Midair) {
    fixture::artifact("saying").named(name).variant("version 2").save_in(placed.folder());
    midair.published();
}

/// The plugin's source, for what is about building it.
fn source() -> String {
    fixture::source("using", "version 1")
}

/// Which of the names `nm` with these options says to be defined.
fn defined(options: &[&str], path: &Path) -> Vec<String> {
    let output = Command::new("nm").args(options).arg(path).output().expect("nm is there");
    assert!(output.status.success(), "nm: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(listed.lines().count() > 20, "it has symbols");
    let symbols = listed.lines().filter_map(|line| line.rsplit_once(' '));
    let defined = symbols.filter(|(kind, _)| !kind.ends_with([' ', 'U', 'w']) && kind.starts_with(|c: char| c.is_ascii_hexdigit()));
    defined.map(|(_, name)| name.to_owned()).filter(|name| NAMES.contains(&name.as_str())).collect()
}

#[test]
fn the_host_defines_none_of_the_names_that_a_plugin_s_library_does() {
    assert_eq!(defined(&[], cargo::midair()), Vec::<String>::new());
    // That this way of looking finds them where they are:
    let found = defined(&[], &using("nm_plugin", "version 1").path);
    // What a plugin doesn't use the linker leaves out.
    for name in ["__cxa_thread_atexit_impl", "pthread_create", "pthread_key_create", "pthread_setspecific"] {
        assert!(found.iter().any(|found| found == name), "{name} isn't in {found:?}");
    }
}

#[test]
fn the_executable_of_a_plugin_s_own_tests_shows_the_names_to_no_library_of_its_process() {
    let project = Project::plugin("unit_tested", &source());
    let mut cargo = Command::new("cargo");
    cargo.current_dir(project.root()).args(["test", "--lib", "--no-run", "--message-format=json", "--target-dir"]);
    let output = cargo.arg(repository::shared_target().join("midair")).output().expect("cargo starts");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = messages.find_map(|message| message["executable"].as_str().map(str::to_owned));
    let executable = executable.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert!(defined(&[], executable.as_ref()).len() >= 4, "they are there");
    assert_eq!(defined(&["--dynamic"], executable.as_ref()), Vec::<String>::new());
}

#[test]
fn fault_26_g3_threads_and_thread_locals_outlive_their_generation_and_end_where_they_belong() {
    const THREADS: u64 = 1_000;
    let placed = using("outlives", "version 1");
    let launch = Launch::run(&[&placed.path]).arg("--on-breach").arg("report").arg("--keep").arg("0");
    let mut midair = launch.arg("--workers").arg("2").start();
    midair.published();
    let before = wait_for_census(&midair, "outlives", "nothing used yet", |census| census["threads"] == 0);
    assert_eq!((&before["leaked"], &before["blind"]), (&json!(0), &json!(0)), "{before}");

    let release = tempfile::tempdir().expect("a folder");
    let file = release.path().join("now");
    let answer = midair.get(&format!("/start?until={}&threads={THREADS}", file.display()));
    assert_eq!((answer.status, answer.body.as_str()), (200, "started"), "{}", midair.story());
    let worker = midair.get("/use");
    let worker = worker.body.split(' ').next().expect("the worker's thread");
    let census =
        wait_for_census(&midair, "outlives", "all of it", |census| census["threads"] == THREADS && census["destructors"] != 0);
    assert!(census["keys"].as_u64().is_some_and(|keys| keys > 0), "{census}");
    // On each thread a thread-local, and the values of keys.
    assert!(census["destructors"].as_u64().is_some_and(|all| all >= 2 * THREADS), "{census}");
    assert!(!midair.stderr().contains("dropped on"), "{}", midair.stderr());

    // Retired: what was left on workers goes at their next visits, what its own threads have stays as long as they do.
    replace(&placed, "outlives", &mut midair);
    let goes = format!("a mark of a worker made on {worker} dropped on {worker}");
    until("the worker's mark to go at a visit", || midair.get("/").status == 200 && midair.stderr().contains(&goes));
    assert!(!midair.stderr().contains("a mark of a thread"), "{}", midair.stderr());
    let left =
        wait_for_census(&midair, "outlives", "its threads", |left| left["destructors"].as_u64() < census["destructors"].as_u64());
    assert_eq!((&left["threads"], left["destructors"].as_u64() >= Some(2 * THREADS)), (&json!(THREADS), true), "{left}");

    fs::write(&file, "").expect("a file");
    let left = wait_for_census(&midair, "outlives", "nothing", |census| census["threads"] == 0 && census["destructors"] == 0);
    assert_eq!((&left["keys"], &left["leaked"]), (&json!(0), &json!(0)), "{left}");
    // What they said is read later than it was said.
    let of_thread = |line: &str| line.strip_prefix("a mark of a thread made on ").map(str::to_owned);
    let dropped = || midair.stderr().lines().filter_map(of_thread).collect::<Vec<_>>();
    until("the word of each thread", || dropped().len() as u64 >= THREADS);
    let dropped = dropped();
    assert_eq!(dropped.len() as u64, THREADS);
    for line in dropped {
        let (made, dropped) = line.split_once(" dropped on ").expect("both threads");
        assert_eq!(made, dropped);
    }
    assert_eq!(midair.get("/").body, "version 2");
    assert!(midair.terminate().status.success());
}

#[test]
fn a_generation_that_was_retired_but_is_in_use_keeps_its_thread_locals() {
    let placed = using("in_use", "version 1");
    let release = tempfile::tempdir().expect("a folder");
    let until = release.path().join("now");
    let launch = Launch::run(&[&placed.path]).arg("--on-breach").arg("report").arg("--keep").arg("0");
    let mut midair = launch.arg("--workers").arg("1").start();
    midair.published();
    let (http, wait) = (midair.http(), format!("/wait?until={}", until.display()));
    let waits = std::thread::spawn(move || http.get(&wait));
    wait_for_census(&midair, "in_use", "the request", |census| census["destructors"].as_u64() > Some(1));
    replace(&placed, "in_use", &mut midair);
    for _ in 0..20 {
        assert_eq!(midair.get("/").body, "version 2");
    }
    assert!(!midair.stderr().contains("dropped on"), "{}", midair.stderr());
    fs::write(&until, "").expect("a file");
    let answer = waits.join().expect("an answer");
    let words: Vec<&str> = answer.body.split(' ').collect();
    assert!(answer.status == 200 && words[0] == words[2], "one worker, one mark: {answer:?}");
    midair.wait_for_stderr("dropped on");
    wait_for_census(&midair, "in_use", "nothing", |census| census["destructors"] == 0 && census["threads"] == 0);
}

/// So many swaps of a plugin that uses `thread::current()`, a thread-local with `Drop` and a thread of its own.
fn swaps(name: &str, generations: u64) {
    let placed = using(name, "quiet");
    let mut midair = Launch::run(&[&placed.path]).arg("--workers").arg("2").start();
    midair.published();
    let free = |midair: &Midair| midair.get("/free_keys").body.parse::<u64>().expect("a number");
    let before = free(&midair);
    let start = Instant::now();
    for generation in 2..=generations {
        assert_eq!(midair.admin().ask("POST", "/reload?force", &[], "").status, 202);
        let published = midair.wait_for("published", |event| event["event"] == "published" || event["event"] == "rejected");
        assert_eq!(published["generation"], generation, "{published}");
        assert_eq!(midair.get("/everything").status, 200, "{}", midair.story());
    }
    // Only to be read: nothing is promised about it.
    let _ = writeln!(std::io::stdout(), "{generations} generations in {:?}", start.elapsed());
    assert_eq!(free(&midair), before, "every key of the process that was free is free");
    let census = wait_for_census(&midair, name, "only the last one", |census| census["threads"] == 0);
    assert_eq!(census["leaked"], 0, "{census}");
    assert!(midair.terminate().status.success());
}

#[test]
fn fault_27_generations_take_none_of_the_process_s_keys() {
    // More than there are keys, at full size.
    swaps("key_user", size(100, 1_500));
}

/// C code that makes a thread, which ends by `pthread_exit`, and a key with a destructor.
const PART: &str = r#"
#include <pthread.h>

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int destroyed;

static void destroy(void *value) { (void)value; __atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST); }
static void make(void) { pthread_key_create(&key, destroy); }

static void *run(void *argument) {
    pthread_setspecific(key, argument);
    if (pthread_getspecific(key) != argument) return 0;
    pthread_exit(argument);
}

/* Whether a key is gone once it was deleted. */
static int deletes(void) {
    pthread_key_t other;
    return pthread_key_create(&other, 0) == 0 && pthread_setspecific(other, &key) == 0
        && pthread_key_delete(other) == 0 && pthread_setspecific(other, &key) != 0;
}

/* Destructors of the key that ran since the start, or less than 0. */
int part(void) {
    pthread_t thread;
    void *result = 0;
    pthread_once(&once, make);
    if (!deletes()) return -3;
    if (pthread_create(&thread, 0, run, &key) != 0) return -1;
    if (pthread_join(thread, &result) != 0 || result != &key) return -2;
    return __atomic_load_n(&destroyed, __ATOMIC_SEQ_CST);
}
"#;

const BUILD: &str = r#"
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("a folder"));
    let run = |command: &mut Command| assert!(command.status().expect("it starts").success(), "{command:?}");
    run(Command::new("gcc").args(["-O2", "-fPIC", "-c", "part.c", "-o"]).arg(out.join("part.o")));
    run(Command::new("ar").arg("crs").arg(out.join("libpart.a")).arg(out.join("part.o")));
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=static=part");
    println!("cargo::rerun-if-changed=part.c");
    LINKER
}
"#;

/// A plugin that uses threads, thread-locals and keys from Rust and C, and tells whether all went as it should.
fn with_c() -> String {
    source().replace(
        "Plugin::new()",
        "unsafe extern \"C\" { fn part() -> std::ffi::c_int; }
    Plugin::new().get(\"/part\", |_, _| {
        everything();
        unsafe { part() }.to_string()
    })",
    )
}

#[test]
#[ignore = "tests/long builds"]
fn the_census_holds_however_a_plugin_is_optimised_stripped_and_linked() {
    let name = "matrixed";
    let project = Project::plugin(name, &with_c());
    project.save("part.c", PART);
    let manifest = project.read("Cargo.toml");
    let target = repository::shared_target().join("matrix");
    let folder = tempfile::tempdir().expect("a folder");
    let live = folder.path().join("live/libmatrixed.so");
    let mut midair: Option<Midair> = None;
    let mut free = None;
    let rows = [
        ("off", 1, ""),
        ("off", 16, "stripped"),
        ("off", 256, ""),
        ("off", 256, "bfd"),
        ("thin", 1, ""),
        ("thin", 16, "bfd"),
        ("thin", 256, "stripped"),
        ("fat", 1, "stripped"),
        ("fat", 16, ""),
        ("fat", 256, "bfd, stripped"),
    ];
    // The last row alone has most in it.
    let rows = if is_full() { &rows[..] } else { &rows[rows.len() - 1..] };
    for (generation, (lto, units, linking)) in (1_u64..).zip(rows) {
        let row = format!("lto {lto}, {units} units, {linking}");
        let options =
            [("bfd", "-fuse-ld=bfd"), ("stripped", "-Wl,--strip-all")].into_iter().filter(|(word, _)| linking.contains(word));
        let options: String = options.map(|(_, option)| format!("println!(\"cargo::rustc-link-arg={option}\");")).collect();
        project.save("build.rs", &BUILD.replace("LINKER", &options));
        // What it depends on keeps its own units: compiled once for each kind of LTO, not for each row.
        let profile = format!(
            "[profile.dev]\nopt-level = 1\ndebug = false\nincremental = false\nlto = {lto:?}\n\n\
             [profile.dev.package.{name}]\ncodegen-units = {units}\n"
        );
        project.save("Cargo.toml", &manifest.replace("[profile.dev]\ndebug = \"line-tables-only\"\n", &profile));
        let built = project.build_with(Command::new("cargo"), &target, &folder.path().join("built")).remove(0);
        let bytes = fs::read(&built).expect("it was built");
        let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|word| word == wanted);
        assert_eq!((has(b"Linker: LLD"), has(b".symtab")), (!linking.contains("bfd"), !linking.contains("stripped")), "{row}");
        save(&live, &bytes);
        // None is ever committed, however long a build takes: of what is kept to go back to there is the one before, and no other.
        let launch = || Launch::run(&[&live]).arg("--workers").arg("1").arg("--probation").arg("86400").arg("--keep").arg("1");
        let midair = midair.get_or_insert_with(|| launch().start());
        let published = midair.wait_for("published", |event| event["event"] == "published" || event["event"] == "rejected");
        assert_eq!(published["generation"], generation, "{row}: {published}");

        let before = *free.get_or_insert_with(|| midair.get("/free_keys").body.parse::<u64>().expect("a number"));
        for round in 1..=3 {
            assert_eq!(midair.get("/part").body, round.to_string(), "{row}\n{}", midair.story());
        }
        assert_eq!(midair.get("/free_keys").body, before.to_string(), "{row}");
        // A thread of Rust's and one of C's in each round, of this generation and of the one that is kept.
        let ever = 6 * generation.min(2);
        let census = wait_for_census(midair, name, &row, |census| census["threads_ever"] == ever && census["threads"] == 0);
        let at_least = |what: &str, wanted: u64| assert!(census[what].as_u64() >= Some(wanted), "{row}: {what} in {census}");
        // The worker's thread-local; C's key, and std's for `thread::current()`.
        at_least("destructors", 1);
        at_least("keys", 2);
        assert_eq!((&census["leaked"], &census["blind"]), (&json!(0), &json!(0)), "{row}: {census}");
        // Only to be read.
        let _ = writeln!(std::io::stdout(), "{row}: {census}");
    }
}

#[test]
#[ignore = "tests/long builds"]
fn a_plugin_with_a_shared_std_is_told_to_be_blind() {
    let project = Project::plugin("sharing", &source());
    let folder = tempfile::tempdir().expect("a folder");
    let mut shared = Command::new("cargo");
    shared.env("RUSTFLAGS", "-C prefer-dynamic");
    let artifact = project.build_with(shared, &repository::shared_target().join("dynamic"), folder.path()).remove(0);
    let sysroot = Command::new("rustc").args(["--print", "target-libdir"]).output().expect("rustc is there");
    let std = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    let mut midair = Launch::run(&[&artifact]).env("LD_LIBRARY_PATH", Some(&std)).start();
    midair.published();
    assert!(midair.get("/use").status == 200, "{}", midair.story());
    wait_for_census(&midair, "sharing", "that it is blind", |census| census["blind"] == 1);
}

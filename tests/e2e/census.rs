//! What becomes of a plugin's threads, thread-locals and keys when its code doesn't serve any more?

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use midair_tests::{PATIENCE, cargo, repository};
use serde_json::{Value, json};

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
    let until = Instant::now() + PATIENCE;
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

/// Uses thread-locals with `Drop` and `thread::current()` on the host's workers, and threads of its own that stay until a file is there.
const SOURCE: &str = r#"
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex};
use midair_plugin::{Ctx, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| "version 1").get("/use", |_, _| used("worker")).get("/start", start).get("/free_keys", |_, _| free_keys())
}

/// The thread as the system knows it; the plugin's std doesn't know the names of the host's threads.
fn thread() -> String {
    let task = std::fs::read_link("/proc/thread-self").expect("a thread");
    task.file_name().expect("its number").to_string_lossy().into_owned()
}

struct Mark(&'static str, String);

impl Drop for Mark {
    fn drop(&mut self) {
        let Mark(on, made) = self;
        eprintln!("a mark of a {on} made on {made} dropped on {}", thread());
    }
}

thread_local! { static MARK: RefCell<Option<Mark>> = const { RefCell::new(None) }; }

fn used(on: &'static str) -> String {
    MARK.with_borrow_mut(|mark| mark.get_or_insert_with(|| Mark(on, thread())).1.clone()) + &format!(" {:?}", std::thread::current().id())
}

fn start(req: Request, _: Ctx) -> Result<&'static str> {
    #[derive(serde::Deserialize)]
    struct Until { until: PathBuf, threads: usize }
    let Until { until, threads } = req.query()?;
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    let (ready, all) = std::sync::mpsc::channel();
    for number in 0..threads {
        let (until, ready) = (until.clone(), ready.clone());
        std::thread::spawn(move || {
            used("thread");
            ready.send(()).expect("somebody waits");
            let (gate, opened) = &GATE;
            if number == 0 {
                while !until.exists() {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                *gate.lock().expect("a gate") = true;
                opened.notify_all();
            }
            drop(opened.wait_while(gate.lock().expect("a gate"), |open| !*open));
        });
    }
    for _ in 0..threads {
        all.recv()?;
    }
    Ok("started")
}

/// How many of the process's own keys are free.
fn free_keys() -> String {
    use std::ffi::{c_char, c_int, c_void};
    unsafe extern "C" { fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void; }
    let create: extern "C" fn(*mut u32, *mut c_void) -> c_int =
        unsafe { std::mem::transmute(dlsym(std::ptr::null_mut(), c"pthread_key_create".as_ptr())) };
    let delete: extern "C" fn(u32) -> c_int =
        unsafe { std::mem::transmute(dlsym(std::ptr::null_mut(), c"pthread_key_delete".as_ptr())) };
    let (mut keys, mut key) = (Vec::new(), 0);
    while create(&mut key, std::ptr::null_mut()) == 0 {
        keys.push(key);
    }
    keys.iter().for_each(|key| assert_eq!(delete(*key), 0));
    keys.len().to_string()
}
"#;

#[test]
fn the_host_defines_none_of_the_names_that_a_plugin_s_library_does() {
    let defined = |path: &Path| {
        let output = Command::new("nm").arg(path).output().expect("nm is there");
        assert!(output.status.success(), "nm: {}", String::from_utf8_lossy(&output.stderr));
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(listed.lines().count() > 100, "it has symbols");
        let symbols = listed.lines().filter_map(|line| line.rsplit_once(' '));
        let defined =
            symbols.filter(|(kind, _)| !kind.ends_with([' ', 'U', 'w']) && kind.starts_with(|c: char| c.is_ascii_hexdigit()));
        let names: Vec<String> = defined.map(|(_, name)| name.to_owned()).filter(|name| NAMES.contains(&name.as_str())).collect();
        names
    };
    assert_eq!(defined(cargo::midair()), Vec::<String>::new());
    // That this way of looking finds them where they are:
    let project = Project::plugin("nm_plugin", SOURCE);
    let folder = tempfile::tempdir().expect("a folder");
    let found = defined(&project.build_to(folder.path())[0]);
    // What a plugin doesn't use the linker leaves out.
    for name in ["__cxa_thread_atexit_impl", "pthread_create", "pthread_key_create", "pthread_setspecific"] {
        assert!(found.iter().any(|found| found == name), "{name} isn't in {found:?}");
    }
}

#[test]
fn fault_26_g3_threads_and_thread_locals_outlive_their_generation_and_end_where_they_belong() {
    const THREADS: u64 = 1_000;
    let project = Project::plugin("outlives", SOURCE);
    let mut midair = Launch::dev(&[project.root()]).arg("--workers").arg("2").start();
    midair.published();
    let before = wait_for_census(&midair, "outlives", "nothing used yet", |census| census["threads"] == 0);
    assert_eq!((&before["leaked"], &before["blind"]), (&json!(0), &json!(0)), "{before}");

    let release = tempfile::tempdir().expect("a folder");
    let until = release.path().join("now");
    let answer = midair.get(&format!("/start?until={}&threads={THREADS}", until.display()));
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
    project.save("src/lib.rs", &super::dev::saying("version 2"));
    midair.published();
    midair.wait_for_stderr(&format!("a mark of a worker made on {worker} dropped on {worker}"));
    assert!(!midair.stderr().contains("a mark of a thread"), "{}", midair.stderr());
    let left =
        wait_for_census(&midair, "outlives", "its threads", |left| left["destructors"].as_u64() < census["destructors"].as_u64());
    assert_eq!((&left["threads"], left["destructors"].as_u64() >= Some(2 * THREADS)), (&json!(THREADS), true), "{left}");

    fs::write(&until, "").expect("a file");
    let left = wait_for_census(&midair, "outlives", "nothing", |census| census["threads"] == 0 && census["destructors"] == 0);
    assert_eq!((&left["keys"], &left["leaked"]), (&json!(0), &json!(0)), "{left}");
    let stderr = midair.stderr();
    let dropped: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("a mark of a thread made on ")).collect();
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
    let source = SOURCE.replace("Plugin::new()", "Plugin::new().get(\"/wait\", wait)").replace(
        "/// How many of",
        "async fn wait(_: Request, ctx: Ctx) -> Result<String> {
    let before = used(\"worker\");
    while !std::path::Path::new(&std::env::var(\"RELEASE\")?).exists() {
        ctx.sleep(std::time::Duration::from_millis(1)).await?;
    }
    Ok(format!(\"{before} {}\", used(\"worker\")))
}

/// How many of",
    );
    let project = Project::plugin("in_use", &source);
    let release = tempfile::tempdir().expect("a folder");
    let until = release.path().join("now");
    let path = until.display().to_string();
    let mut midair = Launch::dev(&[project.root()]).arg("--workers").arg("1").env("RELEASE", Some(&path)).start();
    midair.published();
    let http = midair.http();
    let waits = std::thread::spawn(move || http.get("/wait"));
    wait_for_census(&midair, "in_use", "the request", |census| census["destructors"].as_u64() > Some(1));
    project.save("src/lib.rs", &super::dev::saying("version 2"));
    midair.published();
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
    let source = format!(
        "{SOURCE}{}",
        "
fn everything() -> String {
    std::thread::spawn(|| used(\"thread\")).join().expect(\"a thread\") + &used(\"worker\")
}
"
    )
    .replace("Plugin::new()", "Plugin::new().get(\"/everything\", |_, _| everything())")
    .replace("eprintln!", "let _ = format!");
    let project = Project::plugin(name, &source);
    let folder = tempfile::tempdir().expect("a folder");
    let artifact = project.build_to(folder.path()).remove(0);
    let mut midair = Launch::run(&[&artifact]).arg("--workers").arg("2").start();
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
    println!("{generations} generations in {:?}", start.elapsed());
    assert_eq!(free(&midair), before, "every key of the process that was free is free");
    let census = wait_for_census(&midair, name, "only the last one", |census| census["threads"] == 0);
    assert_eq!(census["leaked"], 0, "{census}");
    assert!(midair.terminate().status.success());
}

#[test]
fn fault_27_more_generations_than_there_are_keys_leave_every_key_of_the_process_free() {
    swaps("key_user", 1_100);
}

/// As many as [`fault_27_more_generations_than_there_are_keys_leave_every_key_of_the_process_free`] doesn't take the time for:
/// `cargo test -p midair-tests --test e2e census::fault_27 -- --ignored --nocapture`.
#[test]
#[ignore = "takes longer than the others together"]
fn fault_27_ten_thousand_generations_leave_every_key_of_the_process_free() {
    swaps("heavy_key_user", 10_000);
}

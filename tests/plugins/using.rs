//! Uses thread-locals with `Drop` and `thread::current()` on the host's workers, and threads of its own that stay until a file is there. What
//! becomes of a thread-local it says on stderr, unless its variant is `quiet`.
#![expect(unsafe_code, reason = "asks the system for its own functions")]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use midair_fixtures::variant;
use midair_plugin::{Ctx, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .get("/", |_, _| variant())
        .get("/use", |_, _| used("worker"))
        .get("/everything", |_, _| everything())
        .get("/start", start)
        .get("/wait", wait)
        .get("/free_keys", |_, _| free_keys())
}

/// The thread as the system knows it; the plugin's std doesn't know the names of the host's threads.
fn thread() -> String {
    let task = std::fs::read_link("/proc/thread-self").expect("a thread");
    task.file_name().expect("its number").to_string_lossy().into_owned()
}

struct Mark(&'static str, String);

impl Drop for Mark {
    #[expect(clippy::print_stderr, reason = "whoever drops it here has no `Ctx` to log by")]
    fn drop(&mut self) {
        let Mark(on, made) = self;
        let said = format!("a mark of a {on} made on {made} dropped on {}", thread());
        if variant() != "quiet" {
            eprintln!("{said}");
        }
    }
}

thread_local! {
    static MARK: RefCell<Option<Mark>> = const { RefCell::new(None) };
}

fn used(on: &'static str) -> String {
    MARK.with_borrow_mut(|mark| mark.get_or_insert_with(|| Mark(on, thread())).1.clone())
        + &format!(" {:?}", std::thread::current().id())
}

fn everything() -> String {
    std::thread::spawn(|| used("thread")).join().expect("a thread") + &used("worker")
}

#[derive(serde::Deserialize)]
struct Until {
    until: PathBuf,
    #[serde(default)]
    threads: usize,
}

fn start(req: Request, _: Ctx) -> Result<&'static str> {
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    let Until { until, threads } = req.query()?;
    let (ready, all) = std::sync::mpsc::channel();
    for number in 0..threads {
        let (until, ready) = (until.clone(), ready.clone());
        std::thread::spawn(move || {
            used("thread");
            ready.send(()).expect("somebody waits");
            let (gate, opened) = &GATE;
            if number == 0 {
                while !until.exists() {
                    std::thread::sleep(Duration::from_millis(1));
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

/// Uses the worker's thread-local before and after it waits for a file.
async fn wait(req: Request, ctx: Ctx) -> Result<String> {
    let Until { until, .. } = req.query()?;
    let before = used("worker");
    while !until.exists() {
        ctx.sleep(Duration::from_millis(1)).await?;
    }
    Ok(format!("{before} {}", used("worker")))
}

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// A function as the process has it, whatever stands in for it in this library.
fn of_the_process(name: &CStr) -> *mut c_void {
    // SAFETY: no library is RTLD_DEFAULT, and the name ends with a zero.
    let symbol = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    assert!(!symbol.is_null(), "the process has it");
    symbol
}

/// How many of the process's own keys are free.
fn free_keys() -> String {
    type Create = unsafe extern "C" fn(*mut u32, Option<unsafe extern "C" fn(*mut c_void)>) -> c_int;
    type Delete = unsafe extern "C" fn(u32) -> c_int;
    // SAFETY: pthread_key_create has this signature.
    let create: Create = unsafe { std::mem::transmute(of_the_process(c"pthread_key_create")) };
    // SAFETY: pthread_key_delete has this signature.
    let delete: Delete = unsafe { std::mem::transmute(of_the_process(c"pthread_key_delete")) };
    let (mut keys, mut key) = (Vec::new(), 0);
    // SAFETY: a place for the key, and no destructor.
    while unsafe { create(&mut key, None) } == 0 {
        keys.push(key);
    }
    for key in &keys {
        // SAFETY: made above, and used by nobody.
        assert_eq!(unsafe { delete(*key) }, 0);
    }
    keys.len().to_string()
}

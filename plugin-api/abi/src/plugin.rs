//! What does a plugin give its host?

use std::ffi::c_void;

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_types::VersionStrings;

use crate::host::Context;
use crate::logs::Logs;
use crate::memory::{Address, Many, Owner, Pair, Span};
use crate::outcome::{Outcome, Waker};
use crate::request::Request;

/// A handler of a plugin.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Handler {
    /// One of the constants below.
    pub kind: u32,
    /// What the kind needs to know: of a route `method` and `path`; `name` of all, as the plugin's author wrote it or as Rust has it.
    pub meta: Many<Pair>,
    /// What `call` gets; lives as long as the plugin.
    pub data: Address,
    /// Calls it. The context is given to the callee, who releases it.
    pub call: unsafe extern "C" fn(data: Address, context: Context, request: Request, waker: *const Waker) -> Outcome,
}

/// What a handler's metadata says by which words.
pub mod meta {
    /// The method of a route.
    pub const METHOD: &str = "method";
    /// The path of a route, also of a WebSocket's.
    pub const PATH: &str = "path";
    /// The name of a handler, or of the job or topic that it is for.
    pub const NAME: &str = "name";
    /// How a route takes its request's body: [`STREAM`], or whole.
    pub const BODY: &str = "body";
    /// In pieces, as the handler asks for them.
    pub const STREAM: &str = "stream";
    /// The most that a route takes of a request's body, in bytes.
    pub const BODY_LIMIT: &str = "body-limit";
    /// Nanoseconds between two beats of a job.
    pub const PERIOD: &str = "period_ns";
    /// What becomes of a beat that is due while an earlier one runs: [`SKIP`], [`QUEUE`] or [`PARALLEL`].
    pub const OVERLAP: &str = "overlap";
    /// It is left out.
    pub const SKIP: &str = "skip";
    /// It waits, as one may. Of a topic: how many messages wait at most.
    pub const QUEUE: &str = "queue";
    /// It runs beside the earlier one.
    pub const PARALLEL: &str = "parallel";
    /// How many messages of a topic are handled beside each other.
    pub const AT_ONCE: &str = "at_once";
}

impl Handler {
    /// Answers requests.
    pub const ROUTE: u32 = 1;
    /// Runs while its generation serves: called without a request each time that it begins to. Its answer says how it ended.
    pub const TASK: u32 = 2;
    /// A job, called when a beat of it is due: `period_ns` and `overlap` (`skip`, `queue`, `parallel`) in its meta, and in the request's
    /// parameters [`BEAT`](Self::BEAT) and [`DUE`](Self::DUE).
    pub const EVERY: u32 = 3;
    /// Takes the messages of the topic that is its name: `queue` and `at_once` in its meta, and the message as the request's body.
    pub const MESSAGE: u32 = 4;
    /// Decides on a WebSocket on `path`: called with the request to upgrade, under a connection that has its number by then. 2xx accepts.
    pub const SOCKET_OPEN: u32 = 20;
    /// Takes a message of a WebSocket on `path`, one at a time a connection.
    pub const SOCKET_MESSAGE: u32 = 21;
    /// Hears of the end of a WebSocket on `path`.
    pub const SOCKET_CLOSE: u32 = 22;
    /// Runs as long as a WebSocket on `path` does, and receives its messages itself.
    pub const SOCKET_PINNED: u32 = 23;

    /// A parameter of a job's request: the beat's number.
    pub const BEAT: &str = "beat";
    /// A parameter of a job's request: when the beat was due, in microseconds since the Unix epoch.
    pub const DUE: &str = "due_us";
}

/// A table that a plugin declares.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct TableDecl {
    /// Its name, text.
    pub name: Span,
    /// The number of the oldest form that the plugin reads.
    pub oldest: u32,
    /// The number of the newest one, which it writes.
    pub newest: u32,
    /// What `check` gets; lives as long as the plugin.
    pub data: Address,
    /// Decodes a value, written with this schema number, as the plugin would and drops it: `DONE`, `ERROR` with path and expectation, or
    /// `PANIC`.
    pub check: unsafe extern "C" fn(data: Address, schema: u32, bytes: Span) -> Outcome,
}

/// What a plugin tests about itself before it is published, in the probe alone.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct SelfTest {
    /// Its name, text.
    pub name: Span,
    /// What `run` gets; lives as long as the plugin.
    pub data: Address,
    /// Runs it: `DONE`, `ERROR` or `PANIC`. The context is given to the callee.
    pub run: unsafe extern "C" fn(data: Address, context: Context) -> Outcome,
}

/// A request that the probe makes, and the status that it has to be answered with.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Smoke {
    /// `GET`, `POST`, ..; text.
    pub method: Span,
    /// The path, with a query if there is one; text.
    pub target: Span,
    /// The status.
    pub status: u32,
}

/// A plugin, put together.
#[repr(C)]
#[derive(StableAbi)]
pub struct Built {
    /// As [`Outcome`]: `DONE` or `PANIC`.
    outcome: Outcome,
    /// Its handlers.
    handlers: Many<Handler>,
    /// Its tables.
    tables: Many<TableDecl>,
    /// Its self-tests.
    selftests: Many<SelfTest>,
    /// Its smokes.
    smokes: Many<Smoke>,
    /// Owns the above.
    owner: Owner,
}

/// What a plugin consists of, for [`Built::new`].
pub struct Made {
    /// Its handlers.
    pub handlers: Many<Handler>,
    /// Its tables.
    pub tables: Many<TableDecl>,
    /// Its self-tests.
    pub selftests: Many<SelfTest>,
    /// Its smokes.
    pub smokes: Many<Smoke>,
}

impl Built {
    /// A plugin whose data `owner` owns.
    ///
    /// # Safety
    ///
    /// `made`, and all that it points to, lives as long as what `owner` owns and doesn't change.
    #[must_use]
    pub unsafe fn new(Made { handlers, tables, selftests, smokes }: Made, owner: Owner) -> Self {
        Self { outcome: Outcome::done(), handlers, tables, selftests, smokes, owner }
    }

    /// A plugin that couldn't be put together.
    #[must_use]
    pub fn failed(outcome: Outcome) -> Self {
        let (handlers, tables, selftests, smokes) = (Many::of(&[]), Many::of(&[]), Many::of(&[]), Many::of(&[]));
        Self { outcome, handlers, tables, selftests, smokes, owner: Owner::NONE }
    }

    /// Whether it was put together, or why not.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What `init` gets.
    #[must_use]
    pub fn data(&self) -> *const c_void {
        self.owner.data()
    }

    /// The handlers.
    #[must_use]
    pub fn handlers(&self) -> &[Handler] {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { self.handlers.items() }
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &[TableDecl] {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { self.tables.items() }
    }

    /// The self-tests.
    #[must_use]
    pub fn selftests(&self) -> &[SelfTest] {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { self.selftests.items() }
    }

    /// The smokes.
    #[must_use]
    pub fn smokes(&self) -> &[Smoke] {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { self.smokes.items() }
    }
}

/// Who counts what a library leaves in the process; see the room `census`. It stays as long as the library is mapped.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Census {
    /// What the functions get.
    pub data: *const c_void,
    /// The functions.
    pub functions: CensusFunctionsRef,
}

/// What the host does with what a library leaves in the process. Fields may be appended at the end.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = CensusFunctionsRef)))]
#[sabi(missing_field(option))]
pub struct CensusFunctions {
    /// `pthread_create`.
    pub thread: unsafe extern "C" fn(
        data: *const c_void,
        id: *mut c_void,
        attributes: *const c_void,
        start: Address,
        argument: *mut c_void,
    ) -> i32,
    /// Keeps a destructor of this thread's with its object.
    pub destructor: unsafe extern "C" fn(data: *const c_void, destructor: Address, object: *mut c_void) -> i32,
    /// This thread has values under keys with destructors: they are to be swept.
    pub values: unsafe extern "C" fn(data: *const c_void),
    /// So many keys more.
    pub keys: unsafe extern "C" fn(data: *const c_void, more: i64),
    /// A panic outside of any call of the host's, or in a `Drop` that it set off.
    #[sabi(last_prefix_field)]
    pub panicked: unsafe extern "C" fn(data: *const c_void, panic: Outcome),
}

// SAFETY: the host's functions may be called with its data from any thread.
unsafe impl Send for Census {}
// SAFETY: as above.
unsafe impl Sync for Census {}

/// How a library answers to the [`Census`].
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Enrolled {
    /// Not 0 if std's calls go past the census, so that its counts are false.
    pub is_blind: u32,
    /// How many threads, destructors and keys were made before: nobody counts them.
    pub early: u32,
    /// Runs a destructor that was kept.
    pub destroy: unsafe extern "C" fn(destructor: Address, object: *mut c_void),
    /// Destroys this thread's values, one round; how many there were.
    pub sweep: unsafe extern "C" fn() -> u32,
}

/// What a plugin exports. Fields may be appended at the end.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef)))]
#[sabi(missing_field(panic))]
pub struct Root {
    /// The note's text; see [`manifest`](crate::manifest).
    pub manifest: extern "C" fn() -> Span,
    /// Runs the plugin's constructor function.
    pub build: extern "C" fn() -> Built,
    /// Runs the plugin's `init` hook, if it has one, to its end. The context is given to the callee.
    pub init: unsafe extern "C" fn(plugin: *const c_void, context: Context) -> Outcome,
    /// Lets the host count what the library leaves in the process. The first function that is called, and once.
    #[sabi(last_prefix_field)]
    pub attach: unsafe extern "C" fn(census: Census) -> Enrolled,
    /// Reads the plugin's section of the config, JSON, as the type that it declares: `DONE` with the value, or without one if it declares
    /// none; `ERROR` with the keys that lead to the place as details, the outermost first; or `PANIC`.
    #[sabi(missing_field(option))]
    pub configure: unsafe extern "C" fn(plugin: *const c_void, section: Span) -> Outcome,
    /// Says where what the library logs goes. Called once, before `build`.
    #[sabi(missing_field(option))]
    pub log_to: unsafe extern "C" fn(logs: Logs),
    /// Another filter holds: what is wanted is asked anew.
    #[sabi(missing_field(option))]
    pub refilter: extern "C" fn(),
}

impl RootModule for RootRef {
    abi_stable::declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "midair";
    const NAME: &'static str = "midair";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

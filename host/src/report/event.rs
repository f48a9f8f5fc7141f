//! What can the host say happened?
//!
//! Every outlet (terminal, `--json`, the admin's event stream) shows these and nothing else, so that all of them tell the same story.
//! The bus remembers the last few, so that whoever listens late still learns how things came to be.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::report::error::{Code, Stage};
use crate::report::hold::HoldReason;

/// Microseconds by step, in the order of the journey.
pub type Phases = BTreeMap<Stage, u64>;

/// Something that happened, as every outlet shows it: a JSON object with `event` naming the kind.
///
/// It can be read back from that object, so that a client tells the story in the host's own words.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the words of the contract with scripts")]
pub enum Event {
    /// The host answers; addresses as `ip:port`.
    Listening { http: String, admin: Option<String>, pid: u32, run: String },
    /// The sources are watched, by the system's events or by polling.
    Watching { plugins: Vec<String>, folders: usize, files: usize, by: Cow<'static, str> },
    /// A build started.
    Building { plugins: Vec<String>, trigger: String },
    /// A build ended well; microseconds.
    Built { plugins: Vec<String>, build_us: u64 },
    /// What the compiler said, as it renders it.
    Diagnostic { level: String, message: String, rendered: String },
    /// An attempt failed before publish; what served before serves on.
    Rejected {
        attempt: u64,
        code: Code,
        stage: Stage,
        subject: String,
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        help: Option<String>,
        /// What keeps serving, as `plugin=generation`.
        serving: Vec<String>,
        phases_us: Phases,
        trigger: String,
    },
    /// A generation is live. Said after its number was read back through the live table.
    Published { attempt: u64, plugin: String, generation: u64, digest: String, epoch: u64, phases_us: Phases, trigger: String },
    /// A generation that served goes on with another config, by one store; `config` is its digest. Said after it was read back through the
    /// live table.
    Configured { attempt: u64, plugin: String, generation: u64, config: String, epoch: u64, phases_us: Phases, trigger: String },
    /// The generation was watched and did well: it is what a later one would go back to. Microseconds since it was published.
    Committed { plugin: String, generation: u64, digest: String, requests: u64, watched_us: u64 },
    /// The generation before serves again, by one store; `from`'s bytes are held. Microseconds from the call, or from the answer that
    /// was one too many, to the store.
    RolledBack {
        attempt: u64,
        plugin: String,
        from: u64,
        to: u64,
        digest: String,
        epoch: u64,
        by: HoldReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
        reason: String,
        after_us: u64,
    },
    /// The generation does worse than the one before, and serves on: nothing goes back by itself here.
    Breached { plugin: String, generation: u64, reason: String, help: String },
    /// The generation, in probation, answers slower than the code before did: until it is known whether that is so in the same time, each of two
    /// requests that both can answer goes to the generation `with`.
    Comparing { plugin: String, generation: u64, with: u64 },
    /// The generation isn't slower than the one before was in the same time, and all requests go to it again.
    Compared { plugin: String, generation: u64, reason: String },
    /// These bytes were rolled back and are passed over.
    Held { plugin: String, digest: String, by: HoldReason, reason: String },
    /// The last run died while these bytes were on trial, or had just been started again.
    Died { plugin: String, digest: String, deaths: u32, reason: String },
    /// The artifact runs what serves already: the same bytes, or others that differ in nothing that is loaded. `digest` is that of what serves.
    Unchanged { attempt: u64, plugin: String, generation: u64, digest: String, trigger: String },
    /// A newer change overtook this attempt.
    Superseded { attempt: u64, trigger: String },
    /// No new request can reach the generation.
    Retired { plugin: String, generation: u64, leases: usize },
    /// The last request on a retired generation ended.
    Drained { plugin: String, generation: u64 },
    /// A handler panicked, and its request got a 500 if `kind` says that there was one; without a handler, a thread of the plugin or a `Drop`
    /// that nobody waited for.
    Panicked {
        plugin: String,
        generation: u64,
        handler: String,
        #[serde(default)]
        kind: Kind,
        message: String,
        location: String,
        /// The plugin's functions on the way to the panic, the innermost first, as `shop::total (src/lib.rs:41)`; what has no name, as
        /// `FILE+0xOFFSET` in the private copy. It is said when they are known, a moment after the answer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        frames: Vec<String>,
    },
    /// A handler returned an error or took too long; its request got a 5xx, if `kind` says that there was one.
    Failed {
        plugin: String,
        generation: u64,
        handler: String,
        #[serde(default)]
        kind: Kind,
        error: String,
    },
    /// Every request worker has been inside a handler for a while: requests wait. Swaps and `status` go on.
    WorkersBusy { handlers: Vec<String> },
    /// A request worker is free again.
    WorkersFree,
    /// A line that a plugin logged: with its `Ctx`, with `tracing` or with `log`.
    Log(Box<Line>),
    /// Something that its reader should know and need not act on at once.
    Warning { message: String },
    /// The host was asked to end and lets requests finish.
    Stopping { signal: String, in_flight: usize },
    /// The host ends; what was still there at the deadline.
    Stopped(Left),
    /// The host can't start or go on.
    Fatal {
        code: Code,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        help: Option<String>,
    },
}

/// What hadn't ended when the host did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Left {
    /// Requests that were being answered.
    #[serde(rename = "abandoned")]
    pub requests: usize,
    /// What plugins spawned and declared, but for what may be dropped and never asked for `Ctx::retiring`.
    pub tasks: usize,
    /// Beats of jobs that ran.
    pub beats: u64,
    /// Messages that waited or were being handled, once for each who takes it.
    pub messages: usize,
}

/// What called the code that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A request.
    #[default]
    Request,
    /// A beat of a job.
    Beat,
    /// A message of a topic.
    Message,
    /// An event of a WebSocket, or a pinned one.
    Socket,
    /// Nobody: a task.
    Task,
    /// Nobody: what no handler is named for.
    Outside,
}

/// A line that a plugin logged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the words of the contract with scripts")]
pub struct Line {
    pub plugin: String,
    pub generation: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// What filters go by: the module's path, unless the line says otherwise.
    pub target: String,
    pub message: String,
    /// By name; what is neither number nor truth is text.
    pub fields: Map<String, Value>,
    /// What it lies in, the outermost first.
    pub spans: Vec<LineSpan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The host's process.
    pub pid: u64,
    /// How many publishes and rollbacks there were.
    pub swaps: u64,
}

/// A span that a line lies in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the words of the contract with scripts")]
pub struct LineSpan {
    pub name: String,
    pub fields: Map<String, Value>,
}

type Listener = Box<dyn FnMut(&Arc<Event>) -> bool + Send>;

/// Hands each event to all who listen, in one order for all.
#[derive(Clone, Default)]
pub struct Bus(Arc<Mutex<Hall>>);

#[derive(Default)]
struct Hall {
    listeners: Vec<Listener>,
    recent: VecDeque<Arc<Event>>,
}

/// How many events of each kind a late listener still gets: who makes a host say one thing over and over pushes out no other.
const REMEMBERED: usize = 64;

impl Bus {
    /// Hands `event` to every listener, on the caller's thread.
    pub fn say(&self, event: Event) {
        let event = Arc::new(event);
        let mut hall = self.0.lock();
        // What plugins log would soon push out what happened to them.
        if !matches!(*event, Event::Log { .. }) {
            let kind = std::mem::discriminant(&*event);
            let is_alike = |other: &Arc<Event>| std::mem::discriminant(&**other) == kind;
            if hall.recent.iter().filter(|other| is_alike(other)).count() >= REMEMBERED
                && let Some(oldest) = hall.recent.iter().position(is_alike)
            {
                hall.recent.remove(oldest);
            }
            hall.recent.push_back(event.clone());
        }
        hall.listeners.retain_mut(|listener| listener(&event));
    }

    /// Calls `listener` for the remembered events and then for each new one, until it returns `false`.
    ///
    /// It runs on the thread of whoever speaks, so it must be quick and must not speak itself.
    pub fn listen(&self, mut listener: impl FnMut(&Arc<Event>) -> bool + Send + 'static) {
        let mut hall = self.0.lock();
        if hall.recent.iter().all(&mut listener) {
            hall.listeners.push(Box::new(listener));
        }
    }

    /// The same without the remembered events.
    pub fn listen_from_now(&self, listener: impl FnMut(&Arc<Event>) -> bool + Send + 'static) {
        self.0.lock().listeners.push(Box::new(listener));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_over_and_over_pushes_nothing_else_out() {
        let bus = Bus::default();
        let back = Event::RolledBack {
            attempt: 1,
            plugin: "shop".to_owned(),
            from: 2,
            to: 1,
            digest: String::new(),
            epoch: 3,
            by: HoldReason::Breach,
            code: None,
            reason: String::new(),
            after_us: 1,
        };
        bus.say(back);
        // Miri takes its time.
        let said = if cfg!(miri) { REMEMBERED + 9 } else { 10_000 };
        (0..said).for_each(|n| bus.say(Event::Warning { message: n.to_string() }));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        bus.listen(move |event| {
            hears.lock().push(match &**event {
                Event::Warning { message } => message.clone(),
                other => serde_json::to_value(other).map_or_else(|_| String::new(), |value| value["event"].to_string()),
            });
            true
        });
        let heard = heard.lock().clone();
        assert_eq!((heard.len(), heard[0].as_str()), (REMEMBERED + 1, "\"rolled_back\""));
        let newest = [said - REMEMBERED, said - 1].map(|n| n.to_string());
        assert_eq!([&heard[1], &heard[REMEMBERED]], [&newest[0], &newest[1]], "the newest, in order");
    }
}

//! How does the host call a plugin?
//!
//! The only caller of what a plugin exports. Every call is caught on the plugin's side, so what comes back is a value; what it owns is
//! freed by the plugin's code, which is why [`Plugin`] and everything made of it must be dropped before its library could go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use midair_abi::wall::Panic;
use midair_abi::{self as abi, Built, Outcome, Span, meta};

use crate::plugin::library::Library;
use crate::plugin::symbolize::Module;
use crate::report::error::{Code, Error, Result, Stage};
use crate::resources::logs::Source;
use crate::sys::native_resources::Census;

/// What calls a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Requests of its method on its path.
    #[default]
    Requests,
    /// The host, when its generation begins to serve.
    Service,
    /// The host, when a beat of its job is due.
    Beats,
    /// Messages of the topic that it is named after.
    Messages,
    /// A WebSocket on its path.
    Socket(Part),
}

impl Calls {
    /// Whether it is clients that do.
    #[must_use]
    pub(crate) fn is_asked(self) -> bool {
        matches!(self, Self::Requests | Self::Socket(_))
    }
}

/// What of a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The request to upgrade.
    Open,
    /// A message.
    Message,
    /// The end.
    Close,
    /// All of it, by one future.
    Pinned,
}

/// What a handler says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HandlerInfo {
    /// What calls it.
    pub calls: Calls,
    /// `GET`, `POST`, ..; of a route.
    pub method: String,
    /// The route's path.
    pub path: String,
    /// Its Rust name, such as `shop::create`, or the one that its author gave it.
    pub name: String,
    /// Whether it asks for the body piece by piece.
    pub is_streamed: bool,
    /// How large a body it takes, in bytes, if it says so.
    pub body_limit: Option<usize>,
    /// What else it says, by the word for it.
    rest: Vec<(String, String)>,
}

impl HandlerInfo {
    /// What it says by this word; empty if nothing.
    #[must_use]
    pub(crate) fn said(&self, word: &str) -> &str {
        self.rest.iter().find(|(other, _)| other == word).map_or("", |(_, said)| said)
    }

    /// The number that it says by this word.
    #[must_use]
    pub(crate) fn number(&self, word: &str) -> Option<u64> {
        self.said(word).parse().ok()
    }
}

/// A request that the plugin wants to be tried with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Smoke {
    /// `GET`, `POST`, ..
    pub method: String,
    /// The path, with a query if there is one.
    pub target: String,
    /// The status that it has to be answered with.
    pub status: u16,
}

/// A table that a plugin declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableInfo {
    /// Its name.
    pub name: String,
    /// The number of the oldest form that the plugin reads.
    pub oldest: u32,
    /// The number of the newest one.
    pub newest: u32,
}

/// A plugin's code, put together and ready to be called.
pub(crate) struct Plugin {
    // Dropped first, by the plugin's own code in `library`.
    built: Built,
    handlers: Vec<HandlerInfo>,
    tables: Vec<TableInfo>,
    selftests: Vec<String>,
    smokes: Vec<Smoke>,
    // Dropped last: then nothing calls it any more.
    library: Library,
}

impl Plugin {
    /// Runs the plugin's constructor function.
    ///
    /// # Errors
    ///
    /// `E_INIT` if it panics or declares what can't be, `E_ABI` if it has a handler of a kind that this host doesn't know.
    pub(crate) fn build(library: Library, subject: &str) -> Result<Self> {
        let built = library.root().build()();
        if built.outcome().kind() != Outcome::DONE {
            let reason = format!("its plugin function panicked: {}", told(&built.outcome().panic()));
            return Err(Error::rejected(Code::Init, Stage::Init, subject, reason));
        }
        let handlers = built.handlers().iter().map(|handler| read_handler(handler, subject)).collect::<Result<Vec<_>>>()?;
        if let Some(reason) = misfit(&handlers) {
            return Err(Error::rejected(Code::Init, Stage::Init, subject, reason));
        }
        let table = |table: &abi::TableDecl| {
            // SAFETY: the name lives in what `built` owns.
            let name = unsafe { table.name.text() }.to_owned();
            TableInfo { name, oldest: table.oldest, newest: table.newest }
        };
        let tables: Vec<TableInfo> = built.tables().iter().map(table).collect();
        if let Some(name) = twice(tables.iter().map(|table| &table.name)) {
            let reason = format!("two of its tables are named {name}");
            return Err(Error::rejected(Code::Init, Stage::Init, subject, reason));
        }
        // SAFETY: as above.
        let selftests = built.selftests().iter().map(|test| unsafe { test.name.text() }.to_owned()).collect();
        let smokes = built.smokes().iter().map(read_smoke).collect();
        Ok(Self { built, handlers, tables, selftests, smokes, library })
    }

    /// Closes its library, for a bug that does so.
    #[cfg(midair_seeded)]
    pub(crate) fn unmap(&self) {
        self.library.unmap();
    }

    /// Its handlers, by place.
    #[must_use]
    pub(crate) fn handlers(&self) -> &[HandlerInfo] {
        &self.handlers
    }

    /// The tables that it declares, by place.
    #[must_use]
    pub(crate) fn tables(&self) -> &[TableInfo] {
        &self.tables
    }

    /// The names of its self-tests, by place.
    #[must_use]
    pub(crate) fn selftests(&self) -> &[String] {
        &self.selftests
    }

    /// The requests that it wants to be tried with.
    #[must_use]
    pub(crate) fn smokes(&self) -> &[Smoke] {
        &self.smokes
    }

    /// Runs the self-test at `place` to the end, on this thread.
    #[must_use]
    pub(crate) fn selftest(&self, place: usize, context: abi::Context) -> Outcome {
        let Some(test) = self.built.selftests().get(place) else {
            return Outcome::told(Outcome::ERROR, 500, "the self-test is gone".to_owned(), &[]);
        };
        // SAFETY: data and function came together from the plugin, alive as long as `self`; the context is given away.
        unsafe { (test.run)(test.data, context) }
    }

    /// The file that its code came from, and where that lies in memory.
    #[must_use]
    pub(crate) fn module(&self) -> &Arc<Module> {
        self.library.module()
    }

    /// What it has in the process.
    #[must_use]
    pub(crate) fn census(&self) -> &Arc<Census> {
        self.library.census()
    }

    /// Its way into the host's log, if it has one.
    #[must_use]
    pub(crate) fn logs(&self) -> Option<&Arc<Source>> {
        self.library.logs()
    }

    /// Runs its `init` hook to the end, on this thread.
    #[must_use]
    pub(crate) fn init(&self, context: abi::Context) -> Outcome {
        // SAFETY: the data is the built plugin's own, alive as long as `self`; the context is given away.
        unsafe { self.library.root().init()(self.built.data(), context) }
    }

    /// Has it read its section of the config, which is JSON. `None` if it was built before there was a config.
    #[must_use]
    pub(crate) fn configure(&self, section: &str) -> Option<Outcome> {
        let configure = self.library.root().configure()?;
        // SAFETY: the data is the built plugin's own, alive as long as `self`; the section outlives the call.
        Some(unsafe { configure(self.built.data(), Span::of(section.as_bytes())) })
    }

    /// Calls the handler at `place`; its future, if it makes one, must be dropped before `self`.
    #[must_use]
    pub(crate) fn call(&self, place: usize, context: abi::Context, request: abi::Request, waker: &abi::Waker) -> Outcome {
        let Some(handler) = self.built.handlers().get(place) else {
            return Outcome::told(Outcome::ERROR, 500, "the handler is gone".to_owned(), &[]);
        };
        // SAFETY: data and function came together from the plugin, alive as long as `self`; the context and request are given away, the
        // waker is lent for this call.
        unsafe { (handler.call)(handler.data, context, request, waker) }
    }

    /// Reads a value that was written with this schema number as the plugin's type of the table at `place`.
    #[must_use]
    pub(crate) fn check(&self, place: usize, schema: u32, bytes: &[u8]) -> Outcome {
        let Some(table) = self.built.tables().get(place) else { return Outcome::done() };
        // SAFETY: data and function came together from the plugin, alive as long as `self`; the bytes outlive the call.
        unsafe { (table.check)(table.data, schema, Span::of(bytes)) }
    }
}

/// A panic in one line.
#[must_use]
pub(crate) fn told(panic: &Panic) -> String {
    if panic.location.is_empty() { panic.message.clone() } else { format!("{} at {}", panic.message, panic.location) }
}

fn read_smoke(smoke: &abi::Smoke) -> Smoke {
    // SAFETY: the texts live in what the plugin owns, which is alive.
    let [method, target] = [smoke.method, smoke.target].map(|text| unsafe { text.text() }.to_owned());
    Smoke { method, target, status: u16::try_from(smoke.status).unwrap_or_default() }
}

/// The first name that was there before.
fn twice<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = BTreeSet::new();
    names.find(|name| !seen.insert(*name))
}

/// What jobs, tasks and handlers of messages can't be, if they are.
fn misfit(handlers: &[HandlerInfo]) -> Option<String> {
    for (calls, what) in
        [(Calls::Beats, "jobs are named"), (Calls::Service, "tasks are named"), (Calls::Messages, "handlers take the messages of")]
    {
        if let Some(name) = twice(handlers.iter().filter(|handler| handler.calls == calls).map(|handler| &handler.name)) {
            return Some(format!("two of its {what} {name}"));
        }
    }
    let period = |handler: &HandlerInfo| Duration::from_nanos(handler.number(meta::PERIOD).unwrap_or_default());
    let never = |handler: &&HandlerInfo| handler.calls == Calls::Beats && period(handler) < LEAST_PERIOD;
    let found = handlers.iter().find(never);
    found.map(|handler| format!("its job {} has a period of {:?}, the shortest is {LEAST_PERIOD:?}", handler.name, period(handler)))
}

/// The shortest time between two beats of a job: below that the host does little but begin them.
const LEAST_PERIOD: Duration = Duration::from_millis(1);

fn read_handler(handler: &abi::Handler, subject: &str) -> Result<HandlerInfo> {
    let calls = match handler.kind {
        abi::Handler::ROUTE => Calls::Requests,
        abi::Handler::TASK => Calls::Service,
        abi::Handler::EVERY => Calls::Beats,
        abi::Handler::MESSAGE => Calls::Messages,
        abi::Handler::SOCKET_OPEN => Calls::Socket(Part::Open),
        abi::Handler::SOCKET_MESSAGE => Calls::Socket(Part::Message),
        abi::Handler::SOCKET_CLOSE => Calls::Socket(Part::Close),
        abi::Handler::SOCKET_PINNED => Calls::Socket(Part::Pinned),
        other => {
            let reason = format!("it has a handler of kind {other}, which this host doesn't know");
            return Err(Error::rejected(Code::Abi, Stage::Init, subject, reason).help("update the host"));
        }
    };
    let mut info = HandlerInfo { calls, ..HandlerInfo::default() };
    // SAFETY: the metadata lives in what the plugin owns, which is alive.
    for pair in unsafe { handler.meta.items() } {
        // SAFETY: as above.
        let (key, value) = unsafe { (pair.name.text(), pair.value) };
        // SAFETY: as above.
        let value = unsafe { value.text() }.to_owned();
        match key {
            meta::METHOD => info.method = value,
            meta::PATH => info.path = value,
            meta::NAME => info.name = value,
            meta::BODY => info.is_streamed = value == meta::STREAM,
            meta::BODY_LIMIT => info.body_limit = value.parse().ok(),
            _ => info.rest.push((key.to_owned(), value)),
        }
    }
    Ok(info)
}

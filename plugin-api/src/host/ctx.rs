//! What can a handler ask of the host?

use std::fmt;
use std::time::Duration;

use midair_abi::store::{Answer, Op};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::glue::operation::Operation;
use crate::handler::request::Request;
use crate::handler::response::Response;
use crate::host::config::Parsed;
use crate::host::link::Link;
use crate::host::state::{Batch, Cell, Counter, Table};

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something looks wrong.
    Warn = 2,
    /// Something worth knowing happened.
    Info = 3,
    /// For whoever looks for a fault.
    Debug = 4,
    /// Every step.
    Trace = 5,
}

/// A call's way to the host. Cheap to clone.
///
/// It holds the moment at which its call was admitted: a clone that is kept shows as a call in flight, and keeps in memory the code of
/// every plugin that served then.
#[derive(Clone)]
pub struct Ctx(pub(crate) Link);

impl Ctx {
    /// The plugin's name.
    #[must_use]
    pub fn plugin(&self) -> &str {
        self.0.plugin()
    }

    /// The number of the generation whose code this is; in `init` and in the probe the one that it will have.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// Whether this runs in the probe, a process of its own in which new code is tried before the host opens it. Its state is empty and
    /// thrown away, but what code does to the world outside of `Ctx` is as real there as anywhere.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.0.is_probe()
    }

    /// The plugin's config, in the snapshot that this call was admitted to: whatever is edited meanwhile, it stays the same to the call's end.
    ///
    /// `T` is the type that [`Plugin::config`](crate::Plugin::config) declares. It was read before it was published; here nothing is parsed,
    /// locked or looked up. A `Ctx` that is kept keeps the config of its own time.
    ///
    /// # Panics
    ///
    /// If the plugin declares no config or another type; the message says what to write.
    #[must_use]
    #[track_caller]
    pub fn config<T: Send + Sync + 'static>(&self) -> &T {
        Parsed::get(self.0.config()).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// A line in the host's log.
    pub fn log(&self, level: Level, message: impl fmt::Display) {
        self.0.log(level, &message.to_string());
    }

    /// A line in the host's log, at [`Level::Info`].
    pub fn info(&self, message: impl fmt::Display) {
        self.log(Level::Info, message);
    }

    /// A line in the host's log, at [`Level::Warn`].
    pub fn warn(&self, message: impl fmt::Display) {
        self.log(Level::Warn, message);
    }

    /// A line in the host's log, at [`Level::Error`].
    pub fn error(&self, message: impl fmt::Display) {
        self.log(Level::Error, message);
    }

    /// Done after `duration`. The host keeps the time, so no thread of the plugin waits.
    ///
    /// # Errors
    ///
    /// If this generation was rejected before publish.
    pub fn sleep(&self, duration: Duration) -> Operation<impl Future<Output = Result<()>> + Send + 'static> {
        let link = self.0.clone();
        Operation::new(async move { link.sleep(duration).await })
    }

    /// Asks another route of this host, of any plugin, in the snapshot that this call was admitted to: whatever is swapped meanwhile, both
    /// run the code of one moment.
    ///
    /// # Errors
    ///
    /// If the called handler panicked or failed, or calls nest deeper than the host allows. A route that isn't there answers 404.
    pub fn call(&self, request: Request) -> Operation<impl Future<Output = Result<Response>> + Send + 'static> {
        let link = self.0.clone();
        Operation::new(async move { link.call(request).await })
    }

    /// The host-held table `name` of this plugin: values of `T` by key.
    ///
    /// `T` is written as MessagePack with named fields, so that later code may add a field with `#[serde(default)]`. Declare tables with
    /// [`Plugin::table`](crate::Plugin::table) to have them tried before newer code is published.
    #[must_use]
    pub fn table<T: Serialize + DeserializeOwned>(&self, name: &str) -> Table<T> {
        Table::new(self.clone(), format!("{}/{name}", self.plugin()), self.0.history(name))
    }

    /// The table `name` of another plugin. Sharing is explicit: whoever reads it depends on the owner's types. Values are read in the form in
    /// which they were written last, and written as the first form: leave writing to the owner of a table with
    /// [`migrate`](crate::Plugin::migrate).
    #[must_use]
    pub fn table_of<T: Serialize + DeserializeOwned>(&self, plugin: &str, name: &str) -> Table<T> {
        Table::foreign(self.clone(), format!("{plugin}/{name}"))
    }

    /// The host-held single value `name` of this plugin.
    #[must_use]
    pub fn cell<T: Serialize + DeserializeOwned>(&self, name: &str) -> Cell<T> {
        Cell::new(Table::new(self.clone(), format!("{}/$cells", self.plugin()), None), name)
    }

    /// The host-held integer `name` of this plugin.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        Counter::new(self.clone(), format!("{}/$counters", self.plugin()), name)
    }

    /// Writes that happen all or not at all.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// Whether this code isn't committed, so that older code may have to read what it writes.
    pub(crate) fn may_go_back(&self) -> bool {
        self.0.may_go_back()
    }

    pub(crate) async fn submit(&self, ops: &[Op<'_>]) -> Answer {
        self.0.state(ops).await
    }
}

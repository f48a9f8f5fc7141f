//! What is a plugin made of?

use std::any::type_name;
use std::pin::Pin;
use std::sync::Arc;

use midair_abi::{Handler, Outcome, meta};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::handler::request::Request;
use crate::handler::response::{IntoResponse, Response};
use crate::host::config::ConfigDecl;
use crate::host::ctx::Ctx;
use crate::host::state::{self, History};

/// Routes, tables and hooks: all that a plugin gives its host.
///
/// The function named in [`export!`](crate::export) makes one each time that the plugin's code is loaded.
///
/// ```
/// use midair_plugin::{Ctx, Plugin, Request};
///
/// async fn hello(req: Request, _ctx: Ctx) -> String {
///     format!("hello from {}", req.path())
/// }
///
/// let plugin = Plugin::new().get("/", |_, _| "a plain handler").get("/{name}", hello);
/// ```
#[derive(Default)]
#[must_use = "a plugin does nothing before `export!` hands it to the host"]
pub struct Plugin {
    pub(crate) routes: Vec<Route>,
    pub(crate) works: Vec<Work>,
    pub(crate) tables: Vec<TableDecl>,
    pub(crate) config: Option<ConfigDecl>,
    pub(crate) init: Option<Hook>,
    pub(crate) selftests: Vec<SelfTest>,
    pub(crate) smokes: Vec<Smoke>,
    /// Of its own tokio, if it says how many.
    pub(crate) runtime_threads: Option<usize>,
}

/// A function that the host runs once.
pub(crate) type Hook = Box<dyn Fn(Ctx) -> Result<()> + Send + Sync>;

pub(crate) struct SelfTest {
    pub(crate) name: String,
    pub(crate) run: Hook,
}

pub(crate) struct Smoke {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) status: u16,
}

pub(crate) struct Route {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) name: &'static str,
    pub(crate) handler: Box<dyn Handle>,
    /// What else the host is told of it.
    pub(crate) more: Vec<(&'static str, String)>,
}

impl Route {
    /// Whether its handler asks for the body.
    pub(crate) fn is_streamed(&self) -> bool {
        self.more.iter().any(|(name, value)| *name == meta::BODY && value == meta::STREAM)
    }
}

/// A handler that is called by its name and not by a request.
pub(crate) struct Work {
    /// One of [`Handler`](midair_abi::Handler)'s.
    pub(crate) kind: u32,
    pub(crate) name: String,
    /// What else the kind needs to know.
    pub(crate) meta: Vec<(&'static str, String)>,
    pub(crate) handler: Box<dyn Handle>,
}

/// Reads a value, written with a schema number, as a table's type.
pub(crate) type Check = fn(&History, u32, &[u8]) -> Result<(), String>;

pub(crate) struct TableDecl {
    pub(crate) name: String,
    pub(crate) check: Check,
    pub(crate) history: Arc<History>,
    /// The type's name.
    of: &'static str,
}

impl Plugin {
    /// A plugin that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers GET (and HEAD) on `path`: literal segments, `{name}` for one segment, `{*rest}` for all that follow.
    pub fn get<R: IntoReply<M>, M>(self, path: &str, handler: impl Fn(Request, Ctx) -> R + Send + Sync + 'static) -> Self {
        self.route("GET", path, handler)
    }

    /// Answers POST on `path`; see [`get`](Self::get).
    pub fn post<R: IntoReply<M>, M>(self, path: &str, handler: impl Fn(Request, Ctx) -> R + Send + Sync + 'static) -> Self {
        self.route("POST", path, handler)
    }

    /// Answers PUT on `path`; see [`get`](Self::get).
    pub fn put<R: IntoReply<M>, M>(self, path: &str, handler: impl Fn(Request, Ctx) -> R + Send + Sync + 'static) -> Self {
        self.route("PUT", path, handler)
    }

    /// Answers PATCH on `path`; see [`get`](Self::get).
    pub fn patch<R: IntoReply<M>, M>(self, path: &str, handler: impl Fn(Request, Ctx) -> R + Send + Sync + 'static) -> Self {
        self.route("PATCH", path, handler)
    }

    /// Answers DELETE on `path`; see [`get`](Self::get).
    pub fn delete<R: IntoReply<M>, M>(self, path: &str, handler: impl Fn(Request, Ctx) -> R + Send + Sync + 'static) -> Self {
        self.route("DELETE", path, handler)
    }

    /// Answers `method` on `path`; see [`get`](Self::get). Routes that clash are told when the plugin is loaded, and the code before
    /// serves on.
    pub fn route<R: IntoReply<M>, M, F>(mut self, method: &str, path: &str, handler: F) -> Self
    where
        F: Fn(Request, Ctx) -> R + Send + Sync + 'static,
    {
        let handler = Box::new(move |request, ctx| handler(request, ctx).into_reply());
        let (method, path, name) = (method.to_owned(), path.to_owned(), type_name::<F>());
        self.routes.push(Route { method, path, name, handler, more: Vec::new() });
        self
    }

    /// Calls the handler of the route before as soon as the request's head is there. It asks for the body piece by piece, by
    /// [`Request::chunk`], and must be `async`: the thread that would wait for the client is the one that reads from it. How long it may
    /// take is counted from the head.
    ///
    /// # Panics
    ///
    /// If there is no route before; the host then rejects the plugin with these words.
    #[track_caller]
    pub fn streamed(self) -> Self {
        self.tell(meta::BODY, meta::STREAM.to_owned())
    }

    /// How large a body the route before takes, in bytes, instead of what the host allows where nothing is said.
    ///
    /// # Panics
    ///
    /// If there is no route before; the host then rejects the plugin with these words.
    #[track_caller]
    pub fn body_limit(self, bytes: usize) -> Self {
        self.tell(meta::BODY_LIMIT, bytes.to_string())
    }

    #[track_caller]
    fn tell(mut self, name: &'static str, value: String) -> Self {
        let Some(route) = self.routes.last_mut() else {
            panic!("write the route first, such as .post(\"/upload\", upload).streamed()")
        };
        route.more.retain(|(told, _)| *told != name);
        route.more.push((name, value));
        self
    }

    /// Work that goes on as long as this code serves: started when it begins to, and again whenever it is put back. An error or a panic is
    /// told and counted; the task isn't started again before the next swap.
    ///
    /// When newer code was published [`Ctx::retiring`] is done: end soon, for some time later (`--retire-timeout`) the task is dropped where
    /// it waits. The newer code's own task may begin before this one has ended.
    /// The end of the host is told the same way, and waits for a task that has asked.
    ///
    /// ```
    /// use midair_plugin::{Ctx, Plugin, Result};
    /// use std::time::Duration;
    ///
    /// async fn beat(ctx: Ctx) -> Result<()> {
    ///     let mut every = ctx.interval(Duration::from_secs(1));
    ///     loop {
    ///         every.tick().await?;
    ///         ctx.counter("beats").add(1).await?;
    ///     }
    /// }
    ///
    /// let plugin = Plugin::new().task("beat", beat);
    /// ```
    pub fn task<R: IntoReply<M>, M>(self, name: &str, work: impl Fn(Ctx) -> R + Send + Sync + 'static) -> Self {
        self.work(Handler::TASK, name, Vec::new(), move |_, ctx| work(ctx))
    }

    /// How many threads the plugin's own tokio has; 2 unless said. They run what is spawned with `tokio::spawn`: handlers and tasks of the host
    /// are polled on the host's threads.
    #[cfg(feature = "tokio")]
    pub fn runtime_threads(mut self, threads: usize) -> Self {
        self.runtime_threads = Some(threads.max(1));
        self
    }

    pub(crate) fn work<R: IntoReply<M>, M, F>(
        mut self,
        kind: u32,
        name: &str,
        meta: Vec<(&'static str, String)>,
        handler: F,
    ) -> Self
    where
        F: Fn(Request, Ctx) -> R + Send + Sync + 'static,
    {
        let handler = Box::new(move |request, ctx| handler(request, ctx).into_reply());
        self.works.push(Work { kind, name: name.to_owned(), meta, handler });
        self
    }

    /// Adds a handler that is called by its name, answering what it is told to.
    pub(crate) fn add_work(
        &mut self,
        kind: u32,
        name: &str,
        meta: Vec<(&'static str, String)>,
        handler: impl Fn(Request, Ctx) -> Reply + Send + Sync + 'static,
    ) {
        self.works.push(Work { kind, name: name.to_owned(), meta, handler: Box::new(handler) });
    }

    /// Declares the host-held table `name` of `T`. Before newer code is published, values that are there are read with its `T`; one that
    /// can't be read rejects it, and the code before serves on. What isn't read before is read while the code is on trial.
    ///
    /// A field that is added needs `#[serde(default)]` and no more. A type that changes in another way needs a
    /// [`migrate`](Self::migrate).
    pub fn table<T: Serialize + DeserializeOwned>(mut self, name: &str) -> Self {
        let (name, history, of) = (name.to_owned(), Arc::default(), type_name::<T>());
        let check: Check = |history, schema, bytes| state::read::<T>(Some(history), schema, bytes).map(drop);
        self.tables.push(TableDecl { name, check, history, of });
        self
    }

    /// How the table declared before reads what earlier code wrote: from the type that it had to the one that followed. No value is
    /// rewritten: what was written by `A` becomes a `B` each time that it is read, until it is written anew.
    ///
    /// Types that changed more than once need a step each, the oldest first; the last one ends at the table's own type. Each step is one
    /// more in the number that values bear, so a step that was published stays. One that no value needs any more can be left out if
    /// [`since`](Self::since) says so.
    ///
    /// ```
    /// # use midair_plugin::Plugin;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct LinkV1 { url: String, clicks: u32 }
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Link { urls: Vec<String>, clicks: u64 }
    ///
    /// let plugin = Plugin::new()
    ///     .table::<Link>("links")
    ///     .migrate(|old: LinkV1| Link { urls: vec![old.url], clicks: old.clicks.into() })
    ///     .reverse(|new: &Link| LinkV1 { url: new.urls[0].clone(), clicks: new.clicks as u32 });
    /// ```
    ///
    /// # Panics
    ///
    /// If no table was declared before; the host then rejects the plugin with these words. So it does if steps don't fit together.
    #[track_caller]
    pub fn migrate<A, B>(mut self, up: impl Fn(A) -> B + Send + Sync + 'static) -> Self
    where
        A: DeserializeOwned,
        B: Serialize,
    {
        self.history("migrate").migrate(up);
        self
    }

    /// The way back of the step before: how the code before is to read what this code writes. Until this code is committed, what it
    /// writes is kept in both forms, so that going back loses nothing. Without a way back, values that this code wrote can't be read by
    /// the code before; `midair status` counts them.
    ///
    /// # Panics
    ///
    /// If it isn't the way back of the [`migrate`](Self::migrate) before it; the host then rejects the plugin with these words.
    #[track_caller]
    pub fn reverse<B, A>(mut self, down: impl Fn(&B) -> A + Send + Sync + 'static) -> Self
    where
        A: Serialize,
        B: DeserializeOwned,
    {
        let fits = self.history("reverse").reverse(down);
        assert!(
            fits,
            "reverse: it has to follow the `.migrate` whose way back it is, from `&{}` to `{}`",
            type_name::<B>(),
            type_name::<A>()
        );
        self
    }

    /// The number of the oldest form of the table declared before that this code still reads; 1 unless said. It is for leaving out the
    /// oldest steps of [`migrate`](Self::migrate), one for each number.
    ///
    /// # Panics
    ///
    /// If no table was declared before.
    #[track_caller]
    pub fn since(mut self, schema: u32) -> Self {
        self.history("since").since(schema);
        self
    }

    #[track_caller]
    fn history(&mut self, what: &str) -> &mut History {
        let history = self.tables.last_mut().and_then(|table| Arc::get_mut(&mut table.history));
        history.unwrap_or_else(|| panic!("{what}: it has to follow a `.table`"))
    }

    /// Whether the steps of each table fit together.
    ///
    /// # Panics
    ///
    /// If they don't.
    pub(crate) fn check_tables(&self) {
        for table in &self.tables {
            table.history.check(&table.name, table.of).unwrap_or_else(|misfit| panic!("{misfit}"));
        }
    }

    /// Declares the type of the plugin's config: what [`Ctx::config`] gives, read from the section `[plugin.NAME]` of the host's config
    /// file, where NAME is the plugin's package. `midair dev` takes `midair.toml` beside the workspace's Cargo.toml.
    ///
    /// The section is read before new code is published, and whenever it was edited; one that can't be read is rejected with file, line, key
    /// and expectation, and what served before serves on. Without a section an empty one is read: give fields `#[serde(default)]`. To check
    /// more than types, give the type `#[serde(try_from = "...")]`: `init` doesn't run for an edit of the config alone. Dates of TOML arrive
    /// as text.
    ///
    /// ```
    /// use midair_plugin::{Ctx, Plugin, Request};
    ///
    /// #[derive(serde::Deserialize)]
    /// #[serde(default, deny_unknown_fields)]
    /// struct Settings {
    ///     greeting: String,
    /// }
    ///
    /// impl Default for Settings {
    ///     fn default() -> Self {
    ///         Self { greeting: "hello".to_owned() }
    ///     }
    /// }
    ///
    /// fn hello(_: Request, ctx: Ctx) -> String {
    ///     ctx.config::<Settings>().greeting.clone()
    /// }
    ///
    /// let plugin = Plugin::new().config::<Settings>().get("/", hello);
    /// ```
    ///
    /// # Panics
    ///
    /// If a config was declared before; the host then rejects the plugin with these words.
    #[track_caller]
    pub fn config<T: DeserializeOwned + Send + Sync + 'static>(mut self) -> Self {
        let decl = ConfigDecl::of::<T>();
        if let Some(before) = &self.config {
            panic!("config::<{}>(): a plugin has one config, and it is declared as `{}` already", decl.name, before.name);
        }
        self.config = Some(decl);
        self
    }

    /// Runs before this code is published; an error rejects it, and the code before serves on.
    ///
    /// It runs twice: first in the probe, a process of its own in which new code is tried, then in the host. In the probe the state is
    /// empty and thrown away, and [`Ctx::is_probe`] is true: ask that before anything that others would notice, such as a message sent.
    ///
    /// It runs on a thread of its own, under a deadline. What it writes waits and takes effect with the publish; what it reads is what the
    /// code before reads meanwhile, not its own waiting writes. A write that depends on a value (`insert`, `update`,
    /// `compare_and_set`) is judged when it is made and once more when it takes effect; one that the code before overtook is left out,
    /// and the host says so. Routes can't be called by this `ctx`.
    pub fn init(mut self, init: impl Fn(Ctx) -> Result<()> + Send + Sync + 'static) -> Self {
        self.init = Some(Box::new(init));
        self
    }

    /// Tests this code after its `init`, before it is published. A self-test that fails, panics or takes too long rejects it, and the code
    /// before serves on.
    ///
    /// Self-tests run in the probe only: a process of its own with an empty state, which later self-tests and smokes see and which is
    /// then thrown away. This `ctx` can call the plugin's routes. In unit tests [`App::selftest`](crate::test::App::selftest) runs them.
    ///
    /// ```
    /// use midair_plugin::{Ctx, Error, Plugin, Request, Result};
    ///
    /// fn answers(ctx: Ctx) -> Result<()> {
    ///     let answer = ctx.call(Request::build("GET", "/").finish()?).wait()?;
    ///     if answer.text() == "hello" { Ok(()) } else { Err(Error::internal("it doesn't say hello")) }
    /// }
    ///
    /// let plugin = Plugin::new().get("/", |_, _| "hello").selftest("answers", answers);
    /// ```
    pub fn selftest(mut self, name: &str, test: impl Fn(Ctx) -> Result<()> + Send + Sync + 'static) -> Self {
        self.selftests.push(SelfTest { name: name.to_owned(), run: Box::new(test) });
        self
    }

    /// Asks a route before this code is published, after all [self-tests](Self::selftest) and in the same process: another status rejects
    /// it, and the code before serves on.
    ///
    /// ```
    /// # use midair_plugin::Plugin;
    /// let plugin = Plugin::new().get("/healthz", |_, _| "well").smoke("GET /healthz", 200).smoke("GET /nowhere", 404);
    /// ```
    ///
    /// # Panics
    ///
    /// If `request` isn't a method and a path; the host then rejects the plugin with these words.
    #[track_caller]
    pub fn smoke(mut self, request: &str, status: u16) -> Self {
        let parts = request.split_once(' ').filter(|(_, target)| target.starts_with('/'));
        let Some((method, target)) = parts else { panic!("smoke({request:?}): write a method and a path, such as GET /healthz") };
        self.smokes.push(Smoke { method: method.to_owned(), target: target.to_owned(), status });
        self
    }
}

/// A handler without its type.
pub(crate) trait Handle: Send + Sync {
    fn handle(&self, request: Request, ctx: Ctx) -> Reply;
}

impl<F: Fn(Request, Ctx) -> Reply + Send + Sync> Handle for F {
    fn handle(&self, request: Request, ctx: Ctx) -> Reply {
        self(request, ctx)
    }
}

/// An answer, or a future of one.
#[doc(hidden)]
pub enum Reply {
    /// It is there.
    Ready(Response),
    /// It will be.
    Later(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

/// What a handler may return: a response, or a future of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the answer of a handler",
    label = "a handler takes `(Request, Ctx)` and returns a response, or a future of one that is `Send`",
    note = "return text, bytes, `Json(value)`, `Redirect`, `StatusCode`, `(StatusCode, T)`, a `Response`, or a `Result` of these, \
            from a plain `fn` or an `async fn`",
    note = "an `async fn` must be `Send`: what it holds across an `.await` can't be an `Rc`, a `RefCell`'s borrow or a lock's guard"
)]
pub trait IntoReply<Marker> {
    #[doc(hidden)]
    fn into_reply(self) -> Reply;
}

/// Marks handlers that answer at once.
#[doc(hidden)]
pub struct Now;

/// Marks handlers that answer with a future.
#[doc(hidden)]
pub struct Later;

impl<T: IntoResponse> IntoReply<Now> for T {
    fn into_reply(self) -> Reply {
        Reply::Ready(self.into_response())
    }
}

impl<F: Future<Output: IntoResponse> + Send + 'static> IntoReply<Later> for F {
    fn into_reply(self) -> Reply {
        Reply::Later(Box::pin(async move { self.await.into_response().into_outcome() }))
    }
}

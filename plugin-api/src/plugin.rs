//! What is a plugin made of?

use std::pin::Pin;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::abi::Outcome;
use crate::ctx::Ctx;
use crate::error::Result;
use crate::request::Request;
use crate::response::{IntoResponse, Response};
use crate::state;

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
    pub(crate) tables: Vec<TableDecl>,
    pub(crate) init: Option<Init>,
}

pub(crate) type Init = Box<dyn Fn(Ctx) -> Result<()> + Send + Sync>;

pub(crate) struct Route {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) name: &'static str,
    pub(crate) handler: Box<dyn Handle>,
}

/// Reads a value as a table's type.
pub(crate) type Check = fn(&[u8]) -> Result<(), String>;

pub(crate) struct TableDecl {
    pub(crate) name: String,
    pub(crate) check: Check,
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
        self.routes.push(Route { method: method.to_owned(), path: path.to_owned(), name: std::any::type_name::<F>(), handler });
        self
    }

    /// Declares the host-held table `name` of `T`. Before newer code is published, values that are there are read with its `T`; one that
    /// can't be read rejects it, and the code before serves on.
    pub fn table<T: Serialize + DeserializeOwned>(mut self, name: &str) -> Self {
        self.tables.push(TableDecl { name: name.to_owned(), check: |bytes| state::decode::<T>(bytes).map(drop) });
        self
    }

    /// Runs once before this code is published; an error rejects it, and the code before serves on.
    ///
    /// It runs on a thread of its own, under a deadline. What it writes waits and takes effect with the publish; what it reads is what the
    /// code before reads meanwhile, not its own waiting writes. A write that depends on a value (`insert`, `update`,
    /// `compare_and_set`) is judged when it is made and once more when it takes effect; one that the code before overtook is left out,
    /// and the host says so. Routes can't be called by this `ctx`.
    pub fn init(mut self, init: impl Fn(Ctx) -> Result<()> + Send + Sync + 'static) -> Self {
        self.init = Some(Box::new(init));
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

//! How is a handler tested without a host?
//!
//! [`App`] answers requests with a plugin's routes and state of its own, in the test's process: no dlopen, no sockets. The store is the
//! one that a host keeps in memory.
//!
//! ```
//! use midair_plugin::{Ctx, Json, Plugin, Request, Result, test::App};
//!
//! async fn count(_: Request, ctx: Ctx) -> Result<Json<i64>> {
//!     Ok(Json(ctx.counter("hits").add(1).await?))
//! }
//!
//! let app = App::new(Plugin::new().get("/count", count));
//! app.get("/count");
//! assert_eq!(app.get("/count").text(), "2");
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Serialize;

use crate::abi::{self, RequestParts};
use crate::ctx::{Ctx, Level, Link};
use crate::error::{Error, Result};
use crate::operation::block_on;
use crate::plugin::{Plugin, Reply};
use crate::request::Request;
use crate::response::{IntoResponse, Response};
use crate::state::History;
use crate::store::{Limits, Memory, clock};

/// A plugin with a small host around it.
pub struct App(Arc<World>);

/// Routes by path and method, as places in the plugin's list.
type Router = matchit::Router<BTreeMap<String, usize>>;

/// What a [`Ctx`] reaches in a test.
pub(crate) struct World {
    plugin: OnceLock<(Plugin, Router)>,
    store: Memory,
    log: Mutex<Vec<(Level, String)>>,
    probe: AtomicBool,
    /// By how many milliseconds it is later than it is.
    later: Arc<AtomicU64>,
}

impl App {
    /// Runs the plugin's `init` hook and is ready for requests.
    ///
    /// # Panics
    ///
    /// If routes clash, steps of a table don't fit or `init` fails; a host would reject the plugin.
    #[must_use]
    pub fn new(plugin: Plugin) -> Self {
        let mut paths: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (index, route) in plugin.routes.iter().enumerate() {
            let clash = paths.entry(route.path.clone()).or_default().insert(route.method.clone(), index);
            assert!(clash.is_none(), "two handlers answer {} {}", route.method, route.path);
        }
        let mut router = Router::new();
        for (path, methods) in paths {
            router.insert(&path, methods).unwrap_or_else(|error| panic!("the route {path}: {error}"));
        }
        plugin.check_tables();
        let later = Arc::new(AtomicU64::new(0));
        let ahead = Arc::clone(&later);
        let world = Arc::new(World {
            plugin: OnceLock::new(),
            store: Memory::new(Limits::default(), move || clock().saturating_add(ahead.load(Ordering::Relaxed))),
            later,
            log: Mutex::default(),
            probe: AtomicBool::new(false),
        });
        let (plugin, _) = world.plugin.get_or_init(|| (plugin, router));
        if let Some(init) = &plugin.init {
            init(Ctx(Link::Test(Arc::clone(&world)))).unwrap_or_else(|error| panic!("init: {error}"));
        }
        Self(world)
    }

    /// Runs the plugin's self-tests and then its smokes, as the probe of a host would, but on the state that there is by now.
    ///
    /// ```
    /// # use midair_plugin::{Plugin, test::App};
    /// App::new(Plugin::new().get("/healthz", |_, _| "well").smoke("GET /healthz", 200)).selftest();
    /// ```
    ///
    /// # Panics
    ///
    /// If one of them fails; a host would reject the plugin.
    #[track_caller]
    pub fn selftest(&self) {
        let Some((plugin, _)) = self.0.plugin.get() else { return };
        self.0.probe.store(true, Ordering::Relaxed);
        for test in &plugin.selftests {
            (test.run)(self.ctx()).unwrap_or_else(|error| panic!("the self-test {}: {error}", test.name));
        }
        for smoke in &plugin.smokes {
            let answer = self.send(Request::build(&smoke.method, &smoke.target).finish());
            let (method, target, expected, status) = (&smoke.method, &smoke.target, smoke.status, answer.status().as_u16());
            assert!(status == expected, "the smoke {method} {target} is answered {status}, not {expected}: {}", answer.text());
        }
        self.0.probe.store(false, Ordering::Relaxed);
    }

    /// A way to the state that the handlers see.
    #[must_use]
    pub fn ctx(&self) -> Ctx {
        Ctx(Link::Test(Arc::clone(&self.0)))
    }

    /// Sends a GET.
    ///
    /// # Panics
    ///
    /// As the handler does.
    #[must_use]
    pub fn get(&self, target: &str) -> Response {
        self.send(Request::build("GET", target).finish())
    }

    /// Sends a POST with a JSON body.
    ///
    /// # Panics
    ///
    /// As the handler does.
    #[must_use]
    pub fn post(&self, target: &str, body: &impl Serialize) -> Response {
        self.send(Request::build("POST", target).json(body).finish())
    }

    /// Sends a DELETE.
    ///
    /// # Panics
    ///
    /// As the handler does.
    #[must_use]
    pub fn delete(&self, target: &str) -> Response {
        self.send(Request::build("DELETE", target).finish())
    }

    /// Sends any request; a request that couldn't be built is answered with its error.
    ///
    /// # Panics
    ///
    /// As the handler does.
    #[must_use]
    pub fn send(&self, request: Result<Request>) -> Response {
        request.and_then(|request| block_on(self.0.call(request))).unwrap_or_else(IntoResponse::into_response)
    }

    /// Lets the state take it to be so much later: what was to last less is gone.
    pub fn later(&self, time: Duration) {
        self.0.later.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What the handlers logged so far.
    #[must_use]
    pub fn log(&self) -> Vec<(Level, String)> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl World {
    pub(crate) fn store(&self) -> &Memory {
        &self.store
    }

    pub(crate) fn history(&self, name: &str) -> Option<Arc<History>> {
        let (plugin, _) = self.plugin.get()?;
        plugin.tables.iter().find(|table| table.name == name).map(|table| Arc::clone(&table.history))
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.probe.load(Ordering::Relaxed)
    }

    pub(crate) fn log(&self, level: Level, message: String) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push((level, message));
    }

    /// A thread keeps the time: a test has no host to do so.
    pub(crate) async fn sleep(&self, duration: Duration) {
        type Alarm = (Mutex<(bool, Option<Waker>)>, Condvar);
        let alarm = Arc::new(Alarm::default());
        let ringer = Arc::clone(&alarm);
        std::thread::spawn(move || {
            std::thread::sleep(duration);
            let mut state = ringer.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = true;
            if let Some(waker) = state.1.take() {
                waker.wake();
            }
        });
        std::future::poll_fn(move |context| {
            let mut state = alarm.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.0 {
                return Poll::Ready(());
            }
            state.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) async fn call(self: &Arc<Self>, request: Request) -> Result<Response> {
        let Some((plugin, router)) = self.plugin.get() else { return Ok(StatusCode::NOT_FOUND.into_response()) };
        let Ok(found) = router.at(request.path()) else { return Ok(StatusCode::NOT_FOUND.into_response()) };
        let method = if *request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
        let Some(index) = found.value.get(method) else { return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response()) };
        let decode = |(name, value): (&str, &str)| {
            let value = percent_encoding::percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| Error::bad_request("the path isn't UTF-8"))?;
            Ok((name.to_owned(), value.into_owned()))
        };
        let parts = RequestParts {
            method: request.method().clone(),
            path: request.path().to_owned(),
            query: request.query_str().to_owned(),
            params: found.params.iter().map(decode).collect::<Result<_>>()?,
            headers: request.headers().clone(),
            body: bytes::Bytes::copy_from_slice(request.body()),
            peer: request.peer(),
        };
        let request = Request::from_wire(abi::Request::new(parts));
        match plugin.routes[*index].handler.handle(request, Ctx(Link::Test(Arc::clone(self)))) {
            Reply::Ready(response) => response.seen_by_caller(),
            Reply::Later(future) => Response::from_outcome(&future.await),
        }
    }
}

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

mod link;
mod socket;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use midair_abi as abi;
use midair_abi::store::{Limits, Memory, clock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::socket::Sockets;
pub use self::socket::TestSocket;
use crate::error::{Error, Result};
use crate::glue::operation::block_on;
use crate::glue::runtime;
use crate::handler::plugin::{Plugin, Reply};
use crate::handler::request::{Request, RequestParts};
use crate::handler::response::{IntoResponse, Response};
use crate::host::config::{ConfigDecl, Parsed};
use crate::host::ctx::{Ctx, Level};
use crate::host::link::HostLink;
use crate::host::message;
pub use crate::host::message::Emitted;

/// A plugin with a small host around it.
pub struct App(Arc<World>);

/// Routes by path and method, as places in the plugin's list.
type Router = matchit::Router<BTreeMap<String, usize>>;

/// What a [`Ctx`] reaches in a test.
pub(crate) struct World {
    plugin: OnceLock<(Plugin, Router)>,
    config: Option<Parsed>,
    store: Memory,
    log: Mutex<Vec<(Level, String)>>,
    probe: AtomicBool,
    emitted: Mutex<Vec<Emitted>>,
    services: Mutex<BTreeMap<String, Fake>>,
    beats: Mutex<BTreeMap<String, u64>>,
    sockets: Sockets,
    /// By how many milliseconds it is later than it is.
    later: Arc<AtomicU64>,
}

/// What stands for a service of the host's.
type Fake = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>> + Send + Sync>;

impl App {
    /// Runs the plugin's `init` hook and is ready for requests. A config that the plugin declares is read from an empty section.
    ///
    /// # Panics
    ///
    /// If routes clash, steps of a table don't fit, `init` fails or the config needs more than an empty section; a host would reject the plugin.
    #[must_use]
    #[track_caller]
    pub fn new(plugin: Plugin) -> Self {
        let read = |config: &ConfigDecl| (config.read)(b"{}").unwrap_or_else(|misfit| panic!("config: {}", misfit.reason));
        let config = plugin.config.as_ref().map(read);
        Self::of(plugin, config)
    }

    /// The same with this config, which `init` sees too.
    ///
    /// ```
    /// use midair_plugin::{Ctx, Plugin, test::App};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Settings {
    ///     greeting: String,
    /// }
    ///
    /// let plugin = Plugin::new().config::<Settings>().get("/", |_, ctx: Ctx| ctx.config::<Settings>().greeting.clone());
    /// let app = App::config(plugin, Settings { greeting: "hi".to_owned() });
    /// assert_eq!(app.get("/").text(), "hi");
    /// ```
    ///
    /// # Panics
    ///
    /// If routes clash or `init` fails, or the plugin declares no config or another type.
    #[must_use]
    #[track_caller]
    pub fn config<T: Send + Sync + 'static>(plugin: Plugin, config: T) -> Self {
        let (declared, given) = (plugin.config.as_ref().map(|config| config.name), std::any::type_name::<T>());
        assert!(declared == Some(given), "the config is a `{given}`, but the plugin declares {}", declared.unwrap_or("none"));
        Self::of(plugin, Some(Parsed::of(config)))
    }

    fn of(plugin: Plugin, config: Option<Parsed>) -> Self {
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
            config,
            store: Memory::new(Limits::default(), move || clock().saturating_add(ahead.load(Ordering::Relaxed))),
            later,
            log: Mutex::default(),
            probe: AtomicBool::new(false),
            emitted: Mutex::default(),
            services: Mutex::default(),
            beats: Mutex::default(),
            sockets: Sockets::default(),
        });
        let (plugin, _) = world.plugin.get_or_init(|| (plugin, router));
        runtime::start_for_tests(plugin.runtime_threads);
        let _entered = runtime::enter();
        if let Some(init) = &plugin.init {
            init(world.ctx()).unwrap_or_else(|error| panic!("init: {error}"));
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
        let _entered = runtime::enter();
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
        self.0.ctx()
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
        let _entered = runtime::enter();
        request.and_then(|request| block_on(self.0.answer(request))).unwrap_or_else(IntoResponse::into_response)
    }

    /// Runs the job `name` once, as a host does when a beat is due; what it returned.
    ///
    /// ```
    /// # use midair_plugin::{Ctx, Plugin, test::App};
    /// # use std::time::Duration;
    /// let plugin = Plugin::new().every(Duration::from_secs(10), "trending", |ctx: Ctx| ctx.info("ranked"));
    /// let app = App::new(plugin);
    /// app.run_job("trending").expect("it runs");
    /// assert_eq!(app.log()[0].1, "ranked");
    /// ```
    ///
    /// # Errors
    ///
    /// The job's.
    ///
    /// # Panics
    ///
    /// If there is no such job, and as the job does.
    #[track_caller]
    pub fn run_job(&self, name: &str) -> Result<()> {
        let beat = {
            let mut beats = self.0.beats.lock().unwrap_or_else(PoisonError::into_inner);
            let beat = beats.entry(name.to_owned()).or_default();
            *beat += 1;
            beat.to_string()
        };
        let due = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros().to_string();
        let params = vec![(abi::Handler::BEAT.to_owned(), beat), (abi::Handler::DUE.to_owned(), due)];
        self.work("job", abi::Handler::EVERY, name, params, Vec::new())
    }

    /// Hands a message to the plugin's handler of this topic; what it returned.
    ///
    /// ```
    /// # use midair_plugin::{Ctx, Plugin, test::App};
    /// let app = App::new(Plugin::new().on("greet", |name: String, ctx: Ctx| ctx.info(name)));
    /// app.deliver("greet", &"you").expect("it is handled");
    /// assert_eq!(app.log()[0].1, "you");
    /// ```
    ///
    /// # Errors
    ///
    /// The handler's, or that the message can't be read as what it takes.
    ///
    /// # Panics
    ///
    /// If no handler takes this topic, and as the handler does.
    #[track_caller]
    pub fn deliver(&self, topic: &str, message: &impl Serialize) -> Result<()> {
        self.work("handler of messages", abi::Handler::MESSAGE, topic, Vec::new(), message::encode(topic, message)?)
    }

    /// What was emitted so far. It goes nowhere by itself: [`deliver`](Self::deliver) hands it on.
    ///
    /// ```
    /// # use midair_plugin::{Ctx, Plugin, Request, test::App};
    /// async fn pay(_: Request, ctx: Ctx) -> midair_plugin::Result<()> {
    ///     ctx.emit("order.paid", &7).await
    /// }
    ///
    /// let app = App::new(Plugin::new().get("/pay", pay));
    /// app.get("/pay");
    /// assert_eq!(app.emitted()[0].topic, "order.paid");
    /// assert_eq!(app.emitted()[0].read::<u32>().expect("a number"), 7);
    /// ```
    #[must_use]
    pub fn emitted(&self) -> Vec<Emitted> {
        self.0.emitted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Offers what a custom host would, by this name.
    ///
    /// ```
    /// # use midair_plugin::{Plugin, test::App};
    /// let app = App::new(Plugin::new());
    /// app.offer("double", |n: u32| Ok(2 * n));
    /// let answer: u32 = app.ctx().service("double").call(&21).wait().expect("it is offered");
    /// assert_eq!(answer, 42);
    /// ```
    pub fn offer<Req, Res>(&self, name: &str, service: impl Fn(Req) -> Result<Res> + Send + Sync + 'static)
    where
        Req: DeserializeOwned,
        Res: Serialize,
    {
        let of = name.to_owned();
        let fake = move |request: &[u8]| message::encode(&of, &service(message::decode(&of, request)?)?);
        self.0.services.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(fake));
    }

    #[track_caller]
    fn work(&self, what: &str, kind: u32, name: &str, params: Vec<(String, String)>, body: Vec<u8>) -> Result<()> {
        let works = self.0.plugin.get().map(|(plugin, _)| &plugin.works[..]).unwrap_or_default();
        let work = works.iter().find(|work| work.kind == kind && work.name == name);
        let work = work.unwrap_or_else(|| panic!("the plugin has no {what} {name}"));
        let parts = RequestParts {
            method: Method::POST,
            path: String::new(),
            query: String::new(),
            params,
            headers: HeaderMap::new(),
            body: body.into(),
            peer: None,
        };
        let request = Request::from_wire(abi::Request::new(parts));
        let response = match work.handler.handle(request, self.ctx()) {
            Reply::Ready(response) => response.seen_by_caller(),
            Reply::Later(future) => Response::from_outcome(block_on(future)),
        }?;
        if response.status().is_server_error() { Err(Error::new(response.status(), response.text())) } else { Ok(()) }
    }

    /// Opens a WebSocket.
    ///
    /// ```
    /// use midair_plugin::{Conn, Ctx, Message, Plugin, Result, Socket, test::App};
    ///
    /// async fn echo(conn: Conn, message: Message, _: Ctx) -> Result<()> {
    ///     conn.send(message).await
    /// }
    ///
    /// let app = App::new(Plugin::new().socket("/echo", Socket::new().message(echo)));
    /// let echo = app.socket("/echo");
    /// echo.send("hello");
    /// assert_eq!(echo.received(), [Message::from("hello")]);
    /// ```
    ///
    /// # Panics
    ///
    /// If it is refused, or as the handler does.
    #[track_caller]
    #[must_use]
    pub fn socket(&self, target: &str) -> TestSocket {
        let refused = |answer: Box<Response>| panic!("{target} is refused: {} {}", answer.status(), answer.text());
        self.open(Request::build("GET", target).finish()).unwrap_or_else(refused)
    }

    /// Opens a WebSocket by any request.
    ///
    /// # Errors
    ///
    /// The answer that it is refused with.
    ///
    /// # Panics
    ///
    /// As the handler does.
    pub fn open(&self, request: Result<Request>) -> Result<TestSocket, Box<Response>> {
        socket::open(&self.0, request.map_err(|error| Box::new(error.into_response()))?)
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
    fn ctx(self: &Arc<Self>) -> Ctx {
        Ctx(self.again())
    }

    async fn answer(self: &Arc<Self>, mut request: Request) -> Result<Response> {
        let Some((plugin, router)) = self.plugin.get() else { return Ok(StatusCode::NOT_FOUND.into_response()) };
        let Ok(found) = router.at(request.path()) else { return Ok(StatusCode::NOT_FOUND.into_response()) };
        let method = if *request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
        let Some(index) = found.value.get(method) else { return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response()) };
        let parts = parts(&request, &found.params)?;
        let route = &plugin.routes[*index];
        let request = match request.take_rest() {
            None => abi::Request::new(parts),
            Some(rest) if route.is_streamed() => rest.into_pieces().give_with(abi::Request::new(parts)),
            Some(rest) => abi::Request::new(RequestParts { body: rest.collect().await?, ..parts }),
        };
        match route.handler.handle(Request::from_wire(request), self.ctx()) {
            Reply::Ready(response) => response.seen_by_caller(),
            Reply::Later(future) => Response::from_outcome(future.await),
        }
    }
}

/// A request's parts, with the parameters of its route.
fn parts(request: &Request, params: &matchit::Params<'_, '_>) -> Result<RequestParts> {
    let decode = |(name, value): (&str, &str)| {
        let value =
            percent_encoding::percent_decode_str(value).decode_utf8().map_err(|_| Error::bad_request("the path isn't UTF-8"))?;
        Ok((name.to_owned(), value.into_owned()))
    };
    Ok(RequestParts {
        method: request.method().clone(),
        path: request.path().to_owned(),
        query: request.query_str().to_owned(),
        params: params.iter().map(decode).collect::<Result<_>>()?,
        headers: request.headers().clone(),
        body: bytes::Bytes::copy_from_slice(request.body()),
        peer: request.peer(),
    })
}

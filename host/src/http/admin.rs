//! How do operators and scripts ask a running host what it does?
//!
//! A listener of its own, on a thread and a runtime of its own: it answers while every request worker is stuck in a plugin's code. It
//! runs no plugin code and takes no part in a swap; what it is asked to start, it hands to the loop.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc as plain};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

pub use super::admin_context::Reload;
use super::admin_context::{Room, message, refuse};
use super::gate::{self, Gate, Refusal};
use super::{admin_reload, admin_tables, admin_token};
use crate::report::attempt::Outcome;
use crate::report::error::{Code, Error, Result};
use crate::report::event::{Bus, Event};
use crate::resources::logs::Unchanged;
use crate::swap::{Host, Which};

/// Events that a slow reader of `/events` may fall behind before it is let go. More than the bus remembers, so that a new one gets those.
const QUEUE: usize = 1024;

/// Where and for whom the admin listener answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub addr: SocketAddr,
    /// What every request has to bear; without it, a token that is made at start and left in the file `admin-token` of the data folder. Required
    /// where `addr` isn't loopback.
    pub token: Option<String>,
    /// The data folder, in which the file `admin` tells clients the address.
    pub data: PathBuf,
}

/// A bound admin listener that doesn't answer yet.
pub struct Admin {
    listener: TcpListener,
    addr: SocketAddr,
    notice: PathBuf,
    router: Router,
    bus: Bus,
}

/// An admin listener that answers.
pub struct Running {
    stop: oneshot::Sender<()>,
    ended: plain::Receiver<Infallible>,
    notice: PathBuf,
}

impl Admin {
    /// Takes the address. Runs no plugin code.
    ///
    /// # Errors
    ///
    /// The address needs a token (wrong usage), or can't be had.
    pub fn bind(host: Host, reload: Reload, options: &Options) -> Result<Self> {
        gate::fits(options.addr, options.token.as_deref())?;
        let taken = |error| {
            Error::fatal(Code::Io, options.addr.to_string(), "the admin listener can't have this address")
                .caused_by(error)
                .help("choose another with --admin 127.0.0.1:PORT (port 0 picks a free one), or go without: --admin off")
        };
        let listener = TcpListener::bind(options.addr).map_err(taken)?;
        listener.set_nonblocking(true).map_err(taken)?;
        let addr = listener.local_addr().map_err(taken)?;
        let bus = host.events().clone();
        let gate = Gate::new(addr, token(options, &bus).as_deref());
        Ok(Self { listener, addr, notice: options.data.join("admin"), router: router(Room { host, reload }, gate), bus })
    }

    /// The address that was taken.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers from now on, and writes the address into the data folder. If it can't be written there, that is told.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(self) -> Result<Running> {
        let Self { listener, addr, notice, router, bus } = self;
        let (stop, stopped) = oneshot::channel();
        let failed = |error| Error::fatal(Code::Io, addr.to_string(), "the admin listener can't start").caused_by(error);
        let runtime =
            tokio::runtime::Builder::new_current_thread().thread_name("midair-admin").enable_all().build().map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let serve = async move {
            let stopped = async { drop(stopped.await) };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the admin listener ended");
            }
        };
        // Who knows the address does without.
        if let Err(error) = write_notice(&notice, addr) {
            let message = format!(
                "{}: the admin address can't be written: {error}; `midair` finds the host with --admin {addr}, and the next start writes it",
                notice.display()
            );
            bus.say(Event::Warning { message });
        }
        let (alive, ended) = plain::channel();
        let answer = move || {
            let _alive = alive;
            runtime.block_on(serve);
        };
        thread::Builder::new().name("midair-admin".to_owned()).spawn(answer).map_err(failed)?;
        Ok(Running { stop, ended, notice })
    }
}

impl Running {
    /// Takes the address back out of the data folder and ends, once the last answers are out or `patience` is over.
    pub fn stop(self, patience: Duration) {
        if let Err(error) = fs::remove_file(&self.notice) {
            tracing::warn!(%error, path = %self.notice.display(), "the admin address stays written");
        }
        drop(self.stop);
        // Nothing is ever sent: this returns when the thread is over, or late.
        let _ = self.ended.recv_timeout(patience);
    }
}

/// The token that was given, else one that is left in the data folder, so that whoever may read it may ask. What keeps it from being left there is
/// told.
fn token(options: &Options, bus: &Bus) -> Option<String> {
    let file = options.data.join(admin_token::FILE);
    if options.token.is_some() {
        // It may stay if it must: it opens nothing.
        if let Err(error) = admin_token::withdraw(&file) {
            tracing::warn!(%error, path = %file.display(), "the token of an earlier run stays written");
        }
        return options.token.clone();
    }
    admin_token::share(&options.data)
        .inspect_err(|error| {
            let message = format!(
                "{}: no token can be left here: {error}; the admin listener answers /healthz and /readyz alone, unless the host is started with \
                 MIDAIR_ADMIN_TOKEN set",
                file.display()
            );
            bus.say(Event::Warning { message });
        })
        .ok()
}

/// Whoever reads this file sees a whole address or none: it is put in place by rename.
fn write_notice(notice: &Path, addr: SocketAddr) -> io::Result<()> {
    let draft = notice.with_extension("new");
    fs::write(&draft, format!("http://{addr}\n")).and_then(|()| fs::rename(&draft, notice))
}

fn router(room: Room, gate: Gate) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/generations", get(generations))
        .route("/events", get(events))
        .route("/rollback", post(rollback))
        .route("/reload", post(admin_reload::reload))
        .route("/log", get(log).post(refilter))
        .route("/state", admin_tables::tables())
        .route("/state/{plugin}/{table}", admin_tables::table())
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(async || {
            refuse(
                StatusCode::NOT_FOUND,
                "there is no such page; see /status, /generations, /events, /state, /log, /healthz, /readyz, /reload, /rollback",
            )
        })
        .method_not_allowed_fallback(async || refuse(StatusCode::METHOD_NOT_ALLOWED, "this page doesn't take that method"))
        .layer(middleware::from_fn_with_state(Arc::new(gate), guard))
        .with_state(room)
}

async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.check(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refusal { status, reason }) => {
            let mut response = refuse(status, &reason);
            if status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

async fn status(State(room): State<Room>) -> Response {
    looked(move || room.host.status()).await
}

async fn generations(State(room): State<Room>) -> Response {
    looked(move || room.host.generations()).await
}

/// What was found, on another thread: it may take a file or a lock to know it, and `/healthz` is to be answered meanwhile.
async fn looked<T: Serialize + Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(look).await {
        Ok(found) => Json(found).into_response(),
        Err(broken) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &format!("a fault in midair: {broken}")),
    }
}

async fn healthz() -> Response {
    Json(json!({ "alive": true })).into_response()
}

async fn readyz(State(room): State<Room>) -> Response {
    if room.host.ready() {
        return Json(json!({ "ready": true })).into_response();
    }
    let reason = if room.host.is_ending() { "the host is stopping" } else { "not every plugin has code that serves yet" };
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reason": reason }))).into_response()
}

/// What to go back from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    plugin: Option<String>,
    to: Option<u64>,
}

/// Goes back at once and answers with the attempt's record: 409 if there is no way.
async fn rollback(State(room): State<Room>, from: Result<Query<From>, QueryRejection>) -> Response {
    let which = match from {
        Ok(Query(From { plugin: None, to: None })) => Which::Last,
        Ok(Query(From { plugin: Some(plugin), to: None })) => Which::Plugin(plugin),
        Ok(Query(From { plugin: Some(plugin), to: Some(to) })) => Which::To(plugin, to),
        Ok(Query(From { plugin: None, to: Some(_) })) => {
            return refuse(StatusCode::BAD_REQUEST, "a generation's number needs its plugin: ?plugin=NAME&to=NUMBER");
        }
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    // It writes down what is held, and waits for the disk.
    match tokio::task::spawn_blocking(move || room.host.roll_back(&which)).await {
        Ok(record) if record.outcome == Outcome::RolledBack => Json(record).into_response(),
        Ok(record) => refuse(StatusCode::CONFLICT, record.reason.as_deref().unwrap_or_default()),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What of the logs is told; 404 if this program has no filter that can be changed.
async fn log(State(room): State<Room>) -> Response {
    match room.host.logs().filter() {
        Some(filter) => Json(json!({ "filter": filter })).into_response(),
        None => refuse(StatusCode::NOT_FOUND, FIXED),
    }
}

const FIXED: &str = "this program's filter of logs can't be changed from here";

/// Which filter is to hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    filter: String,
}

/// Lets another filter hold, and answers when all plugins have heard of it: 400 if it makes no sense.
async fn refilter(State(room): State<Room>, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let Wanted { filter } = match wanted {
        Ok(Query(wanted)) => wanted,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    // It waits for the plugins to look again.
    let changed = tokio::task::spawn_blocking(move || room.host.logs().refilter(&filter).map(|()| filter)).await;
    match changed {
        Ok(Ok(filter)) => Json(json!({ "filter": filter })).into_response(),
        Ok(Err(Unchanged::Unfit(wrong))) => refuse(StatusCode::BAD_REQUEST, &wrong),
        Ok(Err(Unchanged::Fixed)) => refuse(StatusCode::NOT_FOUND, FIXED),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn events(State(room): State<Room>) -> Response {
    Sse::new(follow(room.host.events())).keep_alive(KeepAlive::default()).into_response()
}

/// The remembered events, then each new one, up to and with the host's last. Ends early for a reader who falls behind.
fn follow(bus: &Bus) -> impl Stream<Item = Result<sse::Event, Infallible>> + use<> {
    stream::unfold(subscribe(bus, QUEUE), async |mut receiver| {
        let event = receiver.recv().await?;
        Some((Ok(message(&event)), receiver))
    })
}

fn subscribe(bus: &Bus, queue: usize) -> mpsc::Receiver<Arc<Event>> {
    let (sender, receiver) = mpsc::channel(queue);
    bus.listen(move |event| sender.try_send(event.clone()).is_ok() && !matches!(**event, Event::Stopped { .. }));
    receiver
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use std::sync::Mutex;

    use crate::report::event::Left;
    use crate::swap;

    const TOKEN: &str = "sesame";

    struct Lab {
        host: Host,
        /// What was asked for, and whether somebody is there to do it.
        asked: Arc<Mutex<(Vec<bool>, bool)>>,
        addr: SocketAddr,
        running: Running,
        data: PathBuf,
    }

    fn lab(name: &str) -> Lab {
        let data = std::env::temp_dir().join(format!("midair-admin-{name}-{}", std::process::id()));
        fs::create_dir_all(&data).expect("a folder");
        let host = Host::new(swap::Options::new(&data)).expect("a host");
        let asked = Arc::new(Mutex::new((Vec::new(), true)));
        let options = Options { addr: ([127, 0, 0, 1], 0).into(), token: Some(TOKEN.to_owned()), data: data.clone() };
        let admin = Admin::bind(host.clone(), noting(&asked), &options).expect("a listener");
        let addr = admin.addr();
        Lab { host, asked, addr, running: admin.start().expect("a thread"), data }
    }

    fn noting(asked: &Arc<Mutex<(Vec<bool>, bool)>>) -> Reload {
        let asked = Arc::clone(asked);
        Arc::new(move |force, _| {
            let mut asked = asked.lock().expect("a lock");
            asked.0.push(force);
            asked.1
        })
    }

    impl Lab {
        fn end(self) {
            self.running.stop(Duration::from_secs(5));
            fs::remove_dir_all(self.data).expect("the folder is ours");
        }
    }

    /// Sends `head` and reads until the other side closes.
    fn ask(addr: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        write!(stream, "{head} HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n")
            .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    #[test]
    fn pages_answer_and_unknown_ones_say_so_in_json() {
        let lab = lab("pages");
        for (head, status, body) in [
            ("GET /healthz", "200 OK", r#"{"alive":true}"#),
            ("GET /status", "200 OK", r#""plugins":"#),
            ("POST /reload?force", "202 Accepted", r#"{"accepted":true}"#),
            ("POST /reload?fast", "400 Bad Request", r#"{"error":""#),
            ("GET /generations", "200 OK", r#"{"generations":[],"libraries":"#),
            ("POST /rollback", "409 Conflict", "nothing was published yet"),
            ("POST /rollback?plugin=shop&to=3", "409 Conflict", "no plugin shop serves"),
            ("POST /rollback?to=3", "400 Bad Request", "?plugin=NAME&to=NUMBER"),
            ("POST /rollback?plugin=shop&to=x", "400 Bad Request", r#"{"error":""#),
            ("POST /rollback?plug=shop", "400 Bad Request", r#"{"error":""#),
            ("GET /state", "200 OK", r#"{"tables":[]}"#),
            ("GET /state/shop/links", "404 Not Found", "no table shop/links"),
            ("POST /state/shop/links?line=x", "400 Bad Request", r#"{"error":""#),
            ("GET /rollback", "405 Method Not Allowed", r#"{"error":""#),
            ("GET /log", "404 Not Found", "can't be changed"),
            ("POST /log?filter=info", "404 Not Found", "can't be changed"),
            ("POST /log?level=info", "400 Bad Request", r#"{"error":""#),
            ("GET /reload", "405 Method Not Allowed", r#"{"error":""#),
            ("GET /nowhere", "404 Not Found", r#"{"error":""#),
        ] {
            let answer = ask(lab.addr, head);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.contains(body), "{head}: {answer}");
        }
        assert_eq!(lab.asked.lock().expect("a lock").0, [true]);
        lab.asked.lock().expect("a lock").1 = false;
        assert!(ask(lab.addr, "POST /reload").starts_with("HTTP/1.1 503 "), "nobody is left to do it");
        lab.end();
    }

    #[test]
    fn events_are_told_from_the_remembered_ones_to_the_last() {
        let lab = lab("events");
        lab.host.events().say(Event::Warning { message: "before".to_owned() });
        let addr = lab.addr;
        let reader = thread::spawn(move || ask(addr, "GET /events"));
        lab.host.events().say(Event::Warning { message: "later".to_owned() });
        lab.host.events().say(Event::Stopped(Left::default()));
        let answer = reader.join().expect("a reader");
        let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text} in {answer}"));
        assert!(at("event: warning\ndata: {\"event\":\"warning\",\"message\":\"before\"}") < at("\"later\""));
        assert!(
            at("\"later\"")
                < at("event: stopped\ndata: {\"event\":\"stopped\",\"abandoned\":0,\"tasks\":0,\"beats\":0,\"messages\":0}")
        );
        lab.end();
    }

    #[test]
    fn the_address_stands_in_the_data_folder_while_the_listener_answers() {
        let lab = lab("notice");
        let notice = lab.data.join("admin");
        assert_eq!(fs::read_to_string(&notice).expect("the notice"), format!("http://{}\n", lab.addr));
        lab.running.stop(Duration::from_secs(5));
        assert!(!notice.exists());
        fs::remove_dir_all(lab.data).expect("the folder is ours");
    }

    #[test]
    fn where_the_address_cannot_be_written_the_listener_answers_and_says_how_it_is_found() {
        let lab = lab("unwritten");
        let options = Options { addr: ([127, 0, 0, 1], 0).into(), token: None, data: lab.data.join("nowhere") };
        let admin = Admin::bind(lab.host.clone(), noting(&lab.asked), &options).expect("a listener");
        let addr = admin.addr();
        let running = admin.start().expect("it answers");
        assert!(ask(addr, "GET /healthz").starts_with("HTTP/1.1 200 "));
        assert!(ask(addr, "GET /status").starts_with("HTTP/1.1 403 "), "nobody can know a token");
        let told = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&told);
        // What is remembered is told first.
        lab.host.events().listen(move |event| {
            if let Event::Warning { message } = &**event {
                hears.lock().expect("a lock").push_str(message);
            }
            true
        });
        let told = told.lock().expect("a lock").clone();
        assert!(
            told.contains("nowhere/admin-token: no token")
                && told.contains("nowhere/admin: ")
                && told.contains(&format!("--admin {addr}")),
            "{told}"
        );
        running.stop(Duration::from_secs(5));
        lab.end();
    }

    #[test]
    fn a_taken_address_is_named_with_the_way_out() {
        let lab = lab("taken");
        let options = Options { addr: lab.addr, token: None, data: lab.data.clone() };
        let error = Admin::bind(lab.host.clone(), noting(&lab.asked), &options).err().expect("a refusal");
        assert_eq!((error.code(), error.subject()), (Code::Io, lab.addr.to_string().as_str()));
        assert!(error.help_text().is_some_and(|help| help.contains("--admin")));
        lab.end();
    }

    #[test]
    fn a_reader_who_falls_behind_is_let_go() {
        let bus = Bus::default();
        let mut receiver = subscribe(&bus, 2);
        for _ in 0..3 {
            bus.say(Event::Warning { message: String::new() });
        }
        assert!(receiver.try_recv().is_ok() && receiver.try_recv().is_ok());
        assert_eq!(receiver.try_recv().err(), Some(mpsc::error::TryRecvError::Disconnected));
    }
}

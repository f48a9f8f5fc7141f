//! What does a running host say when it is asked from another terminal?
//!
//! Asks one thing over HTTP and shows the answer. Knows nothing of the host but what the admin pages say.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::args::Client;
use super::signals;
use super::whereabouts::{self, Host};
use super::{exit, render, table, tame};
use crate::error::{Code, Error, Result};
use crate::event::Event;
use crate::swap::Which;

/// How long the host may take to answer. It answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// `midair status`: what serves, and what became of the last changes.
///
/// # Errors
///
/// No host answers, or it refuses.
pub fn status(ask: &Client) -> Result<()> {
    let body = once(ask, Method::GET, "/status")?;
    if ask.json {
        return print(&body);
    }
    let status = tamed(&body).map_err(|error| odd_answer("/status").caused_by(error))?;
    print(table::status(&status).trim_end())
}

/// `midair generations`: what exists, and what holds it.
///
/// # Errors
///
/// No host answers, or it refuses.
pub fn generations(ask: &Client) -> Result<()> {
    let body = once(ask, Method::GET, "/generations")?;
    if ask.json {
        return print(&body);
    }
    let generations = tamed(&body).map_err(|error| odd_answer("/generations").caused_by(error))?;
    print(table::generations(&generations).trim_end())
}

/// `midair rollback`: puts the code back that served before.
///
/// # Errors
///
/// No host answers, or there is no way back.
pub fn rollback(ask: &Client, which: Option<&Which>) -> Result<()> {
    let page = match which {
        None | Some(Which::Last) => "/rollback".to_owned(),
        Some(Which::Plugin(plugin)) => format!("/rollback?plugin={plugin}"),
        Some(Which::To(plugin, to)) => format!("/rollback?plugin={plugin}&to={to}"),
    };
    let body = once(ask, Method::POST, &page)?;
    if ask.json {
        return print(&body);
    }
    let record = tamed(&body).map_err(|error| odd_answer("/rollback").caused_by(error))?;
    print(table::rolled_back(&record).trim_end())
}

/// `midair reload`: has the host look again for changes, and says what came of it. The status to end with.
///
/// # Errors
///
/// No host answers, it refuses to look, or it ends before it is over.
pub fn reload(ask: &Client, force: bool, wait: bool) -> Result<i32> {
    let page = if force { "/reload?force" } else { "/reload" };
    if wait {
        return inside(outcome(ask, &format!("{page}{}wait", if force { "&" } else { "?" })));
    }
    let body = once(ask, Method::POST, page)?;
    print(if ask.json { &body } else { "accepted: the host looks again; `midair events` tells what comes of it" })?;
    Ok(0)
}

/// What came of a reload, as the host says it last.
#[derive(Deserialize)]
struct Outcome {
    outcome: String,
}

async fn outcome(ask: &Client, page: &str) -> Result<i32> {
    let answer = timeout(PATIENCE, send(ask, Method::POST, page, Bytes::new())).await;
    let Ok(answer) = answer else { return Err(silent(&whereabouts::find(ask)?.address)) };
    let mut body = answer?.into_body();
    let (mut lines, mut is_told) = (Lines::default(), false);
    let over = || Error::fatal(Code::Io, "", "the host ended, or lost the loop that looks for changes, before the reload was over");
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| over().caused_by(error))?.into_data() else { continue };
        lines.push(&data);
        while let Some(line) = lines.next() {
            let Some(json) = line.strip_prefix("data:").map(str::trim_start) else { continue };
            let event = serde_json::from_str::<Event>(json).ok();
            if ask.json {
                print(json)?;
            } else if let Some(event) = &event {
                is_told |= tell(event)?;
            }
            if event.is_none()
                && let Ok(Outcome { outcome }) = serde_json::from_str(json)
            {
                if !is_told && !ask.json {
                    print(&tame::text(&outcome))?;
                }
                return Ok(if outcome == "rejected" { exit::REFUSED } else { 0 });
            }
        }
    }
    Err(over())
}

/// Says it as the host would, what was refused and what the compiler said on stderr; whether there was something to say.
fn tell(event: &Event) -> Result<bool> {
    let complains = matches!(event, Event::Rejected { .. } | Event::Diagnostic { .. } | Event::Warning { .. });
    let is_terminal = if complains { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let Some(shown) = render::line(event, render::color_wanted(is_terminal)) else { return Ok(false) };
    if complains {
        // Where even stderr is gone, the exit status still tells.
        let _ = writeln!(io::stderr(), "{shown}");
    } else {
        print(&shown)?;
    }
    Ok(true)
}

/// `midair log`: what of the logs is told, or is to be told from now on.
///
/// # Errors
///
/// No host answers, or it refuses.
pub fn log(ask: &Client, filter: Option<&str>) -> Result<()> {
    let body = match filter {
        None => once(ask, Method::GET, "/log")?,
        Some(filter) => {
            let filter = utf8_percent_encode(filter, NON_ALPHANUMERIC);
            once(ask, Method::POST, &format!("/log?filter={filter}"))?
        }
    };
    if ask.json {
        return print(&body);
    }
    let told = tamed::<serde_json::Value>(&body).map_err(|error| odd_answer("/log").caused_by(error))?;
    print(told["filter"].as_str().ok_or_else(|| odd_answer("/log"))?)
}

/// `midair events`: what the host remembers and then all that happens, until it ends, nobody reads, or a signal comes.
///
/// # Errors
///
/// No host answers, it refuses, or it goes away without a word.
pub fn events(ask: &Client) -> Result<()> {
    inside(async {
        tokio::select! {
            outcome = follow(ask) => outcome,
            interrupted = signals::interrupted() => interrupted,
        }
    })
}

async fn follow(ask: &Client) -> Result<()> {
    let mut body = send(ask, Method::GET, "/events", Bytes::new()).await?.into_body();
    let color = render::color_wanted(io::stdout().is_terminal());
    let mut out = io::stdout();
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| gone().caused_by(error))?.into_data() else { continue };
        lines.push(&data);
        while let Some(line) = lines.next() {
            // Each event is one `data:` line; its name, comments and blank lines repeat or say nothing.
            let Some(json) = line.strip_prefix("data:").map(str::trim_start) else { continue };
            let event = serde_json::from_str::<Event>(json);
            let shown = match &event {
                Ok(event) if !ask.json => render::line(event, color),
                // So is an event that only a newer host knows.
                _ => Some(json.to_owned()),
            };
            if shown.is_some_and(|shown| writeln!(out, "{shown}").and_then(|()| out.flush()).is_err())
                || matches!(event, Ok(Event::Stopped { .. }))
            {
                return Ok(());
            }
        }
    }
    Err(gone())
}

pub(super) fn gone() -> Error {
    Error::fatal(Code::Io, "", "the host went away, or this reader was too slow for it")
}

pub(super) fn odd_answer(page: &str) -> Error {
    Error::fatal(Code::Io, page, "the answer isn't one that this version of midair knows")
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = self.0.drain(..=end).collect::<Vec<_>>();
        Some(String::from_utf8_lossy(&line[..end]).trim_end_matches('\r').to_owned())
    }
}

/// An answer with nothing in it that a terminal obeys.
pub(super) fn tamed<T: DeserializeOwned>(body: &str) -> serde_json::Result<T> {
    let mut answer = serde_json::from_str(body)?;
    tame::json(&mut answer);
    serde_json::from_value(answer)
}

pub(super) fn print(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        // Whoever closes the pipe has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::fatal(Code::Io, "stdout", "it can't be written").caused_by(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn inside<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let failed = |error| Error::fatal(Code::Io, "", "the client can't start").caused_by(error);
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?.block_on(work)
}

/// Asks for one page and reads it to its end.
pub(super) fn once(ask: &Client, method: Method, page: &str) -> Result<String> {
    inside(async {
        let answer =
            async { send(ask, method, page, Bytes::new()).await?.collect().await.map_err(|error| gone().caused_by(error)) };
        let Ok(body) = timeout(PATIENCE, answer).await else { return Err(silent(&whereabouts::find(ask)?.address)) };
        Ok(String::from_utf8_lossy(&body?.to_bytes()).into_owned())
    })
}

/// Sends one request and answers with the response, if the host agreed to it.
pub(super) async fn send(ask: &Client, method: Method, page: &str, body: Bytes) -> Result<Response<Incoming>> {
    let Host { address, token } = whereabouts::find(ask)?;
    let silent = |error| silent(&address).caused_by(error);
    let connected = timeout(PATIENCE, TcpStream::connect(&address)).await;
    let stream = connected.map_err(io::Error::from).and_then(|stream| stream).map_err(silent)?;
    let peer = stream.peer_addr().map_err(silent)?;
    let odd = |error: hyper::Error| odd_answer(page).caused_by(error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(odd)?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(page).header(header::HOST, peer.to_string());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let unfit = |error| Error::fatal(Code::Usage, "", "this token can't be sent in a header").caused_by(error);
    let request = request.body(Full::new(body)).map_err(unfit)?;
    let response = sender.send_request(request).await.map_err(odd)?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = response.collect().await.map_err(odd)?.to_bytes();
    Err(refused(&address, status, &body))
}

fn silent(address: &str) -> Error {
    Error::fatal(Code::Io, "", format!("no host answers at {address}"))
        .help("start one with `midair dev`, or say where it is: --admin ADDR or --data DIR")
}

fn refused(address: &str, status: StatusCode, body: &[u8]) -> Error {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let reason = said.as_ref().and_then(|said| said.get("error")?.as_str()).unwrap_or("it doesn't look like a midair host");
    let error = Error::fatal(Code::Io, address, format!("the host refused ({status}): {reason}"));
    if status == StatusCode::UNAUTHORIZED {
        error.help(
            "name the host's data folder, which has its token: --data DIR; or set MIDAIR_ADMIN_TOKEN to what the host was given",
        )
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_is_one_message_that_names_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
        let error = status(&Client { admin: Some(free.to_string()), data: None, admin_token: None, json: false })
            .expect_err("nobody listens");
        assert_eq!(error.to_string(), format!("no host answers at {free}"));
        assert_eq!(error.code(), Code::Io);
    }

    #[test]
    fn lines_are_whole_however_the_bytes_arrive() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in ["data: {\"a\"", ":1}\r\n\n", ": keep", "-alive\nda"] {
            lines.push(piece.as_bytes());
            seen.extend(std::iter::from_fn(|| lines.next()));
        }
        assert_eq!(seen, ["data: {\"a\":1}", "", ": keep-alive"]);
    }
}

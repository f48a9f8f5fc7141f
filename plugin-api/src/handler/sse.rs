//! How is a stream of events answered, as browsers' `EventSource` reads it?
//!
//! ```
//! use midair_plugin::sse::{Event, Sse};
//! use midair_plugin::{Ctx, IntoResponse, Request};
//! # use std::pin::Pin;
//! # use std::task::{Context, Poll};
//! # struct Ticks;
//! # impl midair_plugin::Stream for Ticks {
//! #     type Item = midair_plugin::Result<Event>;
//! #     fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<midair_plugin::Result<Event>>> {
//! #         Poll::Ready(None)
//! #     }
//! # }
//!
//! fn events(_: Request, ctx: Ctx) -> impl IntoResponse {
//!     Sse::new(Ticks).keep_alive(&ctx, Sse::PAUSE)
//! }
//! # midair_plugin::test::App::new(midair_plugin::Plugin::new().get("/", events)).get("/");
//! ```

use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::handler::response::{IntoResponse, Response};
use crate::host::ctx::Ctx;

/// An event of a stream. What isn't set isn't sent.
///
/// ```
/// # use midair_plugin::sse::Event;
/// let event = Event::new("one\ntwo").name("lines").id("7");
/// assert_eq!(event.to_string(), "event: lines\ndata: one\ndata: two\nid: 7\n\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "an event is sent by the stream that yields it"]
pub struct Event {
    comment: Option<String>,
    name: Option<String>,
    data: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
}

impl Event {
    /// An event with this data, which may have several lines.
    pub fn new(data: impl Into<String>) -> Self {
        Self { data: Some(data.into()), ..Self::default() }
    }

    /// An event with this data as JSON.
    ///
    /// # Errors
    ///
    /// If it can't be written as JSON.
    pub fn json(data: &impl Serialize) -> Result<Self> {
        Ok(Self::new(serde_json::to_string(data)?))
    }

    /// A comment, which clients skip.
    pub fn comment(text: impl Into<String>) -> Self {
        Self { comment: Some(text.into()), ..Self::default() }
    }

    /// What kind of event it is; `message` if this isn't said. It is one line: what would end it is left out.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What a client that connects again says it has seen, in `Last-Event-ID`. It is one line: what would end it is left out.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How long a client waits before it connects again, to the millisecond.
    pub fn retry(mut self, pause: Duration) -> Self {
        self.retry = Some(pause);
        self
    }
}

/// As it is sent: fields in lines, and an empty line as its end.
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { comment, name, data, id, retry } = self;
        for line in comment.iter().flat_map(|text| lines(text)) {
            writeln!(f, ": {line}")?;
        }
        // A NUL in an id makes clients ignore it.
        let line = |text: &str| text.replace(['\r', '\n', '\0'], "");
        if let Some(name) = name {
            writeln!(f, "event: {}", line(name))?;
        }
        for line in data.iter().flat_map(|text| lines(text)) {
            writeln!(f, "data: {line}")?;
        }
        if let Some(id) = id {
            writeln!(f, "id: {}", line(id))?;
        }
        if let Some(retry) = retry {
            writeln!(f, "retry: {}", retry.as_millis())?;
        }
        f.write_char('\n')
    }
}

/// Its lines as clients tell them apart: by LF, CR, or both together.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else { return rest.take() };
        let behind = &text[end..];
        rest = Some(behind.strip_prefix("\r\n").unwrap_or(&behind[1..]));
        Some(&text[..end])
    })
}

/// An answer of events, as they come: `text/event-stream`, which nobody may keep.
///
/// It stays on the code that began it until it ends, whatever is swapped meanwhile.
#[derive(Debug)]
#[must_use = "a stream of events is returned by a handler"]
pub struct Sse<S> {
    events: S,
    alive: Option<(Link, Duration)>,
}

struct Link(Ctx);

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.plugin())
    }
}

impl Sse<()> {
    /// A pause that proxies and clients take for no end: 15 s.
    pub const PAUSE: Duration = Duration::from_secs(15);
}

impl<S, E> Sse<S>
where
    S: Stream<Item = Result<Event, E>> + Send + 'static,
    E: Into<Error>,
{
    /// An answer of these events.
    pub fn new(events: S) -> Self {
        Self { events, alive: None }
    }

    /// Sends an empty comment whenever nothing was sent for so long, [`Sse::PAUSE`] as a rule: else somebody between here and the client
    /// may take the connection for dead, and a client that has gone is noticed only by what is sent to it. The host keeps the time.
    pub fn keep_alive(mut self, ctx: &Ctx, pause: Duration) -> Self {
        self.alive = Some((Link(ctx.clone()), pause));
        self
    }
}

impl<S, E> IntoResponse for Sse<S>
where
    S: Stream<Item = Result<Event, E>> + Send + 'static,
    E: Into<Error>,
{
    fn into_response(self) -> Response {
        let alive = self.alive.map(|(Link(ctx), pause)| Alive { timer: timer(&ctx, pause), ctx, pause, since: Instant::now() });
        let mut response = Response::stream(Lines { events: Box::pin(self.events), alive });
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

type Timer = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

fn timer(ctx: &Ctx, pause: Duration) -> Timer {
    Box::pin(ctx.sleep(pause))
}

/// Events as bytes, with comments between them where it is quiet.
struct Lines<S> {
    events: Pin<Box<S>>,
    alive: Option<Alive>,
}

struct Alive {
    ctx: Ctx,
    pause: Duration,
    timer: Timer,
    /// When something was sent last.
    since: Instant,
}

impl Alive {
    /// Ready when it was quiet for too long. One timer goes from pause to pause, however many events come meanwhile.
    fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while self.timer.as_mut().poll(context)?.is_ready() {
            let quiet = self.since.elapsed();
            let is_late = quiet >= self.pause;
            if is_late {
                self.since = Instant::now();
            }
            self.timer = timer(&self.ctx, if is_late { self.pause } else { self.pause - quiet });
            if is_late {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl<S, E> Stream for Lines<S>
where
    S: Stream<Item = Result<Event, E>>,
    E: Into<Error>,
{
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Poll::Ready(event) = self.events.as_mut().poll_next(context) {
            if let Some(alive) = &mut self.alive {
                alive.since = Instant::now();
            }
            return Poll::Ready(event.map(|event| event.map(|event| event.to_string().into()).map_err(Into::into)));
        }
        let Some(alive) = &mut self.alive else { return Poll::Pending };
        alive.poll_quiet(context).map(|quiet| Some(quiet.map(|()| Bytes::from_static(b":\n\n"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_clients_read_them() {
        for (event, text) in [
            (Event::new("x"), "data: x\n\n"),
            (Event::new(""), "data: \n\n"),
            (Event::new(" led by a space"), "data:  led by a space\n\n"),
            (Event::new("a\nb\r\nc\rd\n"), "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
            (Event::new("\r\n\n\r"), "data: \ndata: \ndata: \ndata: \n\n"),
            (Event::new("x").name("n").id("1"), "event: n\ndata: x\nid: 1\n\n"),
            (Event::new("x").name("n\ndata: y").id("1\r\n2\0"), "event: ndata: y\ndata: x\nid: 12\n\n"),
            (Event::default().retry(Duration::from_millis(1500)), "retry: 1500\n\n"),
            (Event::comment("two\nlines"), ": two\n: lines\n\n"),
            (Event::json(&[1, 2]).expect("JSON"), "data: [1,2]\n\n"),
        ] {
            assert_eq!(event.to_string(), text, "{event:?}");
        }
    }

    /// Nothing, for ever.
    struct Quiet;

    impl Stream for Quiet {
        type Item = Result<Event>;
        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
            Poll::Pending
        }
    }

    #[test]
    fn where_nothing_comes_comments_are_sent() {
        let quiet = |_, ctx: Ctx| Sse::new(Quiet).keep_alive(&ctx, Duration::from_millis(1));
        let app = crate::test::App::new(crate::Plugin::new().get("/", quiet));
        let answer = app.get("/");
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let kinds = (header("content-type"), header("cache-control"));
        assert_eq!(kinds, (Some("text/event-stream".to_owned()), Some("no-cache".to_owned())));
        let mut body = answer.into_stream();
        for _ in 0..3 {
            let chunk = crate::glue::operation::block_on(body.chunk());
            assert_eq!(chunk.expect("no error").as_deref(), Some(&b":\n\n"[..]));
        }
    }
}

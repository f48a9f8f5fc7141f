//! What goes on beside a request?
//!
//! A future that is spawned is polled by the host, on threads that run nothing else. Its result stays on this side: the host learns only
//! how it ended.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_channel::oneshot::{Receiver, Sender, channel};
use http::StatusCode;
use midair_abi::wall;
use midair_abi::{Host, Outcome};

use crate::error::{Error, Result};
use crate::glue::operation::Operation;
use crate::host::ctx::Ctx;
use crate::host::link::Link;

/// Work that was spawned. Await it for its result; dropped, it goes on without anybody waiting.
#[must_use = "a task goes on when this is dropped; say so with `drop`"]
pub struct Task<T> {
    end: Receiver<Result<T>>,
    id: u64,
    link: Link,
}

impl<T> Task<T> {
    /// Ends the work where it waits: its future is dropped, soon and on another thread. What is over stays as it is.
    pub fn cancel(&self) {
        self.link.cancel(self.id);
    }
}

/// Its result, or an error if it panicked, was cancelled or dropped, or was refused since its generation was rejected.
impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let gone = |_| Err(Error::internal("the task was dropped before it was done"));
        Pin::new(&mut self.end).poll(context).map(|end| end.unwrap_or_else(gone))
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A future whose result is sent to whoever waits for it.
struct Work<F: Future> {
    future: Pin<Box<F>>,
    end: Option<Sender<Result<F::Output>>>,
}

impl<F: Future> Future for Work<F> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let Self { future, end } = &mut *self;
        let (result, outcome) = match wall::guard(|| future.as_mut().poll(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => (Ok(output), Outcome::done()),
            Err(panic) => (Err(Error::internal(format!("the task panicked: {}", panic.message))), Outcome::panicked(panic)),
        };
        if let Some(end) = end.take() {
            // Nobody has to wait for it.
            drop(end.send(result));
        }
        Poll::Ready(outcome)
    }
}

impl Ctx {
    /// Runs `future` beside this request, and after its answer if need be. It belongs to the request: it stays on the code and the snapshot
    /// to which that was admitted, and shows as the request in flight until it is done.
    ///
    /// The host polls it, on threads that serve no requests; one that never awaits holds one of them. Everything in it is dropped by this
    /// generation's code. In `init` it waits for the publish, and is dropped if there is none; in the probe it never starts.
    ///
    /// ```
    /// # use midair_plugin::{Ctx, Request, Result};
    /// async fn order(_: Request, ctx: Ctx) -> Result<&'static str> {
    ///     let mails = ctx.counter("mails");
    ///     drop(ctx.spawn(async move { mails.add(1).await }));
    ///     Ok("thank you")
    /// }
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let at = Location::caller();
        self.0.clone().start(&format!("{}:{}", at.file(), at.line()), 0, future)
    }

    /// Runs work that belongs to no request but to this generation of the code, which it keeps in memory until it is done. `name` shows in
    /// `midair status`.
    ///
    /// What its own [`Ctx`] calls is admitted to what serves then. When newer code was published [`retiring`](Self::retiring) is done: end
    /// soon, for nobody drops it before the host ends. Work that newer code should take over belongs into [`Plugin::task`](crate::Plugin::task).
    pub fn spawn_free<F>(&self, name: &str, work: impl FnOnce(Ctx) -> F) -> Task<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let ctx = Ctx(self.0.detached());
        let link = ctx.0.clone();
        link.start(name, 0, work(ctx))
    }

    /// The same for work that may be dropped where it waits, some time after newer code was published (`--retire-timeout`).
    pub fn spawn_until_retire<F>(&self, name: &str, work: impl FnOnce(Ctx) -> F) -> Task<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let ctx = Ctx(self.0.detached());
        let link = ctx.0.clone();
        link.start(name, Host::UNTIL_RETIRE, work(ctx))
    }

    /// Done when newer code was published, so that new requests reach this code no more, when this code was refused, and when the host is to
    /// end. It may be asked for in `init` already. In tests never.
    ///
    /// The end waits, up to `--drain-timeout`, for requests and what they spawned, for beats, messages and [`spawn_free`](Self::spawn_free);
    /// for declared tasks and [`spawn_until_retire`](Self::spawn_until_retire) if they have asked for this.
    pub fn retiring(&self) -> Operation<impl Future<Output = ()> + Send + 'static> {
        let link = self.0.clone();
        Operation::new(async move { link.retiring().await })
    }

    /// `future`'s result, unless that takes longer than `limit`; then it is dropped.
    ///
    /// # Errors
    ///
    /// A 504 that says how long the limit was.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output> {
        let (mut future, mut late) = (std::pin::pin!(future), std::pin::pin!(self.sleep(limit)));
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let late = late.as_mut().poll(context);
            late.map(|slept| {
                slept?;
                Err(Error::new(StatusCode::GATEWAY_TIMEOUT, format!("it took longer than {} s", limit.as_secs_f64())))
            })
        })
        .await
    }

    /// Ticks every `period`, at once for the first time. A tick that comes late moves none of the later ones; ticks that were missed
    /// altogether are left out. A period of zero ticks whenever it is asked.
    #[must_use]
    pub fn interval(&self, period: Duration) -> Interval {
        Interval { ctx: self.clone(), period, next: Instant::now() }
    }
}

impl Link {
    fn start<F>(self, name: &str, flags: u32, future: F) -> Task<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (sender, end) = channel();
        let work = Work { future: Box::pin(future), end: Some(sender) };
        let id = self.spawn(name, flags, Box::pin(work));
        Task { end, id, link: self }
    }
}

/// Ticks; see [`Ctx::interval`].
pub struct Interval {
    ctx: Ctx,
    period: Duration,
    next: Instant,
}

impl Interval {
    /// Done at the next tick.
    ///
    /// # Errors
    ///
    /// If this generation was rejected before publish.
    pub async fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        if let Some(wait) = self.next.checked_duration_since(now).filter(|wait| !wait.is_zero()) {
            self.ctx.sleep(wait).await?;
        }
        let now = Instant::now();
        self.next += self.period;
        if self.next < now && !self.period.is_zero() {
            let missed = (now - self.next).as_nanos() / self.period.as_nanos() + 1;
            self.next += self.period * u32::try_from(missed).unwrap_or(u32::MAX);
        }
        Ok(())
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interval").field("period", &self.period).finish_non_exhaustive()
    }
}

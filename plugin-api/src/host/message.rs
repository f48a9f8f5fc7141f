//! What do plugins tell each other?
//!
//! Messages go by topic, over the host: whoever emits knows no receiver, and what waits to be received lies in the host's memory as
//! MessagePack with named fields, as state does.

use std::fmt;

use midair_abi::{Handler, meta};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::glue::operation::Operation;
use crate::handler::plugin::{IntoReply, Plugin};
use crate::host::ctx::Ctx;
use crate::host::state;

/// What a plugin receives and how; see [`Plugin::on_with`].
#[derive(Clone, Debug)]
#[must_use]
pub struct On {
    topic: String,
    queue: usize,
    at_once: usize,
}

impl On {
    /// Messages of `topic`: up to 1,024 may wait, and they are handled one after the other.
    pub fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), queue: 1024, at_once: 1 }
    }

    /// How many messages may wait; at least 1.
    pub fn queue(self, messages: usize) -> Self {
        Self { queue: messages.max(1), ..self }
    }

    /// How many messages may be handled at once, at least 1. From 2 on their order is lost.
    pub fn at_once(self, messages: usize) -> Self {
        Self { at_once: messages.max(1), ..self }
    }
}

impl Plugin {
    /// Receives the messages of a topic, as `T`, whoever emits them: a plugin, this one too, or the host.
    ///
    /// Each message is handled once, by the code that serves when its turn comes, one after the other in the order in which the host took
    /// them. Messages that wait outlive swaps. Those for which newer code has no handler are dropped, which is told; while it is on trial, and
    /// code that has one would come back, they wait for that. A message that can't be read as `T`, an error and a panic are told,
    /// counted as a failed answer, and the next message follows.
    ///
    /// At most 1,024 wait, and 64 MiB; [`on_with`](Self::on_with) changes the number. They wait in memory: what waits when the host ends is lost.
    ///
    /// ```
    /// use midair_plugin::{Ctx, Plugin, Result};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Paid {
    ///     order: u64,
    /// }
    ///
    /// async fn ship(paid: Paid, ctx: Ctx) -> Result<()> {
    ///     ctx.info(format!("order {} is paid", paid.order));
    ///     Ok(())
    /// }
    ///
    /// let plugin = Plugin::new().on("order.paid", ship);
    /// ```
    ///
    /// A handler that waits for what nothing can wake it for, as `std::future::pending`, is dropped, told and counted as one that failed.
    /// One that still runs some time after newer code was published (`--retire-timeout`) is dropped where it waits, and its message has
    /// failed; one that never pauses can't be, and is left behind: the topic goes on with the newer code.
    ///
    /// A second handler of the same topic has the host reject the plugin.
    pub fn on<T, R, M>(self, topic: &str, handler: impl Fn(T, Ctx) -> R + Send + Sync + 'static) -> Self
    where
        T: DeserializeOwned,
        R: IntoReply<M>,
    {
        self.on_with(On::new(topic), handler)
    }

    /// The same with more to say.
    ///
    /// ```
    /// # use midair_plugin::{Ctx, On, Plugin};
    /// let thumbnails = On::new("image.added").queue(64).at_once(4);
    /// let plugin = Plugin::new().on_with(thumbnails, |path: String, ctx: Ctx| ctx.info(path));
    /// ```
    pub fn on_with<T, R, M>(mut self, on: On, handler: impl Fn(T, Ctx) -> R + Send + Sync + 'static) -> Self
    where
        T: DeserializeOwned,
        R: IntoReply<M>,
    {
        let On { topic, queue, at_once } = on;
        let more = vec![(meta::QUEUE, queue.to_string()), (meta::AT_ONCE, at_once.to_string())];
        let of = topic.clone();
        self.add_work(Handler::MESSAGE, &topic, more, move |request, ctx| match state::decode::<T>(request.body()) {
            Ok(message) => handler(message, ctx).into_reply(),
            Err(misfit) => Err::<(), _>(Error::internal(format!("a message of {of} {misfit}"))).into_reply(),
        });
        self
    }
}

impl Ctx {
    /// Emits a message to all who receive `topic`. Done once the queue of each of them took it, which all do at once: while one is full
    /// this waits. A topic that nobody receives takes messages too; `midair status` counts them.
    ///
    /// In `init` it is done at once: the message waits for the publish, and is dropped if there is none. In the probe it reaches nobody.
    /// A handler that emits to its own topic waits for itself when that is full: use [`try_emit`](Self::try_emit) there.
    ///
    /// ```
    /// # use midair_plugin::{Ctx, Request, Result};
    /// #[derive(serde::Serialize)]
    /// struct Paid {
    ///     order: u64,
    /// }
    ///
    /// async fn pay(_: Request, ctx: Ctx) -> Result<&'static str> {
    ///     ctx.emit("order.paid", &Paid { order: 7 }).await?;
    ///     Ok("thank you")
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// If the message can't be written, if this generation was rejected before publish, or if its `init` emits more than 1,024.
    pub fn emit<T: Serialize>(&self, topic: &str, message: &T) -> Operation<impl Future<Output = Result<()>> + Send + 'static> {
        let (link, topic, bytes) = (self.0.clone(), topic.to_owned(), encode(topic, message));
        Operation::new(async move { link.emit(&topic, &bytes?, true).await })
    }

    /// The same without waiting.
    ///
    /// # Errors
    ///
    /// Also if a queue is full: a 503 that names the plugin whose it is. Then nobody got the message.
    pub fn try_emit<T: Serialize>(&self, topic: &str, message: &T) -> Operation<impl Future<Output = Result<()>> + Send + 'static> {
        let (link, topic, bytes) = (self.0.clone(), topic.to_owned(), encode(topic, message));
        Operation::new(async move { link.emit(&topic, &bytes?, false).await })
    }
}

/// A message that was emitted in a test; see [`App::emitted`](crate::test::App::emitted).
#[derive(Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Its topic.
    pub topic: String,
    /// What was emitted, as MessagePack.
    pub bytes: Vec<u8>,
}

impl Emitted {
    /// The message as a `T`.
    ///
    /// # Errors
    ///
    /// If it can't be read as one.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        decode(&self.topic, &self.bytes)
    }
}

impl fmt::Debug for Emitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.topic, self.bytes.len())
    }
}

/// A value as what crosses, for hosts that emit or serve themselves.
///
/// # Errors
///
/// If it can't be written as MessagePack; names `what`.
pub fn encode<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|error| Error::internal(format!("{what}: it can't be written: {error}")))
}

/// What crossed as a value, for hosts that receive or serve themselves.
///
/// # Errors
///
/// If it can't be read as a `T`; names `what`, the path within the value and what was expected.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    state::decode(bytes).map_err(|misfit| Error::internal(format!("{what}: it {misfit}")))
}

//! What do a custom host and its plugins say to each other?

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::host::Host;
use crate::resources::host_services::Caller;

impl Host {
    /// Emits a message to every plugin that takes `topic`, as `Ctx::emit` does. Done once each has it in its queue;
    /// while one is full this waits. No plugin code runs inside.
    ///
    /// # Errors
    ///
    /// If the message can't be written as MessagePack.
    pub async fn emit<T: Serialize + ?Sized>(&self, topic: &str, message: &T) -> Result<(), String> {
        let bytes = encode(topic, message)?;
        Arc::clone(&self.shared.context.messages).emit(topic.to_owned(), bytes.into()).await;
        Ok(())
    }

    /// The same without waiting.
    ///
    /// # Errors
    ///
    /// Also if a queue is full; then nobody got it.
    pub fn try_emit<T: Serialize + ?Sized>(&self, topic: &str, message: &T) -> Result<(), String> {
        let bytes = encode(topic, message)?;
        self.shared.context.messages.try_emit(topic, &bytes.into()).map_err(|full| full.to_string())
    }

    /// Takes the messages of a topic, in order, as MessagePack that `midair_plugin::message::decode` reads. Up to 1,024 may wait. It runs on the threads
    /// for work beside requests, and holds one; a panic in it is caught and told.
    pub fn on(&self, topic: &str, listener: impl Fn(Bytes) + Send + Sync + 'static) {
        self.shared.context.messages.listen(topic, Arc::new(listener));
    }

    /// Offers plugins a function by name, before or after they are loaded; one of the same name is replaced. They call it with
    /// `Ctx::service`; request and answer are MessagePack where they do, which `midair_plugin::message` reads and writes.
    ///
    /// It runs on the thread of the plugin's handler. Its error is the plugin's, and a panic in it is caught and told to the plugin. A probe
    /// offers nothing: it is another process.
    ///
    /// ```no_run
    /// # use midair::swap::{Host, Options};
    /// # let host = Host::new(Options::new("/tmp/midair"))?;
    /// host.offer("double", |request, _caller| {
    ///     let number: u32 = midair_plugin::message::decode("double", &request).map_err(|error| error.to_string())?;
    ///     let bytes = midair_plugin::message::encode("double", &(2 * number)).map_err(|error| error.to_string())?;
    ///     Ok(bytes.into())
    /// });
    /// # Ok::<(), midair::error::Error>(())
    /// ```
    pub fn offer(&self, name: &str, service: impl Fn(Bytes, &Caller) -> Result<Bytes, String> + Send + Sync + 'static) {
        self.shared.context.offers.offer(name, service);
    }

    /// The same for a function that answers with a future. That is polled where the plugin's own is, with no runtime of the host's around it.
    pub fn offer_async<F>(&self, name: &str, service: impl Fn(Bytes, Caller) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Bytes, String>> + Send + 'static,
    {
        self.shared.context.offers.offer_async(name, move |request, caller| Box::pin(service(request, caller)));
    }
}

/// A message as plugins read it.
fn encode<T: Serialize + ?Sized>(topic: &str, message: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(message).map_err(|error| format!("{topic}: it can't be written: {error}"))
}

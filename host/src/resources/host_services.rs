//! What does a custom host do for its plugins?
//!
//! Functions by name, which live as long as the host: what is behind them, such as a pool, no swap touches. They run on the thread of
//! whoever asks; a panic in one is an error for that plugin and no more.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use midair_abi::wall;
use parking_lot::RwLock;

/// Which plugin asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// Its name.
    pub plugin: String,
    /// The generation's number.
    pub generation: u64,
    /// Whether that isn't published yet, and may be rejected: it asks in its `init`.
    pub is_candidate: bool,
}

impl Caller {
    pub(crate) fn new(plugin: &str, generation: u64, is_candidate: bool) -> Self {
        Self { plugin: plugin.to_owned(), generation, is_candidate }
    }
}

/// What a service answers: bytes, or an error's text.
pub(crate) type Answered = Result<Bytes, String>;

/// An answer that is to come.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// Answers at once, or with a future.
pub(crate) enum Asked {
    /// It is there.
    Now(Answered),
    /// It will be.
    Later(Answering),
}

type Function = dyn Fn(Bytes, &Caller) -> Answered + Send + Sync;
type AsyncFunction = dyn Fn(Bytes, Caller) -> Answering + Send + Sync;

#[derive(Clone)]
enum Offer {
    Now(Arc<Function>),
    Later(Arc<AsyncFunction>),
}

/// All that a host offers, by name.
#[derive(Default)]
pub(crate) struct Offers(RwLock<BTreeMap<String, Offer>>);

impl Offers {
    /// Offers a function, in place of an earlier one of that name.
    pub(crate) fn offer(&self, name: &str, service: impl Fn(Bytes, &Caller) -> Answered + Send + Sync + 'static) {
        self.0.write().insert(name.to_owned(), Offer::Now(Arc::new(service)));
    }

    /// The same for one that answers with a future.
    pub(crate) fn offer_async(&self, name: &str, service: impl Fn(Bytes, Caller) -> Answering + Send + Sync + 'static) {
        self.0.write().insert(name.to_owned(), Offer::Later(Arc::new(service)));
    }

    /// Asks what is offered by this name. The host's function runs inside, and no lock is held meanwhile.
    pub(crate) fn ask(&self, name: &str, request: Bytes, caller: Caller) -> Asked {
        let found = self.0.read().get(name).cloned();
        let broke = |panic: wall::Panic| Asked::Now(Err(panicked(name, &panic.message)));
        match found {
            Some(Offer::Now(service)) => wall::guard(|| service(request, &caller)).map_or_else(broke, Asked::Now),
            Some(Offer::Later(service)) => wall::guard(|| service(request, caller)).map_or_else(broke, Asked::Later),
            None => Asked::Now(Err(self.unknown(name))),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let offered: Vec<String> = self.0.read().keys().cloned().collect();
        match &offered[..] {
            [] => format!("this host offers no service {name}, nor any other"),
            _ => format!("this host offers no service {name}, only {}", offered.join(", ")),
        }
    }
}

/// An error for who asked a service that panicked.
#[must_use]
pub(crate) fn panicked(name: &str, message: &str) -> String {
    format!("the service {name} panicked: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(offers: &Offers, name: &str) -> Answered {
        match offers.ask(name, Bytes::from_static(b"x"), Caller::new("shop", 3, false)) {
            Asked::Now(answered) => answered,
            Asked::Later(_) => Err("later".to_owned()),
        }
    }

    #[test]
    fn a_service_is_asked_by_its_name_and_an_unknown_one_is_told_with_what_is_there() {
        let offers = Offers::default();
        assert_eq!(ask(&offers, "mail"), Err("this host offers no service mail, nor any other".to_owned()));
        offers.offer("who", |_, caller| Ok(Bytes::from(format!("{} {}", caller.plugin, caller.generation))));
        offers.offer_async("slow", |request, _| Box::pin(async { Ok(request) }));
        assert_eq!(ask(&offers, "mail"), Err("this host offers no service mail, only slow, who".to_owned()));
        assert_eq!((ask(&offers, "who"), ask(&offers, "slow")), (Ok(Bytes::from("shop 3")), Err("later".to_owned())));
    }

    #[test]
    fn a_panic_of_the_hosts_is_an_error_for_who_asked() {
        let offers = Offers::default();
        offers.offer("bad", |_, _| panic!("on purpose"));
        offers.offer_async("worse", |_, _| panic!("at once"));
        assert_eq!(ask(&offers, "bad"), Err("the service bad panicked: on purpose".to_owned()));
        assert_eq!(ask(&offers, "worse"), Err("the service worse panicked: at once".to_owned()));
    }
}

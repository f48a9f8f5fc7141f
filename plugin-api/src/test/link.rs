//! What is a test's small host to the plugin?

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use midair_abi::store::{Answer, Op, Row};
use midair_abi::{Outcome, SocketOp};

use super::{Emitted, World};
use crate::error::{Error, Result};
use crate::glue::operation::block_on;
use crate::handler::request::Request;
use crate::handler::response::Response;
use crate::handler::socket::Ask;
use crate::host::config::Parsed;
use crate::host::ctx::Level;
use crate::host::link::{Asked, HostLink, Link};
use crate::host::state::History;

impl HostLink for Arc<World> {
    fn again(&self) -> Link {
        Link::Other(Box::new(Self::clone(self)))
    }

    fn detached(&self) -> Link {
        self.again()
    }

    fn plugin(&self) -> &str {
        "test"
    }

    fn generation(&self) -> u64 {
        1
    }

    fn is_probe(&self) -> bool {
        self.probe.load(Ordering::Relaxed)
    }

    fn may_go_back(&self) -> bool {
        true
    }

    fn config(&self) -> Option<&Parsed> {
        self.config.as_ref()
    }

    /// Not what this library remembers: a process tests several plugins.
    fn history(&self, table: &str) -> Option<Arc<History>> {
        let (plugin, _) = self.plugin.get()?;
        plugin.tables.iter().find(|declared| declared.name == table).map(|declared| Arc::clone(&declared.history))
    }

    fn log(&self, level: Level, message: &str) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push((level, message.to_owned()));
    }

    fn state(&self, ops: &[Op<'_>]) -> Asked<Answer> {
        Asked::now(self.store.apply(ops))
    }

    /// A thread keeps the time: a test has no host to do so.
    fn sleep(&self, duration: Duration) -> Asked<Result<()>> {
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
        Asked::ours(std::future::poll_fn(move |context| {
            let mut state = alarm.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.0 {
                return Poll::Ready(Ok(()));
            }
            state.1 = Some(context.waker().clone());
            Poll::Pending
        }))
    }

    fn call(&self, request: Request) -> Asked<Result<Response>> {
        let world = Self::clone(self);
        Asked::ours(async move { world.answer(request).await })
    }

    fn emit(&self, topic: &str, message: &[u8], _waits: bool) -> Asked<Result<()>> {
        let emitted = Emitted { topic: topic.to_owned(), bytes: message.to_vec() };
        self.emitted.lock().unwrap_or_else(PoisonError::into_inner).push(emitted);
        Asked::now(Ok(()))
    }

    fn service(&self, name: &str, request: &[u8]) -> Asked<Result<Vec<u8>>> {
        let fake = {
            let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
            let offered: Vec<&str> = services.keys().map(String::as_str).collect();
            let unknown = || Error::internal(format!("no service {name} is offered, only: {}", offered.join(", ")));
            services.get(name).cloned().ok_or_else(unknown)
        };
        Asked::now(fake.and_then(|fake| fake(request)))
    }

    fn socket(&self, ask: &Ask<'_>) -> Asked<Result<Vec<Row>>> {
        if ask.kind != SocketOp::RECEIVE {
            return Asked::now(self.sockets.ask(ask));
        }
        let (world, id) = (Self::clone(self), ask.id);
        Asked::ours(async move { Ok(world.sockets.receive(id).await) })
    }

    /// On a thread of its own: a test has no host to poll it.
    fn spawn(&self, _name: &str, _flags: u32, work: Pin<Box<dyn Future<Output = Outcome> + Send>>) -> u64 {
        std::thread::spawn(move || drop(block_on(work)));
        0
    }

    fn cancel(&self, _task: u64) {}

    fn retiring(&self) -> Asked<()> {
        Asked::ours(std::future::pending())
    }
}

//! How does the host enter a plugin?
//!
//! Every function that the host can call is here, and each runs inside the panic wall on the plugin's own side.

use std::ffi::c_void;

use midair_abi::manifest::Note;
use midair_abi::{self as abi, Address, Built, Handler, Made, Many, Outcome, Owner, Pair, Root, Span, meta};
use midair_abi::{task, wall};

use crate::error::Result;
use crate::glue::census;
use crate::glue::logs;
use crate::glue::runtime::{self, Inside, Runtime};
use crate::handler::plugin::{Handle, Hook, Plugin, Reply, TableDecl};
use crate::handler::request::Request;
use crate::host::attached::Attached;
use crate::host::config::Misfit;
use crate::host::ctx::Ctx;
use crate::host::link::Link;
use crate::host::state;

/// A plugin with the tables that the host reads; the spans point into `plugin`.
struct Shelf {
    plugin: Plugin,
    metas: Vec<Vec<Pair>>,
    handlers: Vec<Handler>,
    tables: Vec<abi::TableDecl>,
    selftests: Vec<abi::SelfTest>,
    smokes: Vec<abi::Smoke>,
    /// Ends last: what the plugin has may need it to be dropped.
    _runtime: Runtime,
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let _entered = runtime::enter();
        drop(std::mem::take(&mut self.plugin));
    }
}

/// Makes the plugin. Called by what `export!` emits.
#[must_use]
pub fn build(factory: fn() -> Plugin) -> Built {
    wall::install_hook();
    let make = || {
        let mut runtime = Runtime::start();
        let plugin = {
            let _entered = runtime::enter();
            factory()
        };
        runtime.resize(plugin.runtime_threads);
        lay_out(plugin, runtime)
    };
    wall::guard(make).unwrap_or_else(|panic| Built::failed(Outcome::panicked(panic)))
}

fn lay_out(plugin: Plugin, runtime: Runtime) -> Built {
    plugin.check_tables();
    let shelf = Shelf {
        plugin,
        metas: Vec::new(),
        handlers: Vec::new(),
        tables: Vec::new(),
        selftests: Vec::new(),
        smokes: Vec::new(),
        _runtime: runtime,
    };
    let owner = Owner::of(shelf);
    // SAFETY: the owner was just made of a `Shelf` and nobody else knows of it.
    let shelf = unsafe { &mut *owner.data().cast::<Shelf>() };
    shelf.metas.extend(shelf.plugin.routes.iter().map(|route| {
        let meta = [(meta::METHOD, route.method.as_str()), (meta::PATH, route.path.as_str()), (meta::NAME, route.name)];
        let more = route.more.iter().map(|(name, value)| (*name, value.as_str()));
        meta.into_iter().chain(more).map(|(name, value)| Pair::of(name, value.as_bytes())).collect()
    }));
    shelf.metas.extend(shelf.plugin.works.iter().map(|work| {
        let rest = work.meta.iter().map(|(name, value)| (*name, value.as_str()));
        std::iter::once((meta::NAME, work.name.as_str()))
            .chain(rest)
            .map(|(name, value)| Pair::of(name, value.as_bytes()))
            .collect()
    }));
    let routes = shelf.plugin.routes.iter().map(|route| (Handler::ROUTE, &route.handler));
    let all = routes.chain(shelf.plugin.works.iter().map(|work| (work.kind, &work.handler)));
    shelf.handlers.extend(all.zip(&shelf.metas).map(|((kind, handler), meta)| Handler {
        kind,
        meta: Many::of(meta),
        data: Address(std::ptr::from_ref(handler).cast()),
        call,
    }));
    shelf.tables.extend(shelf.plugin.tables.iter().map(|table| {
        let (name, (oldest, newest)) = (Span::of(table.name.as_bytes()), table.history.range());
        abi::TableDecl { name, oldest, newest, data: Address(std::ptr::from_ref(table).cast()), check }
    }));
    state::remember(&shelf.plugin.tables);
    shelf.selftests.extend(shelf.plugin.selftests.iter().map(|test| abi::SelfTest {
        name: Span::of(test.name.as_bytes()),
        data: Address(std::ptr::from_ref(&test.run).cast()),
        run: selftest,
    }));
    shelf.smokes.extend(shelf.plugin.smokes.iter().map(|smoke| abi::Smoke {
        method: Span::of(smoke.method.as_bytes()),
        target: Span::of(smoke.target.as_bytes()),
        status: smoke.status.into(),
    }));
    let made = Made {
        handlers: Many::of(&shelf.handlers),
        tables: Many::of(&shelf.tables),
        selftests: Many::of(&shelf.selftests),
        smokes: Many::of(&shelf.smokes),
    };
    // SAFETY: all of it lies on the shelf, which the owner owns and nobody changes from here on.
    unsafe { Built::new(made, owner) }
}

unsafe extern "C" fn call(data: Address, context: abi::Context, request: abi::Request, waker: *const abi::Waker) -> Outcome {
    // SAFETY: `data` is the address of a handler on the shelf, which the host holds while it calls.
    let handler = unsafe { &*data.0.cast::<Box<dyn Handle>>() };
    // SAFETY: the host gives the context away with the call.
    let ctx = Ctx(Link::Attached(unsafe { Attached::new(context) }));
    let _entered = runtime::enter();
    let reply = wall::guard(|| match handler.handle(Request::from_wire(request), ctx) {
        Reply::Ready(response) => Ok(response.into_outcome()),
        Reply::Later(future) => Err(future),
    });
    match reply {
        Ok(Ok(outcome)) => outcome,
        // SAFETY: the host lends the waker for this call.
        Ok(Err(future)) => unsafe { task::give(Inside::new(future), None, waker) },
        Err(panic) => Outcome::panicked(panic),
    }
}

unsafe extern "C" fn check(data: Address, schema: u32, bytes: Span) -> Outcome {
    // SAFETY: `data` is the address of a table on the shelf, which the host holds while it calls.
    let table = unsafe { &*data.0.cast::<TableDecl>() };
    // SAFETY: the host keeps the bytes during the call.
    let bytes = unsafe { bytes.bytes() };
    match wall::guard(|| (table.check)(&table.history, schema, bytes)) {
        Ok(Ok(())) => Outcome::done(),
        Ok(Err(misfit)) => Outcome::told(Outcome::ERROR, 500, misfit, &[]),
        Err(panic) => Outcome::panicked(panic),
    }
}

/// Reads the plugin's section of the config.
///
/// # Safety
///
/// `plugin` is the address that `build`'s owner holds, and the section outlives the call.
pub(crate) unsafe extern "C" fn configure(plugin: *const c_void, section: Span) -> Outcome {
    // SAFETY: passed on to the caller; the shelf isn't changed any more.
    let shelf = unsafe { &*plugin.cast::<Shelf>() };
    // SAFETY: passed on to the caller.
    let section = unsafe { section.bytes() };
    let Some(config) = &shelf.plugin.config else { return Outcome::done() };
    match wall::guard(|| (config.read)(section)) {
        Ok(Ok(parsed)) => Outcome::made(parsed),
        Ok(Err(Misfit { keys, reason })) => {
            let keys: Vec<_> = keys.into_iter().map(|key| (Outcome::KEY, key)).collect();
            Outcome::told(Outcome::ERROR, 500, reason, &keys)
        }
        Err(panic) => Outcome::panicked(panic),
    }
}

/// Runs the `init` hook.
///
/// # Safety
///
/// `plugin` is the address that `build`'s owner holds, and the host gives the context away with the call.
pub(crate) unsafe extern "C" fn init(plugin: *const c_void, context: abi::Context) -> Outcome {
    // SAFETY: passed on to the caller.
    let ctx = Ctx(Link::Attached(unsafe { Attached::new(context) }));
    // SAFETY: passed on to the caller; the shelf isn't changed any more.
    let shelf = unsafe { &*plugin.cast::<Shelf>() };
    run(|| shelf.plugin.init.as_ref().map_or(Ok(()), |init| init(ctx)))
}

unsafe extern "C" fn selftest(data: Address, context: abi::Context) -> Outcome {
    // SAFETY: the host gives the context away with the call.
    let ctx = Ctx(Link::Attached(unsafe { Attached::new(context) }));
    // SAFETY: `data` is the address of a self-test on the shelf, which the host holds while it calls.
    let test = unsafe { &*data.0.cast::<Hook>() };
    run(|| test(ctx))
}

fn run(hook: impl FnOnce() -> Result<()>) -> Outcome {
    let _entered = runtime::enter();
    match wall::guard(hook) {
        Ok(Ok(())) => Outcome::done(),
        Ok(Err(error)) => Outcome::told(Outcome::ERROR, 500, error.to_string(), &[]),
        Err(panic) => Outcome::panicked(panic),
    }
}

/// The root of a plugin with this manifest and constructor, for `export!`.
#[must_use]
pub const fn root(manifest: extern "C" fn() -> Span, build: extern "C" fn() -> Built) -> Root {
    Root { manifest, build, init, attach: census::attach, configure, log_to: logs::log_to, refilter: logs::refilter }
}

/// What a plugin's file says about it, for `export!`.
#[must_use]
pub const fn note(name: &str, version: &str, requires: &[&str]) -> Note {
    Note::new(name, version, env!("CARGO_PKG_VERSION"), requires)
}

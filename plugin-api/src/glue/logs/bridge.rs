//! What stands in a plugin where a subscriber of `tracing` would?
//!
//! It keeps nothing but the host's address of each callsite. Spans are the host's, by its numbers; which one a thread is in is known there.

use midair_abi::logs::{Callsite, Logs, Parent, Site};
use midair_abi::{Address, Many, Span};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Dispatch, Event, Interest, Level, LevelFilter, Metadata, Subscriber, dispatcher};

use super::sites::Sites;
use super::values::Gathered;

/// The plugin's side of the host's subscriber.
struct Bridge {
    host: Logs,
    sites: Sites,
}

/// A span that the host couldn't open, or knows no more.
const NOBODY: u64 = u64::MAX;

pub(super) fn install(host: Logs) {
    // Taken already if a constructor of the library's set one; it keeps its place.
    let _ = dispatcher::set_global_default(Dispatch::new(Bridge { host, sites: Sites::new() }));
}

/// 1 (error) to 5 (trace).
fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Bridge {
    fn name(&self, metadata: &'static Metadata<'static>) -> Site {
        let text = |text: &str| Span::of(text.as_bytes());
        let fields: Vec<Span> = metadata.fields().iter().map(|field| text(field.name())).collect();
        let callsite = Callsite {
            kind: if metadata.is_span() { Callsite::SPAN } else { Callsite::EVENT },
            level: number(*metadata.level()),
            line: metadata.line().unwrap_or_default(),
            name: text(metadata.name()),
            target: text(metadata.target()),
            file: text(metadata.file().unwrap_or_default()),
            module: text(metadata.module_path().unwrap_or_default()),
            fields: Many::of(&fields),
        };
        // SAFETY: the host's function for its data; what the callsite points to outlives the call.
        let site = unsafe { self.host.functions.callsite()(self.host.data, callsite) };
        self.sites.put(metadata, site.address);
        site
    }

    fn site(&self, metadata: &'static Metadata<'static>) -> Address {
        self.sites.get(metadata).unwrap_or_else(|| self.name(metadata).address)
    }

    fn turn(&self, span: &Id, turn: u32) -> bool {
        // SAFETY: the host's function for its data; a number that it doesn't know is passed over there.
        unsafe { self.host.functions.turn()(self.host.data, span.into_u64(), turn) != 0 }
    }
}

fn parent(is_root: bool, span: Option<&Id>) -> Parent {
    match span {
        Some(span) => Parent { kind: Parent::SPAN, span: span.into_u64() },
        None if is_root => Parent { kind: Parent::NONE, span: 0 },
        None => Parent { kind: Parent::CURRENT, span: 0 },
    }
}

impl Subscriber for Bridge {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = match self.sites.get(metadata) {
            // SAFETY: the host's function for its data, and an address that it gave.
            Some(site) => unsafe { self.host.functions.interest()(self.host.data, site) },
            None => self.name(metadata).interest,
        };
        match interest {
            Site::NEVER => Interest::never(),
            Site::ALWAYS => Interest::always(),
            _ => Interest::sometimes(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // SAFETY: the host's function for its data.
        Some(match unsafe { self.host.functions.most()(self.host.data) } {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Only callsites that were named are asked for, and they stay: the metadata is that of the callsite, whatever the lifetime says.
        let named = metadata.callsite().0.metadata();
        // SAFETY: a callsite is `'static`, and so is the metadata that it lends.
        let named = unsafe { &*std::ptr::from_ref(named).cast::<Metadata<'static>>() };
        // SAFETY: the host's function for its data, and an address that it gave.
        unsafe { self.host.functions.enabled()(self.host.data, self.site(named)) != 0 }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let metadata = span.metadata();
        let mut values = Gathered::new();
        span.record(&mut values);
        let (parent, tag) = (parent(span.is_root(), span.parent()), Address(std::ptr::from_ref(metadata).cast()));
        // SAFETY: the host's function for its data, and an address that it gave; the values outlive the call.
        let span = unsafe { self.host.functions.open()(self.host.data, self.site(metadata), tag, parent, values.wire()) };
        Id::from_u64(if span == 0 { NOBODY } else { span })
    }

    fn record(&self, span: &Id, record: &Record<'_>) {
        let mut values = Gathered::new();
        record.record(&mut values);
        // SAFETY: the host's function for its data; the values outlive the call.
        unsafe { self.host.functions.record()(self.host.data, span.into_u64(), values.wire()) }
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        // SAFETY: the host's function for its data.
        unsafe { self.host.functions.follows()(self.host.data, span.into_u64(), follows.into_u64()) }
    }

    fn event(&self, event: &Event<'_>) {
        let mut values = Gathered::new();
        event.record(&mut values);
        let parent = parent(event.is_root(), event.parent());
        // SAFETY: the host's function for its data, and an address that it gave; the values outlive the call.
        unsafe { self.host.functions.event()(self.host.data, self.site(event.metadata()), parent, values.wire()) }
    }

    fn enter(&self, span: &Id) {
        self.turn(span, Logs::ENTER);
    }

    fn exit(&self, span: &Id) {
        self.turn(span, Logs::EXIT);
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.turn(span, Logs::HOLD);
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        self.turn(&span, Logs::LET_GO)
    }

    fn current_span(&self) -> Current {
        // SAFETY: the host's function for its data.
        let current = unsafe { self.host.functions.current()(self.host.data) };
        if current.span == 0 || current.tag.0.is_null() {
            return Current::none();
        }
        // SAFETY: the tag is what `new_span` gave: metadata that stays.
        let metadata = unsafe { &*current.tag.0.cast::<Metadata<'static>>() };
        Current::new(Id::from_u64(current.span), metadata)
    }
}

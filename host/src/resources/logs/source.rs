//! What does one library's log lead to?
//!
//! The functions behind [`abi::Logs`]. Each runs inside the panic wall on the host's side: a subscriber that panics costs that line, and is
//! told of once. A source stays as long as its library is mapped, so whatever of the plugin's still runs may log.

use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi_stable::prefix_type::WithMetadata;
use arc_swap::{ArcSwap, Guard};
use midair_abi::logs as abi;
use midair_abi::wall;
use midair_abi::{Address, RootRef};
use tracing::{Event as Told, Span};

use super::late::{Errand, send};
use super::sites::{self, Said, Site};
use super::spans::{self, Open, Spans};
use super::values::Values;
use crate::mutation::{self, Bug};
use crate::report::event::{Bus, Event, Line};
use crate::sys::native_resources;

static FUNCTIONS: &WithMetadata<abi::LogFunctions> =
    &WithMetadata::new(abi::LogFunctions { most, callsite, interest, enabled, event, open, record, follows, turn, current });

/// The most detailed level that a probe tells.
const OF_A_PROBE: u32 = 3;

/// How many characters of a line it tells.
const LONGEST: usize = 16 << 10;

/// One generation's way into the host's log.
pub(crate) struct Source {
    me: Weak<Source>,
    plugin: String,
    generation: u64,
    swaps: Arc<AtomicU64>,
    /// What events say of whose they are, made anew when there was a swap.
    words: ArcSwap<Words>,
    /// Weak, since a library keeps its source for good.
    warn: Weak<Warn>,
    probe: Option<Bus>,
    root: Option<RootRef>,
    spans: Spans,
    /// Where lines without a callsite come from, by level.
    plain: [OnceLock<&'static Site>; 5],
    is_closed: AtomicBool,
    has_broken: AtomicBool,
}

/// In what words the field [`FIELD`](super::FIELD) tells whose something is.
struct Words {
    event: String,
    span: usize,
    swaps: u64,
}

impl Words {
    fn of(plugin: &str, generation: u64, swaps: u64) -> Self {
        let span = format!("{plugin}={generation}");
        Self { event: format!("{span} pid={} swaps={swaps}", std::process::id()), span: span.len(), swaps }
    }

    fn span(&self) -> &str {
        &self.event[..self.span]
    }
}

/// Tells of what was lost.
pub(super) type Warn = dyn Fn(String) + Send + Sync;

/// What something lies in.
enum Within {
    /// Whatever this thread is in.
    Current,
    Nothing,
    Span(Arc<Open>),
}

impl Source {
    /// One for this generation of a plugin; `swaps` counts publishes and rollbacks, and `warn` hears of what is lost. In a probe all becomes events of a bus.
    #[must_use]
    pub(super) fn new(
        root: Option<RootRef>,
        (plugin, generation): (&str, u64),
        swaps: &Arc<AtomicU64>,
        warn: &Arc<Warn>,
        probe: Option<Bus>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            plugin: plugin.to_owned(),
            generation,
            swaps: Arc::clone(swaps),
            words: ArcSwap::from_pointee(Words::of(plugin, generation, swaps.load(Ordering::Relaxed))),
            warn: Arc::downgrade(warn),
            probe,
            root,
            spans: Spans::default(),
            plain: [const { OnceLock::new() }; 5],
            is_closed: AtomicBool::new(false),
            has_broken: AtomicBool::new(false),
        })
    }

    /// Whether its library takes functions to log by.
    #[must_use]
    pub(super) fn can_log(&self) -> bool {
        self.root.is_some_and(|root| root.log_to().is_some())
    }

    /// Hands its functions to the library, if that takes them. They stay for good.
    pub(super) fn begin(self: &Arc<Self>) {
        let Some(log_to) = self.root.and_then(|root| root.log_to()) else { return };
        // As long as the library is mapped its code may come back with this, and it is never unmapped.
        let data = Arc::into_raw(Arc::clone(self)).cast::<c_void>();
        let functions = abi::LogFunctionsRef(FUNCTIONS.static_as_prefix());
        // SAFETY: the data stays for good, and the functions may be called from any thread.
        unsafe { log_to(abi::Logs { data, functions }) };
    }

    /// A line in plain words, at a level from 1 (error) to 5 (trace).
    pub(crate) fn say(&self, level: u32, message: &str) {
        self.guard((), || {
            let level = level.clamp(1, 5);
            let site = self.plain[level as usize - 1].get_or_init(|| {
                let target = self.plugin.replace('-', "_");
                let fields = vec!["message"];
                let (file, module, line, name) = ("", "", 0, "line");
                sites::find(Said { is_span: false, level, name, target: &target, file, module, line, fields })
            });
            let value = abi::Value { field: 0, kind: abi::Value::TEXT, bits: 0, len: message.len() as u64 };
            let parent = abi::Parent { kind: abi::Parent::CURRENT, span: 0 };
            self.event(site, parent, Values { values: &[value], text: message });
        });
    }

    /// Nothing calls the library any more but its own threads: what is open is closed.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.spans.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Has the library ask anew what is wanted.
    pub(super) fn look_again(&self) {
        if let Some(refilter) = self.root.and_then(|root| root.refilter())
            && !mutation::is(Bug::LevelsOnce)
        {
            // Another thread may do the same with an older filter in hand, and store what it says last: whoever does sees it here.
            loop {
                let filters = sites::filters();
                refilter();
                if filters == sites::filters() {
                    break;
                }
            }
        }
    }

    /// What `call` answers, or `or` if it panics.
    fn guard<T>(&self, or: T, call: impl FnOnce() -> T) -> T {
        wall::guard(call).unwrap_or_else(|panic| {
            if !self.has_broken.swap(true, Ordering::Relaxed)
                && let Some(warn) = self.warn.upgrade()
            {
                let message = format!(
                    "{self}: something that it logged was lost, and more may be: the program's subscriber panicked: {} at {}",
                    panic.message, panic.location
                );
                let _ = wall::guard(|| warn(message));
            }
            or
        })
    }

    fn words(&self) -> Guard<Arc<Words>> {
        let (words, swaps) = (self.words.load(), self.swaps.load(Ordering::Relaxed));
        if words.swaps == swaps {
            return words;
        }
        let speaks = if mutation::is(Bug::LogsAsLastSwap) { swaps } else { self.generation };
        self.words.store(Arc::new(Words::of(&self.plugin, speaks, swaps)));
        self.words.load()
    }

    fn interest(&self, site: &Site) -> u32 {
        match self.probe {
            None => site.interest(),
            Some(_) if sites::number(*site.metadata().level()) <= OF_A_PROBE => abi::Site::ALWAYS,
            Some(_) => abi::Site::NEVER,
        }
    }

    fn within(&self, parent: abi::Parent, is_ending: bool) -> Within {
        match parent.kind {
            abi::Parent::NONE => Within::Nothing,
            abi::Parent::SPAN => self.spans.get(parent.span).map_or(Within::Current, Within::Span),
            // The subscriber may have forgotten already what the thread is in.
            _ if is_ending => spans::current(|_| true).map_or(Within::Nothing, Within::Span),
            _ => Within::Current,
        }
    }

    fn event(&self, site: &'static Site, parent: abi::Parent, values: Values<'_>) {
        if let Some(bus) = &self.probe {
            return self.say_in_probe(bus, site, values);
        }
        let is_ending = native_resources::is_ending();
        let within = self.within(parent, is_ending);
        match is_ending.then(|| self.me.upgrade()).flatten() {
            Some(source) => {
                let values = values.keep();
                send(Errand::Run(Box::new(move || source.guard((), || source.say_here(site, &within, values.lend())))));
            }
            None => self.say_here(site, &within, values),
        }
    }

    /// Hands an event to the subscriber of this thread.
    fn say_here(&self, site: &'static Site, within: &Within, values: Values<'_>) {
        if !site.is_wanted() {
            return;
        }
        values.lend(site, Some(&self.words().event), |values| match within {
            Within::Current => Told::dispatch(site.metadata(), values),
            Within::Nothing => Told::child_of(None, site.metadata(), values),
            Within::Span(open) => Told::child_of(open.span.id(), site.metadata(), values),
        });
    }

    fn say_in_probe(&self, bus: &Bus, site: &'static Site, values: Values<'_>) {
        let metadata = site.metadata();
        if self.interest(site) != abi::Site::NEVER {
            let level = metadata.level().as_str().to_ascii_lowercase();
            let line = Line { plugin: self.plugin.clone(), generation: self.generation, level, ..Line::default() };
            let message = values.words(site).chars().take(LONGEST).collect();
            bus.say(Event::Log(Box::new(Line { message, ..line })));
        }
    }

    fn open(&self, site: &'static Site, tag: Address, parent: abi::Parent, values: Values<'_>) -> u64 {
        let mut span = Span::none();
        if self.probe.is_none() && site.is_wanted() {
            let within = self.within(parent, native_resources::is_ending());
            values.lend(site, Some(self.words().span()), |values| {
                span = match within {
                    Within::Current => Span::new(site.metadata(), values),
                    Within::Nothing => Span::new_root(site.metadata(), values),
                    Within::Span(open) => Span::child_of(open.span.id(), site.metadata(), values),
                };
            });
        }
        self.spans.put(span, site, tag, self.key())
    }

    /// Tells it from other sources.
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn turn(&self, number: u64, turn: u32) -> bool {
        match turn {
            abi::Logs::ENTER => {
                if let Some(open) = self.spans.get(number) {
                    if !native_resources::is_ending() {
                        open.span.with_subscriber(|(id, dispatch)| dispatch.enter(id));
                    }
                    spans::enter(open);
                }
                false
            }
            abi::Logs::EXIT => {
                if let Some(open) = spans::exit(number).or_else(|| self.spans.get(number)) {
                    let exit = || open.span.with_subscriber(|(id, dispatch)| dispatch.exit(id));
                    if native_resources::is_ending() {
                        // The subscriber may have nothing left on this thread that the span could be taken from.
                        let _ = wall::guard(exit);
                    } else {
                        exit();
                    }
                }
                false
            }
            abi::Logs::HOLD => {
                self.spans.hold(number);
                false
            }
            abi::Logs::LET_GO => self.spans.let_go(number),
            _ => false,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.plugin, self.generation)
    }
}

/// # Safety
///
/// `data` came from [`Source::begin`].
unsafe fn read<'a>(data: *const c_void) -> &'a Source {
    // SAFETY: passed on to the caller; `begin` leaked a count of it.
    unsafe { &*data.cast::<Source>() }
}

/// # Safety
///
/// The address came from [`callsite`].
unsafe fn at(site: Address) -> &'static Site {
    // SAFETY: passed on to the caller; sites are never freed.
    unsafe { &*site.0.cast::<Site>() }
}

/// # Safety
///
/// What the values were made of must be alive and unchanged for `'a`.
unsafe fn lent<'a>(values: abi::Values) -> Values<'a> {
    // SAFETY: passed on to the caller.
    let items = unsafe { values.values.items() };
    // SAFETY: as above.
    Values { values: items, text: unsafe { values.text.text() } }
}

unsafe extern "C" fn most(data: *const c_void) -> u32 {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    if source.probe.is_some() { OF_A_PROBE } else { sites::most() }
}

unsafe extern "C" fn callsite(data: *const c_void, callsite: abi::Callsite) -> abi::Site {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    let abi::Callsite { kind, level, line, name, target, file, module, fields } = callsite;
    // SAFETY: the library keeps the texts during the call.
    let [name, target, file, module] = [name, target, file, module].map(|text| unsafe { text.text() });
    // SAFETY: as above.
    let fields = unsafe { fields.items() };
    let site = source.guard(None, || {
        // SAFETY: as above.
        let fields = fields.iter().map(|field| unsafe { field.text() }).collect();
        Some(sites::find(Said { is_span: kind == abi::Callsite::SPAN, level, name, target, file, module, line, fields }))
    });
    // A subscriber that panics when it is asked wants nothing.
    let interest = site.map_or(abi::Site::NEVER, |site| source.interest(site));
    let site = site.unwrap_or_else(|| sites::overflow(kind == abi::Callsite::SPAN, level.clamp(1, 5)));
    abi::Site { address: Address(std::ptr::from_ref(site).cast()), interest }
}

unsafe extern "C" fn interest(data: *const c_void, site: Address) -> u32 {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    // SAFETY: the library passes an address that it got.
    source.interest(unsafe { at(site) })
}

unsafe extern "C" fn enabled(data: *const c_void, site: Address) -> u32 {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    // SAFETY: the library passes an address that it got.
    let site = unsafe { at(site) };
    let is_wanted = || match source.probe {
        Some(_) => source.interest(site) != abi::Site::NEVER,
        None => site.is_wanted(),
    };
    source.guard(false, is_wanted).into()
}

unsafe extern "C" fn event(data: *const c_void, site: Address, parent: abi::Parent, values: abi::Values) {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    // SAFETY: the library passes an address that it got.
    let site = unsafe { at(site) };
    // SAFETY: the library keeps the values during the call.
    let values = unsafe { lent(values) };
    source.guard((), || source.event(site, parent, values));
}

unsafe extern "C" fn open(data: *const c_void, site: Address, tag: Address, parent: abi::Parent, values: abi::Values) -> u64 {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    // SAFETY: the library passes an address that it got.
    let site = unsafe { at(site) };
    // SAFETY: the library keeps the values during the call.
    let values = unsafe { lent(values) };
    source.guard(0, || source.open(site, tag, parent, values))
}

unsafe extern "C" fn record(data: *const c_void, span: u64, values: abi::Values) {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    // SAFETY: the library keeps the values during the call.
    let values = unsafe { lent(values) };
    source.guard((), || {
        if let Some(open) = source.spans.get(span) {
            values.lend(open.site, None, |values| {
                open.span.record_all(values);
            });
        }
    });
}

unsafe extern "C" fn follows(data: *const c_void, span: u64, from: u64) {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    source.guard((), || {
        if let (Some(open), Some(from)) = (source.spans.get(span), source.spans.get(from)) {
            open.span.follows_from(from.span.id());
        }
    });
}

unsafe extern "C" fn turn(data: *const c_void, span: u64, turn: u32) -> u32 {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    source.guard(false, || source.turn(span, turn)).into()
}

unsafe extern "C" fn current(data: *const c_void) -> abi::Current {
    // SAFETY: the library passes what it was attached with.
    let source = unsafe { read(data) };
    let key = source.key();
    let open = source.guard(None, || spans::current(|open| open.owner() == key));
    open.map_or(abi::Current { span: 0, tag: Address(std::ptr::null()) }, |open| abi::Current {
        span: open.number,
        tag: open.tag(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Speaker;
    use super::*;

    #[test]
    fn the_words_of_who_speaks_can_be_read() {
        let words = Words::of("shop", 3, 4);
        let (plugin, pid) = ("shop".to_owned(), u64::from(std::process::id()));
        assert_eq!(words.event.parse(), Ok(Speaker { plugin: plugin.clone(), generation: 3, pid, swaps: 4 }));
        assert_eq!(words.span().parse(), Ok(Speaker { plugin, generation: 3, pid: 0, swaps: 0 }));
        for odd in ["", "shop", "shop=", "shop=x", "shop=3 swaps", "shop=3 more=4"] {
            assert!(odd.parse::<Speaker>().is_err(), "{odd:?}");
        }
    }
}

//! Under which metadata does a plugin's callsite reach the subscriber?
//!
//! `tracing` wants metadata that lives for ever, so it is made once for each callsite and leaked: equal callsites of later generations find
//! that of the first. How many there can be is bounded; over the bound there is one for each level that says so.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Once, OnceLock};

use midair_abi::logs as abi;
use parking_lot::Mutex;
use tracing::callsite::{self, Callsite, Identifier};
use tracing::field::FieldSet;
use tracing::level_filters::LevelFilter;
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, dispatcher};

use super::late;
use super::speaker::FIELD;

/// How many callsites are kept, and how long their words may be, in bytes.
const MOST: usize = 8192;
const LONGEST: usize = 512;
/// How many fields of a callsite are kept.
const FIELDS: usize = 64;

/// A callsite in words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Said<'a> {
    pub(super) is_span: bool,
    /// 1 (error) to 5 (trace).
    pub(super) level: u32,
    pub(super) name: &'a str,
    pub(super) target: &'a str,
    pub(super) file: &'a str,
    pub(super) module: &'a str,
    pub(super) line: u32,
    pub(super) fields: Vec<&'a str>,
}

/// A callsite of a plugin, as `tracing` knows it in this process.
pub(super) struct Site {
    metadata: OnceLock<Metadata<'static>>,
    interest: AtomicU8,
    /// How many of its fields are the plugin's own.
    own: usize,
    /// Whether it stands for all that are too many.
    pub(super) is_overflow: bool,
    registered: Once,
}

impl Site {
    /// Makes one, for good.
    fn leak(said: &Said<'_>, is_overflow: bool) -> &'static Self {
        let keep = |text: &str| -> &'static str { Box::leak(Box::from(text)) };
        let some = |text: &'static str| (!text.is_empty()).then_some(text);
        let own = said.fields.len();
        let fields: Vec<&'static str> = said.fields.iter().map(|name| keep(name)).chain([FIELD]).collect();
        let site: &'static Self = Box::leak(Box::new(Self {
            metadata: OnceLock::new(),
            interest: AtomicU8::new(abi::Site::SOMETIMES as u8),
            own,
            is_overflow,
            registered: Once::new(),
        }));
        let kind = if said.is_span { Kind::SPAN } else { Kind::EVENT };
        let (file, module) = (some(keep(said.file)), some(keep(said.module)));
        let line = (said.line > 0).then_some(said.line);
        let fields = FieldSet::new(fields.leak(), Identifier(site));
        let metadata = Metadata::new(keep(said.name), keep(said.target), level(said.level), file, line, module, fields, kind);
        site.metadata.get_or_init(|| metadata);
        site
    }

    pub(super) fn metadata(&self) -> &Metadata<'static> {
        self.metadata.get().expect("set when it was made")
    }

    /// How many of its fields are the plugin's own; they come first.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    /// As the border has it.
    pub(super) fn interest(&self) -> u32 {
        self.interest.load(Ordering::Relaxed).into()
    }

    /// Whether this thread's subscriber wants it just now. What filters keep of the answer is kept for what comes next on this thread.
    pub(super) fn is_wanted(&self) -> bool {
        match self.interest() {
            abi::Site::NEVER => false,
            abi::Site::ALWAYS => true,
            _ => dispatcher::get_default(|dispatch| dispatch.enabled(self.metadata())),
        }
    }

    fn is(&self, said: &Said<'_>) -> bool {
        let it = self.metadata();
        let fields = it.fields().iter().take(self.own);
        it.is_span() == said.is_span
            && number(*it.level()) == said.level
            && it.name() == said.name
            && it.target() == said.target
            && it.file().unwrap_or_default() == said.file
            && it.module_path().unwrap_or_default() == said.module
            && it.line().unwrap_or_default() == said.line
            && self.own == said.fields.len()
            && fields.zip(&said.fields).all(|(field, name)| field.name() == *name)
    }
}

impl Callsite for Site {
    fn set_interest(&self, interest: Interest) {
        let interest = match () {
            () if interest.is_never() => abi::Site::NEVER,
            () if interest.is_always() => abi::Site::ALWAYS,
            () => abi::Site::SOMETIMES,
        };
        self.interest.store(interest as u8, Ordering::Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        Site::metadata(self)
    }
}

/// How often another filter was heard of.
static FILTERS: AtomicU64 = AtomicU64::new(0);

/// What is wanted is asked anew, or was.
pub(super) fn refiltered() {
    FILTERS.fetch_add(1, Ordering::SeqCst);
}

/// Another number with each filter.
pub(super) fn filters() -> u64 {
    FILTERS.load(Ordering::SeqCst)
}

/// Stands among all callsites of this process to hear when what is wanted of them is asked anew.
struct Sentinel;

impl Callsite for Sentinel {
    fn set_interest(&self, _: Interest) {
        refiltered();
        late::look_again();
    }

    fn metadata(&self) -> &Metadata<'_> {
        static METADATA: Metadata<'static> = Metadata::new(
            "changes of filters",
            "midair::logs",
            Level::TRACE,
            None,
            None,
            None,
            FieldSet::new(&[], Identifier(&SENTINEL)),
            Kind::EVENT,
        );
        &METADATA
    }
}

static SENTINEL: Sentinel = Sentinel;

/// From now on a change of what is wanted is heard.
pub(super) fn listen() {
    callsite::register(&SENTINEL);
}

/// The most detailed level that anybody wants, as the border has it.
pub(super) fn most() -> u32 {
    LevelFilter::current().into_level().map_or(0, number)
}

/// 1 (error) to 5 (trace).
pub(super) fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

fn level(number: u32) -> Level {
    match number {
        1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

/// Whether it was made here.
pub(super) fn is_ours(metadata: &Metadata<'_>) -> bool {
    // The field that is added comes last.
    metadata.fields().iter().last().is_some_and(|field| field.name() == FIELD)
}

type Shelf = HashMap<u64, Vec<&'static Site>>;

static SITES: LazyLock<Mutex<Shelf>> = LazyLock::new(Mutex::default);
static COUNT: AtomicUsize = AtomicUsize::new(0);

pub(super) fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// The site of a callsite, which the subscriber has heard of.
pub(super) fn find(mut said: Said<'_>) -> &'static Site {
    said.fields.truncate(FIELDS);
    for text in [&mut said.name, &mut said.target, &mut said.file, &mut said.module].into_iter().chain(&mut said.fields) {
        *text = &text[..text.floor_char_boundary(LONGEST)];
    }
    said.level = said.level.clamp(1, 5);
    let site = shelved(&said).unwrap_or_else(|| overflow(said.is_span, said.level));
    // Outside of the lock: the subscriber is asked, who may log in its turn.
    site.registered.call_once(|| callsite::register(site));
    site
}

fn shelved(said: &Said<'_>) -> Option<&'static Site> {
    let mut hasher = DefaultHasher::new();
    said.hash(&mut hasher);
    let mut sites = SITES.lock();
    let alike = sites.entry(hasher.finish()).or_default();
    if let Some(site) = alike.iter().find(|site| site.is(said)) {
        return Some(site);
    }
    if COUNT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < MOST).then_some(count + 1)).is_err() {
        return None;
    }
    let site = Site::leak(said, false);
    alike.push(site);
    Some(site)
}

/// What stands for those that are too many.
pub(super) fn overflow(is_span: bool, level: u32) -> &'static Site {
    static ALL: [OnceLock<&'static Site>; 10] = [const { OnceLock::new() }; 10];
    ALL[usize::from(is_span) * 5 + level as usize - 1].get_or_init(|| {
        let name = "one of more callsites than are kept";
        // Not one of midair's own: what filters keep back of the host isn't meant for lines of plugins.
        let said = Said { is_span, level, name, target: "overflow", file: "", module: "", line: 0, fields: vec!["message"] };
        Site::leak(&said, true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<'a>(target: &'a str, fields: &[&'a str]) -> Said<'a> {
        Said { is_span: false, level: 3, name: "n", target, file: "f", module: "m", line: 7, fields: fields.to_vec() }
    }

    #[test]
    fn equal_callsites_are_one_and_others_are_not() {
        let one = find(said("sites-a", &["message"]));
        assert!(std::ptr::eq(one, find(said("sites-a", &["message"]))));
        let others = [
            said("sites-b", &["message"]),
            said("sites-a", &["message", "more"]),
            said("sites-a", &[]),
            Said { line: 8, ..said("sites-a", &["message"]) },
            Said { level: 4, ..said("sites-a", &["message"]) },
            Said { is_span: true, ..said("sites-a", &["message"]) },
        ];
        for other in others {
            assert!(!std::ptr::eq(one, find(other.clone())), "{other:?}");
        }
        let names: Vec<_> = one.metadata().fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, ["message", FIELD]);
        assert!(is_ours(one.metadata()) && !is_ours(Callsite::metadata(&SENTINEL)));
    }

    #[test]
    fn long_words_are_cut_and_odd_levels_taken_for_the_nearest() {
        let long = "ä".repeat(LONGEST);
        let site = find(Said { level: 9, ..said(&long, &[&long]) });
        assert_eq!((site.metadata().target().len(), *site.metadata().level()), (LONGEST, Level::TRACE));
    }
}

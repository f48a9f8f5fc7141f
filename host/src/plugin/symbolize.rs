//! Which lines of a plugin's source led to a panic?
//!
//! A panic crosses the border as return addresses. Their names stand in the private copy of the artifact, whose debug information takes
//! longer to read than a request may wait for: a thread of its own does it, with a queue that has an end, and says that a handler
//! panicked once it knows where. What it can't name (a stripped artifact, a copy that is gone, a full queue) is told as the copy's name,
//! which has the digest of its bytes, and the offset in it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use addr2line::Loader;
use midair_abi::manifest::SOURCES;
use midair_abi::wall::Panic;
use object::{Endianness, elf::FileHeader64, read::elf::FileHeader, read::elf::SectionHeader};

use crate::report::error::{Code, Error, Result};
use crate::report::event::{Bus, Event, Kind};

/// How many panics may wait for their names. More than a person reads; the rest is told without.
const QUEUE: usize = 64;

/// How long the debug information of code that was published a moment ago is waited for.
const COMPLETION: Duration = Duration::from_secs(2);

/// How many names are remembered: those of some thousand panics in different places.
const REMEMBERED: usize = 10_000;

/// A library's file and where it lies in memory.
#[derive(Debug)]
pub(crate) struct Module {
    path: PathBuf,
    memory: Range<u64>,
}

impl Module {
    /// `memory` begins where the file's address 0 lies.
    #[must_use]
    pub(crate) fn new(path: PathBuf, memory: Range<u64>) -> Self {
        Self { path, memory }
    }

    /// Whether this address is in it.
    #[must_use]
    pub(crate) fn contains(&self, address: u64) -> bool {
        self.memory.contains(&address)
    }

    /// What of a panic's frames is this library's, as offsets in it. Return addresses: the call is before them.
    fn offsets(&self, frames: &[u64]) -> Vec<u64> {
        frames.iter().filter(|frame| self.memory.contains(frame)).map(|frame| frame - self.memory.start - 1).collect()
    }

    fn raw(&self, offset: u64) -> String {
        format!("{}+{offset:#x}", self.path.file_name().unwrap_or_default().to_string_lossy())
    }
}

struct Job {
    module: Arc<Module>,
    plugin: String,
    generation: u64,
    handler: String,
    kind: Kind,
    panic: Panic,
}

impl Job {
    fn told(self, frames: Vec<String>) -> Event {
        let Self { plugin, generation, handler, kind, panic: Panic { message, location, .. }, .. } = self;
        Event::Panicked { plugin, generation, handler, kind, message, location, frames }
    }
}

/// Tells panics with the names of their frames.
#[derive(Clone)]
pub(crate) struct Namer {
    jobs: SyncSender<Job>,
    bus: Bus,
}

impl Namer {
    /// Starts the thread that finds the names. It runs no plugin code.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub(crate) fn start(bus: Bus) -> Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let listeners = bus.clone();
        let thread = std::thread::Builder::new().name("midair-frames".to_owned()).spawn(move || name_all(&queue, &listeners));
        thread.map_err(|error| Error::fatal(Code::Io, "midair-frames", "its thread can't be started").caused_by(error))?;
        Ok(Self { jobs, bus })
    }

    /// One that finds no names and says everything at once.
    #[must_use]
    pub(crate) fn without_names(bus: Bus) -> Self {
        Self { jobs: sync_channel(0).0, bus }
    }

    /// Says that code of `module` panicked, in a handler if one is named. Doesn't wait.
    pub(crate) fn tell(
        &self,
        module: &Arc<Module>,
        (plugin, generation): (String, u64),
        (kind, handler): (Kind, String),
        panic: Panic,
    ) {
        let job = Job { module: Arc::clone(module), plugin, generation, handler, kind, panic };
        if let Err(full) = self.jobs.try_send(job) {
            let (std::sync::mpsc::TrySendError::Full(job) | std::sync::mpsc::TrySendError::Disconnected(job)) = full;
            let frames = job.module.offsets(&job.panic.frames).into_iter().map(|offset| job.module.raw(offset)).collect();
            self.bus.say(job.told(frames));
        }
    }
}

fn name_all(queue: &Receiver<Job>, bus: &Bus) {
    let mut names = Names::default();
    while let Ok(job) = queue.recv() {
        let frames = names.of(&job.module, &job.panic);
        bus.say(job.told(frames));
    }
}

/// A function on the way to a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    function: Option<String>,
    /// As the compiler wrote it, with the line.
    place: Option<(String, u32)>,
}

/// What is known of the files that were looked into.
#[derive(Default)]
struct Names {
    /// The file that was looked into last, by its path; none if it has nothing to tell.
    open: Option<(PathBuf, Option<Loader>)>,
    /// By file and offset, the innermost of inlined functions first.
    known: HashMap<(PathBuf, u64), Vec<Frame>>,
}

impl Names {
    fn of(&mut self, module: &Module, panic: &Panic) -> Vec<String> {
        let offsets = module.offsets(&panic.frames);
        let named: Vec<(u64, Vec<Frame>)> = offsets.into_iter().map(|offset| (offset, self.frames(module, offset))).collect();
        if named.iter().all(|(_, frames)| frames.iter().all(|frame| frame.function.is_none())) {
            return named.into_iter().map(|(offset, _)| module.raw(offset)).collect();
        }
        let root = root_of(&panic.location, named.iter().flat_map(|(_, frames)| frames));
        let each = named.into_iter().flat_map(|(offset, frames)| {
            let unknown = frames.is_empty().then(|| (true, module.raw(offset)));
            let told = |frame: Frame| match frame.function {
                Some(function) => (is_machinery(&function, &frame.place), tell(&function, frame.place.as_ref(), &root)),
                None => (true, module.raw(offset)),
            };
            unknown.into_iter().chain(frames.into_iter().map(told)).collect::<Vec<_>>()
        });
        trim(each.collect())
    }

    fn frames(&mut self, module: &Module, offset: u64) -> Vec<Frame> {
        let key = (module.path.clone(), offset);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let frames = self.loader(&module.path).map(|loader| look_up(loader, offset)).unwrap_or_default();
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, frames.clone());
        frames
    }

    fn loader(&mut self, path: &Path) -> Option<&Loader> {
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            // What the loader doesn't read is written last, just after the publish.
            let until = Instant::now() + COMPLETION;
            while !is_complete(path) && Instant::now() < until {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            self.open = Some((path.to_owned(), Loader::new(path).ok()));
        }
        self.open.as_ref().and_then(|(_, loader)| loader.as_ref())
    }
}

/// Whether the section headers at its end are there, or the file is gone.
fn is_complete(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return true };
    let bytes = object::read::ReadCache::new(file);
    let Ok(header) = FileHeader64::<Endianness>::parse(&bytes) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let Ok(sections) = header.section_headers(endian, &bytes) else { return false };
    sections.is_empty() || sections.iter().any(|section| section.sh_type(endian) != object::elf::SHT_NULL)
}

fn look_up(loader: &Loader, offset: u64) -> Vec<Frame> {
    let mut found = Vec::new();
    if let Ok(mut frames) = loader.find_frames(offset) {
        while let Ok(Some(frame)) = frames.next() {
            let place = frame.location.and_then(|at| Some((at.file?.to_owned(), at.line?)));
            let function = frame.function.and_then(|function| Some(function.demangle().ok()?.into_owned()));
            found.push(Frame { function, place });
        }
    }
    // Line tables alone leave names out, or their paths. The symbol is that of the function into which the others were inlined.
    if let Some(symbol) = loader.find_symbol(offset) {
        let function = Some(addr2line::demangle_auto(symbol.into(), None).into_owned());
        match found.last_mut() {
            Some(outermost) => outermost.function = function,
            None => found.push(Frame { function, place: None }),
        }
    }
    found
}

/// Where the compiler was started, as far as a panic's location, which is relative to that, tells.
fn root_of<'a>(location: &str, frames: impl Iterator<Item = &'a Frame>) -> String {
    let file = location.rsplitn(3, ':').nth(2).unwrap_or_default();
    let mut places = frames.filter_map(|frame| frame.place.as_ref());
    let root = places.find_map(|(place, _)| place.strip_suffix(file).filter(|root| !file.is_empty() && root.ends_with('/')));
    root.unwrap_or_default().to_owned()
}

fn tell(function: &str, place: Option<&(String, u32)>, root: &str) -> String {
    let Some((file, line)) = place else { return function.to_owned() };
    let short = match file.split_once("/registry/src/") {
        // Behind the registry's name stands the package's.
        Some((_, package)) => package.split_once('/').map_or(package, |(_, file)| file),
        None => file.strip_prefix(root).unwrap_or(file),
    };
    format!("{function} ({short}:{line})")
}

/// Whether a function is of std or of this project rather than of the plugin.
fn is_machinery(function: &str, place: &Option<(String, u32)>) -> bool {
    let is_apart = place.as_ref().is_some_and(|(file, _)| {
        let folders = ["/rustlib/src/", "/registry/src/"];
        file.starts_with("/rustc/") || is_of_this_checkout(file) || folders.iter().any(|folder| is_ours_in(file, folder))
    });
    // `<T as Trait>::f` and `<T>::f` belong to the crate of `T`.
    let path = function.trim_start_matches(['<', '&', '_']).trim_start_matches("dyn ");
    let crates = ["core::", "std::", "alloc::", "rustc::", "midair_abi::", "midair_plugin::"];
    let functions = ["rust_try", "rust_begin_unwind", "rust_panic", "rust_begin_short_backtrace", "rust_end_short_backtrace"];
    is_apart || crates.iter().any(|name| path.starts_with(name)) || functions.contains(&path)
}

/// Whether a file is of midair-abi, as the host was built with it, or of midair-plugin around that.
fn is_of_this_checkout(file: &str) -> bool {
    let around = SOURCES.strip_suffix("abi/src/").filter(|around| around.ends_with('/'));
    file.starts_with(SOURCES) || around.and_then(|around| file.strip_prefix(around)).is_some_and(|file| file.starts_with("src/"))
}

/// Whether a file below one of the compiler's or cargo's folders is of std, of midair-plugin or of midair-abi.
fn is_ours_in(file: &str, folder: &str) -> bool {
    let is_ours = |rest: &str| ["/midair-plugin-", "/midair-abi-"].iter().any(|package| rest.contains(package));
    file.split_once(folder).is_some_and(|(_, rest)| rest.starts_with("rust/library/") || is_ours(rest))
}

/// Without the machinery at both ends; whole if there is nothing else.
fn trim(frames: Vec<(bool, String)>) -> Vec<String> {
    let first = frames.iter().position(|(is_machinery, _)| !is_machinery).unwrap_or_default();
    let last = frames.iter().rposition(|(is_machinery, _)| !is_machinery).map_or(frames.len(), |last| last + 1);
    frames.into_iter().take(last).skip(first).map(|(_, told)| told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_library_s_own_frames_count_and_each_is_a_call() {
        let module = Module::new("/data/staged/3.1-0123456789abcdef.so".into(), 0x1000..0x2000);
        let offsets = module.offsets(&[0xfff, 0x1010, 0x5000, 0x1fff, 0x2000]);
        assert_eq!(offsets, [0xf, 0xffe]);
        assert_eq!(module.raw(offsets[0]), "3.1-0123456789abcdef.so+0xf");
    }

    #[test]
    fn machinery_goes_at_both_ends_and_stays_between() {
        let frames = |text: &str| -> Vec<(bool, String)> {
            let machinery = |name: &str| is_machinery(name, &None);
            text.split(' ').map(|name| (machinery(name), name.to_owned())).collect()
        };
        let check = |given: &str, left: &str| assert_eq!(trim(frames(given)).join(" "), left, "{given}");
        check("core::panicking::panic_fmt shop::a core::map shop::b midair_plugin::shim::call", "shop::a core::map shop::b");
        check("<alloc::vec::Vec<T>>::index shop::a", "shop::a");
        check("__rustc::rust_begin_unwind <shop::A shop::b", "<shop::A shop::b");
        check("std::a core::b", "std::a core::b");
    }

    #[test]
    fn places_are_told_as_the_plugin_s_author_knows_them() {
        let frame = |file: &str| Frame { function: Some("f".to_owned()), place: Some((file.to_owned(), 41)) };
        let frames = [frame("/rustc/abc/library/core/src/option.rs"), frame("/home/me/shop/src/lib.rs")];
        let root = root_of("src/lib.rs:41:5", frames.iter());
        assert_eq!(root, "/home/me/shop/");
        let told = |file: &str| tell("shop::total", Some(&(file.to_owned(), 41)), &root);
        assert_eq!(told("/home/me/shop/src/cart.rs"), "shop::total (src/cart.rs:41)");
        assert_eq!(told("/root/.cargo/registry/src/index.crates.io-1/itoa-1.0/src/lib.rs"), "shop::total (itoa-1.0/src/lib.rs:41)");
        assert_eq!(root_of("", frames.iter()), "");
    }
}

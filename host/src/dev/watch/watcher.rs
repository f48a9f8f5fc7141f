//! What did the system say, and what is there now?

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::{Condvar, Mutex};

use super::contents::{Contents, Print};
use super::pending::{Hint, Pending, Sight, Taken};
use super::places::{self, Places, Stamp};
use super::rest::Rest;
use super::scope::Scope;
use crate::error::{Code, Error, Result};

/// How often everything is compared where events don't arrive.
const POLL: Duration = Duration::from_millis(500);

/// How long the probe waits for an event of its own making. It comes within microseconds or never.
const PROBE: Duration = Duration::from_millis(250);

/// The kernel's clock for file stamps lags behind by up to one tick, 10 ms on the slowest kernels.
const TICK: Duration = Duration::from_millis(20);

/// Watches files and folders by content.
///
/// Nothing here calls back with a change: `wake` says that a look is worth it, [`look`](Watcher::look) takes it, and
/// [`changed`](Watcher::changed) tells what differs from the content at the last [`take`](Watcher::take).
pub struct Watcher {
    scope: Scope,
    places: Places,
    contents: Contents,
    rest: Rest,
    /// As they were before a file was last read, and when that was: of listed files, and of all where events don't arrive.
    stamps: BTreeMap<PathBuf, (Stamp, SystemTime)>,
    taken_at: SystemTime,
    inbox: Arc<Inbox>,
    system: Option<RecommendedWatcher>,
    listening: BTreeSet<PathBuf>,
    /// Dropped with the watcher, which ends the poller.
    poller: Option<Sender<()>>,
}

/// What the system's thread and the poller leave for the loop.
struct Inbox {
    pending: Mutex<Pending>,
    probes: Mutex<BTreeSet<PathBuf>>,
    probed: Condvar,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Watcher {
    /// Watches `scope`, taking what is there now as known. `wake` is called on other threads and must be quick.
    ///
    /// # Errors
    ///
    /// E_USAGE if the scope would take in the whole file system or a home folder.
    pub fn new(scope: Scope, wake: impl Fn() + Send + Sync + 'static) -> Result<Watcher> {
        let watcher = Self::deaf(scope, wake)?;
        let inbox = watcher.inbox.clone();
        Ok(watcher.listening_by(notify::recommended_watcher(move |event| inbox.hear(event)).ok()))
    }

    /// Starts with what the system offers, and polls where that hears nothing.
    fn listening_by(mut self, system: Option<RecommendedWatcher>) -> Watcher {
        self.system = system;
        self.scan(true, &BTreeSet::new(), Instant::now());
        if self.system.is_none() || self.is_shared() || !self.hears() {
            self.poll(POLL);
        }
        self
    }

    /// Watches `scope` by comparing everything again and again, without the system's events.
    ///
    /// # Errors
    ///
    /// As [`new`](Watcher::new).
    pub fn polling(scope: Scope, every: Duration, wake: impl Fn() + Send + Sync + 'static) -> Result<Watcher> {
        let mut watcher = Self::deaf(scope, wake)?;
        watcher.scan(true, &BTreeSet::new(), Instant::now());
        watcher.poll(every);
        Ok(watcher)
    }

    fn deaf(scope: Scope, wake: impl Fn() + Send + Sync + 'static) -> Result<Watcher> {
        refuse(&scope, std::env::home_dir().as_deref())?;
        let pending = Mutex::new(Pending::new(scope.quiet));
        Ok(Watcher {
            scope,
            places: Places::default(),
            contents: Contents::default(),
            rest: Rest::default(),
            stamps: BTreeMap::new(),
            taken_at: UNIX_EPOCH,
            inbox: Arc::new(Inbox { pending, probes: Mutex::default(), probed: Condvar::new(), wake: Box::new(wake) }),
            system: None,
            listening: BTreeSet::new(),
            poller: None,
        })
    }

    /// Watches another scope from now on, with the quiet time of the first. What is new in it is dirty only if it was touched since the
    /// last take.
    ///
    /// # Errors
    ///
    /// As [`new`](Watcher::new); the scope before stays.
    pub fn rescope(&mut self, scope: Scope) -> Result<()> {
        if scope != self.scope {
            refuse(&scope, std::env::home_dir().as_deref())?;
            for file in self.scope.files.difference(&scope.files) {
                self.rest.release(file);
            }
            self.scope = Scope { quiet: self.scope.quiet, ..scope };
            self.scan(true, &BTreeSet::new(), Instant::now());
        }
        Ok(())
    }

    /// Reads what the events since the last look point at. A listed file that may be half written is left as it was last seen.
    pub fn look(&mut self, now: Instant) {
        let Taken { mut all, paths } = self.inbox.pending.lock().take(now);
        let mut standing = BTreeSet::new();
        for (path, sight) in &paths {
            all |= self.changes_the_map(path);
            match sight {
                Sight::Stands => standing.extend(self.led_to_by(path)),
                // Where others write unheard, nobody heard how quiet it was.
                Sight::Quiet if self.poller.is_none() => standing.extend(self.files_at(path)),
                Sight::Quiet | Sight::Unsure => {}
            }
        }
        if all {
            self.scan(false, &standing, now);
            return;
        }
        let mut files: BTreeSet<_> = self.rest.ripe(now).into_iter().collect();
        for path in paths.keys() {
            files.extend(self.files_at(path));
        }
        for file in files {
            self.observe(&file, standing.contains(&file), now);
        }
    }

    /// Reads everything, whether or not an event pointed at it.
    pub fn look_at_all(&mut self, now: Instant) {
        self.inbox.pending.lock().note_all();
        self.look(now);
    }

    /// When to look again even if nothing wakes the caller.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.inbox.pending.lock().due().into_iter().chain(self.rest.due()).min()
    }

    /// Whether a listed file is being written, as far as anybody can tell: what is there must not be used.
    #[must_use]
    pub fn is_being_written(&self, file: &Path) -> bool {
        self.rest.contains(file) || self.was_heard_written(file)
    }

    /// Whether a listed file still has the stamps that it had when it was last read.
    #[must_use]
    pub fn is_as_read(&self, file: &Path) -> bool {
        places::stamp(file) == self.stamps.get(file).map(|(stamp, _)| *stamp)
    }

    /// The files that count and differ from what was last taken. `everything` lets all files of the watched folders count.
    #[must_use]
    pub fn changed(&self, everything: bool) -> Vec<PathBuf> {
        self.contents.dirty().filter(|path| self.scope.counts(path, everything)).map(Path::to_owned).collect()
    }

    /// Whether the file was there at the last look.
    #[must_use]
    pub fn is_there(&self, path: &Path) -> bool {
        self.contents.last_seen(path).flatten().is_some()
    }

    /// Takes what was last seen as known. Call it before the content is used, so that a later change is noticed.
    pub fn take(&mut self) {
        self.contents.take();
        self.taken_at = SystemTime::now();
    }

    /// The hashes of all files that count, as last taken.
    #[must_use]
    pub fn taken(&self) -> BTreeMap<PathBuf, [u8; 32]> {
        let counts = self.contents.taken().filter(|(path, _)| self.scope.counts(path, false));
        counts.map(|(path, hash)| (path.clone(), *hash)).collect()
    }

    /// Takes one file as known.
    pub fn take_one(&mut self, path: &Path) {
        self.contents.take_one(path);
    }

    /// Takes back that a file is known: it differs, whatever is there at the next look.
    pub fn doubt(&mut self, path: &Path) {
        self.contents.doubt(path);
    }

    /// How changes are noticed: `events`, or `polling` where those don't arrive.
    #[must_use]
    pub fn by(&self) -> &'static str {
        if self.poller.is_some() { "polling" } else { "events" }
    }

    /// How many folders are watched.
    #[must_use]
    pub fn folders(&self) -> usize {
        self.places.folders.len()
    }

    /// How many files are compared.
    #[must_use]
    pub fn files(&self) -> usize {
        self.contents.count()
    }

    /// Whether something happened to a folder, a link or a rule, so that other paths must be watched than before.
    fn changes_the_map(&mut self, path: &Path) -> bool {
        if self.places.folders.contains(path) || self.scope.reaches_below(path) || self.leads_elsewhere(path) {
            return true;
        }
        if path.file_name().is_some_and(|name| name == ".gitignore" || name == ".ignore" || name == "CACHEDIR.TAG") {
            return true;
        }
        let Some((root, _)) = self.scope.tree_of(path) else { return false };
        let Ok(about) = fs::symlink_metadata(path) else { return false };
        // A package that appears inside another one is no part of that.
        let is_package = path.ends_with("Cargo.toml") && !self.scope.files.contains(path);
        (about.is_dir() || about.is_symlink() || is_package) && !self.places.ignores(root, path, about.is_dir())
    }

    /// Whether `path` is a link, or was one, on the way to a watched file.
    fn leads_elsewhere(&self, path: &Path) -> bool {
        self.places.ways.get(path).is_some_and(|files| {
            fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) || files.iter().any(|file| file.starts_with(path))
        }) || (self.places.ways.values().any(|files| files.contains(path)))
    }

    /// The watched files that an event at `path` may have changed.
    fn files_at(&mut self, path: &Path) -> BTreeSet<PathBuf> {
        let mut files = self.places.ways.get(path).cloned().unwrap_or_default();
        let known = self.scope.files.contains(path) || self.contents.last_seen(path).is_some();
        let is_new = |(root, _): (&Path, _)| !self.places.ignores(root, path, false);
        if known || self.scope.tree_of(path).is_some_and(is_new) {
            files.insert(path.to_owned());
        }
        files
    }

    /// The listed files whose content stands because `path` was closed or renamed in: itself, what lies below, what leads there.
    fn led_to_by(&self, path: &Path) -> BTreeSet<PathBuf> {
        let stops = self.places.ways.iter().filter(|(stop, _)| stop.starts_with(path));
        let led = stops.flat_map(|(_, files)| files).cloned();
        self.scope.files.iter().filter(|file| file.starts_with(path)).cloned().chain(led).collect()
    }

    /// Notes a file's content, unless it has to be left alone. A file that is `standing` is whole.
    fn observe(&mut self, path: &Path, standing: bool, now: Instant) {
        if standing || !self.may_be_half_written(path, now) {
            self.rest.release(path);
            let print = self.print(path);
            self.contents.observe(path, print);
        }
    }

    fn was_heard_written(&self, file: &Path) -> bool {
        let pending = self.inbox.pending.lock();
        let mut ways = self.places.ways.iter().filter(|(_, files)| files.contains(file));
        pending.is_written(file) || ways.any(|(stop, _)| pending.is_written(stop))
    }

    fn may_be_half_written(&mut self, path: &Path, now: Instant) -> bool {
        if !self.scope.files.contains(path) || !path.is_file() {
            return false;
        }
        let Some(stamp) = places::stamp(path) else { return false };
        let is_known = self.stamps.get(path).is_some_and(|(before, _)| *before == stamp);
        let rests = is_known || !self.rest.holds(path, stamp, self.scope.quiet, now);
        !rests || self.was_heard_written(path)
    }

    /// Walks everything and compares all files.
    fn scan(&mut self, adopting: bool, standing: &BTreeSet<PathBuf>, now: Instant) {
        let mut again = true;
        // A folder made while we walk is found by the walk after the one that started to listen to its parent.
        for _ in 0..8 {
            self.places = Places::find(&self.scope);
            if !self.listen(again) {
                break;
            }
            again = false;
        }
        for path in self.contents.paths() {
            if !self.places.files.contains(&path) {
                if path.exists() { self.contents.forget(&path) } else { self.contents.observe(&path, None) }
            }
        }
        for path in self.places.files.clone() {
            let joins = adopting && self.contents.last_seen(&path).is_none();
            if joins && !self.touched_since_taken(&path) {
                let print = self.print(&path);
                self.contents.adopt(&path, print);
            } else {
                self.observe(&path, joins || standing.contains(&path), now);
            }
        }
    }

    /// Listens to the folders found, and tells whether one of them is new. `again` listens anew to all: a folder may be another one
    /// under the same name.
    fn listen(&mut self, again: bool) -> bool {
        let Some(system) = &mut self.system else { return false };
        for folder in self.listening.difference(&self.places.folders) {
            // It fails for a folder that is gone, which is what we want.
            let _ = system.unwatch(folder);
        }
        let mut new = false;
        let mut listening = BTreeSet::new();
        let mut refused = false;
        for folder in &self.places.folders {
            let known = self.listening.contains(folder);
            if known && !again {
                listening.insert(folder.clone());
                continue;
            }
            match system.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    new |= !known;
                    listening.insert(folder.clone());
                }
                // A folder that vanished meanwhile is found missing by the next walk; any other refusal leaves us deaf there.
                Err(_) if !folder.is_dir() => new = true,
                Err(_) => refused = true,
            }
        }
        self.listening = listening;
        if refused {
            self.poll(POLL);
        }
        new
    }

    fn print(&mut self, path: &Path) -> Print {
        let listed = self.scope.files.contains(path);
        let polls = self.poller.is_some();
        if !listed && !polls {
            return places::print(path, listed);
        }
        let Some(stamp) = places::stamp(path) else {
            self.stamps.remove(path);
            return places::print(path, listed);
        };
        let now = SystemTime::now();
        // Polling over a network, an unchanged stamp that is old enough to be trusted saves the reading.
        if polls
            && let Some((before, read)) = self.stamps.get(path)
            && *before == stamp
            && read.duration_since(UNIX_EPOCH).is_ok_and(|read| read.as_nanos() as i128 > stamp.2.max(stamp.3) + 2_000_000_000)
            && let Some(print) = self.contents.last_seen(path)
        {
            return print;
        }
        self.stamps.insert(path.to_owned(), (stamp, now));
        places::print(path, listed)
    }

    fn touched_since_taken(&self, path: &Path) -> bool {
        let taken = self.taken_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // A rename keeps the time of modification and sets that of the change.
        self.taken_at > UNIX_EPOCH
            && places::stamp(path).is_some_and(|stamp| stamp.3 + TICK.as_nanos() as i128 >= taken.as_nanos() as i128)
    }

    fn is_shared(&self) -> bool {
        self.listening.iter().any(|folder| places::is_shared(folder))
    }

    /// Opens one watched file of each file system for reading, and tells whether the system reported it.
    fn hears(&self) -> bool {
        let mut probes = BTreeMap::new();
        for file in &self.places.files {
            let Ok(about) = fs::symlink_metadata(file) else { continue };
            if about.is_file() && file.parent().is_some_and(|parent| self.listening.contains(parent)) {
                probes.entry(about.dev()).or_insert(file);
            }
        }
        let mut waiting = self.inbox.probes.lock();
        waiting.extend(probes.values().map(|file| (*file).clone()));
        for file in probes.values() {
            if File::open(file).is_err() {
                waiting.remove(*file);
            }
        }
        let deadline = Instant::now() + PROBE;
        while !waiting.is_empty() && !self.inbox.probed.wait_until(&mut waiting, deadline).timed_out() {}
        let heard = waiting.is_empty();
        waiting.clear();
        heard
    }

    fn poll(&mut self, every: Duration) {
        if self.poller.is_some() {
            return;
        }
        let (alive, ended) = channel();
        let inbox = self.inbox.clone();
        let poller = thread::Builder::new().name("midair-poll".into()).spawn(move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                inbox.note_all();
            }
        });
        self.poller = poller.is_ok().then_some(alive);
    }
}

impl Inbox {
    /// Sorts one event of the system. Runs on the system's thread.
    fn hear(&self, event: notify::Result<notify::Event>) {
        let Ok(event) = event else { return self.note_lost() };
        if event.need_rescan() {
            return self.note_lost();
        }
        let hint = match event.kind {
            EventKind::Access(AccessKind::Open(_)) => return self.hear_probe(&event.paths),
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Hint::Done,
            // Both halves of a rename within what is watched were told one by one before.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            // Neither kind of link is closed later, as a file that is about to be written would be.
            EventKind::Create(CreateKind::File) => match event.paths.first().map(fs::symlink_metadata) {
                Some(Ok(about)) if about.is_symlink() || (about.is_file() && about.nlink() > 1) => Hint::Done,
                _ => Hint::Writing,
            },
            EventKind::Create(CreateKind::Folder) => Hint::Made,
            EventKind::Modify(ModifyKind::Data(_)) => Hint::Writing,
            EventKind::Modify(ModifyKind::Metadata(_)) => Hint::Touched,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Hint::Gone,
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => Hint::Done,
        };
        let (now, mut wake) = (Instant::now(), false);
        for path in event.paths {
            wake |= self.pending.lock().note(path, hint, now);
        }
        if wake {
            (self.wake)();
        }
    }

    fn hear_probe(&self, paths: &[PathBuf]) {
        let mut waiting = self.probes.lock();
        if paths.iter().any(|path| waiting.remove(path)) {
            self.probed.notify_all();
        }
    }

    fn note_all(&self) {
        if self.pending.lock().note_all() {
            (self.wake)();
        }
    }

    fn note_lost(&self) {
        if self.pending.lock().note_lost() {
            (self.wake)();
        }
    }
}

/// A package in the home folder or at the root would mean to listen to everything a user has.
fn refuse(scope: &Scope, home: Option<&Path>) -> Result<()> {
    match scope.trees.keys().find(|root| root.parent().is_none() || Some(root.as_path()) == home) {
        None => Ok(()),
        Some(root) => Err(Error::fatal(Code::Usage, root.display().to_string(), "is too large to watch as a package")
            .help("move the package into a folder of its own")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::scope::Take;
    use super::*;

    /// A folder that goes with the test.
    pub(in super::super) struct Folder(PathBuf);

    impl Folder {
        pub(in super::super) fn new() -> Folder {
            static LAST: AtomicUsize = AtomicUsize::new(0);
            let name = format!("midair-watch-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
            let path = fs::canonicalize(std::env::temp_dir()).expect("a temp folder").join(name);
            fs::create_dir_all(&path).expect("a folder");
            Folder(path)
        }

        pub(in super::super) fn path(&self, below: &str) -> PathBuf {
            if below.is_empty() { self.0.clone() } else { self.0.join(below) }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    pub(in super::super) fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    /// A watcher with something to wait on.
    struct Bench {
        folder: Folder,
        watcher: Watcher,
        woken: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Bench {
        fn new(by: &str) -> Bench {
            let folder = Folder::new();
            write(&folder.path("p/src/lib.rs"), "one");
            write(&folder.path("p/Cargo.toml"), "one");
            let scope = Scope {
                files: [folder.path("p/Cargo.toml"), folder.path("p/.cargo/config.toml")].into(),
                trees: [(folder.path("p"), Take::Rust)].into(),
                ..Scope::default()
            };
            Self::watching(folder, scope, by)
        }

        fn watching(folder: Folder, scope: Scope, by: &str) -> Bench {
            let bench = Self::made(folder, |wake| match by {
                "polling" => Watcher::polling(scope, Duration::from_millis(20), wake),
                _ => Watcher::new(scope, wake),
            });
            assert_eq!(bench.watcher.by(), by);
            bench
        }

        fn made(folder: Folder, make: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> Result<Watcher>) -> Bench {
            let woken = Arc::new((Mutex::new(false), Condvar::new()));
            let ring = woken.clone();
            let wake = move || {
                *ring.0.lock() = true;
                ring.1.notify_all();
            };
            let mut watcher = make(Box::new(wake)).expect("a watcher");
            watcher.take();
            Bench { folder, watcher, woken }
        }

        /// Looks whenever it is worth it until `done`, at most five seconds, and tells what changed.
        fn look_until(&mut self, done: impl Fn(&[String]) -> bool) -> Vec<String> {
            let deadline = Instant::now() + Duration::from_secs(5);
            loop {
                self.watcher.look(Instant::now());
                let root = self.folder.path("");
                let name = |path: &PathBuf| path.strip_prefix(&root).expect("below").display().to_string();
                let changed: Vec<_> = self.watcher.changed(false).iter().map(name).collect();
                if done(&changed) || Instant::now() > deadline {
                    return changed;
                }
                let mut woken = self.woken.0.lock();
                if !*woken {
                    self.woken.1.wait_until(&mut woken, self.watcher.due().unwrap_or(deadline).min(deadline));
                }
                *woken = false;
            }
        }

        fn expect(&mut self, changed: &[&str]) {
            assert_eq!(self.look_until(|found| found == changed), changed);
            self.watcher.take();
        }
    }

    fn both(check: impl Fn(Bench)) {
        ["events", "polling"].map(Bench::new).into_iter().for_each(check);
    }

    #[test]
    fn every_way_in_which_editors_save_is_seen() {
        both(|mut bench| {
            let lib = bench.folder.path("p/src/lib.rs");
            write(&lib, "in place");
            bench.expect(&["p/src/lib.rs"]);
            write(&bench.folder.path("p/src/4913"), "renamed over");
            fs::rename(bench.folder.path("p/src/4913"), &lib).expect("a rename");
            bench.expect(&["p/src/lib.rs"]);
            fs::remove_file(&lib).expect("a removal");
            write(&lib, "deleted and created");
            bench.expect(&["p/src/lib.rs"]);
            fs::remove_file(&lib).expect("a removal");
            bench.expect(&["p/src/lib.rs"]);
        });
    }

    #[test]
    fn the_same_bytes_are_no_change() {
        both(|mut bench| {
            write(&bench.folder.path("p/src/lib.rs"), "one");
            write(&bench.folder.path("p/src/notes.md"), "not code");
            write(&bench.folder.path("p/src/other.rs"), "two");
            bench.expect(&["p/src/other.rs"]);
        });
    }

    #[test]
    fn a_new_folder_is_watched_with_what_is_in_it_already() {
        both(|mut bench| {
            write(&bench.folder.path("p/src/deep/er/mod.rs"), "new");
            bench.expect(&["p/src/deep/er/mod.rs"]);
            write(&bench.folder.path("p/src/deep/er/mod.rs"), "newer");
            bench.expect(&["p/src/deep/er/mod.rs"]);
            write(&bench.folder.path("p/.cargo/config.toml"), "listed");
            bench.expect(&["p/.cargo/config.toml"]);
        });
    }

    #[test]
    fn a_folder_removed_and_put_back_is_watched_again() {
        both(|mut bench| {
            for round in ["first", "second"] {
                fs::rename(bench.folder.path("p"), bench.folder.path("away")).expect("a rename");
                bench.expect(&["p/Cargo.toml", "p/src/lib.rs"]);
                fs::remove_dir_all(bench.folder.path("away")).expect("a removal");
                write(&bench.folder.path("p/Cargo.toml"), round);
                write(&bench.folder.path("p/src/lib.rs"), round);
                bench.expect(&["p/Cargo.toml", "p/src/lib.rs"]);
                write(&bench.folder.path("p/src/lib.rs"), &format!("{round} again"));
                bench.expect(&["p/src/lib.rs"]);
            }
            // A part of it: nothing is said of the files in there.
            fs::rename(bench.folder.path("p/src"), bench.folder.path("away")).expect("a rename");
            bench.expect(&["p/src/lib.rs"]);
            fs::rename(bench.folder.path("away"), bench.folder.path("p/src")).expect("a rename");
            bench.expect(&["p/src/lib.rs"]);
            // All of it between two looks.
            fs::remove_dir_all(bench.folder.path("p")).expect("a removal");
            write(&bench.folder.path("p/Cargo.toml"), "new folder");
            write(&bench.folder.path("p/src/lib.rs"), "new folder");
            bench.expect(&["p/Cargo.toml", "p/src/lib.rs"]);
            write(&bench.folder.path("p/src/lib.rs"), "in the new folder");
            bench.expect(&["p/src/lib.rs"]);
        });
    }

    #[test]
    fn a_listed_file_is_followed_through_every_link() {
        for by in ["events", "polling"] {
            let folder = Folder::new();
            for release in ["1", "2", "3"] {
                write(&folder.path(&format!("releases/{release}/lib.so")), release);
            }
            symlink("releases/1", folder.path("current")).expect("a link");
            symlink("current/lib.so", folder.path("lib.so")).expect("a link");
            let scope = Scope { files: [folder.path("lib.so")].into(), ..Scope::default() };
            let mut bench = Bench::watching(folder, scope, by);

            symlink("releases/2", bench.folder.path("next")).expect("a link");
            fs::rename(bench.folder.path("next"), bench.folder.path("current")).expect("a rename");
            bench.expect(&["lib.so"]);
            write(&bench.folder.path("releases/2/lib.so"), "copied over");
            bench.expect(&["lib.so"]);
            fs::remove_file(bench.folder.path("lib.so")).expect("a removal");
            symlink("releases/3/lib.so", bench.folder.path("lib.so")).expect("a link");
            bench.expect(&["lib.so"]);
            fs::remove_file(bench.folder.path("lib.so")).expect("a removal");
            write(&bench.folder.path("lib.so"), "no link any more");
            bench.expect(&["lib.so"]);
            write(&bench.folder.path("lib.so"), "written again");
            bench.expect(&["lib.so"]);
        }
    }

    #[test]
    fn a_file_that_stays_open_is_seen_when_it_rests() {
        let mut bench = Bench::new("events");
        let mut file = File::create(bench.folder.path("p/src/lib.rs")).expect("a file");
        file.write_all(b"not closed").expect("a write");
        bench.expect(&["p/src/lib.rs"]);
    }

    /// Watches one listed file behind a link, which must be quiet for an hour unless somebody tells that it is whole.
    fn artifact(by: &str) -> Bench {
        let folder = Folder::new();
        write(&folder.path("releases/1/lib.so"), "one");
        write(&folder.path("next/lib.so"), "two");
        symlink("releases/1/lib.so", folder.path("lib.so")).expect("a link");
        let quiet = Duration::from_secs(3600);
        let scope = Scope { files: [folder.path("lib.so")].into(), quiet, ..Scope::default() };
        Bench::watching(folder, scope, by)
    }

    #[test]
    fn a_listed_file_of_which_nobody_tells_must_rest() {
        for by in ["events", "polling"] {
            let mut bench = artifact(by);
            let (lib, start) = (bench.folder.path("lib.so"), Instant::now());
            let after = |minutes: u64| start + Duration::from_secs(60 * minutes);
            let file = File::options().write(true).open(&lib).expect("a file");
            // What was overheard of it is lost, so that only its stamps tell.
            let mut look = |minutes| {
                bench.watcher.inbox.pending.lock().note_lost();
                bench.watcher.look(after(minutes));
                (bench.watcher.is_being_written(&lib), bench.watcher.changed(false).len())
            };
            assert_eq!(look(0), (false, 0), "{by}");
            file.set_len(1).expect("a shorter file");
            assert_eq!([look(0), look(50)], [(true, 0), (true, 0)], "{by}");
            file.set_len(2).expect("a longer file");
            assert_eq!([look(70), look(129)], [(true, 0), (true, 0)], "{by}");
            assert_eq!(look(130), (false, 1), "{by}");
        }
    }

    #[test]
    fn a_listed_file_that_was_closed_or_renamed_in_counts_at_once() {
        let mut bench = artifact("events");
        write(&bench.folder.path("lib.so"), "closed");
        bench.expect(&["lib.so"]);
        let file = File::options().write(true).open(bench.folder.path("lib.so")).expect("a file");
        file.set_len(1).expect("a shorter file");
        bench.watcher.look_at_all(Instant::now());
        assert!(bench.watcher.is_being_written(&bench.folder.path("lib.so")) && bench.watcher.changed(false).is_empty());
        drop(file);
        bench.expect(&["lib.so"]);
        symlink("next/lib.so", bench.folder.path("other")).expect("a link");
        fs::rename(bench.folder.path("other"), bench.folder.path("lib.so")).expect("a rename");
        bench.expect(&["lib.so"]);
    }

    #[test]
    fn what_joins_the_scope_is_dirty_only_if_touched_since() {
        let mut bench = Bench::new("events");
        let (old, new) = (bench.folder.path("old.txt"), bench.folder.path("new.txt"));
        write(&old, "old");
        bench.watcher.taken_at = SystemTime::now() + Duration::from_secs(1);
        let files = [old.clone()].into();
        bench.watcher.rescope(Scope { files, ..Scope::default() }).expect("a scope");
        assert!(bench.watcher.changed(false).is_empty());
        bench.watcher.taken_at = SystemTime::now();
        write(&new, "new");
        bench.watcher.rescope(Scope { files: [old, new.clone()].into(), ..Scope::default() }).expect("a scope");
        assert_eq!(bench.watcher.changed(false), [new]);
    }

    #[test]
    fn fault_38_after_lost_events_everything_is_compared() {
        let overflow = Ok(notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan));
        for lost in [overflow, Err(notify::Error::generic("it can't be read"))] {
            let mut bench = Bench::new("events");
            // Before it is dropped: that is done on a thread of its own, which may hear of what is written next.
            let mut system = bench.watcher.system.take().expect("a system");
            bench.watcher.listening.iter().for_each(|folder| system.unwatch(folder).expect("it was listened to"));
            write(&bench.folder.path("p/src/lib.rs"), "unheard");
            bench.watcher.look(Instant::now() + Duration::from_secs(1));
            assert!(bench.watcher.changed(false).is_empty(), "nobody heard of it");
            bench.watcher.inbox.hear(lost);
            bench.expect(&["p/src/lib.rs"]);
        }
    }

    #[test]
    fn fault_38_where_no_events_arrive_everything_is_compared_again_and_again() {
        let deaf = notify::recommended_watcher(|_| ()).expect("a system");
        for system in [None, Some(deaf)] {
            let folder = Folder::new();
            write(&folder.path("p/src/lib.rs"), "one");
            let scope = Scope { trees: [(folder.path("p"), Take::Rust)].into(), ..Scope::default() };
            let mut bench = Bench::made(folder, |wake| Ok(Watcher::deaf(scope, wake)?.listening_by(system)));
            assert_eq!(bench.watcher.by(), "polling");
            write(&bench.folder.path("p/src/lib.rs"), "two");
            bench.expect(&["p/src/lib.rs"]);
        }
    }

    #[test]
    fn the_whole_file_system_and_a_home_folder_are_refused() {
        for (root, refused) in [("/", true), ("/home/me", true), ("/home/me/shop", false)] {
            let scope = Scope { trees: [(PathBuf::from(root), Take::Rust)].into(), ..Scope::default() };
            assert_eq!(refuse(&scope, Some(Path::new("/home/me"))).is_err(), refused, "{root}");
        }
    }
}

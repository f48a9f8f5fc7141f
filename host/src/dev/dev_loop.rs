//! What happens between a save and a swap?
//!
//! One loop on one plain thread that never runs plugin code: it waits until the content of a source differs, has cargo build what is
//! affected, and hands all artifacts of one edit to the host in one swap. It alone sees both the watch and the build.
//!
//! What is there is taken as known at the moment before a build begins, so that an edit made while it runs is found dirty after it.
//! Such an edit cancels the build; but after two cancelled in a row the next is let finish, so that an editor that saves all the time
//! can't keep new code from ever going live.
//!
//! Plugins refused together are tried together again, others go live without them.
//!
//! An edit of the config needs no build. Code that the host refused may have lacked just that edit, so it is tried with it; if that is
//! refused again, the edit goes live with the code that serves. The other way round an edit of the config that was refused is tried with the
//! next code, which goes live without it if that is refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::attempt::{Attempt, Outcome};
use crate::dev::askers::Askers;
use crate::dev::build::{Cancel, Diagnostic, Product, Project};
use crate::dev::command::{Bell, Commands, Core, Told, broken, config_is_gone, said_by};
use crate::dev::endless::{self, ChangedAt, Endless, Verdict};
use crate::dev::retry_groups::Groups;
use crate::dev::watch::{Scope, Take, Watcher};
use crate::error::{Code, Error, Result, Stage};
use crate::event::Event;
use crate::mutation::{self, Bug};
use crate::swap::{Artifact, Host};

/// Builds and swaps the project's plugins now and after each edit, until it is told to stop.
///
/// The first build is the first attempt, with the trigger `start`. It ends in a record like all others: when it fails, each of several
/// plugins is tried alone, once and with the same trigger, so that a bad one doesn't keep the others from serving; then the loop waits
/// for the edit that mends it.
///
/// # Errors
///
/// When the sources can't be watched at all (E_USAGE), or when the loop itself broke; the host serves on without it.
///
/// # Threads
///
/// Blocks the caller's thread, which needs no runtime. No plugin code runs on it.
pub fn run(host: Host, project: Project, commands: Commands) -> Result<()> {
    run_with(&host, project, &commands)
}

fn run_with(core: &impl Core, project: Project, commands: &Commands) -> Result<()> {
    let config = core.config();
    let watcher = Watcher::new(scope_of(&project, config.as_ref()), commands.wake())?;
    let (debts, patience, endless, askers) = (Debts::default(), Patience::default(), Endless::default(), Askers::default());
    let beginning = Beginning::First;
    let mut developing = Loop { core, commands, project, config, watcher, debts, patience, endless, beginning, askers };
    catch_unwind(AssertUnwindSafe(|| developing.run())).map_err(|panic| broken(core, "development", panic.as_ref()))
}

struct Loop<'a, C> {
    core: &'a C,
    commands: &'a Commands,
    project: Project,
    config: Option<PathBuf>,
    watcher: Watcher,
    debts: Debts,
    patience: Patience,
    endless: Endless,
    beginning: Beginning,
    askers: Askers,
}

/// How far the start is.
enum Beginning {
    /// No attempt has come to its own end yet.
    First,
    /// The first one was rejected; these are to be tried alone.
    Alone(VecDeque<String>),
}

/// What earlier attempts left undone.
#[derive(Default)]
struct Debts {
    /// Plugins with an edit that no attempt has judged yet: the next one has to.
    plugins: BTreeSet<String>,
    /// Plugins whose last edit was refused, by those refused with them.
    refused: Groups<String>,
    /// Plugins that were built and that the host refused: an edit of the config may be what they lack.
    judged_bad: BTreeSet<String>,
    /// An edit of the config isn't live.
    config: bool,
    /// Plugins whose last build failed: any file of theirs may be the one that was missing.
    unbuilt: BTreeSet<String>,
    /// A manifest changed and cargo hasn't explained it yet.
    refresh: bool,
    /// The last build was cancelled.
    superseded: bool,
    /// A reload was asked for while something else was under way; whether by force.
    reload: Option<bool>,
    /// It was said that the plugin at this manifest is gone.
    missing: Option<PathBuf>,
}

impl Debts {
    /// Whether any file may be the one that was missing.
    fn failed(&self) -> bool {
        self.refresh || !self.unbuilt.is_empty()
    }

    fn note(&mut self, told: Told) {
        if told.reload {
            self.reload = Some(self.reload.unwrap_or_default() || told.force);
        }
    }
}

/// How often a build may be cancelled.
#[derive(Default)]
struct Patience {
    cancelled: u32,
}

impl Patience {
    /// Cancelled in a row before one is let finish.
    const MOST: u32 = 2;

    /// Whether the build that runs may give way to a newer edit.
    fn allows_cancel(&self) -> bool {
        self.cancelled < Self::MOST
    }

    fn note(&mut self, cancelled: bool) {
        self.cancelled = if cancelled { self.cancelled + 1 } else { 0 };
    }
}

/// Why an attempt begins.
enum Why {
    Start,
    Alone(String),
    Reload { force: bool },
    Saved(Vec<PathBuf>),
}

/// What an attempt is to do.
struct Task {
    /// The plugins to build and swap.
    plugins: BTreeSet<String>,
    /// Those among them that aren't live as they are: if it is refused, they are a group.
    news: BTreeSet<String>,
    manifest_changed: bool,
    /// Whether a newer edit may cancel the build.
    gives_way: bool,
    config: Config,
}

/// What becomes of the config in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Config {
    /// New code reads its own section and no more.
    OfNewCode,
    /// It was edited together with code.
    Together,
    /// It was edited; the code goes along, and if that is refused the config goes alone.
    Alone,
    /// It was edited earlier and goes along; if that is refused the code goes without it.
    Along,
}

/// How a build ended.
enum Built {
    Products(Vec<Product>),
    Superseded,
    Failed(Error),
}

impl<C: Core> Loop<'_, C> {
    fn run(&mut self) {
        self.core.events().say(Event::Watching {
            plugins: self.project.plugins(),
            folders: self.watcher.folders(),
            files: self.watcher.files(),
            by: self.watcher.by().into(),
        });
        let mut next = Some(Why::Start);
        while let Some(why) = next.take().or_else(|| self.wait()) {
            if !matches!(why, Why::Saved(_)) {
                self.endless.begin_anew();
            }
            if let Why::Reload { force } = why {
                self.askers.begin(self.commands.askers(force));
            }
            self.attempt(why);
            // What overtook it is still to come.
            if !self.debts.superseded {
                self.askers.end();
            }
        }
    }

    /// Waits for a reason to build; `None` is a stop.
    fn wait(&mut self) -> Option<Why> {
        while !self.commands.is_stopped() {
            if let Beginning::Alone(rest) = &mut self.beginning
                && let Some(plugin) = rest.pop_front()
            {
                return Some(Why::Alone(plugin));
            }
            self.watcher.look(Instant::now());
            self.miss_config();
            let changed = self.watcher.changed(self.debts.failed());
            if let Some(force) = self.debts.reload.take() {
                return Some(Why::Reload { force });
            }
            let mut due = self.watcher.due();
            // A superseded build is due even if the newer edit is gone again: the older one was never built.
            if self.debts.superseded || (!changed.is_empty() && !self.waits_for_a_manifest()) {
                match self.endless.judge(&changed, changed_at, Instant::now()) {
                    Verdict::Build => {
                        self.debts.superseded = false;
                        return Some(Why::Saved(changed));
                    }
                    Verdict::Wait(until) => due = due.into_iter().chain([until]).min(),
                    Verdict::Stop => self.stop_building(&changed),
                }
            }
            let told = self.commands.wait(due);
            self.debts.note(told);
        }
        None
    }

    /// Leaves undone what the builds themselves cause, and tells it.
    fn stop_building(&mut self, changed: &[PathBuf]) {
        self.watcher.take();
        self.debts.superseded = false;
        self.debts.plugins.extend(self.project.affected(changed));
        let Some(first) = changed.first() else { return };
        let message = format!(
            "{} differs after each of {} builds that nobody's edit caused, written by {}: nothing more is built until a source is saved. \
             What a build script makes belongs into OUT_DIR",
            self.project.short(first).display(),
            endless::MOST,
            self.project.writer_of(first),
        );
        self.core.events().say(Event::Warning { message });
    }

    /// Tells that the config file is gone, once: what was read of it stays.
    fn miss_config(&mut self) {
        let Some(config) = &self.config else { return };
        if !self.watcher.is_there(config) && self.watcher.changed(false).contains(config) {
            self.watcher.take_one(config);
            self.core.events().say(config_is_gone(config));
        }
    }

    /// Whether a plugin is gone and that was said: one rejection is enough, however many of its files go one after the other.
    fn waits_for_a_manifest(&mut self) -> bool {
        let missing = self.project.missing_manifest().map(Path::to_owned);
        let waits = missing.is_some() && self.debts.missing == missing;
        if missing.is_none() {
            self.debts.missing = None;
        }
        waits
    }

    fn attempt(&mut self, why: Why) {
        let force = matches!(why, Why::Reload { force: true });
        let reloads = matches!(why, Why::Reload { .. });
        let (trigger, changed, wanted) = match why {
            Why::Start => ("start".to_owned(), Vec::new(), None),
            Why::Alone(plugin) => return self.attempt_alone(plugin),
            Why::Reload { .. } => ("reload".to_owned(), self.watcher.changed(self.debts.failed()), None),
            Why::Saved(changed) => (self.describe(&changed), changed.clone(), Some(changed)),
        };
        // From here on every change is a newer one.
        self.watcher.take();
        let sources: Vec<PathBuf> = changed.iter().filter(|path| !self.is_config_alone(path)).cloned().collect();
        let edited = changed.len() > sources.len();
        let mut attempt = self.core.begin(trigger).force(force);

        let manifest_changed = changed.iter().any(|path| path.ends_with("Cargo.toml"));
        self.debts.refresh |= manifest_changed;
        self.debts.missing = self.project.missing_manifest().map(Path::to_owned);
        if self.debts.refresh {
            if let Err(error) = attempt.time(Stage::Build, || self.project.refresh()) {
                self.debts.plugins.extend(self.project.affected(&sources));
                self.debts.config |= edited;
                self.askers.note(&self.core.reject(attempt, &error));
                return;
            }
            self.debts.refresh = false;
            self.rescope();
        }
        self.debts.plugins.extend(self.project.affected(&sources));
        let all: BTreeSet<_> = self.project.plugins().into_iter().collect();
        self.debts.plugins.retain(|plugin| all.contains(plugin));
        self.debts.unbuilt.retain(|plugin| all.contains(plugin));
        let known = |plugins: BTreeSet<String>| plugins.intersection(&all).cloned().collect::<BTreeSet<_>>();
        let config = match (edited, self.debts.plugins.is_empty()) {
            _ if wanted.is_none() => Config::Together,
            (true, true) => Config::Alone,
            (true, false) => Config::Together,
            (false, _) if self.debts.config => Config::Along,
            (false, _) => Config::OfNewCode,
        };
        self.debts.config |= edited;
        if config == Config::Alone {
            self.debts.plugins.extend(self.debts.judged_bad.iter().cloned());
        }
        let owed = known(self.debts.refused.with(&self.debts.plugins));
        let plugins = if wanted.is_some() { owed.clone() } else { all.clone() };
        // What serves as it is owes nothing, whatever becomes of a reload.
        let news = if reloads { known(owed.into_iter().chain(self.debts.refused.members()).collect()) } else { plugins.clone() };
        self.project.distrust(&sources);
        if matches!(self.beginning, Beginning::First) {
            self.project.distrust_earlier(&self.watcher.taken());
        }
        if force {
            self.project.distrust_all();
        }
        let task = Task { plugins, news, manifest_changed, gives_way: true, config };
        if task.plugins.is_empty() && config == Config::Alone {
            self.swap(attempt, Vec::new(), &task);
            return;
        }
        self.build_and_swap(attempt, &task);
    }

    /// Tries a plugin that was rejected with all others at the start. What was edited meanwhile is built when all were tried.
    fn attempt_alone(&mut self, plugin: String) {
        let attempt = self.core.begin("start".to_owned());
        let plugins = BTreeSet::from([plugin]);
        let task = Task { news: plugins.clone(), plugins, manifest_changed: false, gives_way: false, config: Config::OfNewCode };
        self.build_and_swap(attempt, &task);
    }

    fn build_and_swap(&mut self, mut attempt: Attempt, task: &Task) {
        let Task { plugins, news, .. } = task;
        let trigger = attempt.trigger().to_owned();
        self.core.events().say(Event::Building { plugins: plugins.iter().cloned().collect(), trigger: trigger.clone() });
        self.project.record(plugins, &self.watcher.taken(), false);
        let started = Instant::now();
        match attempt.time(Stage::Build, || self.build(task)) {
            // Nothing new goes live on a host that ends, and nothing newer overtook it.
            Built::Superseded | Built::Products(_) if self.commands.is_stopped() => {
                self.core.reject(attempt, &build_error("it was given up, as the host stops"));
                self.askers = Askers::default();
            }
            Built::Superseded => {
                self.debts.superseded = true;
                self.debts.plugins.extend(plugins.iter().cloned());
                self.askers.note(&self.core.supersede(attempt));
            }
            Built::Failed(error) => {
                self.debts.unbuilt.extend(plugins.iter().cloned());
                self.debts.missing = self.project.missing_manifest().map(Path::to_owned);
                self.askers.note(&self.core.reject(attempt, &error));
                self.refuse(plugins, news);
                self.instead(task, &trigger, &[]);
                // It named files that may have to be mended.
                self.rescope();
            }
            Built::Products(products) => {
                self.debts.unbuilt.retain(|plugin| !plugins.contains(plugin));
                let build_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.core.events().say(Event::Built { plugins: plugins.iter().cloned().collect(), build_us });
                let artifacts = products.into_iter().map(|product| Artifact { plugin: product.plugin, path: product.artifact });
                self.swap(attempt, artifacts.collect(), task);
                // After the swap: nobody waits for this.
                self.rescope();
                self.project.record(plugins, &self.watcher.taken(), true);
            }
        }
    }

    fn swap(&mut self, attempt: Attempt, artifacts: Vec<Artifact>, task: &Task) {
        let Task { plugins, news, config, .. } = task;
        let trigger = attempt.trigger().to_owned();
        let record = self.core.swap(attempt.configure(*config != Config::OfNewCode), artifacts.clone());
        if self.askers.note(&record) != Outcome::Rejected {
            self.debts.config &= *config == Config::OfNewCode;
            return self.went_live(plugins);
        }
        self.debts.judged_bad.extend(plugins.iter().cloned());
        self.refuse(plugins, news);
        self.instead(task, &trigger, &artifacts);
    }

    /// After a refusal: tries what was edited without what only went along.
    fn instead(&mut self, task: &Task, trigger: &str, artifacts: &[Artifact]) {
        match task.config {
            Config::Alone if !task.plugins.is_empty() => {
                let attempt = self.core.begin(format!("{trigger}, without code that was refused")).configure(true);
                self.debts.config = self.askers.note(&self.core.swap(attempt, Vec::new())) == Outcome::Rejected;
            }
            Config::Along if !artifacts.is_empty() => {
                let attempt = self.core.begin(format!("{trigger}, without a config that was refused"));
                if self.askers.note(&self.core.swap(attempt, artifacts.to_vec())) != Outcome::Rejected {
                    self.went_live(&task.plugins);
                }
            }
            _ => {}
        }
    }

    fn went_live(&mut self, plugins: &BTreeSet<String>) {
        self.judged(plugins);
        self.debts.refused.settle(plugins);
        self.debts.judged_bad.retain(|plugin| !plugins.contains(plugin));
    }

    /// Whether this is the config file, and no build has read it as a source of its own.
    fn is_config_alone(&self, path: &Path) -> bool {
        self.config.as_deref() == Some(path) && !self.project.sources().listed.contains(path)
    }

    /// Remembers who was refused with whom; at the start that nobody was tried alone yet.
    fn refuse(&mut self, plugins: &BTreeSet<String>, news: &BTreeSet<String>) {
        let is_first = matches!(self.beginning, Beginning::First);
        self.judged(plugins);
        if is_first && plugins.len() > 1 {
            self.beginning = Beginning::Alone(plugins.iter().cloned().collect());
        } else {
            self.debts.refused.refuse(news);
        }
    }

    /// An attempt with these has come to its own end.
    fn judged(&mut self, plugins: &BTreeSet<String>) {
        self.debts.plugins.retain(|plugin| !plugins.contains(plugin));
        if matches!(self.beginning, Beginning::First) {
            self.beginning = Beginning::Alone(VecDeque::new());
        }
    }

    /// Runs a build on a thread of its own, and cancels it when a newer edit comes.
    fn build(&mut self, task: &Task) -> Built {
        let Task { plugins, manifest_changed, gives_way, .. } = task;
        // A lock file that cargo itself is about to write is no newer edit: the first build may find one that lacks what it needs.
        let is_first = matches!(self.beginning, Beginning::First);
        let locks: BTreeSet<_> = self.project.sources().settings.into_iter().filter(|path| path.ends_with("Cargo.lock")).collect();
        let locks: BTreeSet<_> =
            locks.into_iter().filter(|lock| is_first || *manifest_changed || !self.watcher.is_there(lock)).collect();
        let Loop { core, commands, project, watcher, debts, patience, endless, .. } = self;
        let (cancel, bell) = (Cancel::default(), commands.bell());
        let (mut superseded, started) = (false, Instant::now());
        let (events, killer) = (core.events().clone(), cancel.clone());
        let ended = Arc::new(AtomicBool::new(false));
        let ends = ended.clone();
        let built = thread::scope(|scope| {
            let building = thread::Builder::new().name("midair-build".into()).spawn_scoped(scope, move || {
                let _done = Done(bell, ends);
                let mut say = |Diagnostic { level, message, rendered }| events.say(Event::Diagnostic { level, message, rendered });
                project.build(plugins, &cancel, &mut say)
            });
            let building = match building {
                Ok(building) => building,
                Err(error) => return Err(build_error("it can't be started").caused_by(error)),
            };
            loop {
                let told = commands.wait(watcher.due());
                debts.note(told);
                if told.stop {
                    superseded = true;
                    killer.fire();
                    break;
                }
                // What the bell says may be of the build before.
                if ended.load(Ordering::Acquire) {
                    break;
                }
                watcher.look(Instant::now());
                let newer = watcher.changed(debts.failed()).iter().any(|path| !locks.contains(path) && !endless.suspects(path));
                if newer && *gives_way && patience.allows_cancel() {
                    superseded = true;
                    killer.fire();
                    break;
                }
            }
            match building.join() {
                Ok(built) => built,
                Err(panic) => Err(build_error(format!("it broke: {}", said_by(panic.as_ref())))),
            }
        });
        // It may have ended well just before it was to be killed: then it counts.
        let built = match built {
            Ok(Some(products)) => Built::Products(products),
            Ok(None) => Built::Superseded,
            Err(_) if superseded => Built::Superseded,
            Err(error) => Built::Failed(error),
        };
        patience.note(matches!(built, Built::Superseded));
        let now = Instant::now();
        watcher.look(now);
        locks.iter().for_each(|lock| watcher.take_one(lock));
        // Any file: what counts after a failure is known only later.
        let changed = watcher.changed(true).into_iter().map(|path| (path.clone(), changed_at(&path))).collect();
        endless.note(now - started, !matches!(built, Built::Superseded), changed, now);
        if mutation::is(Bug::EditsLostInBuild) {
            watcher.take();
        }
        built
    }

    /// Watches what the project is made of now.
    fn rescope(&mut self) {
        if let Err(error) = self.watcher.rescope(scope_of(&self.project, self.config.as_ref())) {
            self.core.events().say(Event::Warning { message: format!("{error}: what was watched before is watched on") });
        }
    }

    /// Such as `saved src/lib.rs`.
    fn describe(&self, changed: &[PathBuf]) -> String {
        const NAMED: usize = 3;
        if changed.is_empty() {
            return "saved again".to_owned();
        }
        let verb = if changed.iter().any(|path| self.watcher.is_there(path)) { "saved" } else { "removed" };
        let names: Vec<_> = changed.iter().take(NAMED).map(|path| self.project.short(path).display().to_string()).collect();
        let more = changed.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{verb} {}{more}", names.join(", "))
    }
}

/// When the file at `path` last changed in any way: nobody can set this back.
fn changed_at(path: &Path) -> ChangedAt {
    let about = std::fs::metadata(path).ok()?;
    Some(UNIX_EPOCH + Duration::new(about.ctime().try_into().ok()?, about.ctime_nsec().try_into().ok()?))
}

/// Rings when the build's thread ends, however it does.
struct Done(Arc<Bell>, Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Release);
        self.0.ring(|told| told.built = true);
    }
}

fn build_error(reason: impl Into<String>) -> Error {
    Error::rejected(Code::Build, Stage::Build, "", reason)
}

/// What to watch of a project: settings and listed files by name, Rust files of its packages, and all files of those with a build
/// script, which may read any of them.
fn scope_of(project: &Project, config: Option<&PathBuf>) -> Scope {
    let sources = project.sources();
    let take = |build_script| if build_script { Take::All } else { Take::Rust };
    let mut trees: BTreeMap<_, _> =
        sources.packages.into_iter().map(|package| (package.root, take(package.build_script))).collect();
    let (folders, files): (BTreeSet<_>, BTreeSet<_>) = sources.listed.into_iter().partition(|listed| listed.is_dir());
    trees.extend(folders.into_iter().map(|folder| (folder, Take::All)));
    Scope { files: files.into_iter().chain(sources.settings).chain(config.cloned()).collect(), trees, ..Scope::default() }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::dev::build::Options;
    use crate::dev::build::tests::{OWN_WORKSPACE, Yard};
    use crate::dev::command::tests::Ledger;

    fn code(number: u32) -> String {
        format!("#[unsafe(no_mangle)]\npub extern \"C\" fn number() -> u32 {{ {number} }}\n")
    }

    /// Runs the loop over a project while `story` tells it things and reads what it did.
    pub(in crate::dev) fn develop(project: Project, story: impl FnOnce(&Ledger)) {
        develop_with(Ledger::new(), project, story);
    }

    fn develop_with(ledger: Ledger, project: Project, story: impl FnOnce(&Ledger)) {
        let (control, commands) = Commands::new();
        thread::scope(|scope| {
            let developing = scope.spawn(|| run_with(&ledger, project, &commands));
            let _stop = Stop(&control);
            ledger.control(control.clone());
            story(&ledger);
            control.stop();
            developing.join().expect("no panic").expect("a loop");
        });
    }

    /// Ends the loop when the story fails, which would wait for it for ever.
    struct Stop<'a>(&'a crate::dev::command::Control);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }

    #[test]
    fn each_save_is_one_swap_and_a_failed_build_changes_nothing() {
        let yard = Yard::new();
        yard.plugin("shop", OWN_WORKSPACE);
        develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
            ledger.expect(&["building shop: start", "built", "swap shop"]);
            yard.write("shop/src/lib.rs", &code(2));
            ledger.expect(&["building shop: saved src/lib.rs", "built", "swap shop"]);
            yard.write("shop/src/lib.rs", "fn broken( {");
            ledger.expect(&["building shop: saved src/lib.rs", "diagnostic error", "rejected E_BUILD"]);
            // The same bytes start nothing; a file that no source names may be the one that was missing.
            yard.write("shop/src/lib.rs", "fn broken( {");
            yard.write("shop/words.txt", "three");
            ledger.expect(&["building shop: saved words.txt", "diagnostic error", "rejected E_BUILD"]);
            yard.write("shop/src/lib.rs", &format!("mod more;\n{}", code(3)));
            yard.write("shop/src/more.rs", "pub const TEXT: &str = include_str!(\"../words.txt\");");
            ledger.until("swap shop");
            yard.write("shop/words.txt", "four");
            ledger.until("building shop: saved words.txt");
            ledger.until("swap shop");
            ledger.reload();
            ledger.expect(&["building shop: reload", "built", "swap shop"]);
        });
    }

    #[test]
    fn an_edit_of_the_config_builds_nothing_but_what_the_host_refused() {
        let yard = Yard::new();
        yard.plugin("shop", OWN_WORKSPACE);
        // Inside of the package, where other files count once a build failed.
        let config = yard.path("shop/midair.toml");
        develop_with(Ledger::with_config(config.clone()), yard.find(&["shop"]).expect("a plugin"), |ledger| {
            ledger.expect(&["building shop: start", "built", "swap shop +config"]);
            yard.write("shop/midair.toml", "one");
            ledger.expect(&["swap +config"]);
            ledger.judge(|artifacts| refused(artifacts, "shop"));
            yard.write("shop/src/lib.rs", &code(2));
            ledger.expect(&["building shop: saved src/lib.rs", "built", "swap shop", "rejected E_LAYOUT"]);
            yard.write("shop/midair.toml", "two");
            let again = ["building shop: saved midair.toml", "built", "swap shop +config", "rejected E_LAYOUT", "swap +config"];
            ledger.expect(&again);
            ledger.judge(|_| None);
            yard.write("shop/midair.toml", "three");
            ledger.expect(&["building shop: saved midair.toml", "built", "swap shop +config"]);
            // What doesn't build has nothing to do with it.
            yard.write("shop/src/lib.rs", "fn broken( {");
            ledger.expect(&["building shop: saved src/lib.rs", "diagnostic error", "rejected E_BUILD"]);
            yard.write("shop/midair.toml", "four");
            ledger.expect(&["swap +config"]);
            // One that was refused goes with the next code, and keeps it from nothing.
            ledger.refuse_configs();
            yard.write("shop/midair.toml", "bad");
            ledger.expect(&["swap +config", "rejected E_CONFIG"]);
            yard.write("shop/src/lib.rs", &code(3));
            ledger.expect(&["building shop: saved src/lib.rs", "built", "swap shop +config", "rejected E_CONFIG", "swap shop"]);
            ledger.judge(|_| None);
            yard.write("shop/src/lib.rs", &code(4));
            ledger.expect(&["building shop: saved src/lib.rs", "built", "swap shop +config"]);
            std::fs::remove_file(&config).expect("a removal");
            let warning = ledger.next();
            assert!(warning.ends_with("midair.toml is gone: what serves keeps its config"), "{warning}");
            yard.write("shop/src/lib.rs", &code(5));
            ledger.expect(&["building shop: saved src/lib.rs", "built", "swap shop"]);
        });
    }

    #[test]
    fn a_broken_manifest_and_a_folder_taken_away_are_each_said_once() {
        let yard = Yard::new();
        yard.plugin("shop", OWN_WORKSPACE);
        let manifest = std::fs::read_to_string(yard.path("shop/Cargo.toml")).expect("a manifest");
        develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
            ledger.until("swap shop");
            yard.write("shop/Cargo.toml", "[package\n");
            ledger.expect(&["rejected E_BUILD"]);
            yard.write("shop/Cargo.toml", &manifest);
            ledger.until("swap shop");
            std::fs::rename(yard.path("shop"), yard.path("away")).expect("a rename");
            ledger.expect(&["rejected E_BUILD"]);
            std::fs::rename(yard.path("away"), yard.path("shop")).expect("a rename");
            ledger.until("swap shop");
            yard.write("shop/src/lib.rs", &code(2));
            ledger.expect(&["building shop: saved src/lib.rs", "built", "swap shop"]);
            // File by file: the others go, change and come back without a word.
            std::fs::remove_file(yard.path("shop/Cargo.toml")).expect("a removal");
            ledger.expect(&["rejected E_BUILD"]);
            (3..300).for_each(|number| yard.write("shop/src/lib.rs", &code(number)));
            yard.write("shop/Cargo.toml", &manifest);
            let next = ledger.next();
            assert!(next.starts_with("building shop: saved "), "{next}");
            ledger.until("swap shop");
        });
    }

    #[test]
    fn a_newer_edit_cancels_twice_and_then_waits_for_its_turn() {
        let yard = Yard::new();
        yard.plugin("shop", OWN_WORKSPACE);
        // A cargo that doesn't build before it may.
        let gate = yard.path("gate").display().to_string();
        let script =
            format!("#!/bin/sh\nif [ $1 = build ]; then while [ ! -e {gate} ]; do sleep 0.01; done; fi\nexec cargo \"$@\"\n");
        yard.write("slow-cargo", &script);
        std::fs::set_permissions(yard.path("slow-cargo"), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let options = Options { cargo: Some(yard.path("slow-cargo")), ..Options::default() };
        develop(Project::find(&[yard.path("shop")], &options).expect("a plugin"), |ledger| {
            ledger.expect(&["building shop: start"]);
            yard.write("shop/src/lib.rs", &code(2));
            ledger.expect(&["superseded", "building shop: saved src/lib.rs"]);
            yard.write("shop/src/lib.rs", &code(3));
            ledger.expect(&["superseded", "building shop: saved src/lib.rs"]);
            yard.write("shop/src/lib.rs", &code(4));
            yard.write("gate", "open");
            ledger.expect(&["built", "swap shop", "building shop: saved src/lib.rs", "built", "swap shop"]);
            std::fs::remove_file(yard.path("gate")).expect("a gate");
            ledger.reload();
            ledger.expect(&["building shop: reload"]);
        });
    }

    #[test]
    fn a_plugin_that_is_refused_keeps_no_other_from_going_live() {
        let yard = Yard::new();
        yard.plugin("one", OWN_WORKSPACE);
        yard.plugin("two", OWN_WORKSPACE);
        develop(yard.find(&["one", "two"]).expect("two plugins"), |ledger| {
            ledger.until("swap one two");
            yard.write("one/src/lib.rs", "fn broken( {");
            ledger.expect(&["building one: saved src/lib.rs", "diagnostic error", "rejected E_BUILD"]);
            yard.write("two/src/lib.rs", &code(2));
            ledger.expect(&["building two: saved src/lib.rs", "built", "swap two"]);
            // A file that no source names may still be the one that was missing.
            yard.write("one/words.txt", "three");
            ledger.expect(&["building one: saved words.txt", "diagnostic error", "rejected E_BUILD"]);
            yard.write("one/src/lib.rs", &code(3));
            ledger.expect(&["building one: saved src/lib.rs", "built", "swap one"]);
            // Neither does one that a swap refuses.
            ledger.judge(|artifacts| refused(artifacts, "two"));
            yard.write("two/src/lib.rs", &code(4));
            ledger.expect(&["building two: saved src/lib.rs", "built", "swap two", "rejected E_LAYOUT"]);
            yard.write("one/src/lib.rs", &code(5));
            ledger.expect(&["building one: saved src/lib.rs", "built", "swap one"]);
            // A reload takes all, and what served on is owed nothing.
            ledger.reload();
            ledger.expect(&["building one two: reload", "built", "swap one two", "rejected E_LAYOUT"]);
            yard.write("one/src/lib.rs", &code(6));
            ledger.expect(&["building one: saved src/lib.rs", "built", "swap one"]);
        });
    }

    fn refused(artifacts: &[Artifact], plugin: &str) -> Option<Error> {
        let is_there = artifacts.iter().any(|artifact| artifact.plugin == plugin);
        is_there.then(|| Error::rejected(Code::Layout, Stage::Check, plugin, "its border differs"))
    }

    #[test]
    fn plugins_refused_together_are_tried_together() {
        let yard = Yard::new();
        yard.plugin("one", OWN_WORKSPACE);
        yard.plugin("two", OWN_WORKSPACE);
        develop(yard.find(&["one", "two"]).expect("two plugins"), |ledger| {
            ledger.until("swap one two");
            ledger.judge(|artifacts| refused(artifacts, "one"));
            yard.write("api/src/lib.rs", "pub fn shared() {}");
            let shared = yard.path("api/src/lib.rs");
            ledger.expect(&[
                &format!("building one two: saved {}", shared.display()),
                "built",
                "swap one two",
                "rejected E_LAYOUT",
            ]);
            ledger.judge(|_| None);
            yard.write("two/src/lib.rs", &code(2));
            ledger.expect(&["building one two: saved src/lib.rs", "built", "swap one two"]);
            yard.write("two/src/lib.rs", &code(3));
            ledger.expect(&["building two: saved src/lib.rs", "built", "swap two"]);
        });
    }

    #[test]
    fn after_a_failed_start_each_plugin_is_tried_alone_once() {
        let yard = Yard::new();
        yard.plugin("one", OWN_WORKSPACE);
        yard.plugin("two", OWN_WORKSPACE);
        yard.write("one/src/lib.rs", "fn broken( {");
        develop(yard.find(&["one", "two"]).expect("two plugins"), |ledger| {
            ledger.expect(&["building one two: start", "diagnostic error", "rejected E_BUILD"]);
            ledger.expect(&["building one: start", "diagnostic error", "rejected E_BUILD"]);
            ledger.expect(&["building two: start", "built", "swap two"]);
            yard.write("two/src/lib.rs", &code(2));
            ledger.expect(&["building two: saved src/lib.rs", "built", "swap two"]);
            yard.write("one/src/lib.rs", &code(2));
            ledger.expect(&["building one: saved src/lib.rs", "built", "swap one"]);
        });
    }

    #[test]
    fn plugins_changed_by_one_edit_are_swapped_together() {
        let yard = Yard::new();
        yard.plugin("one", OWN_WORKSPACE);
        yard.plugin("two", OWN_WORKSPACE);
        develop(yard.find(&["one", "two"]).expect("two plugins"), |ledger| {
            ledger.until("swap one two");
            yard.write("api/src/lib.rs", "pub fn shared() {}");
            let shared = yard.path("api/src/lib.rs");
            ledger.expect(&[&format!("building one two: saved {}", shared.display()), "built", "swap one two"]);
            yard.write("two/src/lib.rs", &code(2));
            ledger.expect(&["building two: saved src/lib.rs", "built", "swap two"]);
        });
    }
}

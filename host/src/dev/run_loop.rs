//! When is a replaced artifact worth a swap?
//!
//! In production nobody builds: a new file appears at a path, by a rename, by a copy over the old one, or because a link on the way
//! leads elsewhere. This loop waits until such a file is whole and hands all that changed together to the host in one swap.
//!
//! A file overwritten in place has its full length from the start and may be half old, half new at any moment before its writer closes
//! it: mapped, such bytes crash the process. So until it is closed, or renamed in, it has to be quiet for long.
//!
//! An edit of the config is swapped like a replaced artifact. What was refused may have lacked just that edit, so it is tried with it; what
//! came alone goes live alone if the other is refused again.
//!
//! The digest beside an artifact may come after it. An artifact that was refused for its digest is tried again when that file changes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::artifact;
use crate::artifact::checksum_path;
use crate::attempt::{Outcome, Record};
use crate::dev::askers::Askers;
use crate::dev::command::{Commands, Core, broken, config_is_gone};
use crate::dev::retry_groups::Groups;
use crate::dev::watch::{Scope, Watcher};
use crate::error::{Code, Result, Stage};
use crate::event::Event;
use crate::mutation::{self, Bug};
use crate::swap::{Artifact, Host};

/// How long a file that nobody closed has to stay as it is before it is taken for whole; how long one that is short by its own headers
/// may stay so before it is swapped, and refused, as it is; how long others wait for either.
const QUIET: Duration = Duration::from_secs(2);

/// Swaps the artifacts now and whenever one is replaced, until it is told to stop.
///
/// The first swap has the trigger `start`; if it is rejected, each artifact is swapped alone, so that a bad one doesn't keep the others
/// from serving. A file that vanishes is a warning; what serves goes on.
///
/// # Errors
///
/// When the loop itself broke; the host serves on without it.
///
/// # Threads
///
/// Blocks the caller's thread, which needs no runtime. No plugin code runs on it.
pub fn run(host: Host, artifacts: Vec<Artifact>, commands: Commands) -> Result<()> {
    run_with(&host, artifacts, &commands, artifact::missing)
}

type Missing = fn(&Path) -> std::io::Result<u64>;

fn run_with(core: &impl Core, artifacts: Vec<Artifact>, commands: &Commands, missing: Missing) -> Result<()> {
    let artifacts: Vec<_> = artifacts.into_iter().map(|Artifact { plugin, path }| (plugin, absolute(path))).collect();
    let config = core.config();
    let files = artifacts.iter().flat_map(|(_, path)| [path.clone(), checksum_path(path)]).chain(config.clone()).collect();
    let watcher = Watcher::new(Scope { files, quiet: QUIET, ..Scope::default() }, commands.wake())?;
    let mut running = Loop {
        core,
        commands,
        artifacts,
        config,
        owes_config: false,
        watcher,
        missing,
        waiting: Waiting::default(),
        others: None,
        vanished: BTreeSet::new(),
        misnamed: BTreeSet::new(),
        refused: Groups::default(),
        askers: Askers::default(),
    };
    catch_unwind(AssertUnwindSafe(|| running.run())).map_err(|panic| broken(core, "artifact", panic.as_ref()))
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

struct Loop<'a, C> {
    core: &'a C,
    commands: &'a Commands,
    artifacts: Vec<(String, PathBuf)>,
    config: Option<PathBuf>,
    /// An edit of the config isn't live.
    owes_config: bool,
    watcher: Watcher,
    missing: Missing,
    waiting: Waiting,
    /// Until when what was replaced waits for others that are being written.
    others: Option<Instant>,
    vanished: BTreeSet<PathBuf>,
    /// Refused since their bytes aren't what the digest beside one of them says: another digest may mend that.
    misnamed: BTreeSet<PathBuf>,
    /// Not live: the file that mends one of a group has to bring the others along.
    refused: Groups<PathBuf>,
    askers: Askers,
}

/// What is to be swapped together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    artifacts: Vec<(String, PathBuf)>,
    /// Whether the config was edited.
    config: bool,
}

impl Change {
    fn is_none(&self) -> bool {
        self.artifacts.is_empty() && !self.config
    }
}

/// How long files have been quiet that aren't whole.
#[derive(Debug, Default)]
struct Waiting {
    since: Option<Instant>,
    short_by: Vec<u64>,
}

impl Waiting {
    /// Whether files that lack this many bytes have to be waited for any longer.
    fn waits(&mut self, short_by: Vec<u64>, now: Instant) -> bool {
        if short_by.iter().all(|bytes| *bytes == 0) {
            *self = Waiting::default();
            return false;
        }
        if self.short_by != short_by {
            *self = Waiting { since: Some(now), short_by };
        }
        let waits = self.due().is_some_and(|due| now < due);
        if !waits {
            *self = Waiting::default();
        }
        waits
    }

    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + QUIET)
    }
}

impl<C: Core> Loop<'_, C> {
    fn run(&mut self) {
        self.core.events().say(Event::Watching {
            plugins: self.artifacts.iter().map(|(plugin, _)| plugin.clone()).filter(|plugin| !plugin.is_empty()).collect(),
            folders: self.watcher.folders(),
            files: self.watcher.files(),
            by: self.watcher.by().into(),
        });
        self.start();
        loop {
            let due = self.watcher.due().into_iter().chain(self.waiting.due().or(self.others)).min();
            let told = self.commands.wait(due);
            if told.stop {
                return;
            }
            let now = Instant::now();
            self.watcher.look(now);
            if told.reload {
                self.reload(told.force);
                continue;
            }
            if let Some(replaced) = self.replaced_together(now) {
                self.replace(&replaced);
            }
        }
    }

    fn replace(&mut self, Change { artifacts: replaced, config: edited }: &Change) {
        let edited_file = self.config.iter().filter(|_| *edited);
        let names: Vec<_> =
            replaced.iter().map(|(_, path)| path).chain(edited_file).map(|path| path.display().to_string()).collect();
        let verb = if replaced.is_empty() { "saved" } else { "replaced" };
        let mut along = self.refused.with(&paths_of(replaced));
        if *edited {
            along.extend(self.refused.members());
        }
        let goes = |artifact: &&(String, PathBuf)| {
            replaced.contains(artifact) || (along.contains(&artifact.1) && self.is_whole(&artifact.1))
        };
        let artifacts: Vec<_> = self.artifacts.iter().filter(goes).cloned().collect();
        let trigger = format!("{verb} {}", names.join(", "));
        let configures = *edited || self.owes_config;
        if mutation::is(Bug::ConfigApart) && configures {
            self.swap(trigger.clone(), &[], false, true);
        }
        let record = self.swap(trigger.clone(), &artifacts, false, configures);
        self.note(&record, &paths_of(&artifacts));
        if record.outcome != Outcome::Rejected || artifacts.is_empty() || !configures {
            return;
        }
        if replaced.is_empty() {
            self.swap(format!("{trigger}, without code that was refused"), &[], false, true);
        } else if !edited {
            let trigger = format!("{trigger}, without a config that was refused");
            let record = self.swap(trigger, &artifacts, false, false);
            self.note(&record, &paths_of(&artifacts));
        }
    }

    fn start(&mut self) {
        let all = self.artifacts.clone();
        self.core.recover(all.iter().map(|(plugin, path)| Artifact { plugin: plugin.clone(), path: path.clone() }).collect());
        let record = self.swap("start".to_owned(), &all, false, true);
        if all.len() == 1 || record.outcome != Outcome::Rejected {
            return self.note(&record, &paths_of(&all));
        }
        for artifact in all {
            if self.commands.is_stopped() {
                return;
            }
            let record = self.swap("start".to_owned(), std::slice::from_ref(&artifact), false, false);
            self.note(&record, &BTreeSet::from([artifact.1]));
        }
    }

    fn reload(&mut self, force: bool) {
        self.askers.begin(self.commands.askers(force));
        (self.waiting, self.others) = (Waiting::default(), None);
        // What serves as it is owes nothing, whatever becomes of this.
        let news = self.refused.members().into_iter().chain(paths_of(&self.replaced().artifacts)).collect();
        let all = self.artifacts.clone();
        let record = self.swap("reload".to_owned(), &all, force, true);
        self.note(&record, &if record.outcome == Outcome::Rejected { news } else { paths_of(&all) });
        self.askers.note(&record);
        self.askers.end();
    }

    /// Remembers who was refused with whom.
    fn note(&mut self, record: &Record, paths: &BTreeSet<PathBuf>) {
        match record.outcome {
            Outcome::Rejected => self.refused.refuse(paths),
            Outcome::Published | Outcome::Unchanged => self.refused.settle(paths),
            Outcome::Superseded | Outcome::RolledBack => {}
        }
    }

    /// What is to be swapped now, if anything is.
    fn replaced_together(&mut self, now: Instant) -> Option<Change> {
        let replaced = self.replaced();
        if replaced.is_none() {
            (self.waiting, self.others) = (Waiting::default(), None);
            return None;
        }
        if self.waits_for(&replaced, now) {
            return None;
        }
        // Others may have been replaced with it whose events are still on their way.
        self.watcher.look_at_all(now);
        let together = self.replaced();
        if together.is_none() || (together != replaced && self.waits_for(&together, now)) || self.waits_for_others(now) {
            return None;
        }
        Some(together)
    }

    /// What has another content than the one last swapped and nobody writes now. What is gone is told once and no more.
    fn replaced(&mut self) -> Change {
        self.read_digests_anew();
        let changed = self.watcher.changed(false);
        let (there, gone): (Vec<_>, Vec<_>) = self
            .artifacts
            .iter()
            .filter(|(_, path)| changed.contains(path))
            .cloned()
            .partition(|(_, path)| self.watcher.is_there(path));
        for (_, path) in gone {
            if self.vanished.insert(path.clone()) {
                let message = format!("{} is gone: what serves goes on", path.display());
                self.core.events().say(Event::Warning { message });
            }
        }
        self.vanished.retain(|path| !self.watcher.is_there(path));
        let config = self.config.clone().is_some_and(|path| changed.contains(&path) && self.is_config_whole(&path));
        Change { artifacts: there.into_iter().filter(|(_, path)| !self.watcher.is_being_written(path)).collect(), config }
    }

    /// Whether the config file can be read; that it is gone is told.
    fn is_config_whole(&mut self, path: &Path) -> bool {
        if !self.watcher.is_there(path) {
            self.watcher.take_one(path);
            self.core.events().say(config_is_gone(path));
        }
        self.is_whole(path)
    }

    /// Lets those differ that were refused for their digest and have another one now.
    fn read_digests_anew(&mut self) {
        let changed = self.watcher.changed(false);
        for (_, path) in &self.artifacts {
            let digest = checksum_path(path);
            if changed.contains(&digest) && !self.watcher.is_being_written(&digest) {
                self.watcher.take_one(&digest);
                if self.misnamed.remove(path) {
                    self.watcher.doubt(path);
                }
            }
        }
    }

    fn is_whole(&self, path: &Path) -> bool {
        self.watcher.is_there(path) && !self.watcher.is_being_written(path)
    }

    /// Whether what was replaced has to wait for another artifact that is being written, so that both are swapped together. Not for long:
    /// a writer that never ends must not keep the others from going live.
    fn waits_for_others(&mut self, now: Instant) -> bool {
        if !self.artifacts.iter().any(|(_, path)| self.watcher.is_being_written(path)) {
            self.others = None;
            return false;
        }
        let waits = now < *self.others.get_or_insert(now + QUIET);
        if !waits {
            self.others = None;
        }
        waits
    }

    /// Whether one of them is still being written. No attempt is begun meanwhile.
    fn waits_for(&mut self, replaced: &Change, now: Instant) -> bool {
        let mut short_by = Vec::new();
        for (_, path) in &replaced.artifacts {
            match (self.missing)(path) {
                Ok(bytes) => short_by.push(bytes),
                // It went again: the event that says so wakes us.
                Err(error) if error.kind() == ErrorKind::NotFound => return true,
                // Let the swap say what is wrong with it.
                Err(_) => short_by.push(0),
            }
        }
        self.waiting.waits(short_by, now)
    }

    fn swap(&mut self, trigger: String, artifacts: &[(String, PathBuf)], force: bool, configures: bool) -> Record {
        // Before the content is used: a later change is a newer one.
        artifacts.iter().for_each(|(_, path)| self.watcher.take_one(path));
        self.config.iter().filter(|_| configures).for_each(|path| self.watcher.take_one(path));
        let attempt = self.core.begin(trigger).force(force).configure(configures);
        let handed = artifacts.iter().map(|(plugin, path)| Artifact { plugin: plugin.clone(), path: path.clone() });
        let record = self.core.swap(attempt, handed.collect());
        if configures {
            self.owes_config = record.outcome == Outcome::Rejected;
        }
        for (_, path) in artifacts {
            if record.code == Some(Code::Hash) {
                self.misnamed.insert(path.clone())
            } else {
                self.misnamed.remove(path)
            };
        }
        if (record.code, record.stage) == (Some(Code::Io), Some(Stage::Stage)) {
            // Not judged by its content: if it moved meanwhile, it is tried again even if the content turns out to be the same.
            for (_, path) in artifacts {
                if !self.watcher.is_as_read(path) {
                    self.watcher.doubt(path);
                    self.commands.bell().ring(|told| told.files = true);
                }
            }
        }
        record
    }
}

fn paths_of(artifacts: &[(String, PathBuf)]) -> BTreeSet<PathBuf> {
    artifacts.iter().map(|(_, path)| path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::{FileExt, symlink};
    use std::thread;

    use super::*;
    use crate::dev::build::tests::Yard;
    use crate::dev::command::tests::Ledger;
    use crate::error::Error;

    /// In these tests a whole file ends in a full stop.
    fn missing(path: &Path) -> std::io::Result<u64> {
        let content = fs::read(path)?;
        Ok(if content.ends_with(b".") { 0 } else { 1000 - content.len() as u64 })
    }

    /// In these tests a bad file says so.
    fn bad(artifacts: &[Artifact]) -> Option<Error> {
        let is_bad = |artifact: &&Artifact| fs::read(&artifact.path).is_ok_and(|content| content.starts_with(b"bad"));
        let bad = artifacts.iter().find(is_bad)?;
        Some(Error::rejected(Code::Elf, Stage::Inspect, bad.plugin.clone(), "it says so"))
    }

    fn serve(yard: &Yard, names: &[&str], story: impl FnOnce(&Ledger)) {
        serve_with(Ledger::new(), yard, names, story);
    }

    fn serve_with(ledger: Ledger, yard: &Yard, names: &[&str], story: impl FnOnce(&Ledger)) {
        let artifacts =
            names.iter().map(|name| Artifact { plugin: (*name).to_owned(), path: yard.path(&format!("{name}.so")) }).collect();
        ledger.judge(bad);
        let (control, commands) = Commands::new();
        thread::scope(|scope| {
            let serving = scope.spawn(|| run_with(&ledger, artifacts, &commands, missing));
            ledger.control(control.clone());
            let told = catch_unwind(AssertUnwindSafe(|| story(&ledger)));
            control.stop();
            serving.join().expect("no panic").expect("a loop");
            told.expect("a story");
        });
    }

    #[test]
    fn a_replaced_artifact_is_swapped_however_it_was_replaced() {
        let yard = Yard::new();
        yard.write("releases/1.so", "one.");
        yard.write("releases/2.so", "two.");
        symlink(yard.path("releases/1.so"), yard.path("shop.so")).expect("a link");
        serve(&yard, &["shop"], |ledger| {
            ledger.expect(&["swap shop"]);
            yard.write("releases/1.so", "copied over.");
            ledger.expect(&["swap shop"]);
            yard.write("new.so", "renamed over.");
            fs::rename(yard.path("new.so"), yard.path("releases/1.so")).expect("a rename");
            ledger.expect(&["swap shop"]);
            symlink(yard.path("releases/2.so"), yard.path("next")).expect("a link");
            fs::rename(yard.path("next"), yard.path("shop.so")).expect("a rename");
            ledger.expect(&["swap shop"]);
            // The same bytes start nothing.
            yard.write("releases/2.so", "two.");
            fs::remove_file(yard.path("shop.so")).expect("a removal");
            let warning = ledger.next();
            assert!(warning.starts_with("warning ") && warning.ends_with("shop.so is gone: what serves goes on"), "{warning}");
            yard.write("shop.so", "back.");
            ledger.expect(&["swap shop"]);
            ledger.reload();
            ledger.expect(&["swap shop"]);
        });
    }

    #[test]
    fn an_edit_of_the_config_is_swapped_with_what_was_refused_or_else_alone() {
        let yard = Yard::new();
        yard.write("a.so", "one.");
        yard.write("midair.toml", "one");
        serve_with(Ledger::with_config(yard.path("midair.toml")), &yard, &["a"], |ledger| {
            ledger.expect(&["swap a +config"]);
            yard.write("midair.toml", "two");
            ledger.expect(&["swap +config"]);
            yard.write("a.so", "bad.");
            ledger.expect(&["swap a", "rejected E_ELF"]);
            yard.write("midair.toml", "three");
            ledger.expect(&["swap a +config", "rejected E_ELF", "swap +config"]);
            yard.write("a.so", "good.");
            ledger.expect(&["swap a"]);
            fs::remove_file(yard.path("midair.toml")).expect("a removal");
            let warning = ledger.next();
            assert!(warning.ends_with("midair.toml is gone: what serves keeps its config"), "{warning}");
            yard.write("a.so", "better.");
            ledger.expect(&["swap a"]);
            yard.write("midair.toml", "back");
            ledger.expect(&["swap +config"]);
        });
    }

    #[test]
    fn a_config_that_was_refused_goes_with_the_next_artifact_and_keeps_none_from_going_live() {
        let yard = Yard::new();
        yard.write("a.so", "one.");
        yard.write("midair.toml", "one");
        serve_with(Ledger::with_config(yard.path("midair.toml")), &yard, &["a"], |ledger| {
            ledger.expect(&["swap a +config"]);
            ledger.refuse_configs();
            yard.write("midair.toml", "bad");
            ledger.expect(&["swap +config", "rejected E_CONFIG"]);
            yard.write("a.so", "two.");
            ledger.expect(&["swap a +config", "rejected E_CONFIG", "swap a"]);
            ledger.judge(bad);
            yard.write("a.so", "three.");
            ledger.expect(&["swap a +config"]);
            yard.write("a.so", "four.");
            ledger.expect(&["swap a"]);
        });
    }

    #[test]
    fn a_slow_writer_is_one_swap() {
        let yard = Yard::new();
        yard.write("shop.so", "one.");
        serve(&yard, &["shop"], |ledger| {
            ledger.expect(&["swap shop"]);
            let mut file = File::create(yard.path("shop.so")).expect("a file");
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(400) {
                file.write_all(b"x").expect("a write");
                // The pace of the fixture, not a wait for the loop.
                thread::park_timeout(Duration::from_millis(60));
            }
            assert!(ledger.is_quiet());
            file.write_all(b".").expect("a write");
            drop(file);
            ledger.expect(&["swap shop"]);
        });
    }

    #[test]
    fn artifacts_replaced_together_are_swapped_together() {
        let yard = Yard::new();
        yard.write("a.so", "one.");
        yard.write("b.so", "one.");
        serve(&yard, &["a", "b"], |ledger| {
            ledger.expect(&["swap a b"]);
            yard.write("a.so", "not whole");
            yard.write("b.so", "two.");
            yard.write("a.so", "two.");
            ledger.expect(&["swap a b"]);
        });
    }

    #[test]
    fn a_file_overwritten_in_place_is_left_alone_until_it_is_closed() {
        let yard = Yard::new();
        for name in ["a", "b", "c", "d", "e", "f"] {
            yard.write(&format!("{name}.so"), "one, of full length from the start.");
        }
        serve(&yard, &["a", "b", "c", "d", "e", "f"], |ledger| {
            ledger.expect(&["swap a b c d e f"]);
            let is_gone = |name: &str| {
                fs::remove_file(yard.path(name)).expect("a removal");
                let warning = ledger.next();
                assert!(warning.ends_with(&format!("{name} is gone: what serves goes on")), "{warning}");
            };
            let file = File::options().write(true).open(yard.path("a.so")).expect("a file");
            file.write_all_at(b"two", 0).expect("a write");
            // Neither what vanishes nor what is replaced meanwhile takes it along. Of three that vanish one after the other, the last is
            // told in a later round than the first.
            ["c.so", "d.so", "e.so"].into_iter().for_each(is_gone);
            yard.write("new.so", "two.");
            fs::rename(yard.path("new.so"), yard.path("b.so")).expect("a rename");
            is_gone("f.so");
            file.write_all_at(b"TWO", 5).expect("a write");
            drop(file);
            ledger.expect(&["swap a b"]);
            // Nothing of it is left to be swapped.
            yard.write("c.so", "three.");
            ledger.expect(&["swap c"]);
        });
    }

    #[test]
    fn a_file_that_is_never_closed_goes_live_when_it_has_been_quiet_for_long() {
        let yard = Yard::new();
        yard.write("a.so", "one.");
        serve(&yard, &["a"], |ledger| {
            ledger.expect(&["swap a"]);
            let started = Instant::now();
            let file = File::options().write(true).open(yard.path("a.so")).expect("a file");
            file.write_all_at(b"two", 0).expect("a write");
            ledger.expect(&["swap a"]);
            assert!(started.elapsed() >= QUIET);
        });
    }

    #[test]
    fn a_file_that_moved_while_it_was_copied_is_tried_again_even_with_the_same_content() {
        let yard = Yard::new();
        yard.write("a.so", "one.");
        serve(&yard, &["a"], |ledger| {
            ledger.expect(&["swap a"]);
            let mut copies = 0;
            ledger.judge(move |artifacts| {
                copies += 1;
                let file = File::options().write(true).open(&artifacts[0].path).expect("a file");
                (copies == 1).then(|| {
                    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("a stamp");
                    Error::rejected(Code::Io, Stage::Stage, "a.so", "it changed while it was being copied")
                })
            });
            yard.write("a.so", "two.");
            ledger.expect(&["swap a", "rejected E_IO", "swap a"]);
        });
    }

    #[test]
    fn an_artifact_refused_for_its_digest_is_tried_again_when_the_digest_changes() {
        let yard = Yard::new();
        yard.write("a.so", "one.");
        yard.write("b.so", "one.");
        serve(&yard, &["a", "b"], |ledger| {
            ledger.expect(&["swap a b"]);
            let digest = yard.path("a.so.blake3");
            ledger.judge(move |artifacts| {
                let differs = artifacts[0].plugin == "a" && fs::read(&digest).is_ok_and(|said| said != b"right");
                differs.then(|| Error::rejected(Code::Hash, Stage::Stage, "a.so", "it says so"))
            });
            // A digest alone starts nothing.
            yard.write("a.so.blake3", "wrong");
            yard.write("a.so", "two.");
            ledger.expect(&["swap a", "rejected E_HASH"]);
            yard.write("b.so", "two.");
            ledger.expect(&["swap b"]);
            yard.write("a.so.blake3", "right");
            ledger.expect(&["swap a"]);
            yard.write("a.so.blake3", "wrong");
            yard.write("b.so", "three.");
            ledger.expect(&["swap b"]);
            yard.write("a.so", "three.");
            ledger.expect(&["swap a", "rejected E_HASH"]);
            fs::remove_file(yard.path("a.so.blake3")).expect("a removal");
            ledger.expect(&["swap a"]);
        });
    }

    #[test]
    fn a_file_that_is_refused_keeps_no_other_from_going_live() {
        let yard = Yard::new();
        yard.write("a.so", "one.");
        yard.write("b.so", "one.");
        serve(&yard, &["a", "b"], |ledger| {
            ledger.expect(&["swap a b"]);
            yard.write("a.so", "bad.");
            ledger.expect(&["swap a", "rejected E_ELF"]);
            yard.write("b.so", "two.");
            ledger.expect(&["swap b"]);
            // A reload takes all, and what served on is owed nothing.
            ledger.reload();
            ledger.expect(&["swap a b", "rejected E_ELF"]);
            yard.write("b.so", "three.");
            ledger.expect(&["swap b"]);
            yard.write("a.so", "two.");
            ledger.expect(&["swap a"]);
        });
    }

    #[test]
    fn files_refused_together_are_tried_together_while_they_are_there() {
        let yard = Yard::new();
        yard.write("a.so", "one.");
        yard.write("b.so", "one.");
        let together = |a: &str, b: &str| {
            yard.write("a.so", "not whole");
            yard.write("b.so", b);
            yard.write("a.so", a);
        };
        serve(&yard, &["a", "b"], |ledger| {
            ledger.expect(&["swap a b"]);
            together("bad.", "two.");
            ledger.expect(&["swap a b", "rejected E_ELF"]);
            yard.write("a.so", "three.");
            ledger.expect(&["swap a b"]);
            yard.write("a.so", "four.");
            ledger.expect(&["swap a"]);
            together("bad again.", "three.");
            ledger.expect(&["swap a b", "rejected E_ELF"]);
            fs::remove_file(yard.path("a.so")).expect("a removal");
            assert!(ledger.next().ends_with("a.so is gone: what serves goes on"));
            yard.write("b.so", "four.");
            ledger.expect(&["swap b"]);
        });
    }

    #[test]
    fn after_a_rejected_start_each_artifact_is_swapped_alone() {
        let yard = Yard::new();
        yard.write("a.so", "bad.");
        yard.write("b.so", "one.");
        serve(&yard, &["a", "b"], |ledger| {
            ledger.expect(&["swap a b", "rejected E_ELF", "swap a", "rejected E_ELF", "swap b"]);
            yard.write("b.so", "two.");
            ledger.expect(&["swap b"]);
            yard.write("a.so", "two.");
            ledger.expect(&["swap a"]);
        });
    }

    #[test]
    fn a_short_file_is_waited_for_until_it_has_been_quiet() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut waiting = Waiting::default();
        let told: Vec<_> = [(0, 9), (1000, 9), (1500, 5), (3499, 5), (3500, 5), (3600, 0), (3700, 2)]
            .map(|(now, short_by)| waiting.waits(vec![short_by], at(now)))
            .into();
        assert_eq!(told, [true, true, true, true, false, false, true]);
    }
}

//! When is a replaced artifact worth a swap?
//!
//! In production nobody builds: a new file appears at a path, by a rename, by a copy over the old one, or because a link on the way
//! leads elsewhere. This loop waits until such a file is whole and hands all that changed together to the host in one swap.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::attempt::Outcome;
use crate::command::{Commands, Core, broken};
use crate::error::Result;
use crate::event::Event;
use crate::inspect;
use crate::swap::{Artifact, Host};
use crate::watch::{Scope, Watcher};

/// How long a file that is short by its own headers may stay as it is before it is swapped, and refused, as it is.
const QUIET: Duration = Duration::from_secs(2);

/// Swaps the artifacts now and whenever one is replaced, until it is told to stop.
///
/// The first swap has the trigger `start`. A file that vanishes is a warning; what serves goes on.
///
/// # Errors
///
/// When the loop itself broke; the host serves on without it.
///
/// # Threads
///
/// Blocks the caller's thread, which needs no runtime. No plugin code runs on it.
pub fn run(host: Host, artifacts: Vec<Artifact>, commands: Commands) -> Result<()> {
    run_with(&host, artifacts, &commands, inspect::missing)
}

type Missing = fn(&Path) -> std::io::Result<u64>;

fn run_with(core: &impl Core, artifacts: Vec<Artifact>, commands: &Commands, missing: Missing) -> Result<()> {
    let artifacts: Vec<_> = artifacts.into_iter().map(|Artifact { plugin, path }| (plugin, absolute(path))).collect();
    let files = artifacts.iter().map(|(_, path)| path.clone()).collect();
    let watcher = Watcher::new(Scope { files, ..Scope::default() }, commands.wake())?;
    let mut running = Loop {
        core,
        commands,
        artifacts,
        watcher,
        missing,
        waiting: Waiting::default(),
        vanished: BTreeSet::new(),
        refused: BTreeSet::new(),
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
    watcher: Watcher,
    missing: Missing,
    waiting: Waiting,
    vanished: BTreeSet<PathBuf>,
    /// Refused, and so not live: the file that mends one of them has to bring the others along.
    refused: BTreeSet<PathBuf>,
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
        self.swap("start".to_owned(), self.artifacts.clone(), false);
        loop {
            let due = self.watcher.due().into_iter().chain(self.waiting.due()).min();
            let told = self.commands.wait(due);
            if told.stop {
                return;
            }
            let now = Instant::now();
            self.watcher.look(now);
            if told.reload {
                self.waiting = Waiting::default();
                self.swap("reload".to_owned(), self.artifacts.clone(), told.force);
                continue;
            }
            let mut replaced = self.replaced();
            if !replaced.is_empty() && !self.waits_for(&replaced, now) {
                // Others may have been replaced with it whose events are still on their way.
                self.watcher.look_at_all(now);
                let together = self.replaced();
                if together != replaced && self.waits_for(&together, now) {
                    continue;
                }
                replaced = together;
                let names: Vec<_> = replaced.iter().map(|(_, path)| path.display().to_string()).collect();
                let refused =
                    self.artifacts.iter().filter(|artifact| self.refused.contains(&artifact.1) && !replaced.contains(artifact));
                let together = replaced.iter().chain(refused).cloned().collect();
                self.swap(format!("replaced {}", names.join(", ")), together, false);
            }
        }
    }

    /// The artifacts with another content than the one last swapped. Those that are gone are told once and no more.
    fn replaced(&mut self) -> Vec<(String, PathBuf)> {
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
        there
    }

    /// Whether one of them is still being written. No attempt is begun meanwhile.
    fn waits_for(&mut self, replaced: &[(String, PathBuf)], now: Instant) -> bool {
        let mut short_by = Vec::new();
        for (_, path) in replaced {
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

    fn swap(&mut self, trigger: String, artifacts: Vec<(String, PathBuf)>, force: bool) {
        // Before the content is used: a later change is a newer one.
        artifacts.iter().for_each(|(_, path)| self.watcher.take_one(path));
        let attempt = self.core.begin(trigger).force(force);
        let paths: BTreeSet<PathBuf> = artifacts.iter().map(|(_, path)| path.clone()).collect();
        let artifacts = artifacts.into_iter().map(|(plugin, path)| Artifact { plugin, path });
        let record = self.core.swap(attempt, artifacts.collect());
        self.refused = if record.outcome == Outcome::Rejected { paths } else { BTreeSet::new() };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::thread;

    use super::*;
    use crate::build::tests::Yard;
    use crate::command::tests::Ledger;

    /// In these tests a whole file ends in a full stop.
    fn missing(path: &Path) -> std::io::Result<u64> {
        let content = fs::read(path)?;
        Ok(if content.ends_with(b".") { 0 } else { 1000 - content.len() as u64 })
    }

    fn serve(yard: &Yard, names: &[&str], story: impl FnOnce(&Ledger)) {
        let artifacts =
            names.iter().map(|name| Artifact { plugin: (*name).to_owned(), path: yard.path(&format!("{name}.so")) }).collect();
        let ledger = Ledger::new();
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

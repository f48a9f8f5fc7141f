//! What may a loop be told, and whom does it tell?
//!
//! A loop waits for many things at once: a command, a changed file, the end of a build. They meet here in one bell that keeps a flag
//! for each, so that a hundred reloads are one and the memory of a storm is a few booleans. What a loop asks of the host is here too,
//! as one trait, so that the loops can be tested without opening a library.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::attempt::{Asker, Attempt, Record};
use crate::error::{Code, Error};
use crate::event::{Bus, Event};
use crate::swap::{Artifact, Host};

/// A loop's end of the wire: it waits here.
pub struct Commands(Arc<Bell>);

/// The other end of the wire. Cheap to clone; works from any thread.
#[derive(Clone)]
pub struct Control(Arc<Bell>);

impl Commands {
    /// Both ends of a new wire.
    #[must_use]
    pub fn new() -> (Control, Commands) {
        let bell = Arc::new(Bell::default());
        (Control(bell.clone()), Commands(bell))
    }

    /// Sleeps until something was told or `until` has come, and takes what was told. A stop stays told.
    pub(crate) fn wait(&self, until: Option<Instant>) -> Told {
        let mut told = self.0.told.lock();
        while *told == Told::default() {
            match until {
                None => self.0.rung.wait(&mut told),
                Some(until) => {
                    if self.0.rung.wait_until(&mut told, until).timed_out() {
                        break;
                    }
                }
            }
        }
        let stop = told.stop;
        std::mem::replace(&mut *told, Told { stop, ..Told::default() })
    }

    /// Whether the loop was told to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.told.lock().stop
    }

    /// Rings when files are worth a look.
    pub(crate) fn wake(&self) -> impl Fn() + Send + Sync + 'static {
        let bell = self.bell();
        move || bell.ring(|told| told.files = true)
    }

    /// Those who wait for a reload that begins now. One by force does for all; those who asked for force wait for one.
    pub(crate) fn askers(&self, force: bool) -> Vec<Box<dyn Asker>> {
        let mut waiting = self.0.waiting.lock();
        let (taken, left) = waiting.drain(..).partition::<Vec<_>, _>(|(forced, _)| force || !forced);
        *waiting = left;
        drop(waiting);
        taken.into_iter().map(|(_, asker)| asker).collect()
    }

    /// What wakes whoever waits here.
    pub(crate) fn bell(&self) -> Arc<Bell> {
        self.0.clone()
    }
}

impl Control {
    /// Asks for a build or a swap now, even if nothing changed. Several before the loop hears them are one.
    ///
    /// With `force` the same bytes are taken again. `false` if the loop ended or is about to.
    pub fn reload(&self, force: bool) -> bool {
        let mut told = self.0.told.lock();
        told.reload = true;
        told.force |= force;
        self.0.rung.notify_one();
        !told.stop
    }

    /// The same for somebody who waits for what comes of it, and is dropped if the loop ends first.
    pub fn reload_for(&self, force: bool, asker: Box<dyn Asker>) -> bool {
        // Before the bell rings: the loop finds it there. After the loop ended nobody looks, so it isn't left there.
        self.0.waiting.lock().push((force, asker));
        let is_heard = self.reload(force);
        if !is_heard {
            self.0.waiting.lock().clear();
        }
        is_heard
    }

    /// Asks the loop to end. A build that runs is killed, a swap that runs is let finish.
    pub fn stop(&self) {
        self.0.ring(|told| told.stop = true);
    }
}

/// A loop that ended hears nothing: as good as one that was told to stop.
impl Drop for Commands {
    fn drop(&mut self) {
        self.0.told.lock().stop = true;
        self.0.waiting.lock().clear();
    }
}

/// What a loop was told since it last listened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) stop: bool,
    pub(crate) reload: bool,
    pub(crate) force: bool,
    pub(crate) files: bool,
    pub(crate) built: bool,
}

/// Wakes one loop.
#[derive(Default)]
pub(crate) struct Bell {
    told: Mutex<Told>,
    rung: Condvar,
    /// Who waits for a reload that hasn't begun, and whether by force.
    waiting: Mutex<Vec<(bool, Box<dyn Asker>)>>,
}

impl Bell {
    pub(crate) fn ring(&self, tell: impl FnOnce(&mut Told)) {
        tell(&mut self.told.lock());
        self.rung.notify_one();
    }
}

/// What a loop asks of the host.
pub(crate) trait Core {
    fn begin(&self, trigger: String) -> Attempt;
    fn swap(&self, attempt: Attempt, artifacts: Vec<Artifact>) -> Record;
    fn recover(&self, artifacts: Vec<Artifact>);
    fn reject(&self, attempt: Attempt, error: &Error) -> Record;
    fn supersede(&self, attempt: Attempt) -> Record;
    fn events(&self) -> &Bus;
    /// The plugins' config file, if there is to be one.
    fn config(&self) -> Option<PathBuf>;
}

/// What is said once when the config file vanished.
pub(crate) fn config_is_gone(path: &Path) -> Event {
    Event::Warning { message: format!("{} is gone: what serves keeps its config", path.display()) }
}

impl Core for Host {
    fn begin(&self, trigger: String) -> Attempt {
        Host::begin(self, trigger)
    }

    fn swap(&self, attempt: Attempt, artifacts: Vec<Artifact>) -> Record {
        Host::swap(self, attempt, artifacts)
    }

    fn recover(&self, artifacts: Vec<Artifact>) {
        // What comes of it is told; whatever that is, what lies at the paths is tried next.
        let _ = Host::recover(self, &artifacts);
    }

    fn reject(&self, attempt: Attempt, error: &Error) -> Record {
        Host::reject(self, attempt, error)
    }

    fn supersede(&self, attempt: Attempt) -> Record {
        Host::supersede(self, attempt)
    }

    fn events(&self) -> &Bus {
        Host::events(self)
    }

    fn config(&self) -> Option<PathBuf> {
        Host::config(self).map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }
}

/// Says that a loop is gone: what serves goes on, but nothing new will come.
pub(crate) fn broken(core: &impl Core, name: &str, panic: &(dyn Any + Send)) -> Error {
    let error = Error::fatal(Code::Io, format!("the {name} loop"), format!("broke: {}", said_by(panic)))
        .help("restart midair; please report this as a bug");
    core.events().say(Event::Warning { message: format!("{error}: what serves goes on, changes no longer go live") });
    error
}

/// A panic's own words.
pub(crate) fn said_by(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::attempt::{Journal, Outcome};
    use crate::error::Stage;

    /// A host that only writes down what it was asked for, and what was said, for a test to wait on.
    pub(crate) struct Ledger {
        journal: Journal,
        bus: Bus,
        lines: Arc<(Mutex<VecDeque<String>>, Condvar)>,
        control: Mutex<Option<Control>>,
        judge: Mutex<Judge>,
        refuses_configs: AtomicBool,
        config: Option<PathBuf>,
    }

    /// Why a host refuses artifacts, if it does.
    type Judge = Box<dyn FnMut(&[Artifact]) -> Option<Error> + Send>;

    impl Ledger {
        pub(crate) fn new() -> Ledger {
            let (lines, bus) = (Arc::new((Mutex::<VecDeque<String>>::default(), Condvar::new())), Bus::default());
            let written = lines.clone();
            bus.listen(move |event| {
                let line = match &**event {
                    Event::Building { plugins, trigger } => format!("building {}: {trigger}", plugins.join(" ")),
                    Event::Built { .. } => "built".to_owned(),
                    Event::Diagnostic { level, .. } => format!("diagnostic {level}"),
                    Event::Rejected { code, .. } => format!("rejected {code}"),
                    Event::Superseded { .. } => "superseded".to_owned(),
                    Event::Warning { message } => format!("warning {message}"),
                    _ => return true,
                };
                write(&written, line);
                true
            });
            Ledger {
                journal: Journal::default(),
                bus,
                lines,
                control: Mutex::default(),
                judge: Mutex::new(Box::new(|_| None)),
                refuses_configs: AtomicBool::new(false),
                config: None,
            }
        }

        /// One with a config file.
        pub(crate) fn with_config(path: PathBuf) -> Ledger {
            Ledger { config: Some(path), ..Self::new() }
        }

        pub(crate) fn control(&self, control: Control) {
            *self.control.lock() = Some(control);
        }

        /// Has what is swapped from now on judged.
        pub(crate) fn judge(&self, judge: impl FnMut(&[Artifact]) -> Option<Error> + Send + 'static) {
            self.refuses_configs.store(false, Ordering::Relaxed);
            *self.judge.lock() = Box::new(judge);
        }

        /// Has every config refused, until what is swapped is judged anew.
        pub(crate) fn refuse_configs(&self) {
            self.refuses_configs.store(true, Ordering::Relaxed);
        }

        pub(crate) fn reload(&self) {
            self.control.lock().as_ref().expect("a control").reload(false);
        }

        /// The next line, waited for at most 30 seconds.
        pub(crate) fn next(&self) -> String {
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut lines = self.lines.0.lock();
            while lines.is_empty() {
                assert!(!self.lines.1.wait_until(&mut lines, deadline).timed_out(), "nothing more was said");
            }
            lines.pop_front().expect("a line")
        }

        pub(crate) fn expect(&self, lines: &[&str]) {
            let next: Vec<_> = lines.iter().map(|_| self.next()).collect();
            assert_eq!(next, lines);
        }

        /// Skips lines up to and with this one.
        pub(crate) fn until(&self, line: &str) {
            while self.next() != line {}
        }

        pub(crate) fn is_quiet(&self) -> bool {
            self.lines.0.lock().is_empty()
        }
    }

    fn write(lines: &(Mutex<VecDeque<String>>, Condvar), line: String) {
        lines.0.lock().push_back(line);
        lines.1.notify_all();
    }

    impl Core for Ledger {
        fn begin(&self, trigger: String) -> Attempt {
            self.journal.begin(trigger)
        }

        fn swap(&self, attempt: Attempt, artifacts: Vec<Artifact>) -> Record {
            let refused = (*self.judge.lock())(&artifacts);
            let bad_config = || Error::rejected(Code::Config, Stage::Check, "", "it says so");
            let refuses = self.refuses_configs.load(Ordering::Relaxed) && attempt.configures();
            let refused = refused.or_else(|| refuses.then(bad_config));
            let mut line = artifacts.into_iter().fold("swap".to_owned(), |line, artifact| line + " " + &artifact.plugin);
            if self.config.is_some() && attempt.configures() {
                line += " +config";
            }
            if let Some(error) = refused {
                write(&self.lines, line);
                return self.reject(attempt, &error);
            }
            let record = attempt.finish(Outcome::Published, Vec::new(), &self.journal);
            write(&self.lines, line);
            record
        }

        fn recover(&self, _: Vec<Artifact>) {}

        fn reject(&self, attempt: Attempt, error: &Error) -> Record {
            attempt.reject(error, Vec::new(), &self.journal, &self.bus)
        }

        fn supersede(&self, attempt: Attempt) -> Record {
            attempt.supersede(&self.journal, &self.bus)
        }

        fn events(&self) -> &Bus {
            &self.bus
        }

        fn config(&self) -> Option<PathBuf> {
            self.config.clone()
        }
    }

    #[test]
    fn a_hundred_reloads_before_the_loop_listens_are_one() {
        let (control, commands) = Commands::new();
        (0..100).for_each(|n| assert!(control.reload(n == 7)));
        assert_eq!(commands.wait(None), Told { reload: true, force: true, ..Told::default() });
        assert_eq!(commands.wait(Some(Instant::now())), Told::default());
    }

    struct Somebody;

    impl Asker for Somebody {
        fn begins(&mut self) {}

        fn ends(self: Box<Self>, _: crate::attempt::Ending) {}
    }

    #[test]
    fn who_asked_for_force_waits_for_a_reload_by_force_and_for_no_loop_that_ended() {
        let (control, commands) = Commands::new();
        assert!(control.reload_for(false, Box::new(Somebody)) && control.reload_for(true, Box::new(Somebody)));
        assert_eq!((commands.askers(false).len(), commands.askers(false).len(), commands.askers(true).len()), (1, 0, 1));
        drop(commands);
        assert!(!control.reload_for(false, Box::new(Somebody)));
        assert_eq!(control.0.waiting.lock().len(), 0);
    }

    #[test]
    fn a_stop_stays_told() {
        let (control, commands) = Commands::new();
        control.stop();
        assert!(commands.wait(None).stop && commands.wait(None).stop);
        assert!(!control.reload(false));
    }
}

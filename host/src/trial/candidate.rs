//! How does a private copy become a candidate?
//!
//! Opened, compared, built, started and tried on the values that are there: every step that runs code of a plugin that doesn't serve yet.
//! Each runs on a thread of its own, which is given up at the deadline. Who asks decides what the candidate reaches: a host's own context,
//! or those of a probe, which are thrown away.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use midair_abi::Outcome;

use crate::call::context::{self, HostContext};
use crate::call::invocation::Call;
use crate::live::config::{Config, Section};
use crate::live::generation::{Generation, Identity};
use crate::live::snapshot::Setup;
use crate::plugin::exports::{Plugin, told};
use crate::plugin::library::{Library, Opened};
use crate::report::attempt::Attempt;
use crate::report::error::{Code, Error, Result, Stage};
use crate::sys::fatal;
use crate::sys::timeout::{Overrun, within};
use crate::trial::table_scan;

/// Makes candidates, one at a time, and remembers what the loader did for earlier ones.
pub(crate) struct Maker {
    context: Arc<HostContext>,
    deadline: Duration,
    /// Where libraries lie; as none is unmapped, a known address means that the loader gave an old one.
    addresses: HashSet<usize>,
    /// The plugin whose opening was given up, and whether it came to an end since.
    stuck: Option<(String, Arc<AtomicBool>)>,
    /// Libraries opened so far, by plugin; none is ever closed.
    opened: BTreeMap<String, usize>,
}

impl Maker {
    /// One whose candidates reach `context`; `deadline` is for each step.
    #[must_use]
    pub(crate) fn new(context: Arc<HostContext>, deadline: Duration) -> Self {
        Self { context, deadline, addresses: HashSet::new(), stuck: None, opened: BTreeMap::new() }
    }

    /// How many libraries of each plugin were opened.
    #[must_use]
    pub(crate) fn opened(&self) -> &BTreeMap<String, usize> {
        &self.opened
    }

    /// Opens the identity's file, compares its types and builds its plugin.
    ///
    /// # Errors
    ///
    /// What the step found wrong; the library stays mapped.
    pub(crate) fn make(&mut self, attempt: &mut Attempt, identity: Identity) -> Result<Arc<Generation>> {
        let (name, deadline) = (identity.plugin.clone(), self.deadline);
        let overrun = |stage, what: &str, overrun| too_long(stage, &name, what, overrun);
        let opening = fatal::Opening::of(&identity.digest);
        let opened = attempt.time(Stage::Load, || self.open(&name, identity.file.clone()))?;
        fatal::loaded(opened.text(), &identity.digest);
        drop(opening);
        *self.opened.entry(name.clone()).or_default() += 1;
        let library: Library = attempt
            .time(Stage::Check, || within("midair-check", deadline, move || opened.check()))
            .map_err(|error| overrun(Stage::Check, "comparing its types", error))??;
        if !self.addresses.insert(library.address()) {
            let reason = "the system's loader gave a library that was opened before";
            return Err(Error::rejected(Code::Sym, Stage::Load, name, reason).help("this is a fault in midair: please report it"));
        }
        let (subject, number, logs) = (name.clone(), identity.number, Arc::clone(&self.context.logs));
        let build = move || {
            library.log_to(&logs, &subject, number);
            Plugin::build(library, &subject)
        };
        let code = attempt
            .time(Stage::Init, || within("midair-build", deadline, build))
            .map_err(|error| overrun(Stage::Init, "its plugin function", error))??;
        Ok(context::candidate(identity, code, &self.context))
    }

    /// Opens a library, unless the loader is still busy with an earlier one: it opens one at a time.
    fn open(&mut self, plugin: &str, path: PathBuf) -> Result<Opened> {
        if let Some((stuck, over)) = &self.stuck
            && !over.load(Ordering::Acquire)
        {
            let reason = format!("the system's loader is still busy with {stuck}, whose constructors don't come to an end");
            return Err(Error::rejected(Code::Timeout, Stage::Load, plugin, reason).help("restart the host"));
        }
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let opening = move || {
            let opened = Opened::open(&path);
            end.store(true, Ordering::Release);
            opened
        };
        within("midair-load", self.deadline, opening).map_err(|overrun| {
            self.stuck = Some((plugin.to_owned(), over));
            too_long(Stage::Load, plugin, "opening it", overrun)
        })?
    }
}

/// Has the code read its section of the config.
///
/// # Errors
///
/// `E_CONFIG` naming file, line, key and expectation, `E_TIMEOUT` if reading doesn't end.
pub(crate) fn configure(generation: &Arc<Generation>, section: &Section, deadline: Duration) -> Result<Arc<Config>> {
    let (reader, section) = (Arc::clone(generation), section.clone());
    within("midair-config", deadline, move || Config::read(&reader, &section))
        .map_err(|overrun| too_long(Stage::Check, generation.plugin(), "reading its config", overrun))?
}

/// Runs the candidate's `init`.
///
/// # Errors
///
/// `E_INIT` if it fails or panics, `E_TIMEOUT` if it doesn't end.
pub(crate) fn init(candidate: &Setup, deadline: Duration) -> Result<()> {
    let started = candidate.clone();
    within("midair-init", deadline, move || run_init(&started))
        .map_err(|overrun| too_long(Stage::Init, candidate.generation.plugin(), "its init", overrun))?
}

/// The same on this thread, for whoever keeps the time.
///
/// # Errors
///
/// `E_INIT` if it fails or panics.
pub(crate) fn run_init(candidate: &Setup) -> Result<()> {
    let rejected = |reason: String| Error::rejected(Code::Init, Stage::Init, candidate.generation.plugin(), reason);
    let Some(code) = candidate.generation.code() else { return Ok(()) };
    let call = Call::detached(candidate.clone());
    let outcome = code.init(call.context());
    match outcome.kind() {
        Outcome::DONE => Ok(()),
        Outcome::PANIC => Err(rejected(format!("its init panicked: {}", told(&outcome.panic())))),
        _ => Err(rejected(format!("its init failed: {}", outcome.text()))),
    }
}

/// Reads a spread sample of each declared table with the candidate's types.
///
/// # Errors
///
/// `E_STATE` naming key, path and expectation, `E_TIMEOUT` if reading doesn't end.
pub(crate) fn try_tables(candidate: &Arc<Generation>, deadline: Duration) -> Result<()> {
    let tables = candidate.code().map_or(0, |code| code.tables().len());
    for place in 0..tables {
        let tried = Arc::clone(candidate);
        let misfit = within("midair-try", deadline, move || table_scan::sample(&tried, place))
            .map_err(|overrun| too_long(Stage::Try, candidate.plugin(), "reading its tables", overrun))?;
        if let Some(misfit) = misfit {
            let help =
                "give an added field `#[serde(default)]`; a type that changes in another way needs a `.migrate` after its `.table`";
            return Err(Error::rejected(Code::State, Stage::Try, candidate.plugin(), misfit).help(help));
        }
    }
    Ok(())
}

fn too_long(stage: Stage, plugin: &str, what: &str, overrun: Overrun) -> Error {
    match overrun {
        Overrun::Deadline(deadline) => {
            let reason = format!("{what} took longer than {} s and was given up", deadline.as_secs_f64());
            Error::rejected(Code::Timeout, stage, plugin, reason)
        }
        Overrun::Broke => Error::rejected(Code::Internal, stage, plugin, format!("{what} ended without a result")),
        Overrun::NoThread => Error::rejected(Code::Io, stage, plugin, format!("{what} found no thread to run on")),
    }
}

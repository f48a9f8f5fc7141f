//! What became of one change?
//!
//! An [`Attempt`] begins when a change is seen and ends in exactly one [`Record`], whatever happens on the way. The journal keeps the
//! last records for `status`.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

use crate::report::error::{Code, Error, Stage};
use crate::report::event::{Bus, Event, Phases};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// New code is live, or a new config.
    Published,
    /// What it runs serves already.
    Unchanged,
    /// A step refused it.
    Rejected,
    /// A newer change overtook it.
    Superseded,
    /// What was committed before serves again.
    RolledBack,
}

/// A plugin's part in an attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// The plugin's name.
    pub plugin: String,
    /// blake3 of the artifact, in hex.
    pub digest: String,
    /// The number under which it was published, or that serves on.
    pub generation: u64,
}

/// What became of one attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Counts up from 1 within a run of the host.
    pub id: u64,
    /// What set it off, such as `saved src/lib.rs`.
    pub trigger: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was rejected.
    pub code: Option<Code>,
    /// The step that rejected it.
    pub stage: Option<Stage>,
    /// The reason in one line.
    pub reason: Option<String>,
    /// The plugins whose new code was published or found unchanged, or whose code before serves again.
    pub parts: Vec<Part>,
    /// Microseconds by step.
    pub phases_us: Phases,
}

/// Whoever asked for another look at what is on disk, and waits for what comes of it. Dropped before its end is said, nobody looks any more.
pub trait Asker: Send {
    /// It begins: what is said from now on may be of it.
    fn begins(&mut self);

    /// It is over, and this came of it.
    fn ends(self: Box<Self>, ending: Ending);
}

/// What came of all attempts that somebody waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// Rejected if one of them was, published if one was and none rejected; superseded if nothing else is known.
    pub outcome: Outcome,
    /// Why the first of those that were rejected was.
    pub code: Option<Code>,
    /// Their numbers.
    pub attempts: Vec<u64>,
}

impl Ending {
    /// What came of these; `None` if there are none.
    #[must_use]
    pub fn of(records: &[Record]) -> Option<Self> {
        let had = |outcome| records.iter().find(|record| record.outcome == outcome);
        let first = [Outcome::Rejected, Outcome::Published, Outcome::Unchanged].into_iter().find_map(had).or(records.last())?;
        Some(Self { outcome: first.outcome, code: first.code, attempts: records.iter().map(|record| record.id).collect() })
    }
}

/// How many records `status` shows.
const KEPT: usize = 64;

/// Numbers attempts and keeps their records.
#[derive(Default)]
pub struct Journal(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    last_id: u64,
    records: VecDeque<Record>,
}

impl Journal {
    /// Starts an attempt.
    pub fn begin(&self, trigger: impl Into<String>) -> Attempt {
        let mut pages = self.0.lock();
        pages.last_id += 1;
        Attempt { id: pages.last_id, trigger: trigger.into(), phases: Phases::new(), forced: false, configures: false }
    }

    /// The last records, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.0.lock().records.iter().cloned().collect()
    }

    fn keep(&self, record: &Record) {
        let mut pages = self.0.lock();
        if pages.records.len() == KEPT {
            pages.records.pop_front();
        }
        pages.records.push_back(record.clone());
    }
}

/// A change on its way. Ending it consumes it: there is one record, never two and never none.
#[must_use = "an attempt ends in a record"]
pub struct Attempt {
    id: u64,
    trigger: String,
    phases: Phases,
    forced: bool,
    configures: bool,
}

impl Attempt {
    /// The same attempt without what it did so far, to end it if its journey breaks.
    pub(crate) fn spare(&self) -> Self {
        Self { id: self.id, trigger: self.trigger.clone(), phases: Phases::new(), forced: self.forced, configures: self.configures }
    }

    /// Takes bytes that serve already once more, as a generation of its own.
    pub fn force(mut self, forced: bool) -> Self {
        self.forced = forced;
        self
    }

    /// Takes the config file for every plugin that serves. Else it is read for new code alone.
    pub fn configure(mut self, configures: bool) -> Self {
        self.configures = configures;
        self
    }

    /// Whether the config file is taken for every plugin that serves.
    #[must_use]
    pub fn configures(&self) -> bool {
        self.configures
    }

    /// Whether bytes that serve already are taken once more.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.forced
    }

    /// Its number within this run.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What set it off.
    #[must_use]
    pub fn trigger(&self) -> &str {
        &self.trigger
    }

    /// Microseconds by step so far.
    #[must_use]
    pub fn phases(&self) -> &Phases {
        &self.phases
    }

    /// Runs a step and adds its time to what that step took so far.
    pub fn time<T>(&mut self, stage: Stage, step: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = step();
        *self.phases.entry(stage).or_default() += u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        result
    }

    /// Ends it: a step refused the change. `serving` is what answers on, as `plugin=generation`.
    pub fn reject(self, error: &Error, serving: Vec<String>, journal: &Journal, bus: &Bus) -> Record {
        let event = Event::Rejected {
            attempt: self.id,
            code: error.code(),
            stage: error.stage(),
            subject: error.subject().to_owned(),
            reason: error.reason(),
            help: error.help_text().map(str::to_owned),
            serving,
            phases_us: self.phases.clone(),
            trigger: self.trigger.clone(),
        };
        let mut record = self.end(Outcome::Rejected, Vec::new());
        record.code = Some(error.code());
        record.stage = Some(error.stage());
        record.reason = Some(error.to_string());
        // Kept before it is said: who hears of it finds the record.
        journal.keep(&record);
        bus.say(event);
        record
    }

    /// Ends it: a newer change overtook it.
    pub fn supersede(self, journal: &Journal, bus: &Bus) -> Record {
        let event = Event::Superseded { attempt: self.id, trigger: self.trigger.clone() };
        let record = self.end(Outcome::Superseded, Vec::new());
        journal.keep(&record);
        bus.say(event);
        record
    }

    /// Ends it: what was committed before serves again, for this reason; by a breach the code says so.
    pub fn roll_back(self, parts: Vec<Part>, code: Option<Code>, reason: &str, journal: &Journal) -> Record {
        let mut record = self.end(Outcome::RolledBack, parts);
        (record.code, record.reason) = (code, Some(reason.to_owned()));
        journal.keep(&record);
        record
    }

    /// Ends it: published, or found to be what serves already. The caller then says so, plugin by plugin.
    pub fn finish(self, outcome: Outcome, parts: Vec<Part>, journal: &Journal) -> Record {
        let record = self.end(outcome, parts);
        journal.keep(&record);
        record
    }

    fn end(self, outcome: Outcome, parts: Vec<Part>) -> Record {
        let Attempt { id, trigger, phases, .. } = self;
        Record { id, trigger, outcome, code: None, stage: None, reason: None, parts, phases_us: phases }
    }
}

//! Is new code doing worse than the code before?
//!
//! Every answer of a generation is counted, with the time that it took. While a generation is on trial each answer is also held against how
//! the last committed generation fared; the answer that makes a rule true is the breach, and it is found by the thread that counted it.
//! Nothing here knows what a breach leads to, or what time it is.
//!
//! Failures are judged by counts alone. Answers that take long are a suspicion and no more: the machine may be busier than it was, which only a
//! comparison with the code before tells, in the same time. What raises the suspicion are two thresholds, by what the code
//! before took: three times its median and three times its 99th percentile. So no percentile is computed on the way of a request.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::mutation::{self, Bug};

/// When new code is committed, and when it has failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// How long a generation is watched at least before it is committed.
    pub time: Duration,
    /// How many answers it must have given before it is committed, and before a share of them means anything. For the commit, beats of jobs,
    /// messages and what plugins ask of each other count only where a plugin takes neither requests nor WebSockets.
    pub requests: u64,
    /// The share of failed answers (5xx and panics) above which it fails, from 0 to 1 ...
    pub errors: f64,
    /// ... if it is also this many times the share of the last committed generation.
    pub errors_factor: f64,
    /// It fails if its answers take this many times longer than those of the code before, in the same time.
    pub latency_factor: f64,
    /// An answer that takes less than this is never slow: at such times the machine decides more than the code.
    pub latency_least: Duration,
    /// A share is none before this many answers make it up: one bad answer of fifty is an accident.
    pub least: u64,
    /// It fails after this many failed answers in a row, unless the last committed generation fails often itself; 0 for never.
    pub in_a_row: u64,
    /// Whether a breach brings the generation back that served before, or is only told. Where it is only told, what is published counts as
    /// committed at once.
    pub acts: bool,
}

impl Rules {
    /// For production: 30 s and 50 requests, 1 % and 5 times the failures, 3 times the latency, 5 failures in a row.
    pub const PRODUCTION: Self = Self {
        time: Duration::from_secs(30),
        requests: 50,
        errors: 0.01,
        errors_factor: 5.0,
        latency_factor: 3.0,
        latency_least: Duration::from_millis(1),
        least: 5,
        in_a_row: 5,
        acts: true,
    };
    /// For development: the same, but told and no more.
    pub const DEVELOPMENT: Self = Self { acts: false, ..Self::PRODUCTION };
}

/// What made a generation fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Breach {
    /// Too many answers failed: this many of that many; and the share that the code before had.
    Errors {
        /// Failed.
        failed: u64,
        /// Of these.
        requests: u64,
        /// The share of the last committed generation, from 0 to 1.
        before: f64,
    },
    /// It is slower than the code before, seen in the same time.
    Slower(Slower),
    /// Too many answers took longer than those of the code before did, at another time: it is told where nothing goes back by itself, and so
    /// nothing is compared.
    Latency {
        /// Took longer.
        slow: u64,
        /// Of these.
        requests: u64,
        /// The limit, by the last committed generation's times.
        limit: Duration,
    },
    /// This many answers failed one after the other.
    InARow(u64),
    /// It can't read a value that is there, or reading doesn't end; in words.
    State(String),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors { failed, requests, before } => {
                write!(f, "{failed} of {requests} answers failed; of the generation before it was {:.1} %", before * 100.0)
            }
            Self::Slower(slower) => slower.fmt(f),
            Self::Latency { slow, requests, limit } => {
                write!(
                    f,
                    "{slow} of {requests} answers took longer than {limit:.1?}, which hardly any of the generation before did"
                )
            }
            Self::InARow(failed) => write!(f, "{failed} answers in a row failed"),
            Self::State(what) => f.write_str(what),
        }
    }
}

/// By how much new code is slower than the code before, in the same time.
#[derive(Clone, Debug, PartialEq)]
pub enum Slower {
    /// All of it.
    All {
        /// Half of its answers took longer than this.
        median: Duration,
        /// And of the code before.
        before: Duration,
        /// Answers of the new code and of the code before.
        answers: (usize, usize),
    },
    /// Some of it.
    Some {
        /// So many of its answers took longer than the limit ...
        slow: usize,
        /// ... and so many of the code before.
        before: usize,
        /// Answers of the new code and of the code before.
        answers: (usize, usize),
        /// The limit.
        limit: Duration,
    },
}

impl fmt::Display for Slower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All { median, before, answers: (new, old) } => write!(
                f,
                "its answers took {median:.1?} where the generation before took {before:.1?} in the same time (medians of {new} and {old})"
            ),
            Self::Some { slow, before, answers: (new, old), limit } => write!(
                f,
                "{slow} of {new} answers took longer than {limit:.1?}, of the generation before in the same time {before} of {old}"
            ),
        }
    }
}

/// How a generation fares.
#[derive(Default)]
pub(crate) struct Counts {
    /// Calls that a client made.
    pub requests: AtomicU64,
    /// Answers with a status of 500 and above, panics included.
    pub errors: AtomicU64,
    /// Handlers that panicked.
    pub panics: AtomicU64,
    times: Times,
    trial: OnceLock<Trial>,
}

/// The first so many answers of a generation are timed, and of the others one in so many: reading the clock twice is worth more than that
/// on the way of a request.
const ALL_TIMED: u64 = 1_000;
const TIMED: u64 = 16;

/// What is heard of a trial.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It has begun.
    Begun,
    /// Enough requests were answered; only time is missing, if anything is.
    Enough,
    /// A rule is broken. Said once.
    Breach(Breach),
    /// Its answers take longer than those of the code before did, which is to be looked into.
    Suspect,
    /// What was found by looking into it is enough to be judged.
    Look,
}

impl Counts {
    /// Whether the next answer's time is wanted: on trial each, else enough of them to know how the generation fares.
    #[must_use]
    pub(crate) fn wants_time(&self) -> bool {
        let requests = self.requests.load(Relaxed);
        requests < ALL_TIMED || requests.is_multiple_of(TIMED) || self.trial.get().is_some_and(|trial| !trial.over.load(Relaxed))
    }

    /// Counts an answer, and its time if it was taken; what it leads to if the generation is on trial. Whether a client asked for it.
    pub(crate) fn answered(&self, failed: bool, took: Option<Duration>, is_asked: bool) -> Option<Verdict> {
        let took = took.map(|took| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.requests.fetch_add(1, Relaxed);
        if failed {
            self.errors.fetch_add(1, Relaxed);
        }
        took.into_iter().for_each(|took| self.times.count(took));
        let trial = self.trial.get()?;
        if trial.over.load(Relaxed) { None } else { trial.answered(failed, took.unwrap_or_default(), is_asked) }
    }

    /// Puts the generation on trial, to be held against `before`. If it `is_asked`, only what clients ask of it makes it enough. A generation
    /// is on trial once.
    pub(crate) fn try_against(&self, rules: Rules, before: Option<&Counts>, is_asked: bool) {
        // A second trial would be of code that was committed already: the first verdict stands.
        let _ = self.trial.set(Trial::new(rules, before, is_asked));
    }

    /// Ends the trial: nothing is judged any more.
    pub(crate) fn end_trial(&self) {
        if let Some(trial) = self.trial.get() {
            trial.over.store(true, Relaxed);
        }
    }

    /// Goes on with a trial that was ended, with nothing counted yet: what was overtaken came back, or failed with nothing to go back to.
    pub(crate) fn resume_trial(&self) {
        if let Some(trial) = self.trial.get() {
            // An answer that is being counted meanwhile may count for one side or the other.
            [&trial.requests, &trial.enough, &trial.failed, &trial.in_a_row].into_iter().for_each(|count| count.store(0, Relaxed));
            trial.pace.clear();
            trial.pace.until.store(0, Relaxed);
            trial.over.store(false, Relaxed);
        }
    }

    /// By what answers are slow, in nanoseconds, and how often it was looked into; for who looks into it now. `None` if it isn't on trial.
    #[must_use]
    pub(crate) fn look_into(&self) -> Option<(u64, u32)> {
        let trial = self.trial.get().filter(|trial| !trial.over.load(Relaxed))?;
        Some((trial.pace.limit, trial.pace.acquitted.load(Relaxed)))
    }

    /// It isn't slower than the code before. It may be suspected again, later each time.
    pub(crate) fn acquit(&self) {
        if let Some(trial) = self.trial.get() {
            trial.pace.acquit(trial.requests.load(Relaxed));
        }
    }

    /// Nothing came of looking into it, as other things happened: it may be suspected again.
    pub(crate) fn forget_suspicion(&self) {
        if let Some(trial) = self.trial.get() {
            trial.pace.clear();
        }
    }

    /// Whether it was on trial and isn't any more.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        self.trial.get().is_some_and(|trial| trial.over.load(Relaxed))
    }

    /// How many answers on trial count for its commit.
    #[must_use]
    pub(crate) fn judged(&self) -> u64 {
        self.trial.get().map_or(0, |trial| trial.enough.load(Relaxed))
    }

    fn share_failed(&self) -> f64 {
        share(self.errors.load(Relaxed), self.requests.load(Relaxed))
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

struct Trial {
    rules: Rules,
    /// The share of failed answers that the last committed generation has.
    before: f64,
    /// Whether only what clients ask for is enough.
    is_asked: bool,
    requests: AtomicU64,
    /// Of these, that count for the commit.
    enough: AtomicU64,
    failed: AtomicU64,
    in_a_row: AtomicU64,
    pace: Pace,
    over: AtomicBool,
}

/// Whether answers take longer than those of the code before did.
struct Pace {
    /// So many times its 99th percentile, in nanoseconds; `u64::MAX` where nothing can be compared.
    limit: u64,
    /// So many times its median.
    middle: u64,
    /// Answers since it was looked into last; of these, that took longer than the limit.
    requests: AtomicU64,
    slow: AtomicU64,
    /// Answers of this block; of these, that took longer than the middle. By blocks, as what was quick for an hour may become slow.
    block: AtomicU64,
    above: AtomicU64,
    /// Whether it is suspected, and not suspected again before it was looked into.
    suspected: AtomicBool,
    /// How often nothing was found by looking into it.
    acquitted: AtomicU32,
    /// Before the trial has so many answers it isn't suspected again.
    until: AtomicU64,
}

/// So many answers say something: a suspicion costs little.
const FEW: u64 = 25;
/// So many are a block.
const BLOCK: u64 = 50;

/// One answer in a hundred.
const HUNDREDTH: f64 = 0.01;

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "saturates as it should")]
fn times(time: u64, factor: f64) -> u64 {
    (time as f64 * factor) as u64
}

impl Pace {
    fn new(rules: &Rules, before: Option<&Counts>) -> Self {
        let enough = before.filter(|before| before.times.all() >= rules.requests.max(1));
        let least = u64::try_from(rules.latency_least.as_nanos()).unwrap_or(u64::MAX);
        let limit =
            |part: f64| enough.map_or(u64::MAX, |before| times(before.times.percentile(part), rules.latency_factor)).max(least);
        Self {
            limit: limit(0.99),
            middle: limit(0.5),
            requests: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            block: AtomicU64::new(0),
            above: AtomicU64::new(0),
            suspected: AtomicBool::new(false),
            acquitted: AtomicU32::new(0),
            until: AtomicU64::new(0),
        }
    }

    /// Counts an answer; so many there are, and so many of them are slow.
    fn count(&self, took: u64) -> (u64, u64) {
        let one = |counter: &AtomicU64, one: bool| if one { counter.fetch_add(1, Relaxed) + 1 } else { counter.load(Relaxed) };
        if self.block.load(Relaxed) >= BLOCK {
            // An answer that is being counted meanwhile may be missing.
            [&self.block, &self.above].into_iter().for_each(|count| count.store(0, Relaxed));
        }
        let (_, _) = (one(&self.block, true), one(&self.above, took > self.middle));
        (one(&self.requests, true), one(&self.slow, took > self.limit))
    }

    /// Whether it is suspected by now. Said once, until it is looked into.
    fn is_suspect(&self, rules: &Rules, (requests, slow): (u64, u64), all: u64) -> bool {
        if self.limit == u64::MAX || all < self.until.load(Relaxed) || self.suspected.load(Relaxed) {
            return false;
        }
        let (block, above) = (self.block.load(Relaxed), self.above.load(Relaxed));
        let wholly = block >= FEW && above.saturating_mul(3) > block;
        let partly = requests >= FEW && slow >= rules.least && share(slow, requests) > HUNDREDTH;
        (wholly || partly) && !self.suspected.swap(true, Relaxed)
    }

    fn clear(&self) {
        [&self.requests, &self.slow, &self.block, &self.above].into_iter().for_each(|count| count.store(0, Relaxed));
        self.suspected.store(false, Relaxed);
    }

    fn acquit(&self, requests: u64) {
        let times = self.acquitted.fetch_add(1, Relaxed);
        self.until.store(requests.saturating_add(BLOCK.saturating_mul(1 << times.min(20))), Relaxed);
        self.clear();
    }
}

impl Trial {
    fn new(rules: Rules, before: Option<&Counts>, is_asked: bool) -> Self {
        Self {
            rules,
            before: before.map_or(0.0, Counts::share_failed),
            is_asked,
            requests: AtomicU64::new(0),
            enough: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_a_row: AtomicU64::new(0),
            pace: Pace::new(&rules, before),
            over: AtomicBool::new(false),
        }
    }

    fn answered(&self, failed: bool, took: u64, is_asked: bool) -> Option<Verdict> {
        let count = |counter: &AtomicU64, one: bool| if one { counter.fetch_add(1, Relaxed) + 1 } else { counter.load(Relaxed) };
        let (requests, counts) = (count(&self.requests, true), is_asked || !self.is_asked);
        let enough = count(&self.enough, counts);
        let (failures, paced) = (count(&self.failed, failed), self.pace.count(took));
        let in_a_row = count(&self.in_a_row, failed);
        if !failed && in_a_row != 0 {
            self.in_a_row.store(0, Relaxed);
        }
        if mutation::is(Bug::BreachUnjudged) {
            return (counts && enough == self.rules.requests).then_some(Verdict::Enough);
        }
        if let Some(breach) = self.breach(requests, failures, paced, if failed { in_a_row } else { 0 }) {
            // Of two threads that see it at once, one tells.
            return (!self.over.swap(true, Relaxed)).then_some(Verdict::Breach(breach));
        }
        if self.rules.acts && self.pace.is_suspect(&self.rules, paced, requests) {
            return Some(Verdict::Suspect);
        }
        (counts && enough == self.rules.requests).then_some(Verdict::Enough)
    }

    fn breach(&self, requests: u64, failed: u64, (paced, slow): (u64, u64), in_a_row: u64) -> Option<Breach> {
        let Rules { errors, errors_factor, least, in_a_row: most, .. } = self.rules;
        // Where the code before fails as often, a row says nothing about the new one.
        if most > 0 && in_a_row >= most && self.before * errors_factor < 1.0 {
            return Some(Breach::InARow(in_a_row));
        }
        if requests < self.rules.requests {
            return None;
        }
        let share_failed = share(failed, requests);
        if failed >= least && share_failed > errors && share_failed > self.before * errors_factor {
            return Some(Breach::Errors { failed, requests, before: self.before });
        }
        if !self.rules.acts && slow >= least && share(slow, paced) > HUNDREDTH {
            return Some(Breach::Latency { slow, requests: paced, limit: Duration::from_nanos(self.pace.limit) });
        }
        None
    }
}

/// How many places each doubling has.
const PARTS: usize = 8;

/// How long answers took: a count for every eighth of each power of two of nanoseconds, so that a percentile is known to an eighth. The
/// scheme of HDR histograms.
struct Times(Box<[AtomicU64; 64 * PARTS]>);

impl Default for Times {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Times {
    fn count(&self, nanoseconds: u64) {
        self.0[place(nanoseconds)].fetch_add(1, Relaxed);
    }

    fn all(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// What this part of the answers, from 0 to 1, took at most, in nanoseconds, rounded up to the place's end.
    fn percentile(&self, part: f64) -> u64 {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let mut above = all - times(all, 1.0 - part);
        for (place, count) in counts.iter().enumerate() {
            if above <= *count {
                return end_of(place);
            }
            above -= count;
        }
        u64::MAX
    }
}

fn place(nanoseconds: u64) -> usize {
    let doubling = nanoseconds.max(1).ilog2() as usize;
    // What is left behind the leading bit, in eighths.
    let part = if doubling >= 3 { (nanoseconds >> (doubling - 3)) as usize & (PARTS - 1) } else { 0 };
    doubling * PARTS + part
}

fn end_of(place: usize) -> u64 {
    let (doubling, part) = (place / PARTS, (place % PARTS) as u64);
    if doubling < 3 {
        return 2 << doubling;
    }
    let end = u128::from(PARTS as u64 + part + 1) << (doubling - 3);
    u64::try_from(end).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);
    const RULES: Rules = Rules::PRODUCTION;

    fn counts(quick: u64, failed: u64, slow: u64, time: Duration) -> Counts {
        let counts = Counts::default();
        for n in 0..quick {
            counts.answered(n < failed, Some(QUICK), true);
        }
        for _ in 0..slow {
            counts.answered(false, Some(time), true);
        }
        counts
    }

    /// What comes of a story of answers, `.` a good one, `x` a failed one, `s` one five times as slow, against a generation before.
    fn check(before: Option<&Counts>, story: &str) -> Vec<(usize, Verdict)> {
        let counts = Counts::default();
        counts.try_against(RULES, before, true);
        let answers =
            story.chars().map(|answer| counts.answered(answer == 'x', Some(if answer == 's' { QUICK * 5 } else { QUICK }), true));
        answers.enumerate().filter_map(|(at, verdict)| Some((at + 1, verdict?))).collect()
    }

    #[test]
    fn fault_19_the_answer_that_makes_one_percent_fail_is_the_breach() {
        let before = counts(1000, 0, 0, QUICK);
        let good = check(Some(&before), &".".repeat(1000));
        assert_eq!(good, [(50, Verdict::Enough)]);
        // One of a hundred is allowed, the next one isn't.
        let hundred = format!("{}x", ".".repeat(99));
        let found = check(Some(&before), &format!("{}{}x", hundred.repeat(5), ".".repeat(40)));
        assert_eq!(found[1..], [(541, Verdict::Breach(Breach::Errors { failed: 6, requests: 541, before: 0.0 }))]);
        // Before fifty nothing is judged by its share; the fiftieth may be a good one. Four failures are an accident.
        let found = check(Some(&before), &format!("{}{}", "x.".repeat(5), ".".repeat(90)));
        assert_eq!(found, [(50, Verdict::Breach(Breach::Errors { failed: 5, requests: 50, before: 0.0 }))]);
        assert_eq!(check(Some(&before), &format!("{}{}", "x.".repeat(4), ".".repeat(90))), [(50, Verdict::Enough)]);
    }

    #[test]
    fn what_fails_as_the_code_before_did_is_no_breach() {
        let before = counts(1000, 20, 0, QUICK);
        let seventh = "......x".repeat(20);
        assert!(matches!(check(Some(&before), &seventh)[..], [(50, Verdict::Breach(Breach::Errors { before: 0.02, .. }))]));
        let twentieth = ".............xx...............".repeat(10);
        assert_eq!(check(Some(&before), &twentieth), [(50, Verdict::Enough)]);
        // Half of them failed before: a row means nothing.
        let before = counts(1000, 500, 0, QUICK);
        assert_eq!(check(Some(&before), &"x".repeat(20)), []);
    }

    #[test]
    fn beats_are_enough_only_where_nobody_asks() {
        let counts = |is_asked| {
            let counts = Counts::default();
            counts.try_against(RULES, None, is_asked);
            let beats = (0..60).filter_map(|_| counts.answered(false, None, false)).collect::<Vec<_>>();
            let asked = (0..60).filter_map(|_| counts.answered(false, None, true)).collect::<Vec<_>>();
            (beats, asked, counts.judged())
        };
        assert_eq!(counts(true), (vec![], vec![Verdict::Enough], 60));
        assert_eq!(counts(false), (vec![Verdict::Enough], vec![], 120));
        // They fail as all others do.
        let counts = Counts::default();
        counts.try_against(RULES, None, true);
        let found: Vec<_> = (0..9).filter_map(|_| counts.answered(true, None, false)).collect();
        assert_eq!(found, [Verdict::Breach(Breach::InARow(5))]);
    }

    #[test]
    fn failures_in_a_row_break_the_circuit_before_any_share_is_known() {
        let before = counts(1000, 0, 0, QUICK);
        assert_eq!(check(Some(&before), "xxxx.xxxxx"), [(10, Verdict::Breach(Breach::InARow(5)))]);
        assert_eq!(check(None, "xxxxxxx"), [(5, Verdict::Breach(Breach::InARow(5)))]);
    }

    #[test]
    fn fault_20_answers_five_times_as_slow_are_a_suspicion() {
        let before = counts(1000, 0, 5, QUICK * 20);
        // All of them take longer than half of those before.
        assert_eq!(check(Some(&before), &"s".repeat(60)), [(25, Verdict::Suspect), (50, Verdict::Enough)]);
        // Some of them, longer than hardly any before.
        let before = counts(1000, 0, 5, QUICK);
        assert_eq!(check(Some(&before), &"....s".repeat(20)), [(25, Verdict::Suspect), (50, Verdict::Enough)]);
        // A few slow ones are what there was before.
        assert_eq!(check(Some(&before), &format!("{}s", ".".repeat(199))), [(50, Verdict::Enough)]);
        // Too few answers before to know how long they take.
        assert_eq!(check(Some(&counts(20, 0, 0, QUICK)), &"s".repeat(60)), [(50, Verdict::Enough)]);
        assert_eq!(check(None, &"s".repeat(60)), [(50, Verdict::Enough)]);
    }

    #[test]
    fn what_was_quick_for_long_is_suspected_once_it_is_slow_and_later_each_time_that_nothing_is_found() {
        let before = counts(1000, 0, 0, QUICK);
        let counts = Counts::default();
        counts.try_against(RULES, Some(&before), true);
        let suspected = |answers: u64, took| {
            (0..answers).filter(|_| counts.answered(false, Some(took), true) == Some(Verdict::Suspect)).count()
        };
        assert_eq!(suspected(500, QUICK), 0);
        assert_eq!(suspected(75, QUICK * 5), 1, "within a block and a half");
        assert_eq!(suspected(500, QUICK * 5), 0, "once, until it was looked into");
        for pause in [50, 100, 200] {
            counts.acquit();
            assert_eq!((suspected(pause - 1, QUICK * 5), suspected(26, QUICK * 5)), (0, 1), "{pause}");
        }
    }

    #[test]
    fn where_nothing_goes_back_by_itself_it_is_told() {
        let before = counts(1000, 0, 20, QUICK * 20);
        let counts = Counts::default();
        counts.try_against(Rules { acts: false, ..RULES }, Some(&before), true);
        let found: Vec<_> = (0..60).filter_map(|_| counts.answered(false, Some(QUICK * 5), true)).collect();
        assert_eq!(found, [Verdict::Enough], "not slower than hardly any before");
        let found: Vec<_> = (0..60).filter_map(|_| counts.answered(false, Some(QUICK * 100), true)).collect();
        assert!(matches!(found[..], [Verdict::Breach(Breach::Latency { slow: 5, .. })]), "{found:?}");
    }

    #[test]
    fn a_percentile_is_known_to_an_eighth() {
        for nanoseconds in [1, 2, 3, 7, 8, 9, 1_000, 1_234_567, 30_000_000_000, u64::MAX] {
            let times = Times::default();
            (0..200).for_each(|_| times.count(nanoseconds));
            let p99 = times.percentile(0.99);
            assert!(
                p99 >= nanoseconds && (p99 as f64) <= (nanoseconds as f64 * 1.13).max(nanoseconds as f64 + 2.0),
                "{nanoseconds}: {p99}"
            );
        }
        let times = Times::default();
        (0..99).for_each(|_| times.count(1_000));
        times.count(1_000_000);
        assert!(times.percentile(0.99) < 1_200, "{}", times.percentile(0.99));
        (0..2).for_each(|_| times.count(1_000_000));
        assert!(times.percentile(0.99) > 900_000, "{}", times.percentile(0.99));
    }

    #[test]
    fn a_trial_that_is_over_judges_no_more_and_a_breach_is_said_once() {
        let counts = Counts::default();
        counts.try_against(RULES, None, true);
        let said = (0..20).filter(|_| counts.answered(true, Some(QUICK), true).is_some()).count();
        assert_eq!((said, counts.judged()), (1, 5));
        let counts = Counts::default();
        counts.try_against(RULES, None, true);
        counts.end_trial();
        assert!((0..100).all(|_| counts.answered(true, Some(QUICK), true).is_none()));
        assert_eq!((counts.requests.load(Relaxed), counts.errors.load(Relaxed)), (100, 100));
    }
}

//! Is new code slower than the code before, or is it the machine?
//!
//! Code that serves alone has nothing beside it: if its answers take longer than those of the code before did, the machine may be busier than it
//! was. So once new code in probation is suspected, requests that both could answer go to one of the two by lot, and their times are compared. What
//! disturbs one disturbs the other; whatever it is, the lot doesn't know of it. That makes the lot a randomised experiment, whose tests hold
//! without any assumption about the noise (Fisher, The Design of Experiments, 1935). Canary analysis does the same with two groups of machines.
//!
//! # The rule
//!
//! The new code is slower if one of these holds, at one of the [`LOOKS`]:
//!
//! - *All of it*: its times lie above those of the code before by a Mann-Whitney U test (one-sided, ties corrected, normal approximation), and in
//!   half of all pairs of an answer of each, its own took so many times longer as the rules allow.
//! - *Some of it*: more of its answers lie above a limit, by Fisher's exact test (one-sided); these are at least [`Rules::least`], more than one in
//!   a hundred, and so many times more often than the code before has them. The limit is so many times the median of both, and no less than what
//!   the code before took so far.
//!
//! Both are asked with [`FALSE`] shared out over the looks (Bonferroni) and over the comparisons of one probation, of which each has half of what
//! the one before had. So over a whole probation, however long, equal code is taken for slower at most once in 2,000.
//!
//! # Protocol
//!
//! Whoever answers takes the next place of its side and then stores the time there; a place that reads 0 isn't written yet and is left out. Who
//! stores the time that makes a look due says so, once; the look is another thread's.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use statrs::distribution::{ContinuousCDF as _, DiscreteCDF as _, Hypergeometric, Normal};

use crate::live::generation::{Alarm, Generation};
use crate::live::probation::{Rules, Slower, Verdict};

/// How likely equal code may be taken for slower in one probation.
const FALSE: f64 = 0.0005;

/// With so many answers of each side the times are looked at. 25 answers to suspect it and twice the second of these are 97: what is clearly
/// slower is found within a hundred requests.
pub(crate) const LOOKS: [usize; 5] = [20, 36, 80, 320, 640];

/// From this look on, what doesn't even look slower is let go.
const ENOUGH: usize = 80;

/// Not even this sure: no sign that it is slower.
const NO_SIGN: f64 = 0.2;

/// A comparison ends after so long, with what was answered by then.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// Which code a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one in probation.
    New,
    /// The one that served before.
    Before,
}

/// For which code a request was drawn, and who hears how long it took.
#[derive(Clone)]
pub(crate) struct Sample {
    comparison: Arc<Comparison>,
    side: Side,
}

impl Sample {
    /// For whichever code the lot says.
    #[must_use]
    pub(crate) fn draw(comparison: Arc<Comparison>) -> Self {
        Self { side: comparison.draw(), comparison }
    }

    /// Whose it is.
    #[must_use]
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// Takes the time of a good answer. No lock.
    pub(crate) fn record(&self, took: Duration) {
        self.comparison.record(self.side, took);
    }
}

/// Answers' times of one side, in nanoseconds, in the order of their answers.
struct Times {
    next: AtomicUsize,
    times: Box<[AtomicU64]>,
}

impl Times {
    fn new() -> Self {
        Self { next: AtomicUsize::new(0), times: (0..LOOKS[LOOKS.len() - 1] * 2).map(|_| AtomicU64::new(0)).collect() }
    }

    fn record(&self, nanoseconds: u64) {
        if let Some(place) = self.times.get(self.next.fetch_add(1, Relaxed)) {
            place.store(nanoseconds.max(1), Relaxed);
        }
    }

    fn count(&self) -> usize {
        self.next.load(Relaxed).min(self.times.len())
    }

    fn sorted(&self) -> Vec<u64> {
        let mut times: Vec<u64> = self.times.iter().map(|time| time.load(Relaxed)).filter(|time| *time != 0).collect();
        times.sort_unstable();
        times
    }
}

/// One suspicion, while it is looked into.
pub(crate) struct Comparison {
    /// Whose answers, by the generation's key.
    generation: u64,
    rules: Rules,
    /// Answers that take less aren't slow, in nanoseconds, by what the code before took so far.
    limit: u64,
    /// How likely equal code may be taken for slower by it.
    chance: f64,
    begun: Instant,
    alarms: Sender<Alarm>,
    seed: u64,
    lots: AtomicU64,
    new: Times,
    before: Times,
    looks: AtomicUsize,
}

/// What a look says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finding {
    /// The new code is slower.
    Slower(Slower),
    /// It isn't; what was compared, in words.
    Equal(String),
    /// Too early to say.
    Unclear,
}

impl Comparison {
    /// Looks into the suspicion that this generation is slow, for the so many-th time since it was published.
    #[must_use]
    pub(crate) fn begin(of: &Generation, rules: Rules, limit: u64, earlier: u32, now: Instant) -> Arc<Self> {
        // Random keys of the process: nobody foresees the lots.
        let seed = RandomState::new().hash_one(of.key());
        Self::with((of.key(), of.alarms().clone()), rules, limit, earlier, seed, now)
    }

    fn with(
        (generation, alarms): (u64, Sender<Alarm>),
        rules: Rules,
        limit: u64,
        earlier: u32,
        seed: u64,
        now: Instant,
    ) -> Arc<Self> {
        let chance = FALSE / 2_f64.powi(i32::try_from(earlier).unwrap_or(i32::MAX).saturating_add(1));
        Arc::new(Self {
            generation,
            rules,
            limit,
            chance,
            begun: now,
            alarms,
            seed,
            lots: AtomicU64::new(0),
            new: Times::new(),
            before: Times::new(),
            looks: AtomicUsize::new(0),
        })
    }

    /// Whose answers are looked into, by the generation's key.
    #[must_use]
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Until when.
    #[must_use]
    pub(crate) fn until(&self) -> Instant {
        self.begun + LONGEST
    }

    /// Which code the next request is for. Of each two one is for either, in an order that nobody foresees: so both sides get as many.
    #[must_use]
    pub(crate) fn draw(&self) -> Side {
        let lot = self.lots.fetch_add(1, Relaxed);
        let is_new = (mixed(self.seed ^ (lot / 2)) ^ lot) & 1 == 0;
        if is_new { Side::New } else { Side::Before }
    }

    /// Takes the time of a good answer, and says if a look is due. No lock.
    pub(crate) fn record(&self, side: Side, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        match side {
            Side::New => self.new.record(nanoseconds),
            Side::Before => self.before.record(nanoseconds),
        }
        let look = self.looks.load(Relaxed);
        let is_due = LOOKS.get(look).is_some_and(|wanted| self.new.count().min(self.before.count()) >= *wanted);
        if is_due && self.looks.compare_exchange(look, look + 1, Relaxed, Relaxed).is_ok() {
            // Without a listener the host has ended.
            let _ = self.alarms.send(Alarm { generation: self.generation, verdict: Verdict::Look, at: Instant::now() });
        }
    }

    /// What the times say by now.
    #[must_use]
    pub(crate) fn look(&self, now: Instant) -> Finding {
        let (new, before) = (self.new.sorted(), self.before.sorted());
        let least = new.len().min(before.len());
        let is_last = least >= LOOKS[LOOKS.len() - 1] || now >= self.until();
        if least < LOOKS[0] {
            let few = || format!("too few answers to tell: {} and {} in {} s", new.len(), before.len(), LONGEST.as_secs());
            return if is_last { Finding::Equal(few()) } else { Finding::Unclear };
        }
        #[allow(clippy::cast_precision_loss, reason = "five looks of two tests")]
        let chance = self.chance / (LOOKS.len() * 2) as f64;
        let limit = self.limit(&new, &before);
        let (all, some) = (self.all_of_it(&new, &before), self.some_of_it(&new, &before, limit));
        let (medians, answers) = ((median(&new), median(&before)), (new.len(), before.len()));
        if all < chance {
            return Finding::Slower(Slower::All { median: medians.0, before: medians.1, answers });
        }
        if some < chance {
            let (slow, before, limit) = (slow(&new, limit), slow(&before, limit), Duration::from_nanos(limit));
            return Finding::Slower(Slower::Some { slow, before, answers, limit });
        }
        if is_last || (least >= ENOUGH && all.min(some) > NO_SIGN) {
            let (median, before) = medians;
            return Finding::Equal(format!(
                "{median:.1?} and {before:.1?}, the medians of {} and {} answers",
                answers.0, answers.1
            ));
        }
        Finding::Unclear
    }

    /// How likely equal code shows this much of a difference in all of its times; 1 if the difference is too small to matter.
    #[allow(clippy::cast_precision_loss, reason = "counts of some hundred")]
    fn all_of_it(&self, new: &[u64], before: &[u64]) -> f64 {
        let least = u64::try_from(self.rules.latency_least.as_nanos()).unwrap_or(u64::MAX) as f64;
        // How many of the pairs differ by the factor: with each new one, all of the others that it is so far above.
        let far = |new: u64| before.partition_point(|old| (*old as f64 * self.rules.latency_factor).max(least) < new as f64);
        let pairs: usize = new.iter().map(|new| far(*new)).sum();
        if pairs * 2 < new.len() * before.len() {
            return 1.0;
        }
        mann_whitney(new, before)
    }

    /// Which answers are slow: the same limit for both sides, by what both took, so that equal code is as often above it on either.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "saturates as it should"
    )]
    fn limit(&self, new: &[u64], before: &[u64]) -> u64 {
        let mut both: Vec<u64> = new.iter().chain(before).copied().collect();
        both.sort_unstable();
        ((median(&both).as_nanos() as f64 * self.rules.latency_factor) as u64).max(self.limit)
    }

    /// How likely equal code has so many more answers above the limit; 1 if there are too few to matter.
    #[allow(clippy::cast_precision_loss, reason = "counts of some hundred")]
    fn some_of_it(&self, new: &[u64], before: &[u64], limit: u64) -> f64 {
        let (slow, old) = (slow(new, limit), slow(before, limit));
        let share = |slow: usize, of: &[u64]| slow as f64 / of.len() as f64;
        let matters = slow as u64 >= self.rules.least
            && share(slow, new) > 0.01
            && share(slow, new) > share(old, before) * self.rules.latency_factor;
        if matters { fisher(slow, new.len(), old, before.len()) } else { 1.0 }
    }
}

fn slow(sorted: &[u64], limit: u64) -> usize {
    sorted.len() - sorted.partition_point(|time| *time <= limit)
}

fn median(sorted: &[u64]) -> Duration {
    Duration::from_nanos(sorted.get(sorted.len() / 2).copied().unwrap_or_default())
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(of: u64) -> u64 {
    let of = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let of = (of ^ (of >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let of = (of ^ (of >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    of ^ (of >> 31)
}

/// The p-value of the one-sided Mann-Whitney U test that `new` tends to lie above `old`, both sorted; by the normal approximation with the
/// corrections for ties and continuity, which is conservative this far out.
#[allow(clippy::cast_precision_loss, reason = "counts of some hundred")]
fn mann_whitney(new: &[u64], old: &[u64]) -> f64 {
    let (n, m) = (new.len() as f64, old.len() as f64);
    let below = |time: u64| old.partition_point(|old| *old < time) + old.partition_point(|old| *old <= time);
    let u = new.iter().map(|time| below(*time)).sum::<usize>() as f64 / 2.0;
    let mut all: Vec<u64> = new.iter().chain(old).copied().collect();
    all.sort_unstable();
    let ties: f64 = all.chunk_by(|a, b| a == b).map(|tie| (tie.len() as f64).powi(3) - tie.len() as f64).sum();
    let variance = n * m / 12.0 * ((n + m + 1.0) - ties / ((n + m) * (n + m - 1.0)));
    if variance <= 0.0 {
        // All are equal.
        return 1.0;
    }
    Normal::standard().sf((u - n * m / 2.0 - 0.5) / variance.sqrt())
}

/// The p-value of Fisher's one-sided exact test that `slow` of `new` are more than `old_slow` of `old`.
fn fisher(slow: usize, new: usize, old_slow: usize, old: usize) -> f64 {
    let all = Hypergeometric::new((new + old) as u64, (slow + old_slow) as u64, new as u64);
    // At least so many is more than one less. It can't fail: there are no more slow ones than there are.
    all.map_or(1.0, |all| (slow as u64).checked_sub(1).map_or(1.0, |less| all.sf(less)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::live::probation::Counts;

    /// What goes on beside the code, in the machine and in what clients ask for.
    #[derive(Clone, Copy, Debug)]
    enum Noise {
        /// Times are spread a little.
        Quiet,
        /// Times are spread over two orders of magnitude.
        Spread,
        /// Others want the processor: now and then some requests in a row wait for it.
        Hogs,
        /// Since the publish all takes four times as long.
        Busier,
        /// All takes six times as long for a hundred requests, and then doesn't for a hundred.
        Tides,
        /// One request in twenty takes forty times as long.
        Rare,
    }

    const NOISES: [Noise; 6] = [Noise::Quiet, Noise::Spread, Noise::Hogs, Noise::Busier, Noise::Tides, Noise::Rare];

    /// A clock of answers: each takes so many milliseconds.
    struct Machine {
        seed: u64,
        noise: Noise,
        answers: u64,
        waits: u64,
    }

    impl Machine {
        fn random(&mut self) -> f64 {
            self.seed = self.seed.wrapping_add(1);
            (mixed(self.seed) >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// Times of a service that is asked for different things: log-normal.
        fn usual(&mut self) -> f64 {
            let sigma = if matches!(self.noise, Noise::Spread) { 1.0 } else { 0.25 };
            let normal = (0..12).map(|_| self.random()).sum::<f64>() - 6.0;
            2.0 * (sigma * normal).exp()
        }

        /// How long the next answer takes since the publish, of code that takes so many times as long as the other.
        fn answer(&mut self, factor: f64) -> Duration {
            self.answers += 1;
            let (usual, luck) = (self.usual() * factor, self.random());
            let milliseconds = match self.noise {
                Noise::Quiet | Noise::Spread => usual,
                Noise::Busier => usual * 4.0,
                Noise::Tides if (self.answers / 100).is_multiple_of(2) => usual * 6.0,
                Noise::Tides => usual,
                Noise::Rare if luck < 0.05 => usual * 40.0,
                Noise::Rare => usual,
                Noise::Hogs => {
                    if self.waits == 0 && luck < 1.0 / 30.0 {
                        self.waits = 1 + (self.random() * 9.0) as u64;
                    }
                    let waits = self.waits > 0;
                    self.waits = self.waits.saturating_sub(1);
                    if waits { usual + 2.0 + self.random() * 20.0 } else { usual }
                }
            };
            Duration::from_secs_f64(milliseconds / 1000.0)
        }
    }

    /// What becomes of one probation.
    #[derive(Default)]
    struct Trial {
        /// After so many requests the new code was found to be slower.
        found: Option<u64>,
        /// So many requests went to the code before.
        spared: u64,
    }

    fn trial(noise: Noise, factor: f64, requests: u64, seed: u64) -> Trial {
        let mut machine = Machine { seed: mixed(seed), noise, answers: 0, waits: 0 };
        let (old, new, rules) = (Counts::default(), Counts::default(), Rules::PRODUCTION);
        for _ in 0..1_000 {
            let took = Duration::from_secs_f64(machine.usual() / 1000.0);
            old.answered(false, Some(took), true);
        }
        new.try_against(rules, Some(&old), true);
        let (sender, alarms) = channel();
        let (now, mut comparison, mut trial) = (Instant::now(), None, Trial::default());
        for request in 1..=requests {
            let side = comparison.as_ref().map_or(Side::New, |comparison: &Arc<Comparison>| comparison.draw());
            let took = machine.answer(if side == Side::New { factor } else { 1.0 });
            trial.spared += u64::from(side == Side::Before);
            let verdict = if side == Side::New { new.answered(false, Some(took), true) } else { None };
            comparison.iter().for_each(|comparison| comparison.record(side, took));
            if verdict == Some(Verdict::Suspect) {
                let (limit, earlier) = new.look_into().expect("it is in probation");
                let of = (1, sender.clone());
                comparison = Some(Comparison::with(of, rules, limit, earlier, mixed(seed ^ request), now));
            }
            if alarms.try_recv().is_ok() {
                match comparison.as_ref().expect("who else said it").look(now) {
                    Finding::Slower(_) => return Trial { found: Some(request), ..trial },
                    Finding::Equal(_) => {
                        new.acquit();
                        comparison = None;
                    }
                    Finding::Unclear => {}
                }
            }
        }
        trial
    }

    /// A row of both curves, printed: how many of so many probations of so many requests were found to be slower, and how many of them within a
    /// hundred requests.
    fn row(noise: Noise, factor: f64, trials: u64, requests: u64) -> (usize, usize) {
        let of = |seed| trial(noise, factor, requests, mixed(seed) ^ factor.to_bits());
        let all: Vec<Trial> = (0..trials).map(of).collect();
        let mut found: Vec<u64> = all.iter().filter_map(|trial| trial.found).collect();
        found.sort_unstable();
        let within = found.iter().filter(|requests| **requests <= 100).count();
        let half = found.get(found.len() / 2).map_or_else(|| "-".to_owned(), u64::to_string);
        let spared = all.iter().map(|trial| trial.spared).sum::<u64>() as f64 / (trials * requests) as f64;
        let (noise, found) = (format!("{noise:?}"), found.len());
        let _ = writeln!(
            std::io::stdout(),
            "{noise:<8} {factor:>4} x: found {found:>4} of {trials} in {requests} requests, {within:>4} within 100, half of them within {half:>4}; \
             {:>4.1} % of the requests went to the code before",
            100.0 * spared
        );
        (found, within)
    }

    /// Whether all is tried, or what is enough for each run.
    fn is_full() -> bool {
        std::env::var("MIDAIR_SIZE").is_ok_and(|size| size == "full")
    }

    #[test]
    fn fault_20_equal_code_is_hardly_ever_taken_for_slower_whatever_goes_on_beside_it() {
        for noise in NOISES {
            let (trials, most) = if is_full() { (1_000, 1) } else { (150, 0) };
            assert!(row(noise, 1.0, trials, 2_000).0 <= most, "{noise:?}");
        }
    }

    #[test]
    fn fault_20_what_takes_five_times_as_long_is_found_within_a_hundred_requests_whatever_goes_on_beside_it() {
        let (trials, factors) = if is_full() { (1_000, &[1.5, 2.0, 3.0, 4.0, 5.0, 8.0][..]) } else { (100, &[5.0][..]) };
        for noise in NOISES {
            for factor in factors {
                let (found, within) = row(noise, *factor, trials, 1_000);
                // Where times are spread over two orders of magnitude, or others want the processor, one in forty takes longer.
                let is_quick = within * 100 >= found * 95;
                assert!(*factor < 5.0 || (found as u64 == trials && is_quick), "{noise:?}: {found}, {within}");
            }
        }
    }

    fn compared(new: impl IntoIterator<Item = u64>, before: impl IntoIterator<Item = u64>) -> (Arc<Comparison>, usize) {
        let (sender, alarms) = channel();
        let limit = 10_000_000;
        let comparison = Comparison::with((1, sender), Rules::PRODUCTION, limit, 0, 7, Instant::now());
        let record = |side, milliseconds| comparison.record(side, Duration::from_millis(milliseconds));
        new.into_iter().for_each(|time| record(Side::New, time));
        before.into_iter().for_each(|time| record(Side::Before, time));
        let looks = alarms.try_iter().count();
        (comparison, looks)
    }

    #[test]
    fn a_few_handlers_that_are_slow_are_found_too() {
        // Every eighth answer takes thirty times as long: the medians don't see it.
        let (comparison, looks) = compared((0..320).map(|at| if at % 8 == 0 { 60 } else { 2 }), (0..320).map(|_| 2));
        let finding = comparison.look(Instant::now());
        let limit = Duration::from_millis(10);
        assert_eq!(finding, Finding::Slower(Slower::Some { slow: 40, before: 0, answers: (320, 320), limit }));
        assert_eq!(looks, 4, "one for each number of answers that is looked at");
        // The code before has as many.
        let (comparison, _) =
            compared((0..320).map(|at| if at % 8 == 0 { 60 } else { 2 }), (0..320).map(|at| if at % 8 == 1 { 60 } else { 2 }));
        assert!(matches!(comparison.look(Instant::now()), Finding::Equal(_)));
    }

    #[test]
    fn too_few_answers_say_nothing_and_after_its_time_it_ends() {
        let (comparison, looks) = compared((0..19).map(|_| 900), (0..200).map(|_| 2));
        assert_eq!((comparison.look(Instant::now()), looks), (Finding::Unclear, 0));
        let late = comparison.look(comparison.until());
        assert!(matches!(&late, Finding::Equal(few) if few.starts_with("too few answers to tell: 19 and 200")), "{late:?}");
        comparison.record(Side::New, Duration::from_millis(900));
        let found = comparison.look(Instant::now());
        assert!(matches!(found, Finding::Slower(Slower::All { answers: (20, 200), .. })), "{found:?}");
    }

    #[test]
    fn both_sides_get_as_many_and_nobody_foresees_which() {
        let (comparison, _) = compared([], []);
        let lots: Vec<Side> = (0..2_000).map(|_| comparison.draw()).collect();
        assert!(lots.chunks(2).all(|two| two[0] != two[1]));
        let first = lots.chunks(2).filter(|two| two[0] == Side::New).count();
        assert!((400..600).contains(&first), "{first}");
    }

    /// By tables: U for 5 and 5 in complete order has p = 1/252 exactly; Fisher's tea has p = 1/70 for all and 17/70 for three of four.
    #[test]
    fn the_tests_say_what_their_tables_say() {
        assert!((fisher(4, 4, 0, 4) - 1.0 / 70.0).abs() < 1e-9 && (fisher(3, 4, 1, 4) - 17.0 / 70.0).abs() < 1e-9);
        assert!((fisher(0, 4, 0, 4) - 1.0).abs() < 1e-9);
        let exact = 1.0 / 252.0;
        let p = mann_whitney(&[6, 7, 8, 9, 10], &[1, 2, 3, 4, 5]);
        assert!(p > exact && p < 2.0 * exact, "{p}");
        assert!((mann_whitney(&[1, 2, 2, 3], &[1, 2, 2, 3]) - 0.5).abs() < 0.1);
        assert!((mann_whitney(&[5; 9], &[5; 9]) - 1.0).abs() < 1e-9);
    }
}

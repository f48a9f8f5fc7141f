//! Beats by a clock that the test sets.

use super::*;

/// A schedule and its time, in seconds.
struct Clock {
    schedule: Schedule,
    start: Instant,
    now: u64,
}

impl Clock {
    fn new() -> Self {
        Self { schedule: Schedule::default(), start: Instant::now(), now: 0 }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// The plugin `shop` has these jobs from now on, as `(name, seconds)`.
    fn declare(&mut self, jobs: &[(&str, u64)], overlap: Overlap) {
        let plan =
            |(name, seconds): &(&str, u64)| Declared { name: (*name).to_owned(), period: Duration::from_secs(*seconds), overlap };
        let plans: Vec<Declared> = jobs.iter().map(plan).collect();
        self.schedule.declare("shop", &plans, self.at(self.now));
    }

    /// What begins when it is so late, as `name number@second`.
    fn beats(&mut self, now: u64) -> Vec<Beat> {
        self.now = now;
        self.schedule.due(self.at(now))
    }

    fn shown(&mut self, now: u64) -> String {
        let (start, beats) = (self.start, self.beats(now));
        let one = |beat: &Beat| format!("{} {}@{}", beat.job, beat.number, beat.at.duration_since(start).as_secs());
        beats.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The same, and each beat ends at once.
    fn run(&mut self, now: u64) -> String {
        let start = self.start;
        let mut told = Vec::new();
        for beat in self.beats(now) {
            told.push(format!("{} {}@{}", beat.job, beat.number, beat.at.duration_since(start).as_secs()));
            assert_eq!(self.end(&beat, false), None);
        }
        told.join(", ")
    }

    fn end(&mut self, beat: &Beat, failed: bool) -> Option<u64> {
        self.schedule.ended(beat, End::Ended { failed, took: Duration::from_secs(2) }).map(|next| next.number)
    }

    /// due, begun, skipped, failed, running.
    fn counts(&self) -> [u64; 5] {
        let job = &self.schedule.list(self.at(self.now))[0];
        [job.due, job.beats, job.skipped, job.failed, job.running]
    }
}

#[test]
fn beats_lie_on_the_grid_from_when_the_job_is_first_seen_and_no_swap_moves_them() {
    let mut clock = Clock::new();
    clock.declare(&[("rank", 10)], Overlap::Skip);
    assert_eq!((clock.run(9), clock.run(10)), (String::new(), "rank 1@10".to_owned()));
    // The next one is due at 20, whatever is published meanwhile and however late the clock is.
    for now in 11..20 {
        clock.now = now;
        clock.declare(&[("rank", 10)], Overlap::Skip);
    }
    assert_eq!((clock.run(19), clock.run(23), clock.run(29)), (String::new(), "rank 2@20".to_owned(), String::new()));
    clock.declare(&[("rank", 10)], Overlap::Skip);
    assert_eq!((clock.run(30), clock.run(30)), ("rank 3@30".to_owned(), String::new()), "not twice");
    assert_eq!(clock.counts(), [3, 3, 0, 0, 0]);
}

#[test]
fn another_period_counts_from_the_last_beat_on() {
    let mut clock = Clock::new();
    clock.declare(&[("rank", 10)], Overlap::Skip);
    assert_eq!(clock.run(10), "rank 1@10");
    clock.now = 12;
    clock.declare(&[("rank", 30)], Overlap::Skip);
    assert_eq!((clock.run(39), clock.run(40)), (String::new(), "rank 2@40".to_owned()));
    // Shorter than what has gone by: the first moment of the new grid that isn't over, and no burst.
    clock.now = 65;
    clock.declare(&[("rank", 10)], Overlap::Skip);
    assert_eq!((clock.run(69), clock.run(70), clock.run(80)), (String::new(), "rank 3@70".to_owned(), "rank 4@80".to_owned()));
    // Right on a moment of the new grid: now.
    clock.now = 85;
    clock.declare(&[("rank", 5)], Overlap::Skip);
    assert_eq!(clock.run(85), "rank 5@85");
}

#[test]
fn a_removed_job_ends_and_one_of_its_name_begins_anew() {
    let mut clock = Clock::new();
    clock.declare(&[("rank", 10), ("mail", 4)], Overlap::Queue);
    assert_eq!(clock.run(4), "mail 1@4");
    let runs = clock.beats(8).remove(0);
    assert_eq!(clock.shown(12), "rank 1@10", "the third of mail waits");
    clock.declare(&[("rank", 10)], Overlap::Queue);
    clock.schedule.drop_all("shop", &[]);
    assert_eq!(clock.end(&runs, false), None, "what waited is gone with it");
    clock.declare(&[("rank", 10), ("mail", 4)], Overlap::Queue);
    let again = clock.beats(16).remove(0);
    assert_eq!((again.job.as_str(), again.number), ("mail", 1));
    assert_eq!(clock.end(&runs, true), None, "that was of the job before");
    assert_eq!(clock.counts(), [1, 1, 0, 0, 1]);
    assert!(clock.schedule.list(clock.at(16)).iter().all(|job| job.plugin == "shop"));
}

#[test]
fn a_removed_job_that_comes_back_has_its_beats_again_but_for_those_meanwhile() {
    let mut clock = Clock::new();
    clock.declare(&[("rank", 10), ("mail", 4)], Overlap::Queue);
    assert_eq!((clock.run(4), clock.run(10)), ("mail 1@4".to_owned(), "mail 2@8, rank 1@10".to_owned()));
    let runs = clock.beats(12).remove(0);
    assert_eq!(clock.shown(16), "", "the fourth of mail waits");
    // Code on trial that doesn't have it, and it isn't committed: another plugin's commit changes nothing.
    clock.declare(&[("rank", 10)], Overlap::Queue);
    clock.schedule.drop_all("mail", &[]);
    assert_eq!((clock.end(&runs, false), clock.run(19)), (None, String::new()), "what waited is left out, and no beat is due");
    assert_eq!(clock.schedule.next(), Some(clock.at(20)));
    assert_eq!(clock.schedule.list(clock.at(19)).len(), 1);
    clock
        .schedule
        .drop_all("shop", &[Declared { name: "mail".to_owned(), period: Duration::from_secs(4), overlap: Overlap::Queue }]);
    assert_eq!(clock.run(21), "rank 2@20");
    clock.declare(&[("rank", 10), ("mail", 4)], Overlap::Queue);
    assert_eq!((clock.run(23), clock.run(24)), (String::new(), "mail 5@24".to_owned()));
    assert_eq!(clock.counts(), [5, 4, 1, 0, 0], "of mail");
}

#[test]
fn a_beat_that_is_due_while_another_runs_is_left_out_or_waits_or_runs_beside() {
    let mut clock = Clock::new();
    clock.declare(&[("rank", 10)], Overlap::Skip);
    let first = clock.beats(10).remove(0);
    assert_eq!((clock.shown(20), clock.shown(30)), (String::new(), String::new()));
    assert_eq!((clock.counts(), clock.end(&first, true)), ([3, 1, 2, 0, 1], None));
    assert_eq!((clock.run(40), clock.counts()), ("rank 4@40".to_owned(), [4, 2, 2, 1, 0]));

    let mut clock = Clock::new();
    clock.declare(&[("rank", 10)], Overlap::Queue);
    let first = clock.beats(10).remove(0);
    assert_eq!((clock.shown(20), clock.shown(30)), (String::new(), String::new()));
    assert_eq!((clock.counts(), clock.end(&first, false)), ([3, 1, 1, 0, 1], Some(2)));
    assert_eq!(clock.counts(), [3, 2, 1, 0, 1]);

    let mut clock = Clock::new();
    clock.declare(&[("rank", 10)], Overlap::Parallel);
    let beats = [10, 20, 30].map(|now| clock.beats(now).remove(0));
    assert_eq!(clock.counts(), [3, 3, 0, 0, 3]);
    assert!(beats.iter().all(|beat| clock.end(beat, false).is_none()));
    assert_eq!(clock.counts(), [3, 3, 0, 0, 0]);
}

#[test]
fn a_clock_that_was_held_up_makes_up_for_some_and_counts_the_rest() {
    let mut clock = Clock::new();
    clock.declare(&[("rank", 10)], Overlap::Parallel);
    assert_eq!(clock.shown(35), "rank 1@10, rank 2@20, rank 3@30");
    let late = clock.beats(100_000);
    let numbers = (late.first().map(|beat| beat.number), late.last().map(|beat| beat.number));
    assert_eq!((late.len(), numbers), (1_000, (Some(9_001), Some(10_000))));
    assert_eq!(clock.counts(), [10_000, 1_003, 8_997, 0, 1_003]);
    assert_eq!(clock.schedule.next(), Some(clock.at(100_010)));
}

#[test]
fn a_beat_for_which_no_code_is_there_counts_as_left_out() {
    let mut clock = Clock::new();
    clock.declare(&[("rank", 10)], Overlap::Skip);
    let beat = clock.beats(10).remove(0);
    assert_eq!(clock.schedule.ended(&beat, End::Gone), None);
    assert_eq!(clock.counts(), [1, 0, 1, 0, 0]);
}

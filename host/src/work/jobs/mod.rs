//! Which job is due, and what becomes of a beat?
//!
//! A job belongs to a plugin and a name, not to a generation: its beats lie on a grid that starts when it is first seen and that no swap
//! moves. The schedule is told what time it is. A thread beside it, which runs no plugin code, has each beat admitted when it is due, as a
//! request would be; it runs where all work beside requests does.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use midair_abi::{Handler, meta};
use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use crate::call::invocation::{Call, parts};
use crate::live::generation::Generation;
use crate::live::resident::{Plan, Resident};
use crate::live::slot::Slot;
use crate::mutation::{self, Bug};
use crate::plugin::exports::{Calls, HandlerInfo};
use crate::resources::tasks::Tasks;

/// What becomes of a beat that is due while an earlier one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out.
    Skip,
    /// It runs right after; one may wait.
    Queue,
    /// It runs beside it.
    Parallel,
}

/// A job.
#[derive(Clone, Debug, Serialize)]
pub struct JobStatus {
    /// The plugin.
    pub plugin: String,
    /// Its name.
    pub job: String,
    /// Microseconds between two beats.
    pub period_us: u64,
    /// What becomes of a beat that is due while an earlier one runs.
    pub overlap: Overlap,
    /// How often it was due.
    pub due: u64,
    /// How often it was begun.
    pub beats: u64,
    /// Beats that were left out, since an earlier one ran or no code had the job.
    pub skipped: u64,
    /// Beats that failed.
    pub failed: u64,
    /// Beats that run.
    pub running: u64,
    /// How many microseconds the last one took that ended.
    pub last_us: Option<u64>,
    /// Microseconds until the next one is due.
    pub next_us: u64,
}

/// A job as a plugin declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Declared {
    name: String,
    period: Duration,
    overlap: Overlap,
}

impl Declared {
    /// The job that a handler is; `None` for other handlers.
    fn of(handler: &HandlerInfo) -> Option<Self> {
        if handler.calls != Calls::Beats {
            return None;
        }
        let overlap = match handler.said(meta::OVERLAP) {
            meta::QUEUE => Overlap::Queue,
            meta::PARALLEL => Overlap::Parallel,
            _ => Overlap::Skip,
        };
        // Whatever has no period was refused when the plugin was built.
        let period = Duration::from_nanos(handler.number(meta::PERIOD).filter(|period| *period > 0)?);
        Some(Self { name: handler.name.clone(), period, overlap })
    }
}

/// A beat that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Beat {
    plugin: String,
    job: String,
    /// Tells a job from one of the same name that was there before it.
    id: u64,
    number: u64,
    at: Instant,
}

/// How a beat ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// No code had the job when it was to begin.
    Gone,
    Ended {
        failed: bool,
        took: Duration,
    },
}

struct Job {
    id: u64,
    /// Whether the code that serves doesn't have it, and the one before, which may come back, does: it has no beats then.
    is_kept: bool,
    period: Duration,
    overlap: Overlap,
    /// The last beat's moment, or that at which the job was first seen.
    last: Instant,
    next: Instant,
    due: u64,
    begun: u64,
    skipped: u64,
    failed: u64,
    running: u64,
    waiting: Option<Beat>,
    took: Option<Duration>,
}

/// So many beats are made up for when the clock itself was held up; older ones are left out.
const MADE_UP: u64 = 1_000;

/// All jobs, by plugin and name.
#[derive(Default)]
struct Schedule {
    jobs: BTreeMap<(String, String), Job>,
    ids: u64,
}

impl Schedule {
    /// These are the plugin's jobs from now on. One that is there already keeps its beats; with another period its next one is a whole number
    /// of new periods after the last, the first of these that isn't over. Others have no beats any more, and stay until they are
    /// [dropped](Self::drop_all).
    fn declare(&mut self, plugin: &str, plans: &[Declared], now: Instant) {
        let has = |name: &str| plans.iter().any(|plan| plan.name == name) || mutation::is(Bug::RemovedJobGoesOn);
        self.jobs.retain(|(of, _), _| of != plugin || !mutation::is(Bug::JobsBegunAnew));
        let jobs = self.jobs.iter_mut().filter(|((of, name), _)| of == plugin && !has(name));
        for (_, job) in jobs {
            job.is_kept = true;
            job.give_up();
        }
        for Declared { name, period, overlap } in plans {
            let (period, overlap) = (*period, *overlap);
            self.ids += 1;
            let id = self.ids;
            let fresh = || Job {
                id,
                is_kept: false,
                period,
                overlap,
                last: now,
                next: now + period,
                due: 0,
                begun: 0,
                skipped: 0,
                failed: 0,
                running: 0,
                waiting: None,
                took: None,
            };
            let job = self.jobs.entry((plugin.to_owned(), name.clone())).or_insert_with(fresh);
            job.overlap = overlap;
            if std::mem::take(&mut job.is_kept) && job.next < now {
                // What would have been due meanwhile was nobody's.
                job.next = after(job.next, job.period, periods(now - job.next, job.period) + 1);
            }
            if mutation::is(Bug::WaitingBeatLost) {
                job.waiting = None;
            }
            if mutation::is(Bug::BeatRestarts) {
                job.next = now + period;
            }
            if job.period != period {
                job.period = period;
                let since = now.saturating_duration_since(job.last);
                job.next = after(job.last, period, periods(since, period).max(1));
                if job.next < now {
                    job.next += period;
                }
            }
        }
    }

    /// The plugin's jobs that the code that serves doesn't have go, but for these.
    fn drop_all(&mut self, plugin: &str, but: &[Declared]) {
        let stays = |name: &str| but.iter().any(|plan| plan.name == name);
        self.jobs.retain(|(of, name), job| of != plugin || !job.is_kept || stays(name));
    }

    /// When something is due next.
    fn next(&self) -> Option<Instant> {
        self.jobs.values().filter(|job| !job.is_kept).map(|job| job.next).min()
    }

    /// The beats to begin now. What is due and isn't among them waits or was left out.
    fn due(&mut self, now: Instant) -> Vec<Beat> {
        let mut begins = Vec::new();
        for ((plugin, name), job) in self.jobs.iter_mut().filter(|(_, job)| !job.is_kept) {
            let late = now.checked_duration_since(job.next).map_or(0, |late| periods(late, job.period) + 1);
            let lost = late.saturating_sub(MADE_UP);
            job.due += lost;
            job.skipped += lost;
            job.next = after(job.next, job.period, lost);
            while job.next <= now {
                job.due += 1;
                job.last = job.next;
                job.next += job.period;
                let beat = Beat { plugin: plugin.clone(), job: name.clone(), id: job.id, number: job.due, at: job.last };
                begins.extend(job.meet(beat));
            }
        }
        begins
    }

    /// A beat ended; the one that waited for that.
    fn ended(&mut self, beat: &Beat, end: End) -> Option<Beat> {
        let job = self.jobs.get_mut(&(beat.plugin.clone(), beat.job.clone())).filter(|job| job.id == beat.id)?;
        job.running = job.running.saturating_sub(1);
        match end {
            End::Gone => {
                job.begun = job.begun.saturating_sub(1);
                job.skipped += 1;
            }
            End::Ended { failed, took } => {
                job.failed += u64::from(failed);
                job.took = Some(took);
            }
        }
        let next = job.waiting.take()?;
        Some(job.begin(next))
    }

    /// Leaves out what waits.
    fn give_up(&mut self) {
        self.jobs.values_mut().for_each(Job::give_up);
    }

    fn list(&self, now: Instant) -> Vec<JobStatus> {
        let of = |((plugin, name), job): (&(String, String), &Job)| JobStatus {
            plugin: plugin.clone(),
            job: name.clone(),
            period_us: micros(job.period),
            overlap: job.overlap,
            due: job.due,
            beats: job.begun,
            skipped: job.skipped,
            failed: job.failed,
            running: job.running,
            last_us: job.took.map(micros),
            next_us: micros(job.next.saturating_duration_since(now)),
        };
        self.jobs.iter().filter(|(_, job)| !job.is_kept).map(of).collect()
    }
}

impl Job {
    /// What becomes of a beat that is due: it begins, or it doesn't.
    fn meet(&mut self, beat: Beat) -> Option<Beat> {
        match self.overlap {
            Overlap::Parallel => {}
            Overlap::Queue if self.running > 0 && self.waiting.is_none() && !mutation::is(Bug::QueueSkips) => {
                self.waiting = Some(beat);
                return None;
            }
            Overlap::Skip | Overlap::Queue if self.running > 0 => {
                self.skipped += 1;
                return None;
            }
            Overlap::Skip | Overlap::Queue => {}
        }
        Some(self.begin(beat))
    }

    /// Leaves out what waits.
    fn give_up(&mut self) {
        self.skipped += u64::from(self.waiting.take().is_some());
    }

    fn begin(&mut self, beat: Beat) -> Beat {
        self.begun += 1;
        self.running += 1;
        beat
    }
}

/// How many whole periods there are in a time.
fn periods(time: Duration, period: Duration) -> u64 {
    u64::try_from(time.as_nanos() / period.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn after(from: Instant, period: Duration, times: u64) -> Instant {
    let nanoseconds = period.as_nanos().saturating_mul(times.into());
    from + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// All jobs of a host, and their clock.
pub(crate) struct Jobs {
    plan: Mutex<Kept>,
    changed: Condvar,
    slot: Arc<Slot>,
    tasks: Arc<Tasks>,
}

#[derive(Default)]
struct Kept {
    schedule: Schedule,
    is_over: bool,
}

impl Jobs {
    /// No jobs yet, and a thread that keeps their time until [`stop`](Self::stop).
    ///
    /// # Errors
    ///
    /// If the thread can't be started.
    pub(crate) fn start(slot: Arc<Slot>, tasks: Arc<Tasks>) -> io::Result<Arc<Self>> {
        let jobs = Arc::new(Self { plan: Mutex::default(), changed: Condvar::new(), slot, tasks });
        let clock = Arc::clone(&jobs);
        std::thread::Builder::new().name("midair-jobs".to_owned()).spawn(move || clock.keep_time())?;
        Ok(jobs)
    }

    /// A generation serves from now on, with its jobs and no others of its plugin. Those that it doesn't have are kept.
    fn declare(&self, generation: &Generation) {
        self.plan.lock().schedule.declare(generation.plugin(), &plans(generation), Instant::now());
        self.changed.notify_one();
    }

    /// What is kept of a plugin's jobs goes, but for those that this code has.
    fn drop_all(&self, plugin: &str, but: Option<&Generation>) {
        let but = but.map(plans).unwrap_or_default();
        self.plan.lock().schedule.drop_all(plugin, &but);
    }

    /// No beat begins any more, nor does one that waits. What runs goes on.
    pub(crate) fn stop(&self) {
        let mut plan = self.plan.lock();
        plan.is_over = true;
        plan.schedule.give_up();
        drop(plan);
        self.changed.notify_one();
    }

    /// All jobs, by plugin and name.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<JobStatus> {
        self.plan.lock().schedule.list(Instant::now())
    }

    /// How many beats run.
    #[must_use]
    pub(crate) fn running(&self) -> u64 {
        self.plan.lock().schedule.jobs.values().map(|job| job.running).sum()
    }

    fn keep_time(self: Arc<Self>) {
        loop {
            let mut plan = self.plan.lock();
            let due = loop {
                if plan.is_over {
                    return;
                }
                let due = plan.schedule.due(Instant::now());
                if !due.is_empty() {
                    break due;
                }
                match plan.schedule.next() {
                    Some(next) => drop(self.changed.wait_until(&mut plan, next)),
                    None => self.changed.wait(&mut plan),
                }
            };
            drop(plan);
            due.into_iter().for_each(|beat| self.begin(beat));
        }
    }

    /// Has a beat admitted to what serves now, and runs it elsewhere.
    fn begin(self: &Arc<Self>, beat: Beat) {
        let Some(call) = Call::admit_work(&self.slot, &beat.plugin, Calls::Beats, &beat.job) else {
            return self.ended(&beat, End::Gone);
        };
        let due = SystemTime::now().checked_sub(beat.at.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let due_us = micros(due.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let params = vec![(Handler::BEAT.to_owned(), beat.number.to_string()), (Handler::DUE.to_owned(), due_us.to_string())];
        let parts = parts(params, Bytes::new());
        let works = call.work(format!("a beat of {}", beat.job), parts);
        let mut run = Run { jobs: Arc::clone(self), beat, failed: true, took: Duration::ZERO };
        self.tasks.run(async move {
            let (went_well, took) = works.await;
            (run.failed, run.took) = (!went_well, took);
            drop(run);
        });
    }

    fn ended(self: &Arc<Self>, beat: &Beat, end: End) {
        // Its own statement, as what waited may need the lock in its turn.
        let next = self.plan.lock().schedule.ended(beat, end);
        next.into_iter().for_each(|next| self.begin(next));
    }
}

impl Resident for Jobs {
    fn serving(&self, plan: &Plan) {
        for generation in plan.entering() {
            self.declare(generation);
            self.drop_all(generation.plugin(), generation.before().as_deref());
        }
    }

    fn settled(&self, generation: &Arc<Generation>) {
        self.drop_all(generation.plugin(), Some(generation));
    }

    fn shutdown(&self, live: &[Arc<Generation>]) {
        self.stop();
        live.iter().for_each(|generation| self.drop_all(generation.plugin(), None));
    }
}

fn plans(generation: &Generation) -> Vec<Declared> {
    generation.handlers().iter().filter_map(Declared::of).collect()
}

/// A beat that runs. However that ends, the schedule hears of it.
struct Run {
    jobs: Arc<Jobs>,
    beat: Beat,
    failed: bool,
    took: Duration,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.jobs.ended(&self.beat, End::Ended { failed: self.failed, took: self.took });
    }
}

#[cfg(test)]
mod tests;

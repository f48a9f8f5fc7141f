//! What runs beside requests?
//!
//! Work of plugins that no request waits for, and the host's own that may run plugin code. It is polled on threads that do nothing else:
//! one that never awaits holds one of them, and no request. While other work waits, further threads stand in for those that are held, up to
//! a bound. The threads start with the first work. Whoever hands in a future puts into it what its code needs to stay; it is dropped on
//! these threads, whether it ended or was cancelled. `crew` has the threads; `reach` sees to the end of calls that the host makes by itself.

mod about;
mod crew;
mod reach;
#[cfg(all(test, not(midair_loom)))]
mod tests;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_task::Task;
use parking_lot::Mutex;

pub(crate) use self::about::About;
use self::crew::{LONG, Ready, Relief};
pub(crate) use self::reach::Ran;
use self::reach::{Calls, Reach, Reached};

/// Work that isn't over.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// Its number.
    pub id: u64,
    /// What it is.
    pub about: About,
    /// Microseconds since it was handed in.
    pub age_us: u64,
    /// Microseconds for which it has been running without a pause; 0 if it waits.
    pub busy_us: u64,
}

struct Entry {
    about: About,
    since: Instant,
    /// Nanoseconds from `since` to the poll that goes on, 0 if none does.
    polled: Arc<AtomicU64>,
    /// None once it was cancelled: it stays on the list until its future is gone, which one that never pauses keeps from happening.
    task: Option<Task<()>>,
}

/// So many that hold a thread are named.
const NAMED: usize = 5;

/// All work of a host that goes on beside requests.
pub(crate) struct Tasks {
    ready: Ready,
    started: OnceLock<bool>,
    tell: OnceLock<Box<dyn Fn(String) + Send + Sync>>,
    entries: Mutex<BTreeMap<u64, Entry>>,
    calls: Arc<Calls>,
    next: AtomicU64,
}

impl Tasks {
    /// None yet, and no thread.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        let ready = Ready::new();
        let (started, tell) = (OnceLock::new(), OnceLock::new());
        let (entries, calls) = (Mutex::default(), Arc::default());
        Arc::new(Self { ready, started, tell, entries, calls, next: AtomicU64::new(1) })
    }

    /// Whom to tell of threads that are held. Set once.
    pub(crate) fn tell_to(&self, tell: impl Fn(String) + Send + Sync + 'static) {
        let _ = self.tell.set(Box::new(tell));
    }

    /// Begins to poll `future`; its number, or 0 if no thread can be had for it: then it was dropped here.
    pub(crate) fn spawn(self: &Arc<Self>, about: About, future: impl Future<Output = ()> + Send + 'static) -> u64 {
        if !self.has_threads() {
            return 0;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (since, polled) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let work =
            Watched { future: Box::pin(future), since, polled: Arc::clone(&polled), _end: End { tasks: Arc::clone(self), id } };
        let ready = self.ready.clone();
        let (runnable, task) = async_task::spawn(work, move |runnable| ready.put(runnable));
        self.entries.lock().insert(id, Entry { about, since, polled, task: Some(task) });
        runnable.schedule();
        id
    }

    /// Runs something short of the host's own that may end in plugin code, such as a waker.
    pub(crate) fn run(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        if self.has_threads() {
            let ready = self.ready.clone();
            let (runnable, task) = async_task::spawn(future, move |runnable| ready.put(runnable));
            task.detach();
            runnable.schedule();
        }
    }

    /// Runs a call that the host makes by itself, whose future says whether it failed; how it ended and what time it took. It is on no list
    /// but that of [`calls_of`](Self::calls_of).
    pub(crate) fn call<F>(self: &Arc<Self>, about: About, future: F) -> impl Future<Output = (Ran, Duration)> + Send + use<F>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let (id, reach) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(Reach::default()));
        self.calls.lock().insert(id, (about, Arc::clone(&reach)));
        let reached = Reached::new(future, Arc::clone(&self.calls), id, Arc::clone(&reach));
        if !self.has_threads() {
            reach.tell(Ran::GivenUp);
        }
        self.run(reached);
        reach.ended()
    }

    /// The calls of a generation that [`call`](Self::call) runs: their numbers and names.
    #[must_use]
    pub(crate) fn calls_of(&self, generation: u64) -> Vec<(u64, String)> {
        let calls = self.calls.lock();
        let of = calls.iter().filter(|(_, (about, _))| about.generation == generation);
        of.map(|(id, (about, _))| (*id, about.name.clone())).collect()
    }

    /// Has a call dropped by one of the threads, as soon as it pauses. One that is over is none.
    pub(crate) fn give_up(&self, id: u64) {
        let reach = self.calls.lock().get(&id).map(|(_, reach)| Arc::clone(reach));
        reach.into_iter().for_each(|reach| reach.give_up());
    }

    /// Whoever waits for a call waits no longer, though it goes on.
    pub(crate) fn let_go(&self, id: u64) {
        let reach = self.calls.lock().remove(&id);
        reach.into_iter().for_each(|(_, reach)| reach.tell(Ran::GivenUp));
    }

    /// Has work dropped by one of the threads, as soon as one is free. Work that is over is none.
    pub(crate) fn cancel(&self, id: u64) {
        let task = self.entries.lock().get_mut(&id).and_then(|entry| entry.task.take());
        // Dropping the handle cancels: what the future owns goes where it is polled, and its entry after it.
        drop(task);
    }

    /// The work of a generation that isn't over.
    #[must_use]
    pub(crate) fn of(&self, generation: u64) -> Vec<Running> {
        self.list().into_iter().filter(|running| running.about.generation == generation).collect()
    }

    /// The number of what was handed in last; 0 if nothing was.
    #[must_use]
    pub(crate) fn newest(&self) -> u64 {
        self.next.load(Ordering::Relaxed) - 1
    }

    /// How much of it the end of the host waits for.
    #[must_use]
    pub(crate) fn awaited(&self) -> usize {
        self.entries.lock().values().filter(|entry| entry.about.is_awaited()).count()
    }

    /// All work that isn't over, the oldest first.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<Running> {
        let micros = |nanoseconds: u128| u64::try_from(nanoseconds / 1_000).unwrap_or(u64::MAX);
        let of = |(id, entry): (&u64, &Entry)| {
            let age = entry.since.elapsed().as_nanos();
            let polled = u128::from(entry.polled.load(Ordering::Relaxed));
            let busy_us = if polled == 0 { 0 } else { micros(age.saturating_sub(polled)) };
            Running { id: *id, about: entry.about.clone(), age_us: micros(age), busy_us }
        };
        self.entries.lock().iter().map(of).collect()
    }

    fn has_threads(self: &Arc<Self>) -> bool {
        *self.started.get_or_init(|| {
            let tasks = Arc::downgrade(self);
            self.ready.crew.begin(move || tasks.upgrade().map(|tasks| tasks.relieve()))
        })
    }

    /// Has threads stand in for those that are held, if work waits; whether any does.
    fn relieve(&self) -> bool {
        let Some(relief) = self.ready.crew.relieve() else { return false };
        if let (Some(tell), Some(relief)) = (self.tell.get(), relief) {
            tell(self.words(relief));
        }
        true
    }

    fn words(&self, Relief { held, all }: Relief) -> String {
        // A thread is held a little longer than its work is polled.
        let holds = self.list().into_iter().filter(|work| Duration::from_micros(work.busy_us) >= LONG - LONG / 10);
        let mut holders: Vec<String> =
            holds.map(|Running { about: About { plugin, number, name, .. }, .. }| format!("{plugin}={number} {name}")).collect();
        let more = holders.len().saturating_sub(NAMED);
        holders.truncate(NAMED);
        if more > 0 {
            holders.push(format!("{more} more"));
        }
        // What is no task, such as a beat of a job, is a call in flight.
        let holders = if holders.is_empty() { "midair status shows the calls".to_owned() } else { holders.join(", ") };
        if held == all {
            format!("all {all} threads for work beside requests are held without a pause, other such work waits: {holders}")
        } else {
            format!("{held} threads for work beside requests are held without a pause, others stand in for them: {holders}")
        }
    }
}

/// Work with a note of when it is polled.
struct Watched<F> {
    // Dropped first: its entry goes when its code was left.
    future: Pin<Box<F>>,
    since: Instant,
    polled: Arc<AtomicU64>,
    _end: End,
}

/// Takes the work off the list, however it ended.
struct End {
    tasks: Arc<Tasks>,
    id: u64,
}

impl Drop for End {
    fn drop(&mut self) {
        let entry = self.tasks.entries.lock().remove(&self.id);
        entry.and_then(|entry| entry.task).into_iter().for_each(Task::detach);
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.polled.store(now.max(1), Ordering::Relaxed);
        let polled = self.future.as_mut().poll(context);
        self.polled.store(0, Ordering::Relaxed);
        polled
    }
}

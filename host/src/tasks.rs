//! What runs beside requests?
//!
//! Work of plugins that no request waits for, and the host's own that may run plugin code. It is polled on threads that do nothing else:
//! one that never awaits holds one of them, and no request. The threads start with the first work. Whoever hands in a future puts into it
//! what its code needs to stay; it is dropped on these threads, whether it ended or was cancelled.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use async_task::{Runnable, Task};
use event_listener::Event;
use parking_lot::Mutex;

use crate::{census, logs};

/// Whose work it is and what it is called.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Its generation, by key.
    pub generation: u64,
    /// The plugin.
    pub plugin: String,
    /// The generation's number.
    pub number: u64,
    /// Its name, or where it was spawned.
    pub name: String,
    /// Whether it may be dropped when its generation was replaced.
    pub until_retire: bool,
}

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

/// All work of a host that goes on beside requests.
pub(crate) struct Tasks {
    ready: Sender<Runnable>,
    queue: Arc<Mutex<Receiver<Runnable>>>,
    started: OnceLock<usize>,
    entries: Mutex<BTreeMap<u64, Entry>>,
    next: AtomicU64,
}

impl Tasks {
    /// None yet, and no thread.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        let (ready, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        Arc::new(Self { ready, queue, started: OnceLock::new(), entries: Mutex::default(), next: AtomicU64::new(1) })
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
        // Whoever can't send has outlived the host.
        let (runnable, task) = async_task::spawn(work, move |runnable| drop(ready.send(runnable)));
        self.entries.lock().insert(id, Entry { about, since, polled, task: Some(task) });
        runnable.schedule();
        id
    }

    /// Runs something short of the host's own that may end in plugin code, such as a waker.
    pub(crate) fn run(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        if self.has_threads() {
            let ready = self.ready.clone();
            let (runnable, task) = async_task::spawn(future, move |runnable| drop(ready.send(runnable)));
            task.detach();
            runnable.schedule();
        }
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

    fn has_threads(&self) -> bool {
        let start = || {
            let count = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
            let one = |_: &usize| {
                let queue = Arc::clone(&self.queue);
                std::thread::Builder::new().name("midair-task".to_owned()).spawn(move || work(&queue)).is_ok()
            };
            (0..count).filter(one).count()
        };
        *self.started.get_or_init(start) > 0
    }
}

/// One thread's work, until the host is gone.
fn work(queue: &Mutex<Receiver<Runnable>>) {
    loop {
        // One thread waits with the lock, the others wait for the lock: each runs what it got without it.
        let next = queue.lock().recv();
        let Ok(runnable) = next else { return };
        // Between two pieces of work no plugin's frame is on this stack.
        census::visit();
        logs::visit();
        // Plugins' panics are values by now; a fault of the host's own ends that work and no more.
        let _ = catch_unwind(AssertUnwindSafe(|| runnable.run()));
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

/// Something that happens once and is waited for.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    ring: Event,
}

impl Bell {
    /// It has happened. Wakes whoever waits, on this thread: where that may be plugin code, ring on one of the [`Tasks`]' threads.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.ring.notify(usize::MAX);
    }

    /// Done once it has happened.
    pub(crate) async fn rung(self: Arc<Self>) {
        while !self.rung.load(Ordering::SeqCst) {
            let listener = self.ring.listen();
            if self.rung.load(Ordering::SeqCst) {
                break;
            }
            listener.await;
        }
    }
}

#[cfg(all(test, not(midair_loom)))]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn about(name: &str) -> About {
        About { generation: 7, plugin: "shop".to_owned(), number: 1, name: name.to_owned(), until_retire: false }
    }

    fn has_none(tasks: &Tasks) -> bool {
        let until = Instant::now() + PATIENCE;
        while !tasks.list().is_empty() && Instant::now() < until {
            std::thread::yield_now();
        }
        tasks.list().is_empty()
    }

    #[test]
    fn work_is_listed_until_it_is_done() {
        let (tasks, bell, (done, is_done)) = (Tasks::new(), Arc::new(Bell::default()), sync_channel(1));
        let waits = Arc::clone(&bell);
        let id = tasks.spawn(about("waits"), async move {
            waits.rung().await;
            done.send(std::thread::current().name().map(str::to_owned)).expect("somebody waits");
        });
        assert_eq!(
            tasks.of(7).iter().map(|running| (running.id, running.about.name.as_str())).collect::<Vec<_>>(),
            [(id, "waits")]
        );
        bell.ring();
        assert_eq!(is_done.recv_timeout(PATIENCE).expect("it is done").as_deref(), Some("midair-task"));
        assert!(has_none(&tasks));
    }

    #[test]
    fn what_is_cancelled_is_dropped_on_a_thread_for_work() {
        struct Says(std::sync::mpsc::SyncSender<Option<String>>);
        impl Drop for Says {
            fn drop(&mut self) {
                self.0.send(std::thread::current().name().map(str::to_owned)).expect("somebody waits");
            }
        }
        let (tasks, (gone, is_gone)) = (Tasks::new(), sync_channel(1));
        let says = Says(gone);
        let id = tasks.spawn(about("never"), async move {
            let _says = says;
            std::future::pending::<()>().await;
        });
        tasks.cancel(id);
        assert_eq!(is_gone.recv_timeout(PATIENCE).expect("it is dropped").as_deref(), Some("midair-task"));
        assert!(has_none(&tasks));
        tasks.cancel(id);
    }

    #[test]
    fn what_is_cancelled_and_does_not_pause_stays_on_the_list() {
        let (tasks, (begun, has_begun), (end, ends)) = (Tasks::new(), sync_channel(1), sync_channel::<()>(1));
        let id = tasks.spawn(about("spins"), async move {
            begun.send(()).expect("somebody waits");
            // Held in the midst of a poll.
            let _ = ends.recv();
        });
        has_begun.recv_timeout(PATIENCE).expect("it begins");
        tasks.cancel(id);
        let listed = tasks.list();
        assert_eq!(listed.iter().map(|running| (running.id, running.busy_us > 0)).collect::<Vec<_>>(), [(id, true)]);
        end.send(()).expect("it waits");
        assert!(has_none(&tasks));
    }

    #[test]
    fn a_fault_in_one_piece_of_work_leaves_the_threads_to_the_others() {
        let tasks = Tasks::new();
        for _ in 0..8 {
            tasks.spawn(about("broken"), async { panic!("on purpose") });
        }
        let (done, is_done) = sync_channel(1);
        tasks.run(async move { done.send(()).expect("somebody waits") });
        is_done.recv_timeout(PATIENCE).expect("it still works");
        assert!(has_none(&tasks));
    }
}

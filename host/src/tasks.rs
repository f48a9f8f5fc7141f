//! What runs beside requests?
//!
//! Work of plugins that no request waits for, and the host's own that may run plugin code. It is polled on threads that do nothing else:
//! one that never awaits holds one of them, and no request. While other work waits, further threads stand in for those that are held, up to
//! a bound. The threads start with the first work. Whoever hands in a future puts into it what its code needs to stay; it is dropped on
//! these threads, whether it ended or was cancelled.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

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
    /// Whether it asked to be told when its generation is to end, if it belongs to no request.
    pub heeds: Option<Arc<AtomicBool>>,
}

impl About {
    /// Whether the end of the host waits for it: not for what may be dropped and doesn't even ask when.
    fn is_awaited(&self) -> bool {
        !self.until_retire || self.heeds.as_ref().is_some_and(|heeds| heeds.load(Ordering::Relaxed))
    }
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

/// How long work may hold a thread before another one stands in for it, if there is something to do.
const LONG: Duration = Duration::from_secs(1);

/// The pause between two looks at threads that may be held.
const LOOK: Duration = Duration::from_millis(200);

/// So many times as many threads as at first there are at most.
const MOST: usize = 4;

/// So many that hold a thread are named.
const NAMED: usize = 5;

/// All work of a host that goes on beside requests.
pub(crate) struct Tasks {
    ready: Ready,
    started: OnceLock<bool>,
    tell: OnceLock<Box<dyn Fn(String) + Send + Sync>>,
    entries: Mutex<BTreeMap<u64, Entry>>,
    calls: Mutex<BTreeMap<u64, (About, Arc<Reach>)>>,
    next: AtomicU64,
}

/// How a call that the host makes by itself came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// Well.
    Well,
    /// Its handler failed.
    Badly,
    /// It was given up, or never ran.
    GivenUp,
    /// Nobody was left who could have woken it.
    Lost,
}

impl Ran {
    /// Whether it ended, and well.
    #[must_use]
    pub(crate) fn is_well(self) -> bool {
        self == Self::Well
    }

    /// Whether it was dropped since nobody could have woken it.
    #[must_use]
    pub(crate) fn is_lost(self) -> bool {
        self == Self::Lost
    }
}

impl Tasks {
    /// None yet, and no thread.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        let ready = Ready::new();
        let (started, tell) = (OnceLock::new(), OnceLock::new());
        let (entries, calls) = (Mutex::default(), Mutex::default());
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

    /// Runs a call that the host makes by itself, whose future says whether it failed; how it ended and what time it took. It is on no list but that of [`calls_of`].
    ///
    /// [`calls_of`]: Self::calls_of
    pub(crate) fn call<F>(self: &Arc<Self>, about: About, future: F) -> impl Future<Output = (Ran, Duration)> + Send + use<F>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let (id, reach) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(Reach::default()));
        self.calls.lock().insert(id, (about, Arc::clone(&reach)));
        let ended = CallEnd { tasks: Arc::clone(self), id, reach: Arc::clone(&reach) };
        if !self.has_threads() {
            reach.tell(Ran::GivenUp);
        }
        self.run(Reached { future: Some(Box::pin(future)), ended });
        async move {
            Arc::clone(&reach.told).rung().await;
            reach.ran.lock().unwrap_or((Ran::Lost, Duration::ZERO))
        }
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
            let (crew, tasks) = (&self.ready.crew, Arc::downgrade(self));
            let Some(rings) = crew.rings.lock().take() else { return false };
            let mut hands = crew.hands.lock();
            (0..crew.regular).for_each(|_| crew.start(&mut hands));
            // Without it nobody stands in for anybody.
            let watch = move || watch(&tasks, &rings);
            drop(std::thread::Builder::new().name("midair-relief".to_owned()).spawn(watch));
            !hands.threads.is_empty()
        })
    }

    /// Has threads stand in for those that are held, if work waits; whether any does.
    fn relieve(&self) -> bool {
        let crew = &self.ready.crew;
        let Some(relief) = crew.relieve() else { return false };
        let (Some(tell), Some((held, all))) = (self.tell.get(), relief) else { return true };
        let mut holders: Vec<String> = self
            .list()
            .into_iter()
            .filter(|work| Duration::from_micros(work.busy_us) >= LONG)
            .map(|work| {
                let About { plugin, number, name, .. } = &work.about;
                format!("{plugin}={number} {name}")
            })
            .collect();
        let more = holders.len().saturating_sub(NAMED);
        holders.truncate(NAMED);
        if more > 0 {
            holders.push(format!("{more} more"));
        }
        // What is no task, such as a beat of a job, is a call in flight.
        let holders = if holders.is_empty() { "midair status shows the calls".to_owned() } else { holders.join(", ") };
        tell(if held == all {
            format!("all {all} threads for work beside requests are held without a pause, other such work waits: {holders}")
        } else {
            format!("{held} threads for work beside requests are held without a pause, others stand in for them: {holders}")
        });
        true
    }
}

/// Where work goes that can go on.
#[derive(Clone)]
struct Ready {
    sender: Sender<Runnable>,
    crew: Arc<Crew>,
}

impl Ready {
    fn new() -> Self {
        let ((sender, queue), (bell, rings)) = (channel(), sync_channel(1));
        let crew = Crew {
            queue: Mutex::new(queue),
            waiting: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            regular: std::thread::available_parallelism().map_or(2, |count| count.get().max(2)),
            count: AtomicUsize::new(0),
            hands: Mutex::default(),
            bell,
            rings: Mutex::new(Some(rings)),
            since: Instant::now(),
        };
        Self { sender, crew: Arc::new(crew) }
    }

    fn put(&self, runnable: Runnable) {
        self.crew.waiting.fetch_add(1, Ordering::SeqCst);
        // The crew has the other end.
        let _ = self.sender.send(runnable);
        self.crew.look();
    }
}

/// The threads. They end when nobody is left who could hand in work: none of them holds the sender.
struct Crew {
    queue: Mutex<Receiver<Runnable>>,
    /// How much work no thread has taken yet.
    waiting: AtomicUsize,
    /// How many threads have nothing to do. This and `waiting` are changed first and looked at then, by who hands in work and by who takes
    /// some, and `SeqCst`: so one of both sees it when work is left and no thread for it.
    idle: AtomicUsize,
    /// How many threads there are if none is held.
    regular: usize,
    /// How many there are.
    count: AtomicUsize,
    hands: Mutex<Hands>,
    /// Rung when work waits and no thread is idle.
    bell: SyncSender<()>,
    /// Until the threads start.
    rings: Mutex<Option<Receiver<()>>>,
    since: Instant,
}

#[derive(Default)]
struct Hands {
    /// For each thread the nanoseconds from `since` to when it began what it does, 0 if it does nothing.
    threads: Vec<Arc<AtomicU64>>,
    /// Whether it was told that some are held, and that all are, since all were free.
    told: (bool, bool),
}

impl Crew {
    fn look(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 && self.idle.load(Ordering::SeqCst) == 0 {
            // Full is rung already.
            let _ = self.bell.try_send(());
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// How many threads are held.
    fn held(&self, hands: &Hands) -> usize {
        let (now, long) = (self.now(), u64::try_from(LONG.as_nanos()).unwrap_or(u64::MAX));
        let is_held = |since: u64| since > 0 && now.saturating_sub(since) >= long;
        hands.threads.iter().filter(|since| is_held(since.load(Ordering::Relaxed))).count()
    }

    /// Starts one thread, if it can be had.
    fn start(self: &Arc<Self>, hands: &mut Hands) {
        let (crew, since) = (Arc::clone(self), Arc::new(AtomicU64::new(0)));
        let mine = Arc::clone(&since);
        if std::thread::Builder::new().name("midair-task".to_owned()).spawn(move || crew.work(&mine)).is_ok() {
            hands.threads.push(since);
            self.count.store(hands.threads.len(), Ordering::Relaxed);
        }
    }

    /// Starts a thread for each that is held, if work waits: `None` if none does. How many are held, of how many, if that is to be told.
    fn relieve(self: &Arc<Self>) -> Option<Option<(usize, usize)>> {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut hands = self.hands.lock();
        let held = self.held(&hands);
        let wanted = (self.regular + held).min(self.regular * MOST);
        (hands.threads.len()..wanted).for_each(|_| self.start(&mut hands));
        let all = hands.threads.len();
        let tell = if held == all { &mut hands.told.1 } else { &mut hands.told.0 };
        Some((held > 0 && !std::mem::replace(tell, true)).then_some((held, all)))
    }

    /// Whether a thread that has nothing in hand is one too many, as none is held any more for which it stood in. It is none then.
    fn leaves(&self, mine: &Arc<AtomicU64>) -> bool {
        if self.count.load(Ordering::Relaxed) <= self.regular {
            return false;
        }
        let mut hands = self.hands.lock();
        if hands.threads.len() <= self.regular + self.held(&hands) {
            return false;
        }
        hands.threads.retain(|since| !Arc::ptr_eq(since, mine));
        self.count.store(hands.threads.len(), Ordering::Relaxed);
        if hands.threads.len() <= self.regular {
            hands.told = (false, false);
        }
        true
    }

    /// One thread's work, until the host is gone.
    fn work(&self, since: &Arc<AtomicU64>) {
        while !self.leaves(since) {
            self.idle.fetch_add(1, Ordering::SeqCst);
            // One thread waits with the lock, the others wait for the lock: each runs what it got without it.
            let next = self.queue.lock().recv();
            self.idle.fetch_sub(1, Ordering::SeqCst);
            let Ok(runnable) = next else { return };
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            self.look();
            // Between two pieces of work no plugin's frame is on this stack.
            census::visit();
            logs::visit();
            since.store(self.now(), Ordering::Relaxed);
            // Plugins' panics are values by now; a fault of the host's own ends that work and no more.
            let _ = catch_unwind(AssertUnwindSafe(|| runnable.run()));
            since.store(0, Ordering::Relaxed);
        }
    }
}

/// Looks for threads that are held, from a thread that runs no plugin code, as long as work waits.
fn watch(tasks: &Weak<Tasks>, rings: &Receiver<()>) {
    while rings.recv().is_ok() {
        loop {
            std::thread::sleep(LOOK);
            let Some(tasks) = tasks.upgrade() else { return };
            if !tasks.relieve() {
                break;
            }
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

/// How a call is reached by whoever gives it up, and what becomes of it.
#[derive(Default)]
struct Reach {
    is_given_up: AtomicBool,
    /// Whether it was woken since its poll began.
    is_woken: AtomicBool,
    wakes: Mutex<Weak<Wakes>>,
    began: OnceLock<Instant>,
    ran: Mutex<Option<(Ran, Duration)>>,
    told: Arc<Bell>,
}

impl Reach {
    fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
        // Its own statement, as the call that it wakes takes the lock. If there is nobody to wake it, it is being polled or dropped.
        let wakes = self.wakes.lock().upgrade();
        wakes.into_iter().for_each(|wakes| wakes.outer.wake_by_ref());
    }

    /// What is said first holds.
    fn tell(&self, ran: Ran) {
        let took = self.began.get().map(Instant::elapsed).unwrap_or_default();
        self.ran.lock().get_or_insert((ran, took));
        self.told.ring();
    }

    /// The waker for a poll. Whoever is to wake the call holds this, and `Reach` doesn't: so it shows when nobody can.
    fn waker(self: &Arc<Self>, waker: &Waker) -> Waker {
        let mut wakes = self.wakes.lock();
        let same = wakes.upgrade().filter(|wakes| wakes.outer.will_wake(waker));
        let same = same.unwrap_or_else(|| {
            let new = Arc::new(Wakes { outer: waker.clone(), reach: Arc::clone(self) });
            *wakes = Arc::downgrade(&new);
            new
        });
        same.into()
    }
}

struct Wakes {
    outer: Waker,
    reach: Arc<Reach>,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reach.is_woken.store(true, Ordering::SeqCst);
        self.outer.wake_by_ref();
    }
}

impl Drop for Wakes {
    /// Nobody can wake the call any more: it is polled once more, and then it shows whether it waits for anything.
    fn drop(&mut self) {
        self.outer.wake_by_ref();
    }
}

/// A call until it is over or given up.
struct Reached<F> {
    // Dropped first: that it is over is told when its code was left.
    future: Option<Pin<Box<F>>>,
    ended: CallEnd,
}

/// Tells how a call ended, however it did.
struct CallEnd {
    tasks: Arc<Tasks>,
    id: u64,
    reach: Arc<Reach>,
}

impl Drop for CallEnd {
    fn drop(&mut self) {
        self.tasks.calls.lock().remove(&self.id);
        // Unless it was told before, it was dropped where it waited.
        let was_given_up = self.reach.is_given_up.load(Ordering::SeqCst);
        self.reach.tell(if was_given_up { Ran::GivenUp } else { Ran::Lost });
    }
}

impl<F: Future<Output = bool>> Future for Reached<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let reach = &this.ended.reach;
        let waker = reach.waker(context.waker());
        // After the waker is known: whoever gives it up from here on wakes it.
        if reach.is_given_up.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        reach.began.get_or_init(Instant::now);
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        reach.is_woken.store(false, Ordering::SeqCst);
        let Poll::Ready(failed) = future.as_mut().poll(&mut Context::from_waker(&waker)) else {
            drop(waker);
            // Its own statement, as who drops the last of these must not have the lock. One that woke itself needs nobody else. What is
            // lost is dropped here: async-task forgets a future, undropped, whose last waker went while it was polled.
            let is_held = reach.wakes.lock().strong_count() > 0;
            let is_lost = !is_held && !reach.is_woken.load(Ordering::SeqCst);
            return if is_lost { Poll::Ready(()) } else { Poll::Pending };
        };
        // By its own code, before anybody hears of it.
        this.future = None;
        reach.tell(if failed { Ran::Badly } else { Ran::Well });
        Poll::Ready(())
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

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn about(name: &str) -> About {
        About { generation: 7, plugin: "shop".to_owned(), number: 1, name: name.to_owned(), until_retire: false, heeds: None }
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
        struct Says(SyncSender<Option<String>>);
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

    fn until(what: &str, fits: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !fits() {
            assert!(Instant::now() < until, "{what}");
            std::thread::yield_now();
        }
    }

    /// Has so many threads held at once, each until the sender is dropped, and what is told of them.
    fn hold(tasks: &Arc<Tasks>, count: usize) -> (SyncSender<()>, Receiver<String>) {
        let ((tell, told), (gate, opens)) = (channel(), sync_channel::<()>(0));
        tasks.tell_to(move |message| tell.send(message).expect("somebody listens"));
        let (opens, (began, begins)) = (Arc::new(Mutex::new(opens)), channel());
        for _ in 0..count {
            let (opens, began) = (Arc::clone(&opens), began.clone());
            tasks.spawn(about("held"), async move {
                began.send(()).expect("somebody waits");
                assert!(opens.lock().recv().is_err());
            });
        }
        (0..count).for_each(|_| begins.recv_timeout(PATIENCE).expect("it begins"));
        (gate, told)
    }

    #[test]
    fn others_stand_in_for_threads_that_are_held_and_leave_when_these_are_free() {
        let tasks = Tasks::new();
        let regular = tasks.ready.crew.regular;
        let (gate, told) = hold(&tasks, regular);
        for _ in 0..3 {
            let (done, is_done) = sync_channel(1);
            tasks.run(async move { done.send(()).expect("somebody waits") });
            is_done.recv_timeout(PATIENCE).expect("another thread has it");
        }
        let threads = || tasks.ready.crew.hands.lock().threads.len();
        assert_eq!(threads(), 2 * regular, "they stay, so that the next work needn't wait for them");
        drop(gate);
        until("the first threads alone", || threads() == regular);
        assert!(has_none(&tasks));
        let names = vec!["shop=1 held"; regular].join(", ");
        let expected =
            format!("{regular} threads for work beside requests are held without a pause, others stand in for them: {names}");
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [expected], "once");
        assert_eq!(tasks.ready.crew.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn so_many_threads_are_all_and_then_other_work_waits() {
        let tasks = Tasks::new();
        let most = tasks.ready.crew.regular * MOST;
        let (gate, told) = hold(&tasks, most);
        let (done, is_done) = sync_channel(1);
        tasks.run(async move { done.send(()).expect("somebody waits") });
        let all = format!("all {most} threads for work beside requests are held without a pause, other such work waits: ");
        until("that all are held", || told.try_iter().any(|message| message.starts_with(&all)));
        assert_eq!(tasks.ready.crew.hands.lock().threads.len(), most);
        assert!(is_done.try_recv().is_err());
        drop(gate);
        is_done.recv_timeout(PATIENCE).expect("its turn");
        assert!(has_none(&tasks));
    }
}

//! Which threads run the work, and who stands in for one that is held?

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use async_task::Runnable;
use parking_lot::Mutex;

use crate::resources::logs;
use crate::sys::native_resources;

/// How long work may hold a thread before another one stands in for it, if there is something to do.
pub(super) const LONG: Duration = Duration::from_secs(1);

/// The pause between two looks at threads that may be held.
const LOOK: Duration = Duration::from_millis(200);

/// So many times as many threads as at first there are at most.
pub(super) const MOST: usize = 4;

/// Where work goes that can go on.
#[derive(Clone)]
pub(super) struct Ready {
    sender: Sender<Runnable>,
    pub(super) crew: Arc<Crew>,
}

impl Ready {
    pub(super) fn new() -> Self {
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

    pub(super) fn put(&self, runnable: Runnable) {
        self.crew.waiting.fetch_add(1, Ordering::SeqCst);
        // The crew has the other end.
        let _ = self.sender.send(runnable);
        self.crew.look();
    }
}

/// The threads. They end when nobody is left who could hand in work: none of them holds the sender.
pub(super) struct Crew {
    queue: Mutex<Receiver<Runnable>>,
    /// How much work no thread has taken yet.
    pub(super) waiting: AtomicUsize,
    /// How many threads have nothing to do. This and `waiting` are changed first and looked at then, by who hands in work and by who takes
    /// some, and `SeqCst`: so one of both sees it when work is left and no thread for it.
    idle: AtomicUsize,
    /// How many threads there are if none is held.
    pub(super) regular: usize,
    /// How many there are.
    count: AtomicUsize,
    pub(super) hands: Mutex<Hands>,
    /// Rung when work waits and no thread is idle.
    bell: SyncSender<()>,
    /// Until the threads start.
    rings: Mutex<Option<Receiver<()>>>,
    since: Instant,
}

#[derive(Default)]
pub(super) struct Hands {
    /// For each thread the nanoseconds from `since` to when it began what it does, 0 if it does nothing.
    pub(super) threads: Vec<Arc<AtomicU64>>,
    /// Whether it was told that some are held, and that all are, since all were free.
    told: (bool, bool),
}

/// What is to be told: so many of all threads are held.
pub(super) struct Relief {
    pub(super) held: usize,
    pub(super) all: usize,
}

impl Crew {
    /// Starts the threads; whether there are any. `look` is called again and again while work waits and no thread is idle, from a thread that
    /// runs no plugin code: it says whether work still waits, or `None` at the end.
    pub(super) fn begin(self: &Arc<Self>, look: impl Fn() -> Option<bool> + Send + 'static) -> bool {
        let Some(rings) = self.rings.lock().take() else { return false };
        let mut hands = self.hands.lock();
        (0..self.regular).for_each(|_| self.start(&mut hands));
        // Without it nobody stands in for anybody.
        let watch = move || watch(&rings, look);
        drop(std::thread::Builder::new().name("midair-relief".to_owned()).spawn(watch));
        !hands.threads.is_empty()
    }

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

    /// Starts a thread for each that is held, if work waits: `None` if none does. How many are held, if that is to be told.
    pub(super) fn relieve(self: &Arc<Self>) -> Option<Option<Relief>> {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut hands = self.hands.lock();
        let held = self.held(&hands);
        let wanted = (self.regular + held).min(self.regular * MOST);
        (hands.threads.len()..wanted).for_each(|_| self.start(&mut hands));
        let all = hands.threads.len();
        let tell = if held == all { &mut hands.told.1 } else { &mut hands.told.0 };
        Some((held > 0 && !std::mem::replace(tell, true)).then_some(Relief { held, all }))
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
            native_resources::visit();
            logs::visit();
            since.store(self.now(), Ordering::Relaxed);
            // Plugins' panics are values by now; a fault of the host's own ends that work and no more.
            let _ = catch_unwind(AssertUnwindSafe(|| runnable.run()));
            since.store(0, Ordering::Relaxed);
        }
    }
}

/// Looks after each ring, until no work waits any more.
fn watch(rings: &Receiver<()>, look: impl Fn() -> Option<bool>) {
    while rings.recv().is_ok() {
        loop {
            std::thread::sleep(LOOK);
            match look() {
                Some(true) => {}
                Some(false) => break,
                None => return,
            }
        }
    }
}

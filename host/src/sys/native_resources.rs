//! What does a plugin leave in this process, and when is it over?
//!
//! Its threads, the destructors of its thread-locals and the values of its keys: each may run its code after the last request did. A
//! plugin's library hands all of them to this room (the room `census` of midair-plugin says how), which counts them by generation and runs the
//! destructors on the threads that they belong to:
//!
//! - on a plugin's own thread, and on any thread that ends: when it ends, the newest first, then the values of keys in up to four rounds, as
//!   the system would. The thread is counted until that is done; what follows is the host's code.
//! - on a thread of the host that lives on: once the generation is closed, which is when its code was dropped and nothing can call it
//!   any more (a retired one may serve again, and a thread-local that was destroyed can't be used again), at the thread's next
//!   [`visit`], where no plugin's frame is on its stack.
//!
//! What is registered on a thread so late in its end that nothing runs any more is counted as leaked.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use abi_stable::prefix_type::WithMetadata;
use midair_abi::wall::{self, Panic};
use midair_abi::{self as abi, Address, Enrolled, Outcome, RootRef};
use parking_lot::Mutex;
use serde::Serialize;

static FUNCTIONS: &WithMetadata<abi::CensusFunctions> =
    &WithMetadata::new(abi::CensusFunctions { thread, destructor, values, keys, panicked });

/// How often values of keys are destroyed that destructors set anew: `PTHREAD_DESTRUCTOR_ITERATIONS`.
const ROUNDS: usize = 4;

/// What is told of a panic that belongs to no call.
type Teller = Box<dyn Fn(Panic) + Send + Sync>;

/// What one library has in the process.
#[derive(Default)]
pub(crate) struct Census {
    threads: AtomicU64,
    threads_ever: AtomicU64,
    destructors: AtomicU64,
    keys: AtomicI64,
    leaked: AtomicU64,
    panics: AtomicU64,
    is_closed: AtomicBool,
    library: OnceLock<Enrolled>,
    teller: OnceLock<Teller>,
}

/// What plugins have in the process, as the host counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Threads of the plugin's own that are alive.
    pub threads: u64,
    /// Threads that it ever started.
    pub threads_ever: u64,
    /// Destructors of thread-locals that haven't run yet; all values of keys on one thread count as one.
    pub destructors: u64,
    /// Keys that it has made. They are none of the process's 1,024.
    pub keys: u64,
    /// Destructors that will never run, as their threads had ended too far.
    pub leaked: u64,
    /// Panics outside of requests: in its threads, and in a `Drop` that nobody waited for.
    pub panics: u64,
    /// Libraries of which nothing can be counted, since their std is a shared one, or that made something before they were counted.
    pub blind: u64,
}

/// What a thread of this process has to do for plugins before it ends. Without `Drop`: it is there until the very end of a thread.
struct Here {
    waiting: Vec<Waiting>,
    /// Libraries with values under keys.
    values: Vec<Arc<Census>>,
    /// Whose thread it is.
    own: Option<Arc<Census>>,
    is_ending: bool,
}

struct Waiting {
    census: Arc<Census>,
    destructor: Address,
    object: *mut c_void,
}

/// How many libraries were closed.
static CLOSED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static HERE: RefCell<ManuallyDrop<Here>> = const { RefCell::new(ManuallyDrop::new(Here {
        waiting: Vec::new(),
        values: Vec::new(),
        own: None,
        is_ending: false,
    })) };
    /// The closed libraries that this thread has looked at.
    static SEEN: Cell<u64> = const { Cell::new(0) };
    /// Ends what is here with the thread. On a plugin's thread it is made before all others, and so dropped after them.
    static LAST: Last = const { Last };
}

struct Last;

impl Drop for Last {
    fn drop(&mut self) {
        end();
    }
}

/// Puts down something to do on this thread; `false` if it is too late for that.
fn put(down: impl FnOnce(&mut Here)) -> bool {
    HERE.with_borrow_mut(|here| {
        let is_early_enough = here.is_ending || LAST.try_with(|_| ()).is_ok();
        if is_early_enough {
            down(here);
        }
        is_early_enough
    })
}

/// Destroys what closed libraries left on this thread. For threads that come by between calls of plugins, where it costs a load.
#[inline]
pub(crate) fn visit() {
    let closed = CLOSED.load(Ordering::Relaxed);
    if closed != SEEN.get() {
        SEEN.set(closed);
        settle();
    }
}

#[cold]
fn settle() {
    // What was closed was closed before it was counted.
    fence(Ordering::Acquire);
    let closed: Vec<Arc<Census>> = HERE.with_borrow(|here| {
        let all = here.waiting.iter().map(|waiting| &waiting.census).chain(&here.values);
        let mut closed: Vec<Arc<Census>> = Vec::new();
        for census in all.filter(|census| census.is_closed.load(Ordering::Acquire)) {
            if !closed.iter().any(|known| Arc::ptr_eq(known, census)) {
                closed.push(Arc::clone(census));
            }
        }
        closed
    });
    for census in closed {
        run(|of| Arc::ptr_eq(of, &census));
    }
}

/// Whether this thread does its last: other thread-locals may be gone.
pub(crate) fn is_ending() -> bool {
    HERE.with_borrow(|here| here.is_ending)
}

fn end() {
    HERE.with_borrow_mut(|here| here.is_ending = true);
    run(|_| true);
    let own = HERE.with_borrow_mut(|here| {
        here.is_ending = false;
        here.waiting = Vec::new();
        here.values = Vec::new();
        here.own.take()
    });
    if let Some(own) = own {
        own.threads.fetch_sub(1, Ordering::Release);
    }
}

/// Runs this thread's destructors of the libraries that are `meant`. No borrow lasts while plugin code runs: it may register more.
fn run(meant: impl Fn(&Arc<Census>) -> bool) {
    let newest = || {
        HERE.with_borrow_mut(|here| {
            let place = here.waiting.iter().rposition(|waiting| meant(&waiting.census))?;
            Some(here.waiting.remove(place))
        })
    };
    for _ in 0..ROUNDS {
        while let Some(waiting) = newest() {
            waiting.census.destroy(waiting.destructor, waiting.object);
            waiting.census.destructors.fetch_sub(1, Ordering::Release);
        }
        let with_values: Vec<Arc<Census>> =
            HERE.with_borrow(|here| here.values.iter().filter(|census| meant(census)).cloned().collect());
        let destroyed: u32 = with_values.iter().rev().map(|census| census.sweep()).sum();
        if destroyed == 0 && HERE.with_borrow(|here| !here.waiting.iter().any(|waiting| meant(&waiting.census))) {
            break;
        }
    }
    // After as many rounds the system, too, leaves values where they are. Thread-locals come first: none is left but what came last.
    while let Some(waiting) = newest() {
        waiting.census.destroy(waiting.destructor, waiting.object);
        waiting.census.destructors.fetch_sub(1, Ordering::Release);
    }
    let over: Vec<Arc<Census>> = HERE.with_borrow_mut(|here| here.values.extract_if(.., |census| meant(census)).collect());
    for census in over {
        census.destructors.fetch_sub(1, Ordering::Release);
    }
}

impl Census {
    /// Lets a library whose types were compared be counted. Nothing of it was called before.
    #[must_use]
    pub(crate) fn attach(root: RootRef) -> Arc<Self> {
        let census = Arc::<Self>::default();
        // As long as the library is mapped its code may come back with this, and it is never unmapped.
        let data = Arc::into_raw(Arc::clone(&census)).cast::<c_void>();
        let functions = abi::CensusFunctionsRef(FUNCTIONS.static_as_prefix());
        // SAFETY: the data stays for good.
        let library = unsafe { root.attach()(abi::Census { data, functions }) };
        // It is new, so nobody set it.
        let _ = census.library.set(library);
        census
    }

    /// What to do with a panic that belongs to no call.
    pub(crate) fn tell_to(&self, teller: impl Fn(Panic) + Send + Sync + 'static) {
        // Set once, by the one generation that the library becomes.
        let _ = self.teller.set(Box::new(teller));
    }

    /// Nothing will call the library any more, other than what is counted here.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        CLOSED.fetch_add(1, Ordering::Release);
    }

    /// What it has in the process.
    #[must_use]
    pub(crate) fn counts(&self) -> Counts {
        // Acquire: whoever reads that nothing is left sees what the last one did.
        let is_closed = self.is_closed.load(Ordering::Acquire);
        let keys = if is_closed { 0 } else { self.keys.load(Ordering::Acquire) };
        let is_blind = self.library.get().is_some_and(|library| library.is_blind != 0 || library.early != 0);
        Counts {
            threads: self.threads.load(Ordering::Acquire),
            threads_ever: self.threads_ever.load(Ordering::Relaxed),
            destructors: self.destructors.load(Ordering::Acquire),
            keys: u64::try_from(keys).unwrap_or_default(),
            leaked: self.leaked.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
            blind: is_blind.into(),
        }
    }

    /// Whether it is closed and nothing of it is left.
    fn is_over(&self) -> bool {
        let Counts { threads, destructors, .. } = self.counts();
        self.is_closed.load(Ordering::Acquire) && threads == 0 && destructors == 0
    }

    fn destroy(&self, destructor: Address, object: *mut c_void) {
        match self.library.get() {
            // SAFETY: registered by this library with this object, taken out to be run once, on the thread that registered it.
            Some(library) => unsafe { (library.destroy)(destructor, object) },
            // A thread that ended while the library was being attached.
            None => {
                // SAFETY: that is the type under which it was registered; whether it unwinds is its affair.
                let destructor = unsafe { std::mem::transmute::<*const c_void, unsafe extern "C" fn(*mut c_void)>(destructor.0) };
                // SAFETY: as above.
                unsafe { destructor(object) }
            }
        }
    }

    fn sweep(&self) -> u32 {
        // SAFETY: the library is mapped, and looks at this thread only.
        self.library.get().map_or(0, |library| unsafe { (library.sweep)() })
    }
}

/// All libraries that still have something in the process, by plugin.
#[derive(Default)]
pub(crate) struct Roll(Mutex<Vec<(String, Arc<Census>)>>);

impl Roll {
    /// One library more.
    pub(crate) fn enter(&self, plugin: &str, census: Arc<Census>) {
        let mut all = self.0.lock();
        all.retain(|(_, census)| !census.is_over());
        all.push((plugin.to_owned(), census));
    }

    /// What all libraries of `plugin` have, those included that don't serve any more but left something.
    #[must_use]
    pub(crate) fn counts(&self, plugin: &str) -> Counts {
        let of_plugin = |all: &[(String, Arc<Census>)]| -> Vec<Counts> {
            let left = all.iter().filter(|(name, census)| name == plugin && !census.is_over());
            left.map(|(_, census)| census.counts()).collect()
        };
        of_plugin(&self.0.lock()).into_iter().fold(Counts::default(), |all, one| Counts {
            threads: all.threads + one.threads,
            threads_ever: all.threads_ever + one.threads_ever,
            destructors: all.destructors + one.destructors,
            keys: all.keys + one.keys,
            leaked: all.leaked + one.leaked,
            panics: all.panics + one.panics,
            blind: all.blind + one.blind,
        })
    }
}

/// # Safety
///
/// `data` came from [`Census::attach`].
unsafe fn counted(data: *const c_void) -> Arc<Census> {
    let data = data.cast::<Census>();
    // SAFETY: `attach` leaked a count of it.
    unsafe { Arc::increment_strong_count(data) };
    // SAFETY: the count was made just above.
    unsafe { Arc::from_raw(data) }
}

type Start = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// What a new thread of a plugin runs.
struct Seed {
    census: Arc<Census>,
    start: Start,
    argument: *mut c_void,
}

unsafe extern "C" fn thread(
    data: *const c_void,
    id: *mut c_void,
    attributes: *const c_void,
    start: Address,
    argument: *mut c_void,
) -> c_int {
    unsafe extern "C" {
        fn pthread_create(id: *mut c_void, attributes: *const c_void, start: Start, argument: *mut c_void) -> c_int;
    }
    // SAFETY: the library passes what it was attached with.
    let census = unsafe { counted(data) };
    // SAFETY: that is the type of what `pthread_create` starts; pthread_exit and a cancellation unwind through it.
    let start = unsafe { std::mem::transmute::<*const c_void, Start>(start.0) };
    // Counted before it can run, or end.
    census.threads.fetch_add(1, Ordering::Relaxed);
    let seed = Box::into_raw(Box::new(Seed { census: Arc::clone(&census), start, argument }));
    // SAFETY: id, attributes and argument are those that the caller gave for this very function; the seed is given away.
    let code = unsafe { pthread_create(id, attributes, trampoline, seed.cast()) };
    if code == 0 {
        census.threads_ever.fetch_add(1, Ordering::Relaxed);
    } else {
        // SAFETY: no thread was made that could have taken it.
        drop(unsafe { Box::from_raw(seed) });
        census.threads.fetch_sub(1, Ordering::Relaxed);
    }
    code
}

/// The host's first and last code on a plugin's thread. It keeps nothing that needs `Drop`: pthread_exit unwinds through it.
unsafe extern "C-unwind" fn trampoline(seed: *mut c_void) -> *mut c_void {
    // SAFETY: given by `thread` to this thread alone.
    let (start, argument) = begin(*unsafe { Box::from_raw(seed.cast::<Seed>()) });
    // SAFETY: function and argument came together from whoever made the thread.
    unsafe { start(argument) }
}

fn begin(Seed { census, start, argument }: Seed) -> (Start, *mut c_void) {
    // A thread that begins isn't ending.
    put(|here| here.own = Some(census));
    (start, argument)
}

unsafe extern "C" fn destructor(data: *const c_void, destructor: Address, object: *mut c_void) -> c_int {
    // SAFETY: the library passes what it was attached with.
    let census = unsafe { counted(data) };
    census.destructors.fetch_add(1, Ordering::Relaxed);
    let waiting = Waiting { census: Arc::clone(&census), destructor, object };
    if !put(|here| here.waiting.push(waiting)) {
        census.leak();
    }
    0
}

unsafe extern "C" fn values(data: *const c_void) {
    // SAFETY: the library passes what it was attached with.
    let census = unsafe { counted(data) };
    census.destructors.fetch_add(1, Ordering::Relaxed);
    if !put(|here| here.values.push(Arc::clone(&census))) {
        census.leak();
    }
}

unsafe extern "C" fn keys(data: *const c_void, more: i64) {
    // SAFETY: the library passes what it was attached with.
    unsafe { counted(data) }.keys.fetch_add(more, Ordering::Relaxed);
}

unsafe extern "C" fn panicked(data: *const c_void, panic: Outcome) {
    // A panic of the host's own here has nobody left to be told to.
    let _ = wall::guard(|| {
        // SAFETY: the library passes what it was attached with.
        let census = unsafe { counted(data) };
        census.panics.fetch_add(1, Ordering::Relaxed);
        if let Some(teller) = census.teller.get() {
            teller(panic.panic());
        }
    });
}

impl Census {
    fn leak(&self) {
        self.destructors.fetch_sub(1, Ordering::Relaxed);
        self.leaked.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static ORDER: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    unsafe extern "C" fn note(object: *mut c_void) {
        ORDER.with_borrow_mut(|order| order.push(object.addr()));
    }

    /// A census without a library: destructors are called as they are.
    fn leave(census: &Arc<Census>, object: usize) {
        let data = Arc::into_raw(Arc::clone(census)).cast::<c_void>();
        // SAFETY: the count that was just leaked stands for that of `attach`.
        unsafe { destructor(data, Address(note as *const c_void), std::ptr::without_provenance_mut(object)) };
    }

    #[test]
    fn only_what_was_closed_is_destroyed_at_a_visit_the_newest_first() {
        let (one, two) = (Arc::<Census>::default(), Arc::<Census>::default());
        for (census, object) in [(&one, 1), (&two, 2), (&one, 3)] {
            leave(census, object);
        }
        visit();
        assert_eq!((one.counts().destructors, two.counts().destructors), (2, 1));
        one.close();
        visit();
        assert_eq!(ORDER.take(), [3, 1]);
        assert_eq!((one.counts().destructors, two.counts().destructors), (0, 1));
        two.close();
        visit();
        assert_eq!(ORDER.take(), [2]);
        assert_eq!(two.counts(), Counts::default());
    }

    #[test]
    fn a_thread_that_ends_destroys_all_and_what_those_register_on_the_way() {
        static RAN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        unsafe extern "C" fn more(object: *mut c_void) {
            RAN.lock().push(object.addr());
            if object.addr() < 20 {
                let census = CENSUS.get().expect("it was set");
                let data = Arc::as_ptr(census).cast();
                // SAFETY: the static keeps the census.
                unsafe { destructor(data, Address(more as *const c_void), std::ptr::without_provenance_mut(object.addr() + 10)) };
            }
        }
        static CENSUS: OnceLock<Arc<Census>> = OnceLock::new();
        let census = CENSUS.get_or_init(Arc::default);
        std::thread::spawn(|| {
            let data = Arc::as_ptr(CENSUS.get().expect("it was set")).cast();
            for object in [1, 2] {
                // SAFETY: the static keeps the census.
                unsafe { destructor(data, Address(more as *const c_void), std::ptr::without_provenance_mut(object)) };
            }
        })
        .join()
        .expect("it ends");
        assert_eq!(*RAN.lock(), [2, 12, 22, 1, 11, 21]);
        assert_eq!((census.counts().destructors, census.counts().leaked), (0, 0));
    }
}

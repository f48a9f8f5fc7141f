//! Which threads, thread-local destructors and keys does a plugin leave in the process?
//!
//! std and C libraries reach the system for these by six names. `export!` defines the six in the plugin's own crate, hidden, so that all that
//! is linked into that library comes here first; a host, which links this crate too, has only the functions below, under Rust's own names.
//!
//! Before a host attached itself, and so in unit tests, the calls go on to the system. From then on the host starts the threads and keeps the
//! destructors, so that it knows what can still run the plugin's code. Keys are numbers of our own with their values in this library's
//! thread-local storage: a process has 1,024 real ones, and a swap must not use one up.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use midair_abi::wall;
use midair_abi::{self as abi, Address, Enrolled, Outcome};

/// Emits the six names. Label, visibility and jump stand in one block: in two they may land in two objects, and the name is visible then.
#[doc(hidden)]
#[macro_export]
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    not(target_feature = "crt-static"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
macro_rules! census {
    () => {
        $crate::census!("__cxa_thread_atexit_impl", $crate::__export::thread_atexit);
        $crate::census!("pthread_create", $crate::__export::create_thread);
        $crate::census!("pthread_key_create", $crate::__export::create_key);
        $crate::census!("pthread_key_delete", $crate::__export::delete_key);
        $crate::census!("pthread_setspecific", $crate::__export::set_value);
        $crate::census!("pthread_getspecific", $crate::__export::value);
    };
    ($name:literal, $function:path) => {
        #[cfg(target_arch = "x86_64")]
        $crate::census!($name, "jmp {function}", $function);
        #[cfg(target_arch = "aarch64")]
        $crate::census!($name, "b {function}", $function);
    };
    ($name:literal, $jump:literal, $function:path) => {
        ::core::arch::global_asm!(
            concat!(".pushsection .text.", $name, ",\"ax\",@progbits"),
            ".p2align 4",
            concat!(".globl ", $name),
            concat!(".hidden ", $name),
            concat!(".type ", $name, ",@function"),
            concat!($name, ":"),
            $jump,
            concat!(".size ", $name, ", . - ", $name),
            ".popsection",
            function = sym $function,
        );
    };
}

/// Where the names aren't the system's, nothing is counted.
#[doc(hidden)]
#[macro_export]
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    not(target_feature = "crt-static"),
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
macro_rules! census {
    () => {};
}

static HOST: OnceLock<abi::Census> = OnceLock::new();

/// How often this library's own names were reached.
static REACHED: AtomicU32 = AtomicU32::new(0);
/// How much was handed to the system before the host attached itself.
static EARLY: AtomicU32 = AtomicU32::new(0);

const AGAIN: c_int = 11;
const INVALID: c_int = 22;

/// The system's function of a name, found behind this library's.
struct Real(&'static CStr, AtomicPtr<c_void>);

static CREATE_THREAD: Real = Real(c"pthread_create", AtomicPtr::new(null_mut()));
static THREAD_ATEXIT: Real = Real(c"__cxa_thread_atexit_impl", AtomicPtr::new(null_mut()));
static CREATE_KEY: Real = Real(c"pthread_key_create", AtomicPtr::new(null_mut()));
static DELETE_KEY: Real = Real(c"pthread_key_delete", AtomicPtr::new(null_mut()));
static SET_VALUE: Real = Real(c"pthread_setspecific", AtomicPtr::new(null_mut()));
static VALUE: Real = Real(c"pthread_getspecific", AtomicPtr::new(null_mut()));

impl Real {
    /// Its address. All six are looked up with the first: that takes the loader's lock, and a constructor that runs under it may wait for
    /// a thread that asks for another.
    fn address(&self) -> *mut c_void {
        unsafe extern "C" {
            fn dlsym(handle: *mut c_void, name: *const std::ffi::c_char) -> *mut c_void;
        }
        let found = self.1.load(Ordering::Acquire);
        if !found.is_null() {
            return found;
        }
        let next = std::ptr::without_provenance_mut(usize::MAX);
        for Real(name, address) in [&CREATE_THREAD, &THREAD_ATEXIT, &CREATE_KEY, &DELETE_KEY, &SET_VALUE, &VALUE] {
            // SAFETY: the name ends with a zero, and `RTLD_NEXT` is what this constant means to glibc.
            address.store(unsafe { dlsym(next, name.as_ptr()) }, Ordering::Release);
        }
        let found = self.1.load(Ordering::Acquire);
        if found.is_null() {
            // No glibc that this is built for lacks one of them; without it no thread could be made or ended well.
            std::process::abort();
        }
        found
    }
}

/// Calls the system's function, given with its type.
macro_rules! real {
    ($real:ident as fn($($type:ty),*) -> $returns:ty, $($argument:expr),*) => {{
        // SAFETY: that is the type which POSIX, or the C++ ABI, gives the function of this name.
        let function = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $returns>($real.address()) };
        // SAFETY: the arguments are the caller's, who meant this very function.
        unsafe { function($($argument),*) }
    }};
}

/// Lets the host count from here on. Called once, before anything else of the plugin.
///
/// # Safety
///
/// What the census points to stays as long as this library is mapped.
pub(crate) unsafe extern "C" fn attach(census: abi::Census) -> Enrolled {
    // From here on no look-up has to wait for the loader.
    CREATE_THREAD.address();
    wall::install_hook();
    let _ = HOST.set(census);
    wall::tell_to(tell);
    let is_blind = wall::guard(is_blind).unwrap_or(true);
    Enrolled { is_blind: is_blind.into(), early: EARLY.load(Ordering::Relaxed), destroy, sweep }
}

/// The host that counts, if there is one.
fn host() -> Option<&'static abi::Census> {
    HOST.get()
}

/// Whether std's calls go past this library, as those of a shared std do: its destructor of a new thread-local must come by here.
fn is_blind() -> bool {
    struct Witness;
    impl Drop for Witness {
        fn drop(&mut self) {}
    }
    thread_local! {
        static WITNESS: Witness = const { Witness };
    }
    let before = REACHED.load(Ordering::Relaxed);
    WITNESS.with(|_| ());
    REACHED.load(Ordering::Relaxed) == before
}

/// Hands a panic to the host that belongs to no call of its.
fn tell(panic: wall::Panic) {
    if let Some(host) = host() {
        // SAFETY: the host's data stays as long as this library is mapped.
        unsafe { host.functions.panicked()(host.data, Outcome::panicked(panic)) }
    }
}

/// `pthread_create`.
///
/// # Safety
///
/// As for the function of that name.
pub unsafe extern "C" fn create_thread(id: *mut c_void, attributes: *const c_void, start: Address, argument: *mut c_void) -> c_int {
    match host() {
        // SAFETY: passed on to the caller; the host's data stays as long as this library is mapped.
        Some(host) => unsafe { host.functions.thread()(host.data, id, attributes, start, argument) },
        None => {
            EARLY.fetch_add(1, Ordering::Relaxed);
            real!(CREATE_THREAD as fn(*mut c_void, *const c_void, Address, *mut c_void) -> c_int, id, attributes, start, argument)
        }
    }
}

/// `__cxa_thread_atexit_impl`.
///
/// # Safety
///
/// As for the function of that name.
pub unsafe extern "C" fn thread_atexit(destructor: Address, object: *mut c_void, dso: *mut c_void) -> c_int {
    REACHED.fetch_add(1, Ordering::Relaxed);
    match host() {
        // SAFETY: passed on to the caller; the host's data stays as long as this library is mapped.
        Some(host) => unsafe { host.functions.destructor()(host.data, destructor, object) },
        None => {
            EARLY.fetch_add(1, Ordering::Relaxed);
            real!(THREAD_ATEXIT as fn(Address, *mut c_void, *mut c_void) -> c_int, destructor, object, dso)
        }
    }
}

/// Runs a destructor that was registered, on its own thread. Those of Rust's thread-locals abort if they panic; nothing can contain that.
unsafe extern "C" fn destroy(destructor: Address, object: *mut c_void) {
    // SAFETY: that is the type under which it was registered; whether it unwinds is its affair.
    let destructor = unsafe { std::mem::transmute::<*const c_void, unsafe extern "C-unwind" fn(*mut c_void)>(destructor.0) };
    // No guard of the wall: what panics here ends the process, and should say so on its way.
    // SAFETY: registered with this object, and run once.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| unsafe { destructor(object) })) {
        std::mem::forget(payload);
    }
}

/// Far from the system's numbers, which are small.
const FIRST_KEY: u32 = 0x4000_0000;
/// What POSIX promises every process.
const KEYS: usize = 128;

/// A key; `turn` is odd while it is in use, so that a value which was left under an earlier use of the place isn't taken for one of a later.
struct Key {
    turn: AtomicU32,
    destructor: AtomicPtr<c_void>,
}

fn is_free(turn: u32) -> bool {
    turn.is_multiple_of(2)
}

static TABLE: [Key; KEYS] = [const { Key { turn: AtomicU32::new(0), destructor: AtomicPtr::new(null_mut()) } }; KEYS];

thread_local! {
    /// By key, its turn and the value. Without `Drop`, which would need a destructor of its own.
    static VALUES: [Cell<(u32, *mut c_void)>; KEYS] = const { [const { Cell::new((0, null_mut())) }; KEYS] };
    /// Whether the host knows that this thread has values to destroy.
    static IS_TOLD: Cell<bool> = const { Cell::new(false) };
}

/// The place of a key that is ours.
fn place(key: u32) -> Option<usize> {
    let place = key.checked_sub(FIRST_KEY)? as usize;
    (place < KEYS).then_some(place)
}

/// `pthread_key_create`.
///
/// # Safety
///
/// As for the function of that name.
pub unsafe extern "C" fn create_key(key: *mut u32, destructor: Address) -> c_int {
    let Some(host) = host() else {
        EARLY.fetch_add(1, Ordering::Relaxed);
        return real!(CREATE_KEY as fn(*mut u32, Address) -> c_int, key, destructor);
    };
    for (place, entry) in TABLE.iter().enumerate() {
        let turn = entry.turn.load(Ordering::Acquire);
        if is_free(turn) && entry.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            entry.destructor.store(destructor.0.cast_mut(), Ordering::Release);
            // SAFETY: the caller's place for the key.
            unsafe { *key = FIRST_KEY + place as u32 };
            // SAFETY: the host's data stays as long as this library is mapped.
            unsafe { host.functions.keys()(host.data, 1) };
            return 0;
        }
    }
    AGAIN
}

/// `pthread_key_delete`.
///
/// # Safety
///
/// As for the function of that name.
pub unsafe extern "C" fn delete_key(key: u32) -> c_int {
    let Some(entry) = place(key).map(|place| &TABLE[place]) else { return real!(DELETE_KEY as fn(u32) -> c_int, key) };
    let turn = entry.turn.load(Ordering::Acquire);
    if is_free(turn) || entry.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return INVALID;
    }
    if let Some(host) = host() {
        // SAFETY: the host's data stays as long as this library is mapped.
        unsafe { host.functions.keys()(host.data, -1) };
    }
    0
}

/// `pthread_setspecific`.
///
/// # Safety
///
/// As for the function of that name.
pub unsafe extern "C" fn set_value(key: u32, value: *mut c_void) -> c_int {
    let Some(place) = place(key) else { return real!(SET_VALUE as fn(u32, *mut c_void) -> c_int, key, value) };
    let turn = TABLE[place].turn.load(Ordering::Acquire);
    if is_free(turn) {
        return INVALID;
    }
    VALUES.with(|values| values[place].set((turn, value)));
    let is_new = !value.is_null() && !TABLE[place].destructor.load(Ordering::Acquire).is_null() && !IS_TOLD.replace(true);
    if is_new && let Some(host) = host() {
        // SAFETY: the host's data stays as long as this library is mapped.
        unsafe { host.functions.values()(host.data) };
    }
    0
}

/// `pthread_getspecific`.
///
/// # Safety
///
/// As for the function of that name.
pub unsafe extern "C" fn value(key: u32) -> *mut c_void {
    let Some(place) = place(key) else { return real!(VALUE as fn(u32) -> *mut c_void, key) };
    let (turn, value) = VALUES.with(|values| values[place].get());
    if turn == TABLE[place].turn.load(Ordering::Acquire) { value } else { null_mut() }
}

/// Destroys this thread's values, one round of it: destructors may set values anew. How many were destroyed.
unsafe extern "C" fn sweep() -> u32 {
    let mut destroyed = 0;
    for (place, entry) in TABLE.iter().enumerate() {
        let turn = entry.turn.load(Ordering::Acquire);
        let destructor = entry.destructor.load(Ordering::Acquire);
        let (set, value) = VALUES.with(|values| values[place].get());
        if !is_free(turn) && set == turn && !value.is_null() && !destructor.is_null() {
            VALUES.with(|values| values[place].set((turn, null_mut())));
            // SAFETY: a key's destructor takes the value that was set, and each value is taken out before.
            unsafe { destroy(Address(destructor), value) };
            destroyed += 1;
        }
    }
    destroyed
}

#[cfg(test)]
mod tests {
    use super::*;

    // What needs a host is tested with one; here nobody attached itself.

    #[test]
    #[cfg_attr(miri, ignore = "asks the system's loader")]
    fn without_a_host_the_system_s_own_functions_are_called() {
        let mut key = 0;
        // SAFETY: as POSIX has it.
        let created = unsafe { create_key(&raw mut key, Address(std::ptr::null())) };
        assert_eq!((created, place(key)), (0, None), "a number of the system's: {key}");
        let mut here = 7;
        let address = (&raw mut here).cast::<c_void>();
        // SAFETY: as above.
        assert_eq!(unsafe { set_value(key, address) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { value(key) }, address);
        // SAFETY: as above.
        assert_eq!(unsafe { delete_key(key) }, 0);
    }

    #[test]
    fn keys_that_nobody_made_are_refused_and_have_no_value() {
        for key in [FIRST_KEY, FIRST_KEY + KEYS as u32 - 1] {
            // SAFETY: as POSIX has it: an error is returned.
            assert_eq!(unsafe { set_value(key, null_mut()) }, INVALID);
            // SAFETY: as above.
            assert_eq!(unsafe { delete_key(key) }, INVALID);
            // SAFETY: as above.
            assert!(unsafe { value(key) }.is_null());
        }
    }
}

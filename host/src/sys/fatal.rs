//! Whose code ran when a signal ended the process?
//!
//! A host that was killed from outside and one that new code brought down look alike to the next start. So a handler for the signals of crashes
//! leaves a word: it looks where the thread was that got the signal, in whose code, and writes a few bytes into a file that was mapped before. The
//! kernel keeps them though the process is gone. A kill leaves no word, since nobody can catch it.
//!
//! # What the handler does
//!
//! It runs on any thread, at any moment, perhaps in the middle of the loader or the allocator: it takes no lock, allocates nothing, and calls
//! only what is async-signal-safe (signal-safety(7)) or a plain system call. It compares the interrupted address, and then what lies on the stack from the
//! innermost on, with where code of plugins lies; a return address of theirs is there as long as their function hasn't returned. A word
//! that an earlier call left there may be taken for one: the evidence is circumstantial, and says so. The stack is read with
//! `process_vm_readv`, which ends where the stack does instead of crashing once more. Then it hands on to whoever had the signal before:
//! the standard library tells of an overflown stack, or the process ends as it would have.
//!
//! A signal that another process sent says nothing of anyone's code.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::path::Path;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering, fence};

use crate::sys::durable;

/// The signals of crashes.
const SIGNALS: [c_int; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP];

/// The length of a digest, in hex.
const DIGEST: usize = 64;

/// So much of the stack is looked at.
const STACK: usize = 256 << 10;

/// What the last run's end left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Nothing: it was killed, the power went, or nobody listened.
    #[default]
    None,
    /// A signal of a crash came, with no plugin's code on the stack, or from outside.
    Signal(i32),
    /// It came while code of this artifact was on the stack, or was being opened.
    Code {
        /// Which signal.
        signal: i32,
        /// blake3 of the artifact, in hex.
        digest: String,
    },
}

/// The file's content.
#[repr(C)]
struct Page {
    magic: [u8; 8],
    /// 0, or the signal; written last.
    signal: AtomicU8,
    /// Whether `digest` is one.
    is_code: AtomicU8,
    digest: [AtomicU8; DIGEST],
}

const MAGIC: [u8; 8] = *b"midair1\n";

/// Where code of an artifact lies. Never freed, as the code is never unmapped.
struct Code {
    from: usize,
    to: usize,
    digest: [u8; DIGEST],
    next: *const Code,
}

static PAGE: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());
static CODES: AtomicPtr<Code> = AtomicPtr::new(ptr::null_mut());
/// What is being opened or started: its place isn't known yet, and its constructors run.
static OPENING: AtomicPtr<Code> = AtomicPtr::new(ptr::null_mut());
/// Who had the signals before.
static BEFORE: [AtomicPtr<libc::sigaction>; SIGNALS.len()] = [const { AtomicPtr::new(ptr::null_mut()) }; SIGNALS.len()];

/// Reads what the last run's end left in this file, and listens for the end of this one.
///
/// # Errors
///
/// If the file can't be made: then nothing is known of this run's end. What the last one left is read all the same.
pub(crate) fn listen(path: &Path) -> (Evidence, io::Result<()>) {
    (read(path), begin(path))
}

fn read(path: &Path) -> Evidence {
    let mut bytes = [0; size_of::<Page>()];
    let is_whole = File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).is_ok();
    let [signal, is_code] = [bytes[MAGIC.len()], bytes[MAGIC.len() + 1]];
    if !is_whole || bytes[..MAGIC.len()] != MAGIC || signal == 0 {
        return Evidence::None;
    }
    match std::str::from_utf8(&bytes[MAGIC.len() + 2..]) {
        Ok(digest) if is_code == 1 => Evidence::Code { signal: signal.into(), digest: digest.to_owned() },
        _ => Evidence::Signal(signal.into()),
    }
}

fn begin(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        durable::create_dir_all(folder)?;
    }
    // Written, not only long: a page of a file with a hole would have to be made in the handler, on a disk that may be full.
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let mut bytes = [0; size_of::<Page>()];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    file.write_all(&bytes)?;
    if cfg!(miri) {
        // It maps no files, and has no signals.
        return Ok(());
    }
    let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: a new mapping where the kernel likes; the file stays as long as it is, since nobody else writes in the data folder of a host.
    // Were it cut off, the handler would die of SIGBUS, in a process that ends anyway.
    let page = unsafe { rustix::mm::mmap(ptr::null_mut(), size_of::<Page>(), access, rustix::mm::MapFlags::SHARED, &file, 0) }?;
    // What was mapped for an earlier host of this process stays, as a handler may be writing there.
    PAGE.store(page.cast(), Ordering::Release);
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    Ok(())
}

/// Code of this artifact lies here from now on.
pub(crate) fn loaded(at: Range<u64>, digest: &str) {
    let (Ok(from), Ok(to)) = (usize::try_from(at.start), usize::try_from(at.end)) else { return };
    let Some(code) = code(from..to, digest) else { return };
    let code = Box::into_raw(Box::new(code));
    let mut first = CODES.load(Ordering::Acquire);
    loop {
        // SAFETY: nobody else has seen it yet.
        unsafe { (*code).next = first };
        match CODES.compare_exchange_weak(first, code, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

fn code(at: Range<usize>, digest: &str) -> Option<Code> {
    Some(Code { from: at.start, to: at.end, digest: digest.as_bytes().try_into().ok()?, next: ptr::null() })
}

/// This artifact is being opened or started, until this is dropped.
pub(crate) struct Opening(());

impl Opening {
    /// One at a time: a second one is nobody's evidence.
    #[must_use]
    pub(crate) fn of(digest: &str) -> Self {
        if let Some(code) = code(0..0, digest) {
            // A few bytes an attempt that are never freed: a handler may be reading them.
            OPENING.store(Box::into_raw(Box::new(code)), Ordering::Release);
        }
        Self(())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        OPENING.store(ptr::null_mut(), Ordering::Release);
    }
}

fn install() {
    for (signal, before) in SIGNALS.iter().zip(&BEFORE) {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeros is a valid `sigaction`; its fields are set through a pointer to memory of ours.
        let action = unsafe {
            let action = action.assume_init_mut();
            action.sa_sigaction = handle as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
            // On the stack that the standard library gives each thread for this: the thread's own may be what overflowed.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            *action
        };
        let old = Box::into_raw(Box::new(MaybeUninit::<libc::sigaction>::zeroed()));
        // SAFETY: both are valid for the call. `old` is never freed: the handler reads it at any time.
        if unsafe { libc::sigaction(*signal, &raw const action, old.cast()) } == 0 {
            before.store(old.cast(), Ordering::Release);
        }
    }
}

/// See the top for what it may do.
extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: a handler with SA_SIGINFO gets it, valid while it runs.
    let said = unsafe { &*info };
    // SAFETY: a signal that was sent has a sender; of another one it is some other number, which isn't looked at.
    let sender = unsafe { said.si_pid() };
    // A fault, or this process's own abort.
    let is_ours = said.si_code > 0 || (said.si_code == libc::SI_TKILL && sender.unsigned_abs() == std::process::id());
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() {
        // SAFETY: it was mapped for good, and all that is written through a shared reference is atomic.
        let page = unsafe { &*page };
        if let Some(digest) = is_ours.then(|| blamed(context)).flatten() {
            page.digest.iter().zip(digest).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
            page.is_code.store(1, Ordering::Relaxed);
        }
        fence(Ordering::Release);
        page.signal.store(u8::try_from(signal).unwrap_or(u8::MAX), Ordering::Release);
    }
    hand_on(signal, info, context);
}

/// Whose code was interrupted.
fn blamed(context: *mut c_void) -> Option<&'static [u8; DIGEST]> {
    let (at, stack) = registers(context)?;
    whose(at).or_else(|| on_the_stack(stack)).or_else(|| {
        // SAFETY: what was ever stored there is never freed.
        unsafe { OPENING.load(Ordering::Acquire).as_ref() }.map(|code| &code.digest)
    })
}

fn whose(address: usize) -> Option<&'static [u8; DIGEST]> {
    let mut code = CODES.load(Ordering::Acquire).cast_const();
    // SAFETY: what was ever stored there is never freed, and `next` was set before.
    while let Some(here) = unsafe { code.as_ref() } {
        if (here.from..here.to).contains(&address) {
            return Some(&here.digest);
        }
        code = here.next;
    }
    None
}

fn on_the_stack(from: usize) -> Option<&'static [u8; DIGEST]> {
    let mut words = [0_usize; 128];
    let from = from & !(size_of::<usize>() - 1);
    for at in (from..from.saturating_add(STACK)).step_by(size_of_val(&words)) {
        let here = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
        let there = libc::iovec { iov_base: at as *mut c_void, iov_len: size_of_val(&words) };
        let own = std::process::id().cast_signed();
        // SAFETY: a system call; it writes at most so many bytes to `words`, and fails where nothing is mapped.
        let read = unsafe { libc::process_vm_readv(own, &raw const here, 1, &raw const there, 1, 0) };
        let Ok(read) = usize::try_from(read) else { return None };
        if let Some(found) = words[..read / size_of::<usize>()].iter().find_map(|word| whose(*word)) {
            return Some(found);
        }
        if read < size_of_val(&words) {
            return None;
        }
    }
    None
}

/// Where the thread was, and where its stack is.
#[cfg(target_arch = "x86_64")]
fn registers(context: *mut c_void) -> Option<(usize, usize)> {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a `ucontext_t`, valid while it runs.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let [at, stack] = [libc::REG_RIP, libc::REG_RSP].map(|register| registers.get(usize::try_from(register).ok()?).copied());
    Some((usize::try_from(at?).ok()?, usize::try_from(stack?).ok()?))
}

/// Where the thread was, and where its stack is.
#[cfg(target_arch = "aarch64")]
fn registers(context: *mut c_void) -> Option<(usize, usize)> {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a `ucontext_t`, valid while it runs.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    Some((usize::try_from(registers.pc).ok()?, usize::try_from(registers.sp).ok()?))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_: *mut c_void) -> Option<(usize, usize)> {
    None
}

/// Does what would have been done without this handler.
fn hand_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let place = SIGNALS.iter().position(|known| *known == signal);
    let before = place.map_or(ptr::null_mut(), |place| BEFORE[place].load(Ordering::Acquire));
    // SAFETY: what was stored there was filled in by the system and is never freed.
    let before = unsafe { before.as_ref() };
    match before {
        Some(before) if before.sa_sigaction != libc::SIG_DFL && before.sa_sigaction != libc::SIG_IGN => {
            if before.sa_flags & libc::SA_SIGINFO == 0 {
                // SAFETY: without that flag a handler takes the signal alone.
                let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(before.sa_sigaction) };
                handler(signal);
            } else {
                // SAFETY: with it, it takes all three.
                let handler = unsafe {
                    std::mem::transmute::<usize, extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)>(before.sa_sigaction)
                };
                handler(signal, info, context);
            }
        }
        _ => {
            // SAFETY: async-signal-safe, and no handler of ours is needed any more.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            // SAFETY: async-signal-safe. The signal is blocked until this handler returns, and ends the process then.
            unsafe { libc::raise(signal) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_code_is_known_and_what_does_not_is_nobodys() {
        let (one, two) = ("1".repeat(DIGEST), "2".repeat(DIGEST));
        // Nothing is mapped there.
        loaded(0x1000..0x2000, &one);
        loaded(0x2000..0x2800, &two);
        loaded(0x9000..0x9100, "no digest");
        let of = |address| whose(address).map(|digest| String::from_utf8_lossy(digest).into_owned());
        assert_eq!((of(0x1fff), of(0x2000), of(0x2800), of(0x9000)), (Some(one), Some(two.clone()), None, None));
        let stack = [7_usize, 0, 0x27ff, 0x1000];
        let found = on_the_stack(stack.as_ptr() as usize).map(|digest| String::from_utf8_lossy(digest).into_owned());
        assert_eq!(found, Some(two), "the innermost");
        assert_eq!(on_the_stack(0x1000), None, "what can't be read says nothing");
    }

    #[test]
    fn a_file_that_was_never_written_or_makes_no_sense_says_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("death");
        assert_eq!(read(&path), Evidence::None);
        for bytes in [&b"short"[..], &[1; 300], b""] {
            std::fs::write(&path, bytes).expect("a file");
            assert_eq!(read(&path), Evidence::None, "{bytes:?}");
        }
        let with = |signal: u8, is_code: u8| [&MAGIC[..], &[signal, is_code], &[b'a'; DIGEST]].concat();
        for (bytes, evidence) in [
            (with(0, 1), Evidence::None),
            (with(6, 0), Evidence::Signal(6)),
            (with(11, 1), Evidence::Code { signal: 11, digest: "a".repeat(DIGEST) }),
        ] {
            std::fs::write(&path, bytes).expect("a file");
            assert_eq!(read(&path), evidence);
        }
    }
}

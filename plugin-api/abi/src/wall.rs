//! How does a panic become a value?
//!
//! Each cdylib has its own copy of std, so a panic can only be caught on the side that raised it. Every function that the other side can
//! call runs inside [`guard`]. The payload is dropped inside a second guard, since its own `Drop` may panic too.

use std::any::Any;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Once, OnceLock};

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// What was said; a payload that is no text is told as such.
    pub message: String,
    /// `file:line:column`, or empty where the hook wasn't installed.
    pub location: String,
    /// Return addresses from where it was raised outwards, in this process; empty where the hook wasn't installed.
    pub frames: Vec<u64>,
}

/// Where the thread's last panic was raised. Fixed in size and without `Drop`: a thread-local that needs a destructor would tie the
/// plugin's code to the life of every host thread that ever ran it.
#[derive(Clone, Copy)]
struct Site {
    file: [u8; 240],
    len: usize,
    line: u32,
    column: u32,
    frames: [usize; DEEPEST],
    depth: usize,
}

/// How many frames of a panic are kept, the innermost first: the way from a plugin's function to the panic is shorter.
const DEEPEST: usize = 48;

thread_local! {
    /// How many guards are around, and whether the innermost panic that they would catch has left its place in `SITE`.
    static GUARDS: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    static SITE: Cell<Option<Site>> = const { Cell::new(None) };
}

/// Runs `call`; a panic in it is returned.
///
/// # Errors
///
/// The panic, with its location if [`install_hook`] was called before.
pub fn guard<T>(call: impl FnOnce() -> T) -> Result<T, Panic> {
    let (depth, is_raised) = GUARDS.get();
    // A guard inside a `Drop` while an outer panic unwinds must not lose the outer one's place. What the outermost finds is of another call.
    // Boxed, as it is large and hardly ever there: guards are on the way of each request.
    let outer = if depth > 0 && is_raised { SITE.get().map(Box::new) } else { None };
    GUARDS.set((depth + 1, outer.is_some()));
    let result = catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let site = SITE.get().filter(|_| GUARDS.get().1);
        // The payload's `Drop` may panic in its turn, still guarded.
        let message = message(payload);
        SITE.set(outer.as_deref().copied());
        GUARDS.set((depth + 1, outer.is_some()));
        match site {
            Some(site) => Panic { message, location: site.text(), frames: site.frames() },
            None => Panic { message, location: String::new(), frames: Vec::new() },
        }
    });
    GUARDS.set((depth, GUARDS.get().1));
    result
}

/// Who hears of panics that no answer tells of.
static LISTENER: OnceLock<fn(Panic)> = OnceLock::new();

/// From here on `listener` hears of panics that no answer tells of; before, and without one, nobody does. Whoever comes first stays.
pub fn tell_to(listener: fn(Panic)) {
    let _ = LISTENER.set(listener);
}

/// Hands on a panic that no answer tells of.
pub(crate) fn tell(panic: Panic) {
    if let Some(listener) = LISTENER.get() {
        listener(panic);
    }
}

/// Drops `value`; a panic in its `Drop` ends here and is told to the listener, and what it left is leaked.
pub fn guard_drop<T>(value: T) {
    guard_told(|| drop(value));
}

/// Runs `call` where no answer could tell of a panic: it ends here and is told to the listener.
pub fn guard_told(call: impl FnOnce()) {
    if let Err(panic) = guard(call) {
        tell(panic);
    }
}

/// Lets panics inside a [`guard`] keep their place and stay silent, since they are reported as values. Others are handled as before and
/// told to the listener.
///
/// Once per copy of std; a plugin's shims do so when it is built.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let site = info.location().map(|location| Site::of(location.file(), location.line(), location.column()));
            let (depth, _) = GUARDS.get();
            if depth > 0 {
                SITE.set(site);
                return GUARDS.set((depth, site.is_some()));
            }
            before(info);
            let (location, frames) = site.map(|site| (site.text(), site.frames())).unwrap_or_default();
            let message = info.payload_as_str().unwrap_or(NO_TEXT).to_owned();
            tell(Panic { message, location, frames });
        }));
    });
}

impl Site {
    /// The end of a long path says more than its beginning.
    fn of(path: &str, line: u32, column: u32) -> Self {
        let mut file = [0; 240];
        let bytes = path.as_bytes();
        let tail = &bytes[bytes.len().saturating_sub(file.len())..];
        file[..tail.len()].copy_from_slice(tail);
        let (frames, depth) = walk();
        Self { file, len: tail.len(), line, column, frames, depth }
    }

    fn frames(&self) -> Vec<u64> {
        self.frames[..self.depth].iter().map(|frame| *frame as u64).collect()
    }

    fn text(&self) -> String {
        format!("{}:{}:{}", String::from_utf8_lossy(&self.file[..self.len]), self.line, self.column)
    }
}

/// The return addresses of this thread's stack. Names are for whoever has the file: looking them up here would fill this copy of std with
/// debug information.
fn walk() -> ([usize; DEEPEST], usize) {
    if cfg!(miri) {
        // It has no unwinder to ask.
        return ([0; DEEPEST], 0);
    }
    type Context = *mut c_void;
    unsafe extern "C" {
        fn _Unwind_Backtrace(visit: extern "C" fn(Context, *mut c_void) -> c_int, data: *mut c_void) -> c_int;
        fn _Unwind_GetIP(context: Context) -> usize;
    }
    const GO_ON: c_int = 0;
    const STOP: c_int = 5;
    extern "C" fn visit(context: Context, data: *mut c_void) -> c_int {
        // SAFETY: what `walk` passes below, borrowed by nobody else meanwhile.
        let (frames, depth) = unsafe { &mut *data.cast::<([usize; DEEPEST], usize)>() };
        let Some(place) = frames.get_mut(*depth) else { return STOP };
        // SAFETY: the context is the unwinder's own, valid during this call.
        *place = unsafe { _Unwind_GetIP(context) };
        *depth += 1;
        GO_ON
    }
    let mut found = ([0; DEEPEST], 0);
    // SAFETY: the data outlives the call and is of the type that `visit` reads.
    unsafe { _Unwind_Backtrace(visit, (&raw mut found).cast()) };
    found
}

const NO_TEXT: &str = "a payload that is no text";

fn message(payload: Box<dyn Any + Send>) -> String {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => NO_TEXT.to_owned(),
    };
    // What a payload's `Drop` throws may panic when dropped as well; that second payload is leaked.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(call: impl FnOnce()) -> String {
        guard(call).expect_err("it panics").message
    }

    #[test]
    fn a_panic_comes_back_with_its_text() {
        assert_eq!(told(|| panic!("plain")), "plain");
        assert_eq!(told(|| panic!("built {}", 1)), "built 1");
        assert_eq!(told(|| std::panic::panic_any(7)), "a payload that is no text");
    }

    #[test]
    fn a_payload_whose_drop_panics_with_such_a_payload_is_contained() {
        struct Bomb(u8);
        impl Drop for Bomb {
            fn drop(&mut self) {
                if self.0 > 0 {
                    std::panic::panic_any(Bomb(self.0 - 1));
                }
            }
        }
        assert_eq!(told(|| std::panic::panic_any(Bomb(2))), "a payload that is no text");
        guard_drop(Bomb(2));
    }

    #[test]
    fn the_location_is_kept() {
        install_hook();
        let panic = guard(|| panic!("here")).expect_err("it panics");
        assert!(panic.location.contains("wall.rs:"), "{}", panic.location);
        assert!(panic.frames.len() > 3 || cfg!(miri), "{:x?}", panic.frames);
    }

    #[test]
    fn a_panic_keeps_its_place_over_guards_in_drops_and_none_takes_that_of_another() {
        struct Guarded;
        impl Drop for Guarded {
            fn drop(&mut self) {
                assert_eq!(guard(|| 1), Ok(1));
                assert_eq!(told(|| panic!("inner")), "inner");
            }
        }
        install_hook();
        let line = line!() + 3;
        let panic = guard(|| {
            let _guarded = Guarded;
            panic!("outer")
        });
        let panic = panic.expect_err("it panics");
        assert!(panic.message == "outer" && panic.location.contains(&format!("wall.rs:{line}:")), "{panic:?}");
        let caught = guard(|| drop(catch_unwind(|| panic!("caught by the plugin itself"))));
        assert_eq!(caught, Ok(()));
        let resumed = guard(|| std::panic::resume_unwind(Box::new("no hook was called")));
        let resumed = resumed.expect_err("it panics");
        assert_eq!((resumed.message.as_str(), resumed.location.as_str()), ("no hook was called", ""));
    }
}

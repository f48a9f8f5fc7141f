//! How does a panic become a value?
//!
//! Each cdylib has its own copy of std, so a panic can only be caught on the side that raised it. Every function that the other side can
//! call runs inside [`guard`]. The payload is dropped inside a second guard, since its own `Drop` may panic too.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// What was said; a payload that is no text is told as such.
    pub message: String,
    /// `file:line:column`, or empty where the hook wasn't installed.
    pub location: String,
}

/// Where the thread's last panic was raised. Fixed in size and without `Drop`: a thread-local that needs a destructor would tie the
/// plugin's code to the life of every host thread that ever ran it.
#[derive(Clone, Copy)]
struct Site {
    file: [u8; 240],
    len: usize,
    line: u32,
    column: u32,
}

thread_local! {
    static GUARDS: Cell<u32> = const { Cell::new(0) };
    static SITE: Cell<Option<Site>> = const { Cell::new(None) };
}

/// Runs `call`; a panic in it is returned.
///
/// # Errors
///
/// The panic, with its location if [`install_hook`] was called before.
pub fn guard<T>(call: impl FnOnce() -> T) -> Result<T, Panic> {
    GUARDS.set(GUARDS.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDS.set(GUARDS.get() - 1);
    result.map_err(|payload| {
        let location = SITE.take().map(Site::text).unwrap_or_default();
        Panic { message: message(payload), location }
    })
}

/// Drops `value`; a panic in its `Drop` ends here, and what it left is leaked.
pub fn guard_drop<T>(value: T) {
    let _ = guard(|| drop(value));
}

/// Lets panics inside a [`guard`] keep their location and stay silent, since they are reported as values. Others are handled as before.
///
/// Once per copy of std; a plugin's shims do so when it is built.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDS.get() == 0 {
                return before(info);
            }
            SITE.set(info.location().map(|location| Site::of(location.file(), location.line(), location.column())));
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
        Self { file, len: tail.len(), line, column }
    }

    fn text(self) -> String {
        format!("{}:{}:{}", String::from_utf8_lossy(&self.file[..self.len]), self.line, self.column)
    }
}

fn message(payload: Box<dyn Any + Send>) -> String {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a payload that is no text".to_owned(),
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
    }
}

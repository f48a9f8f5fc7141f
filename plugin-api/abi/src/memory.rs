//! Whose memory is it?

use std::ffi::c_void;

use abi_stable::StableAbi;

use crate::wall;

/// Bytes that somebody else owns. UTF-8 where the field that holds it says text.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Span {
    data: *const u8,
    len: usize,
}

// SAFETY: a span is an address and a length; whoever reads through it vouches for the bytes.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// No bytes.
    pub const EMPTY: Span = Span::of(&[]);

    /// The span of `bytes`; the caller sees to it that they outlive it.
    #[must_use]
    pub const fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes.
    ///
    /// # Safety
    ///
    /// What it was made of must be alive and unchanged for `'a`.
    #[must_use]
    pub const unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: made by `of` from a slice that the caller vouches for.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    /// The bytes as text; what isn't UTF-8 comes out empty.
    ///
    /// # Safety
    ///
    /// As for [`bytes`](Self::bytes).
    #[must_use]
    pub unsafe fn text<'a>(self) -> &'a str {
        // SAFETY: passed on to the caller.
        std::str::from_utf8(unsafe { self.bytes() }).unwrap_or_default()
    }
}

/// Several `T` in a row that somebody else owns.
#[repr(C)]
#[derive(StableAbi)]
pub struct Many<T> {
    data: *const T,
    len: usize,
}

// SAFETY: an address and a length; whoever reads through it vouches for the items.
unsafe impl<T: Sync> Send for Many<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Many<T> {}

impl<T> Clone for Many<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Many<T> {}

impl<T> Many<T> {
    /// The items' place; the caller sees to it that they outlive it.
    #[must_use]
    pub const fn of(items: &[T]) -> Self {
        Self { data: items.as_ptr(), len: items.len() }
    }

    /// The items.
    ///
    /// # Safety
    ///
    /// What it was made of must be alive and unchanged for `'a`.
    #[must_use]
    pub const unsafe fn items<'a>(self) -> &'a [T] {
        // SAFETY: made by `of` from a slice that the caller vouches for.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// The address of something that only its maker reads.
#[repr(transparent)]
#[derive(Clone, Copy, StableAbi)]
pub struct Address(pub *const c_void);

// SAFETY: a bare address; whoever reads through it vouches for what is there.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

/// A name and a value, such as a header.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Pair {
    /// Text.
    pub name: Span,
    /// Bytes; text unless the holder says otherwise.
    pub value: Span,
}

impl Pair {
    /// The spans of both; the caller sees to it that they outlive it.
    #[must_use]
    pub const fn of(name: &str, value: &[u8]) -> Self {
        Self { name: Span::of(name.as_bytes()), value: Span::of(value) }
    }
}

/// Names and values.
///
/// # Safety
///
/// What they were made of must be alive and unchanged for `'a`.
pub(crate) unsafe fn read_pairs<'a>(pairs: Many<Pair>) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    // SAFETY: passed on to the caller.
    let pairs = unsafe { pairs.items::<'a>() };
    pairs.iter().map(|pair| {
        // SAFETY: passed on to the caller.
        let name = unsafe { pair.name.text() };
        // SAFETY: passed on to the caller.
        (name, unsafe { pair.value.bytes() })
    })
}

/// A value and the spans into its heap, kept together.
pub(crate) struct Held<T> {
    pub(crate) inner: T,
    pub(crate) pairs: Vec<Pair>,
}

/// Memory with its maker's way to free it, which runs when it is dropped, on whichever side that happens.
#[repr(C)]
#[derive(StableAbi)]
pub struct Owner {
    data: *mut c_void,
    release: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: an owner is made from `Send` values only (`Owner::of`).
unsafe impl Send for Owner {}
// SAFETY: a shared owner gives out nothing but its value's address.
unsafe impl Sync for Owner {}

impl Owner {
    /// Owns nothing.
    pub const NONE: Owner = Owner { data: std::ptr::null_mut(), release: None };

    /// Owns `value`; a panic in its `Drop` ends at the border.
    pub fn of<T: Send + 'static>(value: T) -> Self {
        unsafe extern "C" fn release<T>(data: *mut c_void) {
            // SAFETY: `data` came from `Box::into_raw` of a `Box<T>` below, and `Drop` calls this once.
            let value = unsafe { Box::from_raw(data.cast::<T>()) };
            wall::guard_drop(value);
        }
        Self { data: Box::into_raw(Box::new(value)).cast(), release: Some(release::<T>) }
    }

    /// Where the value is; null if there is none.
    #[must_use]
    pub fn data(&self) -> *mut c_void {
        self.data
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            // SAFETY: the maker set both fields together, and `take` makes this the only call.
            unsafe { release(self.data) }
        }
    }
}

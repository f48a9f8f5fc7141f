//! How does a file become code that the host can call?
//!
//! It opens libraries, compares the types at the border, calls what a plugin exports, and names the frames of its panics. It doesn't know when code
//! serves.

#[expect(unsafe_code, reason = "the only caller of what a plugin exports")]
pub(crate) mod exports;
pub(crate) mod layout;
#[expect(unsafe_code, reason = "the only caller of dlopen")]
pub(crate) mod library;
pub(crate) mod symbolize;

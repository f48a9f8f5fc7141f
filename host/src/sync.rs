//! Whose atomics?
//!
//! The lock-free rooms take them from here, so that a model checker runs the very code that ships: `--cfg midair_loom` swaps std for loom.

#[cfg(not(midair_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(midair_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

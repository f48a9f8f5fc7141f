//! Which bytes are there, and what can be known of them without running them?
//!
//! It reads, copies and judges files. It opens no library and knows no generation.

pub(crate) mod inspect;
pub(crate) mod stage;
pub(crate) mod symlink_walk;

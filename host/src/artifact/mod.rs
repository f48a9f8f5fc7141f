//! Which bytes are there, and what can be known of them without running them?
//!
//! It reads, copies and judges files. It opens no library and knows no generation.

pub(crate) mod inspect;
pub(crate) mod stage;
pub mod symlink_walk;

#[cfg(feature = "dev")]
pub use self::inspect::missing;
pub use self::stage::checksum_path;

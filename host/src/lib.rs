//! Swap the code of a running program without stopping it: the host.
//!
//! A [`Host`](swap::Host) takes artifacts through a journey at whose end one atomic store makes new code live, while requests in flight
//! end on the code that admitted them. Without features this crate is that core alone; `http` adds the ready-made HTTP host, `dev` the
//! watching and building of sources, `cli` the `midair` binary, `redb` state that is kept in a file.
//!
//! # Limitations
//!
//! - Linux with glibc on x86_64.
//! - A library that was opened stays mapped; nothing is unmapped yet.
//! - Threads, thread-locals and keys of a plugin with a shared std (`-C prefer-dynamic`) can't be counted; `status` says so.
//! - A plugin that aborts, segfaults or overflows its stack takes the process along once it serves; before that it is tried in a child
//!   process, see [`probe`].
//! - A handler that never returns holds its worker; the journey, `status` and signals go on without it.

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!(
    "midair runs on Linux with glibc: another platform needs what `host/src/sys` and `host/src/artifact/inspect` have for this one"
);

// From the ground up: a folder names only those above it here. A test holds this order.
mod mutation;

mod sys;

mod report;

pub mod artifact;
mod resources;

mod plugin;

mod live;

mod call;
mod work;

mod trial;

pub mod swap;

// The edges.
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "dev")]
pub mod dev;
#[cfg(feature = "http")]
pub mod http;

// Nobody's but a fuzzer's.
#[cfg(any(test, midair_fuzz))]
#[doc(hidden)]
pub mod fuzz;

#[cfg(feature = "dev")]
pub use self::dev::{build, command, run_loop as run, watch};
pub use self::live::probation;
pub use self::report::hold::{Held, HoldReason};
pub use self::report::{attempt, error, event};
pub use self::resources::logs;
pub use self::swap::budget;
pub use self::sys::signals;
pub use self::trial::probe;

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

// The journey.
pub mod attempt;
pub mod error;
pub mod event;
#[expect(unsafe_code, reason = "takes the probe's mark out of the environment")]
pub mod probe;
pub mod swap;

// What plugins say.
#[expect(unsafe_code, reason = "the functions by which plugins log")]
pub mod logs;

// From file to code.
mod candidate;
#[expect(unsafe_code, reason = "starts plugins' threads and runs their destructors")]
mod census;
mod deadline;
#[expect(unsafe_code, reason = "the only caller of what a plugin exports")]
mod entry;
mod frames;
mod inspect;
mod layout;
#[expect(unsafe_code, reason = "the only caller of dlopen")]
mod library;
mod reading;
mod stage;
mod way;

// What serves.
mod answer;
mod background;
mod body;
pub mod budget;
mod call;
mod config;
mod delivery;
mod generation;
mod jobs;
mod lease;
pub mod marks;
mod messages;
mod offers;
pub mod probation;
mod route;
#[expect(unsafe_code, reason = "the functions that plugins call")]
mod services;
mod slot;
mod snapshot;
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only a host that speaks HTTP has connections"))]
mod sockets;
mod standing;
mod state;
mod sync;
mod tasks;

// From sources to files.
#[cfg(feature = "dev")]
pub mod build;
#[cfg(feature = "dev")]
pub mod command;
#[cfg(feature = "dev")]
mod debt;
#[cfg(feature = "dev")]
pub mod dev;
#[cfg(feature = "dev")]
pub mod run;
#[cfg(feature = "dev")]
pub mod watch;

// From the world to what serves.
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
#[expect(unsafe_code, reason = "the only caller of _exit")]
mod exit;
#[cfg(feature = "http")]
pub mod http;

// Nobody's but a test's.
mod seed;

// Nobody's but a fuzzer's.
#[cfg(any(test, midair_fuzz))]
#[doc(hidden)]
pub mod fuzz;

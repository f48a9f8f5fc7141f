//! Does it run at all, tried where it can hurt nobody?
//!
//! Before the host opens bytes that it never opened, it executes itself once more. That child opens, compares, builds and starts the
//! plugin, runs its self-tests and its smokes, and says how it went: `parent` is the host's side, `child` the child's, `wire` what
//! they say to each other, `start` how a process knows that it is one. Whatever the plugin does to the process that it runs in (crash, abort, exit, hang, eat all memory), it does to
//! the child.
//!
//! # For hosts of one's own
//!
//! A program that has a [`Host`](crate::swap::Host) calls [`hook`] first of all in `main`:
//!
//! ```
//! midair::probe::hook(); // the first line of `main`
//! ```
//!
//! Without it every new artifact is refused, as nobody could try it; [`Probe::Off`] goes without the trial.
//!
//! # Limitations
//!
//! - What a plugin does to the world (files, other hosts, databases) it does from the probe too: [`Ctx::is_probe`] tells it apart.
//! - The child sees the plugin alone: routes of other plugins aren't there, and all state is empty.
//! - A plugin that wants to can tell the probe from the host and behave differently.
//! - A process that the plugin starts and that leaves the child's process group outlives the trial.
//!
//! [`Ctx::is_probe`]: https://docs.rs/midair-plugin

mod child;
mod parent;
mod start;
mod wire;

use std::sync::atomic::Ordering;

pub(crate) use self::parent::{Standby, stand_by, try_out};
use self::start::{HOOKED, LINE, MARK, give_up};
pub(crate) use self::wire::Order;
use crate::sys::process;

/// Whether new bytes are tried in a child process before the host opens them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// They are; the program's `main` begins with [`hook`].
    #[default]
    On,
    /// They are opened in the host at once, for programs that can't start processes.
    Off,
}

/// The first line of a host's `main`: returns at once, unless this process is a probe; if it is, does what a probe does and never returns.
///
/// In a probe the plugin's code runs inside.
pub fn hook() {
    HOOKED.store(true, Ordering::Relaxed);
    if std::env::var_os(MARK).is_none() {
        return;
    }
    if !process::is_alone() {
        give_up("other threads run already", &format!("make `{LINE}` the first line of `main`"));
    }
    // SAFETY: no other thread exists that could read the environment meanwhile, as was just seen, and this one does nothing else.
    unsafe { std::env::remove_var(MARK) };
    child::run()
}

/// Ends a process that was started as a probe and is about to become a host instead: `main` doesn't begin with the hook.
pub(crate) fn refuse_to_host() {
    if std::env::var_os(MARK).is_some() {
        give_up("it has come as far as to make a host", &format!("write `{LINE}` as the first line of `main`"));
    }
}

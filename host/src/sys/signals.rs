//! Whose are the handlers of the process's signals?
//!
//! There is one handler a signal in a process, and whoever installs one takes it from all others, without a word. A host that
//! [remembers](remember) its handlers gets them back: after each step that ran code of a plugin, and a moment after each publish, the host compares, puts
//! its own back and says who took one. That is a system call for each signal, by the threads that swap; no request waits for it. Where nothing was
//! remembered nothing is compared.
//!
//! # Limitations
//!
//! - What code takes later on is found with the next publish.
//! - A signal that a plugin blocks or waits for by `sigwait` isn't taken by this measure, nor is one that it unblocks.

use std::borrow::Cow;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::c_int;
use parking_lot::Mutex;

/// What was remembered, by signal.
static OURS: Mutex<Vec<(c_int, libc::sigaction)>> = Mutex::new(Vec::new());

/// Keeps the handlers that these signals have now: they are the program's own. What can't be read of one is not kept.
///
/// ```
/// // Behind the lines that install the program's own handlers, before a plugin is opened.
/// midair::signals::remember(&[libc::SIGTERM, libc::SIGINT, libc::SIGPIPE]);
/// ```
pub fn remember(signals: &[c_int]) {
    let mut ours = OURS.lock();
    for &signal in signals {
        ours.retain(|(kept, _)| *kept != signal);
        ours.extend(read(signal).map(|action| (signal, action)));
    }
}

/// Whether the process ignores this signal, as `nohup` has it.
#[must_use]
pub fn is_ignored(signal: c_int) -> bool {
    read(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

/// A signal that somebody took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    signal: c_int,
    handler: libc::sighandler_t,
}

impl Taken {
    /// `SIGTERM`, ..
    #[must_use]
    pub(crate) fn name(&self) -> Cow<'static, str> {
        match self.signal {
            libc::SIGHUP => "SIGHUP".into(),
            libc::SIGINT => "SIGINT".into(),
            libc::SIGQUIT => "SIGQUIT".into(),
            libc::SIGPIPE => "SIGPIPE".into(),
            libc::SIGTERM => "SIGTERM".into(),
            libc::SIGUSR1 => "SIGUSR1".into(),
            libc::SIGUSR2 => "SIGUSR2".into(),
            libc::SIGCHLD => "SIGCHLD".into(),
            libc::SIGALRM => "SIGALRM".into(),
            other => format!("signal {other}").into(),
        }
    }

    /// Where the code lies that took it; none if it left the signal to the system, or had it ignored.
    #[must_use]
    pub(crate) fn handler(&self) -> Option<u64> {
        let is_none = [libc::SIG_DFL, libc::SIG_IGN].contains(&self.handler);
        (!is_none).then_some(self.handler as u64)
    }

    /// What was done with it.
    #[must_use]
    pub(crate) fn how(&self) -> &'static str {
        match self.handler {
            libc::SIG_DFL => "left it to the system",
            libc::SIG_IGN => "had it ignored",
            _ => "installed a handler of its own",
        }
    }
}

/// Compares the handlers with those that were remembered, and puts those back that somebody took.
#[must_use]
pub(crate) fn put_back() -> Vec<Taken> {
    let ours = OURS.lock();
    let taken = |(signal, ours): &(c_int, libc::sigaction)| {
        let now = read(*signal).ok().filter(|now| now.sa_sigaction != ours.sa_sigaction)?;
        write(*signal, ours).ok()?;
        Some(Taken { signal: *signal, handler: now.sa_sigaction })
    };
    ours.iter().filter_map(taken).collect()
}

fn read(signal: c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: nothing is installed where the new action is null, and the old one is written to memory that is ours and large enough for it.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a call that answers 0 has written it.
    Ok(unsafe { action.assume_init() })
}

fn write(signal: c_int, action: &libc::sigaction) -> io::Result<()> {
    // SAFETY: the action was read of this process by `remember`, so its handler is code that was fit to be one, and the program's own code is
    // never unmapped.
    if unsafe { libc::sigaction(signal, action, ptr::null_mut()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that no other test of this process uses.
    const SIGNAL: c_int = libc::SIGWINCH;

    fn install(handler: libc::sighandler_t) {
        let action = libc::sigaction { sa_sigaction: handler, ..read(SIGNAL).expect("it can be read") };
        write(SIGNAL, &action).expect("it can be written");
    }

    #[test]
    fn what_was_taken_is_named_once_and_put_back() {
        extern "C" fn ours(_: c_int) {}
        extern "C" fn theirs(_: c_int) {
            // Not the same code as the other's, which would be the same function.
            std::hint::black_box(7);
        }
        let (ours, theirs) = (ours as *const () as usize, theirs as *const () as usize);
        install(ours);
        remember(&[SIGNAL]);
        assert_eq!(put_back(), []);
        let how = ["installed a handler of its own", "left it to the system", "had it ignored"];
        for (handler, how) in [theirs, libc::SIG_DFL, libc::SIG_IGN].into_iter().zip(how) {
            install(handler);
            assert_eq!(is_ignored(SIGNAL), handler == libc::SIG_IGN);
            let taken = put_back();
            assert_eq!(taken, [Taken { signal: SIGNAL, handler }]);
            assert_eq!((taken[0].how(), taken[0].handler().is_some()), (how, handler == theirs));
            assert_eq!(read(SIGNAL).expect("it can be read").sa_sigaction, ours);
            assert_eq!(put_back(), []);
        }
    }
}

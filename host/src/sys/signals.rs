//! What does the process do with a signal?

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::c_int;

/// Whether the process ignores this signal, as `nohup` has it.
#[must_use]
pub fn is_ignored(signal: c_int) -> bool {
    read(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_IGN)
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

//! No plugin: preloaded into a host, it stands before the system's functions that bring files to the disk. Each waits while there is a file at
//! the path in `MIDAIR_DISK_HELD`, as a disk that doesn't answer would have it.

#![expect(unsafe_code, reason = "stands in for functions of the system")]

use std::ffi::{CStr, c_char, c_int};

fn wait() {
    // SAFETY: the name is a C string; nobody sets the environment of a host once it runs.
    let gate = unsafe { libc::getenv(c"MIDAIR_DISK_HELD".as_ptr()) };
    if gate.is_null() {
        return;
    }
    // SAFETY: what `getenv` gave is a C string.
    let gate = unsafe { CStr::from_ptr(gate) };
    // SAFETY: the path is a C string.
    while unsafe { libc::access(gate.as_ptr(), libc::F_OK) } == 0 {
        // SAFETY: it takes any time.
        unsafe { libc::usleep(1_000) };
    }
}

#[expect(clippy::cast_possible_truncation, reason = "0 or -1")]
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    wait();
    // SAFETY: the very call that was asked for.
    unsafe { libc::syscall(libc::SYS_fsync, fd) as c_int }
}

#[expect(clippy::cast_possible_truncation, reason = "0 or -1")]
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    wait();
    // SAFETY: the very call that was asked for.
    unsafe { libc::syscall(libc::SYS_fdatasync, fd) as c_int }
}

/// # Safety
///
/// As for the system's: both are C strings.
#[expect(clippy::cast_possible_truncation, reason = "0 or -1")]
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    wait();
    // SAFETY: the very call that was asked for.
    unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int }
}

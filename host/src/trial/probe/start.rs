//! How does a process know that it was started as a probe, and which program it is?

use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;

use crate::sys::process::PROGRAM;

/// Tells the child what it is.
pub(super) const MARK: &str = "MIDAIR_PROBE";

/// How a process ends that was started as a probe and can't be one.
pub(super) const NO_PROBE: i32 = 70;

/// The line that a host's `main` begins with, as messages name it.
pub(super) const LINE: &str = "midair::probe::hook();";

/// Whether this program's `main` called [`hook`].
pub(super) static HOOKED: AtomicBool = AtomicBool::new(false);

/// The memory that a child may take, in bytes: enough for what a plugin loads when it starts, less than what hurts a machine. Counted is
/// what it may write to, whether it did or not.
pub(super) const MEMORY: u64 = 4 << 30;

pub(super) fn give_up(why: &str, help: &str) -> ! {
    // Where even stderr is gone, the exit status still tells.
    let _ = writeln!(
        std::io::stderr(),
        "error: this process was started as a probe of midair ({MARK} is set), but {why}\n  help: {help}"
    );
    std::process::exit(NO_PROBE)
}

/// Tells programs apart: the file that this process was started from, which may have another one in its place by now.
pub(super) fn program() -> String {
    let of = |file: Metadata| format!("{}-{}-{}-{}.{}", file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
    let file = std::fs::metadata(PROGRAM).map_or_else(|error| error.to_string(), of);
    format!("midair {} in {file}", env!("CARGO_PKG_VERSION"))
}

//! What does the system say of this process, and what does it let a process take?
//!
//! All that is read of `/proc` is read here. What can't be read says nothing, rather than to fail.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{self, Resource, Rlimit, Signal};

/// The file that this process was started from, whatever lies at its path by now.
pub(crate) const PROGRAM: &str = "/proc/self/exe";

/// A part of the address space that holds a file.
pub(crate) struct Mapping<'a> {
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The file, with ` (deleted)` behind it if it was removed.
    pub file: &'a str,
}

/// What is mapped, as text for [`files`].
#[must_use]
pub(crate) fn maps() -> String {
    fs::read_to_string("/proc/self/maps").unwrap_or_default()
}

/// The files among what is mapped.
pub(crate) fn files(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    // The sixth word of a line, from its first slash on, is the file.
    maps.lines().filter_map(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |text| u64::from_str_radix(text, 16).unwrap_or_default();
        let bytes = range.map_or(0, |(from, to)| hex(to).saturating_sub(hex(from)));
        Some(Mapping { bytes, file: &line[line.find('/')?..] })
    })
}

/// What a signal is called.
#[must_use]
pub(crate) fn signal_name(signal: i32) -> &'static str {
    let names = [
        (Signal::ABORT, "SIGABRT"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::HUP, "SIGHUP"),
        (Signal::ILL, "SIGILL"),
        (Signal::INT, "SIGINT"),
        (Signal::KILL, "SIGKILL"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::SYS, "SIGSYS"),
        (Signal::TERM, "SIGTERM"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
    ];
    names.iter().find(|(known, _)| known.as_raw() == signal).map_or("one without a name", |(_, name)| name)
}

/// How many parts the address space may have.
#[must_use]
pub(crate) fn most_maps() -> Option<u64> {
    fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}

/// How many files are open.
#[must_use]
pub(crate) fn open_files() -> u64 {
    // The one that counts them isn't there afterwards.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64).saturating_sub(1)
}

/// How many may be.
#[must_use]
pub(crate) fn most_open_files() -> Option<u64> {
    process::getrlimit(Resource::Nofile).current
}

/// How many bytes the disk of a folder has room for.
#[must_use]
pub(crate) fn room(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether this is the process's only thread; one that can't tell isn't.
#[must_use]
pub(crate) fn is_alone() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Runs this very program once more. No code of ours runs between fork and exec: a big process isn't forked.
#[must_use]
pub(crate) fn itself() -> Command {
    Command::new(PROGRAM)
}

/// Lowers what this process may take: so many bytes of memory that it may write to, so much processor time, no dumps; it ends with the thread that
/// started it, and before any other where memory gets short. What can't be lowered stays as it is.
pub(crate) fn confine(memory: u64, processor: Duration) {
    let lower = |resource, limit: u64| {
        let Rlimit { current, maximum } = process::getrlimit(resource);
        let least = |there: Option<u64>| Some(there.map_or(limit, |there| there.min(limit)));
        let _ = process::setrlimit(resource, Rlimit { current: least(current), maximum: least(maximum) });
    };
    lower(Resource::Data, memory);
    lower(Resource::Cpu, processor.as_secs());
    // One byte rather than none: a program that the kernel pipes dumps to is started whatever the limit is, except for this one
    // (fs/coredump.c).
    let one = Some(1);
    let _ = process::setrlimit(Resource::Core, Rlimit { current: one, maximum: one });
    let _ = process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
}

/// Gives standard input another descriptor, which is returned, and nothing to read.
///
/// # Errors
///
/// If there is none left.
pub(crate) fn take_stdin() -> io::Result<std::os::fd::OwnedFd> {
    let taken = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    Ok(taken)
}

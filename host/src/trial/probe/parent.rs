//! What does the host do?
//!
//! It starts the child, hands it the order and waits for the verdict, for its death or for the end of a step's time, whichever comes first.
//! One poll over the socket, what the child prints and its process: no thread is needed, nothing the child does can block it, and what it
//! prints is read to the end and kept only in part.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::start::{HOOKED, LINE, MARK, MEMORY, program};
use super::wire::{Order, Told, line};
use crate::report::error::{Code, Error, Result, Stage};
use crate::resources::logs::Logs;
use crate::sys::process;

/// What one does about a plugin that hangs while it is opened.
const CONSTRUCTORS: &str = "a constructor, which is code that runs while the system opens a library, doesn't come to an end";

/// How long a program may take to reach the first line of its `main`.
const START: Duration = Duration::from_secs(10);

/// How often a child is looked after where the system can't say when it ends.
const LOOK: Duration = Duration::from_millis(20);

/// Lines of the plugin that are passed on when it is refused, and bytes that are kept of what it printed.
const LINES: usize = 20;
const PRINTED: usize = 16 << 10;

/// The longest line that a child says, in bytes: one that the plugin logs may have 16 Ki characters, each of which may be escaped.
const LONGEST: usize = 1 << 20;

/// Starts a child that waits for its order, while the host is still busy with the artifact. `None` where that isn't possible: why is told
/// when it is needed. Dropped, it is ended.
pub(crate) fn stand_by() -> Option<Standby> {
    HOOKED.load(Ordering::Relaxed).then(Standby::start)?.ok()
}

/// Tries a plugin in a child process, in the one on standby if there is one. What it logged and printed there is told if it is refused; if it isn't, it will say it again.
///
/// # Errors
///
/// What the step found wrong; `E_PROBE` if the child died, ended or hung, or couldn't be started.
pub(crate) fn try_out(order: &Order, standby: Option<Standby>, logs: &Arc<Logs>) -> Result<()> {
    let failed = |reason: String| Error::rejected(Code::Probe, Stage::Probe, &order.plugin, reason);
    if !HOOKED.load(Ordering::Relaxed) {
        return Err(without_hook(order, "this program can't try it"));
    }
    let started = standby.map_or_else(Standby::start, Ok).and_then(|child| Trial::of(child, order));
    let mut trial = started.map_err(|error| {
        failed("the host can't start itself once more to try it".to_owned()).caused_by(error).help(
            "see to the limit of processes and to /proc, or start the host with --no-probe (in a program of your own: Probe::Off)",
        )
    })?;
    let refused = match trial.listen() {
        End::Passed => return Ok(()),
        End::Failed(error) => {
            trial.drain();
            let printed = trial.printed(LINES).into_iter().map(|line| ("info".to_owned(), format!("(printed) {line}")));
            trial.logged.extend(printed);
            error
        }
        End::Impostor(other) => {
            failed(format!("the host's binary was replaced: {other} was started, this is {}", program())).help("restart the host")
        }
        End::Silent => trial.too_long(),
        End::Died => trial.post_mortem(),
    };
    for (level, message) in std::mem::take(&mut trial.logged) {
        let message = format!("in the probe: {message}");
        let level = ["error", "warn", "info", "debug"].iter().position(|known| *known == level).map_or(5, |at| at as u32 + 1);
        logs.tell(&order.plugin, order.number, level, &message);
    }
    Err(refused)
}

fn without_hook(order: &Order, reason: &str) -> Error {
    Error::rejected(Code::Probe, Stage::Probe, &order.plugin, format!("{reason}: does `main` begin with `{LINE}`?"))
        .help("write that line first of all in `main`, or go without the trial with Probe::Off")
}

/// How listening to a child ended.
enum End {
    Passed,
    Failed(Error),
    /// It is another program than this one.
    Impostor(String),
    /// A step took too long.
    Silent,
    Died,
}

/// A child without an order yet. Dropped, it and its process group are ended.
pub(crate) struct Standby {
    /// Taken by `Drop` alone.
    process: Option<Child>,
    group: Option<Pid>,
    /// Readable once the process has ended, where the system has such.
    ended: Option<OwnedFd>,
    /// `None` once the child shut it.
    wire: Option<UnixStream>,
    output: Option<PipeReader>,
}

/// A child that is listened to.
struct Trial<'a> {
    order: &'a Order,
    child: Standby,
    heard: Vec<u8>,
    printed: VecDeque<u8>,
    logged: VecDeque<(String, String)>,
    /// What the child is at, since it said who it is.
    step: Option<(Stage, String)>,
    has_greeted: bool,
    until: Instant,
}

impl Standby {
    fn start() -> io::Result<Self> {
        let (wire, theirs) = UnixStream::pair()?;
        let (output, prints) = io::pipe()?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let own_name = std::env::args_os().next().unwrap_or_else(|| OsString::from("midair"));
        // The running program itself, whatever lies at its path by now. No `pre_exec`: a big host isn't forked.
        // Without backtraces, which would be all that fits into its last words.
        let mut command = process::itself();
        command.arg0(own_name).env(MARK, "1").env("RUST_BACKTRACE", "0").process_group(0).stdin(OwnedFd::from(theirs));
        let process = command.stdout(Stdio::from(prints.try_clone()?)).stderr(Stdio::from(prints)).spawn()?;
        // The command holds the child's ends, which would keep them open here.
        drop(command);
        let group = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let ended = group.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { process: Some(process), group, ended, wire: Some(wire), output: Some(output) })
    }

    /// Once only: when its process has been waited for, the number may be another's.
    fn end_group(&mut self) {
        if let Some(group) = self.group.take() {
            // It fails where nobody of the group is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl<'a> Trial<'a> {
    fn of(mut child: Standby, order: &'a Order) -> io::Result<Self> {
        if let Some(wire) = &mut child.wire {
            // If it is dead already, that is told as any other death.
            match wire.write_all(&line(order)) {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
                _ => wire.set_nonblocking(true)?,
            }
        }
        Ok(Self {
            order,
            child,
            heard: Vec::new(),
            printed: VecDeque::new(),
            logged: VecDeque::new(),
            step: None,
            has_greeted: false,
            until: Instant::now() + START,
        })
    }

    fn listen(&mut self) -> End {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return End::Silent;
            }
            let is_over = self.wait(left);
            self.drain();
            if let Some(end) = self.hear() {
                return end;
            }
            if is_over {
                return End::Died;
            }
        }
    }

    /// Waits until there is something to hear, for at most `left`. Whether the process has ended.
    fn wait(&mut self, left: Duration) -> bool {
        let left = if self.child.ended.is_some() { left } else { left.min(LOOK) };
        let timeout = Timespec::try_from(left).ok();
        let fds = [
            self.child.ended.as_ref().map(AsFd::as_fd),
            self.child.wire.as_ref().map(AsFd::as_fd),
            self.child.output.as_ref().map(AsFd::as_fd),
        ];
        let mut polled: Vec<PollFd<'_>> = fds.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // Interrupted or not, what is there is looked at next.
        let _ = poll(&mut polled, timeout.as_ref());
        match &self.child.ended {
            Some(_) => polled.first().is_some_and(|ended| !ended.revents().is_empty()),
            None => self.child.process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|status| status.is_some())),
        }
    }

    /// Takes what was printed so far, and keeps the end of it.
    fn drain(&mut self) {
        let mut piece = [0; 16 << 10];
        // More than a pipe holds: who prints without a pause is heard between two looks at the clock.
        for _ in 0..8 {
            let Some(output) = &mut self.child.output else { return };
            match output.read(&mut piece) {
                Ok(0) => self.child.output = None,
                Ok(read) => {
                    self.printed.extend(&piece[..read]);
                    let surplus = self.printed.len().saturating_sub(PRINTED);
                    self.printed.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Takes what was said so far; how it ended, if that was among it.
    fn hear(&mut self) -> Option<End> {
        let mut piece = [0; 4096];
        while let Some(wire) = &mut self.child.wire {
            match wire.read(&mut piece) {
                Ok(0) => self.child.wire = None,
                Ok(read) => {
                    self.heard.extend(&piece[..read]);
                    if self.heard.len() > LONGEST {
                        self.heard.clear();
                    }
                    if let Some(end) = self.understand() {
                        return Some(end);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.child.wire = None,
            }
        }
        None
    }

    fn understand(&mut self) -> Option<End> {
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            // What isn't the child's comes from a program that took its place: as good as silence.
            let Ok(told) = serde_json::from_slice(&line) else { continue };
            match told {
                Told::Program(other) if other != program() => return Some(End::Impostor(other)),
                Told::Program(_) => self.has_greeted = true,
                _ if !self.has_greeted => {}
                Told::Begins { stage, what } => {
                    self.step = Some((stage, what));
                    self.until = Instant::now() + self.order.deadline;
                }
                Told::Log { level, message } => {
                    self.logged.push_back((level, message));
                    if self.logged.len() > LINES {
                        self.logged.pop_front();
                    }
                }
                Told::Passed => return Some(End::Passed),
                Told::Failed(fault) => return Some(End::Failed(fault.into())),
            }
        }
        None
    }

    /// Why a child was given up.
    fn too_long(&self) -> Error {
        let plugin = &self.order.plugin;
        let Some((stage, what)) = &self.step else {
            let reason = format!("the host was started once more to try it, and said nothing for {} s", START.as_secs());
            return without_hook(self.order, &reason);
        };
        let seconds = self.order.deadline.as_secs_f64();
        let reason = format!("{what} took longer than {seconds} s and was given up (found in the probe)");
        match stage {
            Stage::Init => Error::rejected(Code::Timeout, Stage::Init, plugin, reason),
            Stage::Load => Error::rejected(Code::Probe, Stage::Probe, plugin, reason).help(CONSTRUCTORS),
            _ => Error::rejected(Code::Probe, Stage::Probe, plugin, reason),
        }
    }

    /// Why a child ended by itself.
    fn post_mortem(&mut self) -> Error {
        self.child.end_group();
        self.drain();
        let status = self.child.process.as_mut().map_or_else(|| Err(ErrorKind::NotFound.into()), Child::wait);
        let last = self.printed(3).join(" / ");
        let last = if last.is_empty() { last } else { format!("; its last words: {last}") };
        let how = status.map_or_else(|error| format!("in a way that isn't known ({error})"), told);
        let plugin = &self.order.plugin;
        let Some((_, what)) = &self.step else {
            let reason = format!("the host was started once more to try it, and ended {how} before it began{last}");
            return without_hook(self.order, &reason);
        };
        let error = Error::rejected(Code::Probe, Stage::Probe, plugin, format!("{what} ended the probe {how}{last}"));
        // What std says when it gets no memory, before it aborts.
        if last.contains("memory allocation of") {
            return error.help(format!("in the probe a plugin may take {} GiB of memory", MEMORY >> 30));
        }
        error.help("in the host it would have ended the host: what is published keeps serving")
    }

    /// The last lines that were printed.
    fn printed(&self, lines: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.printed.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let longest = |line: &&str| line.chars().take(300).collect();
        all[all.len().saturating_sub(lines)..].iter().map(longest).collect()
    }
}

impl Drop for Standby {
    /// The verdict is there: nobody waits until the system has taken the process apart. Where no thread can be had for that, the process
    /// stays in the system's table until the host ends.
    fn drop(&mut self) {
        self.end_group();
        let Some(mut process) = self.process.take() else { return };
        let bury = move || process.wait();
        let _ = thread::Builder::new().name("midair-burial".to_owned()).spawn(bury);
    }
}

/// How a process ended, to be read after "ended".
fn told(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("by signal {signal} ({})", process::signal_name(signal)),
        None => format!("with exit status {}", status.code().unwrap_or_default()),
    }
}

//! How does one cargo process run, end, or get killed?

use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use cargo_metadata::Message;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::messages::{Diagnostic, Transcript};
use super::surroundings::Surroundings;
use crate::error::{Code, Error, Result, Stage};

/// How long to wait for the last words of a cargo that has ended; something it left behind may keep the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Stops a build from another thread. Cheap to clone.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<Run>>);

#[derive(Default)]
struct Run {
    fired: bool,
    /// The group that runs now. Set while its leader can't have been reaped, so that the number is still its own.
    group: Option<Pid>,
}

impl Cancel {
    /// Kills the build that runs with this, and keeps any further one from starting. Returns at once.
    pub fn fire(&self) {
        let mut run = self.0.lock();
        run.fired = true;
        if let Some(group) = run.group {
            // It fails only if the group is gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Whether it was fired.
    #[must_use]
    pub fn is_fired(&self) -> bool {
        self.0.lock().fired
    }
}

/// A cargo that ended by itself.
pub(super) struct Ended {
    pub(super) transcript: Transcript,
    pub(super) status: ExitStatus,
    pub(super) stderr: String,
}

/// A command for cargo in `folder`, in surroundings of its own.
pub(super) fn command(cargo: &Path, folder: &Path, surroundings: &Surroundings) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(folder).stdin(Stdio::null());
    for (name, value) in &surroundings.0 {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Runs a cargo that speaks JSON. `None` means that it was cancelled: then its whole process group was killed.
pub(super) fn run(mut command: Command, cancel: &Cancel, say: &mut dyn FnMut(Diagnostic)) -> Result<Option<Ended>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |reason: &str, error| Error::rejected(Code::Build, Stage::Build, &name, reason).caused_by(error);
    let mut running = {
        let mut run = cancel.0.lock();
        if run.fired {
            return Ok(None);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(|error| failed("can't be started", error))?;
        run.group = pid_of(&child);
        Running { child, cancel: cancel.clone() }
    };
    let (told, last_words) = channel();
    if let Some(mut stderr) = running.child.stderr.take() {
        let listener = thread::Builder::new().name("midair-cargo".into()).spawn(move || {
            let mut words = Vec::new();
            let _ = stderr.read_to_end(&mut words);
            let _ = told.send(words);
        });
        listener.map_err(|error| failed("can't be listened to", error))?;
    }
    let mut transcript = Transcript::default();
    if let Some(stdout) = running.child.stdout.take() {
        for message in Message::parse_stream(BufReader::new(stdout)) {
            match message {
                Ok(message) => transcript.hear(message, say),
                // A line that isn't UTF-8 is somebody's own print.
                Err(error) if error.kind() == ErrorKind::InvalidData => {}
                Err(_) => break,
            }
            if transcript.finished.is_some() {
                break;
            }
        }
    }
    let status = running.wait().map_err(|error| failed("can't be waited for", error))?;
    if cancel.is_fired() {
        return Ok(None);
    }
    let stderr = last_words.recv_timeout(LAST_WORDS).unwrap_or_default();
    Ok(Some(Ended { transcript, status, stderr: String::from_utf8_lossy(&stderr).into_owned() }))
}

/// A child that is never left behind: dropped early, it is killed and reaped.
struct Running {
    child: Child,
    cancel: Cancel,
}

impl Running {
    fn wait(&mut self) -> std::io::Result<ExitStatus> {
        // First without reaping: until the group is forgotten its number must not be given to another process.
        if let Some(pid) = pid_of(&self.child)
            && self.cancel.0.lock().group.is_some()
        {
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {}
        }
        self.cancel.0.lock().group = None;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = self.cancel.0.lock().group.take();
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = command(Path::new("sh"), Path::new("/"), &Surroundings::default());
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_cancelled_build_is_gone_with_all_its_children() {
        let cancel = Cancel::default();
        let from_elsewhere = cancel.clone();
        let started = Instant::now();
        let script = r#"sleep 60 & echo "{\"reason\":\"compiler-message\",\"package_id\":\"$!\",\"target\":{\"kind\":[\"lib\"],\"name\":\"x\",\"src_path\":\"/\"},\"message\":{\"message\":\"$!\",\"code\":null,\"level\":\"error\",\"spans\":[],\"children\":[]}}"; wait"#;
        let mut child = String::new();
        let ended = run(shell(script), &cancel, &mut |diagnostic| {
            child = diagnostic.message;
            from_elsewhere.fire();
        });
        assert!(ended.expect("a run").is_none());
        // Gone, or a zombie that whoever inherited it hasn't reaped. The kernel takes its time after the kill.
        let lives = || std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            assert!(started.elapsed() < Duration::from_secs(30), "{child} lives on");
            thread::yield_now();
        }
    }

    #[test]
    fn a_cancelled_handle_starts_nothing() {
        let cancel = Cancel::default();
        cancel.fire();
        assert!(run(shell("exit 1"), &cancel, &mut |_| {}).expect("a run").is_none());
    }

    #[test]
    fn a_missing_cargo_is_named() {
        let missing = command(Path::new("/no/such/cargo"), Path::new("/"), &Surroundings::default());
        let Err(error) = run(missing, &Cancel::default(), &mut |_| {}) else { panic!("it can't start") };
        assert!(error.reason().starts_with("can't be started: "), "{error:?}");
        assert_eq!(error.subject(), "/no/such/cargo");
    }
}

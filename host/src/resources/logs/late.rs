//! Who does what can't be done on the thread that it came up on?
//!
//! One thread of the process: it has libraries look again when what is wanted changed, since `tracing` holds a lock while it says so, and
//! takes what was logged on threads that end.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::report::error::{Code, Error, Result};

/// What there is to do.
pub(super) enum Errand {
    /// Another filter holds.
    LookAgain,
    /// What came up on a thread that ends.
    Run(Box<dyn FnOnce() + Send>),
}

/// How changes of what is wanted are heard of.
pub(super) struct Changes {
    /// The most detailed level that anybody wants.
    pub(super) level: fn() -> u32,
    /// From now on changes are sent here.
    pub(super) listen: fn(),
    /// Has all libraries ask anew.
    pub(super) look_again: fn(),
}

static ERRANDS: OnceLock<Sender<Errand>> = OnceLock::new();

/// `tracing` sets the most detailed level a moment after it asked its callsites: it is looked at once more after this.
const A_MOMENT: Duration = Duration::from_millis(20);

/// Starts the thread, once a process.
pub(super) fn begin(changes: Changes) -> Result<()> {
    static BEGUN: Mutex<bool> = Mutex::new(false);
    let mut begun = BEGUN.lock();
    if !*begun {
        let ((give, take), listen) = (channel(), changes.listen);
        let spawned = thread::Builder::new().name("midair-logs".to_owned()).spawn(move || run(&take, &changes));
        spawned.map_err(|error| Error::fatal(Code::Io, "midair-logs", "its thread can't be started").caused_by(error))?;
        // Nobody else sets it.
        let _ = ERRANDS.set(give);
        listen();
        *begun = true;
    }
    Ok(())
}

/// Gives the thread something to do. Waits for nobody.
pub(super) fn send(errand: Errand) {
    if let Some(errands) = ERRANDS.get() {
        // The thread lives as long as the process.
        let _ = errands.send(errand);
    }
}

pub(super) fn look_again() {
    send(Errand::LookAgain);
}

fn run(errands: &Receiver<Errand>, Changes { level, look_again, .. }: &Changes) {
    let (mut told, mut is_fresh) = (level(), false);
    loop {
        let next = if is_fresh { errands.recv_timeout(A_MOMENT) } else { errands.recv().map_err(RecvTimeoutError::from) };
        match next {
            Ok(Errand::LookAgain) => {
                told = level();
                is_fresh = true;
                look_again();
            }
            Ok(Errand::Run(errand)) => errand(),
            Err(RecvTimeoutError::Timeout) => {
                is_fresh = false;
                if std::mem::replace(&mut told, level()) != level() {
                    look_again();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

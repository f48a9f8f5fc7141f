//! Who does what can't be done on the thread that it came up on?
//!
//! One thread of the process: it has libraries look again when what is wanted changed, since `tracing` holds a lock while it says so, and
//! takes what was logged on threads that end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::Logs;
use super::sites::{self, Site};
use super::source::{Source, Within};
use super::values::Kept;
use crate::report::error::{Code, Error, Result};

/// What there is to do.
pub(super) enum Errand {
    /// Another filter holds.
    LookAgain,
    /// An event on a thread that ends.
    Event { source: Arc<Source>, site: &'static Site, within: Within, values: Kept },
}

static ERRANDS: OnceLock<Sender<Errand>> = OnceLock::new();
static ALL: Mutex<Vec<Weak<Logs>>> = Mutex::new(Vec::new());

/// `tracing` sets the most detailed level a moment after it asked its callsites: it is looked at once more after this.
const A_MOMENT: Duration = Duration::from_millis(20);

/// These logs hear of changes from now on.
pub(super) fn begin(logs: &Arc<Logs>) -> Result<()> {
    {
        let mut all = ALL.lock();
        all.retain(|logs| logs.strong_count() > 0);
        all.push(Arc::downgrade(logs));
    }
    static BEGUN: Mutex<bool> = Mutex::new(false);
    let mut begun = BEGUN.lock();
    if !*begun {
        let (give, take) = channel();
        let spawned = thread::Builder::new().name("midair-logs".to_owned()).spawn(move || run(&take));
        spawned.map_err(|error| Error::fatal(Code::Io, "midair-logs", "its thread can't be started").caused_by(error))?;
        // Nobody else sets it.
        let _ = ERRANDS.set(give);
        sites::listen();
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

fn run(errands: &Receiver<Errand>) {
    let (mut told, mut is_fresh) = (sites::most(), false);
    loop {
        let next = if is_fresh { errands.recv_timeout(A_MOMENT) } else { errands.recv().map_err(RecvTimeoutError::from) };
        match next {
            Ok(Errand::LookAgain) => {
                told = sites::most();
                is_fresh = true;
                all_look_again();
            }
            Ok(Errand::Event { source, site, within, values }) => {
                source.guard((), || source.say_here(site, &within, values.lend()));
            }
            Err(RecvTimeoutError::Timeout) => {
                is_fresh = false;
                if std::mem::replace(&mut told, sites::most()) != sites::most() {
                    all_look_again();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn all_look_again() {
    let all: Vec<Arc<Logs>> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    all.iter().for_each(|logs| logs.look_again());
}

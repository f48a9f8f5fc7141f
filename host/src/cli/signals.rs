//! When is the host told to end?
//!
//! SIGINT and SIGTERM ask it to. They arrive on the main thread, which runs no plugin code, so a stuck plugin can't swallow them.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::exit;
use crate::error::{Code, Error, Result};

/// Both signals, from the moment this was made.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// One that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Interrupt,
    Terminate,
}

impl Signals {
    /// Takes the signals over from the system's default. Must be called inside a runtime.
    pub(super) fn take() -> Result<Self> {
        let failed = |error| Error::fatal(Code::Io, "signals", "they can't be taken").caused_by(error);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

impl Asked {
    pub(super) fn name(self) -> &'static str {
        match self {
            Asked::Interrupt => "SIGINT",
            Asked::Terminate => "SIGTERM",
        }
    }

    /// Ends the process now, with the status that shells give to this signal.
    pub(super) fn end_process(self) -> ! {
        exit::now(match self {
            Asked::Interrupt => 130,
            Asked::Terminate => 143,
        })
    }
}

//! What do signals ask of the host?
//!
//! | signal | asks |
//! |---|---|
//! | SIGINT, SIGTERM, SIGQUIT | to end after a drain; a second one of these, at once |
//! | SIGHUP | `run`: to look again, as `midair reload` does. `dev`: to end after a drain, as the terminal was closed |
//! | SIGUSR2 | nothing yet: it is kept for the host's own upgrade |
//! | SIGUSR1, SIGALRM | nothing |
//!
//! Left to the system, each of them would end the process amid requests. They arrive on the main thread, which runs no plugin code, so a
//! stuck plugin can't swallow them; a plugin that takes one is found out by [`signals`].

use tokio::signal::unix::{self, SignalKind, signal};

use crate::cli::exit;
use crate::error::{Code, Error, Result};
use crate::signals;

/// All of them, from the moment this was made.
pub(super) struct Signals {
    hangup: Hangup,
    interrupt: unix::Signal,
    terminate: unix::Signal,
    quit: unix::Signal,
    /// None if it was ignored when the process started, and is to be.
    hangs_up: Option<unix::Signal>,
    upgrade: unix::Signal,
}

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangup {
    /// The terminal was closed. A host that was started to outlive it (`nohup`) doesn't hear of it.
    Ends,
    /// Look again.
    Reloads,
}

/// What one that came asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    End(End),
    Reload,
    Upgrade,
}

/// One that ends the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Interrupt,
    Terminate,
    Quit,
    Hangup,
}

fn take(kind: SignalKind) -> Result<unix::Signal> {
    signal(kind).map_err(|error| Error::fatal(Code::Io, "signals", "they can't be taken").caused_by(error))
}

/// Waits for SIGINT or SIGTERM, in a client; all others are left to the system. Inside a runtime.
pub(super) async fn interrupted() -> Result<()> {
    let (mut interrupt, mut terminate) = (take(SignalKind::interrupt())?, take(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

impl Signals {
    /// Takes the signals over from the system's default. Must be called inside a runtime.
    pub(super) fn take(hangup: Hangup) -> Result<Self> {
        let outlives = hangup == Hangup::Ends && signals::is_ignored(SignalKind::hangup().as_raw_value());
        // Taken for good, though nobody listens. Were they ignored instead, so would they be by what the host and its plugins start.
        drop((take(SignalKind::user_defined1())?, take(SignalKind::alarm())?));
        let taken = Self {
            hangup,
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            quit: take(SignalKind::quit())?,
            hangs_up: if outlives { None } else { Some(take(SignalKind::hangup())?) },
            upgrade: take(SignalKind::user_defined2())?,
        };
        // A plugin may have those that ask for nothing. That SIGPIPE is ignored is the doing of Rust's std, and all that writes needs it.
        let needed = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::quit(),
            SignalKind::hangup(),
            SignalKind::user_defined2(),
            SignalKind::pipe(),
        ];
        signals::remember(&needed.map(|kind| kind.as_raw_value()));
        Ok(taken)
    }

    /// The next one that asks for something.
    pub(super) async fn next(&mut self) -> Asked {
        let hangs_up = async {
            match &mut self.hangs_up {
                Some(hangs_up) => hangs_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End(End::Interrupt),
            _ = self.terminate.recv() => Asked::End(End::Terminate),
            _ = self.quit.recv() => Asked::End(End::Quit),
            _ = hangs_up => match self.hangup {
                Hangup::Ends => Asked::End(End::Hangup),
                Hangup::Reloads => Asked::Reload,
            },
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }

    /// The next one that ends a host which ends already: at once. Another SIGHUP doesn't, since the kernel, the shell and the session each may send
    /// one when a terminal is closed.
    pub(super) async fn again(&mut self) -> End {
        loop {
            match self.next().await {
                Asked::End(End::Hangup) | Asked::Reload | Asked::Upgrade => {}
                Asked::End(end) => return end,
            }
        }
    }
}

impl End {
    pub(super) fn name(self) -> &'static str {
        match self {
            End::Interrupt => "SIGINT",
            End::Terminate => "SIGTERM",
            End::Quit => "SIGQUIT",
            End::Hangup => "SIGHUP",
        }
    }

    /// Ends the process now, with the status that shells give to this signal.
    pub(super) fn end_process(self) -> ! {
        exit::now(match self {
            End::Hangup => 129,
            End::Interrupt => 130,
            End::Quit => 131,
            End::Terminate => 143,
        })
    }
}

//! What may be asked of a running loop from outside?
//!
//! The admin listener and the signals ask; the loop that owns the journey answers in its own time. So that neither waits for the other,
//! nothing but these two words travels between them.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// A wish that the loop fulfils between two attempts, or by cutting one short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Look again at what is on disk; with `force` also at what was found unchanged or is held.
    Reload {
        /// Take the same bytes again.
        force: bool,
    },
    /// Cancel the build that runs, start nothing more, return.
    Stop,
}

/// Asks. Clones ask the same loop.
#[derive(Clone, Debug)]
pub struct Sender(mpsc::Sender<Command>);

/// What was asked, in order.
#[derive(Debug)]
pub struct Commands(Receiver<Command>);

/// A way from whoever asks to the one loop.
#[must_use]
pub fn channel() -> (Sender, Commands) {
    let (sender, receiver) = mpsc::channel();
    (Sender(sender), Commands(receiver))
}

impl Sender {
    /// Asks for another look at what is on disk. `false` when the loop is over.
    pub fn reload(&self, force: bool) -> bool {
        self.0.send(Command::Reload { force }).is_ok()
    }

    /// Asks the loop to end. `false` when it is over already.
    pub fn stop(&self) -> bool {
        self.0.send(Command::Stop).is_ok()
    }
}

impl Commands {
    /// The next wish; none within `patience` is `None`. When nobody can ask any more, that is [`Command::Stop`].
    pub fn wait(&self, patience: Duration) -> Option<Command> {
        match self.0.recv_timeout(patience) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Command::Stop),
        }
    }

    /// The next wish, without waiting.
    pub fn poll(&self) -> Option<Command> {
        self.wait(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_arrive_in_order_and_silence_of_all_who_ask_is_a_stop() {
        let (sender, commands) = channel();
        assert_eq!(commands.poll(), None);
        assert!(sender.reload(true) && sender.clone().stop());
        assert_eq!(commands.poll(), Some(Command::Reload { force: true }));
        assert_eq!(commands.poll(), Some(Command::Stop));
        drop(sender);
        assert_eq!(commands.poll(), Some(Command::Stop));
    }
}

//! What becomes of what a candidate writes?
//!
//! It waits behind the candidate's gate until it is decided whether it ever serves. What is read is what is live.

use std::sync::atomic::{AtomicBool, Ordering};

use midair_abi::store::{Op, Refusal};
use parking_lot::{Mutex, MutexGuard};

use super::State;
use super::applied::Applied;
use super::write::Write;
use crate::mutation::{self, Bug};

/// One candidate's.
#[derive(Default)]
pub(crate) struct Gate {
    door: Mutex<Door>,
    /// Whether the door is [`Door::Open`], for the way that needs no lock.
    is_open: AtomicBool,
}

enum Door {
    /// Writes wait here, each call's together.
    Shut(Vec<Vec<Write>>),
    Open,
    Revoked,
}

impl Default for Door {
    fn default() -> Self {
        Self::Shut(Vec::new())
    }
}

impl Gate {
    /// Operations on the state, as they may be done now: the state's answer, or [`Refusal::Revoked`] after a rejection.
    pub(crate) fn apply(&self, state: &State, ops: &[Op<'_>]) -> Applied {
        if self.is_open.load(Ordering::Acquire) || mutation::is(Bug::WritesUnqueued) {
            return state.apply(ops);
        }
        let mut door = self.door.lock();
        match &mut *door {
            Door::Open => {
                drop(door);
                state.apply(ops)
            }
            Door::Revoked => Applied::Now(Err(Refusal::Revoked)),
            Door::Shut(queue) => {
                if !ops.iter().any(Op::is_write) {
                    return state.apply(ops);
                }
                let answer = state.foresee(ops);
                if answer.is_ok() {
                    queue.push(ops.iter().filter(|op| op.is_write()).map(Write::of).collect());
                }
                Applied::Now(answer)
            }
        }
    }

    /// Begins to open it and gives what waited. Once what is returned is dropped, writes are done at once; until then they wait, for who opens it
    /// to hand on what waited: it comes first.
    pub(crate) fn open(&self) -> (Vec<Vec<Write>>, Opening<'_>) {
        let mut door = self.door.lock();
        let queue = match std::mem::replace(&mut *door, Door::Open) {
            Door::Shut(queue) => queue,
            Door::Open | Door::Revoked => Vec::new(),
        };
        (queue, Opening { is_open: &self.is_open, _door: door })
    }

    /// Throws away what waited, and lets nothing through any more.
    pub(crate) fn revoke(&self) {
        *self.door.lock() = Door::Revoked;
        self.is_open.store(false, Ordering::Release);
    }
}

/// A gate that is being opened.
pub(crate) struct Opening<'a> {
    is_open: &'a AtomicBool,
    _door: MutexGuard<'a, Door>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.is_open.store(true, Ordering::Release);
    }
}

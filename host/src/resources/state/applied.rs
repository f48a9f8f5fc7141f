//! What became of some operations?

use midair_abi::store::Answer;

#[cfg(feature = "redb")]
use super::later::Pending;

/// What became of some operations.
pub(crate) enum Applied {
    /// They are done, or refused.
    Now(Answer),
    /// They wait for the disk.
    #[cfg(feature = "redb")]
    Later(Pending),
}

impl Applied {
    /// The answer, waited for on this thread.
    #[cfg(any(test, feature = "http"))]
    pub(crate) fn wait(self) -> Answer {
        match self {
            Applied::Now(answer) => answer,
            #[cfg(feature = "redb")]
            Applied::Later(pending) => pending.wait(),
        }
    }
}

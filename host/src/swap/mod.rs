//! How does an artifact become what serves, and how does what served before come back?
//!
//! The one folder that sees both sides: files and libraries, snapshots and events. `pipeline` takes attempts through, on a thread of its own, one at a
//! time; all that can fail happens before the publish and leaves everything as it was. `supervisor` commits what did well and goes back from
//! what didn't, on another thread, so that no journey is ever waited for. Neither thread runs plugin code. Both, and whoever asks by hand,
//! make plans; `cutover` performs them, one after the other.
//!
//! | room | answers |
//! |---|---|
//! | `host`, `options` | what can a program do with a host, and how is it set up? |
//! | `exchange`, `status`, `tables` | what do it and its plugins say to each other, and what does it tell of itself? |
//! | `pipeline` | how is an attempt taken from its artifacts to its record? |
//! | `cutover` | what changes what serves? |
//! | `supervisor` | when is a published generation committed, and when does the one before come back? |
//! | `recovery` | what must a host know that was killed and starts again? |
//! | `reaper` | who frees what is left of generations? |
//! | `budget` | how much more may be loaded? |
//! | `signals` | did a plugin take a signal that the host uses? |
//! | `shared` | what do the threads of a host have in common? |

pub mod budget;
mod cutover;
mod exchange;
mod host;
mod options;
mod pipeline;
mod reaper;
pub(crate) mod recovery;
mod shared;
mod signals;
mod status;
mod supervisor;
#[cfg(feature = "http")]
mod tables;

pub use self::host::Host;
pub use self::options::{Artifact, Limits, Options, Trust};
pub use self::status::{
    BlockerStatus, GenerationStatus, Generations, LeaseStatus, Libraries, PluginStatus, SocketStatus, Status, TaskStatus,
};
#[cfg(feature = "http")]
pub use self::tables::{Page, TableStatus};
pub use crate::live::refusal::Which;
pub use crate::resources::host_services::Caller;
pub use crate::resources::topics::{SubscriberStatus, TopicStatus};
pub use crate::sys::native_resources::Counts;
pub use crate::work::jobs::{JobStatus, Overlap};

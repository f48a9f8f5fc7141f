//! Which content changed?
//!
//! Editors, version control and linkers each write files in their own way; what a loop wants to know is only whether the bytes differ
//! from those it last took. So the system's events are hints: each makes us look, and the hash of what is there decides. This room
//! knows nothing of cargo and nothing of swaps.
//!
//! | part | question |
//! |---|---|
//! | `scope` | which paths count? |
//! | `contents` | what differs from what was last taken? |
//! | `pending` | which paths are worth a look, and when? |
//! | `rest` | has a listed file come to rest? |
//! | `places` | where on disk are they, and which folders must be listened to? |
//! | `watcher` | what did the system say? |
//! | `model` | is every change found? For fuzzers and tests alone |
//!
//! The first four do no I/O; time comes in as a parameter.
//!
//! # When a look is taken
//!
//! At once when a file is closed after writing, renamed in, or touched. A file that was created or written but not closed is looked at
//! after some quiet, so that a save in place isn't seen half done: how long is up to the scope, 50 ms for sources, more for what is
//! loaded into a process. A file that vanished is looked for after 50 ms, unless something else is ready before, because editors that
//! delete and create leave such a gap. Where no event told how a listed file changed, because of polling, lost events or a folder that
//! is new, its stamps must have been the same for that quiet time. There is no other delay.
//!
//! # Where events don't arrive
//!
//! A file system shared with another machine tells nothing about what the other side writes (NFS, SMB, 9p, FUSE, Ceph, vboxsf): there
//! the files are also compared every 500 ms. The same happens where opening one of the watched files for reading isn't reported back,
//! and where the system refuses more watches. That probe leaves no trace in the folder: nothing is created or written.
//!
//! # Limitations
//!
//! Hidden folders, ignored ones, those with a `CACHEDIR.TAG` and a package's `target` are skipped, except for files listed by name.
//! Writes through a memory map are seen only when the file is closed. Folders that are symbolic links aren't walked into; files listed
//! by name are followed through every link. Of files above 4 MiB that nobody listed, only the stamps are compared.

mod contents;
#[cfg(any(test, midair_fuzz))]
pub(crate) mod model;
mod pending;
mod places;
mod rest;
mod scope;
mod watcher;

pub use scope::{Scope, Take};
pub use watcher::Watcher;

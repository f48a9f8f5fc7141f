//! What did the operator set, plugin by plugin?
//!
//! One file for all plugins, `midair.toml`: a section `[plugin.NAME]` for each. The host knows sections as they stand there; what they
//! mean is each plugin's own business, which reads its section as its own type before anything is published. What was read is published
//! in the same store as the code, and lives as long as a call that was admitted to it.
//!
//! | part | question |
//! |---|---|
//! | `file` | what does the file say, and where? |
//! | `own` | what did a plugin's code make of it? |

mod file;
mod own;

pub(crate) use file::{File, Section};
pub(crate) use own::Config;

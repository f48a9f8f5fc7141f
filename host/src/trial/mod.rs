//! Does new code work, before anybody depends on it?
//!
//! Candidates, the probe in a child process, and the reading of the values that are there. It publishes nothing.

pub(crate) mod candidate;
#[expect(unsafe_code, reason = "takes the probe's mark out of the environment")]
pub mod probe;
pub(crate) mod table_scan;

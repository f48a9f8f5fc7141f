//! What goes on beside requests, and what can a plugin ask of its host?
//!
//! Jobs, declared and spawned work, messages on their way, and the functions that plugins call. Each step is admitted as a request is.

pub(crate) mod background;
pub(crate) mod dispatch;
pub(crate) mod gates;
#[expect(unsafe_code, reason = "the functions that plugins call")]
pub(crate) mod hostcalls;
pub(crate) mod jobs;
pub(crate) mod residents;

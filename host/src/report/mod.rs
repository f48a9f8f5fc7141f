//! What happened, and who hears of it?
//!
//! Errors, events, and the record that each attempt leaves. It knows nothing of how any of it came about.

pub mod attempt;
pub mod error;
pub mod event;
pub(crate) mod hold;

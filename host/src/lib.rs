//! mid
pub mod attempt;
pub mod call;
pub mod deadline;
#[expect(unsafe_code, reason = "the only caller of what a plugin exports")]
pub mod entry;
pub mod error;
pub mod event;
pub mod generation;
#[cfg(feature = "http")]
pub mod http;
pub mod inspect;
pub mod layout;
pub mod lease;
#[expect(unsafe_code, reason = "the only caller of dlopen")]
pub mod library;
pub mod route;
#[expect(unsafe_code, reason = "the functions that plugins call")]
pub mod services;
pub mod snapshot;
pub mod stage;
pub mod swap;
mod sync;

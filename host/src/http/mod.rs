//! How does the outside reach the host over HTTP?
//!
//! `serve` answers users with plugin code; `admin` answers operators and never runs any, behind the rules of `gate`.

pub mod admin;
mod gate;
pub mod serve;

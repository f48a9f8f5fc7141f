//! How does the world reach the plugins?
//!
//! `serve` carries requests, `socket` WebSockets, whose bytes `talk` carries; `admin` answers questions about the host, on a thread that no plugin can hold up, to those whom `gate` lets in.

pub mod admin;
mod gate;
pub mod serve;
pub mod socket;
mod talk;

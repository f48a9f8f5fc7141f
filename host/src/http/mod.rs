//! How does the world reach the plugins?
//!
//! `serve` carries requests; `admin` answers questions about the host, on a thread that no plugin can hold up, to those whom `gate` lets in;
//! `state` is the part of it that shows and takes what plugins remember.

pub mod admin;
mod gate;
pub mod serve;
mod state;

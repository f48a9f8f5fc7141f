//! How does the world reach the plugins?
//!
//! `serve` carries requests, with `upload` for their bodies, `body` for those of the answers and `file` for files, and `socket` for
//! WebSockets, whose bytes `talk` carries; `admin` answers questions about the host, on a thread that no plugin can hold up, to those whom
//! `gate` lets in; `limit` says how long a handler may take. `state` is the part of `admin` that shows and takes what plugins remember.

pub mod admin;
mod body;
mod file;
mod gate;
mod limit;
pub mod serve;
pub mod socket;
mod state;
mod talk;
mod upload;

//! How does the world reach the plugins?
//!
//! `serve` carries requests, with `upload` for their bodies, `body` for those of the answers and `file` for files, and `socket` for
//! WebSockets, whose bytes `ws_io` carries; `admin` answers questions about the host, on a thread that no plugin can hold up, to those whom
//! `gate` lets in, by the token that `admin_token` shares; `limit` says how long a handler may take. `admin_tables` is the part of `admin` that shows and takes
//! what plugins remember, `admin_reload` that which looks for changes, `admin_context` what their handlers share.

pub mod admin;
mod admin_context;
mod admin_reload;
mod admin_tables;
pub mod admin_token;
mod body;
mod file;
mod gate;
mod limit;
pub mod serve;
pub mod socket;
mod upload;
mod ws_io;

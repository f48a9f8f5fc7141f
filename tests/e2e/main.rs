//! Does midair do what it says, as seen from outside?
//!
//! Every test here drives the real binary. Names state behaviours; `g..` are promises, `fault_..` rows of what has to be survived.

mod admin;
mod artifact;
mod bad_input;
mod budget;
mod census;
mod clients;
mod config;
mod dependencies;
mod dev;
mod durable;
mod ending;
mod fifty_edits;
mod foreign;
mod http;
mod inside;
mod jobs;
mod live;
mod load;
mod logs;
mod messages;
mod panics;
mod probe;
mod reload;
mod rollback;
mod run;
mod signals;
mod soak;
mod sockets;
mod sockets_load;
mod state;
mod streams;
mod structure;
mod stuck;
mod swapping;
mod tasks;
mod tiers;
mod tokio;

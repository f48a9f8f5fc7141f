//! Does midair do what it says, as seen from outside?
//!
//! Every test here drives the real binary. Names state behaviours; `g..` are promises, `fault_..` rows of what has to be survived.

mod artifact;
mod bad_input;
mod budget;
mod census;
mod clients;
mod dev;
mod durable;
mod ending;
mod fifty_edits;
mod foreign;
mod http;
mod load;
mod panics;
mod probe;
mod rollback;
mod run;
mod soak;
mod state;
mod structure;
mod stuck;
mod swapping;

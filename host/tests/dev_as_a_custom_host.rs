//! Does a custom host have all that the dev loop has?
//!
//! Its very sources are compiled here as somebody else's crate, with the public items of `midair` and nothing else. If this doesn't compile, the loop
//! uses what only `midair` itself can name.
#![allow(dead_code, unused_imports, reason = "it has to compile, and that is all")]
#![allow(unreachable_pub, missing_docs, reason = "no crate but this one sees it")]

use midair::{artifact, attempt, error, event, swap};

#[path = "../src/dev/mod.rs"]
mod dev;
#[path = "../src/mutation.rs"]
mod mutation;

fn main() {}

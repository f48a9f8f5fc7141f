//! Measures how long going back takes, by hand and by breach: [`midair_tests::rollback_time`] with a released midair, and in this process
//! without sockets. `cargo bench -p midair-tests --bench rollback -- --rounds 100`.
//!
//! With `--debug` it is the midair that tests use.

#[path = "rollback/in_process.rs"]
mod in_process;

use midair_tests::{cargo, rollback_time};

#[expect(clippy::print_stdout, reason = "the report is what it is for")]
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, to see that they start; there it is a test that measures a little.
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let rounds = args.iter().position(|arg| arg == "--rounds").map(|at| args.get(at + 1).and_then(|rounds| rounds.parse().ok()));
    let rounds = rounds.unwrap_or(Some(40)).expect("--rounds takes a number");
    let midair = if args.iter().any(|arg| arg == "--debug") { cargo::midair() } else { cargo::released_midair() };
    println!("{}", in_process::measure(rounds));
    println!("{}", rollback_time::measure(midair, rounds));
}

//! Measures [`midair_tests::probe_cost`] with a released midair: `cargo bench -p midair-tests --bench probe -- --pairs 40`.
//!
//! With `--debug` it is the midair that tests use.

use midair_tests::{cargo, probe_cost};

#[expect(clippy::print_stdout, reason = "the report is what it is for")]
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, to see that they start; there it is a test that measures a little.
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let pairs = args.iter().position(|arg| arg == "--pairs").map(|at| args.get(at + 1).and_then(|pairs| pairs.parse().ok()));
    let pairs = pairs.unwrap_or(Some(20)).expect("--pairs takes a number");
    let midair = if args.iter().any(|arg| arg == "--debug") { cargo::midair() } else { cargo::released_midair() };
    println!("{}", probe_cost::measure(midair, pairs));
}

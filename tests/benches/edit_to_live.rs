//! Measures [`midair_tests::edit_to_live`] with a released midair: `cargo bench --bench edit_to_live -- --pairs 40`.
//!
//! What follows `--` once more goes to `midair dev` and `cargo build` alike, such as `--release`.

use midair_tests::{cargo, edit_to_live};

#[expect(clippy::print_stdout, reason = "the report is what it is for")]
fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let pairs = args.iter().position(|arg| arg == "--pairs").map(|at| args.get(at + 1).and_then(|pairs| pairs.parse().ok()));
    let pairs = pairs.unwrap_or(Some(20)).expect("--pairs takes a number");
    let more = args.iter().position(|arg| arg == "--").map_or(&[][..], |at| &args[at + 1..]);
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let targets = tempfile::tempdir().expect("a folder for targets");
    let [live, built] = ["live", "built"].map(|name| targets.path().join(name));
    println!("{}", edit_to_live::measure(cargo::released_midair(), pairs, &more, [&live, &built]));
}

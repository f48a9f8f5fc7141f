//! The `midair` binary: the ready-made host and its command line.

fn main() {
    midair::probe::hook();
    midair::cli::main()
}

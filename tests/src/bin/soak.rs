//! Swaps a released midair under load and says what was lost, mixed or left behind: `cargo run -p midair-tests --bin soak -- --swaps 2000
//! --rps 1000`.
//!
//! | option | |
//! |---|---|
//! | `--swaps N` | how many swaps (default: 200) |
//! | `--rps R` | how many requests a second (default: 1000) |
//! | `--seconds S` | over how long the swaps are spread (default: as fast as they go) |
//! | `--connections N` | how many connections ask (default: 64) |
//! | `--late MS` | an answer is late that takes longer (default: 250) |
//! | `--weigh K` | the process is weighed each K swaps (default: twenty times in all) |
//! | `--keys` | fewer free keys of pthread than before are a fault |
//! | `--debug` | the midair that tests use, not a released one |
//! | `-- ARGS` | for `midair run` |
//!
//! Ends with 1 if anything was lost, mixed or left behind, if anything was rolled back, or if fewer requests were made.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use midair_tests::cargo;
use midair_tests::soak::{Plan, soak};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is for")]
fn main() -> ExitCode {
    let (is_debug, plan) = match plan(std::env::args().skip(1).collect()) {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("error: {wrong}; see the first lines of tests/src/bin/soak.rs");
            return ExitCode::from(2);
        }
    };
    let midair = if is_debug { cargo::midair() } else { cargo::released_midair() };
    println!("{} {}, {plan:?}", midair.display(), plan.args.join(" "));
    let report = soak(midair, &plan, &mut |line| println!("{line}"));
    let table = report.text.lines().take_while(|line| !line.contains(" swaps in ")).count();
    report.text.lines().skip(table).for_each(|line| println!("{line}"));
    ExitCode::from(u8::from(!report.wrong.is_empty() || report.shortfall.is_some()))
}

fn plan(mut args: Vec<String>) -> Result<(bool, Plan), String> {
    let more = args.iter().position(|arg| arg == "--").map_or_else(Vec::new, |at| args.split_off(at)[1..].to_vec());
    let is_debug = args.iter().position(|arg| arg == "--debug").map(|at| args.remove(at)).is_some();
    let keys_count = args.iter().position(|arg| arg == "--keys").map(|at| args.remove(at)).is_some();
    let mut plan = Plan {
        args: more,
        keys_count,
        ..Plan::new(number(&mut args, "--swaps")?.unwrap_or(200), number(&mut args, "--rps")?.unwrap_or(1000))
    };
    plan.time = number(&mut args, "--seconds")?.map(Duration::from_secs);
    plan.connections = number(&mut args, "--connections")?.unwrap_or(plan.connections).max(1);
    plan.late = number(&mut args, "--late")?.map_or(plan.late, Duration::from_millis);
    plan.weigh_each = number(&mut args, "--weigh")?.unwrap_or(plan.weigh_each).max(1);
    match args.first() {
        Some(unknown) => Err(format!("{unknown} is unknown")),
        None => Ok((is_debug, plan)),
    }
}

/// Takes `name N` out of the arguments.
fn number<N: FromStr>(args: &mut Vec<String>, name: &str) -> Result<Option<N>, String> {
    let Some(at) = args.iter().position(|arg| arg == name) else { return Ok(None) };
    let value = args.get(at + 1).and_then(|value| value.parse().ok()).ok_or_else(|| format!("{name} takes a number"))?;
    args.drain(at..=at + 1);
    Ok(Some(value))
}

//! How long does a user wait from an edit to the answer of new code, and how long would `cargo build` alone take?
//!
//! The same edit of the example plugin is made in two copies: one is served by a running `midair dev` (A), the other is only built (B),
//! for a measurement each in a target folder of its own. Rounds go A B B A, so that a drift of the machine hits both alike; what differs between the two
//! B of one round is the control.
//!
//! A ends with the first answer that has the new text. The host is asked from the moment on at which it says `published`: asking without
//! pause from the start would take one of the processors from the compiler. So A includes the way of the event, never less than the truth.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{Launch, Midair};
use crate::patience;
use crate::project::Project;
use crate::statistics::{self, median};

/// Makes `pairs` pairs, rounded up to whole rounds of two, and words what came out. `args` go to `midair dev` and `cargo build` alike, whose
/// target folders are the first and the second of `targets`.
///
/// # Panics
///
/// If something doesn't build or serve.
#[must_use]
pub fn measure(midair: &Path, pairs: usize, args: &[&str], [live_target, built_target]: [&Path; 2]) -> String {
    let (live, built) = (Project::example("bench-live"), Project::example("bench-built"));
    // What the host would build first from nothing: nobody waits for an event that long.
    build("bench-live", &live, &live_target.join("midair"), args);
    let launch = Launch::of(Command::new(midair), "dev", &[&live.path("plugin")]);
    let launch = args.iter().fold(launch.env("CARGO_TARGET_DIR", live_target.to_str()), |launch, arg| launch.arg(arg));
    let mut host = launch.start();
    host.published();
    let mut steps = Vec::new();
    let mut number = 0;
    let mut edit_live = |host: &mut Midair| {
        number += 1;
        let (time, published) = until_live(&live, host, number);
        steps.push(published["phases_us"].clone());
        time
    };
    let mut edits = 0;
    let mut edit_built = || {
        edits += 1;
        until_built(&built, built_target, edits, args)
    };
    // The first build of each is from nothing, the second the first with incremental state.
    for _ in 0..2 {
        edit_live(&mut host);
        edit_built();
    }
    let (mut a, mut b, mut difference, mut control) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs.div_ceil(2) {
        let [first, second, third, last] = [edit_live(&mut host), edit_built(), edit_built(), edit_live(&mut host)];
        a.extend([first, last]);
        b.extend([second, third]);
        difference.extend([first - second, last - third]);
        control.push(third - second);
    }
    let steps = &steps[2..];
    let mut report = format!("{} pairs, A B B A\n", difference.len());
    let mut line = |what: &str, text: String| writeln!(report, "{what:<34} {text}").expect("a string takes it");
    line("edit -> live, median", format!("{:.1} ms", median(&a)));
    line("cargo build, median", format!("{:.1} ms", median(&b)));
    line("difference, median [95 %]", interval(&difference));
    line("control (B - B), median [95 %]", interval(&control));
    for step in steps.first().and_then(Value::as_object).into_iter().flat_map(|steps| steps.keys()) {
        let times: Vec<_> = steps.iter().filter_map(|steps| steps[step].as_f64()).map(|us| us / 1_000.0).collect();
        line(&format!("  {step}, median"), format!("{:.2} ms", median(&times)));
    }
    report
}

const TEXT: &str = "GET /stats counts";

/// Saves the edit with this number.
fn edit(project: &Project, number: usize) -> String {
    let text = format!("GET /stats counts, {number} edits ago");
    let source = project.read("plugin/src/lib.rs");
    let start = source.find(TEXT).expect("the example has this text");
    let end = start + source[start..].find("\\n").expect("the text ends with its line");
    project.save("plugin/src/lib.rs", &format!("{}{text}{}", &source[..start], &source[end..]));
    text
}

fn until_live(project: &Project, host: &mut Midair, number: usize) -> (f64, Value) {
    let start = Instant::now();
    let text = edit(project, number);
    let published = host.published();
    let end = Instant::now() + patience();
    while !host.get("/").body.contains(&text) {
        assert!(Instant::now() < end, "it never answered\n{}", host.story());
    }
    (milliseconds(start.elapsed()), published)
}

fn until_built(project: &Project, target: &Path, number: usize, args: &[&str]) -> f64 {
    let start = Instant::now();
    edit(project, number);
    build("bench-built", project, target, args);
    milliseconds(start.elapsed())
}

fn build(package: &str, project: &Project, target: &Path, args: &[&str]) {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(project.root()).args(["build", "-p", package]).args(args).arg("--target-dir").arg(target);
    let output = cargo.stdin(Stdio::null()).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn interval(values: &[f64]) -> String {
    let [median, low, high] = statistics::interval(values);
    format!("{median:+.1} ms [{low:+.1}, {high:+.1}]")
}

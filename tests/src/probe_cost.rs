//! What does the trial in a child process add to a swap?
//!
//! Two hosts run the same build of the example plugin, one with the probe (A), one with `--no-probe` (B). Each is asked to take the same
//! bytes once more, in the order A B B A, so that a drift of the machine hits both alike. What is compared is the whole of a swap as the
//! host itself timed it, from the copy to the publish; what differs between the two B of one round is the control.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::host::{Launch, Midair};
use crate::project::Project;
use crate::statistics::{interval, median};

/// Makes `pairs` pairs, rounded up to whole rounds of two, and words what came out.
///
/// # Panics
///
/// If something doesn't build or serve.
#[must_use]
pub fn measure(midair: &Path, pairs: usize) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let artifact = Project::example("bench-probed").build_to(folder.path()).remove(0);
    let host = |args: &[&str]| {
        let launch = Launch::of(Command::new(midair), "run", &[&artifact]);
        let mut host = args.iter().fold(launch, |launch, arg| launch.arg(arg)).start();
        host.published();
        host
    };
    let (mut with, mut without) = (host(&[]), host(&["--no-probe"]));
    for _ in 0..2 {
        swap(&mut with);
        swap(&mut without);
    }
    let (mut steps, mut a, mut b, mut difference, mut control) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs.div_ceil(2) {
        let [first, second, third, last] = [swap(&mut with), swap(&mut without), swap(&mut without), swap(&mut with)];
        steps.extend([first.clone(), last.clone()]);
        let [first, second, third, last] = [first, second, third, last].map(|phases| whole(&phases));
        a.extend([first, last]);
        b.extend([second, third]);
        difference.extend([first - second, last - third]);
        control.push(third - second);
    }
    let mut report = format!("{} pairs, A B B A\n", difference.len());
    let mut line = |what: &str, text: String| writeln!(report, "{what:<34} {text}").expect("a string takes it");
    line("a swap with the probe, median", format!("{:.2} ms", median(&a)));
    line("a swap without, median", format!("{:.2} ms", median(&b)));
    for (what, values) in [("difference, median [95 %]", &difference), ("control (B - B), median [95 %]", &control)] {
        let [middle, low, high] = interval(values);
        line(what, format!("{middle:+.2} ms [{low:+.2}, {high:+.2}]"));
    }
    for step in steps.first().and_then(Value::as_object).into_iter().flat_map(|steps| steps.keys()) {
        let times: Vec<_> = steps.iter().filter_map(|steps| steps[step].as_f64()).map(|us| us / 1_000.0).collect();
        line(&format!("  {step}, median"), format!("{:.2} ms", median(&times)));
    }
    report
}

/// Has the host take the same bytes once more; what each step took, in microseconds. It does so twice and the second counts: the first
/// after the other host's turn is slower by milliseconds, whichever host it is.
fn swap(host: &mut Midair) -> Value {
    let mut once = || {
        assert_eq!(host.admin().ask("POST", "/reload?force", &[], "").status, 202);
        host.published()["phases_us"].clone()
    };
    drop(once());
    once()
}

/// All steps together, in milliseconds.
fn whole(phases: &Value) -> f64 {
    phases.as_object().into_iter().flatten().filter_map(|(_, us)| us.as_f64()).sum::<f64>() / 1_000.0
}

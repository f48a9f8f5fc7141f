//! What does a plugin pay for what it logs?
//!
//! One process with one subscriber, whose lines go nowhere. The same loop runs in a plugin and in the host, in turns: an event that the
//! filter leaves out, and one that is written. The plugin is optimised, as the bench itself is.

use std::io::{self, Write};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use midair::probe::Probe;
use midair::swap::{Artifact, Host, Options};
use midair_tests::project::Project;
use midair_tests::statistics::interval;
use tracing_subscriber::EnvFilter;

const SOURCE: &str = r#"
use std::time::Instant;

use midair_plugin::{Ctx, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/left_out/{n}", left_out).get("/written/{n}", written)
}

fn left_out(req: Request, _: Ctx) -> Result<String> {
    let n: u64 = req.param("n")?;
    let start = Instant::now();
    for id in 0..n {
        tracing::debug!(id, name = "a name", "did {id}");
    }
    Ok((start.elapsed().as_nanos() as f64 / n as f64).to_string())
}

fn written(req: Request, _: Ctx) -> Result<String> {
    let n: u64 = req.param("n")?;
    let start = Instant::now();
    for id in 0..n {
        tracing::info!(id, name = "a name", "did {id}");
    }
    Ok((start.elapsed().as_nanos() as f64 / n as f64).to_string())
}
"#;

const ROUNDS: usize = 31;
const LEFT_OUT: u64 = 2_000_000;
const WRITTEN: u64 = 20_000;

/// Nanoseconds an event in the plugin.
fn there(host: &Host, path: &str) -> f64 {
    let request = http::Request::get(path).body(Bytes::new()).expect("a request");
    match pin!(host.ask(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => std::str::from_utf8(answer.body()).ok().and_then(|body| body.parse().ok()).expect("a number"),
        Poll::Pending => panic!("this handler answers at once"),
    }
}

fn left_out_here() -> f64 {
    let start = Instant::now();
    for id in 0..LEFT_OUT {
        tracing::debug!(id, name = "a name", "did {id}");
    }
    start.elapsed().as_nanos() as f64 / LEFT_OUT as f64
}

fn written_here() -> f64 {
    let start = Instant::now();
    for id in 0..WRITTEN {
        tracing::info!(id, name = "a name", "did {id}");
    }
    start.elapsed().as_nanos() as f64 / WRITTEN as f64
}

fn main() {
    // `cargo test` runs benches too, to see that they start; what they measure there says nothing.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new("info")).with_ansi(false).with_writer(io::sink).init();
    let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let project = Project::plugin("bench-logs", SOURCE);
    let tracing = "serde_json = \"1\"\ntracing = { version = \"0.1\", default-features = false, features = [\"std\"] }\n";
    project.edit("Cargo.toml", "serde_json = \"1\"\n", tracing);
    let path = project.build_optimised(folder.path()).remove(0);
    let host = Host::new(Options { probe: Probe::Off, ..Options::development(data.path()) }).expect("a host");
    let record = host.swap(host.begin("bench"), vec![Artifact { plugin: String::new(), path }]);
    assert!(record.code.is_none(), "{record:?}");
    let (mut left_out, mut written) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..=ROUNDS {
        let times = [left_out_here(), there(&host, &format!("/left_out/{LEFT_OUT}"))];
        let writes = [written_here(), there(&host, &format!("/written/{WRITTEN}"))];
        // The first one warms up.
        if round > 0 {
            (0..2).for_each(|side| left_out[side].push(times[side]));
            (0..2).for_each(|side| written[side].push(writes[side]));
        }
    }
    let mut out = io::stdout();
    writeln!(out, "{ROUNDS} rounds, medians [95 %]").expect("it can be printed");
    for (what, [here, there]) in [("left out", &left_out), ("written", &written)] {
        let ratios: Vec<f64> = there.iter().zip(here).map(|(there, here)| there / here).collect();
        for (side, values, unit) in [("in the host", here, "ns"), ("in the plugin", there, "ns"), ("ratio", &ratios, "x")] {
            let [middle, low, high] = interval(values);
            writeln!(out, "{what:<9} {side:<14} {middle:9.2} {unit} [{low:.2}, {high:.2}]").expect("it can be printed");
        }
    }
}

//! How long does going back take, as its clients see it?
//!
//! A host serves one artifact, committed, and gets another one, on trial. Each round that one is taken anew, and sent back: by hand, while
//! a client asks without a pause, or by a breach, by the fifth failed answer in a row. The clock runs from the moment at which the call,
//! or the request that is one too many, is sent, to the first answer of the generation before. It runs in the client: the way there and
//! back is in it. What the host says of itself stands beside it: from the call or that answer to the store.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::asker::{Asker, Lost};
use crate::host::{Launch, Midair};
use crate::statistics::interval;
use crate::{fixture, patience, project};

/// The fifth failed answer in a row is one too many.
const IN_A_ROW: u32 = 5;

/// Goes back so many times each way and words what came out.
///
/// # Panics
///
/// If something doesn't build, serve, or go back.
#[must_use]
pub fn measure(midair: &Path, rounds: usize) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = fixture::artifact("going_back").named("bench-rollback");
    let path = fixture.clone().variant("before").save_in(folder.path());
    let after = fixture.variant("after").bytes();
    let data = folder.path().join("data");
    let run = || Launch::of(Command::new(midair), "run", &[&path]).arg("--generation-header").arg("--data").arg(&data);
    let mut first = run().arg("--probation").arg("0").arg("--probation-requests").arg("0").start();
    first.wait_for("committed", |event| event["event"] == "committed");
    assert!(first.terminate().status.success(), "the first run ends well");
    // What comes after it stays on trial, however long it is asked, and goes back by its failures alone.
    let mut midair = run().arg("--probation").arg("3600").arg("--breach-latency").arg("1000000").start();
    midair.published();
    (0..50).for_each(|_| assert_eq!(midair.get("/").status, 200));
    project::save(&path, after);
    midair.published();
    let (asker, admin) = (Asker::new(midair.http().0), Asker::of(midair.admin()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut bench = Bench { midair, runtime, asker, admin };
    let mut report = format!("{rounds} rounds, medians [95 %]\n");
    for (what, way) in [("by hand, POST /rollback", Way::Hand), ("by breach, the fifth failure", Way::Breach)] {
        let (mut seen, mut told) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (ms, event) = bench.round(way);
            seen.push(ms);
            told.push(event["after_us"].as_f64().expect("microseconds") / 1_000.0);
        }
        for (what, values) in [(what, &seen), ("  as the host says, to the store", &told)] {
            let [middle, low, high] = interval(values);
            let worst = values.iter().copied().fold(0.0, f64::max);
            writeln!(report, "{what:<34} {middle:7.3} ms [{low:.3}, {high:.3}], at most {worst:.3}").expect("a string takes it");
        }
    }
    report
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Hand,
    Breach,
}

struct Bench {
    midair: Midair,
    runtime: Runtime,
    asker: Asker,
    admin: Asker,
}

impl Bench {
    /// Goes back out of a trial; milliseconds to the first answer of generation 1, and the event. Then the trial begins anew.
    fn round(&mut self, way: Way) -> (f64, Value) {
        let Self { midair, runtime, asker, admin } = self;
        let back = async {
            // Both connections are there before the clock runs.
            assert_ne!(asker.get("/").await?.generation, Some(1), "on trial");
            assert_eq!(admin.get("/healthz").await?.status, 200);
            let start;
            if way == Way::Hand {
                start = Instant::now();
                let (called, seen) = tokio::join!(admin.post("/rollback"), first(asker));
                assert_eq!(called?.status, 200);
                return Ok::<_, Lost>(seen? - start);
            }
            for _ in 1..IN_A_ROW {
                assert_eq!(asker.get("/fail").await?.status, 500);
            }
            start = Instant::now();
            assert_eq!(asker.get("/fail").await?.status, 500);
            Ok(first(asker).await? - start)
        };
        let took = runtime.block_on(back).unwrap_or_else(|lost| panic!("{lost}\n{}", midair.story()));
        let event = midair.wait_for("rolled_back", |event| event["event"] == "rolled_back");
        assert_eq!((&event["to"], &event["by"]), (&1.into(), &Value::from(if way == Way::Hand { "hand" } else { "breach" })));
        let forced = runtime.block_on(admin.post("/reload?force")).unwrap_or_else(|lost| panic!("{lost}\n{}", midair.story()));
        assert_eq!(forced.status, 202);
        midair.published();
        (took.as_secs_f64() * 1_000.0, event)
    }
}

/// The moment of the first answer of generation 1.
async fn first(asker: &mut Asker) -> Result<Instant, Lost> {
    let until = Instant::now() + patience();
    loop {
        let answer = asker.get("/").await?;
        let now = Instant::now();
        if answer.generation == Some(1) {
            return Ok(now);
        }
        if now >= until {
            return Err(format!("it never went back: {answer:?}").into());
        }
    }
}

//! How long does going back take where it happens, sockets apart?
//!
//! Two generations are kept, and [`Host::roll_back`] puts one back after the other, while another thread asks [`Host::ask`] without a pause.
//! The clock runs from the call to the first answer of the generation that was put back. The call itself takes longer: after the store it
//! writes down what is held.

use std::fmt::Write;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use midair::attempt::Outcome;
use midair::probation::Rules;
use midair::probe::Probe;
use midair::swap::{Artifact, Host, Options, Which};
use midair_tests::statistics::interval;
use midair_tests::{fixture, project};

/// The number of the generation that answers.
fn ask(host: &Host) -> u64 {
    let request = http::Request::get("/").body(Bytes::new()).expect("a request");
    match pin!(host.ask(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => std::str::from_utf8(answer.body()).ok().and_then(|body| body.parse().ok()).expect("a number"),
        Poll::Pending => panic!("this handler answers at once"),
    }
}

/// Goes back so many times and words what came out.
pub(crate) fn measure(rounds: usize) -> String {
    let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("libbench.so");
    let rules = Rules { acts: false, ..Rules::PRODUCTION };
    let host = Host::new(Options { probe: Probe::Off, rules, ..Options::new(data.path()) }).expect("a host");
    for bytes in fixture::artifacts("saying", "bench-rollback-here", ["1", "2"]) {
        project::save(&path, bytes);
        let record = host.swap(host.begin("bench"), vec![Artifact { plugin: String::new(), path: path.clone() }]);
        assert_eq!(record.outcome, Outcome::Published, "{record:?}");
    }
    // What the asker is to look for; 0 for nothing.
    let wanted = AtomicU64::new(0);
    const NO_MORE: u64 = u64::MAX;
    let (found, seen) = channel();
    let (mut to_answer, mut to_return) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            // The sender goes with its thread: nobody waits for one that broke.
            let found = found;
            loop {
                let answered = ask(&host);
                let now = Instant::now();
                match wanted.load(SeqCst) {
                    NO_MORE => return,
                    wants if wants == answered => {
                        wanted.store(0, SeqCst);
                        found.send(now).expect("somebody waits");
                    }
                    _ => {}
                }
            }
        });
        for round in 0..rounds as u64 {
            let to = 1 + round % 2;
            wanted.store(to, SeqCst);
            let start = Instant::now();
            let record = host.roll_back(&Which::To("bench-rollback-here".to_owned(), to));
            to_return.push(start.elapsed().as_secs_f64() * 1e6);
            assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
            to_answer.push((seen.recv().expect("an answer") - start).as_secs_f64() * 1e6);
        }
        wanted.store(NO_MORE, SeqCst);
    });
    let mut report = format!("{rounds} rounds in process, medians [95 %]\n");
    for (what, values) in [("Host::roll_back to the first answer", &to_answer), ("  to its return, with the disk", &to_return)] {
        let [middle, low, high] = interval(values);
        let worst = values.iter().copied().fold(0.0, f64::max);
        writeln!(report, "{what:<36} {middle:7.0} us [{low:.0}, {high:.0}], at most {worst:.0}").expect("a string takes it");
    }
    report
}

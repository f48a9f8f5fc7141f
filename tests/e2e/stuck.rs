//! What still works when every thread that serves requests is stuck in a plugin?

use std::io::Write;
use std::process::Command;

use midair_tests::host::Launch;
use midair_tests::{cargo, fixture};

#[test]
fn fault_25_g14_g15_with_every_worker_stuck_a_swap_completes_status_answers_and_the_host_ends() {
    let fixture = fixture::artifact("stuck");
    let placed = fixture.clone().variant("one").placed();
    let workers = 2;
    let has_option = Command::new(cargo::midair()).args(["run", "--help"]).output().expect("it runs");
    let has_option = String::from_utf8_lossy(&has_option.stdout).contains("--workers");
    let cores = std::thread::available_parallelism().map_or(workers, usize::from);
    let mut launch = Launch::run(&[&placed.path]).arg("--drain-timeout").arg("1");
    if has_option {
        launch = launch.arg("--workers").arg(workers.to_string());
    }
    let stuck = 4 * if has_option { workers } else { cores };
    let mut midair = launch.start();
    midair.published();

    let mut streams = Vec::new();
    for number in 0..stuck {
        let mut stream = midair.http().connect();
        let path = if number % 2 == 0 { "/stuck" } else { "/stuck-later" };
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("it can be sent");
        streams.push(stream);
    }
    // With all of them stuck, no further request gets through to say so.
    for _ in 0..if has_option { workers } else { cores } {
        midair.wait_for("a worker that is stuck", |event| event["event"] == "log" && event["message"] == "stuck");
    }

    fixture.variant("two").save_in(placed.folder());
    let published = midair.published();
    let status = midair.client(&["status", "--json"]).output().expect("it runs");
    assert_eq!(status.status.code(), Some(0));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let plugin = &status["plugins"][0];
    assert_eq!(plugin["generation"], published["generation"]);
    assert_eq!(midair.admin().get("/healthz").status, 200);

    let ended = midair.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
    let abandoned = ended.events.last().and_then(|last| last["abandoned"].as_u64());
    assert!(abandoned.is_some_and(|abandoned| abandoned >= 1), "{}", ended.words());
}

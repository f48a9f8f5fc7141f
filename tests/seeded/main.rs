//! Do the tests bite?
//!
//! The host is built once with deliberate bugs, of which the environment wakes one at a time: as the binary, and within the end-to-end tests
//! that are a host themselves. For each bug the end-to-end test that is named here has to fail, and every one of these tests has to
//! hold with the very same host while its bugs sleep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use midair_tests::random::Random;
use midair_tests::{cargo, is_full, repository};

const RENAME: &str = "run::an_artifact_that_is_replaced_by_rename_goes_live";
const CP: &str = "run::fault_6_cp_over_the_file_that_serves_goes_live_and_hurts_nobody";
const LONG: &str = "run::fault_23_g1_a_request_lives_through_twenty_swaps_and_ends_on_its_own_generation";
const DIGEST: &str = "artifact::g7_the_digest_beside_an_artifact_must_match_and_may_come_later";
const ONLY_HERE: &str = "probe::fault_16_g6_what_works_in_the_probe_and_fails_in_the_host_is_refused_and_nothing_happened";
const INIT_WROTE: &str = "probe::a_self_test_sees_what_init_wrote_and_its_own_routes_and_nothing_of_it_stays";
const SELF_TEST: &str = "probe::fault_15_g6_a_self_test_or_smoke_that_fails_is_refused_with_its_own_words";
const BUDGET: &str = "budget::fault_25_g4_over_the_budget_a_swap_is_refused_and_nobody_is_killed";
const BY_HAND: &str = "rollback::fault_42_what_was_rolled_back_by_hand_stays_away_until_it_is_forced";
const PANICS: &str = "rollback::fault_19_g12_one_panic_in_fifty_on_trial_brings_the_committed_generation_back_by_itself";
const IN_A_ROW: &str = "rollback::failures_in_a_row_break_the_circuit_and_where_nothing_was_before_they_are_told";
const ALONE: &str = "rollback::fault_41_of_two_plugins_on_trial_the_one_that_breaches_goes_back_alone";
const CRASH: &str = "rollback::fault_21_g11_g20_a_crash_on_trial_starts_what_was_committed_and_quarantines_the_rest";
const BEHIND: &str = "dev::fault_40_an_edit_of_what_the_running_build_has_read_already_is_built_after_it";

const TASKS: &str = "tasks::g1_a_task_of_a_request_stays_on_its_code_and_shows_as_the_request";
const DROPPED: &str = "tasks::work_that_may_be_dropped_is_and_other_work_is_named_and_keeps_its_code";
const DECLARED: &str = "tasks::a_declared_task_begins_with_each_service_of_its_code_and_is_told_of_the_end";
const STREAMS: &str =
    "streams::fault_24_a_streamed_body_and_an_event_stream_live_through_twenty_swaps_and_end_on_their_own_generation";
const GATHERED: &str = "streams::asked_within_the_process_a_stream_is_gathered_and_who_asks_for_pieces_gets_one";
const CLIENT_GONE: &str = "streams::what_a_client_does_not_take_is_not_made_and_when_it_goes_the_body_is_dropped";
const SOCKET_BACK: &str = "sockets::a_rollback_gives_the_next_message_to_the_code_before";
const JOBS: &str = "jobs::every_beat_runs_once_and_none_is_missed_over_two_hundred_swaps";
const JOBS_CHANGE: &str = "jobs::another_period_a_removed_job_and_a_way_back_take_effect_with_the_publish";
const OVERLAP: &str = "jobs::a_beat_that_is_due_while_the_last_one_runs_is_left_out_or_waits_or_runs_beside_it";
const MESSAGES: &str =
    "messages::ten_thousand_messages_over_fifty_swaps_are_each_handled_once_in_order_by_what_serves_when_its_turn_comes";
const FULL: &str = "messages::who_emits_to_a_full_queue_waits_or_is_told_whose_it_is";
const KEPT: &str = "messages::what_waits_for_code_that_takes_none_waits_while_it_is_on_trial";
const MIGRATES: &str = "state::fault_33_g13_a_migration_lets_newer_code_read_and_what_it_reverses_is_read_after_a_rollback";
const ENDS: &str = "state::a_value_that_was_put_for_a_while_is_gone_after_it_in_memory_and_on_disk";
const RESTART: &str = "durable::what_was_written_is_there_after_a_restart_and_the_file_is_one_hosts";
const LEVELS: &str = "logs::levels_are_changed_by_target_while_two_plugins_run_and_without_a_swap";
const CONFIG_FIRST: &str = "config::code_and_config_that_need_each_other_go_live_in_one_store_whichever_comes_first";
const BAD_CONFIG: &str =
    "config::what_a_plugin_can_not_take_is_refused_with_file_line_key_and_expectation_and_the_next_good_save_wins";
const CONFIG_BACK: &str = "config::a_rollback_goes_back_with_the_config_that_the_code_served_with";

/// Each bug with the test that catches it.
const BUGS: [(&str, &str); 49] = [
    ("pointer-per-handler", LONG),
    ("lease-not-held", LONG),
    ("unmaps-at-retire", LONG),
    ("opens-the-path", CP),
    ("store-before-init", ONLY_HERE),
    ("says-unseen", RENAME),
    ("writes-unqueued", ONLY_HERE),
    ("writes-forgotten", INIT_WROTE),
    ("hash-ignored", DIGEST),
    ("probe-ignored", SELF_TEST),
    ("always-unchanged", RENAME),
    ("numbers-reused", RENAME),
    ("budget-ignored", BUDGET),
    ("breach-unjudged", IN_A_ROW),
    ("panic-uncounted", PANICS),
    ("rollback-unstored", BY_HAND),
    ("rollback-takes-others", ALONE),
    ("rolled-back-unheld", BY_HAND),
    ("trial-unmarked", CRASH),
    ("commit-unwritten", CRASH),
    ("quarantine-forgotten", CRASH),
    ("edits-lost-in-build", BEHIND),
    ("task-unleased", TASKS),
    ("droppable-kept", DROPPED),
    ("tasks-not-begun-again", DECLARED),
    ("stream-unleased", STREAMS),
    ("piece-lost", GATHERED),
    ("body-kept", CLIENT_GONE),
    ("socket-stays-on-code", SOCKET_BACK),
    ("socket-state-lost", SOCKET_BACK),
    ("sockets-end-with-swap", SOCKET_BACK),
    ("beat-restarts", JOBS_CHANGE),
    ("jobs-begun-anew", JOBS),
    ("removed-job-goes-on", JOBS_CHANGE),
    ("queue-skips", OVERLAP),
    ("waiting-beat-lost", OVERLAP),
    ("message-twice", MESSAGES),
    ("full-queue-drops", FULL),
    ("nothing-waits", KEPT),
    ("tables-untried", MIGRATES),
    ("migrate-unasked", MIGRATES),
    ("unreadable-uncounted", MIGRATES),
    ("ttl-ignored", ENDS),
    ("batch-in-two", RESTART),
    ("logs-as-last-swap", TASKS),
    ("levels-once", LEVELS),
    ("config-apart", CONFIG_FIRST),
    ("bad-config-taken", BAD_CONFIG),
    ("rollback-forgets-config", CONFIG_BACK),
];

/// How long a test waits for an event that a bug may keep from coming, in seconds.
const PATIENCE: &str = "10";

/// Runs one end-to-end test; whether it held, and what it said.
fn holds(name: &str, bug: Option<&str>, kept: &Path) -> (bool, String) {
    let mut command = Command::new(&cargo::seeded().tests);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env("MIDAIR_BIN", &cargo::seeded().midair);
    // What other tests' projects depend on is compiled already, and each test runs more than once.
    command.env("MIDAIR_PROJECTS", repository::shared_target()).env("MIDAIR_KEPT", kept);
    match bug {
        Some(bug) => command.env("MIDAIR_BUG", bug).env("MIDAIR_PATIENCE", PATIENCE),
        None => command.env_remove("MIDAIR_BUG"),
    };
    let output = command.stdin(Stdio::null()).output().expect("the tests run");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("running 1 test"), "there is no test {name}:\n{said}");
    assert!(!said.contains("left out:") && !said.contains("could not compile"), "{name} can't tell:\n{said}");
    (output.status.success(), said)
}

/// What a failed test said first.
fn complaint(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
    let first = lines.nth(1).unwrap_or_default();
    first.chars().take(100).collect()
}

/// The bugs that the host knows, by its own source.
fn known() -> BTreeSet<String> {
    let source = repository::read("host/src/mutation.rs");
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split_once("\", Bug::"));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn each_bug_has_a_test_and_there_is_no_bug_but_those() {
    let named: BTreeSet<String> = BUGS.iter().map(|(bug, _)| (*bug).to_owned()).collect();
    assert_eq!(named, known());
    for (bug, test) in BUGS {
        let (module, name) = test.rsplit_once("::").expect("a test is in a module");
        let source = repository::read(&format!("tests/e2e/{module}.rs"));
        assert!(source.contains(&format!("fn {name}()")), "{bug}: there is no test {test}");
    }
}

/// The tests with the bugs that they catch: all at full size, else as many as are drawn, by the seed in `MIDAIR_SEED` if there is one.
#[expect(clippy::print_stdout, reason = "whoever sees it fail repeats it by its seed")]
fn chosen() -> BTreeMap<&'static str, Vec<&'static str>> {
    const FEW: usize = 12;
    let mut bugs = BUGS.to_vec();
    // For whoever works on one of them.
    if let Ok(only) = std::env::var("MIDAIR_ONLY_BUG") {
        bugs.retain(|(bug, _)| *bug == only);
    } else if !is_full() {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
        let seed = std::env::var("MIDAIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
        println!("{FEW} bugs of {}, drawn by MIDAIR_SEED={seed}", bugs.len());
        let mut random = Random::new(seed);
        while bugs.len() > FEW {
            bugs.swap_remove(random.below(bugs.len()));
        }
    }
    let mut tests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (bug, test) in bugs {
        tests.entry(test).or_default().push(bug);
    }
    tests
}

#[test]
#[ignore = "tests/long mutations"]
#[expect(clippy::print_stdout, reason = "the table is what somebody runs this for")]
fn every_seeded_bug_turns_a_named_test_red() {
    let tests = chosen();
    let kept = tempfile::tempdir().expect("a folder");
    assert!(has_bugs(&cargo::seeded().midair), "this is how one looks that has them");
    // One test at a time with all its bugs, and as many tests at once as there are processors.
    let (waiting, survivors) = (Mutex::new(tests), Mutex::new(Vec::new()));
    let next = || waiting.lock().expect("a lock").pop_first();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, Into::into) {
            scope.spawn(|| {
                while let Some((test, bugs)) = next() {
                    let (text, missed) = try_all(test, &bugs, kept.path());
                    println!("{text}");
                    survivors.lock().expect("a lock").extend(missed);
                }
            });
        }
    });
    let survivors = survivors.into_inner().expect("a lock");
    assert!(survivors.is_empty(), "no test found {survivors:?}");
}

/// Runs a test without a bug, when it has to hold, and with each of these; what came of it in words, and the bugs that it didn't find.
fn try_all<'a>(test: &str, bugs: &[&'a str], kept: &Path) -> (String, Vec<&'a str>) {
    let timed = |bug| {
        let start = Instant::now();
        let (held, said) = holds(test, bug, kept);
        (held, said, start.elapsed().as_secs_f64())
    };
    let (held, said, took) = timed(None);
    assert!(held, "{test} has to hold while all bugs sleep:\n{said}");
    let (mut text, mut missed) = (format!("{test}\n  {took:<7.1}no bug"), Vec::new());
    for bug in bugs {
        let (held, said, took) = timed(Some(bug));
        let outcome = if held { "NOT FOUND".to_owned() } else { complaint(&said) };
        missed.extend(held.then_some(*bug));
        text.push_str(&format!("\n  {took:<7.1}{bug:<24}{outcome}"));
    }
    (text, missed)
}

/// Whether a binary has bugs to choose.
fn has_bugs(binary: &Path) -> bool {
    let bytes = std::fs::read(binary).expect("a binary");
    bytes.windows(b"MIDAIR_BUG".len()).any(|window| window == b"MIDAIR_BUG")
}

#[test]
fn what_ships_knows_no_bug_to_choose() {
    assert!(!has_bugs(cargo::midair()));
}

//! How does a person read a host's status?
//!
//! From the answer of `/status` to text. What this version doesn't know is left out, what an older host doesn't say is left empty.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use super::render::count;

/// The parts of a host's status that people are shown.
#[derive(Debug, Deserialize)]
pub struct Status {
    run: String,
    pid: u32,
    dev: bool,
    #[serde(default)]
    probe: Option<bool>,
    epoch: u64,
    plugins: Vec<Plugin>,
    #[serde(default)]
    held: BTreeMap<String, Vec<Held>>,
    #[serde(default)]
    leases: Vec<Lease>,
    #[serde(default)]
    tasks: Vec<Task>,
    #[serde(default)]
    jobs: Vec<Job>,
    #[serde(default)]
    topics: Vec<Topic>,
    #[serde(default)]
    sockets: Vec<Socket>,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Held {
    digest: String,
    reason: String,
}

/// Every generation, as people are shown it.
#[derive(Debug, Deserialize)]
pub struct Generations {
    generations: Vec<Generation>,
    #[serde(default)]
    libraries: Libraries,
    #[serde(default)]
    budget: BTreeMap<String, Share>,
}

#[derive(Debug, Deserialize)]
struct Share {
    used: u64,
    limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Generation {
    plugin: String,
    generation: u64,
    phase: String,
    digest: String,
    #[serde(default)]
    leases: Vec<Lease>,
    #[serde(default)]
    blockers: Vec<Blocker>,
    #[serde(default)]
    tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
struct Blocker {
    lease: u64,
    call: String,
    age_us: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Libraries {
    opened: u64,
    maps: u64,
    mapped_bytes: u64,
}

/// What a rollback's record says.
#[derive(Debug, Deserialize)]
pub struct RolledBack {
    parts: Vec<Part>,
}

#[derive(Debug, Deserialize)]
struct Part {
    plugin: String,
    generation: u64,
    digest: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plugin {
    plugin: String,
    generation: Option<u64>,
    phase: Option<String>,
    way_back: Option<u64>,
    digest: Option<String>,
    config: Option<String>,
    leases: u64,
    requests: u64,
    errors: u64,
    panics: u64,
    retained: u64,
    census: Census,
    unreadable: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Census {
    threads: u64,
    destructors: u64,
    keys: u64,
}

#[derive(Debug, Deserialize)]
struct Lease {
    id: u64,
    plugin: String,
    generation: u64,
    handler: String,
    age_us: u64,
}

/// Work beside requests.
#[derive(Debug, Deserialize)]
struct Task {
    id: u64,
    plugin: String,
    generation: u64,
    task: String,
    age_us: u64,
    #[serde(default)]
    busy_us: u64,
}

/// Work that is done again and again.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Job {
    plugin: String,
    job: String,
    period_us: u64,
    beats: u64,
    skipped: u64,
    failed: u64,
    running: u64,
    last_us: Option<u64>,
    next_us: u64,
}

/// Messages of one name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Topic {
    topic: String,
    emitted: u64,
    unheard: u64,
    subscribers: Vec<Subscriber>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subscriber {
    subscriber: String,
    queued: u64,
    running: u64,
    delivered: u64,
    failed: u64,
    dropped: u64,
}

/// The WebSockets of a route.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Socket {
    plugin: String,
    route: String,
    open: u64,
    opened: u64,
    queued: u64,
    queued_bytes: u64,
    overrun: u64,
    stalled: u64,
    silent: u64,
    removed: u64,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    id: u64,
    trigger: String,
    outcome: String,
    code: Option<String>,
    reason: Option<String>,
}

/// Leases and attempts that are shown; JSON has them all.
const SHOWN: usize = 10;

/// The status as text that ends in a line end.
#[must_use]
pub fn status(status: &Status) -> String {
    let mode = if status.dev { "dev" } else { "run" };
    let probe = status.probe.map(|is_on| if is_on { ", probe on" } else { ", probe off" }).unwrap_or_default();
    let mut text = format!("{mode} host, pid {}, run {}, epoch {}{probe}\n", status.pid, status.run, status.epoch);
    let head = [
        "plugin",
        "generation",
        "is",
        "way back",
        "digest",
        "config",
        "requests",
        "errors",
        "panics",
        "in flight",
        "retained",
        "threads",
        "destructors",
        "keys",
    ];
    let plugins = status.plugins.iter().map(|plugin| {
        let digest = |digest: Option<&str>| short(digest.unwrap_or("-"));
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let phase = plugin.phase.as_deref().map_or("-", phase);
        let Census { threads, destructors, keys } = plugin.census;
        let counts = [plugin.requests, plugin.errors, plugin.panics, plugin.leases, plugin.retained, threads, destructors, keys]
            .map(|count| count.to_string());
        let (generation, way_back) = (number(plugin.generation), number(plugin.way_back));
        let mut row = vec![
            plugin.plugin.clone(),
            generation,
            phase.to_owned(),
            way_back,
            digest(plugin.digest.as_deref()),
            digest(plugin.config.as_deref()),
        ];
        row.extend(counts);
        row
    });
    section(&mut text, &head, plugins.collect());

    let unreadable = status.plugins.iter().flat_map(|plugin| plugin.unreadable.iter().map(move |table| (plugin, table)));
    let unreadable = unreadable.map(|(plugin, (table, values))| vec![plugin.plugin.clone(), table.clone(), values.to_string()]);
    section(&mut text, &["can't read", "table", "values"], unreadable.collect());

    let held = status.held.iter().flat_map(|(plugin, held)| held.iter().map(move |held| (plugin, held)));
    let held = held.map(|(plugin, Held { digest, reason })| vec![plugin.clone(), short(digest), reason.clone()]);
    section(&mut text, &["held of", "digest", "reason"], held.collect());

    let mut oldest: Vec<_> = status.leases.iter().collect();
    oldest.sort_by_key(|lease| std::cmp::Reverse(lease.age_us));
    let leases = oldest.iter().take(SHOWN).map(|lease| {
        vec![lease.id.to_string(), format!("{} {}", lease.plugin, lease.generation), lease.handler.clone(), age(lease.age_us)]
    });
    section(&mut text, &["lease", "on", "handler", "age"], leases.collect());
    left_out(&mut text, oldest.len(), "lease");

    let tasks = status.tasks.iter().take(SHOWN).map(|Task { id, plugin, generation, task, age_us, busy_us }| {
        // Work that never awaits holds a thread.
        let busy = if *busy_us >= 1_000_000 { age(*busy_us) } else { String::new() };
        vec![id.to_string(), format!("{plugin} {generation}"), task.clone(), age(*age_us), busy]
    });
    section(&mut text, &["task", "on", "name", "age", "without a pause"], tasks.collect());
    left_out(&mut text, status.tasks.len(), "task");

    jobs_and_topics(&mut text, status);
    let sockets = status.sockets.iter().map(|socket| {
        let Socket { open, opened, queued, queued_bytes, overrun, stalled, silent, removed, .. } = socket;
        let kib = queued_bytes.div_ceil(1 << 10);
        let mut row = vec![format!("{} {}", socket.plugin, socket.route), open.to_string(), opened.to_string()];
        row.push(format!("{queued}, {kib} KiB"));
        row.extend([overrun, stalled, silent, removed].map(u64::to_string));
        row
    });
    let head = ["sockets of", "open", "so far", "queued", "too slow", "stalled", "silent", "route gone"];
    section(&mut text, &head, sockets.collect());

    let attempts = status.attempts.iter().rev().take(SHOWN).map(|attempt| {
        let code = attempt.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
        let reason = attempt.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default();
        vec![attempt.id.to_string(), attempt.trigger.clone(), format!("{}{code}", attempt.outcome), reason.to_owned()]
    });
    section(&mut text, &["attempt", "trigger", "outcome", "reason"], attempts.collect());
    left_out(&mut text, status.attempts.len(), "attempt");
    text
}

/// The jobs and the topics.
fn jobs_and_topics(text: &mut String, status: &Status) {
    let jobs = status.jobs.iter().map(|job| {
        let counts = [job.beats, job.skipped, job.failed, job.running].map(|count| count.to_string());
        let mut row = vec![job.job.clone(), job.plugin.clone(), age(job.period_us)];
        row.extend(counts);
        row.extend([job.last_us.map_or_else(|| "-".to_owned(), age), age(job.next_us)]);
        row
    });
    section(text, &["job", "of", "every", "beats", "skipped", "failed", "running", "last took", "next in"], jobs.collect());

    let topics = status.topics.iter().flat_map(|topic| {
        let row = move |to: &str, counts: [u64; 5]| {
            let mut row = vec![topic.topic.clone(), topic.emitted.to_string(), topic.unheard.to_string(), to.to_owned()];
            row.extend(counts.map(|count| count.to_string()));
            row
        };
        let nobody = topic.subscribers.is_empty().then(|| row("-", [0; 5]));
        let each = topic
            .subscribers
            .iter()
            .map(move |to| row(&to.subscriber, [to.queued, to.running, to.delivered, to.failed, to.dropped]));
        nobody.into_iter().chain(each)
    });
    let head = ["topic", "emitted", "unheard", "to", "queued", "running", "delivered", "failed", "dropped"];
    section(text, &head, topics.collect());
}

/// The generations as text that ends in a line end.
#[must_use]
pub fn generations(told: &Generations) -> String {
    let Libraries { opened, maps, mapped_bytes } = told.libraries;
    let mib = mapped_bytes.div_ceil(1 << 20);
    let mut text = format!("{opened} libraries opened, {maps} maps, {mib} MiB mapped\n");
    let mebi = |name: &str, number: u64| if name == "bytes" { (number >> 20, " MiB of copies") } else { (number, "") };
    let shares = told.budget.iter().map(|(name, Share { used, limit })| {
        let ((used, unit), limit) = (mebi(name, *used), limit.map(|limit| mebi(name, limit).0.to_string()));
        format!("{used} of {} {}", limit.as_deref().unwrap_or("any number of"), if unit.is_empty() { name } else { unit.trim() })
    });
    let shares: Vec<String> = shares.collect();
    if !shares.is_empty() {
        let _ = writeln!(text, "in use: {}", shares.join(", "));
    }
    let rows = told.generations.iter().map(|generation| {
        // Work keeps code that serves as well; only of code that doesn't is that worth saying.
        let tasks = generation.tasks.iter().filter(|_| ["kept", "retired"].contains(&generation.phase.as_str()));
        let tasks = tasks.map(|Task { id, task, age_us, .. }| (*age_us, format!("task {id} {task}")));
        let calls = generation.blockers.iter().map(|Blocker { lease, call, age_us }| (*age_us, format!("lease {lease} {call}")));
        let holders: Vec<(u64, String)> = calls.chain(tasks).collect();
        let oldest = holders.iter().max_by_key(|(age_us, _)| *age_us);
        let held_by = oldest.map_or_else(String::new, |(age_us, holder)| format!("{holder} {}", age(*age_us)));
        vec![
            generation.plugin.clone(),
            generation.generation.to_string(),
            phase(&generation.phase).to_owned(),
            short(&generation.digest),
            generation.leases.len().to_string(),
            holders.len().to_string(),
            held_by,
        ]
    });
    section(&mut text, &["plugin", "generation", "is", "digest", "in flight", "held by", "oldest"], rows.collect());
    text
}

/// What serves again, as text that ends in a line end.
#[must_use]
pub fn rolled_back(record: &RolledBack) -> String {
    let parts = record.parts.iter();
    parts.map(|Part { plugin, generation, digest }| format!("{plugin} {generation} ({}) serves again\n", short(digest))).collect()
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

fn age(us: u64) -> String {
    format!("{}.{} s", us / 1_000_000, us / 100_000 % 10)
}

fn phase(phase: &str) -> &str {
    if phase == "trial" { "on trial" } else { phase }
}

fn left_out(text: &mut String, all: usize, thing: &str) {
    if all > SHOWN {
        let _ = writeln!(text, "... and {}, see --json", count(all - SHOWN, thing));
    }
}

/// Rows under a head, each column as wide as its widest cell. Nothing where there are no rows.
fn section(text: &mut String, head: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let head: Vec<_> = head.iter().map(|cell| cell.to_uppercase()).collect();
    let width = |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    text.push('\n');
    for row in [&head].into_iter().chain(&rows) {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(json: &str, expected: &Expect) {
        expected.assert_eq(&status(&serde_json::from_str(json).expect("a status")));
    }

    #[test]
    fn a_host_that_serves() {
        check(
            r#"{"run":"r1","pid":7,"dev":true,"probe":true,"epoch":9,
                "plugins":[{"plugin":"shop","generation":7,"phase":"trial","way_back":5,"digest":"0123456789abcdef","config":"89abcdef01234567","leases":1,"requests":1200,"errors":3,"panics":0,"retained":2,"census":{"threads":4,"destructors":9,"keys":1}},
                           {"plugin":"cart","generation":null,"digest":null}],
                "held":{"shop":[{"digest":"fedcba9876543210","by":"hand","reason":"rolled back: asked for"}]},
                "leases":[{"id":3,"plugin":"shop","generation":6,"handler":"GET /slow","age_us":61250000}],
                "tasks":[{"id":4,"plugin":"shop","generation":7,"task":"mailer","age_us":2500000,"busy_us":0,"until_retire":true},
                         {"id":5,"plugin":"shop","generation":6,"task":"src/lib.rs:7","age_us":9500000,"busy_us":9400000,"until_retire":false}],
                "jobs":[{"plugin":"shop","job":"trending","period_us":10000000,"overlap":"skip","due":13,"beats":12,"skipped":1,"failed":2,"running":1,"last_us":2500000,"next_us":7200000},
                        {"plugin":"shop","job":"mail","period_us":60000000,"overlap":"queue","due":0,"beats":0,"skipped":0,"failed":0,"running":0,"last_us":null,"next_us":100000}],
                "topics":[{"topic":"order.paid","emitted":9,"unheard":1,"subscribers":[{"subscriber":"mail","subscribed":true,"queued":3,"limit":1024,"running":1,"delivered":4,"failed":1,"dropped":0}]},
                          {"topic":"order.sent","emitted":2,"unheard":2,"subscribers":[]}],
                "sockets":[{"plugin":"shop","route":"/chat/{room}","open":40,"opened":41,"queued":3,"queued_bytes":1025,"overrun":1}],
                "attempts":[{"id":1,"trigger":"start","outcome":"published","code":null,"stage":null,"reason":null,"parts":[],"phases_us":{}},
                            {"id":2,"trigger":"saved src/lib.rs","outcome":"rejected","code":"E_BUILD","reason":"cargo failed\nmore"}]}"#,
            &expect![[r#"
                dev host, pid 7, run r1, epoch 9, probe on

                PLUGIN  GENERATION  IS        WAY BACK  DIGEST        CONFIG        REQUESTS  ERRORS  PANICS  IN FLIGHT  RETAINED  THREADS  DESTRUCTORS  KEYS
                shop    7           on trial  5         0123456789ab  89abcdef0123  1200      3       0       1          2         4        9            1
                cart    -           -         -         -             -             0         0       0       0          0         0        0            0

                HELD OF  DIGEST        REASON
                shop     fedcba987654  rolled back: asked for

                LEASE  ON      HANDLER    AGE
                3      shop 6  GET /slow  61.2 s

                TASK  ON      NAME          AGE    WITHOUT A PAUSE
                4     shop 7  mailer        2.5 s
                5     shop 6  src/lib.rs:7  9.5 s  9.4 s

                JOB       OF    EVERY   BEATS  SKIPPED  FAILED  RUNNING  LAST TOOK  NEXT IN
                trending  shop  10.0 s  12     1        2       1        2.5 s      7.2 s
                mail      shop  60.0 s  0      0        0       0        -          0.1 s

                TOPIC       EMITTED  UNHEARD  TO    QUEUED  RUNNING  DELIVERED  FAILED  DROPPED
                order.paid  9        1        mail  3       1        4          1       0
                order.sent  2        2        -     0       0        0          0       0

                SOCKETS OF         OPEN  SO FAR  QUEUED    TOO SLOW  STALLED  SILENT  ROUTE GONE
                shop /chat/{room}  40    41      3, 2 KiB  1         0        0       0

                ATTEMPT  TRIGGER           OUTCOME           REASON
                2        saved src/lib.rs  rejected E_BUILD  cargo failed
                1        start             published
            "#]],
        );
    }

    #[test]
    fn generations_with_what_holds_them() {
        let json = r#"{"generations":[
            {"plugin":"shop","generation":6,"phase":"retired","digest":"0123456789abcdef","leases":[
              {"id":3,"plugin":"shop","generation":6,"handler":"shop::slow","age_us":61250000}],
             "blockers":[{"lease":3,"call":"shop=6 shop::slow","age_us":61250000},{"lease":9,"call":"cart=1 cart::add","age_us":2000}],
             "file":"","file_bytes":0},
            {"plugin":"shop","generation":7,"phase":"trial","digest":"fedcba9876543210","leases":[],"blockers":[],
             "tasks":[{"id":9,"plugin":"shop","generation":7,"task":"mailer","age_us":99000000}]},
            {"plugin":"shop","generation":5,"phase":"retired","digest":"5","leases":[],"blockers":[],
             "tasks":[{"id":8,"plugin":"shop","generation":5,"task":"mailer","age_us":99000000}]}],
            "libraries":{"opened":3,"maps":12,"mapped_bytes":3145729},
            "budget":{"libraries":{"used":3,"limit":null},"maps":{"used":230,"limit":58977},"bytes":{"used":3145728,"limit":10485760}}}"#;
        expect![[r#"
            3 libraries opened, 12 maps, 4 MiB mapped
            in use: 3 of 10 MiB of copies, 3 of any number of libraries, 230 of 58977 maps

            PLUGIN  GENERATION  IS        DIGEST        IN FLIGHT  HELD BY  OLDEST
            shop    6           retired   0123456789ab  1          2        lease 3 shop=6 shop::slow 61.2 s
            shop    7           on trial  fedcba987654  0          0
            shop    5           retired   5             0          1        task 8 mailer 99.0 s
        "#]]
        .assert_eq(&generations(&serde_json::from_str(json).expect("generations")));
        let record = r#"{"id":4,"outcome":"rolled_back","parts":[{"plugin":"shop","digest":"0123456789abcdef","generation":6}]}"#;
        expect![["shop 6 (0123456789ab) serves again\n"]].assert_eq(&rolled_back(&serde_json::from_str(record).expect("a record")));
    }

    #[test]
    fn a_host_that_has_nothing_yet() {
        check(
            r#"{"run":"r1","pid":7,"dev":false,"epoch":0,"plugins":[]}"#,
            &expect![[r#"
            run host, pid 7, run r1, epoch 0
        "#]],
        );
    }
}

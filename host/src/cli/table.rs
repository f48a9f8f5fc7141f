//! How does a person read a host's status?
//!
//! From the answer of `/status` to text. What this version doesn't know is left out, what an older host doesn't say is left empty.

use std::fmt::Write as _;

use serde::Deserialize;

use super::render::count;

/// The parts of a host's status that people are shown.
#[derive(Debug, Deserialize)]
pub struct Status {
    run: String,
    pid: u32,
    dev: bool,
    epoch: u64,
    plugins: Vec<Plugin>,
    #[serde(default)]
    leases: Vec<Lease>,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plugin {
    plugin: String,
    generation: Option<u64>,
    digest: Option<String>,
    leases: u64,
    requests: u64,
    errors: u64,
    panics: u64,
    retained: u64,
    census: Census,
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
    let mut text = format!("{mode} host, pid {}, run {}, epoch {}\n", status.pid, status.run, status.epoch);
    let head = [
        "plugin",
        "generation",
        "digest",
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
        let digest = plugin.digest.as_deref().unwrap_or("-");
        let generation = plugin.generation.map_or_else(|| "-".to_owned(), |generation| generation.to_string());
        let Census { threads, destructors, keys } = plugin.census;
        let counts = [plugin.requests, plugin.errors, plugin.panics, plugin.leases, plugin.retained, threads, destructors, keys]
            .map(|count| count.to_string());
        let mut row = vec![plugin.plugin.clone(), generation, digest.chars().take(12).collect()];
        row.extend(counts);
        row
    });
    section(&mut text, &head, plugins.collect());

    let mut oldest: Vec<_> = status.leases.iter().collect();
    oldest.sort_by_key(|lease| std::cmp::Reverse(lease.age_us));
    let leases = oldest.iter().take(SHOWN).map(|lease| {
        let age = format!("{}.{} s", lease.age_us / 1_000_000, lease.age_us / 100_000 % 10);
        vec![lease.id.to_string(), format!("{} {}", lease.plugin, lease.generation), lease.handler.clone(), age]
    });
    section(&mut text, &["lease", "on", "handler", "age"], leases.collect());
    left_out(&mut text, oldest.len(), "lease");

    let attempts = status.attempts.iter().rev().take(SHOWN).map(|attempt| {
        let code = attempt.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
        let reason = attempt.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default();
        vec![attempt.id.to_string(), attempt.trigger.clone(), format!("{}{code}", attempt.outcome), reason.to_owned()]
    });
    section(&mut text, &["attempt", "trigger", "outcome", "reason"], attempts.collect());
    left_out(&mut text, status.attempts.len(), "attempt");
    text
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
            r#"{"run":"r1","pid":7,"dev":true,"epoch":9,
                "plugins":[{"plugin":"shop","generation":7,"digest":"0123456789abcdef","leases":1,"requests":1200,"errors":3,"panics":0,"retained":2,"census":{"threads":4,"destructors":9,"keys":1}},
                           {"plugin":"cart","generation":null,"digest":null}],
                "leases":[{"id":3,"plugin":"shop","generation":6,"handler":"GET /slow","age_us":61250000}],
                "attempts":[{"id":1,"trigger":"start","outcome":"published","code":null,"stage":null,"reason":null,"parts":[],"phases_us":{}},
                            {"id":2,"trigger":"saved src/lib.rs","outcome":"rejected","code":"E_BUILD","reason":"cargo failed\nmore"}]}"#,
            &expect![[r#"
                dev host, pid 7, run r1, epoch 9

                PLUGIN  GENERATION  DIGEST        REQUESTS  ERRORS  PANICS  IN FLIGHT  RETAINED  THREADS  DESTRUCTORS  KEYS
                shop    7           0123456789ab  1200      3       0       1          2         4        9            1
                cart    -           -             0         0       0       0          0         0        0            0

                LEASE  ON      HANDLER    AGE
                3      shop 6  GET /slow  61.2 s

                ATTEMPT  TRIGGER           OUTCOME           REASON
                2        saved src/lib.rs  rejected E_BUILD  cargo failed
                1        start             published
            "#]],
        );
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

//! What is left of the state when a host ends, however it does?
#![expect(clippy::print_stdout, reason = "figures for whoever reads along")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use midair_tests::asker::Asker;
use midair_tests::client::Client;
use midair_tests::host::Launch;
use midair_tests::project::save;
use midair_tests::random::Random;
use midair_tests::{fixture, size};
use redb::{Builder, DatabaseError};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::inside::until;
use crate::run::{left_out, one_and_two};

/// The plugin's artifact, in a folder of its own.
fn artifact(plugin: &str, name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let artifact = fixture::artifact(plugin).named(name).save_in(folder.path());
    (folder, artifact)
}

fn on(artifact: &Path, state: &Path) -> Launch {
    Launch::run(&[artifact])
        .arg("--state")
        .arg(state)
        .arg("--no-probe")
        .arg("--probation")
        .arg("0")
        .arg("--probation-requests")
        .arg("0")
}

/// The pairs that are there, by number: which of `a` and `b`.
fn pairs(client: Client) -> BTreeMap<u64, String> {
    let mut pairs = BTreeMap::<u64, String>::new();
    for row in client.get("/pairs").json().as_array().expect("rows") {
        let (key, value) = (row[0].as_str().expect("a key"), row[1].as_u64().expect("a value"));
        assert_eq!(key[1..].parse(), Ok(value), "{key}");
        pairs.entry(value).or_default().push_str(&key[..1]);
    }
    pairs
}

#[test]
fn fault_36_g17_after_a_kill_all_that_was_answered_is_there_and_nothing_is_half_there() {
    let kills = size(12, 100);
    let (folder, artifact) = artifact("pairs", "kills");
    let state = folder.path().join("state");
    let (mut random, answered, next) =
        (Random::new(0x5eed), Arc::new(std::sync::Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let (mut found, start) = (0, Instant::now());
    for kill in 0..kills {
        let mut midair = on(&artifact, &state).start();
        midair.published();
        let (client, over) = (midair.http(), Arc::new(AtomicBool::new(false)));
        let there = pairs(client);
        for n in answered.lock().expect("a lock").iter() {
            assert!(there.contains_key(n), "{n} was answered and is gone");
        }
        assert!(there.values().all(|pair| pair == "ab"), "a batch is half there: {there:?}");
        found = there.len();
        let before = answered.lock().expect("a lock").len();
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let (answered, next, over) = (Arc::clone(&answered), Arc::clone(&next), Arc::clone(&over));
                thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(async {
                        let mut asker = Asker::new(client.0);
                        while !over.load(Ordering::Relaxed) {
                            let n = next.fetch_add(1, Ordering::Relaxed);
                            match asker.post(&format!("/pair/{n}")).await {
                                Ok(whole) if whole.status == 200 => answered.lock().expect("a lock").push(n),
                                Ok(whole) => panic!("{n}: {whole:?}"),
                                Err(_) => break,
                            }
                        }
                    });
                })
            })
            .collect();
        // Every second one comes when something was answered, however slow the disk is; the others come at any moment.
        if kill % 2 == 1 {
            until("answers", || answered.lock().expect("a lock").len() > before + 2);
        }
        thread::sleep(Duration::from_micros(random.below(60_000) as u64));
        midair.signal(Signal::KILL);
        over.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
        drop(midair);
    }
    let (written, asked) = (answered.lock().expect("a lock").len(), next.load(Ordering::Relaxed));
    println!(
        "{kills} kills in {:.1?}: {asked} batches asked for, {written} answered, {found} found, none lost, none half there",
        start.elapsed()
    );
    assert!(written > kills, "there was something to lose");
}

#[test]
fn what_was_written_is_there_after_a_restart_and_the_file_is_one_hosts() {
    let (folder, artifact) = artifact("pairs", "restarts");
    let state = folder.path().join("state");
    let mut midair = on(&artifact, &state).arg("--value-limit").arg("1KiB").start();
    midair.published();
    assert_eq!(midair.http().post("/pair/7", &json!({})).status, 200);
    assert_eq!(midair.http().post("/blocking/8", &json!({})).body, "Some(8)");
    assert_eq!(midair.http().post("/half/9", &json!({})).body, "false");
    assert!(!pairs(midair.http()).contains_key(&9), "a batch that is refused writes nothing");
    assert_eq!(
        [midair.http().post("/large/1000", &json!({})).status, midair.http().post("/large/2000", &json!({})).status],
        [200, 500]
    );
    let failed = midair.wait_for("failed", |event| event["event"] == "failed");
    let error = failed["error"].as_str().unwrap_or_default();
    assert!(["large[\"x\"]", "at most 1024", "nothing was written"].iter().all(|part| error.contains(part)), "{error}");
    assert_eq!(midair.get("/large").body, format!("Some(1000) Some([{}])", 1000 % 256), "the value before, and its whole batch");

    // Another host is refused and told why; the first one serves on.
    let other = on(&artifact, &state).end();
    assert_eq!(other.status.code(), Some(1));
    let words = other.words();
    assert!(
        ["E_STATE", "another process has it open", "--state", &state.display().to_string()].iter().all(|part| words.contains(part)),
        "{words}"
    );
    // The file of a host that lives, as of one that was killed, is mended by the next one; one that ended leaves nothing to mend.
    let needs_mending = |path: &Path| matches!(Builder::new().open_read_only(path).err(), Some(DatabaseError::RepairAborted));
    let copy = folder.path().join("copy");
    fs::copy(&state, &copy).expect("a copy");
    assert!(needs_mending(&copy));
    let ended = midair.terminate();
    assert!(ended.status.success(), "{}", ended.words());
    assert!(!needs_mending(&state), "{}", ended.words());
    let mut midair = on(&artifact, &state).start();
    midair.published();
    assert_eq!(pairs(midair.http()), BTreeMap::from([(7, "ab".to_owned()), (8, "ab".to_owned())]));
    drop(midair);

    let whole = fs::read(&state).expect("the file");
    fs::write(&state, &whole[..whole.len() / 2]).expect("the file can be cut");
    let cut = on(&artifact, &state).end();
    let words = cut.words();
    assert_eq!(cut.status.code(), Some(1));
    assert!(
        ["E_STATE", "it is cut off", "nothing in it was changed", "move it away"].iter().all(|part| words.contains(part)),
        "{words}"
    );
    assert!(fs::read(&state).expect("the file") == whole[..whole.len() / 2], "it is as it was");
}

#[test]
fn fault_35_what_cannot_be_a_state_file_ends_the_start_with_one_message_and_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (artifact, state) = (folder.path().join("libhost.so"), folder.path().join("state"));
    save(&artifact, &one_and_two()[0]);
    let mut midair = on(&artifact, &state).start();
    midair.published();
    assert!(midair.terminate().status.success());
    let whole = fs::read(&state).expect("the file");
    let with = |offset: usize, byte: u8| {
        let mut odd = whole.clone();
        // Both slots of a commit say which version wrote it; their sums are looked at later.
        [64, 192].iter().for_each(|slot| odd[slot + offset] = byte);
        odd
    };
    let mut random = Random::new(0x5eed);
    let noise: Vec<u8> = (0..whole.len()).map(|_| random.below(256) as u8).collect();
    let odd = folder.path().join("odd");
    let refused = |what: &str, path: &Path, words: &[&str]| {
        let ended = on(&artifact, path).end();
        assert_eq!(ended.status.code(), Some(1), "{what}: {}", ended.words());
        let said: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("error")).collect();
        assert!(said.len() == 1 && ended.words().contains("E_STATE"), "{what}: {}", ended.words());
        let path = path.display().to_string();
        let all = words.iter().copied().chain([path.as_str(), "nothing in it was changed", "help: "]);
        let missing: Vec<_> = all.filter(|word| !ended.stderr.contains(word)).collect();
        assert!(missing.is_empty(), "{what}: {missing:?} in {}", ended.stderr);
    };
    let damaged = ["isn't a state file", "move it away"];
    for (what, bytes, words) in [
        ("an older redb", with(0, 2), &["another version of redb, whose format is 2"][..]),
        ("a newer redb", with(0, 9), &["a newer version of redb", "start the midair that wrote it"][..]),
        ("random bytes", noise, &damaged[..]),
        ("a text", b"[plugin.hello]\n".repeat(500), &damaged),
        ("an SQLite file", [b"SQLite format 3\0".to_vec(), vec![0; 8_000]].concat(), &damaged),
        ("nothing", Vec::new(), &["isn't a state file"]),
        ("the half of it", whole[..whole.len() / 2].to_vec(), &["cut off"]),
    ] {
        fs::write(&odd, &bytes).expect("a file");
        refused(what, &odd, words);
        assert!(fs::read(&odd).expect("it is there") == bytes, "{what}: it was changed");
    }
    fs::remove_file(&odd).expect("a file");
    fs::create_dir(&odd).expect("a folder");
    fs::write(odd.join("kept"), "kept").expect("a file");
    refused("a folder", &odd, &["it is a folder, and no file"]);
    assert_eq!(fs::read_to_string(odd.join("kept")).ok().as_deref(), Some("kept"));
    refused("a device", Path::new("/dev/null"), &["it is a device, and no file"]);
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    refused("a pipe", &pipe, &["it is a pipe, and no file"]);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&link, &link).expect("a link");
    refused("a link to itself", &link, &["can't be opened"]);
    // And what is one serves on.
    let mut midair = on(&artifact, &state).start();
    midair.published();
    // One who may read all is kept from nothing.
    fs::write(odd.join("closed"), &whole).expect("a file");
    fs::set_permissions(odd.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("it can be closed");
    if fs::read(odd.join("closed")).is_ok() {
        return left_out("this user may read every file");
    }
    refused("a file that may not be read", &odd.join("closed"), &["Permission denied", "may read and write it"]);
}

#[test]
fn a_table_is_exported_as_lines_and_comes_back_from_them_as_it_was() {
    let (_folder, artifact) = artifact("things", "exports");
    let start = || {
        let mut midair = Launch::run(&[&artifact]).arg("--no-probe").start();
        midair.published();
        midair
    };
    let midair = start();
    assert_eq!(midair.http().post("/make/1200", &json!({})).status, 200);
    let listed = midair.client(&["state", "--json"]).output().expect("a client");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let tables: Vec<_> =
        listed["tables"].as_array().expect("tables").iter().map(|table| (&table["table"], &table["values"])).collect();
    assert_eq!(tables, [(&json!("$counters"), &json!(1)), (&json!("things"), &json!(1200))], "{listed}");
    let shown = midair.client(&["state"]).output().expect("a client");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("exports/things"), "{shown:?}");
    let exported = midair.client(&["state", "export", "exports/things"]).output().expect("a client");
    let lines = String::from_utf8(exported.stdout).expect("text");
    assert_eq!(lines.lines().count(), 1200);
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["key"], &first["schema"], &first["value"]["raw"]),
        (&json!("00000/é"), &json!(1), &json!({ "$bytes": "AAD/" }))
    );
    drop(midair);

    let midair = start();
    let import_to = |args: &[&str], lines: &str| {
        let mut client = midair
            .client(&[&["state", "import"][..], args].concat())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let client = client.as_mut().expect("a client");
        // It may end at a bad line before it has read the rest; what it says counts.
        let sent = client.stdin.take().expect("a pipe").write_all(lines.as_bytes());
        assert!(sent.as_ref().map_or_else(|error| error.kind() == ErrorKind::BrokenPipe, |()| true), "{sent:?}");
        let mut said = String::new();
        std::io::Read::read_to_string(client.stderr.as_mut().expect("a pipe"), &mut said).expect("text");
        (client.wait().expect("it ends").code(), said)
    };
    let import = |lines: &str| import_to(&["exports/things"], lines);
    // The first batch with what the code can't read isn't there at all.
    let second = lines.lines().nth(1).expect("a line");
    for (table, line, words) in [
        ("exports/things", second.replace("\"schema\":1", "\"schema\":9"), "line 2: was written with schema 9"),
        ("exports/things", "{\"key\":\"x\",\"schema\":1,\"value\":7}".to_owned(), "line 2: "),
        ("exports/thing", second.to_owned(), "exports=1 declares no such table; there are: things, $cells, $counters"),
        ("export/things", second.to_owned(), "no plugin export serves; there are: exports"),
    ] {
        let (code, said) = import_to(&[table], &format!("{first}\n{line}\n"));
        assert_eq!(code, Some(1), "{line}");
        assert!(said.contains(words) && said.contains("nothing was written") && !said.contains("lines before"), "{said}");
    }
    assert_eq!(midair.get("/right").body, "0 of 0");
    let (code, said) = import_to(&["--force", "exports/thing"], &format!("{}\n", second.replace("\"schema\":1", "\"schema\":9")));
    assert_eq!(code, Some(0), "{said}");
    // The batch with the bad line isn't there at all, the one before it is.
    let bad: String = lines
        .lines()
        .enumerate()
        .map(|(n, line)| if n == 777 { "{\"key\": 1}\n".to_owned() } else { format!("{line}\n") })
        .collect();
    let (code, said) = import(&bad);
    assert_eq!(code, Some(1));
    assert!(said.contains("line 778") && said.contains("500 lines before"), "{said}");
    assert_eq!(midair.get("/right").body, "500 of 500");
    assert_eq!(import(&lines).0, Some(0));
    assert_eq!(midair.get("/right").body, "1200 of 1200");
    let page = midair.admin().ask("POST", "/state/exports/things", &[("origin", "http://evil.example")], "{}");
    assert_eq!(page.status, 403, "no web page writes here");
}

/// The longest gap between two answers of a client that keeps asking, while `meanwhile` runs.
fn longest_gap(client: Client, meanwhile: impl FnOnce()) -> (Duration, usize) {
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let asker = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mut asker, mut longest, mut answers, mut last) = (Asker::new(client.0), Duration::ZERO, 0, Instant::now());
            while !ended.load(Ordering::Relaxed) {
                let whole = asker.get("/links/7").await.expect("an answer");
                assert_eq!(whole.status, 200);
                longest = longest.max(last.elapsed());
                (last, answers) = (Instant::now(), answers + 1);
            }
            (longest, answers)
        })
    });
    meanwhile();
    over.store(true, Ordering::Relaxed);
    asker.join().expect("nothing was lost")
}

fn swap_under_values(name: &str, values: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new] = fixture::artifacts("plenty", name, ["old", "new"]);
    let serving = folder.path().join(format!("lib{name}.so"));
    save(&serving, &old);
    // However slowly the machine answers, that is no breach.
    let launch = Launch::run_committed(&serving, &folder.path().join("data")).arg("--breach-latency").arg("1000000");
    let mut midair = launch.start();
    midair.published();
    midair.wait_for("a look at the artifact's path", |event| event["event"] == "unchanged");
    let client = midair.http();
    let fill = |from: u32, to: u32| {
        for from in (from..to).step_by(5_000) {
            assert_eq!(client.post(&format!("/fill/{from}/{}", to.min(from + 5_000)), &json!({})).status, 200);
        }
    };
    fill(0, values);
    let (without, answers) = longest_gap(client, || thread::sleep(Duration::from_millis(500)));
    println!("{values} values, without a swap: the longest gap between two of {answers} answers was {without:.1?}");
    let (with, answers) = longest_gap(client, || {
        save(&serving, &new);
        midair.published();
        thread::sleep(Duration::from_millis(500));
    });
    println!("{values} values under a type that migrates: the longest gap between two of {answers} answers was {with:.1?}");
    // Written on trial, and read by the old code after it.
    fill(values, values + 1_000);
    fill(0, 1_000);
    assert_eq!(client.get("/links/5").json(), json!({ "urls": ["v5"] }));
    assert!(midair.client(&["rollback"]).output().expect("a client").status.success());
    midair.wait_for("rolled_back", |event| event["event"] == "rolled_back");
    for n in (0..1_000).step_by(97).chain((values..values + 1_000).step_by(97)) {
        assert_eq!(client.get(&format!("/links/{n}")).json(), json!({ "url": format!("v{n}") }));
    }
    assert_eq!(client.get(&format!("/links/{}", values - 1)).json(), json!({ "url": format!("u{}", values - 1) }));
    assert_eq!(midair.status()["plugins"][0]["unreadable"], json!({}));
}

#[test]
fn g13_many_values_migrate_without_a_pause_and_are_read_by_the_old_code_after_a_rollback() {
    // In a build for development a million take minutes.
    swap_under_values("plenty", size(20_000, 1_000_000));
}

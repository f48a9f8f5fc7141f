//! One suite for every backend.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use midair_abi::store::{Lasts, pack_form};

use super::*;

const LIMITS: Limits = Limits { key: 64, value: 1 << 10 };

/// A backend with a clock that a test turns.
struct Lab {
    state: State,
    now: Arc<AtomicU64>,
    _file: Option<tempfile::TempDir>,
}

impl Lab {
    fn apply(&self, ops: &[Op<'_>]) -> Answer {
        self.state.apply(ops).wait()
    }

    fn keys(&self, op: Op<'_>) -> Vec<String> {
        self.apply(&[op]).expect("a read").into_iter().map(|row| row.key).collect()
    }

    fn count(&self, prefix: &str) -> i64 {
        self.apply(&[Op::new(Kind::Count, "p/t", prefix)]).expect("a count")[0].number
    }
}

fn labs() -> Vec<(&'static str, Lab)> {
    let clock = || {
        let now = Arc::new(AtomicU64::new(1_000));
        let read = Arc::clone(&now);
        (now, move || read.load(Ordering::Relaxed))
    };
    let (now, read) = clock();
    #[cfg_attr(not(feature = "redb"), allow(unused_mut, reason = "there is but one"))]
    let mut labs = vec![("memory", Lab { state: State(Backend::Memory(Memory::new(LIMITS, read))), now, _file: None })];
    #[cfg(feature = "redb")]
    {
        let ((now, read), folder) = (clock(), tempfile::tempdir().expect("a folder"));
        let disk = Disk::timed(&folder.path().join("state"), LIMITS, read).expect("a file");
        labs.push(("disk", Lab { state: State(Backend::Disk(disk)), now, _file: Some(folder) }));
    }
    labs
}

/// Runs a test on each backend, on a thread of its name.
fn check(test: impl Fn(&Lab) + Sync) {
    for (name, lab) in labs() {
        thread::scope(|scope| {
            let run = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || test(&lab));
            run.expect("a thread").join().expect(name);
        });
    }
}

fn put<'a>(key: &'a str, bytes: &'a [u8]) -> Op<'a> {
    Op { bytes, schema: 1, ..Op::new(Kind::Put, "p/t", key) }
}

fn get(key: &str) -> Op<'_> {
    Op::new(Kind::Get, "p/t", key)
}

fn scan<'a>(prefix: &'a str, after: Option<&'a str>, limit: usize) -> Op<'a> {
    Op { after, limit, ..Op::new(Kind::Scan, "p/t", prefix) }
}

#[test]
fn a_batch_is_all_or_nothing_and_sees_its_own_writes() {
    check(|lab| {
        lab.apply(&[put("a", b"1")]).expect("a put");
        let stale = Op { expected: Some(99), ..put("b", b"2") };
        let refused = lab.apply(&[put("a", b"9"), put("c", b"3"), Op::new(Kind::Remove, "p/t", "a"), stale]);
        assert_eq!(refused, Err(Refusal::Conflict { index: 3, revision: 0 }));
        assert_eq!((lab.keys(scan("", None, 9)), lab.count("")), (vec!["a".to_owned()], 1));
        assert_eq!(lab.apply(&[get("a")]).expect("a read")[0].bytes, b"1");
        let own = lab.apply(&[put("b", b"2"), get("b"), Op::new(Kind::Count, "p/t", "")]).expect("a batch");
        assert_eq!((own[1].bytes.as_slice(), own[2].number), (&b"2"[..], 2));
    });
}

#[test]
fn revisions_grow_and_conditions_hold() {
    check(|lab| {
        let first = lab.apply(&[put("a", b"1")]).expect("a put")[0].revision;
        let removed = lab.apply(&[Op::new(Kind::Remove, "p/t", "a"), Op::new(Kind::Remove, "p/t", "a"), put("a", b"1")]);
        let removed = removed.expect("a batch");
        assert_eq!([removed[0].number, removed[1].number], [1, 0]);
        assert!(removed[2].revision > first);
        assert!(matches!(lab.apply(&[Op { expected: Some(first), ..put("a", b"2") }]), Err(Refusal::Conflict { .. })));
        lab.apply(&[Op { expected: Some(removed[2].revision), ..put("a", b"2") }]).expect("it is there");
        assert!(matches!(lab.apply(&[Op { expected: Some(0), ..put("a", b"3") }]), Err(Refusal::Conflict { .. })));
    });
}

#[test]
fn tables_are_apart_and_scans_page_by_prefix() {
    check(|lab| {
        for key in ["a1", "b1", "b2", "b3", "c1"] {
            lab.apply(&[put(key, b"x"), Op { table: "p/t2", ..put(key, b"y") }, Op { table: "p/s", ..put(key, b"z") }])
                .expect("puts");
        }
        assert_eq!(lab.keys(scan("b", None, 2)), ["b1", "b2"]);
        assert_eq!(lab.keys(scan("b", Some("b2"), 9)), ["b3"]);
        assert_eq!(lab.keys(scan("b", Some("a"), 9)), ["b1", "b2", "b3"]);
        assert_eq!(lab.keys(scan("", Some("b3"), 9)), ["c1"]);
        assert_eq!(lab.keys(scan("", None, 0)), Vec::<String>::new());
        assert_eq!([lab.count("b"), lab.count(""), lab.count("d")], [3, 5, 0]);
        let page = lab.state.page("p/t", Some("a1"), 0, 9, 2).expect("a page");
        assert_eq!(page.into_iter().map(|row| row.key).collect::<Vec<_>>(), ["b1", "b2"]);
        let mut spread = lab.state.spread("p/t", 9);
        spread.sort();
        assert_eq!(spread, ["a1", "b1", "b2", "b3", "c1"]);
        assert_eq!(lab.state.spread("p/none", 9), Vec::<String>::new());
    });
}

#[test]
fn adding_counts_from_zero_and_refuses_what_is_no_number() {
    check(|lab| {
        let add = |number| Op { number, ..Op::new(Kind::Add, "p/t", "n") };
        assert_eq!(lab.apply(&[add(2), add(3)]).expect("sums")[1].number, 5);
        assert_eq!(lab.apply(&[add(i64::MAX)]), Err(Refusal::NotANumber { index: 0 }));
        lab.apply(&[put("n", b"\xa1x")]).expect("a put");
        assert_eq!(lab.apply(&[put("other", b""), add(1)]), Err(Refusal::NotANumber { index: 1 }));
        assert_eq!(lab.count("other"), 0);
    });
}

#[test]
fn what_has_ended_is_not_read_scanned_or_counted_and_is_swept() {
    check(|lab| {
        let until = |key, lasts| Op { lasts, ..put(key, b"1") };
        lab.apply(&[until("a", Lasts::For(10)), until("b", Lasts::For(20)), put("c", b"1")]).expect("puts");
        assert_eq!((lab.keys(scan("", None, 9)).len(), lab.count("")), (3, 3));
        lab.now.store(1_010, Ordering::Relaxed);
        assert_eq!((lab.keys(scan("", None, 9)), lab.count(""), lab.count("a")), (vec!["b".to_owned(), "c".to_owned()], 2, 0));
        assert_eq!(lab.apply(&[get("a")]), Ok(Vec::new()));
        lab.apply(&[Op { expected: Some(0), ..put("a", b"2") }]).expect("there is none");
        lab.apply(&[until("b", Lasts::AsBefore), until("c", Lasts::For(1))]).expect("puts");
        lab.now.store(1_030, Ordering::Relaxed);
        assert_eq!((lab.count(""), lab.state.tally("p/t").values), (1, 3), "they are there and aren't");
        assert_eq!([lab.state.sweep(1), lab.state.sweep(9), lab.state.sweep(9)], [1, 1, 0]);
        assert_eq!((lab.count(""), lab.state.tally("p/t").values), (1, 1));
    });
}

#[test]
fn what_is_too_large_is_named_and_nothing_of_its_batch_is_written() {
    check(|lab| {
        let (large, long) = (vec![0; 1_025], "k".repeat(65));
        lab.apply(&[put("a", b"1"), put("b", b"1")]).expect("puts");
        for (op, words) in [
            (put("a", &large), ["t[\"a\"]", "the value has 1025 bytes", "at most 1024"]),
            (put(&long, b""), ["t[\"kkkk", "the key has 65 bytes", "at most 64"]),
        ] {
            let refusal = lab.apply(&[put("b", b"2"), op.clone()]).expect_err("too large").to_string();
            assert!(words.iter().all(|word| refusal.contains(word)), "{refusal}");
            assert_eq!(lab.state.foresee(&[op]).expect_err("too large").to_string(), refusal);
        }
        let values = lab.apply(&[scan("", None, 9)]).expect("a read").into_iter().map(|row| (row.key, row.bytes.to_vec()));
        let before = ["a", "b"].map(|key| (key.to_owned(), b"1".to_vec()));
        assert_eq!(values.collect::<Vec<_>>(), before, "the values before are there");
    });
}

#[test]
fn readers_get_the_form_that_they_can_read_and_the_others_are_counted() {
    check(|lab| {
        let mut older = Vec::new();
        pack_form(&mut older, 1, b"one");
        let two = Op { schema: 2, older: &older, ..put("both", b"two") };
        lab.apply(&[two, Op { schema: 2, ..put("new", b"2") }, put("old", b"1")]).expect("puts");
        let read = |schema, key| {
            let row = lab.state.row("p/t", key, schema).expect("a read").expect("a row");
            (row.schema, String::from_utf8(row.bytes).expect("text"))
        };
        assert_eq!([read(1, "both"), read(2, "both"), read(0, "both")], [(1, "one".into()), (2, "two".into()), (2, "two".into())]);
        assert_eq!([read(1, "new"), read(1, "old"), read(2, "old")], [(2, "2".into()), (1, "1".into()), (1, "1".into())]);
        let unreadable = |oldest, newest| lab.state.tally("p/t").unreadable(oldest, newest);
        assert_eq!([unreadable(1, 1), unreadable(1, 2), unreadable(2, 2)], [1, 0, 1]);
        lab.apply(&[put("new", b"1")]).expect("a put");
        assert_eq!(unreadable(1, 1), 0);
    });
}

#[test]
fn groups_are_done_in_order_each_alone() {
    check(|lab| {
        let (told, heard) = std::sync::mpsc::channel();
        let groups = [vec![put("a", b"1")], vec![put("b", b"1"), Op { expected: Some(7), ..put("a", b"2") }], vec![put("c", b"1")]];
        lab.state.apply_each(&groups, move |answers| told.send(answers).expect("somebody waits"));
        let answers = heard.recv().expect("answers");
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(lab.keys(scan("", None, 9)), ["a", "c"]);
    });
}

#[test]
fn additions_from_many_threads_are_all_there() {
    check(|lab| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        lab.apply(&[Op { number: 1, ..Op::new(Kind::Add, "p/t", "n") }]).expect("a sum");
                    }
                });
            }
        });
        assert_eq!(lab.apply(&[Op { number: 0, ..Op::new(Kind::Add, "p/t", "n") }]).expect("a sum")[0].number, 400);
    });
}

/// A path in a folder that a test may fill.
fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("state");
    (folder, file)
}

#[cfg(not(feature = "redb"))]
#[test]
fn a_host_without_the_feature_says_so() {
    let (_folder, file) = file();
    let error = State::open(Some(&file), LIMITS).err().expect("refused");
    assert!(error.to_string().contains("redb"), "{error}");
}

#[cfg(feature = "redb")]
mod disk {
    use super::*;
    use crate::report::error::Code;

    #[test]
    fn what_was_answered_is_there_when_the_file_is_opened_again() {
        let (_folder, path) = file();
        let state = State::open(Some(&path), LIMITS).expect("a file");
        let revision = state.apply(&[put("a", b"1")]).wait().expect("a put")[0].revision;
        drop(state);
        let again = retry(|| State::open(Some(&path), LIMITS)).expect("a file");
        assert_eq!(again.row("p/t", "a", 0).expect("a read").expect("a row").bytes, b"1");
        assert_eq!(again.tally("p/t").values, 1);
        assert!(again.apply(&[put("b", b"1")]).wait().expect("a put")[0].revision > revision);
    }

    #[test]
    fn fault_35_a_file_that_cannot_be_used_is_named_and_left_as_it_is() {
        let (folder, path) = file();
        let state = State::open(Some(&path), LIMITS).expect("a file");
        let refuse = |path: &Path, words: &[&str]| {
            let before = std::fs::read(path).ok();
            let error = State::open(Some(path), LIMITS).err().expect("refused");
            assert_eq!((error.code(), error.subject()), (Code::State, path.display().to_string().as_str()));
            let said = format!("{error} {}", error.help_text().expect("a way out"));
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            assert!(std::fs::read(path).ok() == before, "{said}: it was changed");
        };
        refuse(&path, &["another process has it open", "nothing in it was changed", "end that host"]);
        let fill: Vec<Op<'_>> = ["a", "b", "c"].map(|key| put(key, b"some bytes")).into();
        state.apply(&fill).wait().expect("puts");
        // As a kill leaves it, and as an end does.
        let killed = std::fs::read(&path).expect("a file");
        drop(state);
        let ended = retry(|| State::open(Some(&path), LIMITS)).map(|_| std::fs::read(&path));
        let ended = ended.expect("it opens").expect("a file");
        let other = folder.path().join("other");
        for whole in [&killed, &ended] {
            for cut in (0..20).map(|n| whole.len() * n / 20).chain([1, 100, whole.len() - 1]) {
                std::fs::write(&other, &whole[..cut]).expect("a file");
                refuse(&other, &["nothing in it was changed"]);
            }
        }
        std::fs::write(&other, "a text, longer than what a database begins with").expect("a file");
        refuse(&other, &["isn't a state file"]);
        refuse(&folder.path().join("no/folder"), &["can't be made", "folder"]);
    }

    #[test]
    fn fault_35_a_database_of_another_format_or_program_is_named_and_left_as_it_is() {
        use redb::{Builder, TableDefinition};
        let (folder, _) = file();
        for (name, table, words) in [
            ("newer", "midair", ["it is of version 99 of midair's format", "start the midair that wrote it"]),
            ("another", "settings", ["a database, but not one of midair's", "name another file"]),
        ] {
            let path = folder.path().join(name);
            let database = Builder::new().create(&path).expect("a database");
            let write = database.begin_write().expect("a transaction");
            let table: TableDefinition<'_, &str, u64> = TableDefinition::new(table);
            write.open_table(table).expect("a table").insert("format", 99).expect("a value");
            write.commit().expect("it is written");
            drop(database);
            let before = std::fs::read(&path).expect("a file");
            let error = State::open(Some(&path), LIMITS).err().expect("refused");
            let said = format!("{error} {}", error.help_text().expect("a way out"));
            assert!(words.iter().chain(&["nothing in it was changed"]).all(|word| said.contains(word)), "{said}");
            assert!(std::fs::read(&path).expect("a file") == before, "{said}: it was changed");
        }
    }

    #[test]
    fn a_file_that_was_closed_has_all_that_was_asked_for_and_nothing_to_mend() {
        use redb::DatabaseError;
        let needs_mending =
            |path: &Path| matches!(redb::Builder::new().open_read_only(path).err(), Some(DatabaseError::RepairAborted));
        let (_folder, path) = file();
        let state = State::open(Some(&path), LIMITS).expect("a file");
        state.apply(&[put("first", b"1")]).wait().expect("a put");
        let copy = path.with_extension("copy");
        std::fs::copy(&path, &copy).expect("a copy");
        assert!(needs_mending(&copy), "as a kill leaves it");
        let waits: Vec<Applied> = (0..100).map(|n| state.apply(&[put(&format!("{n:03}"), b"1")])).collect();
        assert!(state.close(Duration::from_secs(30)));
        assert!(!needs_mending(&path));
        for wait in waits {
            wait.wait().expect("it was asked for before");
        }
        for late in [put("late", b"1"), get("000")] {
            state.apply(&[late]).wait().expect_err("it is closed");
        }
        assert_eq!(state.sweep(10), 0);
        let again = State::open(Some(&path), LIMITS).expect("it is free");
        let count = again.apply(&[Op::new(Kind::Count, "p/t", "")]).wait().expect("a count");
        assert_eq!(count[0].number, 101);
    }

    #[test]
    fn fault_35_a_disk_that_fails_fails_that_write_and_no_later_one() {
        let (_folder, path) = file();
        let (disk, faults) = Disk::failing(&path, LIMITS).expect("a file");
        let lab = Lab { state: State(Backend::Disk(disk)), now: Arc::default(), _file: None };
        lab.apply(&[put("a", b"1")]).expect("a put");
        for after in [0, 1, 2, 3, 5, 8] {
            // The disk is full from the write after so many on.
            faults.store(after, Ordering::SeqCst);
            let refusal = lab.apply(&[put("a", b"2"), put("b", &[7; 1_000])]).expect_err("the disk is full");
            assert!(refusal.to_string().contains("No space left"), "{refusal}");
            faults.store(u64::MAX, Ordering::SeqCst);
            let said = refusal.to_string();
            let (a, b) = (lab.apply(&[get("a")]).expect("a read")[0].bytes.clone(), lab.count("b"));
            assert!(
                matches!((&*a, b), (b"1", 0)) || matches!((&*a, b), (b"2", 1)) && said.contains("can't be said"),
                "{a:?} {b} {said}"
            );
            lab.apply(&[put("a", b"1"), Op::new(Kind::Remove, "p/t", "b")]).expect("there is room again");
            lab.apply(&[put("c", b"3")]).expect("there is room again");
            assert_eq!(lab.keys(scan("", None, 9)), ["a", "c"]);
        }
    }
}

/// A writer's thread lets go of its file a moment after the last who could order.
#[cfg(feature = "redb")]
fn retry<T>(open: impl Fn() -> Result<T>) -> Result<T> {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        match open() {
            Err(error) if error.to_string().contains("another process") && std::time::Instant::now() < until => thread::yield_now(),
            other => return other,
        }
    }
}

#[test]
fn what_waited_behind_a_gate_is_written_before_what_is_written_once_it_opens() {
    check(|lab| {
        let gate = Gate::default();
        let put = |bytes: &'static [u8]| Op { bytes, ..Op::new(Kind::Put, "p/t", "k") };
        gate.apply(&lab.state, &[put(b"of init")]).wait().expect("it waits");
        let (queue, opening) = gate.open();
        thread::scope(|scope| {
            let (writes, written) = std::sync::mpsc::channel();
            let gate = &gate;
            scope.spawn(move || {
                // A thread that `init` started.
                writes.send(()).expect("somebody waits");
                gate.apply(&lab.state, &[put(b"of its thread")]).wait().expect("it is written");
            });
            written.recv().expect("it comes there");
            // Were it not for the gate, it would be done by now.
            (0..1_000).for_each(|_| thread::yield_now());
            let groups: Vec<Vec<Op<'_>>> = queue.iter().map(|writes| writes.iter().map(Write::op).collect()).collect();
            lab.state.apply_each(&groups, |answers| assert!(answers.iter().all(Result::is_ok)));
            drop(opening);
        });
        assert_eq!(lab.apply(&[Op::new(Kind::Get, "p/t", "k")]).expect("a read")[0].bytes, b"of its thread");
    });
}

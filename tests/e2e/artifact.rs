//! What becomes of an artifact that is damaged, odd, asks for too much, or runs the same as the one before?

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, thread};

use midair::attempt::Record;
use midair::probe::Probe;
use midair::swap::{Artifact, Host, Options};
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use midair_tests::random::Random;
use midair_tests::{repository, size};
use serde_json::Value;
use tempfile::TempDir;

use crate::dev::saying;
use crate::run::{built_from, hello, left_out, one_and_two};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The next rejection, with its code and these words.
#[track_caller]
fn rejected(midair: &mut Midair, code: &str, words: &[&str]) -> Value {
    let rejected = midair.rejected(code);
    let said = format!("{} {} {}", rejected["subject"], rejected["reason"], rejected["help"]);
    assert!(words.iter().all(|word| said.contains(word)), "expected {words:?} in {said}");
    rejected
}

#[track_caller]
fn warning(midair: &mut Midair, words: &[&str]) {
    let fits = |event: &Value| {
        let said = event["message"].as_str().unwrap_or_default();
        event["event"] == "warning" && words.iter().all(|word| said.contains(word))
    };
    midair.wait_for(&format!("a warning with {words:?}"), fits);
}

/// Without what only debuggers read, so that most of it is loaded.
fn stripped(bytes: &[u8]) -> Option<Vec<u8>> {
    let folder = folder();
    let path = folder.path().join("libhello.so");
    project::save(&path, bytes);
    let strip = Command::new("strip").arg("--strip-all").arg(&path).status();
    strip.is_ok_and(|status| status.success()).then(|| fs::read(&path).expect("it is there"))
}

fn digest_of(bytes: &[u8]) -> String {
    format!("{}  libhello.so\n", blake3::hash(bytes).to_hex())
}

#[test]
fn fault_1_an_artifact_cut_off_at_forty_places_is_refused_before_it_is_opened() {
    let folder = folder();
    let whole = &one_and_two()[0];
    let bytes = stripped(whole).unwrap_or_else(|| whole.clone());
    let cuts = (1..=40).map(|n| bytes.len() * n / 41);
    let cut = |length: usize| {
        let path = folder.path().join(format!("cut_at_{length}.so"));
        project::save(&path, &bytes[..length]);
        path
    };
    let mut paths: Vec<PathBuf> = cuts.map(cut).collect();
    let good = folder.path().join("libhello.so");
    project::save(&good, &bytes);
    paths.push(good);
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let mut midair = Launch::run(&paths).start();
    // Together they are refused, then each is tried alone.
    midair.published();
    assert_eq!(midair.get("/").body, "one");
    let refused = midair.all("rejected");
    assert_eq!(refused.len(), 41, "{}", midair.story());
    for event in refused {
        assert!(event["code"] == "E_TRUNC" || event["code"] == "E_ELF", "{event}");
        assert_eq!(event["stage"], "inspect", "{event}");
    }
}

/// Places in so many bytes, and a bit at each.
fn flips(length: usize) -> Vec<(usize, u8)> {
    let mut random = Random::new(0x6d69_6461_6972);
    (0..size(100, 1_000)).map(|_| (random.below(length), 1 << random.below(8))).collect()
}

fn flipped(bytes: &[u8], (place, bit): (usize, u8)) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    copy[place] ^= bit;
    copy
}

fn swap(host: &Host, path: &Path) -> Record {
    host.swap(host.begin("a test"), vec![Artifact { plugin: String::new(), path: path.to_owned() }])
}

fn artifact() -> Vec<u8> {
    let whole = &one_and_two()[0];
    stripped(whole).unwrap_or_else(|| whole.clone())
}

#[test]
fn fault_2_a_flipped_bit_is_always_found_by_the_digest_beside_the_artifact() {
    let folder = folder();
    let bytes = artifact();
    let path = folder.path().join("libhello.so");
    fs::write(folder.path().join("libhello.so.blake3"), digest_of(&bytes)).expect("it can be written");
    let host = Host::new(Options { probe: Probe::Off, ..Options::new(folder.path().join("data")) }).expect("a host");
    let mut found = 0;
    for flip in flips(bytes.len()) {
        fs::write(&path, flipped(&bytes, flip)).expect("it can be written");
        let record = swap(&host, &path);
        assert_eq!(record.code.map(|code| code.as_str()), Some("E_HASH"), "{record:?}");
        found += 1;
    }
    assert_eq!(found, size(100, 1_000));
    fs::write(&path, &bytes).expect("it can be written");
    let record = swap(&host, &path);
    assert_eq!((record.code, record.parts.len()), (None, 1), "{record:?}");
}

const TRIED: &str = "MIDAIR_TEST_TRIES";

/// What a child process does: takes one artifact through the whole journey and says how it ended.
#[test]
#[ignore = "a part of fault_2, which starts it in children"]
fn child_that_tries_an_artifact() {
    let Some(path) = env::var_os(TRIED).map(PathBuf::from) else { return };
    let data = path.with_extension("data");
    let host = Host::new(Options { durable: false, recovers: false, probe: Probe::Off, ..Options::new(&data) }).expect("a host");
    let record = swap(&host, &path);
    let outcome = match (record.stage, record.code) {
        (Some(stage), Some(code)) => format!("{stage}: {code}"),
        _ => "passed everything and was live".to_owned(),
    };
    fs::write(path.with_extension("outcome"), outcome).expect("it can be written");
}

/// How the journey of an artifact ends, tried in a process of its own.
fn outcome(folder: &Path, number: usize, bytes: &[u8]) -> String {
    let path = folder.join(format!("{number}.so"));
    fs::write(&path, bytes).expect("it can be written");
    let mut child = Command::new(env::current_exe().expect("this test"));
    child.args(["--exact", "--ignored", "artifact::child_that_tries_an_artifact"]).env(TRIED, &path).env("RUST_BACKTRACE", "0");
    let status = child.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it starts");
    let said = fs::read_to_string(path.with_extension("outcome"));
    for leftover in ["so", "outcome"] {
        let _ = fs::remove_file(path.with_extension(leftover));
    }
    let _ = fs::remove_dir_all(path.with_extension("data"));
    match (status.signal(), said) {
        (None, Ok(said)) => said,
        (Some(signal), Ok(said)) => format!("{said}, then killed by signal {signal}"),
        (Some(signal), Err(_)) => format!("killed by signal {signal} while it was opened"),
        (None, Err(_)) => format!("ended with {status} while it was opened"),
    }
}

#[test]
fn fault_2_what_becomes_of_a_flipped_bit_without_a_digest() {
    let folder = folder();
    let bytes = artifact();
    let flips = flips(bytes.len());
    let (next, table) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<String, usize>::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(flip) = flips.get(number) else { return };
            let outcome = outcome(folder.path(), number, &flipped(&bytes, *flip));
            *table.lock().unwrap_or_else(PoisonError::into_inner).entry(outcome).or_default() += 1;
        }
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let table = table.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&table);
    assert_eq!(table.values().sum::<usize>(), size(100, 1_000));
    let of = |word: &str| table.iter().filter(|(outcome, _)| outcome.contains(word)).map(|(_, count)| count).sum::<usize>();
    // What breaks while types are compared is the artifact's; no step before may break, nor the journey as a whole.
    assert_eq!(of("inspect: E_INTERNAL") + of("load: E_INTERNAL"), 0, "{table:?}");
    // One byte in sixteen or so tells the loader which addresses to change, and almost every bit of these shows.
    assert!(of("inspect: ") > size(2, 20) && of("passed everything") > 0, "{table:?}");
}

#[expect(clippy::print_stdout, reason = "the table is what this test is for")]
fn print(table: &BTreeMap<String, usize>) {
    println!("one bit flipped at {} places of an artifact without a digest:", size(100, 1_000));
    for (outcome, count) in table {
        println!("{count:>6}  {outcome}");
    }
}

#[test]
fn fault_3_an_artifact_that_keeps_growing_is_refused_at_its_limit() {
    let folder = folder();
    let path = folder.path().join("libhello.so");
    let mut file = fs::File::create(&path).expect("it can be written");
    // It is over the limit from the start: how much more is there when it is read doesn't matter.
    file.write_all(b"\x7fELF").and_then(|()| file.write_all(&[7; 256 << 10])).expect("it can be written");
    let stop = Arc::new(AtomicBool::new(false));
    let ended = stop.clone();
    let writer = thread::spawn(move || {
        // It comes to rest where a disk would be full.
        for _ in 0..4096 {
            if ended.load(Ordering::Relaxed) || file.write_all(&[7; 64 << 10]).is_err() {
                return;
            }
        }
    });
    let mut midair = Launch::run(&[&path]).arg("--artifact-limit").arg("256KiB").start();
    rejected(&mut midair, "E_SIZE", &["262144", "--artifact-limit"]);
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer ends");
    // What is as large as plugins are is too large, too.
    project::save(&path, &one_and_two()[0]);
    rejected(&mut midair, "E_SIZE", &["libhello.so"]);
}

/// A plugin that is linked with these arguments.
fn linked(source: &str, args: &[&str]) -> Vec<u8> {
    let project = || {
        let project = Project::plugin("hello", source);
        let args: String = args.iter().map(|arg| format!("    println!(\"cargo:rustc-cdylib-link-arg={arg}\");\n")).collect();
        project.save("build.rs", &format!("fn main() {{\n{args}}}\n"));
        project
    };
    built_from(project, &repository::shared_target().join("midair"))
}

#[test]
fn fault_10_g18_a_run_path_is_refused_in_run_and_told_in_dev() {
    let bytes = linked(&saying("far"), &["-Wl,-rpath,/opt/far"]);
    let folder = folder();
    let path = folder.path().join("libhello.so");
    project::save(&path, &bytes);
    let mut midair = Launch::run(&[&path]).start();
    let rejected = rejected(&mut midair, "E_DEPS", &["RUNPATH /opt/far", "-rpath"]);
    assert_eq!(rejected["stage"], "inspect");
    let project = Project::plugin("far_dev", &saying("far"));
    project.save("build.rs", "fn main() { println!(\"cargo:rustc-cdylib-link-arg=-Wl,-rpath,/opt/far\"); }");
    let mut midair = Launch::dev(&[project.root()]).start();
    warning(&mut midair, &["far_dev", "/opt/far"]);
    midair.published();
}

#[test]
fn fault_10_a_library_that_is_needed_and_not_there_is_named() {
    let libraries = folder();
    let source = libraries.path().join("nowhere.c");
    fs::write(&source, "int nowhere(void) { return 1; }\n").expect("it can be written");
    let library = libraries.path().join("libnowhere.so");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-Wl,-soname,libnowhere.so.1", "-o"]).arg(&library).arg(&source).status();
    assert!(compiled.is_ok_and(|status| status.success()), "a C compiler is there: Rust links with it");
    let bytes = linked(&saying("needy"), &["-Wl,--no-as-needed", library.to_str().expect("a plain path")]);
    let folder = folder();
    let path = folder.path().join("libhello.so");
    project::save(&path, &bytes);
    let mut midair = Launch::run(&[&path]).start();
    let refused = rejected(&mut midair, "E_DEPS", &["libnowhere.so.1", "ldconfig"]);
    assert_eq!(refused["stage"], "inspect");
    drop(midair);
    // Where the loader is told to look, it is found by both.
    fs::rename(&library, libraries.path().join("libnowhere.so.1")).expect("it can be renamed");
    let with = || Launch::run(&[&path]).env("LD_LIBRARY_PATH", libraries.path().to_str());
    let mut midair = with().start();
    midair.published();
    assert_eq!(midair.get("/").body, "needy");
    let mut midair = with().arg("--allow-library").arg("libother.so.2").start();
    rejected(&mut midair, "E_DEPS", &["libnowhere.so.1", "--allow-library libnowhere.so.1"]);
    with().arg("--allow-library").arg("libnowhere.so.1").start().published();
}

#[test]
fn fault_10_an_unresolved_symbol_is_refused_and_the_host_lives() {
    let source = saying("unresolved")
        + "
unsafe extern \"C\" {
    fn defined_nowhere();
}

#[unsafe(no_mangle)]
pub extern \"C\" fn uses_it() {
    #[cfg(target_arch = \"x86_64\")]
    unsafe { std::arch::asm!(\"call {}\", sym defined_nowhere, clobber_abi(\"C\")) };
    #[cfg(target_arch = \"aarch64\")]
    unsafe { std::arch::asm!(\"bl {}\", sym defined_nowhere, clobber_abi(\"C\")) };
}
";
    // Called and linked as C is: left to itself, the loader would look for it at the first call.
    let bytes = linked(&source, &["-Wl,-z,undefs", "-Wl,-z,lazy"]);
    let folder = folder();
    let path = folder.path().join("libhello.so");
    project::save(&path, &one_and_two()[0]);
    let mut midair = Launch::run(&[&path]).start();
    midair.published();
    project::save(&path, &bytes);
    rejected(&mut midair, "E_DEPS", &["defined_nowhere"]);
    assert_eq!(midair.get("/").body, "one");
}

#[test]
fn a_constructor_is_told_and_not_refused() {
    let folder = folder();
    let path = folder.path().join("libhello.so");
    project::save(&path, hello("constructing", "does no harm"));
    let mut midair = Launch::run(&[&path]).start();
    warning(&mut midair, &["hello runs a constructor of its own"]);
    midair.published();
    // A plugin without one is told nothing.
    project::save(&path, &one_and_two()[1]);
    midair.published();
    assert_eq!(midair.all("warning").len(), 1, "{}", midair.story());
}

#[test]
fn fault_11_a_path_that_holds_another_file_answers_with_the_code_of_that_file() {
    let folder = folder();
    let path = folder.path().join("libhello.so");
    project::save(&path, &one_and_two()[0]);
    let host = Host::new(Options { probe: Probe::Off, ..Options::new(folder.path().join("data")) }).expect("a host");
    let ask = || {
        let request = http::Request::get("/").body(bytes::Bytes::new()).expect("a request");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        String::from_utf8_lossy(runtime.block_on(host.ask(request)).body()).into_owned()
    };
    for round in 0..20 {
        let bytes = &one_and_two()[round % 2];
        // By turns a new inode and the same one; its descriptor is closed each time, so that numbers are used again.
        if round % 4 < 2 {
            project::save(&path, bytes)
        } else {
            fs::write(&path, bytes).expect("it can be written")
        }
        let record = swap(&host, &path);
        assert_eq!((record.code, record.parts[0].generation), (None, round as u64 + 1), "{record:?}");
        assert_eq!(ask(), ["one", "two"][round % 2]);
    }
}

#[test]
fn g7_the_digest_beside_an_artifact_must_match_and_may_come_later() {
    let folder = folder();
    let path = folder.path().join("libhello.so");
    let beside = folder.path().join("libhello.so.blake3");
    let [one, two] = one_and_two();
    project::save(&path, one);
    project::save(&beside, digest_of(one));
    let mut midair = Launch::run(&[&path]).start();
    midair.published();
    // The digest first: one swap.
    project::save(&beside, digest_of(two));
    project::save(&path, two);
    midair.published();
    assert_eq!((midair.get("/").body.as_str(), midair.all("rejected").len()), ("two", 0));
    // The artifact first: refused, and taken when its digest comes.
    project::save(&path, one);
    let (old, new) = (digest_of(two), digest_of(one));
    let refused = rejected(&mut midair, "E_HASH", &[&old[..16], &new[..16], "libhello.so.blake3"]);
    assert_eq!(refused["stage"], "stage");
    assert_eq!(midair.get("/").body, "two");
    project::save(&beside, new.to_uppercase().replace("LIBHELLO.SO", "libhello.so"));
    midair.published();
    assert_eq!(midair.get("/").body, "one");
    // One that makes no sense is told how it should look.
    project::save(&beside, "sha256:0123");
    project::save(&path, two);
    rejected(&mut midair, "E_HASH", &["64 hexadecimal digits", "b3sum"]);
    fs::remove_file(&beside).expect("it can be removed");
    midair.published();
    assert_eq!(midair.get("/").body, "two");
}

#[test]
fn g18_an_artifact_that_others_may_change_is_refused_by_run_and_taken_by_dev() {
    let folder = folder();
    let releases = folder.path().join("releases");
    let path = releases.join("libhello.so");
    project::save(&path, &one_and_two()[0]);
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    set(&releases, 0o775);
    let mut midair = Launch::run(&[&path]).start();
    let help = format!("chmod g-w {}", releases.display());
    let refused = rejected(&mut midair, "E_PERM", &[releases.to_str().expect("a plain path"), "its group (mode 0775)", &help]);
    assert_eq!(refused["stage"], "stage");
    set(&releases, 0o755);
    let reload = |midair: &Midair| assert_eq!(midair.admin().ask("POST", "/reload", &[], "").status, 202);
    reload(&midair);
    midair.published();
    assert_eq!(midair.get("/").body, "one");
    drop(midair);

    let project = Project::plugin("shared", &saying("shared"));
    set(project.root(), 0o777);
    Launch::dev(&[project.root()]).start().published();

    if chown(&releases, Some(54_321), None).is_err() {
        return left_out("only root can give a folder to another user");
    }
    let mut midair = Launch::run(&[&path]).start();
    rejected(&mut midair, "E_PERM", &["belongs to user 54321", "--trust-owner 54321"]);
    Launch::run(&[&path]).arg("--trust-owner").arg("54321").start().published();
}

/// A file system of its own, unmounted when it is dropped.
struct Mounted(TempDir);

impl Mounted {
    fn tmpfs(options: &str) -> Option<Self> {
        let folder = folder();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).stderr(Stdio::null()).status();
        mount.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a host that was just killed may still hold files.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn fault_35_private_copies_go_elsewhere_when_their_folder_lets_no_code_run() {
    let Some(data) = Mounted::tmpfs("noexec,mode=755") else { return left_out("nothing can be mounted here") };
    let (folder, elsewhere) = (folder(), folder());
    let path = folder.path().join("libhello.so");
    project::save(&path, &one_and_two()[0]);
    let launch = || Launch::run(&[&path]).arg("--data").arg(data.path().join("data")).env("XDG_RUNTIME_DIR", None);
    let mut midair = launch().env("TMPDIR", elsewhere.path().to_str()).start();
    midair.published();
    // It was said before the host listened.
    let said = midair.all("warning");
    let words = format!("{said:?}");
    assert!(said.len() == 1 && words.contains("noexec") && words.contains(&elsewhere.path().display().to_string()), "{words}");
    assert_eq!(midair.get("/").body, "one");
    let copies: Vec<_> = fs::read_dir(elsewhere.path()).expect("a folder").flatten().collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(copies[0].metadata().expect("it is there").permissions().mode() & 0o7777, 0o700);
    drop(midair);
    // Where no folder will do, the host says so and doesn't start.
    let ended = launch().env("TMPDIR", data.path().to_str()).end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.words());
    assert!(["E_IO", "noexec", "--data"].iter().all(|word| ended.words().contains(word)), "{}", ended.words());
}

#[test]
fn fault_35_g17_a_full_disk_at_staging_harms_nobody_and_the_next_attempt_works() {
    let bytes = one_and_two().iter().map(Vec::len).max().unwrap_or_default();
    // The serving copy fits, a second one doesn't while something else is there.
    let Some(data) = Mounted::tmpfs(&format!("size={},mode=755", bytes * 3)) else {
        return left_out("nothing can be mounted here");
    };
    let folder = folder();
    let path = folder.path().join("libhello.so");
    project::save(&path, &one_and_two()[0]);
    let temporary = data.path().join("tmp");
    fs::create_dir(&temporary).expect("a folder");
    let launch = Launch::run(&[&path]).arg("--data").arg(data.path().join("data"));
    let mut midair = launch.env("XDG_RUNTIME_DIR", None).env("TMPDIR", temporary.to_str()).start();
    midair.published();
    let ballast = data.path().join("ballast");
    let filled = fs::write(&ballast, vec![7; bytes * 3]);
    assert!(filled.is_err(), "the disk is full");
    project::save(&path, &one_and_two()[1]);
    let refused = rejected(&mut midair, "E_IO", &["No space left", "staged", "make room"]);
    assert_eq!(refused["stage"], "stage");
    assert_eq!(midair.get("/").body, "one");
    fs::remove_file(&ballast).expect("it can be removed");
    assert_eq!(midair.admin().ask("POST", "/reload", &[], "").status, 202);
    midair.published();
    assert_eq!(midair.get("/").body, "two");
}

#[test]
fn fault_12_an_edit_of_comments_that_shifts_no_line_publishes_nothing() {
    let project = Project::example("commented");
    let mut midair = Launch::dev(&[&project.path("plugin")]).start();
    midair.published();
    let library = "plugin/src/lib.rs";
    let text = project.read(library);
    let remark = text.lines().find(|line| line.starts_with("/// ")).expect("the example has comments").to_owned();
    project.edit(library, &remark, "/// Other words that say something else, and more of them than before.");
    let outcome = midair.outcome();
    assert_eq!((&outcome["event"], &outcome["generation"]), (&"unchanged".into(), &1.into()), "{}", midair.story());
    // A line more, and what panics below it stands elsewhere: that is in the code.
    project.save(library, &format!("// One more line.\n{}", project.read(library)));
    let outcome = midair.outcome();
    assert_eq!((&outcome["event"], &outcome["generation"]), (&"published".into(), &2.into()), "{}", midair.story());
    // And what is different runs.
    project.edit(library, "GET /stats counts", "GET /stats tells");
    midair.published();
    assert!(midair.get("/").body.contains("GET /stats tells"));
}

#[test]
fn fault_12_lines_that_only_debuggers_know_publish_nothing() {
    let source = saying("one");
    let project = Project::plugin("shifted", &source);
    let mut midair = Launch::dev(&[project.root()]).start();
    let published = midair.published();
    // Nothing in it panics, so where its lines are stands in the debug information alone.
    project.save("src/lib.rs", &format!("// One more line.\n{source}"));
    let outcome = midair.outcome();
    assert_eq!((&outcome["event"], &outcome["digest"]), (&"unchanged".into(), &published["digest"]), "{}", midair.story());
    let panics =
        format!("{source}\npub fn first(of: &[u8]) -> u8 {{\n    of[0]\n}}\n\n#[used]\nstatic FIRST: fn(&[u8]) -> u8 = first;\n");
    project.save("src/lib.rs", &panics);
    assert_eq!(midair.outcome()["event"], "published", "{}", midair.story());
    project.save("src/lib.rs", &format!("// One more line.\n{panics}"));
    assert_eq!(midair.outcome()["event"], "published", "{}", midair.story());
}

#[test]
fn fault_12_an_artifact_without_what_only_debuggers_read_is_the_same() {
    let whole = &one_and_two()[0];
    let Some(bare) = stripped(whole) else { return left_out("there is no `strip` here") };
    assert!(bare.len() < whole.len());
    let folder = folder();
    let path = folder.path().join("libhello.so");
    project::save(&path, whole);
    let mut midair = Launch::run(&[&path]).start();
    let published = midair.published();
    project::save(&path, bare);
    let outcome = midair.outcome();
    assert_eq!((&outcome["event"], &outcome["digest"]), (&"unchanged".into(), &published["digest"]), "{}", midair.story());
    project::save(&path, &one_and_two()[1]);
    assert_eq!(midair.published()["generation"], 2);
}

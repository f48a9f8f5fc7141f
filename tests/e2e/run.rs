//! What becomes of an artifact that is replaced while `midair run` serves it?

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use midair_tests::client::read_answer;
use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use midair_tests::repository;
use serde_json::json;
use tempfile::TempDir;

use crate::dev::saying;

/// The artifact of a plugin of `tests/plugins` that calls itself `hello`.
pub(crate) fn hello(plugin: &str, variant: &str) -> Vec<u8> {
    fixture::artifact(plugin).named("hello").variant(variant).bytes()
}

/// The plugin `hello` of a project that no cargo call builds along with others; one at a time, since they all have one name.
pub(crate) fn built_from(project: impl FnOnce() -> Project, target: &Path) -> Vec<u8> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    fs::read(&project().build_with(Command::new("cargo"), target, folder.path())[0]).expect("it was built")
}

/// Two good artifacts: one says "one", the other "two".
pub(crate) fn one_and_two() -> &'static [Vec<u8>; 2] {
    static BOTH: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    BOTH.get_or_init(|| fixture::artifacts("saying", "hello", ["one", "two"]))
}

/// An artifact in a folder of its own, and a host that serves it.
pub(crate) struct Served {
    folder: TempDir,
    pub(crate) midair: Midair,
}

impl Served {
    /// Serves the artifact that says "one".
    #[track_caller]
    fn one() -> Self {
        Self::one_with(&[])
    }

    /// The same by a host with more arguments.
    #[track_caller]
    pub(crate) fn one_with(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("libhello.so");
        project::save(&path, &one_and_two()[0]);
        // How long answers take says nothing on a machine that runs tests.
        let launch = Launch::run(&[&path]).arg("--breach-latency").arg("1000000");
        let launch = args.iter().fold(launch, |launch, arg| launch.arg(arg));
        let mut midair = launch.arg("--generation-header").start();
        midair.published();
        assert_eq!(midair.get("/").body, "one");
        Self { folder, midair }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("libhello.so")
    }

    /// Replaces it by something bad, which must be refused with one of these codes and all these words, and then by something good.
    #[track_caller]
    pub(crate) fn refuses(&mut self, what: &str, bad: &[u8], codes: &[&str], words: &[&str]) {
        let generation = self.midair.get("/").generation();
        project::save(&self.path(), bad);
        let rejected = self.midair.wait_for(what, |event| event["event"] == "rejected" || event["event"] == "published");
        let code = rejected["code"].as_str().unwrap_or("none");
        assert!(codes.contains(&code), "{what}: expected {codes:?}, got {rejected}");
        let said = format!("{} {}", rejected["subject"], rejected["reason"]);
        assert!(words.iter().all(|word| said.contains(word)), "{what}: expected {words:?} in {said}");
        let answer = self.midair.get("/");
        assert_eq!((answer.body.as_str(), answer.generation()), ("one", generation), "{what}");
        let attempts = self.midair.status()["attempts"].clone();
        let last = attempts.as_array().and_then(|attempts| attempts.last()).cloned().unwrap_or_default();
        assert_eq!((&last["outcome"], &last["code"]), (&json!("rejected"), &json!(code)), "{what}: {last}");

        project::save(&self.path(), &one_and_two()[1]);
        self.midair.published();
        assert_eq!(self.midair.get("/").body, "two", "after {what}");
        project::save(&self.path(), &one_and_two()[0]);
        self.midair.published();
    }
}

#[test]
fn an_artifact_that_is_replaced_by_rename_goes_live() {
    let mut served = Served::one();
    for (generation, text) in [(2, "two"), (3, "one"), (4, "two")] {
        project::save(&served.path(), &one_and_two()[usize::from(text == "two")]);
        let published = served.midair.published();
        assert_eq!((&published["plugin"], &published["generation"]), (&json!("hello"), &json!(generation)));
        assert_eq!((served.midair.get("/").body.as_str(), served.midair.get("/").generation()), (text, generation));
    }
}

#[test]
fn fault_6_cp_over_the_file_that_serves_goes_live_and_hurts_nobody() {
    let mut served = Served::one();
    let new = served.folder.path().join("new.so");
    for text in ["two", "one", "two"] {
        fs::write(&new, &one_and_two()[usize::from(text == "two")]).expect("it can be written");
        assert!(Command::new("cp").arg(&new).arg(served.path()).status().expect("cp runs").success());
        served.midair.published();
        assert_eq!(served.midair.get("/").body, text);
    }
}

#[test]
fn fault_5_an_artifact_that_is_written_slowly_is_loaded_when_it_is_whole() {
    let mut served = Served::one();
    let bytes = &one_and_two()[1];
    let mut file = fs::File::create(served.path()).expect("it can be written");
    for piece in bytes.chunks(64 * 1024) {
        file.write_all(piece).expect("it can be written");
        // What serves goes on serving meanwhile; asking also takes some time.
        assert_eq!(served.midair.get("/").body, "one");
    }
    drop(file);
    served.midair.published();
    assert_eq!(served.midair.get("/").body, "two");
    assert_eq!(served.midair.all("rejected"), Vec::<serde_json::Value>::new(), "no half of it was tried");
}

#[test]
fn a_symlink_that_is_pointed_elsewhere_goes_live() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in ["one", "two"].iter().zip(one_and_two()) {
        project::save(&folder.path().join(name).join("libhello.so"), bytes);
    }
    // Once the file itself is the link, once a folder on the way to it.
    for (link, to, served) in [("libhello.so", "libhello.so", "libhello.so"), ("current", "", "current/libhello.so")] {
        let point = |text: &str| {
            let draft = folder.path().join("draft");
            symlink(Path::new(text).join(to), &draft).expect("a link can be made");
            fs::rename(&draft, folder.path().join(link)).expect("it can be renamed");
        };
        point("one");
        let mut midair = Launch::run(&[&folder.path().join(served)]).start();
        midair.published();
        for text in ["two", "one", "two"] {
            point(text);
            midair.published();
            assert_eq!(midair.get("/").body, text, "{link}");
        }
    }
}

#[test]
fn fault_12_the_same_bytes_again_make_no_new_generation() {
    let mut served = Served::one();
    for _ in 0..3 {
        project::save(&served.path(), &one_and_two()[0]);
    }
    project::save(&served.path(), &one_and_two()[1]);
    let published = served.midair.published();
    assert_eq!(published["generation"], 2, "the first number after the start's\n{}", served.midair.story());
    assert_eq!(served.midair.get("/").body, "two");
    // Asked for, they are looked at, and taken again by force alone.
    for (target, event, generation) in [("/reload", "unchanged", 2), ("/reload?force", "published", 3)] {
        assert_eq!(served.midair.admin().ask("POST", target, &[], "").status, 202);
        let outcome = served.midair.outcome();
        assert_eq!((&outcome["event"], &outcome["generation"]), (&json!(event), &json!(generation)), "{target}: {outcome}");
        assert_eq!(served.midair.get("/").generation(), generation, "{target}");
    }
}

#[test]
fn fault_7_what_is_no_plugin_is_refused_by_what_it_is() {
    let mut served = Served::one();
    let good = &one_and_two()[1];
    served.refuses(
        "a text",
        b"not a library, but longer than a header of one would be: it goes on and on",
        &["E_ELF"],
        &["libhello.so"],
    );
    served.refuses(
        "an executable",
        &fs::read(midair_tests::cargo::midair()).expect("a binary"),
        &["E_ELF", "E_ABI", "E_SYM", "E_DEPS"],
        &[],
    );
    served.refuses("a cdylib without manifest", &fixture::artifact("bare").bytes(), &["E_ABI", "E_SYM"], &["manifest"]);
    served.refuses("an empty file", b"", &["E_SIZE", "E_ELF", "E_TRUNC"], &[]);
    served.refuses("half a library", &good[..good.len() / 2], &["E_TRUNC", "E_ELF"], &[]);
    served.refuses("a library without its last bytes", &good[..good.len() - 64], &["E_TRUNC", "E_ELF"], &[]);
    served.refuses("the first page of a library", &good[..4096], &["E_TRUNC", "E_ELF"], &[]);
}

#[test]
fn fault_4_an_artifact_for_another_machine_is_refused_with_both_named() {
    let mut served = Served::one();
    let with = |place: usize, byte: u8| {
        let mut bytes = one_and_two()[1].clone();
        bytes[place] = byte;
        bytes
    };
    // Places in the ELF header: the class, the byte order, the machine.
    served.refuses("32 bit", &with(4, 1), &["E_ARCH", "E_ELF"], &[]);
    served.refuses("big-endian", &with(5, 2), &["E_ARCH", "E_ELF"], &[]);
    served.refuses("for aarch64", &with(18, 183), &["E_ARCH"], &["aarch64", "x86_64"]);
}

/// Puts something in the artifact's place that is no file: it must be refused, harm nobody, and give way to the next artifact.
#[track_caller]
fn refuses_in_its_place(put: impl FnOnce(&Path), take_away: impl FnOnce(&Path)) {
    let mut served = Served::one();
    fs::remove_file(served.path()).expect("it can be removed");
    put(&served.path());
    let rejected = served.midair.wait_for("rejected", |event| event["event"] == "rejected");
    assert!(["E_SIZE", "E_PERM", "E_ELF"].iter().any(|code| rejected["code"] == *code), "{rejected}");
    assert_eq!(served.midair.get("/").body, "one");
    take_away(&served.path());
    project::save(&served.path(), &one_and_two()[1]);
    served.midair.published();
    assert_eq!(served.midair.get("/").body, "two");
}

#[test]
fn fault_3_a_folder_in_the_place_of_the_artifact_is_refused() {
    refuses_in_its_place(
        |path| fs::create_dir(path).expect("a folder can be made"),
        |path| fs::remove_dir(path).expect("it can be removed"),
    );
}

#[test]
fn fault_3_a_pipe_in_the_place_of_the_artifact_is_refused_and_not_waited_for() {
    let make = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
    refuses_in_its_place(make, |_| {});
}

#[test]
fn fault_3_a_device_in_the_place_of_the_artifact_is_refused_and_not_read_to_its_end() {
    refuses_in_its_place(|path| symlink("/dev/zero", path).expect("a link can be made"), |_| {});
}

#[test]
fn fault_17_an_artifact_that_vanishes_harms_nobody_and_is_taken_when_it_is_back() {
    let mut served = Served::one();
    fs::remove_file(served.path()).expect("it can be removed");
    assert_eq!(served.midair.get("/").body, "one");
    project::save(&served.path(), &one_and_two()[1]);
    served.midair.published();
    assert_eq!(served.midair.get("/").body, "two");
}

#[test]
fn fault_8_another_layout_is_refused_with_the_type_and_the_field_that_differ() {
    let outcome = ("    status: u32,\n    /// The response's headers", "    status: u64,\n    /// The response's headers");
    let edits = [("outcome.rs", outcome.0, outcome.1), ("outcome.rs", "u32::try_from(index).unwrap_or(u32::MAX)", "index as u64")];
    refuses_layout("a field of another type", &edits, &["Outcome", "status", "u32", "u64"]);
}

#[test]
#[ignore = "tests/long builds"]
fn fault_8_other_layouts_are_refused_with_the_type_and_the_field_that_differ() {
    let deep = [("request.rs", "    port: u32,", "    port: u64,")];
    refuses_layout("a field deep below", &deep, &["Peer", "port", "u32", "u64"]);
    let order = [
        ("host.rs", "    pub generation: u64,\n    /// Bits", "    /// Bits"),
        (
            "host.rs",
            "    pub flags: u32,\n}\n\nimpl Identity",
            "    pub flags: u32,\n    /// The number.\n    pub generation: u64,\n}\n\nimpl Identity",
        ),
    ];
    refuses_layout("fields in another order", &order, &["Identity", "generation"]);
}

/// What a plugin lacks that was built before `Root::refilter` was appended.
const OLDER: [(&str, &str, &str); 2] = [
    (
        "plugin.rs",
        "    /// Another filter holds: what is wanted is asked anew.\n    #[sabi(missing_field(option))]\n    pub refilter: extern \"C\" fn(),\n}",
        "}",
    ),
    ("../../src/glue/shim.rs", ", refilter: logs::refilter }", " }"),
];

/// What a plugin has more that is built after something was appended to what plugins give, and to what hosts give.
const NEWER: [(&str, &str, &str); 5] = [
    ("outcome.rs", "TOO_LARGE: u32 = 9;\n", "TOO_LARGE: u32 = 9;\n    /// New.\n    pub const LATER: u32 = 10;\n"),
    ("constants.rs", "Outcome::TOO_LARGE,", "Outcome::TOO_LARGE, Outcome::LATER,"),
    (
        "plugin.rs",
        "    pub refilter: extern \"C\" fn(),\n",
        "    pub refilter: extern \"C\" fn(),\n    /// New.\n    pub later: extern \"C\" fn(),\n",
    ),
    ("../../src/glue/shim.rs", "refilter: logs::refilter }", "refilter: logs::refilter, later: logs::refilter }"),
    ("host.rs", "op: SocketOp) -> Outcome,\n", "op: SocketOp) -> Outcome,\n    /// New.\n    pub later: extern \"C\" fn(),\n"),
];

#[test]
fn fault_8_a_plugin_that_lacks_what_was_appended_to_the_border_is_served() {
    serves_with("an older border", &OLDER);
}

#[test]
#[ignore = "tests/long builds"]
fn fault_8_a_newer_plugin_is_served_and_one_that_is_older_and_newer_is_refused() {
    serves_with("a newer border", &NEWER);
    let both: Vec<_> = OLDER.iter().chain(NEWER.last()).copied().collect();
    refuses_layout("an older root and a newer host", &both, &["fields", "in the plugin", "in the host"]);
    let deep = ("request.rs", "    port: u32,", "    port: u64,");
    let newer_and_another: Vec<_> = NEWER.into_iter().chain([deep]).collect();
    refuses_layout("a newer border with another type", &newer_and_another, &["Peer", "port", "u32", "u64"]);
}

/// A plugin that was built with these edits of midair-plugin is served.
#[track_caller]
fn serves_with(what: &str, edits: &[(&str, &str, &str)]) {
    let project = || Project::plugin("hello", &saying(what)).with_another_border(edits);
    let artifact = built_from(project, &repository::shared_target().join("midair"));
    let mut served = Served::one();
    project::save(&served.path(), &artifact);
    let outcome = served.midair.outcome();
    assert_eq!(outcome["event"], "published", "{what}: {outcome}");
    assert_eq!(served.midair.get("/").body, what);
}

/// A plugin that was built with these edits of midair-plugin is refused with these words.
#[track_caller]
fn refuses_layout(what: &str, edits: &[(&str, &str, &str)], words: &[&str]) {
    let project = || Project::plugin("hello", &saying("another layout")).with_another_border(edits);
    let artifact = built_from(project, &repository::shared_target().join("midair"));
    Served::one().refuses(what, &artifact, &["E_LAYOUT"], words);
}

const ANOTHER_ABI: (&str, &[&str]) = ("another ABI version", &["1", "7"]);
const ABORTS: (&str, &[&str]) = ("panic = abort", &["abort", "unwind"]);
const LACKING: (&str, &[&str]) = ("a feature that this host lacks", &["teleport"]);
const EXCHANGED: (&str, &[&str]) = ("two constants exchanged", &["`Outcome::ERROR` is 2 in the plugin, 1 in the host, and 1 more"]);
const MUSL: (&str, &[&str]) = ("another target", &["x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu"]);

#[test]
fn fault_9_another_abi_or_target_or_way_to_panic_is_refused_with_both_named() {
    let saying = |key: &str, value: &str| fixture::artifact("saying").named("hello").manifest(key, value).bytes();
    let mut served = Served::one();
    for ((what, words), artifact) in [
        (ANOTHER_ABI, saying("abi", "7")),
        (ABORTS, saying("panic", "abort")),
        (MUSL, saying("target", "x86_64-unknown-linux-musl")),
        (LACKING, saying("requires", "jobs,teleport")),
        (EXCHANGED, listing("Outcome::ERROR=1\nOutcome::PANIC=2\n", "Outcome::ERROR=2\nOutcome::PANIC=1\n")),
    ] {
        served.refuses(what, &artifact, &["E_ABI"], words);
    }
}

/// A plugin whose list of constants differs there.
fn listing(from: &str, to: &str) -> Vec<u8> {
    fixture::artifact("saying").named("hello").variant("other constants").with(from, to).bytes()
}

#[test]
fn fault_9_a_plugin_that_knows_fewer_constants_or_requires_what_the_host_has_is_served() {
    let mut served = Served::one();
    let older = listing("Outcome::TOO_LARGE=9\n", "Outcome::TOO_LARGE 9\n");
    let asking = fixture::artifact("saying").named("hello").variant("asking").manifest("requires", "jobs,sockets").bytes();
    for (artifact, text) in [(older, "other constants"), (asking, "asking")] {
        project::save(&served.path(), &artifact);
        let outcome = served.midair.outcome();
        assert_eq!(outcome["event"], "published", "{text}: {outcome}");
        assert_eq!(served.midair.get("/").body, text);
    }
}

#[test]
#[ignore = "tests/long builds"]
fn fault_9_what_was_built_for_another_abi_or_target_or_to_abort_on_panic_says_so_itself() {
    let mut served = Served::one();
    let edits = [
        ("lib.rs", "ABI_VERSION: u32 = 1", "ABI_VERSION: u32 = 7"),
        ("manifest.rs", "ABI_VERSION == 1", "ABI_VERSION == 7"),
        ("manifest.rs", "\"abi=1\\nname=\"", "\"abi=7\\nname=\""),
    ];
    let project = || Project::plugin("hello", &saying("another version")).with_another_border(&edits);
    served.refuses(ANOTHER_ABI.0, &built_from(project, &repository::shared_target().join("midair")), &["E_ABI"], ANOTHER_ABI.1);
    let edits = [("outcome.rs", "ERROR: u32 = 1;", "ERROR: u32 = 2;"), ("outcome.rs", "PANIC: u32 = 2;", "PANIC: u32 = 1;")];
    let project = || Project::plugin("hello", &saying("other constants")).with_another_border(&edits);
    served.refuses(EXCHANGED.0, &built_from(project, &repository::shared_target().join("midair")), &["E_ABI"], EXCHANGED.1);
    let edits = [("manifest.rs", "\"streams\",", "\"streams\", \"teleport\",")];
    let asking = saying("asking").replace("export!(plugin)", "export!(plugin, requires = [\"jobs\", \"teleport\"])");
    let project = || Project::plugin("hello", &asking).with_another_border(&edits);
    served.refuses(LACKING.0, &built_from(project, &repository::shared_target().join("midair")), &["E_ABI"], LACKING.1);
    let edits = [("manifest.rs", "env!(\"MIDAIR_TARGET\")", "\"x86_64-unknown-linux-musl\"")];
    let project = || Project::plugin("hello", &saying("another target")).with_another_border(&edits);
    served.refuses(MUSL.0, &built_from(project, &repository::shared_target().join("midair")), &["E_ABI"], MUSL.1);
    let project = || {
        let project = Project::plugin("hello", &saying("aborts"));
        project.edit("Cargo.toml", "[profile.dev]\n", "[profile.dev]\npanic = \"abort\"\n");
        project
    };
    served.refuses(ABORTS.0, &built_from(project, &repository::shared_target().join("abort")), &["E_ABI"], ABORTS.1);
}

#[test]
fn a_stripped_release_build_is_served_like_any_other() {
    let project = || {
        let project = Project::plugin("hello", &saying("stripped"));
        project.save("Cargo.toml", &format!("{}\n[profile.dev.package.hello]\nopt-level = 3\n", project.read("Cargo.toml")));
        project
    };
    let folder = tempfile::tempdir().expect("a folder");
    let artifact = folder.path().join("libhello.so");
    project::save(&artifact, built_from(project, &repository::shared_target().join("midair")));
    let stripped = Command::new("strip").arg("--strip-all").arg(&artifact).status();
    if !stripped.is_ok_and(|status| status.success()) {
        left_out("there is no `strip` here");
        return;
    }
    let mut midair = Launch::run(&[&artifact]).start();
    midair.published();
    assert_eq!(midair.get("/").body, "stripped");
}

#[expect(clippy::print_stdout, reason = "a test that could not be run must be seen to be left out")]
pub(crate) fn left_out(why: &str) {
    println!("left out: {why}");
}

#[test]
fn one_of_two_artifacts_is_swapped_and_the_other_keeps_its_generation() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = fixture::artifact("elsewhere").named("other").variant("/other other one").save_in(folder.path());
    let hello = folder.path().join("libhello.so");
    project::save(&hello, &one_and_two()[0]);
    let mut midair = Launch::run(&[&hello, &other]).arg("--generation-header").start();
    midair.all_published(&["hello", "other"]);
    project::save(&hello, &one_and_two()[1]);
    assert_eq!(midair.published()["plugin"], "hello");
    assert_eq!((midair.get("/").body.as_str(), midair.get("/").generation()), ("two", 2));
    assert_eq!((midair.get("/other").body.as_str(), midair.get("/other").generation()), ("other one", 1));
}

#[test]
fn fault_23_g1_a_request_lives_through_twenty_swaps_and_ends_on_its_own_generation() {
    let artifacts = fixture::artifacts("long", "hello", ["even", "odd"]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libhello.so");
    project::save(&path, &artifacts[0]);
    let mut midair = Launch::run(&[&path]).arg("--generation-header").start();
    midair.published();
    let mut long = midair.http().connect();
    long.write_all(b"GET /long HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it can be sent");
    midair.wait_for("the begin of the long request", |event| event["message"] == "has begun");
    // Twenty, and one more, so that what is live in the end says something else.
    for swap in 1..=21 {
        project::save(&path, &artifacts[swap % 2]);
        midair.published();
        assert_eq!(midair.get("/").generation(), swap as u64 + 1);
    }
    assert!(midair.all("drained").iter().all(|event| event["generation"] != 1), "the first generation is still in use");
    let plugin = midair.status()["plugins"][0].clone();
    assert!(plugin["retained"].as_u64().is_some_and(|retained| retained >= 1), "{plugin}");
    assert_eq!(midair.get("/end").body, "1");
    let answer = read_answer(&mut long).expect("it ends");
    assert_eq!((answer.status, answer.body.as_str(), answer.generation()), (200, "even 1 even", 1));
    midair.wait_for("drained", |event| event["event"] == "drained" && event["generation"] == 1);
}

#[test]
fn without_being_asked_run_keeps_generation_and_errors_to_itself() {
    let failing = fixture::artifact("failing").placed();
    let mut midair = Launch::run(&[&failing.path]).start();
    midair.published();
    let answer = midair.get("/");
    assert_eq!((answer.status, answer.header("x-midair-generation")), (500, None));
    assert!(!answer.body.contains("invalid digit"), "{answer:?}");
}

//! Does `midair reload` tell what came of it?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::said;
use crate::dev::saying;

/// The artifacts of two plugins, in this folder.
fn pair(folder: &Path) -> [PathBuf; 2] {
    ["a", "b"].map(|name| fixture::artifact("pair").named(name).variant(name).save_in(folder))
}

#[test]
fn what_is_live_and_what_is_unchanged_is_told_when_it_is_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = pair(folder.path());
    let mut midair = Launch::run(&[&paths[0], &paths[1]]).start();
    midair.all_published(&["a", "b"]);

    let (code, stdout, stderr) = said(&mut midair.client(&["reload"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert_eq!(stdout, "reload: unchanged, a 1 keeps serving\nreload: unchanged, b 1 keeps serving\n");

    let (code, stdout, stderr) = said(&mut midair.client(&["reload", "--force"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let plugins = midair.status()["plugins"].clone();
    assert_eq!((&plugins[0]["generation"], &plugins[1]["generation"]), (&json!(2), &json!(2)), "it serves by then");
    assert!(stdout.contains("a 2 live after ") && stdout.contains("b 2 live after "), "{stdout}");

    let (code, stdout, _) = said(&mut midair.client(&["reload", "--json"]));
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!((code, kinds), (Some(0), vec!["unchanged", "unchanged", "outcome"]), "{stdout}");
    let status = midair.status();
    let last = status["attempts"].as_array().and_then(|attempts| attempts.last()).expect("an attempt");
    assert_eq!(lines[2], json!({ "event": "outcome", "outcome": "unchanged", "code": null, "attempts": [last["id"]] }));
}

#[test]
fn what_is_refused_ends_with_3_and_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = pair(folder.path());
    let mut midair = Launch::run(&[&paths[0], &paths[1]]).start();
    midair.all_published(&["a", "b"]);
    project::save(&paths[1], "no library");
    let (code, stdout, stderr) = said(&mut midair.client(&["reload", "--force"]));
    assert_eq!((code, stdout.as_str()), (Some(3), ""), "{stderr}");
    assert!(stderr.starts_with("error: swap rejected [E_ELF], a 1, b 1 keep serving\n"), "{stderr}");
    let (code, stdout, _) = said(&mut midair.client(&["reload", "--json"]));
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((code, &last["outcome"], &last["code"]), (Some(3), &json!("rejected"), &json!("E_ELF")), "{stdout}");
}

#[test]
fn in_dev_it_waits_for_the_build_and_tells_what_the_compiler_said() {
    let project = Project::plugin("rebuilt", &saying("one"));
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    project.save("src/lib.rs", "fn broken( {");
    let (code, _, stderr) = said(&mut midair.client(&["reload"]));
    assert_eq!(code, Some(3), "{stderr}");
    assert!(["fn broken( {", "swap rejected [E_BUILD], generation 1"].iter().all(|words| stderr.contains(words)), "{stderr}");
    project.save("src/lib.rs", &saying("two"));
    let (code, stdout, stderr) = said(&mut midair.client(&["reload"]));
    assert_eq!((code, midair.get("/").body.as_str()), (Some(0), "two"), "{stdout}{stderr}");
}

/// A plugin whose builds wait as long as there is a file.
struct Held {
    project: Project,
    midair: Midair,
    file: PathBuf,
    _folder: TempDir,
}

impl Held {
    #[track_caller]
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("held");
        let project = Project::plugin(name, &saying("one"));
        let script = format!(
            "fn main() {{\n    println!(\"cargo:rerun-if-changed=never-there\");\n    while std::path::Path::new({file:?}).exists() {{\n        \
             std::thread::sleep(std::time::Duration::from_millis(9));\n    }}\n}}\n"
        );
        project.save("build.rs", &script);
        let mut midair = Launch::dev(&[project.root()]).start();
        midair.published();
        fs::write(&file, "").expect("it can be written");
        Self { project, midair, file, _folder: folder }
    }

    /// A `midair reload` whose build has begun.
    #[track_caller]
    fn reload(&mut self) -> Child {
        let mut command = self.midair.client(&["reload"]);
        let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        self.midair.wait_for("its build", |event| event["event"] == "building" && event["trigger"] == "reload");
        client
    }
}

#[track_caller]
fn ended(client: Child) -> (Option<i32>, String, String) {
    let output = client.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn one_that_a_newer_edit_overtakes_ends_as_that_does() {
    let mut held = Held::new("overtaken");
    let mut client = held.reload();
    held.project.save("src/lib.rs", &saying("two"));
    held.midair.wait_for("the newer edit", |event| event["event"] == "superseded");
    assert!(client.try_wait().expect("it can be looked at").is_none(), "it goes on waiting");
    fs::remove_file(&held.file).expect("it is there");
    let (code, stdout, stderr) = ended(client);
    assert_eq!((code, held.midair.get("/").body.as_str()), (Some(0), "two"), "{stdout}{stderr}");
    let words = ["reload: superseded by a newer change\n", "overtaken 2 live after "];
    assert!(words.iter().all(|words| stdout.contains(words)), "{stdout}");
}

#[test]
fn a_host_that_ends_meanwhile_is_an_error() {
    let mut held = Held::new("left_alone");
    let client = held.reload();
    assert_eq!(held.midair.terminate().status.code(), Some(0));
    let (code, _, stderr) = ended(client);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the host ended, or lost the loop that looks for changes, before the reload was over"), "{stderr}");
}

#[test]
fn who_does_not_wait_is_answered_while_the_build_goes_on() {
    let mut held = Held::new("unawaited");
    let (code, stdout, stderr) = said(&mut held.midair.client(&["reload", "--no-wait"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("accepted: "), "{stdout}");
    held.midair.wait_for("its build", |event| event["event"] == "building" && event["trigger"] == "reload");
    fs::remove_file(&held.file).expect("it is there");
    assert_eq!(held.midair.outcome()["trigger"], "reload");
}

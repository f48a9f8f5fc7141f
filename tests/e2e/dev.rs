//! What becomes of an edit while `midair dev` runs?

use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::patience;
use midair_tests::project::{Kind, Project};
use midair_tests::repository;
use serde_json::{Value, json};

use crate::load::show;

/// A plugin that says `text` at `/`.
pub(crate) fn saying(text: &str) -> String {
    fixture::source("saying", text)
}

/// The plugin `name` that says "one", live.
#[track_caller]
fn serving_one(name: &str) -> (Project, Midair) {
    serving(name, &saying("one"))
}

#[track_caller]
fn serving(name: &str, source: &str) -> (Project, Midair) {
    let project = Project::plugin(name, source);
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    (project, midair)
}

#[test]
fn fault_37_editors_save_in_many_ways_and_each_goes_live() {
    let (project, mut midair) = serving_one("editors");
    // The lock file that the project began with holds more than it needs: cargo wrote it anew in the first build.
    assert_eq!(midair.all("superseded"), Vec::<Value>::new());
    let lib = "src/lib.rs";
    type Save = fn(&Project, &str);
    let ways: [(&str, Save); 6] = [
        ("over the file", |project, text| project.save_in_place("src/lib.rs", text)),
        ("a draft beside the file, renamed", |project, text| project.save("src/lib.rs", text)),
        ("a draft elsewhere, renamed", |project, text| {
            project.save("draft.txt", text);
            project.rename("draft.txt", "src/lib.rs");
        }),
        ("the old one renamed to a backup, then the new one written", |project, text| {
            project.rename("src/lib.rs", "src/lib.rs~");
            project.save_in_place("src/lib.rs", text);
            project.remove("src/lib.rs~");
        }),
        ("removed, then written", |project, text| {
            project.remove("src/lib.rs");
            project.save_in_place("src/lib.rs", text);
        }),
        ("emptied, then written", |project, text| {
            project.save_in_place("src/lib.rs", "");
            project.save_in_place("src/lib.rs", text);
        }),
    ];
    for (number, (way, save)) in ways.iter().enumerate() {
        let text = format!("saved in way {number}");
        save(&project, &saying(&text));
        midair.wait_for(way, |event| event["event"] == "published");
        assert_eq!(midair.get("/").body, text, "{way}\n{}", midair.story());
    }
    assert!(project.read(lib).contains("way 5"));
}

/// What a process takes of memory, in kB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn fault_37_a_storm_of_events_and_a_checkout_of_five_thousand_files_end_in_their_last_content() {
    const FILES: usize = 5_000;
    const WRITES: usize = 100_000;
    let (project, mut midair) = serving_one("storm");
    let before = resident(midair.pid());
    // A file that is written over and over, as fast as this thread can.
    let noise = project.path("src/noise.rs");
    for number in 0..WRITES {
        fs::write(&noise, number.to_string()).expect("it can be written");
    }
    // Another branch is checked out: folders and files come by the thousand, and some go again.
    for number in 0..FILES {
        let folder = project.path(&format!("src/part{}", number % 50));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("file{number}.rs")), format!("// {number}\n")).expect("a file");
    }
    for part in 0..25 {
        fs::remove_dir_all(project.path(&format!("src/part{part}"))).expect("it can be removed");
    }
    project.save("src/lib.rs", &saying("the last content"));
    midair.wait_for("the last content", |event| event["event"] == "published");
    while midair.get("/").body != "the last content" {
        midair.published();
    }
    // One build at a time, whatever came meanwhile.
    let mut running = 0;
    for event in midair.all_events() {
        match event["event"].as_str() {
            Some("building") => running += 1,
            Some("published" | "unchanged" | "rejected" | "superseded") => running = 0,
            _ => {}
        }
        assert!(running <= 1, "{}", midair.story());
    }
    let grown = resident(midair.pid()).saturating_sub(before);
    assert!(grown < 200_000, "it grew by {grown} kB");
    // It still sees what comes.
    project.save("src/lib.rs", &saying("one more"));
    midair.wait_for("one more", |event| event["event"] == "published");
    assert_eq!(midair.get("/").body, "one more");
}

#[test]
fn fault_34_content_that_was_live_before_serves_again_under_a_new_number() {
    let (project, mut midair) = serving_one("revert");
    let first = midair.get("/").generation();
    project.save("src/lib.rs", &saying("two"));
    midair.published();
    let second = midair.get("/").generation();
    project.save("src/lib.rs", &saying("one"));
    let published = midair.published();
    let answer = midair.get("/");
    assert_eq!((answer.body.as_str(), published["generation"].as_u64()), ("one", Some(answer.generation())));
    assert!(first < second && second < answer.generation(), "{first} {second} {answer:?}");
}

#[test]
fn the_same_bytes_saved_again_build_nothing() {
    let project =
        Project::packages(&[("touched", Kind::Plugin, &saying("one")), ("sentinel", Kind::Plugin, &at("/sentinel", "one"))]);
    let mut midair = Launch::dev(&[&project.path("touched"), &project.path("sentinel")]).start();
    midair.all_published(&["touched", "sentinel"]);
    let builds = |midair: &Midair| -> Vec<Value> {
        let names_it = |event: &Value| event["plugins"].as_array().is_some_and(|plugins| plugins.contains(&json!("touched")));
        midair.all("building").into_iter().filter(names_it).collect()
    };
    let before = builds(&midair).len();
    project.save("touched/src/lib.rs", &saying("one"));
    // Byte over byte: a file that is emptied first has other bytes until it is written.
    let mut file = fs::File::options().write(true).open(project.path("touched/src/lib.rs")).expect("it is there");
    file.write_all(saying("one").as_bytes()).expect("it can be written");
    file.set_modified(std::time::SystemTime::now()).expect("it can be touched");
    drop(file);
    // What was saved before the sentinel has been judged when the sentinel is live.
    project.save("sentinel/src/lib.rs", &at("/sentinel", "two"));
    midair.published();
    assert_eq!(midair.get("/sentinel").body, "two");
    assert_eq!(builds(&midair).len(), before, "{}", midair.story());
}

fn at(path: &str, text: &str) -> String {
    saying(text).replace("\"/\"", &format!("{path:?}"))
}

#[test]
fn fault_39_what_does_not_compile_is_shown_and_the_code_before_serves_until_it_does() {
    let (project, mut midair) = serving_one("broken");
    for (what, broken, words) in [
        ("a syntax error", "fn plugin( {", "delimiter"),
        ("a type error", "pub fn wrong() -> u32 { \"text\" }", "mismatched types"),
    ] {
        let generation = midair.get("/").generation();
        project.save("src/lib.rs", &format!("{}\n{broken}", saying("broken")));
        let diagnostic = midair.wait_for("diagnostic", |event| event["event"] == "diagnostic" && event["level"] == "error");
        let rendered = diagnostic["rendered"].as_str().unwrap_or_default();
        assert!(rendered.contains(words) && rendered.contains("src/lib.rs:"), "{what}: {rendered}");
        let rejected = midair.rejected("E_BUILD");
        assert!(rejected["serving"].to_string().contains(&format!("broken={generation}")), "{what}: {rejected}");
        let answer = midair.get("/");
        assert_eq!((answer.status, answer.generation()), (200, generation), "{what}");

        let fixed = format!("fixed after {what}");
        project.save("src/lib.rs", &saying(&fixed));
        midair.published();
        assert_eq!(midair.get("/").body, fixed);
    }
}

#[test]
fn a_plugin_that_does_not_compile_at_the_start_goes_live_when_it_does() {
    let project = Project::plugin("stillborn", "fn");
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.rejected("E_BUILD");
    assert_ne!(midair.get("/").status, 200);
    assert_eq!(midair.admin().get("/readyz").status, 503);
    project.save("src/lib.rs", &saying("alive"));
    midair.published();
    assert_eq!(midair.get("/").body, "alive");
    assert_eq!(midair.admin().get("/readyz").status, 200);
}

#[test]
fn fault_18_g10_a_handler_that_panics_costs_its_request_a_500_and_nothing_else() {
    let source = "
use midair_plugin::{Ctx, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get(\"/\", |_, _| \"alive\").get(\"/text\", text).get(\"/string\", string).get(\"/later\", later).get(\"/bomb\", bomb)
}

fn text(_: Request, _: Ctx) -> &'static str { panic!(\"a text\") }

fn string(req: Request, _: Ctx) -> &'static str { panic!(\"a string for {}\", req.path()) }

async fn later(_: Request, ctx: Ctx) -> Result<String> {
    ctx.sleep(std::time::Duration::from_millis(1)).await?;
    panic!(\"later\")
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) { panic!(\"in the drop of a payload\") }
}

fn bomb(_: Request, _: Ctx) -> &'static str { std::panic::panic_any(Bomb) }
";
    let (_project, mut midair) = serving("panics", source);
    for (path, message) in [("/text", "a text"), ("/string", "a string for /string"), ("/later", "later"), ("/bomb", "")] {
        let answer = midair.get(path);
        assert_eq!((answer.status, answer.generation()), (500, 1), "{path}");
        assert!(answer.body.contains("the handler panicked: ") && answer.body.contains(message), "{path}: {answer:?}");
        let panicked = midair.wait_for("panicked", |event| event["event"] == "panicked");
        assert!(panicked["message"].as_str().is_some_and(|told| told.contains(message)), "{path}: {panicked}");
        assert!(
            message.is_empty() || panicked["location"].as_str().is_some_and(|at| at.contains("src/lib.rs:")),
            "{path}: {panicked}"
        );
        assert_eq!(midair.get("/").body, "alive", "after {path}");
    }
    assert!(midair.terminate().status.success());
}

#[test]
fn an_error_that_a_handler_returns_is_shown_to_the_client_in_dev_and_told() {
    let source = "
midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new().get(\"/\", |_, _| -> midair_plugin::Result<String> { Ok(\"no number\".parse::<u32>()?.to_string()) })
}
";
    let (_project, mut midair) = serving("errs", source);
    let answer = midair.get("/");
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("invalid digit"), "{answer:?}");
    let failed = midair.wait_for("failed", |event| event["event"] == "failed");
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("invalid digit")), "{failed}");
}

#[test]
fn fault_40_an_edit_made_while_a_build_runs_is_never_lost() {
    let (project, mut midair) = serving_one("during");
    for round in 0..4 {
        let save = |number: usize| {
            let text = format!("round {round}, save {number}");
            project.save("src/lib.rs", &saying(&text));
            text
        };
        // Each save cancels the build before, until one is let finish: the last save comes while that one runs.
        for number in 0..3 {
            save(number);
            midair.wait_for("building", |event| event["event"] == "building");
        }
        let last = save(3);
        while midair.get("/").body != last {
            midair.published();
        }
    }
}

#[test]
fn fault_40_an_edit_of_what_the_running_build_has_read_already_is_built_after_it() {
    // Outside the project: the build script says here what it has read, and waits here until it may end, or the test does.
    let yard = tempfile::tempdir().expect("a folder");
    let pipe = yard.path().join("reached");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let (reached, reaches) = channel();
    thread::spawn(move || while fs::read_to_string(&pipe).is_ok_and(|text| reached.send(text).is_ok()) {});
    let script = format!(
        "
fn main() {{
    let text = std::fs::read_to_string(\"text.txt\").unwrap();
    println!(\"cargo::rerun-if-changed=text.txt\");
    println!(\"cargo::rustc-env=TEXT={{text}}\");
    let yard = std::path::Path::new({yard:?});
    std::fs::write(yard.join(\"reached\"), &text).unwrap();
    while yard.exists() && !yard.join(&text).exists() {{ std::thread::sleep(std::time::Duration::from_millis(1)) }}
}}
",
        yard = yard.path()
    );
    let project = Project::plugin("behind", &saying("one").replace("\"one\"", "env!(\"TEXT\")"));
    project.save("build.rs", &script);
    project.save("text.txt", "text-0");
    let mut midair = Launch::dev(&[project.root()]).start();
    let text = |number: usize| format!("text-{number}");
    // Some of these builds are cancelled, some are let finish; what they had not read must be built in any case.
    for number in 0..8 {
        // What two of them say one right after the other may be read as one.
        while !reaches
            .recv_timeout(patience())
            .unwrap_or_else(|_| panic!("{} is lost\n{}", text(number), midair.story()))
            .contains(&text(number))
        {}
        // After five builds in a row that each saw a save, and no save between them, they are taken for their own cause.
        let is_between = number == 4;
        if number < 7 && !is_between {
            project.save("text.txt", &text(number + 1));
        }
        fs::write(yard.path().join(text(number)), "").expect("it can be written");
        if is_between {
            while midair.get("/").body != text(number) {
                midair.published();
            }
            project.save("text.txt", &text(number + 1));
        }
    }
    while midair.get("/").body != text(7) {
        midair.published();
    }
}

#[test]
fn fault_40_g16_an_editor_that_never_stops_saving_sees_its_saves_go_live_and_the_last_one_wins() {
    let (project, mut midair) = serving_one("restless");
    let mut saved = 0;
    let mut save_and_ask = || {
        saved += 1;
        project.save("src/lib.rs", &saying(&format!("save {saved}")));
        saved
    };
    let is_published = |event: &Value| event["event"] == "published";
    // However long it takes: as long as nothing is published, the saving goes on.
    while !midair.unread().iter().any(is_published) {
        let last = save_and_ask();
        assert_eq!(midair.get("/").status, 200);
        assert!(last < 1_000_000, "nothing goes live\n{}", midair.story());
    }
    let last = format!("save {}", save_and_ask());
    while midair.get("/").body != last {
        midair.published();
    }
}

#[test]
fn plugins_that_one_edit_changes_are_published_in_one_store() {
    let asks = |path: &str| {
        format!(
            "midair_plugin::export!(plugin);\n\nfn plugin() -> midair_plugin::Plugin {{\n    \
             midair_plugin::Plugin::new().get({path:?}, |_, _| twin_words::WORD)\n}}\n"
        )
    };
    let word = |word: &str| format!("pub const WORD: &str = {word:?};\n");
    let project = Project::packages(&[
        ("twin_words", Kind::Library, &word("one")),
        ("twin_a", Kind::Plugin, &asks("/a")),
        ("twin_b", Kind::Plugin, &asks("/b")),
    ]);
    let mut midair = Launch::dev(&[&project.path("twin_a"), &project.path("twin_b")]).start();
    midair.all_published(&["twin_a", "twin_b"]);
    for text in ["two", "three"] {
        project.save("twin_words/src/lib.rs", &word(text));
        let events = midair.all_published(&["twin_a", "twin_b"]);
        assert_eq!((&events[0]["epoch"], &events[0]["attempt"]), (&events[1]["epoch"], &events[1]["attempt"]), "{events:?}");
        assert_eq!((midair.get("/a").body, midair.get("/b").body), (text.to_owned(), text.to_owned()));
    }
    let before = midair.get("/a").generation();
    project.edit("twin_b/src/lib.rs", "\"/b\"", "\"/only-b\"");
    assert_eq!(midair.published()["plugin"], "twin_b");
    assert_eq!((midair.get("/only-b").body.as_str(), midair.get("/a").generation()), ("three", before), "a is as it was");
}

#[test]
fn fault_17_routes_that_clash_are_refused_with_both_handlers_named() {
    let project = Project::packages(&[("clash_a", Kind::Plugin, &at("/a", "a")), ("clash_b", Kind::Plugin, &at("/b", "b"))]);
    let mut midair = Launch::dev(&[&project.path("clash_a"), &project.path("clash_b")]).start();
    midair.all_published(&["clash_a", "clash_b"]);
    project.save("clash_b/src/lib.rs", &at("/a", "b"));
    let reason = midair.rejected("E_ROUTES")["reason"].to_string();
    assert!(["/a", "clash_a", "clash_b"].iter().all(|part| reason.contains(part)), "{reason}");
    assert_eq!((midair.get("/a").body.as_str(), midair.get("/b").body.as_str()), ("a", "b"));
    project.save("clash_b/src/lib.rs", &at("/c", "b"));
    midair.published();
    assert_eq!((midair.get("/b").status, midair.get("/c").body.as_str()), (404, "b"));
}

#[test]
fn a_broken_manifest_is_told_and_the_next_good_one_goes_live() {
    let (project, mut midair) = serving_one("manifest");
    let good = project.read("Cargo.toml");
    project.save("Cargo.toml", "[package\n");
    let rejected = midair.rejected("E_BUILD");
    assert!(rejected["reason"].to_string().contains("Cargo.toml"), "{rejected}");
    assert_eq!(midair.get("/").body, "one");
    project.save("Cargo.toml", &good);
    project.save("src/lib.rs", &saying("two"));
    while midair.get("/").body != "two" {
        midair.published();
    }
}

#[test]
fn a_dependency_that_is_added_while_it_runs_goes_live_and_is_watched() {
    let (project, mut midair) = serving_one("grows");
    project.save("added/Cargo.toml", "[package]\nname = \"grows_added\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    project.save("added/src/lib.rs", "pub const WORD: &str = \"added\";\n");
    let manifest = project.read("Cargo.toml");
    project.save("Cargo.toml", &manifest.replace("serde_json", "grows_added = { path = \"added\" }\nserde_json"));
    project.save("src/lib.rs", &saying("one").replace("\"one\"", "grows_added::WORD"));
    while midair.get("/").body != "added" {
        midair.published();
    }
    // It serves before that is said, so a word of what was added may still come.
    project.save("added/src/lib.rs", "pub const WORD: &str = \"edited\";\n");
    while midair.get("/").body != "edited" {
        midair.published();
    }
}

#[test]
fn build_scripts_and_features_count_as_sources() {
    let source = "
midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new()
        .get(\"/\", |_, _| env!(\"WORD\"))
        .get(\"/loud\", |_, _| cfg!(feature = \"loud\").to_string())
        .get(\"/asked\", |_, _| cfg!(feature = \"asked\").to_string())
}
";
    let script = |word: &str| format!("fn main() {{ println!(\"cargo::rustc-env=WORD={word}\") }}\n");
    let project = Project::plugin("scripted", source);
    project.save("build.rs", &script("one"));
    let manifest = project.read("Cargo.toml");
    let with_default = |features: &str| format!("{manifest}\n[features]\ndefault = [{features}]\nloud = []\nasked = []\n");
    project.save("Cargo.toml", &with_default(""));
    let mut midair = Launch::dev(&[project.root()]).arg("--features").arg("asked").start();
    midair.published();
    let answers = |midair: &Midair| [midair.get("/").body, midair.get("/loud").body, midair.get("/asked").body];
    assert_eq!(answers(&midair), ["one", "false", "true"]);
    project.save("build.rs", &script("two"));
    midair.published();
    assert_eq!(answers(&midair), ["two", "false", "true"]);
    project.save("Cargo.toml", &with_default("\"loud\""));
    midair.published();
    assert_eq!(answers(&midair), ["two", "true", "true"]);
}

#[test]
fn fault_38_a_source_folder_that_goes_away_and_comes_back_is_watched_again() {
    let (project, mut midair) = serving_one("vanishes");
    project.rename("src", "elsewhere");
    midair.rejected("E_BUILD");
    assert_eq!(midair.get("/").body, "one");
    project.rename("elsewhere", "src");
    for text in ["two", "three"] {
        project.save("src/lib.rs", &saying(text));
        while midair.get("/").body != text {
            midair.published();
        }
    }
}

#[test]
fn fault_38_where_the_system_refuses_to_watch_everything_or_one_folder_edits_go_live_all_the_same() {
    // A name space of its own has limits of its own.
    let apart = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "sh", "-c", command, "sh"]);
        unshare
    };
    if !apart("echo 0 > /proc/sys/user/max_inotify_watches").output().is_ok_and(|output| output.status.success()) {
        return show("left out: a user may not make name spaces here");
    }
    let project = Project::plugin("unwatched", &saying("none"));
    for (limit, text) in [("max_inotify_instances", "no instance"), ("max_inotify_watches", "no watch")] {
        // The second lets the first two folders be watched.
        let count = if limit == "max_inotify_watches" { 2 } else { 0 };
        let mut command = apart(&format!("echo {count} > /proc/sys/user/{limit} && exec \"$@\""));
        command.arg(midair_tests::cargo::midair());
        let mut midair = Launch::of(command, "dev", &[project.root()]).start();
        let watching = midair.wait_for("watching", |event| event["event"] == "watching");
        assert_eq!(watching["by"], "polling", "{watching}");
        midair.published();
        project.save("src/lib.rs", &saying(text));
        midair.published();
        assert_eq!(midair.get("/").body, text);
    }
}

#[test]
fn what_a_plugin_prints_goes_to_stderr_and_stdout_carries_only_events() {
    let source = "
use midair_plugin::Plugin;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    println!(\"printed while put together\");
    let init = |_| { print!(\"printed in init\\n{{\"); println!(); Ok(()) };
    Plugin::new().init(init).get(\"/\", |_, _| { println!(\"printed in a handler\"); \"answered\" })
}
";
    let (_project, midair) = serving("prints", source);
    assert_eq!(midair.get("/").body, "answered");
    for words in ["printed while put together", "printed in init", "printed in a handler"] {
        midair.wait_for_stderr(words);
    }
    // It fails if a line on stdout was no event.
    assert!(midair.terminate().status.success());
}

#[test]
fn what_a_plugin_logs_is_an_event_with_its_generation() {
    let source = "
use midair_plugin::{Ctx, Plugin, Request};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get(\"/\", |_: Request, ctx: Ctx| { ctx.warn(\"look at that\"); \"logged\" })
}
";
    let (project, mut midair) = serving("logs", source);
    for text in ["logged", "logged again"] {
        let answer = midair.get("/");
        assert_eq!(answer.body, text);
        let log = midair.wait_for("log", |event| event["event"] == "log");
        assert_eq!((&log["plugin"], &log["level"], &log["message"]), (&json!("logs"), &json!("warn"), &json!("look at that")));
        assert_eq!(log["generation"], answer.generation());
        project.edit("src/lib.rs", &format!("{text:?}"), "\"logged again\"");
        if text != "logged again" {
            midair.published();
        }
    }
}

#[test]
fn the_readmes_first_command_serves_the_example_and_ends_well() {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository::root()).args(["run", "--target-dir"]).arg(repository::target()).arg("--");
    let mut midair = Launch::of(cargo, "dev", &[]).env("CARGO_TARGET_DIR", None).start();
    assert_eq!(midair.published()["plugin"], "example-plugin");

    let made = midair.http().post("/links", &json!({ "url": "https://example.org/", "slug": "e2e" }));
    assert_eq!((made.status, made.json()), (201, json!({ "slug": "e2e" })));
    let followed = midair.get("/e2e");
    assert_eq!((followed.status, followed.header("location")), (307, Some("https://example.org/")));
    assert_eq!(midair.get("/stats").json(), json!({ "links": 1, "clicks": 1, "top": [{ "slug": "e2e", "clicks": 1 }] }));
    assert_eq!(midair.http().ask("DELETE", "/links/e2e", &[], "").status, 204);
    assert_eq!(midair.get("/e2e").status, 404);

    let ended = midair.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.words());
}

#[test]
fn the_config_of_the_folder_where_dev_starts_is_cargos() {
    let source = |more: &str| {
        format!(
            "midair_plugin::export!(plugin);\n{more}fn plugin() -> midair_plugin::Plugin {{ \
             midair_plugin::Plugin::new().get(\"/\", |_, _| option_env!(\"WORD\").unwrap_or(\"unset\")) }}\n"
        )
    };
    let project = Project::packages(&[("configured", Kind::Plugin, &source(""))]);
    let config = |word: &str| format!("[env]\nWORD = \"{word}\"\n");
    project.save("configured/.cargo/config.toml", &config("of the member"));
    let mut midair = Launch::dev(&[]).inside(&project.path("configured")).start();
    midair.published();
    assert_eq!(midair.get("/").body, "of the member");
    project.save("configured/.cargo/config.toml", &config("edited"));
    midair.published();
    assert_eq!(midair.get("/").body, "edited");
}

#[test]
fn a_source_replaced_by_an_older_one_while_nothing_watched_goes_live_at_the_start() {
    let (project, midair) = serving_one("replaced");
    drop(midair);
    project.save("draft.rs", &saying("two"));
    let draft = fs::File::options().append(true).open(project.path("draft.rs")).expect("a file");
    draft.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(100_000)).expect("a stamp");
    project.rename("draft.rs", "src/lib.rs");
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    assert_eq!(midair.get("/").body, "two");
}

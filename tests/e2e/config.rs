//! Does a plugin get its config as its own type, and does an edit of it go live as code does?

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use midair_tests::client::read_answer;
use midair_tests::fixture;
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{self, Project};
use serde_json::Value;

use crate::run::hello;

fn section(greeting: &str, max: &str) -> String {
    format!("[plugin.hello]\ngreeting = {greeting:?}\n\n[plugin.hello.limits]\nmax = {max}\n")
}

/// `midair run` of a greeter with a config file.
struct Served {
    folder: tempfile::TempDir,
    midair: Midair,
}

impl Served {
    fn with(config: &str) -> Self {
        Self::with_args(config, &[])
    }

    fn with_args(config: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        project::save(&folder.path().join("libhello.so"), hello("greeting", ""));
        project::save(&folder.path().join("midair.toml"), config);
        let config = folder.path().join("midair.toml");
        let launch = Launch::run(&[&folder.path().join("libhello.so")]).arg("--config").arg(config).arg("--generation-header");
        Self { midair: args.iter().fold(launch, |launch, arg| launch.arg(arg)).start(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, text: &str) {
        project::save(&self.path("midair.toml"), text);
    }

    fn put(&self, variant: &str) {
        project::save(&self.path("libhello.so"), hello("greeting", variant));
    }

    /// The next end of an attempt is this new config.
    #[track_caller]
    fn configured(&mut self) -> Value {
        let ends = ["configured", "published", "rejected"];
        let event = self.midair.wait_for("configured", |event| ends.iter().any(|end| event["event"] == *end));
        assert_eq!(event["event"], "configured", "{event}\n{}", self.midair.story());
        event
    }

    #[track_caller]
    fn answers(&self, text: &str, generation: u64) {
        let answer = self.midair.get("/");
        assert_eq!((answer.body.as_str(), answer.generation()), (text, generation), "{answer:?}\n{}", self.midair.story());
    }
}

fn ask(midair: &Midair, target: &str) -> TcpStream {
    let mut asked = midair.http().connect();
    write!(asked, "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it can be sent");
    asked
}

#[test]
fn g1_an_edit_of_the_config_goes_live_without_new_code_and_what_is_in_flight_keeps_the_old_one() {
    let mut served = Served::with(&section("one", "1"));
    assert_eq!(served.midair.published()["generation"], 1);
    served.answers("one 1", 1);
    let mut long = ask(&served.midair, "/long");
    served.midair.wait_for("the begin of the long request", |event| event["message"] == "has begun");
    let mut digests = Vec::new();
    for number in 2..=21 {
        served.configure(&section(&format!("edit {number}"), "7"));
        let configured = served.configured();
        assert_eq!((configured["plugin"].as_str(), configured["generation"].as_u64()), (Some("hello"), Some(1)), "{configured}");
        assert_eq!(configured["epoch"], number, "each edit is a store of its own: {configured}");
        served.answers(&format!("edit {number} 7"), 1);
        let shown = served.midair.status()["plugins"][0]["config"].clone();
        assert_eq!(shown, configured["config"]);
        digests.push(shown.to_string());
    }
    digests.dedup();
    assert_eq!(digests.len(), 20);
    assert_eq!(served.midair.get("/end").body, "1");
    let answer = read_answer(&mut long).expect("it ends");
    assert_eq!((answer.status, answer.body.as_str(), answer.generation()), (200, "one one one 1", 1));
    assert_eq!(served.midair.all("retired"), Vec::<Value>::new(), "no code was replaced");
    let told = served.midair.client(&["status"]).output().expect("a client");
    let digest: String = digests[19].trim_matches('"').chars().take(12).collect();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("CONFIG") && told.contains(&digest), "{told}");
}

#[test]
fn what_a_plugin_can_not_take_is_refused_with_file_line_key_and_expectation_and_the_next_good_save_wins() {
    let mut served = Served::with(&section("one", "1"));
    served.midair.published();
    for (bad, code, words) in [
        (
            section("two", "\"x\""),
            "E_CONFIG",
            ["plugin.hello.limits.max", "invalid type: string \"x\", expected u32", "midair.toml:5"],
        ),
        (
            section("two", "-1"),
            "E_CONFIG",
            ["plugin.hello.limits.max", "invalid value: integer `-1`, expected u32", "midair.toml:5"],
        ),
        ("[plugin.hello.limits]\n".to_owned(), "E_CONFIG", ["plugin.hello.limits", "missing field `max`", "midair.toml:1"]),
        ("[plugin.hello]\ngreeting = \n".to_owned(), "E_CONFIG", ["midair.toml:2", "", ""]),
        (format!("[plugins.hello]\n{}", section("two", "2")), "E_CONFIG", ["midair.toml:1", "`plugins`", "nearest is `plugin`"]),
    ] {
        served.configure(&bad);
        let rejected = served.midair.rejected(code);
        let told = rejected.to_string().replace("\\\"", "\"");
        assert!(words.iter().all(|word| told.contains(word)), "{bad}: {rejected}");
        assert!(rejected["trigger"].as_str().is_some_and(|trigger| trigger.starts_with("saved ")), "{rejected}");
        assert_eq!(rejected["serving"][0], "hello=1", "{rejected}");
        served.answers("one 1", 1);
    }
    served.configure(&section("good", "2"));
    served.configured();
    served.answers("good 2", 1);
    // What says the same in another form is nothing new.
    served.configure(&format!("# a comment\n{}", section("good", "2")));
    assert_eq!(served.midair.outcome()["event"], "unchanged");
    // In place, and after the file was gone.
    fs::write(served.path("midair.toml"), section("in place", "3")).expect("it can be written");
    served.configured();
    served.answers("in place 3", 1);
    fs::remove_file(served.path("midair.toml")).expect("it can be removed");
    served.midair.wait_for("a warning", |event| event["message"].as_str().is_some_and(|message| message.contains("is gone")));
    served.answers("in place 3", 1);
    served.put("other");
    served.midair.published();
    served.answers("in place 3", 2);
    served.configure(&section("back", "4"));
    served.configured();
    served.answers("back 4", 2);
}

#[test]
fn code_and_config_that_need_each_other_go_live_in_one_store_whichever_comes_first() {
    let with = |more: &str| section("hi", "1").replacen("\n\n", &format!("\n{more}\n\n"), 1);
    let mut served = Served::with(&section("hi", "1"));
    served.midair.published();
    // The code first: what it lacks is named, and the edit that brings it brings the code along.
    served.put("first");
    let rejected = served.midair.rejected("E_CONFIG");
    assert!(rejected["reason"].as_str().is_some_and(|reason| reason.contains("plugin.hello: missing field `first`")), "{rejected}");
    served.configure(&with("first = \"now\""));
    let published = served.midair.published();
    assert_eq!((published["generation"].as_u64(), published["epoch"].as_u64()), (Some(2), Some(2)), "{published}");
    assert_eq!(served.midair.get("/first").body, "now");
    // The config first: it waits for the code that can take it.
    served.configure(&with("second = \"then\""));
    served.midair.rejected("E_CONFIG");
    assert_eq!(served.midair.get("/first").body, "now");
    served.put("second");
    let published = served.midair.published();
    assert_eq!((published["generation"].as_u64(), published["epoch"].as_u64()), (Some(3), Some(3)), "{published}");
    assert_eq!(served.midair.get("/second").body, "then");
}

#[test]
fn a_rollback_goes_back_with_the_config_that_the_code_served_with() {
    // However slowly the machine answers, that is no breach.
    let args = ["--probation", "0", "--probation-requests", "20", "--breach-latency", "1000000"];
    let mut served = Served::with_args(&section("one", "1"), &args);
    let commit = |served: &mut Served| {
        (0..20).for_each(|_| drop(served.midair.get("/")));
        served.midair.wait_for("committed", |event| event["event"] == "committed");
    };
    served.midair.published();
    commit(&mut served);
    served.configure(&section("edited", "1"));
    served.configured();
    served.put("bad");
    served.midair.published();
    served.configure(&section("on trial", "1"));
    served.configured();
    served.answers("on trial 1", 2);
    // The way back was prepared when the code was published, and once more with the edit.
    (0..5).for_each(|_| assert_eq!(served.midair.get("/bad").status, 500));
    served.midair.wait_for("the rollback", |event| event["event"] == "rolled_back" && event["by"] == "breach");
    served.answers("edited 1", 1);
    let told = served.midair.all("warning");
    assert!(
        told.iter().any(|event| event["message"].as_str().is_some_and(|text| text.contains("that it served with before"))),
        "{told:?}"
    );
    // The next edit is for what serves by then.
    served.configure(&section("after", "1"));
    served.configured();
    served.answers("after 1", 1);
    // By hand, and forward again.
    served.put("other");
    served.midair.published();
    commit(&mut served);
    served.configure(&section("last", "1"));
    served.configured();
    assert!(served.midair.client(&["rollback"]).output().expect("a client").status.success());
    served.answers("after 1", 1);
    assert!(served.midair.client(&["rollback", "hello@3"]).output().expect("a client").status.success());
    served.answers("last 1", 3);
}

#[test]
fn the_probe_sees_the_config_so_an_init_that_minds_it_is_found_there() {
    let mut served = Served::with(&section("real", "11"));
    served.midair.published();
    served.put("minds");
    let rejected = served.midair.rejected("E_INIT");
    let reason = rejected["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("max is 11, which is too much (found in the probe)"), "{rejected}");
    served.configure(&section("unreal", "9"));
    // The code goes along, and as it is refused again the edit goes live without it.
    let rejected = served.midair.rejected("E_PROBE");
    assert!(rejected["reason"].as_str().is_some_and(|reason| reason.contains("unreal 9")), "{rejected}");
    served.configured();
    served.answers("unreal 9", 1);
    served.configure(&section("real", "9"));
    served.midair.published();
    served.answers("real 9", 2);
}

#[test]
fn dev_takes_midair_toml_beside_the_manifest_and_code_saved_with_it_in_one_store() {
    let project = Project::plugin("configured", &fixture::source("greeting", ""));
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    assert_eq!(midair.get("/").body, " 0", "no file, empty sections");
    project.save("midair.toml", &section("new", "1").replace("hello", "configured"));
    let configured = midair.wait_for("configured", |event| event["event"] == "configured");
    assert_eq!(configured["trigger"], "saved midair.toml", "{configured}");
    assert_eq!(midair.get("/").body, "new 1");
    project.save("midair.toml", "[plugin.configured]\ngreting = \"typo\"\n[plugin.configurd]\n");
    let warning = midair.wait_for("a warning", |event| event["event"] == "warning");
    assert!(
        warning["message"].as_str().is_some_and(|text| text.ends_with("no plugin `configurd`; the nearest is `configured`")),
        "{warning}"
    );
    // The code lacks what it needs; the config that it needs is saved while it is built or after it was refused.
    project.save("src/lib.rs", &fixture::source("greeting", "needed"));
    project.save("midair.toml", "[plugin.configured]\nneeded = \"here\"\n");
    let published = midair.published();
    assert_eq!(published["generation"], 2, "{published}");
    assert_eq!(midair.get("/needed").body, "here");
    // What was asked for in another way is told by what to write.
    project.save("src/lib.rs", &fixture::source("greeting", "undeclared"));
    midair.published();
    let warning = midair.wait_for("a warning", |event| event["event"] == "warning");
    assert!(warning["message"].as_str().is_some_and(|text| text.contains("configured declares no config")), "{warning}");
    let answer = midair.get("/");
    assert!(answer.status == 500 && answer.body.contains("add `.config::<configured::Settings>()` to its `Plugin`"), "{answer:?}");
}

#[test]
fn a_config_file_that_is_named_and_is_not_there_ends_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libhello.so");
    project::save(&path, hello("greeting", ""));
    let ended = Launch::run(&[&path]).arg("--config").arg(folder.path().join("midiar.toml")).end();
    assert!(
        !ended.status.success() && ended.words().contains("E_CONFIG") && ended.words().contains("midiar.toml"),
        "{}",
        ended.words()
    );
}

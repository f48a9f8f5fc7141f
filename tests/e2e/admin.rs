//! Who may ask the admin listener, and how does the command line get in?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use midair_tests::cargo;
use midair_tests::client::Client;
use midair_tests::fixture::{self, Placed};
use midair_tests::host::{Launch, Midair};
use midair_tests::project::Project;
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::said;
use crate::dev::saying;

fn placed() -> Placed {
    fixture::artifact("saying").named("admitted").variant("one").placed()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// A `midair` of this user, who has no host unless one is in this folder, and no token.
fn client(home: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(cargo::midair());
    command.args(args).current_dir(home.path()).env("HOME", home.path());
    for name in ["XDG_STATE_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "MIDAIR_ADMIN_TOKEN"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn all_but_the_two_probes_needs_the_token_that_lies_in_the_data_folder() {
    let placed = placed();
    let data = placed.folder().join("data");
    let mut midair = Launch::run(&[&placed.path]).arg("--data").arg(&data).start();
    midair.published();
    assert_eq!((mode(&data.join("admin-token")), mode(&data)), (0o600, 0o700));
    let admin = midair.admin();
    let stranger = Client(admin.0, None);
    for (method, page) in [
        ("GET", "/status"),
        ("GET", "/generations"),
        ("GET", "/events"),
        ("GET", "/state"),
        ("GET", "/log"),
        ("GET", "/nowhere"),
        ("POST", "/reload?force"),
        ("POST", "/rollback"),
        ("POST", "/state/admitted/things"),
    ] {
        assert_eq!(stranger.ask(method, page, &[], "").status, 401, "{page}");
        let guess = "0".repeat(64);
        let headers = [("authorization", format!("Bearer {guess}"))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(stranger.ask(method, page, &headers, "").status, 401, "{page}");
    }
    assert_eq!((stranger.get("/healthz").status, stranger.get("/readyz").status), (200, 200));
    assert_eq!((admin.get("/status").status, midair.status()["plugins"][0]["generation"].as_u64()), (200, Some(1)));
    assert_eq!(said(&mut midair.client(&["status"])).0, Some(0), "the command line reads it");
}

#[test]
fn each_start_has_another_token() {
    let (placed, folder) = (placed(), tempfile::tempdir().expect("a folder"));
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let mut midair = Launch::run(&[&placed.path]).arg("--data").arg(folder.path()).start();
        midair.published();
        tokens.push(fs::read_to_string(folder.path().join("admin-token")).expect("a token"));
        assert_eq!(midair.terminate().status.code(), Some(0));
    }
    assert!(tokens.iter().all(|token| token.trim().len() == 64) && tokens[0] != tokens[1], "{tokens:?}");
}

#[test]
fn who_is_another_address_or_page_is_refused_whatever_it_asks() {
    let placed = placed();
    let mut midair = Launch::run(&[&placed.path]).start();
    midair.published();
    let admin = midair.admin();
    let another = format!("127.0.0.1:{}", admin.0.port() ^ 1);
    let own = format!("localhost:{}", admin.0.port());
    for (what, headers, status) in [
        ("another port", &[("host", another.as_str())][..], 403),
        ("another address", &[("host", "10.0.0.7")], 403),
        ("the page of another port", &[("origin", "http://127.0.0.1:3000")], 403),
        ("a page without an origin of its own", &[("origin", "null")], 403),
        ("its own name", &[("host", own.as_str())], 200),
    ] {
        assert_eq!(admin.ask("GET", "/status", headers, "").status, status, "{what}");
    }
}

#[test]
fn the_command_line_finds_the_host_of_the_workspace_and_of_this_users_run() {
    let (placed, home) = (placed(), tempfile::tempdir().expect("a folder"));
    let shop = home.path().join("shop");
    fs::create_dir_all(shop.join("src")).expect("a folder");
    fs::write(shop.join("Cargo.toml"), "").expect("a file");
    let serving = |data: &str| -> Midair {
        let mut midair = Launch::run(&[&placed.path]).arg("--data").arg(home.path().join(data)).start();
        midair.published();
        midair
    };
    let pid = |command: &mut Command| {
        let (_, stdout, stderr) = said(command);
        let status = serde_json::from_str::<Value>(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        status["pid"].as_u64()
    };
    let users = serving(".local/state/midair");
    let own = Some(u64::from(users.pid()));
    assert_eq!(pid(&mut client(&home, &["status", "--json"])), own);
    let workspaces = serving("shop/target/midair/data");
    let here = Some(u64::from(workspaces.pid()));
    assert_eq!(pid(client(&home, &["status", "--json"]).current_dir(shop.join("src"))), here);
    let elsewhere = serving("built/midair/data");
    let there = Some(u64::from(elsewhere.pid()));
    let built = home.path().join("built");
    assert_eq!(pid(client(&home, &["status", "--json"]).current_dir(&shop).env("CARGO_TARGET_DIR", built)), there);
}

#[test]
fn a_token_is_sent_to_no_address_that_nobody_named() {
    let home = tempfile::tempdir().expect("a folder");
    let (code, _, stderr) = said(client(&home, &["status"]).env("MIDAIR_ADMIN_TOKEN", "sesame"));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no host is found") && !stderr.contains("3001"), "{stderr}");
}

#[test]
fn a_token_is_not_sent_to_the_address_of_a_host_that_was_killed() {
    let (placed, home) = (placed(), tempfile::tempdir().expect("a folder"));
    let data = home.path().join("data");
    let mut midair = Launch::run(&[&placed.path]).arg("--data").arg(&data).start();
    midair.published();
    drop(midair);
    assert!(data.join("admin").exists() && data.join("admin-token").exists(), "it could put nothing away");
    let (code, _, stderr) = said(client(&home, &["status", "--data", "data"]).env("MIDAIR_ADMIN_TOKEN", "sesame"));
    assert!(code == Some(1) && stderr.contains("no host with an admin listener runs on this data folder"), "{stderr}");
}

#[test]
fn builds_are_not_told_the_token() {
    let project = Project::plugin("untold", &saying("one"));
    project.save("build.rs", "fn main() { assert!(std::env::var_os(\"MIDAIR_ADMIN_TOKEN\").is_none(), \"it is told\"); }\n");
    let mut midair = Launch::dev(&[project.root()]).env("MIDAIR_ADMIN_TOKEN", Some("sesame")).start();
    assert_eq!(midair.outcome()["event"], "published", "{}", midair.story());
}

#[test]
fn where_no_token_can_be_left_only_the_probes_are_answered_unless_one_is_given() {
    let (placed, folder) = (placed(), tempfile::tempdir().expect("a folder"));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    let run = |token| {
        let launch = Launch::run(&[&placed.path]).arg("--data").arg(folder.path()).env("MIDAIR_ADMIN_TOKEN", token);
        let mut midair = launch.start();
        midair.published();
        midair
    };
    let midair = run(None);
    let warned = midair.all("warning").into_iter().filter_map(|event| Some(event["message"].as_str()?.to_owned()));
    let warned: Vec<String> = warned.filter(|message| message.contains("no token can be left here")).collect();
    assert!(warned.len() == 1 && warned[0].contains("chmod go-w"), "{warned:?}");
    assert_eq!((midair.admin().get("/healthz").status, midair.admin().get("/status").status), (200, 403));
    let (code, _, stderr) = said(&mut midair.client(&["status"]));
    assert!(code == Some(1) && stderr.contains("MIDAIR_ADMIN_TOKEN"), "{stderr}");
    assert_eq!(midair.terminate().status.code(), Some(0));

    let midair = run(Some("sesame"));
    let address = midair.admin().0.to_string();
    let ask = |args: &[&str]| said(Command::new(cargo::midair()).args(args).env("MIDAIR_ADMIN_TOKEN", "sesame"));
    assert_eq!(ask(&["status", "--admin", &address]).0, Some(0));
    let (code, _, stderr) = ask(&["status", "--data", &folder.path().to_string_lossy()]);
    assert!(code == Some(1) && stderr.contains("no token is sent there"), "{stderr}");
}

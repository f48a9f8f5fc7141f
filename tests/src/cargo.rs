//! How are things built, and once only?

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::repository;

/// The binary under test: `MIDAIR_BIN` if that is set, else what `cargo build` makes of the workspace, once a process.
///
/// # Panics
///
/// If it doesn't build.
pub fn midair() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| binary(&[]))
}

/// The same with the release profile, for benches.
///
/// # Panics
///
/// If it doesn't build.
pub fn released_midair() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| binary(&["--release"]))
}

/// What `cargo install --path host` puts in place, built as the tests are, once a process.
///
/// # Panics
///
/// If it can't be installed.
pub fn installed_midair() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = given() {
            return given;
        }
        let root = repository::shared_target().join("installed");
        let mut cargo = Command::new("cargo");
        cargo.current_dir(repository::root()).args(["install", "--path", "host", "--debug", "--locked", "--force"]);
        cargo.arg("--root").arg(&root).arg("--target-dir").arg(repository::target());
        let output = cargo.output().expect("cargo starts");
        assert!(output.status.success(), "cargo install:\n{}", String::from_utf8_lossy(&output.stderr));
        root.join("bin/midair")
    })
}

fn given() -> Option<PathBuf> {
    std::env::var_os("MIDAIR_BIN").map(PathBuf::from)
}

fn binary(args: &[&str]) -> PathBuf {
    given().unwrap_or_else(|| {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(repository::root()).args(["build", "-p", "midair", "--bin", "midair"]).args(args);
        cargo.arg("--target-dir").arg(repository::target());
        executable(&mut cargo, "midair")
    })
}

/// What has the deliberate bugs of `host/src/mutation.rs` built in.
pub struct Seeded {
    /// The binary.
    pub midair: PathBuf,
    /// The end-to-end tests, to be run one by one: some of them are a host themselves.
    pub tests: PathBuf,
}

/// The binary and the end-to-end tests with deliberate bugs, built once a process.
///
/// # Panics
///
/// If they don't build.
pub fn seeded() -> &'static Seeded {
    static SEEDED: OnceLock<Seeded> = OnceLock::new();
    SEEDED.get_or_init(|| {
        // The flag is for this workspace alone: what it depends on is compiled already.
        let folder = repository::target().join("seeded");
        let wrapper = folder.join("rustc");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        std::fs::write(&wrapper, "#!/bin/sh\nexec \"$@\" --cfg midair_seeded\n").expect("a file can be written");
        std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("its mode can be set");
        let mut cargo = Command::new("cargo");
        cargo.current_dir(repository::root()).args(["build", "--workspace", "--bin", "midair", "--test", "e2e"]);
        cargo.env("RUSTC_WORKSPACE_WRAPPER", &wrapper).arg("--target-dir").arg(repository::target());
        let messages = build(&mut cargo);
        let named = |name| messages.iter().find_map(|message| executable_of(message, name)).expect("cargo names the executable");
        let (built, midair) = (named("midair"), folder.join("midair"));
        std::fs::copy(built, &midair).expect("the binary can be copied");
        // Its place belongs to the one that ships.
        binary(&[]);
        Seeded { midair, tests: named("e2e") }
    })
}

/// A program that only tests start, an example of this package.
///
/// # Panics
///
/// If it doesn't build, or there is none.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    examples().get(name).cloned().unwrap_or_else(|| panic!("there is no example {name}"))
}

/// All examples of the workspace by their names, plugins among them, built once a process. They are what `cargo test --workspace` has built
/// before any test began, if that is what was run: the features of all packages are the same then, so that nothing is built here.
///
/// # Panics
///
/// If they don't build; with what cargo said.
#[must_use]
pub fn examples() -> &'static BTreeMap<String, PathBuf> {
    static EXAMPLES: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(repository::root())
            .args(["build", "--workspace", "--examples", "--target-dir"])
            .arg(repository::target());
        let named = |message: &Value| {
            let is_example = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "example");
            let library = || message["filenames"].as_array()?.iter().filter_map(Value::as_str).find(|file| file.ends_with(".so"));
            let file = message["executable"].as_str().or_else(library).filter(|_| is_example)?;
            Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(file)))
        };
        build(&mut cargo).iter().filter_map(named).collect()
    })
}

/// Builds the executable of the target `name` and says where it is. Cargo may build others for it: tests get the package's binaries.
fn executable(cargo: &mut Command, name: &str) -> PathBuf {
    build(cargo).iter().find_map(|message| executable_of(message, name)).expect("cargo names the executable")
}

fn executable_of(message: &Value, name: &str) -> Option<PathBuf> {
    message["executable"].as_str().filter(|_| message["target"]["name"] == name).map(PathBuf::from)
}

/// Builds the cdylibs of the workspace in `folder` into `target` and says where they are.
///
/// # Panics
///
/// If they don't build; with what cargo said.
#[must_use]
pub fn cdylibs(mut cargo: Command, folder: &Path, target: &Path) -> Vec<PathBuf> {
    cargo.current_dir(folder).args(["build", "--workspace"]).arg("--target-dir").arg(target);
    let library = |message: &Value| {
        let is_cdylib = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "cdylib");
        let files = message["filenames"].as_array()?;
        let shared = files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".so"));
        shared.filter(|_| is_cdylib).map(PathBuf::from)
    };
    build(&mut cargo).iter().filter_map(library).collect()
}

/// Runs a cargo command that builds; the messages of its JSON.
fn build(cargo: &mut Command) -> Vec<Value> {
    let output = cargo.arg("--message-format=json").stdin(Stdio::null()).output().expect("cargo starts");
    let messages: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let rendered: String = messages.iter().filter_map(|message| message["message"]["rendered"].as_str()).collect();
    assert!(output.status.success(), "{cargo:?}:\n{rendered}{}", String::from_utf8_lossy(&output.stderr));
    messages
}

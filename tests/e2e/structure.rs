//! Is the host built as ARCHITECTURE.md says?

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use midair_tests::{edit_to_live, repository, sources};

#[test]
fn the_core_alone_brings_no_runtime_no_http_server_no_watcher_and_no_command_line() {
    let args = ["tree", "-p", "midair", "--no-default-features", "-e", "normal", "--prefix", "none", "--format", "{p}"];
    let output = Command::new("cargo").current_dir(repository::root()).args(args).output().expect("cargo starts");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("arc-swap") && names.contains("midair-abi"), "it is the tree of the core: {names:?}");
    assert!(!names.contains("midair-plugin"), "what plugins are written with is none of a host's");
    for unwanted in ["tokio", "axum", "hyper", "notify", "clap"] {
        let found: Vec<_> = names.iter().filter(|name| name.split('-').next() == Some(unwanted)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn the_library_a_plugin_depends_on_brings_no_runtime() {
    let args = ["tree", "-p", "midair-plugin", "-e", "normal", "--prefix", "none", "--format", "{p}"];
    let output = Command::new("cargo").current_dir(repository::root()).args(args).output().expect("cargo starts");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.lines().any(|line| line.starts_with("serde ")), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!tree.lines().any(|line| line.starts_with("tokio")), "{tree}");
}

/// The folders and files of `host/src`, from the ground up: each names only those before it, and itself.
const LAYERS: [&str; 15] = [
    "mutation",
    "sys",
    "report",
    "artifact",
    "resources",
    "plugin",
    "live",
    "call",
    "work",
    "trial",
    "swap",
    "http",
    "dev",
    "cli",
    "fuzz",
];

#[test]
fn the_folders_of_the_host_are_layers() {
    let modules = sources::modules(&repository::root().join("host/src"));
    let level = |module: &Path| {
        let top = module.iter().next().and_then(|top| top.to_str()).unwrap_or_default();
        LAYERS.iter().position(|layer| *layer == top).unwrap_or_else(|| panic!("{top} is no layer: give it a place in LAYERS"))
    };
    let upwards = sources::arrows(&modules).into_iter().filter(|(from, to)| level(to) > level(from));
    let upwards: Vec<String> = upwards.map(|(from, to)| format!("{} names {}", from.display(), to.display())).collect();
    assert!(upwards.is_empty(), "a lower layer names a higher one:\n{}", upwards.join("\n"));
}

#[test]
fn what_is_live_knows_no_resource() {
    let modules = sources::modules(&repository::root().join("host/src"));
    let arrows = sources::arrows(&modules).into_iter();
    let known = arrows.filter(|(from, to)| from.starts_with("live") && to.starts_with("resources"));
    assert_eq!(known.collect::<Vec<_>>(), Vec::new());
}

#[test]
fn what_this_platform_says_of_a_process_is_read_in_sys() {
    let modules = sources::modules(&repository::root().join("host/src"));
    let reads = modules.iter().filter(|(path, module)| !path.starts_with("sys") && module.code.contains("\"/proc/"));
    assert_eq!(reads.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&std::path::PathBuf>::new());
}

#[test]
fn the_edges_of_the_host_do_not_know_each_other() {
    let modules = sources::modules(&repository::root().join("host/src"));
    let strangers = [("dev", "http"), ("dev", "cli"), ("http", "dev"), ("http", "cli")];
    let arrows = sources::arrows(&modules).into_iter();
    let known = arrows.filter(|(from, to)| strangers.iter().any(|(a, b)| from.starts_with(a) && to.starts_with(b)));
    assert_eq!(known.collect::<Vec<_>>(), Vec::new());
}

#[test]
fn the_command_line_and_the_dev_loop_import_what_lib_rs_makes_public() {
    let root = repository::root().join("host/src");
    let lib = fs::read_to_string(root.join("lib.rs")).expect("lib.rs");
    let public = lib.lines().filter_map(|line| line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("pub use self::")));
    let names = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect::<Vec<_>>();
    // Mutations are nobody's: they aren't there in what ships.
    let public: BTreeSet<String> = public.flat_map(names).chain(["mutation".to_owned()]).collect();
    let edges = sources::modules(&root).into_iter().filter(|(path, _)| path.starts_with("dev") || path.starts_with("cli"));
    let private = edges.flat_map(|(path, module)| {
        let named = module.code.split("crate::").skip(1).map(|rest| names(rest)[0].clone()).collect::<BTreeSet<_>>();
        named.into_iter().map(move |name| (path.clone(), name))
    });
    // `pub use self::report::error` names the folder too, which stays private.
    let folders = ["report", "live", "resources", "trial", "sys", "plugin", "call", "work"];
    let private: Vec<_> =
        private.filter(|(_, name)| !name.is_empty() && (!public.contains(name) || folders.contains(&name.as_str()))).collect();
    assert_eq!(private, Vec::new());
}

#[test]
fn no_files_of_the_host_name_each_other_in_a_circle() {
    let modules = sources::modules(&repository::root().join("host/src"));
    let circles = sources::circles(&sources::arrows(&modules));
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn one_function_of_the_host_stores_into_the_slot() {
    let modules = sources::modules(&repository::root().join("host/src"));
    let stores = modules.iter().map(|(path, module)| (path.display().to_string(), module.code.matches("slot.store(").count()));
    let stores: Vec<_> = stores.filter(|(_, count)| *count > 0).collect();
    assert_eq!(stores, [("swap/cutover".to_owned(), 1)]);
    let slot = &modules[Path::new("live/slot")].code;
    assert_eq!(slot.matches(".swap(").count(), 1, "and nothing else replaces what it points to");
}

#[test]
fn the_host_is_small_enough_to_be_read() {
    let root = repository::root().join("host/src");
    let entries = fs::read_dir(&root).expect("the host's sources").flatten();
    let entries: Vec<_> = entries.map(|entry| entry.file_name()).filter(|name| name != "lib.rs" && name != "main.rs").collect();
    assert!(entries.len() <= 18, "{entries:?}");
    let lines = |module: &sources::Module| module.code.lines().count();
    let modules = sources::modules(&root);
    let long: Vec<_> = modules.iter().map(|(path, module)| (path, lines(module))).filter(|(_, lines)| *lines > 600).collect();
    assert!(long.is_empty(), "over 600 lines without tests: {long:?}");
}

#[test]
fn what_host_and_plugin_both_compile_knows_no_http_no_serde_and_no_runtime() {
    let tree = |more: &[&str]| {
        let args = ["tree", "-p", "midair-abi", "-e", "normal", "--prefix", "none", "--format", "{p}"];
        let output = Command::new("cargo").current_dir(repository::root()).args(args).args(more).output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let names = String::from_utf8_lossy(&output.stdout);
        names.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect::<BTreeSet<_>>()
    };
    // What abi_stable itself stands on, serde among it, is its affair: no code here can name it.
    assert_eq!(tree(&["--depth", "1"]), BTreeSet::from(["abi_stable", "midair-abi"].map(str::to_owned)));
    for unwanted in ["http", "bytes", "tokio", "rmp-serde", "serde_json", "midair-plugin"] {
        assert!(!tree(&[]).contains(unwanted), "{unwanted}");
    }
}

#[test]
fn the_bench_of_edit_to_live_still_runs() {
    // What both depend on is built there already.
    let target = repository::shared_target();
    let report = edit_to_live::measure(midair_tests::cargo::midair(), 2, &[], [&target, &target.join("midair")]);
    assert!(report.contains("edit -> live") && report.contains("cargo build"), "{report}");
}

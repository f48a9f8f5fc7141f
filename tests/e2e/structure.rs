//! Is the host built as ARCHITECTURE.md says?

use std::collections::BTreeSet;
use std::process::Command;

use midair_tests::{edit_to_live, repository};

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
    let report = edit_to_live::measure(midair_tests::cargo::midair(), 4, &[]);
    assert!(report.contains("edit -> live") && report.contains("cargo build"), "{report}");
}

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
    assert!(names.contains("arc-swap") && names.contains("midair-plugin"), "it is the tree of the core: {names:?}");
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
fn the_bench_of_edit_to_live_still_runs() {
    let report = edit_to_live::measure(midair_tests::cargo::midair(), 4, &[]);
    assert!(report.contains("edit -> live") && report.contains("cargo build"), "{report}");
}

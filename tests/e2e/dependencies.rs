//! May everything that is linked into a host or a plugin be there? `deny.toml` says what may.

use std::process::Command;

use midair_tests::repository;
use semver::{Version, VersionReq};
use serde_json::Value;
use spdx::{Expression, LicenseItem};

/// What one test looks at, of `cargo metadata`.
struct Package {
    name: String,
    version: Version,
    license: String,
    /// Where it comes from; of this workspace's own packages nowhere.
    source: Option<String>,
}

fn packages() -> Vec<Package> {
    let args = ["metadata", "--format-version", "1", "--all-features", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let output = Command::new("cargo").current_dir(repository::root()).args(args).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let package = |package: &Value| Package {
        name: text(package, "name").expect("a package has a name"),
        version: text(package, "version").and_then(|version| version.parse().ok()).expect("a package has a version"),
        license: text(package, "license").unwrap_or_default(),
        source: text(package, "source"),
    };
    metadata["packages"].as_array().expect("a list").iter().map(package).collect()
}

fn rules() -> toml::Table {
    repository::read("deny.toml").parse().expect("deny.toml is TOML")
}

fn texts(list: &toml::Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(toml::Value::as_str).collect()
}

/// Whether these licences suffice for what this expression asks for. What says nothing grants nothing.
fn permits(allowed: &[&str], expression: &str) -> bool {
    // `MIT/Apache-2.0` is what packages wrote before there were expressions.
    let expression = expression.replace('/', " OR ");
    Expression::parse(&expression).is_ok_and(|expression| {
        expression.evaluate(|asked| matches!(&asked.license, LicenseItem::Spdx { id, .. } if allowed.contains(&id.name)))
    })
}

#[test]
fn all_that_is_linked_has_a_licence_that_is_allowed() {
    let rules = rules();
    let allowed = texts(&rules["licenses"]["allow"]);
    let exceptions = rules["licenses"]["exceptions"].as_array().expect("a list");
    let excepted = |name: &str| exceptions.iter().find(|exception| exception["crate"].as_str() == Some(name));
    let allows = |package: &Package| {
        let more = excepted(&package.name).map(|exception| texts(&exception["allow"])).unwrap_or_default();
        permits(&[&allowed[..], &more].concat(), &package.license)
    };
    let refused = packages().into_iter().filter(|package| package.source.is_some() && !allows(package));
    let refused: Vec<_> = refused.map(|package| format!("{} {}: {:?}", package.name, package.version, package.license)).collect();
    assert_eq!(refused, Vec::<String>::new());
    // That this way of looking tells them apart:
    for (expression, is_permitted) in [
        ("MIT OR GPL-3.0-only", true),
        ("MIT AND GPL-3.0-only", false),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only", false),
        ("", false),
    ] {
        assert_eq!(permits(&allowed, expression), is_permitted, "{expression}");
    }
}

#[test]
fn nothing_comes_from_elsewhere_than_the_registry() {
    let sources: std::collections::BTreeSet<_> = packages().into_iter().filter_map(|package| package.source).collect();
    assert!(sources.len() == 1 && sources.iter().all(|source| source.starts_with("registry+")), "{sources:?}");
}

#[test]
fn nothing_that_is_known_to_be_wrong_is_linked() {
    let rules = rules();
    let packages = packages();
    for rule in rules["bans"]["deny"].as_array().expect("a list") {
        let named = rule["crate"].as_str().expect("a crate");
        let (name, versions) = named.split_once(':').unwrap_or((named, "*"));
        let versions: VersionReq = versions.parse().expect("a range of versions");
        let found = packages.iter().find(|package| package.name == name && versions.matches(&package.version));
        assert!(found.is_none(), "{named}: {}", rule["reason"]);
    }
    // That they are looked for by names that are there:
    assert!(packages.iter().any(|package| package.name == "arc-swap"));
}

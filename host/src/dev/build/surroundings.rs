//! What of our own environment may cargo see?
//!
//! Under `cargo run` or `cargo test` this process inherits what the outer cargo told it about *its* package, and what rustup told the
//! outer cargo. Passed on, that picks the wrong toolchain and makes crates that read such variables build anew each time. Without an
//! outer cargo nothing of these is touched: what is set is then what the user set. Build scripts are never told `MIDAIR_ADMIN_TOKEN`.
//!
//! | scrubbed | because |
//! |---|---|
//! | `CARGO` | names the outer toolchain's cargo, past rustup's choice for the plugin's folder |
//! | `CARGO_MANIFEST_*`, `CARGO_PKG_*`, `CARGO_BIN_*`, `CARGO_CRATE_NAME`, `CARGO_PRIMARY_PACKAGE`, `OUT_DIR`, `CARGO_TARGET_TMPDIR` | are the outer package's; a build script that reads them would run again |
//! | `CARGO_MAKEFLAGS`, `CARGO_FEATURE_*`, `CARGO_CFG_*` | are the outer build's |
//! | `RUST_RECURSION_COUNT` | counts towards rustup's limit |
//! | `RUSTUP_TOOLCHAIN`, `RUSTUP_TOOLCHAIN_SOURCE` | pin the outer toolchain; kept when rustup says that the user chose it for this very command |
//! | folders in `LD_LIBRARY_PATH` below the outer toolchain or beside our own executable | were put there by the outer cargo |
//!
//! `CARGO_HOME`, `CARGO_NET_*`, `CARGO_HTTP_*`, `CARGO_REGISTRIES_*`, `CARGO_BUILD_*`, `CARGO_TARGET_*`, `RUSTFLAGS` and all else stay.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

const SCRUBBED: [&str; 8] = [
    "CARGO",
    "CARGO_CRATE_NAME",
    "CARGO_MAKEFLAGS",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
    "RUST_RECURSION_COUNT",
];
const SCRUBBED_PREFIXES: [&str; 5] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_FEATURE_", "CARGO_CFG_"];
const TOOLCHAIN: [&str; 2] = ["RUSTUP_TOOLCHAIN", "RUSTUP_TOOLCHAIN_SOURCE"];

/// What differs from our own environment: `None` removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings(pub(super) BTreeMap<OsString, Option<OsString>>);

impl Surroundings {
    pub(super) fn of_this_process() -> Surroundings {
        let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        let mut surroundings = Self::scrubbed(&std::env::vars_os().collect(), own.as_deref());
        // Who may ask this host is no affair of what it builds.
        surroundings.0.insert("MIDAIR_ADMIN_TOKEN".into(), None);
        surroundings
    }

    /// What to change in `vars` for a cargo of our own; `own` is the folder of our executable.
    fn scrubbed(vars: &BTreeMap<OsString, OsString>, own: Option<&Path>) -> Surroundings {
        let get = |name: &str| vars.get(OsStr::new(name));
        let under_cargo = get("CARGO").is_some() && (get("CARGO_MANIFEST_DIR").is_some() || get("RUST_RECURSION_COUNT").is_some());
        if !under_cargo {
            return Surroundings::default();
        }
        // Two levels down, rustup takes what the level above set for the user's choice.
        let chosen = get("RUSTUP_TOOLCHAIN_SOURCE").is_some_and(|source| source == "cli" || source == "env")
            && get("RUST_RECURSION_COUNT").is_some_and(|count| count == "1");
        let scrubs = |name: &str| {
            SCRUBBED.contains(&name)
                || SCRUBBED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || (TOOLCHAIN.contains(&name) && !chosen)
        };
        let mut changes: BTreeMap<_, _> =
            vars.keys().filter(|name| name.to_str().is_some_and(scrubs)).map(|name| (name.clone(), None)).collect();
        if let Some(path) = get("LD_LIBRARY_PATH") {
            changes.insert("LD_LIBRARY_PATH".into(), libraries(path, &cargos_folders(vars), own));
        }
        Surroundings(changes)
    }
}

/// Below these an outer cargo or rustup finds its own libraries.
fn cargos_folders(vars: &BTreeMap<OsString, OsString>) -> Vec<PathBuf> {
    let get = |name: &str| vars.get(OsStr::new(name)).map(PathBuf::from);
    let toolchains = get("RUSTUP_HOME").map(|home| home.join("toolchains"));
    let sysroot = get("CARGO").and_then(|cargo| cargo.ancestors().nth(2).map(|root| root.join("lib/rustlib")));
    toolchains.into_iter().chain(sysroot).collect()
}

fn libraries(path: &OsStr, cargos: &[PathBuf], own: Option<&Path>) -> Option<OsString> {
    let is_cargos = |folder: &PathBuf| {
        // `target/debug`, `target/debug/deps` and the build scripts' folders; our executable is in one of the first two.
        let profile = own.map(|own| if own.ends_with("deps") { own.parent().unwrap_or(own) } else { own });
        cargos.iter().any(|cargos| folder.starts_with(cargos)) || profile.is_some_and(|profile| folder.starts_with(profile))
    };
    let kept: Vec<_> = std::env::split_paths(path).filter(|folder| !is_cargos(folder)).collect();
    if kept.is_empty() { None } else { std::env::join_paths(kept).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vars: &[(&str, &str)], changes: &[(&str, Option<&str>)]) {
        let vars = vars.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let changes = changes.iter().map(|(name, value)| (name.into(), value.map(OsString::from))).collect();
        assert_eq!(Surroundings::scrubbed(&vars, Some(Path::new("/w/target/debug/deps"))), Surroundings(changes));
    }

    const OUTER: [(&str, &str); 3] =
        [("CARGO", "/r/toolchains/x/bin/cargo"), ("CARGO_MANIFEST_DIR", "/w"), ("RUST_RECURSION_COUNT", "1")];
    const SCRUBBED_OUTER: [(&str, Option<&str>); 3] =
        [("CARGO", None), ("CARGO_MANIFEST_DIR", None), ("RUST_RECURSION_COUNT", None)];

    fn check_under_cargo(vars: &[(&str, &str)], changes: &[(&str, Option<&str>)]) {
        check(&[&OUTER, vars].concat(), &[&SCRUBBED_OUTER, changes].concat());
    }

    #[test]
    fn without_an_outer_cargo_nothing_is_touched() {
        check(&[("CARGO", "/my/cargo"), ("RUSTUP_TOOLCHAIN", "nightly"), ("LD_LIBRARY_PATH", "/x"), ("OUT_DIR", "/o")], &[]);
    }

    #[test]
    fn what_an_outer_cargo_says_of_its_own_package_is_removed_and_the_users_own_stays() {
        check_under_cargo(
            &[
                ("CARGO_PKG_NAME", "midair"),
                ("CARGO_BIN_EXE_x", "/x"),
                ("CARGO_CRATE_NAME", "x"),
                ("OUT_DIR", "/o"),
                ("CARGO_CFG_UNIX", ""),
            ],
            &[
                ("CARGO_PKG_NAME", None),
                ("CARGO_BIN_EXE_x", None),
                ("CARGO_CRATE_NAME", None),
                ("OUT_DIR", None),
                ("CARGO_CFG_UNIX", None),
            ],
        );
        let kept =
            ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "RUSTFLAGS", "PATH", "CARGO_HTTP_TIMEOUT"];
        check_under_cargo(&kept.map(|name| (name, "kept")), &[]);
    }

    #[test]
    fn the_outer_toolchain_is_not_passed_on_unless_the_user_chose_it_for_this_command() {
        let both_removed = [("RUSTUP_TOOLCHAIN", None), ("RUSTUP_TOOLCHAIN_SOURCE", None)];
        check_under_cargo(&[("RUSTUP_TOOLCHAIN", "x"), ("RUSTUP_TOOLCHAIN_SOURCE", "default")], &both_removed);
        check_under_cargo(&[("RUSTUP_TOOLCHAIN", "x")], &both_removed[..1]);
        check_under_cargo(&[("RUSTUP_TOOLCHAIN", "x"), ("RUSTUP_TOOLCHAIN_SOURCE", "cli")], &[]);
        let nested = [("RUSTUP_TOOLCHAIN", "x"), ("RUSTUP_TOOLCHAIN_SOURCE", "env"), ("RUST_RECURSION_COUNT", "2")];
        check_under_cargo(&nested, &both_removed);
    }

    #[test]
    fn only_cargos_own_library_folders_go() {
        let library_path = |value| [("LD_LIBRARY_PATH", value)];
        let rustup = ("RUSTUP_HOME", "/r");
        check_under_cargo(
            &[rustup, library_path("/w/target/debug:/w/target/debug/deps:/mine:/r/toolchains/x/lib")[0]],
            &[("LD_LIBRARY_PATH", Some("/mine"))],
        );
        check_under_cargo(&library_path("/w/target/debug:/r/toolchains/x/lib/rustlib/t/lib"), &[("LD_LIBRARY_PATH", None)]);
    }
}

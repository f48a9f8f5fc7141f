//! Where is what we test?

use std::path::{Path, PathBuf};

/// The workspace that this crate belongs to.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in a folder of the workspace")
}

/// A file of the workspace as text.
///
/// # Panics
///
/// If it can't be read.
#[must_use]
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The folder into which this very test, or program, was built.
///
/// # Panics
///
/// If its own executable can't be found.
#[must_use]
pub fn target() -> PathBuf {
    let own = std::env::current_exe().expect("its own executable");
    let folder = own.parent().expect("an executable is in a folder");
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    profile.and_then(Path::parent).expect("a test lies in `target/<profile>/deps`, a program in `target/<profile>`").to_owned()
}

/// Where all test projects are built, so that what they depend on is compiled once: `MIDAIR_PROJECTS` if that is set, as tests that were
/// built elsewhere share it too. `midair dev` builds into `midair` below it.
#[must_use]
pub fn shared_target() -> PathBuf {
    std::env::var_os("MIDAIR_PROJECTS").map_or_else(|| target().join("e2e"), PathBuf::from)
}

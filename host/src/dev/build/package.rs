//! What is a local package?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A local package that a plugin is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// As in its manifest.
    pub name: String,
    /// The folder of its manifest.
    pub root: PathBuf,
    /// Whether it has a build script, which may read any file of it.
    pub build_script: bool,
}

/// The innermost package that holds `file`.
pub(super) fn package_of<'a>(packages: &'a BTreeMap<PathBuf, Package>, file: &Path) -> Option<&'a Package> {
    file.ancestors().find_map(|above| packages.get(above))
}

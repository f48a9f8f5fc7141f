//! What is a plugin made of, as cargo and the compiler named it in a build?
//!
//! Manifests don't say it all: a crate replaced through `[patch]`, a dependency below a workspace that doesn't list it, a file that is
//! included from elsewhere are known only to a build, and the last of them also to one that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::messages::{Transcript, listed_files};
use super::package::Package;
use super::staleness;

/// What builds named.
#[derive(Clone, Debug, Default)]
pub(super) struct MadeOf {
    /// The files that were read or looked for; a folder stands for all that is in it.
    pub(super) listed: BTreeSet<PathBuf>,
    /// The local packages, by their folder.
    pub(super) packages: BTreeMap<PathBuf, Package>,
}

impl MadeOf {
    /// What a build that went well read for the library at `path`.
    pub(super) fn of_library(path: &Path, told: &Transcript, target: &Path) -> MadeOf {
        let dep_info = fs::read_to_string(path.with_extension("d")).unwrap_or_default();
        // What the build itself writes is no source, by whatever links the target folder is reached.
        let files = listed_files(&dep_info).into_iter().map(|file| real(&target.join(file)));
        let listed: BTreeSet<_> = files.filter(|file| !file.starts_with(real(target))).collect();
        let is_part = |root: &PathBuf| listed.iter().any(|file| file.starts_with(root));
        let packages = told.packages.iter().filter(|(root, _)| is_part(root)).map(|(root, part)| (root.clone(), part.clone()));
        MadeOf { packages: packages.collect(), listed }
    }

    /// Adds what a build that failed named: any of it may be what has to be mended.
    pub(super) fn add_failed(&mut self, told: &Transcript, target: &Path, root: &Path, started: SystemTime) {
        self.packages.extend(told.packages.clone());
        let written = staleness::dep_infos_since(target, started).into_iter().filter(|path| {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
            told.failing.iter().any(|failing| failing.replace('-', "_") == name)
        });
        let read = written.flat_map(|path| listed_files(&fs::read_to_string(path).unwrap_or_default()));
        let named: BTreeSet<_> = read.chain(told.named.iter().map(PathBuf::from)).collect();
        // The compiler runs in the workspace's folder, or in that of a package from outside of it.
        let folders = || [root].into_iter().chain(told.packages.keys().map(PathBuf::as_path));
        for file in named {
            let places: BTreeSet<_> = folders().map(|folder| real(&folder.join(&file))).collect();
            let there: BTreeSet<_> = places.iter().filter(|place| place.is_file()).cloned().collect();
            self.listed
                .extend(if there.is_empty() { places } else { there }.into_iter().filter(|place| !place.starts_with(real(target))));
        }
    }
}

/// The path without links, as far as it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        // What cannot be looked up is taken as it is written.
        (Some(parent), None) if path.ends_with("..") => real(parent).parent().map_or_else(|| path.to_owned(), Path::to_owned),
        _ => path.to_owned(),
    }
}

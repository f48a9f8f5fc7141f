//! Which paths count?

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which files of a folder count as a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Those that end in `.rs`.
    Rust,
    /// All that aren't ignored.
    All,
}

/// What to watch. All paths are absolute; folders are free of symbolic links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Files that count wherever they are, whether or not they exist now.
    pub files: BTreeSet<PathBuf>,
    /// Folders and what counts below them.
    pub trees: BTreeMap<PathBuf, Take>,
    /// How long a file that is being written, and of which nobody hears that it was closed, has to be quiet before it is looked at.
    /// 50 ms unless said: a source that is read half done is read again.
    pub quiet: Duration,
}

impl Default for Scope {
    fn default() -> Self {
        Self { files: BTreeSet::new(), trees: BTreeMap::new(), quiet: Duration::from_millis(50) }
    }
}

impl Scope {
    /// Whether another content of `path` is a change. `everything` lets all files below the folders count.
    #[must_use]
    pub fn counts(&self, path: &Path, everything: bool) -> bool {
        self.files.contains(path)
            || self.tree_of(path).is_some_and(|(_, take)| {
                everything || take == Take::All || path.extension().is_some_and(|extension| extension == "rs")
            })
    }

    /// The innermost folder that holds `path`.
    pub(super) fn tree_of(&self, path: &Path) -> Option<(&Path, Take)> {
        path.ancestors().find_map(|above| self.trees.get_key_value(above)).map(|(root, take)| (root.as_path(), *take))
    }

    /// Whether something to watch lies below `path`, or would if it existed.
    pub(super) fn reaches_below(&self, path: &Path) -> bool {
        let below = |listed: &PathBuf| listed != path && listed.starts_with(path);
        self.files.iter().any(below) || self.trees.keys().any(|root| root.starts_with(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            files: ["/w/Cargo.lock", "/elsewhere/words.txt"].map(PathBuf::from).into(),
            trees: [("/w/a", Take::Rust), ("/w/a/gen", Take::All)].map(|(root, take)| (PathBuf::from(root), take)).into(),
            ..Scope::default()
        }
    }

    #[test]
    fn listed_files_rust_files_and_whole_folders_count() {
        for (path, counts, counts_after_a_failure) in [
            ("/w/Cargo.lock", true, true),
            ("/elsewhere/words.txt", true, true),
            ("/elsewhere/other.rs", false, false),
            ("/w/a/src/lib.rs", true, true),
            ("/w/a/notes.md", false, true),
            ("/w/a/gen/page.html", true, true),
            ("/w/b/src/lib.rs", false, false),
        ] {
            assert_eq!(scope().counts(Path::new(path), false), counts, "{path}");
            assert_eq!(scope().counts(Path::new(path), true), counts_after_a_failure, "{path}");
        }
    }

    #[test]
    fn a_folder_above_something_watched_is_known_as_such() {
        for (path, expected) in [("/w", true), ("/w/a", true), ("/elsewhere", true), ("/w/a/src", false), ("/w/Cargo.lock", false)]
        {
            assert_eq!(scope().reaches_below(Path::new(path)), expected, "{path}");
        }
    }
}

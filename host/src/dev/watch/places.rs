//! Where on disk are the watched files, and which folders must be listened to?
//!
//! Reads folders and links, and hashes files; listens to nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ignore::{DirEntry, IncrementalIgnore, WalkBuilder};

use super::contents::Print;
use super::scope::Scope;
use crate::artifact::symlink_walk::Way;

/// Above this a file that nobody listed by name is compared by its stamps.
const LARGE: u64 = 4 << 20;

#[derive(Default)]
pub(super) struct Places {
    /// Folders whose entries must be listened to. Free of links, so that no folder is listened to under two names.
    pub(super) folders: BTreeSet<PathBuf>,
    /// The part of them that was walked as part of a tree.
    pub(super) walked: BTreeSet<PathBuf>,
    /// Every file to compare, under the name by which the scope knows it.
    pub(super) files: BTreeSet<PathBuf>,
    /// Names on the way to a file that goes by another name, and that file.
    pub(super) ways: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    ignored: BTreeMap<PathBuf, IncrementalIgnore>,
}

impl Places {
    /// Looks for everything in `scope`.
    pub(super) fn find(scope: &Scope) -> Places {
        let mut places = Places::default();
        for file in &scope.files {
            places.add_file(file);
        }
        for root in scope.trees.keys() {
            places.add_tree(root);
        }
        places
    }

    fn add_file(&mut self, file: &Path) {
        self.files.insert(file.to_owned());
        for stop in way_to(file) {
            self.folders.insert(nearest_folder(stop.parent().unwrap_or(&stop)));
            if stop != file {
                self.ways.entry(stop).or_default().insert(file.to_owned());
            }
        }
    }

    fn add_tree(&mut self, root: &Path) {
        if !root.is_dir() {
            self.folders.insert(nearest_folder(root));
            return;
        }
        let mut walk = walk(root, true);
        if walk.build().flatten().nth(1).is_none() {
            // The whole tree is ignored by a rule above it. Whoever names it means it nevertheless.
            walk = self::walk(root, false);
        }
        for entry in walk.build().flatten() {
            match entry.file_type() {
                Some(kind) if kind.is_dir() => {
                    self.walked.insert(entry.path().to_owned());
                    self.folders.insert(entry.into_path());
                }
                Some(kind) if kind.is_file() => drop(self.files.insert(entry.into_path())),
                Some(kind) if kind.is_symlink() && entry.path().is_file() => self.add_file(entry.path()),
                _ => {}
            }
        }
        self.ignored.extend(walk.build_matchers().into_iter().next().map(|rules| (root.to_owned(), rules)));
    }

    /// Whether a new entry of a walked folder is left out by the rules of its tree.
    pub(super) fn ignores(&mut self, root: &Path, path: &Path, is_folder: bool) -> bool {
        if !path.parent().is_some_and(|parent| self.walked.contains(parent)) || (is_folder && is_apart(root, path)) {
            return true;
        }
        let (Some(rules), Ok(relative)) = (self.ignored.get_mut(root), path.strip_prefix(root)) else { return true };
        rules.matched(relative, is_folder).is_ignore()
    }
}

fn walk(root: &Path, rules_above: bool) -> WalkBuilder {
    let mut walk = WalkBuilder::new(root);
    let top = root.to_owned();
    let enters = move |entry: &DirEntry| {
        entry.depth() == 0 || !entry.file_type().is_some_and(|kind| kind.is_dir()) || !is_apart(&top, entry.path())
    };
    walk.require_git(false).parents(rules_above).filter_entry(enters);
    walk
}

/// A folder that isn't the package's own source: its target folder, a cache, another package.
fn is_apart(root: &Path, folder: &Path) -> bool {
    folder == root.join("target") || folder.join("CACHEDIR.TAG").exists() || folder.join("Cargo.toml").exists()
}

/// The folder itself if it is there, or the first above it that is.
fn nearest_folder(path: &Path) -> PathBuf {
    path.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// The names whose change can change what `path` leads to: each link on the way and the end, which need not exist. Each has a parent
/// without links.
fn way_to(path: &Path) -> Vec<PathBuf> {
    let mut way = Way::to(path);
    let mut stops: Vec<_> = way.by_ref().filter(|place| place.is_symlink()).collect();
    if !way.is_lost() {
        stops.push(way.here().to_owned());
    }
    stops
}

/// The hash of what is at `path`. Of a listed one anything counts, so that whoever uses it can say what is wrong with a folder or an
/// unreadable file in its place; of others what isn't a readable file counts as not there.
pub(super) fn print(path: &Path, listed: bool) -> Print {
    let about = fs::metadata(path).ok()?;
    let mut hasher = blake3::Hasher::new();
    let read = about.is_file() && (listed || about.len() <= LARGE) && {
        File::open(path).and_then(|file| hasher.update_reader(file).map(drop)).is_ok()
    };
    if !read {
        if !listed && !about.is_file() {
            return None;
        }
        hasher = blake3::Hasher::new();
        hasher.update(format!("{:?}", stamp(path)).as_bytes());
    }
    Some(*hasher.finalize().as_bytes())
}

/// Length, inode and both times in nanoseconds.
pub(super) type Stamp = (u64, u64, i128, i128);

/// What can be told of a file without reading it.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok()?;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let modified = nanos(about.mtime(), about.mtime_nsec());
    Some((about.len(), about.ino(), modified, nanos(about.ctime(), about.ctime_nsec())))
}

/// Whether others can write to the file system at `path` without this system hearing of it.
///
/// The numbers are those of the kernel's `linux/magic.h` and, for those not listed there, of the file systems' own sources.
pub(super) fn is_shared(path: &Path) -> bool {
    const SHARED: [u32; 9] = [
        0x0000_6969, // NFS
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB2
        0x0000_517b, // SMB
        0x0102_1997, // 9p
        0x6573_5546, // FUSE, virtiofs
        0x00c3_6400, // Ceph
        0x786f_4256, // vboxsf
        0x5346_414f, // AFS
    ];
    // The kernel's magic numbers have 32 bits; the field is wider on some machines.
    rustix::fs::statfs(path).is_ok_and(|about| SHARED.contains(&(about.f_type as u32)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::scope::Take;
    use super::super::watcher::tests::{Folder, write};
    use super::*;
    use crate::artifact::symlink_walk::MOST_LINKS;

    fn names(root: &Path, paths: &BTreeSet<PathBuf>) -> Vec<String> {
        let relative = |path: &PathBuf| path.strip_prefix(root).map(|path| path.display().to_string()).ok();
        paths.iter().filter_map(relative).collect()
    }

    #[test]
    fn a_tree_leaves_out_what_is_ignored_hidden_built_or_another_package() {
        let folder = Folder::new();
        for path in ["a/src/lib.rs", "a/notes.md", "a/big.log", "a/.git/HEAD", "a/target/x.rs", "a/out/CACHEDIR.TAG", "a/out/x.rs"]
        {
            write(&folder.path(path), "x");
        }
        for (path, content) in [("a/.gitignore", "*.log\n"), ("a/src/target/mod.rs", ""), ("a/b/Cargo.toml", ""), ("a/b/b.rs", "")]
        {
            write(&folder.path(path), content);
        }
        let scope = Scope { trees: [(folder.path("a"), Take::Rust)].into(), ..Scope::default() };
        let mut places = Places::find(&scope);
        assert_eq!(names(&folder.path("a"), &places.files), ["notes.md", "src/lib.rs", "src/target/mod.rs"]);
        assert_eq!(names(&folder.path("a"), &places.folders), ["", "src", "src/target"]);
        let mut ignores = |path: &str| places.ignores(&folder.path("a"), &folder.path(path), false);
        assert_eq!(["a/src/new.rs", "a/new.log", "a/out/y.rs", "a/.x.rs"].map(&mut ignores), [false, true, true, true]);
    }

    #[test]
    fn a_tree_that_is_ignored_as_a_whole_is_watched_nevertheless() {
        let folder = Folder::new();
        write(&folder.path(".gitignore"), "a/\n");
        write(&folder.path("a/src/lib.rs"), "x");
        let places = Places::find(&Scope { trees: [(folder.path("a"), Take::Rust)].into(), ..Scope::default() });
        assert_eq!(names(&folder.path("a"), &places.files), ["src/lib.rs"]);
    }

    #[test]
    fn the_way_to_a_file_names_each_link_and_the_end() {
        let folder = Folder::new();
        write(&folder.path("releases/2/lib.so"), "x");
        symlink("releases/2", folder.path("current")).expect("a link");
        symlink(folder.path("current/../2/lib.so"), folder.path("lib.so")).expect("a link");
        let way: Vec<_> = way_to(&folder.path("lib.so"));
        assert_eq!(way, ["lib.so", "current", "releases/2/lib.so"].map(|path| folder.path(path)));
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = Folder::new();
        symlink("b", folder.path("a")).expect("a link");
        symlink("a", folder.path("b")).expect("a link");
        assert_eq!(way_to(&folder.path("a")).len(), MOST_LINKS + 1);
    }

    #[test]
    fn a_missing_file_is_waited_for_in_the_nearest_folder() {
        let folder = Folder::new();
        let places = Places::find(&Scope { files: [folder.path("x/y/z.toml")].into(), ..Scope::default() });
        assert_eq!(places.folders, [folder.path("")].into());
    }
}

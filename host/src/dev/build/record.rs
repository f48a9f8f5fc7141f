//! Which contents did cargo last build, in this run or an earlier one?
//!
//! While nothing watches, a source may be replaced by one with an older stamp, which cargo takes for built. So what was read by each build
//! that went well stands in a file in our own target folder, one for each plugin, by hash. A file that a build begins to read in another
//! form is doubtful until one went well: whatever ends the process, the next start finds the difference. Plugins may share a target
//! folder and packages: what the records of one folder don't agree on is doubtful too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::made_of::MadeOf;
use super::package::Package;

/// The contents of files, by hash.
pub(crate) type Hashes = BTreeMap<PathBuf, [u8; 32]>;

const FOLDER: &str = ".midair-sources";
const FORM: &str = "midair sources 1";

/// What was read for one plugin.
#[derive(Debug, Default)]
pub(super) struct Record {
    path: PathBuf,
    /// `None` is a content that may have been built or not.
    pub(super) files: BTreeMap<PathBuf, Option<[u8; 32]>>,
    pub(super) made_of: MadeOf,
}

impl Record {
    /// That of the plugin at `manifest` which is built into `target`; an empty one if there is none.
    pub(super) fn of(target: &Path, manifest: &Path) -> Record {
        let name = blake3::hash(manifest.as_os_str().as_encoded_bytes()).to_hex();
        let path = target.join(FOLDER).join(&name.as_str()[..16]);
        Self::read(&path).unwrap_or_else(|| Record { path, ..Record::default() })
    }

    /// All of a target folder.
    pub(super) fn all(target: &Path) -> Vec<Record> {
        let entries = fs::read_dir(target.join(FOLDER)).into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::read(&entry.path())).collect()
    }

    fn read(path: &Path) -> Option<Record> {
        let mut record = Record { path: path.to_owned(), ..Record::default() };
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some(FORM) {
            return None;
        }
        for line in lines {
            let mut words = line.splitn(3, ' ');
            match (words.next()?, words.next()?, words.next()?) {
                ("file", "?", path) => drop(record.files.insert(path.into(), None)),
                ("file", hash, path) => drop(record.files.insert(path.into(), Some(blake3::Hash::from_hex(hash).ok()?.into()))),
                ("lists", _, path) => drop(record.made_of.listed.insert(path.into())),
                (kind @ ("package" | "scripted"), name, root) => {
                    let package = Package { name: name.to_owned(), root: root.into(), build_script: kind == "scripted" };
                    record.made_of.packages.insert(root.into(), package);
                }
                _ => return None,
            }
        }
        Some(record)
    }

    /// Notes that a build begins to read these: what differs is doubtful until one went well. Tells whether anything is.
    pub(super) fn doubt<'a>(&mut self, files: impl Iterator<Item = (&'a PathBuf, &'a [u8; 32])>) -> bool {
        let mut any = false;
        for (path, hash) in files {
            if let Some(known) = self.files.get_mut(path)
                && *known != Some(*hash)
            {
                any |= known.take().is_some();
            }
        }
        any
    }

    /// Notes what cargo knows of now: by a build that went well, or because it was made to forget all others.
    pub(super) fn settle<'a>(&mut self, files: impl Iterator<Item = (&'a PathBuf, &'a [u8; 32])>) {
        self.files = files.map(|(path, hash)| (path.clone(), Some(*hash))).collect();
    }

    /// Writes it as a whole. One that can't be written is taken away: what no record knows is built.
    pub(super) fn write(&self) {
        let mut text = format!("{FORM}\n");
        let mut line = |words: [&str; 2], path: &Path| {
            if let Some(path) = path.to_str().filter(|path| !path.contains('\n')) {
                text.push_str(&format!("{} {} {path}\n", words[0], words[1]));
            }
        };
        for (path, hash) in &self.files {
            let hash = hash.map_or_else(|| "?".to_owned(), |hash| blake3::Hash::from(hash).to_hex().to_string());
            line(["file", &hash], path);
        }
        self.made_of.listed.iter().for_each(|path| line(["lists", "-"], path));
        for package in self.made_of.packages.values() {
            line([if package.build_script { "scripted" } else { "package" }, &package.name], &package.root);
        }
        let draft = self.path.with_extension(std::process::id().to_string());
        // Not those above it: a project that was moved away is not to come back as an empty folder.
        let _ = self.path.parent().map(fs::create_dir);
        if fs::write(&draft, text).and_then(|()| fs::rename(&draft, &self.path)).is_err() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What all records agree on, by file; `None` where they don't, or one of them doubts it.
pub(super) fn agreed(records: &[Record]) -> BTreeMap<PathBuf, Option<[u8; 32]>> {
    let mut agreed = BTreeMap::new();
    for (path, hash) in records.iter().flat_map(|record| &record.files) {
        let known = agreed.entry(path.clone()).or_insert(*hash);
        if known != hash {
            *known = None;
        }
    }
    agreed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_records_that_differ_are_doubtful() {
        let target = std::env::temp_dir().join(format!("midair-record-{}", std::process::id()));
        let files: Hashes = [("/w/a.rs", 1), ("/w/a b.rs", 2), ("/w/c.rs", 3)].map(|(path, hash)| (path.into(), [hash; 32])).into();
        let package = Package { name: "shop".to_owned(), root: "/w".into(), build_script: true };
        fs::create_dir(&target).expect("a folder");
        for (manifest, others) in [("/w/Cargo.toml", None), ("/x/Cargo.toml", Some([9; 32]))] {
            let mut record = Record::of(&target, Path::new(manifest));
            record.settle(files.iter());
            record.made_of.listed.insert("/words.txt".into());
            record.made_of.packages.insert("/w".into(), package.clone());
            others.into_iter().for_each(|hash| assert!(record.doubt([(&PathBuf::from("/w/c.rs"), &hash)].into_iter())));
            record.write();
        }
        let again = Record::of(&target, Path::new("/x/Cargo.toml"));
        assert_eq!((again.files[Path::new("/w/a b.rs")], again.files[Path::new("/w/c.rs")]), (Some([2; 32]), None));
        assert_eq!((again.made_of.listed.len(), &again.made_of.packages[Path::new("/w")]), (1, &package));
        let agreed = agreed(&Record::all(&target));
        assert_eq!((agreed[Path::new("/w/a.rs")], agreed[Path::new("/w/c.rs")]), (Some([1; 32]), None));
        fs::remove_dir_all(&target).expect("a removal");
    }
}

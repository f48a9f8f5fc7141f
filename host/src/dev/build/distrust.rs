//! Which packages has cargo to build anew, whatever their stamps say?
//!
//! By what is known to have changed while this run watches, and by the records of what was built before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::package::{Package, package_of};
use super::project::{Group, Project};
use super::record::{self, Hashes, Record};
use super::staleness;

impl Project {
    /// Makes sure that cargo sees these changes, which it judges by time stamps alone. Call it before a build.
    pub fn distrust(&self, changed: &[PathBuf]) {
        let Some(last_build) = self.last_build else { return };
        // What the last build read has to be built anew in any case: there its stamps needn't be asked.
        let is_listed = |file: &PathBuf| self.made_of.values().any(|made_of| made_of.listed.contains(file));
        for file in changed.iter().filter(|file| is_listed(file) || staleness::is_doubtful(file, last_build)) {
            self.groups.iter().for_each(|group| forget(&group.builds_into(), &self.packages(group), file));
        }
    }

    /// Makes cargo build all local packages anew.
    pub fn distrust_all(&self) {
        for group in &self.groups {
            self.packages(group).values().for_each(|package| staleness::forget(&group.builds_into(), package, None));
        }
    }

    /// Makes sure that cargo sees what changed since it was last called, in whichever run. `now` has the contents that are watched. Call it
    /// before the first build.
    pub(crate) fn distrust_earlier(&self, now: &Hashes) {
        for group in &self.groups {
            let (folder, packages) = (group.builds_into(), self.packages(group));
            let mut records = Record::all(&folder);
            let known = record::agreed(&records);
            let is_stale = |file: &PathBuf| match (known.get(file), now.get(file)) {
                (Some(before), now) => before.as_ref() != now,
                (None, _) => is_rust(file) && package_of(&packages, file).is_some(),
            };
            let own: Vec<_> = group.plugins.iter().map(|plugin| Record::of(&folder, &plugin.manifest)).collect();
            let read: BTreeSet<_> = own.iter().flat_map(|record| record.files.keys()).chain(now.keys()).cloned().collect();
            let stale: BTreeSet<_> = read.into_iter().filter(is_stale).collect();
            stale.iter().for_each(|file| forget(&folder, &packages, file));
            // From here on cargo remembers nothing of them that is wrong.
            for record in records.iter_mut().filter(|record| record.files.keys().any(|file| stale.contains(file))) {
                record.files.retain(|file, _| !stale.contains(file));
                record.write();
            }
        }
    }

    /// Remembers for a later run what a build is about to read, or has read if it went well.
    pub(crate) fn record(&self, plugins: &BTreeSet<String>, contents: &Hashes, went_well: bool) {
        for group in &self.groups {
            let (folder, packages) = (group.builds_into(), self.packages(group));
            for plugin in group.plugins.iter().filter(|plugin| plugins.contains(&plugin.name)) {
                let files = contents.iter().filter(|(file, _)| self.is_part(plugin, package_of(&packages, file), file));
                let mut record = Record::of(&folder, &plugin.manifest);
                if went_well {
                    record.settle(files);
                    record.made_of = self.made_of.get(&plugin.name).cloned().unwrap_or_default();
                    record.write();
                } else if record.doubt(files) {
                    record.write();
                }
            }
        }
    }

    /// Who wrote `file` in the last build, as far as it can be told: a build script that ran at that time, or what else may write.
    #[must_use]
    pub fn writer_of(&self, file: &Path) -> String {
        let changed = fs::metadata(file).and_then(|about| about.modified()).ok();
        let ran = |group: &Group| staleness::script_that_ran(&group.builds_into(), changed?);
        match self.groups.iter().find_map(ran) {
            Some(package) => format!("the build script of package `{package}`"),
            None => "something that runs in the build".to_owned(),
        }
    }
}

/// Makes cargo forget what it built from `file` into `target`, where these packages are built.
fn forget(target: &Path, packages: &BTreeMap<PathBuf, Package>, file: &Path) {
    match package_of(packages, file).filter(|_| is_rust(file)) {
        Some(package) => staleness::forget(target, package, Some(file)),
        // Any package may have read it.
        None => packages.values().for_each(|package| staleness::forget(target, package, Some(file))),
    }
}

fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

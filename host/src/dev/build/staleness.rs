//! Would cargo miss this edit?
//!
//! cargo compiles a unit anew if one of its files is younger than the unit's last build. A file renamed in with an older stamp, or
//! saved within the same tick of the clock, is not. We know by its hash that it differs, so we make cargo's memory of the unit older
//! than any file: in our own target folder, and only where the stamps leave a doubt.
//!
//! A build script is made to run again only by a file that it reads, as far as cargo knows: one that writes a source would else write
//! it anew in each build that its own writing causes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::package::Package;

/// The kernel's clock for file stamps lags behind by up to one tick, 10 ms on the slowest kernels; twice that is safe.
pub(super) const DOUBT: Duration = Duration::from_millis(20);

/// Whether cargo can't be trusted to see that `file` changed since its last build ended.
pub(super) fn is_doubtful(file: &Path, last_build: SystemTime) -> bool {
    let modified = fs::metadata(file).and_then(|about| about.modified());
    modified.is_ok_and(|modified| modified <= last_build + DOUBT)
}

/// Makes cargo forget that it built `package` into `target` before `file` changed, or altogether.
pub(super) fn forget(target: &Path, package: &Package, file: Option<&Path>) {
    let Package { name, root, .. } = package;
    let file = file.map(|file| Names { within: file.strip_prefix(root).ok(), root, file });
    for profile in profiles(target) {
        let of_package = |folder: &PathBuf| named(folder).is_some_and(|of| of == name);
        entries(&profile.join(".fingerprint")).into_iter().filter(of_package).for_each(|unit| forget_unit(&unit, file.as_ref()));
        // cargo's newer layout.
        let units = entries(&profile.join("build").join(name));
        units.into_iter().for_each(|unit| forget_unit(&unit.join("fingerprint"), file.as_ref()));
    }
}

/// What the compiler wrote of the files that it read, since `started`.
pub(super) fn dep_infos_since(target: &Path, started: SystemTime) -> Vec<PathBuf> {
    let is_new = |path: &PathBuf| fs::metadata(path).and_then(|about| about.modified()).is_ok_and(|at| at + DOUBT >= started);
    let is_dep_info = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "d");
    let files = profiles(target).into_iter().flat_map(|profile| entries(&profile.join("deps")));
    files.filter(is_dep_info).filter(is_new).collect()
}

/// The package whose build script ran in `target` when a file was written.
pub(super) fn script_that_ran(target: &Path, written: SystemTime) -> Option<String> {
    let modified = |path: PathBuf| fs::metadata(path).and_then(|about| about.modified()).ok();
    let ran = |run: &PathBuf| {
        // cargo makes the first before the script starts, and writes the other when it has ended.
        let times = modified(run.join("invoked.timestamp")).zip(modified(run.join("output")));
        times.is_some_and(|(started, ended)| started <= written + DOUBT && written <= ended + DOUBT)
    };
    let runs = profiles(target).into_iter().flat_map(|profile| entries(&profile.join("build")));
    runs.into_iter().filter(ran).find_map(|run| named(&run).map(str::to_owned))
}

/// A file as cargo's memory may name it.
struct Names<'a> {
    /// Relative to the package, if it lies in it.
    within: Option<&'a Path>,
    root: &'a Path,
    file: &'a Path,
}

impl Names<'_> {
    /// Whether a unit's list of files names it. The list's form is cargo's own; the names stand in it as they are.
    fn is_in(&self, list: &[u8]) -> bool {
        let names = [Some(self.file), self.within];
        names.into_iter().flatten().map(|name| name.as_os_str().as_encoded_bytes()).any(|name| holds(list, name))
    }

    /// Whether a build script whose run cargo remembers so reads it. One that didn't say what it reads may read all of its package.
    fn is_read_by(&self, run: &serde_json::Value) -> bool {
        let local = run["local"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut listed = local.iter().filter_map(|local| local["RerunIfChanged"]["paths"].as_array()).flatten().peekable();
        let says = listed.peek().is_some() || local.iter().any(|local| local.get("RerunIfEnvChanged").is_some());
        !says || listed.filter_map(|path| path.as_str()).any(|path| is_below(self.file, &self.root.join(path)))
    }
}

/// It is best effort: what can't be made older is at worst not built anew, as with cargo alone.
fn forget_unit(unit: &Path, file: Option<&Names>) {
    for memory in entries(unit) {
        let name = memory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("dep-") {
            let is_script = name.starts_with("dep-build-script");
            if !is_script || file.is_none_or(|file| fs::read(&memory).is_ok_and(|list| file.is_in(&list))) {
                let _ = File::options().append(true).open(&memory).and_then(|file| file.set_modified(UNIX_EPOCH));
            }
        } else if name.starts_with("run-build-script") && !name.ends_with(".json") {
            let told = fs::read(memory.with_extension("json")).unwrap_or_default();
            let told = serde_json::from_slice(&told).unwrap_or_default();
            if file.is_none_or(|file| file.is_read_by(&told)) {
                let _ = fs::remove_file(&memory);
            }
        }
    }
}

fn is_below(file: &Path, above: &Path) -> bool {
    file.starts_with(above) || fs::canonicalize(above).is_ok_and(|above| file.starts_with(above))
}

fn holds(list: &[u8], name: &[u8]) -> bool {
    list.windows(name.len()).any(|window| window == name)
}

/// One folder for each profile, below one for each platform if one was asked for.
fn profiles(target: &Path) -> Vec<PathBuf> {
    entries(target).into_iter().flat_map(|folder| [entries(&folder), vec![folder]].concat()).collect()
}

/// The package of a folder such as `shop-0123456789abcdef`.
fn named(folder: &Path) -> Option<&str> {
    let (package, hash) = folder.file_name()?.to_str()?.rsplit_once('-')?;
    is_hash(hash).then_some(package)
}

fn is_hash(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_build_script_runs_again_for_what_it_reads_and_if_it_did_not_say_what_it_reads() {
        let root = Path::new("/w/shop");
        let reads = |file: &str, local: serde_json::Value| {
            let file = Path::new(file);
            Names { within: file.strip_prefix(root).ok(), root, file }.is_read_by(&json!({ "local": local }))
        };
        let listed = json!([{ "RerunIfChanged": { "output": "o", "paths": ["proto", "../words.txt"] } }]);
        assert!(reads("/w/shop/proto/a.txt", listed.clone()));
        assert!(!reads("/w/shop/src/made.rs", listed));
        assert!(reads("/w/shop/src/made.rs", json!([{ "Precalculated": "1" }])));
        assert!(!reads("/w/shop/src/made.rs", json!([{ "RerunIfEnvChanged": { "var": "X", "val": null } }])));
        assert!(reads("/w/shop/src/made.rs", json!(null)));
    }
}

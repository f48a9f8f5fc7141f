//! Would cargo miss this edit?
//!
//! cargo compiles a unit anew if one of its files is younger than the unit's last build. A file renamed in with an older stamp, or
//! saved within the same tick of the clock, is not. We know by its hash that it differs, so we make cargo's memory of the unit older
//! than any file: in our own target folder, and only where the stamps leave a doubt.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel's clock for file stamps lags behind by up to one tick, 10 ms on the slowest kernels; twice that is safe.
const DOUBT: Duration = Duration::from_millis(20);

/// Whether cargo can't be trusted to see that `file` changed since its last build ended.
pub(super) fn is_doubtful(file: &Path, last_build: SystemTime) -> bool {
    let modified = fs::metadata(file).and_then(|about| about.modified());
    modified.is_ok_and(|modified| modified <= last_build + DOUBT)
}

/// Makes cargo forget that it built `package` into `target`.
pub(super) fn forget(target: &Path, package: &str) {
    // One folder for each profile, below one for each platform if one was asked for.
    let profiles = entries(target).into_iter().flat_map(|folder| [entries(&folder), vec![folder]].concat());
    for profile in profiles {
        let of_package = |folder: &PathBuf| {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(package).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_hash)
        };
        entries(&profile.join(".fingerprint")).into_iter().filter(of_package).for_each(|unit| forget_unit(&unit));
        // cargo's newer layout.
        entries(&profile.join("build").join(package)).into_iter().for_each(|unit| forget_unit(&unit.join("fingerprint")));
    }
}

/// It is best effort: what can't be made older is at worst not built anew, as with cargo alone.
fn forget_unit(unit: &Path) {
    for memory in entries(unit) {
        let name = memory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("dep-") {
            let _ = File::options().append(true).open(&memory).and_then(|file| file.set_modified(UNIX_EPOCH));
        } else if name.starts_with("run-build-script") {
            let _ = fs::remove_file(&memory);
        }
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

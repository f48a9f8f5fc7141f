//! Which libraries would the system's loader find?
//!
//! It looks among those that are loaded, where `LD_LIBRARY_PATH` says, in its cache, and in the system's folders. So does this, to name the
//! library that isn't there rather than to leave it to the loader's words. Where it can't tell, it says that the library is there: the
//! loader has the last word.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use object::ReadCache;

use super::dynamic;
use super::headers::segments;
use crate::sys::process;

const CACHE: &str = "/etc/ld.so.cache";

/// As the loader of Debian, of Fedora and of those without folders for several machines has them.
const FOLDERS: [&str; 6] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// Whether the loader may find a library of that name.
pub(super) fn is_there(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).exists();
    }
    let told: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths).collect();
    let folders = FOLDERS.iter().map(PathBuf::from).chain(told);
    let stands = |folder: PathBuf| folder.join(name).exists();
    folders.into_iter().any(stands) || is_cached(name) || is_loaded(name) || host_has_run_paths()
}

/// Whether the loader's cache has the name: whatever its version, a string in it ends with a zero, and begins behind one or is the last
/// part of a path.
fn is_cached(name: &str) -> bool {
    let Ok(cache) = fs::read(CACHE) else { return false };
    let wanted = [name.as_bytes(), &[0]].concat();
    cache.windows(wanted.len() + 1).any(|window| matches!(window[0], 0 | b'/') && window[1..] == *wanted)
}

/// Whether a library that this process has open has the name: its file's, or that which it has for others.
fn is_loaded(name: &str) -> bool {
    let maps = process::maps();
    let files: BTreeSet<&str> = process::files(&maps).map(|mapping| mapping.file).collect();
    let is_named = |path: &&str| path.rsplit('/').next() == Some(name);
    files.iter().any(is_named) || files.iter().any(|path| soname(Path::new(path)).as_deref() == Some(name))
}

fn soname(path: &Path) -> Option<String> {
    dynamic(path)?.name
}

/// A host that says itself where libraries are looked for may mean those of its plugins, too.
fn host_has_run_paths() -> bool {
    dynamic(Path::new(process::PROGRAM)).is_some_and(|host| !host.run_paths.is_empty())
}

fn dynamic(path: &Path) -> Option<dynamic::Dynamic> {
    // Other mapped files are none of ours, and may be devices.
    if !path.is_file() {
        return None;
    }
    let bytes = ReadCache::new(File::open(path).ok()?);
    dynamic::read(segments(&bytes).ok()?, &bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_itself_needs_is_found_and_what_nobody_has_is_not() {
        for name in ["libc.so.6", "libgcc_s.so.1", "libm.so.6"] {
            assert!(is_there(name), "{name}");
        }
        assert!(is_loaded("libc.so.6") && !is_loaded("libc.so"));
        assert!(is_cached("libc.so.6") && !is_cached("ibc.so.6") && !is_cached("libnowhere.so.1"));
        assert!(!is_there("libnowhere.so.1") && !is_there("/nowhere/libc.so.6"));
        assert_eq!(soname(Path::new("/proc/self/exe")), None);
    }
}

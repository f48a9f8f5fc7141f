//! Which folder is this host's own, and who else claims it?
//!
//! Staged copies and the admin address of two hosts must not mix, so a host holds a lock on its folder for as long as it lives. The
//! kernel lets go of it however the process ends.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};

/// How long a client that looks at the lock may hold it: it lets go at once, but a machine may be busy.
const GLANCE: Duration = Duration::from_millis(200);

/// A data folder that no other host can have while this lives.
pub(super) struct Data {
    path: PathBuf,
    _lock: File,
}

impl Data {
    /// Makes the folder if need be, readable for its owner alone, and locks it.
    ///
    /// # Errors
    ///
    /// Another host has it (its process id is named), or the file system refuses.
    pub(super) fn claim(path: &Path) -> Result<Self> {
        let failed = |error| Error::fatal(Code::Io, path.display().to_string(), "the data folder can't be used").caused_by(error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let mut lock =
            File::options().read(true).write(true).create(true).truncate(false).open(path.join("lock")).map_err(failed)?;
        let until = Instant::now() + GLANCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // It may be a client that looks whether anybody has it.
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(GLANCE / 20),
                Err(TryLockError::WouldBlock) => return Err(taken(&path, &mut lock)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder, as an absolute path without symlinks.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a host has this folder. What a host that was killed left there says nothing of who answers now.
pub(super) fn is_claimed(path: &Path) -> bool {
    let Ok(lock) = File::open(path.join("lock")) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn taken(path: &Path, lock: &mut File) -> Error {
    let mut holder = String::new();
    // A holder that has just started may not have written its id yet.
    let _ = lock.read_to_string(&mut holder);
    let who = holder.trim().parse::<u32>().map_or_else(|_| "another midair".to_owned(), |pid| format!("midair with pid {pid}"));
    Error::fatal(Code::Io, path.display().to_string(), format!("this data folder is in use by {who}"))
        .help("end that one first, or give this one a folder of its own: --data DIR")
}

/// Where `run` keeps its data when it isn't told: the user's state folder, by the XDG rules.
///
/// # Errors
///
/// Wrong usage: the environment names neither a state folder nor a home.
pub(super) fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state
        .map(|state| state.join("midair"))
        .ok_or_else(|| Error::fatal(Code::Usage, "", "there is no home folder to keep data in").help("name a folder: --data DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_host_is_told_who_has_the_folder_until_that_one_ends() {
        let above = std::env::temp_dir().join(format!("midair-data-{}", std::process::id()));
        let folder = above.join("deep");
        let first = Data::claim(&folder).expect("free");
        assert!(is_claimed(&folder));
        let error = Data::claim(&folder).err().expect("taken");
        assert!(error.to_string().ends_with(&format!("in use by midair with pid {}", std::process::id())), "{error}");
        assert!(error.to_string().starts_with(&*first.path().to_string_lossy()), "{error}");
        assert_eq!(error.code(), Code::Io);
        drop(first);
        assert!(!is_claimed(&folder), "though its file is still there");
        assert!(Data::claim(&folder).is_ok());
        fs::remove_dir_all(above).expect("the folder is ours");
    }

    #[test]
    fn the_state_folder_follows_xdg() {
        let check = |state: Option<&str>, home: Option<&str>| {
            let variable = |name: &str| (if name == "HOME" { home } else { state }).map(OsString::from);
            of_user(variable).map(|path| path.display().to_string()).map_err(|error| error.code())
        };
        assert_eq!(check(Some("/s"), Some("/h")), Ok("/s/midair".to_owned()));
        assert_eq!(check(Some("relative"), Some("/h")), Ok("/h/.local/state/midair".to_owned()));
        assert_eq!(check(None, None), Err(Code::Usage));
    }
}

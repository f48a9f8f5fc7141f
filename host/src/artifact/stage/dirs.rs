//! Where do private copies go?
//!
//! Into the host's own folder. If that is on a file system from which no code may run, or if it is full, they go into a fresh folder of the
//! system's that nobody else can write: a swap that could be made is made, and it is said where.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use super::trust;

/// The folders that may take copies, the best first.
#[derive(Debug)]
pub(super) struct Places(Vec<Place>);

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    /// Others may write beside it.
    shared: bool,
    /// Whether it can take copies; not known before it is asked for.
    ready: Option<Result<(), String>>,
}

impl Places {
    /// The folder below `data`, and the system's for what is temporary.
    pub(super) fn new(data: &Path) -> Self {
        let own = Place { folder: data.join("staged"), shared: false, ready: None };
        let mut bases: Vec<PathBuf> = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).into_iter().collect();
        bases.push(env::temp_dir());
        // One host has a data folder at a time, so no other uses a folder named for it.
        let name = fs::metadata(data)
            .map(|about| format!("midair-{}-{:x}-{:x}", rustix::process::geteuid().as_raw(), about.dev(), about.ino()));
        let others = bases.into_iter().filter(|base| base.is_absolute()).zip(name.into_iter().cycle());
        let others = others.map(|(base, name)| Place { folder: base.join(name), shared: true, ready: None });
        Self([own].into_iter().chain(others).collect())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that were made so far.
    pub(super) fn ready(&self) -> Vec<PathBuf> {
        self.0.iter().filter(|place| matches!(place.ready, Some(Ok(())))).map(|place| place.folder.clone()).collect()
    }

    /// One of them, made and empty when it is asked for first.
    ///
    /// # Errors
    ///
    /// The folder, and why it takes no copies.
    pub(super) fn get(&mut self, index: usize) -> Result<PathBuf, (PathBuf, String)> {
        let place = &mut self.0[index];
        let ready = place.ready.get_or_insert_with(|| prepare(&place.folder, place.shared));
        ready.clone().map(|()| place.folder.clone()).map_err(|reason| (place.folder.clone(), reason))
    }
}

/// Makes a folder that only this user can enter, empty: copies of an earlier run are of no use.
fn prepare(folder: &Path, shared: bool) -> Result<(), String> {
    let told = |error: io::Error| format!("it can't be prepared: {error}");
    let above = folder.parent().unwrap_or(folder);
    if shared {
        trust::walk(above, &[]).map_err(|flaw| flaw.told().0)?;
    } else {
        fs::create_dir_all(above).map_err(told)?;
    }
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(told(error)),
        Ok(about) => {
            let is_ours = about.is_dir() && about.uid() == rustix::process::geteuid().as_raw();
            if shared && !is_ours {
                return Err("it belongs to somebody else".to_owned());
            }
            fs::remove_dir_all(folder).map_err(told)?;
        }
    }
    DirBuilder::new().mode(0o700).create(folder).map_err(told)?;
    let about = rustix::fs::statvfs(folder).map_err(|error| told(error.into()))?;
    if about.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err("no code may run from its file system, which is mounted noexec".to_owned());
    }
    Ok(())
}

/// Whether a failure to write is the folder's: another one may do.
pub(super) fn is_of_the_place(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    // EIO has no kind of its own.
    let broken = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    broken || matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | NotFound | PermissionDenied)
}

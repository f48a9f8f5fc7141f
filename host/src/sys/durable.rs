//! What is on the disk, and not only in the system's memory of it?

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Makes a folder and those above it that are missing, and sees to it that a loss of power leaves them there.
///
/// # Errors
///
/// If it can't be made.
pub(crate) fn create_dir_all(folder: &Path) -> io::Result<()> {
    let missing: Vec<PathBuf> = folder.ancestors().take_while(|above| !above.is_dir()).map(Path::to_owned).collect();
    fs::create_dir_all(folder)?;
    // A folder's name is on the disk once the one above it is.
    missing
        .iter()
        .filter_map(|made| made.parent())
        .try_for_each(|above| sync(if above.as_os_str().is_empty() { Path::new(".") } else { above }))
}

/// Sees to it that this folder's name is on the disk, and those of the folders above it, whoever made them. What can't be asked of the system, as
/// of a folder of somebody else's, is left to them.
pub(crate) fn sync_above(folder: &Path) {
    folder.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).for_each(|above| drop(sync(above)));
}

/// Sees to it that the names in this folder are on the disk.
///
/// # Errors
///
/// If it can't be opened or written.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_as_far_as_they_are_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b/c");
        for _ in 0..2 {
            create_dir_all(&deep).expect("it can be made");
            assert!(deep.is_dir());
        }
        fs::write(folder.path().join("file"), "").expect("a file");
        assert!(create_dir_all(&folder.path().join("file/below")).is_err());
    }
}

//! How does a host let those in who may read its data folder, and nobody else?
//!
//! It makes a token at each start and leaves it in that folder, in a file that its own user alone can read. Whoever is told a token by hand
//! needs none, and is left none. In a folder that others may write, somebody could put an address of theirs beside the token, and clients would
//! bring it to them: so none is shared there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::sys::random;

/// The file's name in the data folder.
pub const FILE: &str = "admin-token";

/// Whether only its owner can put files into this folder.
///
/// # Errors
///
/// If nothing can be known of it.
pub fn is_private(folder: &Path) -> io::Result<bool> {
    Ok(fs::metadata(folder)?.mode() & 0o022 == 0)
}

/// Leaves a new token in this folder, and answers it.
pub(super) fn share(folder: &Path) -> io::Result<String> {
    if !is_private(folder)? {
        return Err(io::Error::other(format!("others may write to that folder: `chmod go-w {}`", folder.display())));
    }
    let token = random::bytes::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = format!("{token}\n");
    let (file, draft) = (folder.join(FILE), folder.join("admin-token.new"));
    let written = withdraw(&draft).and_then(|()| create(&draft)).and_then(|mut new| new.write_all(line.as_bytes()));
    match written.and_then(|()| fs::rename(&draft, &file)) {
        Ok(()) => {}
        Err(error) => {
            // It may be empty, and the disk full.
            let _ = fs::remove_file(&draft);
            overwrite(&file, &line).map_err(|_| error)?;
        }
    }
    Ok(token)
}

/// Takes away what an earlier host left.
pub(super) fn withdraw(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// On a full disk there is still the room that the token of an earlier host takes.
fn overwrite(file: &Path, line: &str) -> io::Result<()> {
    let mut before = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(file)?;
    let about = before.metadata()?;
    let is_ours = about.is_file() && about.uid() == rustix::process::geteuid().as_raw() && about.permissions().mode() & 0o077 == 0;
    if !is_ours || about.len() != line.len() as u64 {
        return Err(io::Error::other("what is there is no token of this user's"));
    }
    before.write_all(line.as_bytes())
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_token_of_its_own_that_its_user_alone_can_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        let first = share(folder.path()).expect("a token");
        let second = share(folder.path()).expect("a token");
        assert!(first != second && first.len() == 64, "{first} {second}");
        assert_eq!(fs::read_to_string(&file).expect("it is there"), format!("{second}\n"));
        assert_eq!(fs::metadata(&file).expect("it is there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no draft stays");
    }

    #[test]
    fn where_there_is_no_room_for_a_draft_the_token_before_is_overwritten_if_it_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        let first = share(folder.path()).expect("a token");
        // In place of the draft is what can't be replaced.
        fs::create_dir_all(folder.path().join("admin-token.new/full")).expect("a folder");
        let second = share(folder.path()).expect("a token");
        assert_ne!(first, second);
        assert_eq!(fs::read_to_string(&file).expect("it is there"), format!("{second}\n"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
        assert!(share(folder.path()).is_err(), "others could read it");
    }

    #[test]
    fn a_folder_that_others_may_write_gets_none() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o770)).expect("it is ours");
        let error = share(folder.path()).expect_err("a refusal").to_string();
        assert!(error.contains("chmod go-w"), "{error}");
        assert!(!folder.path().join(FILE).exists());
    }
}

//! Who could change what lies at a path?
//!
//! Code that a host takes runs with the host's rights. So whoever can write the file, rename something over it, or turn a link on the way
//! to it, decides what the host does. This room walks the way as the kernel does, link by link, and names the first place that somebody
//! else may change.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::artifact::symlink_walk::Way;

/// Whose files are taken.
///
/// A host that doesn't say takes them strictly: see [`Options::new`](crate::swap::Options::new).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only what nobody else can change: the artifact, every folder above it, and what links lead through belong to root, to the user as
    /// which the host runs, or to one of `owners`, and can't be written by their group or by others. Folders with the sticky bit, such as
    /// `/tmp`, may be written by all, since nobody can replace there what belongs to another.
    Strict {
        /// Further users, by their numbers, that may change what this host runs.
        owners: Vec<u32>,
    },
    /// Whatever can be read: for development, where who can write the file can do everything else anyway.
    Readable,
}

/// What is wrong on the way to a file.
#[derive(Debug)]
pub(super) enum Flaw {
    /// It can't be walked.
    Io(io::Error),
    /// This belongs to somebody else.
    Owner { place: PathBuf, what: &'static str, owner: u32 },
    /// Others may write to this.
    Writable { place: PathBuf, what: &'static str, mode: u32 },
}

const STICKY: u32 = 0o1000;
const GROUP: u32 = 0o020;
const OTHERS: u32 = 0o002;

/// Walks to `path`; where it leads in the end, without links.
///
/// # Errors
///
/// The first place on the way that somebody else than root, the host's user and `owners` may change.
pub(super) fn walk(path: &Path, owners: &[u32]) -> Result<PathBuf, Flaw> {
    let path = std::path::absolute(path).map_err(Flaw::Io)?;
    let host = rustix::process::geteuid().as_raw();
    let is_trusted = |owner: u32| owner == 0 || owner == host || owners.contains(&owner);
    let mut way = Way::to(&path);
    let judge = |place: &Path| judge(place, &fs::symlink_metadata(place).map_err(Flaw::Io)?, &is_trusted);
    judge(way.here())?;
    way.by_ref().try_for_each(|place| judge(&place))?;
    if way.is_lost() {
        return Err(Flaw::Io(io::Error::other("too many links")));
    }
    Ok(way.here().to_owned())
}

fn judge(place: &Path, about: &Metadata, is_trusted: &dyn Fn(u32) -> bool) -> Result<(), Flaw> {
    let what = match about.file_type() {
        kind if kind.is_dir() => "folder",
        kind if kind.is_symlink() => "link",
        _ => "file",
    };
    let (place, mode) = (place.to_owned(), about.mode() & 0o7777);
    if !is_trusted(about.uid()) {
        return Err(Flaw::Owner { place, what, owner: about.uid() });
    }
    // The mode of a link means nothing.
    let shared = about.is_symlink() || (about.is_dir() && mode & STICKY != 0);
    if !shared && mode & (GROUP | OTHERS) != 0 {
        return Err(Flaw::Writable { place, what, mode });
    }
    Ok(())
}

impl Flaw {
    /// What is wrong, and the way out.
    pub(super) fn told(&self) -> (String, String) {
        match self {
            Self::Io(error) => (format!("the way to it can't be followed: {error}"), "see that it is there".to_owned()),
            Self::Owner { place, what, owner } => {
                let (place, host) = (place.display(), rustix::process::geteuid().as_raw());
                let reason = match host {
                    0 => format!("the {what} {place} belongs to user {owner}, not to root"),
                    host => format!("the {what} {place} belongs to user {owner}, neither to root nor to the host's user {host}"),
                };
                let change = if *what == "link" { "chown -h" } else { "chown" };
                let help = format!(
                    "`{change} {host} {place}` and reload, or start the host with --trust-owner {owner} if that user may change what it runs"
                );
                (reason, help)
            }
            Self::Writable { place, what, mode } => {
                let place = place.display();
                let (who, bits) = match (mode & GROUP != 0, mode & OTHERS != 0) {
                    (true, true) => ("its group and all others", "go-w"),
                    (true, false) => ("its group", "g-w"),
                    _ => ("all others", "o-w"),
                };
                let reason = format!("the {what} {place} may be written by {who} (mode {mode:04o})");
                (reason, format!("`chmod {bits} {place}` and reload"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// What is said about the way to `path`, with the folder of the test cut off.
    fn told(folder: &Path, path: &str, owners: &[u32]) -> String {
        match walk(&folder.join(path), owners) {
            Ok(end) => format!("ok {}", end.strip_prefix(folder).unwrap_or(&end).display()),
            Err(flaw) => flaw.told().0.replace(&format!("{}/", folder.display()), ""),
        }
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("releases/2")).expect("folders");
        fs::write(folder.path().join("releases/2/libx.so"), "x").expect("a file");
        symlink("releases/2", folder.path().join("current")).expect("a link");
        symlink("../current/libx.so", folder.path().join("releases/libx.so")).expect("a link");
        for path in ["releases", "releases/2", "releases/2/libx.so"] {
            set(&folder.path().join(path), 0o755);
        }
        folder
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn g18_what_only_the_hosts_user_can_change_is_trusted_through_every_link() {
        let folder = folder();
        assert_eq!(told(folder.path(), "releases/libx.so", &[]), "ok releases/2/libx.so");
        assert!(told(folder.path(), "nothing", &[]).starts_with("the way to it can't be followed: No such file"));
    }

    #[test]
    fn g18_what_others_may_write_is_named_with_its_mode() {
        for (path, mode, expected) in [
            ("releases/2/libx.so", 0o664, "the file releases/2/libx.so may be written by its group (mode 0664)"),
            ("releases/2", 0o777, "the folder releases/2 may be written by its group and all others (mode 0777)"),
            ("releases", 0o757, "the folder releases may be written by all others (mode 0757)"),
            ("releases", 0o1777, "ok releases/2/libx.so"),
            // Only a folder keeps others off by it.
            ("releases/2/libx.so", 0o1666, "the file releases/2/libx.so may be written by its group and all others (mode 1666)"),
        ] {
            let folder = folder();
            set(&folder.path().join(path), mode);
            assert_eq!(told(folder.path(), "current/libx.so", &[]), expected, "{path} {mode:o}");
            assert_eq!(told(folder.path(), "releases/libx.so", &[]), expected, "{path} {mode:o} by links");
        }
    }

    #[test]
    fn g18_what_belongs_to_another_is_named_with_its_owner_and_may_be_trusted() {
        for (path, what) in [("releases/2/libx.so", "file"), ("releases", "folder"), ("current", "link")] {
            let folder = folder();
            let path = folder.path().join(path);
            if std::os::unix::fs::lchown(&path, Some(54_321), None).is_err() {
                // Only root may give files away; what is nobody's own here can't be made.
                return;
            }
            let said = told(folder.path(), "releases/libx.so", &[]);
            assert!(said.starts_with(&format!("the {what} ")) && said.contains("belongs to user 54321"), "{said}");
            assert_eq!(told(folder.path(), "releases/libx.so", &[54_321]), "ok releases/2/libx.so");
            if what != "link" {
                chown(&path, Some(0), None).expect("back");
                assert_eq!(told(folder.path(), "releases/libx.so", &[]), "ok releases/2/libx.so");
            }
        }
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = folder();
        symlink("b", folder.path().join("a")).expect("a link");
        symlink("a", folder.path().join("b")).expect("a link");
        assert_eq!(told(folder.path(), "a", &[]), "the way to it can't be followed: too many links");
    }
}

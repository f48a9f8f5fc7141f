//! What is wrong with a file, and how is one made?

use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, StorageError};

use super::rows::{ENDS, FORMAT, META, TALLIES, VALUES};
use crate::report::error::{Code, Error, Result};
use crate::sys::durable;

/// Opens the database; again after a failure of the disk.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// Makes the file if there is none: whole, under another name, and then linked to its own, so that nobody finds half of it.
pub(super) fn make(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let cant = |error: &dyn std::fmt::Display| {
        Error::fatal(Code::State, path.display().to_string(), format!("the state's file can't be made: {error}"))
            .help("its folder has to be there, and writable for this user; or name another file with --state")
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let fill = || {
        let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        options.map_err(|error| cant(&error))?;
        let fresh = || -> std::result::Result<(), redb::Error> {
            let database = Builder::new().create(&draft)?;
            let transaction = database.begin_write()?;
            {
                transaction.open_table(META)?.insert("format", FORMAT)?;
                transaction.open_table(VALUES)?;
                transaction.open_table(ENDS)?;
                transaction.open_table(TALLIES)?;
            }
            transaction.commit()?;
            Ok(())
        };
        fresh().map_err(|error| cant(&error))?;
        match fs::hard_link(&draft, path) {
            // Another host was quicker; which of them may have it is decided by its lock.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(cant(&error)),
            // What is answered as kept is kept only if its file has a name after a loss of power.
            _ => durable::sync(path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")))
                .map_err(|error| cant(&error)),
        }
    };
    let filled = fill();
    // If it stays, it is in nobody's way.
    let _ = fs::remove_file(&draft);
    filled
}

/// Reads without writing what can be told of the file: redb changes one that it opens to write.
pub(super) fn check(path: &Path) -> Result<()> {
    // To open a pipe would wait for whoever writes into it.
    if let Some(what) = fs::metadata(path).ok().and_then(|found| other_than_a_file(found.file_type())) {
        let reason = format!("it is {what}, and no file; nothing in it was changed");
        return Err(Error::fatal(Code::State, path.display().to_string(), reason).help("name another file with --state"));
    }
    let readable = match opened(|| Builder::new().open_read_only(path)) {
        Ok(readable) => readable,
        // It wasn't closed, as after a kill: only whoever writes can open it.
        Err(DatabaseError::RepairAborted) => return Ok(()),
        Err(error) => return Err(refused(path, error)),
    };
    let format = |readable: &ReadOnlyDatabase| -> std::result::Result<Option<u64>, redb::Error> {
        Ok(readable.begin_read()?.open_table(META)?.get("format")?.map(|format| format.value()))
    };
    match format(&readable) {
        Ok(Some(FORMAT)) => Ok(()),
        Ok(Some(other)) => {
            let reason = format!(
                "it is of version {other} of midair's format, and this midair reads version {FORMAT}; nothing in it was changed"
            );
            Err(Error::fatal(Code::State, path.display().to_string(), reason)
                .help("start the midair that wrote it, or name another file with --state"))
        }
        Ok(None) | Err(redb::Error::TableDoesNotExist(_)) => {
            let reason = "it is a database, but not one of midair's; nothing in it was changed";
            Err(Error::fatal(Code::State, path.display().to_string(), reason).help("name another file with --state"))
        }
        Err(error) => {
            let reason = format!("it can't be read: {error}; nothing in it was changed");
            Err(Error::fatal(Code::State, path.display().to_string(), reason).help(DAMAGED))
        }
    }
}

fn other_than_a_file(kind: FileType) -> Option<&'static str> {
    Some(match () {
        () if kind.is_file() => return None,
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "a socket",
    })
}

const DAMAGED: &str = "put a copy of it in its place; to begin without what it holds, move it away";

/// Whatever a damaged file leads redb to, this process goes on.
pub(super) fn opened<T>(open: impl FnOnce() -> std::result::Result<T, DatabaseError>) -> std::result::Result<T, DatabaseError> {
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(DatabaseError::Storage(StorageError::Corrupted("it broke what reads it".to_owned()))))
}

pub(super) fn refused(path: &Path, error: DatabaseError) -> Error {
    let (reason, help) = match &error {
        DatabaseError::DatabaseAlreadyOpen => {
            ("another process has it open".to_owned(), "end that host first, or name another file with --state")
        }
        DatabaseError::UpgradeRequired(version) => (
            format!("it was written by another version of redb, whose format is {version}"),
            "start the midair that wrote it, or name another file with --state",
        ),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
            (format!("it isn't a state file, or what was one: {error}"), DAMAGED)
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            ("it is cut off".to_owned(), DAMAGED)
        }
        // redb has no other word for what is newer than it.
        DatabaseError::Storage(StorageError::Corrupted(how)) if how.contains("file format version") => (
            format!("it was written by a newer version of redb: {how}"),
            "start the midair that wrote it, or name another file with --state",
        ),
        DatabaseError::Storage(StorageError::Corrupted(how)) => (format!("it is cut off or damaged: {how}"), DAMAGED),
        other => {
            (format!("it can't be opened: {other}"), "see that this user may read and write it, or name another file with --state")
        }
    };
    Error::fatal(Code::State, path.display().to_string(), format!("{reason}; nothing in it was changed")).help(help)
}

//! Which bytes are judged, and how do they stay what they are?
//!
//! An artifact is never opened in place: its bytes are read once, hashed and written to a private file under a name that was never used.
//! What is hashed, inspected and opened are the same bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result, Stage};

/// The largest artifact that is taken, in bytes.
pub const LARGEST: u64 = 1 << 30;

/// How many staged files of a plugin are kept, the newest first: the live one is opened already, and older ones serve the debugger.
const KEPT: usize = 4;

/// A private copy of an artifact.
pub struct Staged {
    /// What was copied.
    pub artifact: PathBuf,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// blake3 of the bytes, in hex.
    pub digest: String,
}

/// The host's folder of private copies.
pub struct Staging {
    folder: PathBuf,
}

impl Staging {
    /// Makes the folder, empty: copies of an earlier run are of no use.
    ///
    /// # Errors
    ///
    /// `E_IO` if it can't be made or emptied.
    pub fn open(data: &Path) -> Result<Self> {
        let folder = data.join("staged");
        let failed = |error: std::io::Error| {
            Error::fatal(Code::Io, folder.display().to_string(), "the folder for staged copies can't be prepared")
                .caused_by(error)
                .help("choose another folder with --data DIR")
        };
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        Ok(Self { folder })
    }

    /// Reads and hashes an artifact.
    ///
    /// # Errors
    ///
    /// `E_IO` if it is gone, `E_PERM` if it can't be read or is no regular file, `E_SIZE` if it is empty or too large.
    pub fn read(&self, artifact: &Path) -> Result<Staged> {
        let subject = || artifact.display().to_string();
        let rejected = |code, reason: &str| Error::rejected(code, Stage::Stage, subject(), reason);
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => rejected(Code::Io, "there is no such file"),
            std::io::ErrorKind::PermissionDenied => rejected(Code::Perm, "it can't be read").help("see to the file's permissions"),
            _ => rejected(Code::Io, "it can't be read").caused_by(error),
        };
        // Looked at before it is opened: opening a FIFO would wait for its writer.
        if !fs::metadata(artifact).map_err(failed)?.is_file() {
            return Err(rejected(Code::Perm, "it is no regular file"));
        }
        let mut file = File::open(artifact).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        if size > LARGEST {
            return Err(rejected(Code::Size, &format!("it has {size} bytes, more than {LARGEST}")));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
        // One byte more than allowed tells a file that grew since.
        (&mut file).take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() as u64 {
            0 => Err(rejected(Code::Size, "it is empty")),
            size if size > LARGEST => Err(rejected(Code::Size, &format!("it has more than {LARGEST} bytes"))),
            _ => Ok(Staged { artifact: artifact.to_owned(), digest: blake3::hash(&bytes).to_hex().to_string(), bytes }),
        }
    }

    /// Writes the private copy that will be opened. The name is new within this run and so is the inode.
    ///
    /// # Errors
    ///
    /// `E_IO` if it can't be written.
    pub fn write(&self, staged: &Staged, attempt: u64, plugin: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{plugin}.{attempt}-{}.so", &staged.digest[..16]));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o500).open(&path)?;
            file.write_all(&staged.bytes)
        };
        write().map_err(|error| {
            // Half a copy helps nobody; that it can't be removed either changes nothing.
            let _ = fs::remove_file(&path);
            Error::rejected(Code::Io, Stage::Stage, path.display().to_string(), "the private copy can't be written")
                .caused_by(error)
                .help("make room on the disk, or choose another folder with --data DIR")
        })?;
        self.prune(plugin);
        Ok(path)
    }

    /// Removes a plugin's older copies. What is mapped stays mapped without its name.
    fn prune(&self, plugin: &str) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let number = |path: &Path| -> Option<u64> {
            let name = path.file_name()?.to_str()?.strip_prefix(plugin)?.strip_prefix('.')?;
            name.split_once('-')?.0.parse().ok()
        };
        let mut copies: Vec<(u64, PathBuf)> =
            entries.flatten().filter_map(|entry| Some((number(&entry.path())?, entry.path()))).collect();
        copies.sort_unstable();
        for (_, path) in copies.iter().rev().skip(KEPT) {
            // A copy that can't be removed costs disk, nothing else.
            let _ = fs::remove_file(path);
        }
    }
}

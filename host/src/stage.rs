//! Which bytes are judged, and how do they stay what they are?
//!
//! An artifact is never opened in place: its bytes go, hashed on the way, into a private file under a name and an inode that were never
//! used. What is hashed, inspected and opened is that file, which nobody else writes. An artifact that changes while it is copied is
//! refused: its copy may be half old, half new, and look whole.
//!
//! All bytes are hashed, but what the loader never reads (debug information, most of a development build) is written only once the new code
//! serves: nobody waits for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Code, Error, Result, Stage};

/// The largest artifact that is taken, in bytes.
pub(crate) const LARGEST: u64 = 1 << 30;

/// How much is hashed and written at a time, in bytes: what was read is still in the processor's cache when it is hashed and written.
const PIECE: usize = 256 << 10;

/// A private copy of an artifact. Its file goes with it.
pub(crate) struct Staged {
    path: PathBuf,
    digest: String,
    rest: Option<Rest>,
}

/// What is hashed and not yet written.
struct Rest {
    source: File,
    copy: File,
    from: u64,
    stamp: Stamp,
}

impl Staged {
    /// The copy.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what the loader doesn't read, for debuggers. If the artifact was changed in place meanwhile, the copy stays without.
    pub(crate) fn complete(&mut self) {
        let Some(mut rest) = self.rest.take() else { return };
        if stamp(&rest.source).ok() == Some(rest.stamp) {
            let from = SeekFrom::Start(rest.from);
            // A copy without debug information serves all the same.
            let _ =
                rest.source.seek(from).and_then(|_| rest.copy.seek(from)).and_then(|_| io::copy(&mut rest.source, &mut rest.copy));
        }
    }

    /// blake3 of the bytes, in hex.
    #[must_use]
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // A copy that can't be removed costs disk, nothing else. If it was opened, it stays mapped without its name.
        let _ = fs::remove_file(&self.path);
    }
}

/// The host's folder of private copies.
pub(crate) struct Staging {
    folder: PathBuf,
    copies: AtomicU64,
}

impl Staging {
    /// Makes the folder, empty: copies of an earlier run are of no use.
    ///
    /// # Errors
    ///
    /// `E_IO` if it can't be made or emptied.
    pub(crate) fn open(data: &Path) -> Result<Self> {
        let folder = data.join("staged");
        let failed = |error: io::Error| {
            Error::fatal(Code::Io, folder.display().to_string(), "the folder for staged copies can't be prepared")
                .caused_by(error)
                .help("choose another folder with --data DIR")
        };
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        Ok(Self { folder, copies: AtomicU64::new(0) })
    }

    /// Hashes an artifact and copies what has to be there before it is opened. `loaded` says from a file's first bytes where the part
    /// ends that the loader reads, if it can tell.
    ///
    /// # Errors
    ///
    /// `E_IO` if it is gone, changes meanwhile, or the copy can't be written, `E_PERM` if it can't be read or is no regular file,
    /// `E_SIZE` if it is empty or too large.
    pub(crate) fn copy(&self, artifact: &Path, attempt: u64, loaded: fn(&[u8]) -> Option<u64>) -> Result<Staged> {
        let rejected = |code, reason: &str| Error::rejected(code, Stage::Stage, artifact.display().to_string(), reason);
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => rejected(Code::Io, "there is no such file"),
            io::ErrorKind::PermissionDenied => rejected(Code::Perm, "it can't be read").help("see to the file's permissions"),
            _ => rejected(Code::Io, "it can't be read").caused_by(error),
        };
        // Looked at before it is opened: opening a FIFO would wait for its writer.
        if !fs::metadata(artifact).map_err(unreadable)?.is_file() {
            return Err(rejected(Code::Perm, "it is no regular file"));
        }
        let mut file = File::open(artifact).map_err(unreadable)?;
        let draft = self.folder.join(format!("{attempt}.{}", self.copies.fetch_add(1, Ordering::Relaxed)));
        // From here on the file goes when this is dropped.
        let mut staged = Staged { path: draft, digest: String::new(), rest: None };
        let before = stamp(&file).map_err(unreadable)?;
        let Teed { size, digest, copy, from } = self.tee(&mut file, &staged.path, loaded, &unreadable)?;
        if stamp(&file).map_err(unreadable)? != before {
            return Err(rejected(Code::Io, "it changed while it was being copied")
                .help("a plugin is best replaced by renaming a whole file over it"));
        }
        match size {
            0 => return Err(rejected(Code::Size, "it is empty")),
            size if size > LARGEST => return Err(rejected(Code::Size, &format!("it has more than {LARGEST} bytes"))),
            _ => {}
        }
        let name = staged.path.with_extension(format!("{}-{}.so", self.copies.load(Ordering::Relaxed), &digest[..16]));
        fs::rename(&staged.path, &name).map_err(|error| unwritable(&staged.path, error))?;
        (staged.path, staged.digest) = (name, digest);
        if from < size {
            staged.rest = Some(Rest { source: file, copy, from, stamp: before });
        }
        Ok(staged)
    }

    /// Copies until the end or one byte more than allowed, which also ends a file that keeps growing.
    fn tee(
        &self,
        from: &mut File,
        to: &Path,
        loaded: fn(&[u8]) -> Option<u64>,
        unreadable: &dyn Fn(io::Error) -> Error,
    ) -> Result<Teed> {
        let failed = |error| unwritable(to, error);
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o500).open(to).map_err(failed)?;
        let (mut hasher, mut piece, mut size, mut end) = (blake3::Hasher::new(), vec![0; PIECE], 0, u64::MAX);
        while size <= LARGEST {
            let read = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            hasher.update(&piece[..read]);
            if size == 0 {
                end = loaded(&piece[..read]).unwrap_or(u64::MAX);
            }
            let wanted = usize::try_from(end.saturating_sub(size)).unwrap_or(usize::MAX).min(read);
            copy.write_all(&piece[..wanted]).map_err(failed)?;
            size += read as u64;
        }
        // What isn't written yet reads as zeros, and the file has its length.
        copy.set_len(size).map_err(failed)?;
        Ok(Teed { size, digest: hasher.finalize().to_hex().to_string(), copy, from: end.min(size) })
    }

    /// Where the copies are.
    #[must_use]
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What came of a copy: `copy` has the bytes before `from`, all `size` of them are in the digest.
struct Teed {
    size: u64,
    digest: String,
    copy: File,
    from: u64,
}

/// What moves when a file is written to: its length, and when its content and its inode last changed.
type Stamp = (u64, [i64; 4]);

fn stamp(file: &File) -> io::Result<Stamp> {
    let about = file.metadata()?;
    Ok((about.len(), [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()]))
}

fn unwritable(path: &Path, error: io::Error) -> Error {
    Error::rejected(Code::Io, Stage::Stage, path.display().to_string(), "the private copy can't be written")
        .caused_by(error)
        .help("make room on the disk, or choose another folder with --data DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).expect("a folder").count()
    }

    #[test]
    fn a_copy_has_an_inode_of_its_own_and_goes_when_nobody_holds_it() {
        let data = tempfile::tempdir().expect("a folder");
        let artifact = data.path().join("libx.so");
        fs::write(&artifact, vec![7; PIECE + 1]).expect("a file");
        let staging = Staging::open(data.path()).expect("a folder");
        let copy = || staging.copy(&artifact, 1, |_| None).expect("a copy");
        let (one, two) = (copy(), copy());
        assert_eq!((one.digest(), one.digest().len()), (two.digest(), 64));
        let inode = |path: &Path| path.metadata().expect("a file").ino();
        assert_ne!(inode(one.path()), inode(two.path()));
        assert_eq!(fs::read(one.path()).expect("a file"), fs::read(&artifact).expect("a file"));
        drop((one, two));
        assert_eq!(files(&staging.folder), 0);
    }

    #[test]
    fn what_the_loader_doesnt_read_is_hashed_at_once_and_written_when_it_is_completed() {
        let data = tempfile::tempdir().expect("a folder");
        let artifact = data.path().join("libx.so");
        let bytes: Vec<u8> = (0..3 * PIECE).map(|n| (n % 251) as u8).collect();
        fs::write(&artifact, &bytes).expect("a file");
        let staging = Staging::open(data.path()).expect("a folder");
        let copy = || staging.copy(&artifact, 1, |start| Some(start.len() as u64 + 10)).expect("a copy");
        let (mut kept, mut late) = (copy(), copy());
        let (path, early) = (kept.path().to_owned(), fs::read(kept.path()).expect("a file"));
        assert_eq!((early.len(), &early[..PIECE + 10]), (bytes.len(), &bytes[..PIECE + 10]));
        assert!(early[PIECE + 10..].iter().all(|byte| *byte == 0));
        assert_eq!(kept.digest(), blake3::hash(&bytes).to_hex().as_str());
        kept.complete();
        assert_eq!(fs::read(path).expect("a file"), bytes);
        // Changed in place meanwhile: another file's debug information would be worse than none.
        let path = late.path().to_owned();
        fs::write(&artifact, vec![9; bytes.len()]).expect("a file");
        late.complete();
        assert_eq!(fs::read(path).expect("a file"), early);
    }

    #[test]
    fn what_changes_while_it_is_copied_is_refused_and_leaves_nothing() {
        use std::os::unix::fs::FileExt;
        let data = tempfile::tempdir().expect("a folder");
        let artifact = data.path().join("libx.so");
        // Copying it takes many ticks of the kernel's clock for stamps.
        fs::write(&artifact, vec![7; 32 << 20]).expect("a file");
        let staging = Staging::open(data.path()).expect("a folder");
        let (writes, is_copied) = (std::sync::Barrier::new(2), std::sync::atomic::AtomicBool::new(false));
        let copied = std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = OpenOptions::new().write(true).open(&artifact).expect("a file");
                file.write_all_at(b"torn", 0).expect("a write");
                writes.wait();
                while !is_copied.load(Ordering::Relaxed) {
                    file.write_all_at(b"torn", 0).expect("a write");
                }
            });
            writes.wait();
            let copied = staging.copy(&artifact, 1, |_| None);
            is_copied.store(true, Ordering::Relaxed);
            copied
        });
        let refused = copied.err().map(|error| (error.code(), error.reason()));
        assert_eq!(refused, Some((Code::Io, "it changed while it was being copied".to_owned())));
        assert_eq!(files(&staging.folder), 0);
        staging.copy(&artifact, 1, |_| None).expect("at rest it is taken");
    }

    #[test]
    fn what_is_no_whole_file_is_refused_and_leaves_nothing() {
        let data = tempfile::tempdir().expect("a folder");
        let staging = Staging::open(data.path()).expect("a folder");
        let empty = data.path().join("empty.so");
        fs::write(&empty, b"").expect("a file");
        for (artifact, code) in [
            (data.path().join("none.so"), Code::Io),
            (data.path().to_owned(), Code::Perm),
            (PathBuf::from("/dev/zero"), Code::Perm),
            (empty, Code::Size),
        ] {
            let code_of = staging.copy(&artifact, 1, |_| None).err().map(|error| error.code());
            assert_eq!(code_of, Some(code), "{}", artifact.display());
        }
        assert_eq!(files(&staging.folder), 0);
    }
}

//! Which bytes are judged, and how do they stay what they are?
//!
//! An artifact is never opened in place: its bytes go, hashed on the way, into a private file under a name and an inode that were never
//! used. What is hashed, inspected and opened is that file, which nobody else writes. An artifact that changes while it is copied is
//! refused: its copy may be half old, half new, and look whole.
//!
//! All bytes are hashed. Where copies needn't last, what the loader never reads (debug information, most of a development build) is written
//! only once the new code serves: nobody waits for it.
//!
//! | part | question |
//! |---|---|
//! | `trust` | who could change what lies at a path? |
//! | `checksum` | what does the file beside an artifact say that its bytes are? |
//! | `dirs` | where do private copies go? |

mod checksum;
mod dirs;
mod trust;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use checksum::checksum_path;
use dirs::{Places, is_of_the_place};
pub use trust::Trust;

use crate::mutation::{self, Bug};
use crate::report::error::{Code, Error, Result, Stage};
use crate::report::event::{Bus, Event};

/// How much is hashed and written at a time, in bytes: what was read is still in the processor's cache when it is hashed and written.
const PIECE: usize = 256 << 10;

/// What is taken, and what its copies have to withstand.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The largest artifact, in bytes.
    pub limit: u64,
    /// Whose files.
    pub trust: Trust,
    /// Whether copies are whole from the start, and on the disk once they are kept.
    pub durable: bool,
}

/// What somebody who knows the format can say of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Where the part ends that the loader reads, by the first bytes.
    pub loaded: fn(&[u8]) -> Option<u64>,
    /// A digest of what runs, in hex: the same for two files that differ in nothing else than, say, debug information.
    pub code: fn(&File) -> Option<String>,
}

/// A private copy of an artifact. Its file goes with it: a generation holds the one that it was opened from.
pub(crate) struct Staged {
    path: PathBuf,
    digest: String,
    code: String,
    durable: bool,
    rest: Option<Rest>,
    /// Whether the file is another's, and stays when this goes.
    is_borrowed: bool,
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

    /// Its code serves: writes what the loader doesn't read, for debuggers, or sees to it that the copy is on the disk. If the artifact was
    /// changed in place meanwhile, the copy stays without what isn't loaded.
    pub(crate) fn complete(&mut self) {
        if self.durable {
            // It runs already and can't be taken back: a copy that isn't on the disk is one that a power failure may take.
            let _ = File::open(&self.path).and_then(|copy| copy.sync_all());
            let folder = self.path.parent().unwrap_or(&self.path);
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
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

    /// The digest of what runs; that of all bytes where it can't be told apart.
    #[must_use]
    pub(crate) fn code(&self) -> &str {
        &self.code
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_borrowed {
            // A copy that can't be removed costs disk, nothing else. If it was opened, it stays mapped without its name.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The host's private copies.
pub(crate) struct Staging {
    rules: Rules,
    format: Format,
    bus: Bus,
    places: Mutex<Places>,
    /// The place of the last copy, told whenever it is another one.
    place: AtomicU64,
    copies: AtomicU64,
}

/// Why a copy wasn't made.
enum Failed {
    /// Another folder may do.
    Here(io::Error),
    Everywhere(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Everywhere(error)
    }
}

impl Staging {
    /// Makes the folder, empty: copies of an earlier run are of no use. If it can't be used, another one, which is told.
    ///
    /// # Errors
    ///
    /// `E_IO` if there is none.
    pub(crate) fn open(data: &Path, rules: Rules, format: Format, bus: Bus) -> Result<Self> {
        // What is wrong with it is told when its folder for copies can't be made.
        let _ = fs::create_dir_all(data);
        let places = Mutex::new(Places::new(data));
        let (place, copies) = (AtomicU64::new(0), AtomicU64::new(0));
        let staging = Self { rules, format, bus, places, place, copies };
        let mut refused = Vec::new();
        staging.find(0, &mut refused).map(|(index, _)| staging.tell(index, &refused)).ok_or_else(|| {
            Error::fatal(
                Code::Io,
                data.display().to_string(),
                format!("there is no folder for private copies: {}", refused.join("; ")),
            )
            .help("choose another folder with --data DIR")
        })?;
        staging.warn_of_others(data);
        Ok(staging)
    }

    /// The first usable place from `index` on. Why others aren't goes to `refused`.
    fn find(&self, index: usize, refused: &mut Vec<String>) -> Option<(usize, PathBuf)> {
        let mut places = self.places.lock();
        (index..places.count()).find_map(|index| match places.get(index) {
            Ok(folder) => Some((index, folder)),
            Err((folder, reason)) => {
                refused.push(format!("{}: {reason}", folder.display()));
                None
            }
        })
    }

    /// Says where copies go from now on, if it is another place than before.
    fn tell(&self, index: usize, refused: &[String]) {
        let place = index as u64;
        if self.place.swap(place, Ordering::Relaxed) == place {
            return;
        }
        let Ok(folder) = self.places.lock().get(index) else { return };
        let why = if refused.is_empty() { String::new() } else { format!(": {}", refused.join("; ")) };
        let message = format!("private copies of artifacts now go to {}{why}", folder.display());
        self.bus.say(Event::Warning { message });
    }

    /// Whoever can rename the folder of the copies can replace one between its verification and its opening.
    fn warn_of_others(&self, data: &Path) {
        let Trust::Strict { owners } = &self.rules.trust else { return };
        if let Err(flaw) = trust::walk(data, owners) {
            let (reason, help) = flaw.told();
            let message = format!("others could replace private copies of artifacts in {}: {reason}; {help}", data.display());
            self.bus.say(Event::Warning { message });
        }
    }

    /// Hashes an artifact and copies what has to be there before it is opened.
    ///
    /// # Errors
    ///
    /// `E_IO` if it is gone, changes meanwhile, or the copy can't be written, `E_PERM` if it can't be read, is no regular file, or others
    /// may change it, `E_SIZE` if it is empty or too large, `E_HASH` if it isn't what the digest beside it says.
    pub(crate) fn copy(&self, artifact: &Path, attempt: u64) -> Result<Staged> {
        let rejected = |code, reason: &str| Error::rejected(code, Stage::Stage, artifact.display().to_string(), reason);
        // Looked at before it is opened: opening a device may do something.
        if !fs::metadata(artifact).map_err(|error| unreadable(artifact, error))?.is_file() {
            return Err(rejected(Code::Perm, "it is no regular file"));
        }
        let end = match &self.rules.trust {
            Trust::Readable => artifact.to_owned(),
            Trust::Strict { owners } => trust::walk(artifact, owners).map_err(|flaw| match flaw {
                trust::Flaw::Io(error) => unreadable(artifact, error),
                flaw => {
                    let (reason, help) = flaw.told();
                    rejected(Code::Perm, &reason).help(help)
                }
            })?,
        };
        // Not waited for, if a pipe takes its place just now.
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open(&end);
        let mut file = opened.map_err(|error| unreadable(artifact, error))?;
        let before = stamp(&file).map_err(|error| unreadable(artifact, error))?;
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            return Err(rejected(Code::Perm, "it is no regular file"));
        }
        let (mut from, mut refused) = (0, Vec::new());
        let staged = loop {
            let Some((index, folder)) = self.find(from, &mut refused) else {
                return Err(rejected(Code::Io, &format!("the private copy can't be written: {}", refused.join("; ")))
                    .help("make room on the disk, or choose another folder with --data DIR"));
            };
            match self.copy_to(&folder, &mut file, before, artifact, attempt) {
                Ok(staged) => {
                    self.tell(index, &refused);
                    break staged;
                }
                Err(Failed::Everywhere(error)) => return Err(error),
                Err(Failed::Here(error)) => refused.push(format!("{}: {error}", folder.display())),
            }
            from = index + 1;
        };
        for path in [artifact, &end].into_iter().take(if end == artifact { 1 } else { 2 }) {
            verify(&staged.digest, artifact, &checksum_path(path))?;
        }
        Ok(staged)
    }

    /// Hashes a private copy that an earlier run kept, to be opened where it lies: for where no other can be made. Its name says what it is, nobody
    /// writes it, and a process opens it so at its start and not again.
    ///
    /// # Errors
    ///
    /// `E_IO` if it can't be read.
    pub(crate) fn adopt(&self, kept: &Path) -> Result<Staged> {
        let lost = |error| unreadable(kept, error);
        let mut file = File::open(kept).map_err(lost)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut file).map_err(lost)?;
        let digest = hasher.finalize().to_hex().to_string();
        let code = (self.format.code)(&file).unwrap_or_else(|| digest.clone());
        Ok(Staged { path: kept.to_owned(), digest, code, durable: false, rest: None, is_borrowed: true })
    }

    fn copy_to(&self, folder: &Path, file: &mut File, before: Stamp, artifact: &Path, attempt: u64) -> Result<Staged, Failed> {
        let rejected = |code, reason: &str| Error::rejected(code, Stage::Stage, artifact.display().to_string(), reason);
        let lost = |error| Failed::from(unreadable(artifact, error));
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        // From here on the file goes when this is dropped.
        let draft = folder.join(format!("{attempt}.{number}"));
        let mut staged = Staged {
            path: draft,
            digest: String::new(),
            code: String::new(),
            durable: self.rules.durable,
            rest: None,
            is_borrowed: false,
        };
        let Teed { size, digest, copy, from } = self.tee(file, &staged.path, &lost)?;
        if size > self.rules.limit {
            let error = rejected(Code::Size, &format!("it has more than {} bytes", self.rules.limit));
            return Err(error.help("raise the limit with --artifact-limit, if it has to be that large").into());
        }
        let code = (self.format.code)(file);
        if stamp(file).map_err(lost)? != before {
            let error = rejected(Code::Io, "it changed while it was being copied");
            return Err(error.help("a plugin is best replaced by renaming a whole file over it").into());
        }
        if size == 0 {
            return Err(rejected(Code::Size, "it is empty").into());
        }
        let name = folder.join(format!("{attempt}.{number}-{}.so", &digest[..16]));
        fs::rename(&staged.path, &name).map_err(|error| unwritable(&staged.path, error))?;
        (staged.path, staged.code, staged.digest) = (name, code.unwrap_or_else(|| digest.clone()), digest);
        if from < size {
            let source = file.try_clone().map_err(lost)?;
            staged.rest = Some(Rest { source, copy, from, stamp: before });
        }
        Ok(staged)
    }

    /// Copies until the end or one byte more than allowed, which also ends a file that keeps growing.
    fn tee(&self, from: &mut File, to: &Path, lost: &dyn Fn(io::Error) -> Failed) -> Result<Teed, Failed> {
        let failed = |error| unwritable(to, error);
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o500).open(to).map_err(failed)?;
        let (mut hasher, mut piece, mut size, mut end) = (blake3::Hasher::new(), vec![0; PIECE], 0, u64::MAX);
        // Another folder may have been tried before.
        from.rewind().map_err(lost)?;
        if from.metadata().map_err(lost)?.len() > self.rules.limit {
            // Nothing of it is needed.
            return Ok(Teed { size: u64::MAX, digest: String::new(), copy, from: u64::MAX });
        }
        while size <= self.rules.limit {
            let read = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(error)),
            };
            hasher.update(&piece[..read]);
            if size == 0 && !self.rules.durable {
                end = (self.format.loaded)(&piece[..read]).unwrap_or(u64::MAX);
            }
            let wanted = usize::try_from(end.saturating_sub(size)).unwrap_or(usize::MAX).min(read);
            copy.write_all(&piece[..wanted]).map_err(failed)?;
            size += read as u64;
        }
        // What isn't written yet reads as zeros, and the file has its length.
        copy.set_len(size).map_err(failed)?;
        Ok(Teed { size, digest: hasher.finalize().to_hex().to_string(), copy, from: end.min(size) })
    }

    /// The folders that copies may be in.
    #[must_use]
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        self.places.lock().ready()
    }
}

/// Holds the digest of an artifact against the one that the file at `path` has, if there is one.
fn verify(digest: &str, artifact: &Path, path: &Path) -> Result<()> {
    let rejected = |reason: String| Error::rejected(Code::Hash, Stage::Stage, artifact.display().to_string(), reason);
    let remake = || format!("`b3sum {} > {}` makes it anew, if the artifact is the right one", artifact.display(), path.display());
    match checksum::read(path) {
        Ok(None) => Ok(()),
        Ok(Some(said)) if said == digest || mutation::is(Bug::HashIgnored) => Ok(()),
        Ok(Some(said)) => {
            let reason = format!("its blake3 begins with {}, but {} says {}", &digest[..16], path.display(), &said[..16]);
            let order = "copy both again: the digest first, then the artifact, or both at once by turning a link to their folder";
            Err(rejected(reason).help(format!("{order}; {}", remake())))
        }
        Err(reason) => Err(rejected(format!("the digest beside it, {}, can't be used: {reason}", path.display())).help(remake())),
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

fn unreadable(artifact: &Path, error: io::Error) -> Error {
    let rejected = |code, reason: &str| Error::rejected(code, Stage::Stage, artifact.display().to_string(), reason);
    match error.kind() {
        io::ErrorKind::NotFound => rejected(Code::Io, "there is no such file"),
        io::ErrorKind::PermissionDenied => rejected(Code::Perm, "it can't be read").help("see to the file's permissions"),
        _ => rejected(Code::Io, "it can't be read").caused_by(error),
    }
}

fn unwritable(path: &Path, error: io::Error) -> Failed {
    if is_of_the_place(&error) {
        return Failed::Here(error);
    }
    let error =
        Error::rejected(Code::Io, Stage::Stage, path.display().to_string(), "the private copy can't be written").caused_by(error);
    Failed::from(error.help("make room on the disk, or choose another folder with --data DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { loaded: |_| None, code: |_| None };

    fn rules() -> Rules {
        Rules { limit: 1 << 30, trust: Trust::Readable, durable: false }
    }

    fn open(data: &Path, rules: Rules, format: Format) -> Staging {
        Staging::open(data, rules, format, Bus::default()).expect("a folder")
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).expect("a folder").count()
    }

    #[test]
    fn a_copy_has_an_inode_of_its_own_and_goes_when_nobody_holds_it() {
        let data = tempfile::tempdir().expect("a folder");
        let artifact = data.path().join("libx.so");
        fs::write(&artifact, vec![7; PIECE + 1]).expect("a file");
        let staging = open(data.path(), rules(), FORMAT);
        let copy = || staging.copy(&artifact, 1).expect("a copy");
        let (one, two) = (copy(), copy());
        assert_eq!((one.digest(), one.digest().len()), (two.digest(), 64));
        let inode = |path: &Path| path.metadata().expect("a file").ino();
        assert_ne!(inode(one.path()), inode(two.path()));
        assert_eq!(fs::read(one.path()).expect("a file"), fs::read(&artifact).expect("a file"));
        drop((one, two));
        assert_eq!(files(&data.path().join("staged")), 0);
    }

    #[test]
    fn what_the_loader_doesnt_read_is_hashed_at_once_and_written_when_it_is_completed() {
        let data = tempfile::tempdir().expect("a folder");
        let artifact = data.path().join("libx.so");
        let bytes: Vec<u8> = (0..3 * PIECE).map(|n| (n % 251) as u8).collect();
        fs::write(&artifact, &bytes).expect("a file");
        let format = Format { loaded: |start| Some(start.len() as u64 + 10), ..FORMAT };
        let staging = open(data.path(), rules(), format);
        let copy = || staging.copy(&artifact, 1).expect("a copy");
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
        let staging = open(data.path(), rules(), FORMAT);
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
            let copied = staging.copy(&artifact, 1);
            is_copied.store(true, Ordering::Relaxed);
            copied
        });
        let refused = copied.err().map(|error| (error.code(), error.reason()));
        assert_eq!(refused, Some((Code::Io, "it changed while it was being copied".to_owned())));
        assert_eq!(files(&data.path().join("staged")), 0);
        staging.copy(&artifact, 1).expect("at rest it is taken");
    }

    #[test]
    fn what_is_no_whole_file_is_refused_and_leaves_nothing() {
        let data = tempfile::tempdir().expect("a folder");
        let staging = open(data.path(), rules(), FORMAT);
        let empty = data.path().join("empty.so");
        fs::write(&empty, b"").expect("a file");
        for (artifact, code) in [
            (data.path().join("none.so"), Code::Io),
            (data.path().to_owned(), Code::Perm),
            (PathBuf::from("/dev/zero"), Code::Perm),
            (empty, Code::Size),
        ] {
            let code_of = staging.copy(&artifact, 1).err().map(|error| error.code());
            assert_eq!(code_of, Some(code), "{}", artifact.display());
        }
        assert_eq!(files(&data.path().join("staged")), 0);
    }

    #[test]
    fn what_has_to_last_is_whole_before_it_is_opened() {
        let data = tempfile::tempdir().expect("a folder");
        let artifact = data.path().join("libx.so");
        let bytes = vec![7; 2 * PIECE];
        fs::write(&artifact, &bytes).expect("a file");
        let format = Format { loaded: |_| Some(10), ..FORMAT };
        let staging = open(data.path(), Rules { durable: true, ..rules() }, format);
        let mut copy = staging.copy(&artifact, 1).expect("a copy");
        let path = copy.path().to_owned();
        assert_eq!(fs::read(&path).expect("a file"), bytes);
        copy.complete();
        assert_eq!(fs::read(&path).expect("a file"), bytes);
    }

    fn refusal(staged: Result<Staged>) -> String {
        staged.map_or_else(|error| format!("{} {}", error.code(), error.reason()), |_| "taken".to_owned())
    }

    #[test]
    fn fault_3_what_is_larger_than_allowed_is_refused_and_leaves_nothing() {
        let data = tempfile::tempdir().expect("a folder");
        let artifact = data.path().join("libx.so");
        let staging = open(data.path(), Rules { limit: 1000, ..rules() }, FORMAT);
        for (size, expected) in [(1000, "taken"), (1001, "E_SIZE it has more than 1000 bytes")] {
            fs::write(&artifact, vec![7; size]).expect("a file");
            assert_eq!(refusal(staging.copy(&artifact, 1)), expected);
        }
        assert_eq!(files(&data.path().join("staged")), 0);
        // What says of itself that it is empty, as the system's own files do, is read and measured.
        assert_eq!(refusal(staging.copy(Path::new("/proc/self/smaps"), 1)), "E_SIZE it has more than 1000 bytes");
        assert_eq!(files(&data.path().join("staged")), 0);
    }

    #[test]
    fn the_digest_beside_an_artifact_must_be_its_own() {
        let data = tempfile::tempdir().expect("a folder");
        let (artifact, link) = (data.path().join("libx.so"), data.path().join("link.so"));
        fs::write(&artifact, "x").expect("a file");
        std::os::unix::fs::symlink("libx.so", &link).expect("a link");
        // Where a link leads is known to those who walk it.
        let staging = open(data.path(), Rules { trust: Trust::Strict { owners: Vec::new() }, ..rules() }, FORMAT);
        let digest = blake3::hash(b"x").to_hex().to_string();
        let other = blake3::hash(b"y").to_hex().to_string();
        let check = |beside_which: &Path, said: &str, expected: &str| {
            fs::write(checksum_path(beside_which), said).expect("a file");
            for path in [&artifact, &link] {
                let told = refusal(staging.copy(path, 1)).replace(&format!("{}/", data.path().display()), "");
                let wanted = if *path == artifact && beside_which == link { "taken" } else { expected };
                assert_eq!(told, wanted, "{said}");
            }
            fs::remove_file(checksum_path(beside_which)).expect("a removal");
        };
        let differs = |name: &str| format!("E_HASH its blake3 begins with {}, but {name} says {}", &digest[..16], &other[..16]);
        check(&artifact, &format!("{digest}  libx.so\n"), "taken");
        check(&artifact, &other, &differs("libx.so.blake3"));
        check(&link, &other, &differs("link.so.blake3"));
        let malformed = "E_HASH the digest beside it, libx.so.blake3, can't be used: it doesn't begin with 64 hexadecimal digits, as b3sum \
                         prints them";
        check(&artifact, "", malformed);
        assert_eq!(files(&data.path().join("staged")), 0);
    }

    #[test]
    fn g18_what_others_may_change_is_refused_unless_all_that_can_be_read_is_taken() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().expect("a folder");
        let folder = data.path().join("releases");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("libx.so"), "x").expect("a file");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o775)).expect("a mode");
        let strict = Rules { trust: Trust::Strict { owners: Vec::new() }, ..rules() };
        for (rules, code) in [(strict, Some(Code::Perm)), (rules(), None)] {
            let staging = open(data.path(), rules, FORMAT);
            let refused = staging.copy(&folder.join("libx.so"), 1).err();
            assert_eq!(refused.as_ref().map(Error::code), code);
            let help = refused.as_ref().and_then(Error::help_text);
            assert_eq!(help, code.map(|_| format!("`chmod g-w {}` and reload", folder.display())).as_deref());
        }
    }
}

//! How does what is known become files that a death at any moment leaves whole?
//!
//! A record is replaced whole, by a rename, after its bytes are on the disk: whoever reads it sees the state before a change or after it. It
//! never names bytes that aren't on the disk yet, and no bytes that it names are removed. A file that makes no sense is put aside and told,
//! not guessed at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use parking_lot::Mutex;

use super::record::RecoveryRecord;
use crate::live::generation::Generation;
use crate::report::error::{Code, Error, Result, Stage};
use crate::sys::durable;

/// The folders of a host's records and of the bytes that they name.
pub(super) struct Files {
    records: PathBuf,
    copies: PathBuf,
    /// Copies whose bytes are known to be right.
    verified: Mutex<BTreeSet<PathBuf>>,
    /// Whether the name of the data folder itself is on the disk.
    is_named: Once,
}

/// What came of writing a record.
pub(super) struct Written {
    /// What the disk has now.
    pub(super) on_disk: RecoveryRecord,
    /// Why that isn't all that was to be written.
    pub(super) failed: Option<Unwritten>,
}

/// Why something isn't on the disk.
#[derive(Clone)]
pub(super) struct Unwritten {
    stage: Stage,
    path: PathBuf,
    reason: String,
    cause: String,
    help: &'static str,
}

impl Unwritten {
    /// For who can't go on without.
    #[must_use]
    pub(super) fn error(&self) -> Error {
        let error = Error::rejected(Code::Io, self.stage, self.path.display().to_string(), self.reason.as_str());
        error.caused_by(self.cause.as_str()).help(self.help)
    }
}

impl std::fmt::Display for Unwritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, reason, cause, help, .. } = self;
        write!(f, "{}: {reason}: {cause}; {help}", path.display())
    }
}

impl Files {
    /// Reads what there is, by plugin; and what was put aside as damaged, in words.
    ///
    /// # Errors
    ///
    /// `E_IO` if what is there can't be read.
    pub(super) fn open(data: &Path) -> Result<(Self, BTreeMap<String, RecoveryRecord>, Vec<String>)> {
        let (folder, copies) = (data.join("marks"), data.join("committed"));
        let failed = |error: io::Error| {
            Error::fatal(Code::Io, folder.display().to_string(), "what earlier runs left can't be read")
                .caused_by(error)
                .help("choose another folder with --data DIR")
        };
        let (mut records, mut damaged) = (BTreeMap::new(), Vec::new());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>().map_err(failed)?,
            // It is made when there is something to write.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let path = entry.path();
            let Some(plugin) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json").map(str::to_owned)) else {
                continue;
            };
            match RecoveryRecord::parse(&fs::read(&path).map_err(failed)?) {
                Ok(record) => drop(records.insert(plugin, record)),
                Err(reason) => {
                    let aside = path.with_extension("damaged");
                    let put = if fs::rename(&path, &aside).is_ok() {
                        format!("put aside as {}", aside.display())
                    } else {
                        "ignored".into()
                    };
                    damaged.push(format!(
                        "{} makes no sense ({reason}) and is {put}: what was committed or held of {plugin} is unknown",
                        path.display()
                    ));
                }
            }
        }
        Ok((Self { records: folder, copies, verified: Mutex::default(), is_named: Once::new() }, records, damaged))
    }

    /// Where the bytes of a plugin lie that can be started again.
    #[must_use]
    pub(super) fn copy_of(&self, plugin: &str, digest: &str) -> PathBuf {
        self.copies.join(format!("{plugin}-{digest}.so"))
    }

    /// Where what is known of a plugin lies.
    #[must_use]
    pub(super) fn record_of(&self, plugin: &str) -> PathBuf {
        self.records.join(format!("{plugin}.json"))
    }

    /// Brings the disk from `before` to `record`: first the bytes that it names, then the record, last what it doesn't name any more goes. If
    /// bytes can't be kept, the record goes on naming those of before.
    pub(super) fn write(
        &self,
        plugin: &str,
        record: &RecoveryRecord,
        before: &RecoveryRecord,
        sources: &BTreeMap<String, Arc<Generation>>,
    ) -> Written {
        self.is_named.call_once(|| durable::sync_above(&self.records));
        let (mut next, mut failed) = (record.clone(), None);
        let mut kept = |wanted: &mut Option<String>, before: &Option<String>| {
            let Some(digest) = wanted.as_deref() else { return };
            let file = sources.get(digest).map(|generation| generation.file());
            if let Err(why) = self.keep(plugin, digest, file) {
                failed = Some(Unwritten {
                    stage: Stage::Probation,
                    path: self.copy_of(plugin, digest),
                    reason: format!("the bytes of {plugin} that a next start would begin with can't be kept"),
                    cause: why.to_string(),
                    help: "make room on the disk: it is tried again; until then a next start begins with what was committed before",
                });
                wanted.clone_from(before);
            }
        };
        kept(&mut next.committed, &before.committed);
        kept(&mut next.fallback, &before.fallback);
        if next != *before
            && let Err(why) = self.replace(plugin, &next)
        {
            let failed = Unwritten {
                stage: Stage::Publish,
                path: self.records.clone(),
                reason: format!("what is known of {plugin} can't be written"),
                cause: why.to_string(),
                help: "make room on the disk, or choose another folder with --data DIR",
            };
            return Written { on_disk: before.clone(), failed: Some(failed) };
        }
        if failed.is_none() {
            self.tidy(plugin, &next);
        }
        Written { on_disk: next, failed }
    }

    /// Sees to it that these bytes lie there, whole and on the disk.
    fn keep(&self, plugin: &str, digest: &str, file: Option<&Path>) -> io::Result<()> {
        let copy = self.copy_of(plugin, digest);
        if self.verified.lock().contains(&copy) {
            return Ok(());
        }
        let is_right = |path: &Path| Ok::<_, io::Error>(digest_of(path)? == digest);
        let Some(file) = file else {
            // An earlier run kept them, and whoever starts them looks at them.
            return Ok(());
        };
        if !is_right(&copy).unwrap_or_default() {
            durable::create_dir_all(&self.copies)?;
            // Under its final name only what is whole. Nobody writes a private copy any more; its name may go while this one stays.
            let draft = copy.with_extension("new");
            let _ = fs::remove_file(&draft);
            fs::hard_link(file, &draft).or_else(|_| fs::copy(file, &draft).map(drop))?;
            File::open(&draft)?.sync_all()?;
            if !is_right(&draft)? {
                let _ = fs::remove_file(&draft);
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} isn't what was hashed any more", file.display()),
                ));
            }
            fs::rename(&draft, &copy)?;
            durable::sync(&self.copies)?;
        }
        self.verified.lock().insert(copy);
        Ok(())
    }

    /// Replaces a plugin's file by a whole new one that is on the disk before it has its name.
    fn replace(&self, plugin: &str, record: &RecoveryRecord) -> io::Result<()> {
        durable::create_dir_all(&self.records)?;
        let draft = self.records.join(format!("{plugin}.new"));
        let mut file = File::create(&draft)?;
        file.write_all(&record.text()?)?;
        file.sync_all()?;
        fs::rename(&draft, self.record_of(plugin))?;
        durable::sync(&self.records)
    }

    /// Removes the bytes of a plugin that its record doesn't name.
    fn tidy(&self, plugin: &str, record: &RecoveryRecord) {
        let named: Vec<PathBuf> =
            [&record.committed, &record.fallback].into_iter().flatten().map(|digest| self.copy_of(plugin, digest)).collect();
        // A copy that stays costs disk, nothing else.
        for entry in fs::read_dir(&self.copies).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let stem = name.strip_suffix(".so").or_else(|| name.strip_suffix(".new"));
            let is_theirs = stem.and_then(|name| name.rsplit_once('-')).is_some_and(|(of, _)| of == plugin);
            if is_theirs && !named.contains(&entry.path()) {
                let _ = fs::remove_file(entry.path());
                self.verified.lock().remove(&entry.path());
            }
        }
    }
}

/// blake3 of a file's bytes, in hex.
fn digest_of(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

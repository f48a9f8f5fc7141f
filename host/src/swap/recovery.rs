//! What must a host know that was killed and starts again?
//!
//! For each plugin one small file: which bytes were committed last, which are on trial, how often the host died with them, and which are
//! held back. It is replaced whole, by a rename, after its bytes are on the disk, so that whoever reads it sees the state before a change or
//! after it. The committed bytes themselves lie beside it, since the artifact at its path may be newer, broken or gone.
//!
//! A file that makes no sense is put aside and told, not guessed at.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::mutation::{self, Bug};
use crate::report::error::{Code, Error, Result, Stage};
use crate::report::hold::{Held, HoldReason};

/// After so many deaths in a row even what was committed isn't started again.
const DEATHS: u32 = 3;
/// ... if so many of them are its own.
const OWN_DEATHS: u32 = 2;

/// What is known of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecoveryRecord {
    /// The artifact's path as the operator gave it: another run may serve others.
    #[serde(default, with = "any_path")]
    pub source: PathBuf,
    /// blake3 of the bytes that were committed last, in hex.
    #[serde(default)]
    pub committed: Option<String>,
    /// blake3 of the bytes that serve and aren't committed, or not in this run.
    #[serde(default)]
    pub pending: Option<String>,
    /// How often in a row the host died while something was pending.
    #[serde(default)]
    pub deaths: u32,
    /// How often of these with what was committed, or with the very first bytes.
    #[serde(default)]
    pub own_deaths: u32,
    /// What is held.
    #[serde(default)]
    pub held: Vec<Held>,
}

/// A path as text where it is text, else as its bytes: file names needn't be UTF-8.
mod any_path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(PathBuf),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(to),
            None => path.as_os_str().as_bytes().serialize(to),
        }
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(match Written::deserialize(from)? {
            Written::Text(path) => path,
            Written::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

/// What an earlier run's death means for a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// The bytes that served then.
    pub digest: String,
    /// How many times in a row.
    pub deaths: u32,
    /// Whether these bytes are held from now on.
    pub is_held: bool,
}

impl RecoveryRecord {
    /// Reads a file's content.
    ///
    /// # Errors
    ///
    /// What makes no sense.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let json: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mark: Self = serde_json::from_value(json.into()).map_err(|error| error.to_string())?;
        let is_digest =
            |digest: &String| digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut digests = mark.committed.iter().chain(&mark.pending).chain(mark.held.iter().map(|held| &held.digest));
        match digests.find(|digest| !is_digest(digest)) {
            Some(digest) => Err(format!("{digest:?} is no digest")),
            None => Ok(mark),
        }
    }

    /// What [`parse`](Self::parse) reads.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub(crate) fn text(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Why these bytes are held, if they are.
    #[must_use]
    pub(crate) fn held(&self, digest: &str) -> Option<&Held> {
        self.held.iter().find(|held| held.digest == digest)
    }

    /// Holds these bytes.
    pub(crate) fn hold(&mut self, held: Held) {
        self.held.retain(|earlier| earlier.digest != held.digest);
        self.held.push(held);
    }

    /// Nothing is on trial any more, and no death counts.
    fn ends_well(&mut self) {
        (self.pending, self.deaths, self.own_deaths) = (None, 0, 0);
    }

    /// Takes into account that the last run didn't end as it should, if something was pending then.
    ///
    /// What was on trial is quarantined, if there is something else to start. What was committed is tried again, and so is the very first
    /// artifact; but not for ever. Deaths on trial say little of it: two at least have to be its own.
    pub(crate) fn after_death(&mut self) -> Option<Death> {
        let digest = self.pending.take()?;
        self.deaths = self.deaths.saturating_add(1);
        let on_trial = self.committed.as_ref().is_some_and(|committed| *committed != digest);
        self.own_deaths = self.own_deaths.saturating_add(u32::from(!on_trial));
        let is_hopeless = self.deaths >= DEATHS && self.own_deaths >= OWN_DEATHS;
        let is_held = (on_trial || is_hopeless) && !mutation::is(Bug::QuarantineForgotten);
        if is_held {
            let reason = if on_trial {
                "the host died while they were on trial".to_owned()
            } else {
                format!("the host died {} times in a row, {} of them with these", self.deaths, self.own_deaths)
            };
            self.hold(Held { digest: digest.clone(), by: HoldReason::Crash, reason });
        }
        Some(Death { digest, deaths: self.deaths, is_held })
    }
}

/// The records of all plugins, on disk.
pub(crate) struct Recovery {
    folder: PathBuf,
    committed: PathBuf,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    records: BTreeMap<String, RecoveryRecord>,
    /// The host ends in good order: nothing that happens now is a trial.
    closed: bool,
}

impl Recovery {
    /// Reads what there is; what was put aside as damaged, in words.
    ///
    /// # Errors
    ///
    /// `E_IO` if the folders can't be made or read.
    pub(crate) fn open(data: &Path) -> Result<(Self, Vec<String>)> {
        let (folder, committed) = (data.join("marks"), data.join("committed"));
        let failed = |error: io::Error| {
            Error::fatal(Code::Io, folder.display().to_string(), "what earlier runs left can't be read")
                .caused_by(error)
                .help("choose another folder with --data DIR")
        };
        fs::create_dir_all(&folder).and_then(|()| fs::create_dir_all(&committed)).map_err(failed)?;
        let (mut marks, mut damaged) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(plugin) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json").map(str::to_owned)) else {
                continue;
            };
            match RecoveryRecord::parse(&fs::read(&path).map_err(failed)?) {
                Ok(mark) => drop(marks.insert(plugin, mark)),
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
        let all = Mutex::new(All { records: marks, closed: false });
        Ok((Self { folder, committed, all }, damaged))
    }

    /// What is known of a plugin.
    #[must_use]
    pub(crate) fn of(&self, plugin: &str) -> RecoveryRecord {
        self.all.lock().records.get(plugin).cloned().unwrap_or_default()
    }

    /// All that is known.
    #[must_use]
    pub(crate) fn all(&self) -> BTreeMap<String, RecoveryRecord> {
        self.all.lock().records.clone()
    }

    /// Changes what is known of a plugin, here and on disk. A change that changes nothing writes nothing.
    ///
    /// # Errors
    ///
    /// `E_IO` if it can't be written; nothing is changed then.
    pub(crate) fn change(&self, plugin: &str, change: impl FnOnce(&mut RecoveryRecord)) -> Result<()> {
        let mut all = self.all.lock();
        let before = all.records.get(plugin).cloned().unwrap_or_default();
        let mut mark = before.clone();
        change(&mut mark);
        if all.closed {
            mark.pending = None;
        }
        if mark == before {
            return Ok(());
        }
        write(&self.folder, plugin, &mark).map_err(|error| {
            Error::rejected(
                Code::Io,
                Stage::Publish,
                self.folder.display().to_string(),
                format!("what is known of {plugin} can't be written"),
            )
            .caused_by(error)
            .help("make room on the disk, or choose another folder with --data DIR")
        })?;
        all.records.insert(plugin.to_owned(), mark);
        Ok(())
    }

    /// The host ends in good order: what is pending isn't to blame for that.
    ///
    /// # Errors
    ///
    /// The first plugin's that can't be written.
    pub(crate) fn close(&self) -> Result<()> {
        self.all.lock().closed = true;
        let mut pending = self.all().into_iter().filter(|(_, mark)| mark.pending.is_some() || mark.deaths > 0);
        pending.try_for_each(|(plugin, _)| self.change(&plugin, RecoveryRecord::ends_well))
    }

    /// Where the committed bytes of a plugin lie.
    #[must_use]
    pub(crate) fn copy_of(&self, plugin: &str, digest: &str) -> PathBuf {
        self.committed.join(format!("{plugin}-{digest}.so"))
    }

    /// Keeps the bytes of the private copy at `staged` as committed, and lets those go that were before.
    ///
    /// # Errors
    ///
    /// `E_IO`; what was committed before stays so.
    pub(crate) fn commit(&self, plugin: &str, digest: &str, staged: &Path) -> Result<()> {
        if mutation::is(Bug::CommitUnwritten) {
            return Ok(());
        }
        let copy = self.copy_of(plugin, digest);
        let failed = |error: io::Error| {
            Error::rejected(
                Code::Io,
                Stage::Probation,
                copy.display().to_string(),
                format!("the committed bytes of {plugin} can't be kept"),
            )
            .caused_by(error)
            .help("after a crash the host starts with what was committed before")
        };
        if !copy.exists() {
            // Nobody writes a private copy any more; its name may go while this one stays.
            fs::hard_link(staged, &copy).or_else(|_| fs::copy(staged, &copy).map(drop)).map_err(failed)?;
            File::open(&copy).and_then(|file| file.sync_all()).map_err(failed)?;
            sync(&self.committed).map_err(failed)?;
        }
        self.change(plugin, |mark| {
            mark.committed = Some(digest.to_owned());
            mark.ends_well();
        })?;
        for entry in fs::read_dir(&self.committed).map_err(failed)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_theirs = name.strip_suffix(".so").and_then(|name| name.rsplit_once('-')).is_some_and(|(of, _)| of == plugin);
            if is_theirs && entry.path() != copy {
                // A copy that stays costs disk, nothing else.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Replaces a plugin's file by a whole new one that is on the disk before it has its name.
fn write(folder: &Path, plugin: &str, mark: &RecoveryRecord) -> io::Result<()> {
    let (path, draft) = (folder.join(format!("{plugin}.json")), folder.join(format!("{plugin}.new")));
    let mut file = File::create(&draft)?;
    file.write_all(&mark.text()?)?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    sync(folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> String {
        letter.to_string().repeat(64)
    }

    fn pending(mark: &mut RecoveryRecord, letter: char) {
        mark.pending = Some(digest(letter));
    }

    #[test]
    fn fault_21_g11_what_was_on_trial_when_the_host_died_is_quarantined() {
        let mut mark = RecoveryRecord { committed: Some(digest('a')), ..RecoveryRecord::default() };
        pending(&mut mark, 'b');
        assert_eq!(mark.after_death(), Some(Death { digest: digest('b'), deaths: 1, is_held: true }));
        assert_eq!(mark.held(&digest('b')).map(|held| held.by), Some(HoldReason::Crash));
        assert_eq!((mark.after_death(), mark.held(&digest('a'))), (None, None), "one death counts once");
    }

    #[test]
    fn fault_22_three_deaths_in_a_row_hold_what_was_committed_too() {
        let mut mark = RecoveryRecord { committed: Some(digest('a')), ..RecoveryRecord::default() };
        for (letter, is_held) in [('b', true), ('a', false), ('a', true)] {
            pending(&mut mark, letter);
            assert_eq!(mark.after_death().map(|death| death.is_held), Some(is_held), "{letter}");
        }
        // Others' deaths don't make up for its own.
        let mut mark = RecoveryRecord { committed: Some(digest('a')), ..RecoveryRecord::default() };
        for (letter, is_held) in [('b', true), ('c', true), ('b', true), ('a', false), ('a', true)] {
            pending(&mut mark, letter);
            assert_eq!(mark.after_death().map(|death| death.is_held), Some(is_held), "{letter}");
        }
        let held = mark.held(&digest('a')).map(|held| held.reason.as_str());
        assert_eq!(held, Some("the host died 5 times in a row, 2 of them with these"));
        // The very first artifact has nothing before it, and gets three tries too.
        let mut first = RecoveryRecord::default();
        for is_held in [false, false, true] {
            pending(&mut first, 'a');
            assert_eq!(first.after_death().map(|death| death.is_held), Some(is_held));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes a hard link, which Miri can't")]
    fn g20_what_is_known_survives_and_an_end_in_good_order_blames_nobody() {
        let data = tempfile::tempdir().expect("a folder");
        let open = || Recovery::open(data.path()).expect("marks");
        let (marks, damaged) = open();
        assert!(damaged.is_empty());
        let staged = data.path().join("staged.so");
        fs::write(&staged, "code").expect("a file");
        marks.change("shop", |mark| pending(mark, 'a')).expect("written");
        marks.commit("shop", &digest('a'), &staged).expect("committed");
        fs::remove_file(&staged).expect("the copy goes");
        marks.change("shop", |mark| pending(mark, 'b')).expect("written");
        let again = open().0.of("shop");
        assert_eq!((again.committed, again.pending), (Some(digest('a')), Some(digest('b'))));
        assert_eq!(fs::read(marks.copy_of("shop", &digest('a'))).expect("a file"), b"code");
        marks.close().expect("written");
        marks.change("shop", |mark| pending(mark, 'c')).expect("written");
        assert_eq!(open().0.of("shop"), RecoveryRecord { committed: Some(digest('a')), ..RecoveryRecord::default() });
        fs::write(&staged, "newer").expect("a file");
        marks.commit("shop", &digest('c'), &staged).expect("committed");
        assert_eq!(fs::read_dir(data.path().join("committed")).expect("a folder").count(), 1, "the one before is gone");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_put_aside_and_told() {
        let data = tempfile::tempdir().expect("a folder");
        let file = data.path().join("marks/shop.json");
        for damage in ["", "{", "[]", "{\"committed\":\"../../etc\"}", "{\"deaths\":-1}", "{\"what\":1}"] {
            fs::create_dir_all(data.path().join("marks")).expect("a folder");
            fs::write(&file, damage).expect("a file");
            let (marks, damaged) = Recovery::open(data.path()).expect("marks");
            assert_eq!((damaged.len(), marks.of("shop")), (1, RecoveryRecord::default()), "{damage:?}");
            assert!(damaged[0].contains("shop.json makes no sense") && !file.exists(), "{damaged:?}");
        }
        let kept = fs::read_to_string(file.with_extension("damaged")).expect("it is kept");
        assert_eq!(kept, "{\"what\":1}");
    }

    #[test]
    fn an_artifact_may_have_any_name() {
        use std::os::unix::ffi::OsStrExt;
        let data = tempfile::tempdir().expect("a folder");
        for name in [&b"/srv/libsh\xffp.so"[..], b"/srv/libshop.so", b""] {
            let source = PathBuf::from(std::ffi::OsStr::from_bytes(name));
            let (marks, _) = Recovery::open(data.path()).expect("marks");
            marks.change("shop", |mark| mark.source.clone_from(&source)).expect("written");
            let (marks, damaged) = Recovery::open(data.path()).expect("marks");
            assert_eq!((marks.of("shop").source, damaged.len()), (source, 0));
        }
    }

    #[test]
    fn what_cannot_be_written_changes_nothing() {
        let data = tempfile::tempdir().expect("a folder");
        let (marks, _) = Recovery::open(data.path()).expect("marks");
        marks.change("shop", |mark| pending(mark, 'a')).expect("written");
        fs::remove_dir_all(data.path().join("marks")).expect("the folder goes");
        let error = marks.change("shop", |mark| pending(mark, 'b')).expect_err("there is no folder");
        assert_eq!((error.code(), marks.of("shop").pending), (Code::Io, Some(digest('a'))));
    }
}

//! Which plugins are there already?
//!
//! All plugins that no test edits are examples of the package in `tests/plugins`, and one cargo call builds them. What one of them is called
//! and which of its variants it is are written into a copy of the artifact. A test that is about building and editing makes a
//! [`Project`](crate::project::Project) and takes the same [`source`].

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{cargo, project, repository};

/// The artifact of a plugin, by its bytes.
#[derive(Clone)]
pub struct Fixture {
    name: String,
    bytes: Vec<u8>,
}

/// The plugin of `tests/plugins/NAME.rs`, which calls itself `NAME`.
///
/// # Panics
///
/// If there is none, or it doesn't build.
#[must_use]
#[track_caller]
pub fn artifact(name: &str) -> Fixture {
    let built = cargo::examples();
    let path = built.get(name).unwrap_or_else(|| panic!("there is no plugin {name} in tests/plugins, only {:?}", built.keys()));
    let fixture = Fixture { name: String::new(), bytes: fs::read(path).expect("it was built") };
    // What is no plugin has no name.
    if find(&fixture.bytes, NOTE).is_empty() { fixture } else { fixture.named(name) }
}

/// The same as several variants, in their order.
#[must_use]
#[track_caller]
pub fn artifacts<const N: usize>(name: &str, plugin: &str, variants: [&str; N]) -> [Vec<u8>; N] {
    let fixture = artifact(name).named(plugin);
    variants.map(|variant| fixture.clone().variant(variant).bytes())
}

/// The source of a plugin, as this variant, for a project that is built by a test.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn source(name: &str, variant: &str) -> String {
    let written = format!("fn variant() -> &'static str {{ {variant:?} }}\n");
    let source = repository::read(&format!("tests/plugins/{name}.rs"));
    source.replace("use midair_fixtures::variant;\n", &written).replace("midair_fixtures::variant()", &format!("{variant:?}"))
}

/// The begin of a manifest's note: its owner and its first line's key.
const NOTE: &[u8] = b"midair\0\0abi=";
/// What stands between the owner and the end of the note.
const TEXT: usize = 512;
const MARK: &[u8] = b"midair-variant:";
const VARIANT: usize = 256 - MARK.len();

impl Fixture {
    /// Called so.
    ///
    /// # Panics
    ///
    /// If the name is too long.
    #[must_use]
    #[track_caller]
    pub fn named(self, plugin: &str) -> Self {
        Self { name: plugin.to_owned(), ..self }.manifest("name", plugin)
    }

    /// With another value of a key of its manifest.
    ///
    /// # Panics
    ///
    /// If it has no such key, or the manifest gets too long.
    #[must_use]
    #[track_caller]
    pub fn manifest(mut self, key: &str, value: &str) -> Self {
        let text = only(&self.bytes, NOTE) + b"midair\0\0".len();
        let note = &mut self.bytes[text..text + TEXT];
        let said = String::from_utf8(note.to_vec()).expect("a manifest is text");
        let of_key = |line: &&str| line.split_once('=').is_some_and(|(name, _)| name == key);
        let line = said.lines().find(of_key).unwrap_or_else(|| panic!("there is no {key} in {said:?}"));
        let said = said.trim_end_matches('\0').replacen(&format!("{line}\n"), &format!("{key}={value}\n"), 1);
        fill(note, said.as_bytes());
        self
    }

    /// With other bytes of the same length in the only place of `from`.
    ///
    /// # Panics
    ///
    /// If it has no such place or several.
    #[must_use]
    #[track_caller]
    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert_eq!(from.len(), to.len(), "{to:?} takes the place of {from:?}");
        let at = only(&self.bytes, from.as_bytes());
        self.bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        self
    }

    /// As this variant.
    ///
    /// # Panics
    ///
    /// If it has no variants, or the text is too long.
    #[must_use]
    #[track_caller]
    pub fn variant(mut self, variant: &str) -> Self {
        let slot = only(&self.bytes, MARK) + MARK.len();
        fill(&mut self.bytes[slot..slot + VARIANT], variant.as_bytes());
        self
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Saves it under the name that cargo would give it, in a folder that lasts as long as what is returned.
    ///
    /// # Panics
    ///
    /// If it can't be written.
    #[must_use]
    #[track_caller]
    pub fn placed(&self) -> Placed {
        let folder = tempfile::tempdir().expect("a folder");
        let path = self.save_in(folder.path());
        Placed { folder, path }
    }

    /// Saves it in this folder, under the name that cargo would give it; its path.
    ///
    /// # Panics
    ///
    /// If it can't be written.
    #[track_caller]
    pub fn save_in(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("lib{}.so", self.name.replace('-', "_")));
        project::save(&path, &self.bytes);
        path
    }
}

/// An artifact in a folder of its own.
pub struct Placed {
    folder: TempDir,
    /// The artifact.
    pub path: PathBuf,
}

impl Placed {
    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Writes `text`, and zeros behind it.
#[track_caller]
fn fill(room: &mut [u8], text: &[u8]) {
    assert!(text.len() < room.len(), "there is room for {} bytes less one, and not for {}", room.len(), text.len());
    room.fill(0);
    room[..text.len()].copy_from_slice(text);
}

/// All places of `what`.
fn find(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    let first = what[0];
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first).map(|(at, _)| at);
    starts.filter(|at| bytes[*at..].starts_with(what)).collect()
}

/// The only place of `what`.
#[track_caller]
fn only(bytes: &[u8], what: &[u8]) -> usize {
    let found = find(bytes, what);
    assert_eq!(found.len(), 1, "{:?} is expected once", String::from_utf8_lossy(what));
    found[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_fills_its_room_and_no_more() {
        let bytes = [&b"..midair-variant:"[..], &[7; VARIANT], b".."].concat();
        let written = Fixture { name: String::new(), bytes }.variant("one").bytes();
        assert_eq!(written, [&b"..midair-variant:one"[..], &[0; VARIANT - 3], b".."].concat());
    }

    #[test]
    fn a_name_is_put_among_the_other_lines() {
        let mut bytes = [&b"..midair\0\0abi=1\nname=a\nversion=2\n"[..], &[0; TEXT], b".."].concat();
        let bytes = Fixture { name: String::new(), bytes: std::mem::take(&mut bytes) }.named("longer").bytes();
        assert!(bytes.starts_with(b"..midair\0\0abi=1\nname=longer\nversion=2\n\0"));
        assert!(bytes.ends_with(b".."));
    }
}

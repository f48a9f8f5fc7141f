//! What does an artifact say about itself before any of its code runs?
//!
//! A note in the section `.note.midair`: lines of `key=value`. Being a note it has a program header, so it is found in a stripped library
//! too. The host reads it from the file; [`Manifest::parse`] turns the text into fields. Behind it lies the note of the
//! [`constants`].

use crate::constants;

/// Where this package's own sources lie as it is compiled: what lies there isn't the plugin's.
pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");

/// The owner's name in the note.
pub const NOTE_OWNER: &[u8] = b"midair";
/// The note's type.
pub const NOTE_TYPE: u32 = 1;

/// What hosts of this version of the border do that older ones may not; a plugin lists in its manifest what it can't do without.
///
/// What is appended to the border gets a name here, so that a plugin that needs it is refused by a host that lacks it.
pub const FEATURES: &[&str] = &["config", "jobs", "logs", "messages", "services", "sockets", "streams", "tables", "tasks"];

const CAPACITY: usize = 512;
/// The version of this package, which is that of the border.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The compiler of this build, as `rustc --version` prints it.
const RUSTC: &str = env!("MIDAIR_RUSTC");
/// The target triple of this build.
pub const TARGET: &str = env!("MIDAIR_TARGET");
/// What panics do in this build; one strategy for all crates of a cdylib.
const PANIC: &str = if cfg!(panic = "unwind") { "unwind" } else { "abort" };

/// A note with this much text.
#[repr(C, align(4))]
struct Entry<const N: usize> {
    owner_size: u32,
    text_size: u32,
    kind: u32,
    owner: [u8; 8],
    text: [u8; N],
}

impl<const N: usize> Entry<N> {
    const fn new(kind: u32, text: [u8; N]) -> Self {
        const { assert!(N.is_multiple_of(4), "the next note follows at once") };
        // The owner's size counts its final zero, as notes have it.
        Self { owner_size: 7, text_size: N as u32, kind, owner: *b"midair\0\0", text }
    }
}

/// The notes as they lie in the file, one behind the other.
#[repr(C)]
pub struct Note {
    manifest: Entry<CAPACITY>,
    _constants: Entry<{ constants::SIZE }>,
}

impl Note {
    /// The notes of a plugin: the name and version of its package, the version of the library that it is written with, and what it can't do
    /// without of [`FEATURES`].
    ///
    /// # Panics
    ///
    /// At compile time, if the texts are longer than a note holds, or a feature has no such name.
    #[must_use]
    pub const fn new(name: &str, version: &str, api: &str, requires: &[&str]) -> Self {
        const { assert!(crate::ABI_VERSION == 1, "the line below says so") };
        let lines = [
            "abi=1\nname=",
            name,
            "\nversion=",
            version,
            "\napi=",
            api,
            "\nborder=",
            VERSION,
            "\nrustc=",
            RUSTC,
            "\ntarget=",
            TARGET,
            "\npanic=",
            PANIC,
            "\nrequires=",
        ];
        let mut text = [0; CAPACITY];
        let (mut at, mut next) = (0, 0);
        while next < lines.len() {
            at = put(&mut text, at, lines[next].as_bytes());
            next += 1;
        }
        next = 0;
        while next < requires.len() {
            assert!(is_feature(requires[next]), "a plugin requires what is in `midair_abi::manifest::FEATURES`");
            at = put(&mut text, at, if next > 0 { b"," } else { b"" });
            at = put(&mut text, at, requires[next].as_bytes());
            next += 1;
        }
        put(&mut text, at, b"\n");
        Self { manifest: Entry::new(NOTE_TYPE, text), _constants: Entry::new(constants::NOTE_TYPE, constants::TEXT) }
    }

    /// The manifest's text, padded with zeros.
    #[must_use]
    pub const fn text(&self) -> &[u8] {
        &self.manifest.text
    }
}

const fn put(text: &mut [u8; CAPACITY], at: usize, bytes: &[u8]) -> usize {
    let mut byte = 0;
    while byte < bytes.len() {
        assert!(at + byte < CAPACITY, "the package's name and version are too long for a plugin");
        text[at + byte] = bytes[byte];
        byte += 1;
    }
    at + bytes.len()
}

const fn is_feature(name: &str) -> bool {
    let mut next = 0;
    while next < FEATURES.len() {
        if is_same(FEATURES[next].as_bytes(), name.as_bytes()) {
            return true;
        }
        next += 1;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut byte = 0;
    while byte < one.len() && byte < other.len() && one[byte] == other[byte] {
        byte += 1;
    }
    byte == one.len() && byte == other.len()
}

/// What a plugin says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The version of the border that it was built for.
    pub abi: u32,
    /// The package's name.
    pub name: String,
    /// The package's version.
    pub version: String,
    /// The version of midair-plugin.
    pub api: String,
    /// The version of midair-abi; empty if it doesn't say.
    pub border: String,
    /// The compiler, as `rustc --version` prints it.
    pub rustc: String,
    /// The target triple.
    pub target: String,
    /// What panics do: `unwind` or `abort`.
    pub panic: String,
    /// What it can't do without of what hosts do.
    pub requires: Vec<String>,
}

impl Manifest {
    /// Reads a note's text. Keys that it doesn't know are passed over, so that later versions can add some.
    ///
    /// # Errors
    ///
    /// What is missing or malformed, in a few words.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "the manifest isn't UTF-8".to_owned())?;
        let lines = || text.trim_end_matches('\0').lines().filter_map(|line| line.split_once('='));
        let field = |key| lines().find(|(name, _)| *name == key).map(|(_, value)| value.to_owned());
        let needed = |key| field(key).ok_or_else(|| format!("the manifest has no `{key}`"));
        let abi = needed("abi")?;
        let name = needed("name")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("the manifest's name {name:?} isn't that of a package"));
        }
        Ok(Self {
            abi: abi.parse().map_err(|_| format!("the manifest's ABI version {abi:?} is no number"))?,
            name,
            version: needed("version")?,
            api: needed("api")?,
            rustc: needed("rustc")?,
            target: needed("target")?,
            panic: needed("panic")?,
            border: field("border").unwrap_or_default(),
            requires: names(&field("requires").unwrap_or_default()),
        })
    }
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_note_says_is_read_back() {
        const NOTE: Note = Note::new("shop", "1.2.3", "0.4.0", &["sockets", "jobs"]);
        let texts = ["shop", "1.2.3", "0.4.0", VERSION, RUSTC, TARGET, PANIC];
        let [name, version, api, border, rustc, target, panic] = texts.map(str::to_owned);
        let requires = ["sockets", "jobs"].map(str::to_owned).to_vec();
        let manifest = Manifest { abi: crate::ABI_VERSION, name, version, api, border, rustc, target, panic, requires };
        assert_eq!(Manifest::parse(NOTE.text()), Ok(manifest));
        assert_eq!(constants::compare(&NOTE._constants.text), Ok(()));
    }

    #[test]
    fn a_plugin_that_says_nothing_of_it_requires_nothing() {
        const NOTE: Note = Note::new("shop", "1.2.3", "0.4.0", &[]);
        assert_eq!(Manifest::parse(NOTE.text()).expect("a manifest").requires, Vec::<String>::new());
        let older = Manifest::parse(b"abi=1\nname=a\nversion=1\napi=1\nrustc=1\ntarget=t\npanic=unwind\n").expect("a manifest");
        assert_eq!((older.border.as_str(), older.requires.len()), ("", 0));
        let odd = b"abi=1\nname=a\nversion=1\napi=1\nrustc=1\ntarget=t\npanic=unwind\nrequires=, jobs,,new one ,\n";
        assert_eq!(Manifest::parse(odd).expect("a manifest").requires, ["jobs", "new one"]);
    }

    #[test]
    fn only_what_is_a_feature_is_required() {
        assert_eq!(["jobs", "job", "jobss", ""].map(is_feature), [true, false, false, false]);
        assert!(FEATURES.iter().all(|name| is_feature(name) && !name.contains([',', ' ', '\n'])));
    }

    #[test]
    fn a_manifest_that_makes_no_sense_is_told() {
        let cases = [
            (&b"\xff"[..], "the manifest isn't UTF-8"),
            (b"", "the manifest has no `abi`"),
            (b"abi=one\nname=a\n", "the manifest's ABI version \"one\" is no number"),
            (b"abi=1\nname=../x\n", "the manifest's name \"../x\" isn't that of a package"),
            (b"abi=1\nname=a\n", "the manifest has no `version`"),
        ];
        for (text, reason) in cases {
            assert_eq!(Manifest::parse(text).expect_err("it is refused"), reason);
        }
    }
}

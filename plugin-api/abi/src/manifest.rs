//! What does an artifact say about itself before any of its code runs?
//!
//! A note in the section `.note.midair`: lines of `key=value`. Being a note it has a program header, so it is found in a stripped library
//! too. The host reads it from the file; [`Manifest::parse`] turns the text into fields.

/// Where this package's own sources lie as it is compiled: what lies there isn't the plugin's.
pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");

/// The owner's name in the note.
pub const NOTE_OWNER: &[u8] = b"midair";
/// The note's type.
pub const NOTE_TYPE: u32 = 1;

const CAPACITY: usize = 512;
/// The compiler of this build, as `rustc --version` prints it.
const RUSTC: &str = env!("MIDAIR_RUSTC");
/// The target triple of this build.
pub const TARGET: &str = env!("MIDAIR_TARGET");
/// What panics do in this build; one strategy for all crates of a cdylib.
const PANIC: &str = if cfg!(panic = "unwind") { "unwind" } else { "abort" };

/// The note as it lies in the file.
#[repr(C, align(4))]
pub struct Note {
    owner_size: u32,
    text_size: u32,
    kind: u32,
    owner: [u8; 8],
    text: [u8; CAPACITY],
}

impl Note {
    /// The note of a plugin: the name and version of its package, and the version of the library that it is written with.
    ///
    /// # Panics
    ///
    /// At compile time, if the texts are longer than a note holds.
    #[must_use]
    pub const fn new(name: &str, version: &str, api: &str) -> Self {
        const { assert!(crate::ABI_VERSION == 1, "the line below says so") };
        let lines = [
            "abi=1\nname=",
            name,
            "\nversion=",
            version,
            "\napi=",
            api,
            "\nrustc=",
            RUSTC,
            "\ntarget=",
            TARGET,
            "\npanic=",
            PANIC,
            "\n",
        ];
        let mut text = [0; CAPACITY];
        let (mut at, mut line) = (0, 0);
        while line < lines.len() {
            let bytes = lines[line].as_bytes();
            let mut byte = 0;
            while byte < bytes.len() {
                assert!(at < CAPACITY, "the package's name and version are too long for a plugin");
                text[at] = bytes[byte];
                at += 1;
                byte += 1;
            }
            line += 1;
        }
        // The owner's size counts its final zero, as notes have it.
        Self { owner_size: 7, text_size: CAPACITY as u32, kind: NOTE_TYPE, owner: *b"midair\0\0", text }
    }

    /// The note's text, padded with zeros.
    #[must_use]
    pub const fn text(&self) -> &[u8] {
        &self.text
    }
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
    /// The compiler, as `rustc --version` prints it.
    pub rustc: String,
    /// The target triple.
    pub target: String,
    /// What panics do: `unwind` or `abort`.
    pub panic: String,
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_note_says_is_read_back() {
        const NOTE: Note = Note::new("shop", "1.2.3", "0.4.0");
        let [name, version, api, rustc, target, panic] = ["shop", "1.2.3", "0.4.0", RUSTC, TARGET, PANIC].map(str::to_owned);
        let manifest = Manifest { abi: crate::ABI_VERSION, name, version, api, rustc, target, panic };
        assert_eq!(Manifest::parse(NOTE.text()), Ok(manifest));
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

//! What can be known about an artifact without running it?
//!
//! Its headers, whether it is whole, what it asks of the system's loader, and the manifest in its note. The bytes come from somebody who
//! may make mistakes: nothing is trusted, and nothing that stands in them makes this panic, loop or take much memory.
//!
//! | part | question |
//! |---|---|
//! | `headers` | what do a file's first bytes say about it? |
//! | `dynamic` | what does a library ask of the system's loader? |
//! | `libraries` | which libraries would the loader find? |
//! | `code` | do two artifacts run the same? |

mod code;
mod dynamic;
mod headers;
mod libraries;

use std::fs::File;
use std::path::Path;

use midair_abi::manifest::{self, FEATURES, Manifest, NOTE_OWNER, NOTE_TYPE, TARGET};
use midair_abi::{ABI_VERSION, constants};
use object::elf::{self, NoteType};
use object::read::elf::ProgramHeader;
use object::{LittleEndian, ReadCache, ReadRef};

use crate::report::error::{Code, Error, Result, Stage};

pub(crate) use code::code;
#[cfg(any(test, midair_fuzz))]
pub(crate) use code::digest;
pub(crate) use headers::loaded;
#[cfg(feature = "dev")]
pub use headers::missing;

use headers::{START, Segment, arch, lacking, segments};

/// More than any linker writes into notes, in bytes.
const LONGEST_NOTES: u64 = 64 << 10;

/// What every plugin needs, whatever is allowed.
const USUAL_LIBRARIES: [&str; 7] =
    ["libc.so.6", "libgcc_s.so.1", "libm.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];

/// What an artifact may ask of the system's loader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// Whether it may say where libraries are looked for.
    pub run_paths: bool,
    /// The libraries that it may need beside the usual ones; `None` for any.
    pub libraries: Option<&'a [String]>,
}

/// What is known of an artifact that this host can serve.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// What it says about itself.
    pub manifest: Manifest,
    /// What its users should know about it.
    pub remarks: Vec<String>,
}

/// Judges a private copy of `artifact`, which messages name.
///
/// Reads headers and notes only, whatever the file's size.
///
/// # Errors
///
/// `E_ELF`, `E_ARCH`, `E_TRUNC`, `E_DEPS` or `E_ABI`, naming what was found and what is expected; `E_IO` if the copy can't be read.
pub(crate) fn inspect(copy: &Path, artifact: &Path, rules: Rules<'_>) -> Result<Inspected> {
    let subject = artifact.display().to_string();
    let file = File::open(copy)
        .map_err(|error| Error::rejected(Code::Io, Stage::Inspect, &subject, "the private copy can't be read").caused_by(error))?;
    judge(&ReadCache::new(file), &subject, rules)
}

/// The same, for bytes wherever they are.
pub(crate) fn judge<'a, R: ReadRef<'a>>(bytes: R, subject: &str, rules: Rules<'_>) -> Result<Inspected> {
    let rejected = |code, reason: String| Error::rejected(code, Stage::Inspect, subject, reason);
    let unreadable = |()| rejected(Code::Io, "the private copy can't be read".to_owned());
    let size = bytes.len().map_err(unreadable)?;
    let start = bytes.read_bytes_at(0, size.min(START)).map_err(unreadable)?;
    if !start.starts_with(&elf::ELFMAG) {
        return Err(rejected(Code::Elf, "it is no shared library".to_owned())
            .help("give the path of a cdylib, such as target/debug/libplugin.so"));
    }
    arch(start).map_err(|reason| rejected(Code::Arch, reason).help("build the plugin for the host's target"))?;
    let cut = |lacking: u64| {
        rejected(Code::Trunc, format!("it ends {lacking} bytes before its own headers say it does"))
            .help("copy it again; a plugin is best replaced by renaming a whole file over it")
    };
    match lacking(start, size) {
        0 => {}
        lacking => return Err(cut(lacking)),
    }
    let broken = |reason: String| rejected(Code::Elf, format!("its headers make no sense: {reason}"));
    let segments = segments(bytes).map_err(broken)?;
    if segments.is_empty() {
        return Err(rejected(Code::Elf, "it is no shared library".to_owned()).help("a plugin's crate-type is cdylib"));
    }
    // They may stand where the start doesn't reach.
    let end = |segment: &Segment| segment.p_offset.get(LittleEndian).saturating_add(segment.p_filesz.get(LittleEndian));
    match segments.iter().map(end).max().unwrap_or_default().saturating_sub(size) {
        0 => {}
        lacking => return Err(cut(lacking)),
    }
    let note = |kind| segments.iter().find_map(|segment| note(segment, bytes, kind));
    let Some(text) = note(NOTE_TYPE) else {
        return Err(rejected(Code::Abi, "it has no midair manifest, so it is no plugin".to_owned())
            .help("depend on midair-plugin and write `midair_plugin::export!(plugin);` at the top of lib.rs"));
    };
    let manifest = Manifest::parse(text).map_err(|reason| rejected(Code::Abi, reason))?;
    compatible(&manifest).map_err(|(reason, help)| rejected(Code::Abi, reason).help(help))?;
    // What was built before there was a list is compared by its types alone.
    if let Some(list) = note(constants::NOTE_TYPE) {
        constants::compare(list).map_err(|reason| rejected(Code::Abi, reason).help(same_border(&manifest.border)))?;
    }
    let asks = dynamic::read(segments, bytes).map_err(broken)?;
    allowed(&asks, rules).map_err(|(reason, help)| rejected(Code::Deps, reason).help(help))?;
    let remarks = remarks(&manifest.name, &asks);
    Ok(Inspected { manifest, remarks })
}

/// The text of midair's note of this type.
fn note<'a, R: ReadRef<'a>>(segment: &Segment, bytes: R, kind: u32) -> Option<&'a [u8]> {
    if segment.p_filesz.get(LittleEndian) > LONGEST_NOTES {
        return None;
    }
    let mut notes = segment.notes(LittleEndian, bytes).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == NOTE_OWNER && note.n_type(LittleEndian) == NoteType(kind) {
            return Some(note.desc());
        }
    }
    None
}

/// Whether it may ask for that; else why not, and what to do.
fn allowed(asks: &dynamic::Dynamic, rules: Rules<'_>) -> Result<(), (String, String)> {
    let by_path = || asks.needed.iter().find(|name| name.contains('/'));
    if !rules.run_paths {
        if let Some(path) = asks.run_paths.first() {
            let reason = format!("it says where its libraries are looked for (RPATH or RUNPATH {path})");
            return Err((reason, "link it without -rpath; install what it needs where the system looks".to_owned()));
        }
        if let Some(path) = by_path() {
            let reason = format!("it needs the library {path} by its path");
            return Err((reason, "give that library a soname, and install it where the system looks".to_owned()));
        }
    }
    let is_usual = |name: &str| USUAL_LIBRARIES.contains(&name);
    let is_listed = |name: &str| rules.libraries.is_none_or(|listed| listed.iter().any(|allowed| allowed == name));
    if let Some(name) = asks.needed.iter().find(|name| !is_usual(name) && !is_listed(name)) {
        let reason = format!("it needs {name}, which isn't among the allowed libraries");
        return Err((reason, format!("build it without, or start the host with --allow-library {name}")));
    }
    // With paths of its own only the loader can tell.
    if asks.run_paths.is_empty()
        && let Some(name) = asks.needed.iter().find(|name| !libraries::is_there(name))
    {
        let reason = format!("it needs {name}, which the system's loader doesn't find");
        return Err((reason, "install the library; if it is there, run ldconfig or set LD_LIBRARY_PATH for the host".to_owned()));
    }
    Ok(())
}

/// What isn't wrong, but worth knowing.
fn remarks(name: &str, asks: &dynamic::Dynamic) -> Vec<String> {
    let mut remarks = Vec::new();
    match asks.constructors {
        0 => {}
        1 => remarks.push(format!("{name} runs a constructor of its own while it is opened, before anything can check it")),
        more => {
            remarks.push(format!("{name} runs {more} constructors of its own while it is opened, before anything can check them"))
        }
    }
    for path in &asks.run_paths {
        remarks.push(format!("{name} says where its libraries are looked for ({path}); midair run refuses that"));
    }
    remarks
}

/// Whether this host can serve such a plugin; else why not, and what to do.
fn compatible(manifest: &Manifest) -> Result<(), (String, String)> {
    if manifest.abi != ABI_VERSION {
        let reason = format!("it speaks ABI version {}, the host speaks {ABI_VERSION}", manifest.abi);
        return Err((reason, same_border(&manifest.border)));
    }
    if manifest.panic != "unwind" {
        let reason = format!("its panics {}, so one would end the host; they must unwind", manifest.panic);
        return Err((reason, "remove `panic = \"abort\"` from the plugin's profile".to_owned()));
    }
    if manifest.target != TARGET {
        let reason = format!("it was built for {}, the host for {}", manifest.target, TARGET);
        return Err((reason, "build the plugin for the host's target".to_owned()));
    }
    if let Some(name) = manifest.requires.iter().find(|name| !FEATURES.contains(&name.as_str())) {
        let reason = format!("it requires {name:?} of its host, which this host doesn't know");
        return Err((reason, format!("{}, or build the plugin without it", same_border(&manifest.border))));
    }
    Ok(())
}

/// What to do about a plugin that was built with another border, of this version of midair-abi if it is known.
pub(crate) fn same_border(theirs: &str) -> String {
    let ours = manifest::VERSION;
    if theirs.is_empty() || theirs == ours {
        return format!("build plugin and host against the same midair-abi; the host has {ours}");
    }
    format!("build the plugin against midair-abi {ours}, which the host has, or the host against {theirs}, which the plugin has")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    fn judged(bytes: &[u8]) -> String {
        let mut copy = tempfile::NamedTempFile::new().expect("a file");
        copy.write_all(bytes).expect("it can be written");
        match inspect(copy.path(), Path::new("libx.so"), Rules { run_paths: false, libraries: None }) {
            Ok(inspected) => format!("{inspected:?}"),
            Err(error) => format!("{} {}", error.code(), error.reason()),
        }
    }

    /// A small library from the corpus of the fuzzer.
    pub(crate) fn sample(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/inspect");
        std::fs::read(folder.join(name)).expect("a file of the corpus")
    }

    fn told(name: &str, rules: Rules<'_>) -> String {
        match judge(sample(name).as_slice(), "libx.so", rules) {
            Ok(inspected) => format!("ok {}", inspected.remarks.join("; ")),
            Err(error) => format!("{} {}", error.code(), error.reason()),
        }
    }

    #[test]
    fn fault_10_what_a_library_asks_of_the_loader_is_judged() {
        let (strict, lax) = (Rules { run_paths: false, libraries: None }, Rules { run_paths: true, libraries: None });
        let run_path = "E_DEPS it says where its libraries are looked for (RPATH or RUNPATH /opt/lib)";
        let is_told = "ok x says where its libraries are looked for (/opt/lib); midair run refuses that";
        let constructors = "ok x runs a constructor of its own while it is opened, before anything can check it";
        let nowhere = "E_DEPS it needs libnowhere.so.1, which the system's loader doesn't find";
        for (name, strictly, laxly) in [
            ("plain.so", "ok ", "ok "),
            ("needs_libc.so", "ok ", "ok "),
            ("no_sections.so", "ok ", "ok "),
            ("constructors.so", constructors, constructors),
            ("needs_nowhere.so", nowhere, nowhere),
            ("runpath.so", run_path, is_told),
            ("rpath.so", run_path, is_told),
            ("executable", "E_ELF it is no shared library", "E_ELF it is no shared library"),
        ] {
            assert_eq!((told(name, strict).as_str(), told(name, lax).as_str()), (strictly, laxly), "{name}");
        }
    }

    #[test]
    fn a_library_with_gnu_extensions_is_like_any_other() {
        // The compiler's own `#[used]` makes linkers say so.
        let mut bytes = sample("plain.so");
        bytes[7] = elf::ELFOSABI_GNU.0;
        assert!(judge(bytes.as_slice(), "libx.so", Rules { run_paths: false, libraries: None }).is_ok());
    }

    #[test]
    fn with_a_list_of_libraries_all_others_are_refused_beside_the_usual_ones() {
        let listed = ["libnowhere.so.1".to_owned()];
        let only = |libraries| Rules { run_paths: false, libraries: Some(libraries) };
        assert_eq!(told("needs_libc.so", only(&[])), "ok ");
        let refused = "E_DEPS it needs libnowhere.so.1, which isn't among the allowed libraries";
        assert_eq!(told("needs_nowhere.so", only(&[])), refused);
        assert!(told("needs_nowhere.so", only(&listed)).ends_with("the system's loader doesn't find"));
    }

    #[test]
    fn a_dynamic_section_that_leads_nowhere_is_refused_before_the_loader_follows_it() {
        let plain = sample("needs_libc.so");
        let number = |at: usize| u64::from_le_bytes(plain[at..at + 8].try_into().expect("eight bytes"));
        let usize_at = |at: usize| usize::try_from(number(at)).expect("small");
        let segments = (0..usize::from(plain[56])).map(|index| usize_at(32) + index * 56);
        let section = segments.clone().find(|at| plain[*at] == 2).expect("a dynamic section");
        let entries: Vec<usize> = (0..).map(|index| usize_at(section + 8) + index * 16).take_while(|at| number(*at) != 0).collect();
        let mut refused = 0;
        for entry in entries {
            let mut bytes = plain.clone();
            bytes[entry + 8..entry + 16].copy_from_slice(&0x7fff_ffff_ffff_u64.to_le_bytes());
            let told = judge(bytes.as_slice(), "libx.so", Rules { run_paths: false, libraries: None });
            refused += usize::from(told.is_err_and(|error| error.code() == Code::Elf));
        }
        // Strings, symbols, their hash, their versions, and the name of what is needed.
        assert!(refused >= 5, "{refused}");
        let load = segments.clone().find(|at| plain[*at] == 1).expect("a loaded segment");
        let mut bytes = plain.clone();
        bytes[load + 16] ^= 1;
        let told = judge(bytes.as_slice(), "libx.so", Rules { run_paths: false, libraries: None });
        assert_eq!(told.expect_err("refused").reason(), "its headers make no sense: a loaded segment isn't aligned as it says");
    }

    /// The test's own executable: a real ELF file of this machine that is no plugin.
    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").expect("it can be read")
    }

    #[test]
    fn what_is_no_library_is_told() {
        assert_eq!(judged(b"hello"), "E_ELF it is no shared library");
        assert!(judged(&own()).starts_with("E_ABI it has no midair manifest"), "{}", judged(&own()));
    }

    #[test]
    fn a_library_cut_off_anywhere_is_told() {
        let own = own();
        for cut in (1..=40).map(|n| own.len() * n / 41) {
            let told = judged(&own[..cut]);
            assert!(told.starts_with("E_TRUNC") || told.starts_with("E_ELF"), "cut at {cut}: {told}");
        }
    }

    #[cfg(feature = "dev")]
    #[test]
    fn what_a_file_lacks_is_known_from_its_first_byte_on() {
        let own = own();
        let lacks = |bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(bytes).expect("it can be written");
            missing(file.path()).expect("it can be read")
        };
        assert_eq!([lacks(b""), lacks(&own[..3]), lacks(&own[..64])].map(|bytes| bytes > 0), [true; 3]);
        assert_eq!((lacks(&own[..own.len() - 1]), lacks(&own), lacks(b"no library")), (1, 0, 0));
    }

    #[test]
    fn another_machine_is_told_with_both_sides() {
        let mut bytes = own();
        bytes[18] = 62 ^ 0xff;
        assert!(judged(&bytes).starts_with("E_ARCH it is for machine"), "{}", judged(&bytes));
        bytes[5] = elf::ELFDATA2MSB.0;
        (bytes[18], bytes[19]) = (0, 21);
        assert_eq!(judged(&bytes), "E_ARCH it is for machine 21, 64 bit, big endian, the host is x86_64, 64 bit, little endian");
        bytes[4] = elf::ELFCLASS32.0;
        assert!(judged(&bytes).contains("32 bit"), "{}", judged(&bytes));
    }
}

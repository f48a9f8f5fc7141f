//! What can be known about an artifact without running it?
//!
//! Its headers, whether it is whole, and the manifest in its note. The bytes come from somebody who may make mistakes: nothing is trusted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use midair_plugin::abi::ABI_VERSION;
use midair_plugin::manifest::{Manifest, NOTE_OWNER, NOTE_TYPE};
use object::elf::{self, DataEncoding, FileClass, FileHeader64, Machine, NoteType};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, LittleEndian, ReadCache};

use crate::error::{Code, Error, Result, Stage};

type Header = FileHeader64<Endianness>;

/// Judges a private copy of `artifact`, which messages name; its manifest if this host can serve it.
///
/// Reads headers and notes only, whatever the file's size.
///
/// # Errors
///
/// `E_ELF`, `E_ARCH`, `E_TRUNC` or `E_ABI`, naming what was found and what is expected; `E_IO` if the copy can't be read.
pub(crate) fn inspect(copy: &Path, artifact: &Path) -> Result<Manifest> {
    let rejected = |code, reason: String| Error::rejected(code, Stage::Inspect, artifact.display().to_string(), reason);
    let unreadable = |error: io::Error| rejected(Code::Io, "the private copy can't be read".to_owned()).caused_by(error);
    let file = File::open(copy).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let start = start_of(&file, size).map_err(unreadable)?;
    if !start.starts_with(&elf::ELFMAG) {
        return Err(rejected(Code::Elf, "it is no shared library".to_owned())
            .help("give the path of a cdylib, such as target/debug/libplugin.so"));
    }
    arch(&start).map_err(|reason| rejected(Code::Arch, reason).help("build the plugin for the host's target"))?;
    let lacking = lacking(&start, size);
    if lacking > 0 {
        return Err(rejected(Code::Trunc, format!("it ends {lacking} bytes before its own headers say it does"))
            .help("copy it again; a plugin is best replaced by renaming a whole file over it"));
    }
    let broken = |error: object::Error| rejected(Code::Elf, format!("its headers make no sense: {error}"));
    let bytes = ReadCache::new(file);
    let header = Header::parse(&bytes).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if header.e_type(endian) != elf::ET_DYN {
        return Err(rejected(Code::Elf, "it is no shared library".to_owned()).help("a plugin's crate-type is cdylib"));
    }
    let segments = header.program_headers(endian, &bytes).map_err(broken)?;
    let Some(text) = segments.iter().find_map(|segment| manifest_note(segment, endian, &bytes)) else {
        return Err(rejected(Code::Abi, "it has no midair manifest, so it is no plugin".to_owned())
            .help("depend on midair-plugin and write `midair_plugin::export!(plugin);` at the top of lib.rs"));
    };
    let manifest = Manifest::parse(text).map_err(|reason| rejected(Code::Abi, reason))?;
    compatible(&manifest).map_err(|(reason, help)| rejected(Code::Abi, reason).help(help))?;
    Ok(manifest)
}

/// The file's header and what follows it, where the program headers stand: a plugin has about ten of 56 bytes.
fn start_of(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let mut start = vec![0; usize::try_from(size.min(4096)).unwrap_or_default()];
    file.read_exact_at(&mut start, 0)?;
    Ok(start)
}

/// Where the part of a library ends that the system's loader reads, by its first bytes; `None` if they don't tell.
pub(crate) fn loaded(start: &[u8]) -> Option<u64> {
    let header = FileHeader64::<LittleEndian>::parse(start).ok()?;
    let segments = header.program_headers(LittleEndian, start).ok()?;
    let end = |segment: &elf::ProgramHeader64<LittleEndian>| {
        segment.p_offset(LittleEndian).saturating_add(segment.p_filesz(LittleEndian))
    };
    segments.iter().map(end).max()
}

fn arch(bytes: &[u8]) -> Result<(), String> {
    let ours = (elf::ELFCLASS64, if cfg!(target_endian = "little") { elf::ELFDATA2LSB } else { elf::ELFDATA2MSB }, MACHINE);
    let machine = bytes.get(18..20).map_or(0, |machine| u16::from_le_bytes([machine[0], machine[1]]));
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let theirs = (FileClass(byte(4)), DataEncoding(byte(5)), Machine(machine));
    let told = |(class, data, machine): (FileClass, DataEncoding, Machine)| {
        let bits = match class {
            elf::ELFCLASS64 => "64 bit",
            elf::ELFCLASS32 => "32 bit",
            _ => "of unknown width",
        };
        let endian = match data {
            elf::ELFDATA2LSB => "little endian",
            elf::ELFDATA2MSB => "big endian",
            _ => "of unknown endianness",
        };
        let name = match machine {
            elf::EM_X86_64 => "x86_64".to_owned(),
            elf::EM_AARCH64 => "aarch64".to_owned(),
            elf::EM_386 => "x86".to_owned(),
            elf::EM_ARM => "arm".to_owned(),
            elf::EM_RISCV => "riscv".to_owned(),
            Machine(other) => format!("machine {other}"),
        };
        format!("{name}, {bits}, {endian}")
    };
    if theirs == ours { Ok(()) } else { Err(format!("it is for {}, the host is {}", told(theirs), told(ours))) }
}

const MACHINE: Machine = if cfg!(target_arch = "aarch64") { elf::EM_AARCH64 } else { elf::EM_X86_64 };

fn manifest_note<'a>(
    segment: &elf::ProgramHeader64<Endianness>,
    endian: Endianness,
    bytes: &'a ReadCache<File>,
) -> Option<&'a [u8]> {
    let mut notes = segment.notes(endian, bytes).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == NOTE_OWNER && note.n_type(endian) == NoteType(NOTE_TYPE) {
            return Some(note.desc());
        }
    }
    None
}

/// Whether this host can serve such a plugin; else why not, and what to do.
fn compatible(manifest: &Manifest) -> Result<(), (String, &'static str)> {
    let ours = Manifest::of_this_build("", "");
    if manifest.abi != ABI_VERSION {
        let reason = format!("it speaks ABI version {}, the host speaks {ABI_VERSION}", manifest.abi);
        return Err((reason, "build plugin and host against the same version of midair-plugin"));
    }
    if manifest.panic != "unwind" {
        let reason = format!("its panics {}, so one would end the host; they must unwind", manifest.panic);
        return Err((reason, "remove `panic = \"abort\"` from the plugin's profile"));
    }
    if manifest.target != ours.target {
        let reason = format!("it was built for {}, the host for {}", manifest.target, ours.target);
        return Err((reason, "build the plugin for the host's target"));
    }
    Ok(())
}

/// How many bytes a file lacks by its own headers; 0 if it is whole, or no library at all.
///
/// # Errors
///
/// If it can't be read.
#[cfg(feature = "dev")]
pub(crate) fn missing(path: &Path) -> io::Result<u64> {
    if !path.metadata()?.is_file() {
        return Ok(0);
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let start = start_of(&file, size)?;
    // A file that has just been emptied, or has its first bytes, is one that is being written.
    let is_elf = elf::ELFMAG.starts_with(&start[..start.len().min(elf::ELFMAG.len())]);
    Ok(if is_elf { lacking(&start, size) } else { 0 })
}

/// How many bytes a library of `size` bytes lacks, by the headers at its `start`.
fn lacking(start: &[u8], size: u64) -> u64 {
    let Ok(header) = FileHeader64::<LittleEndian>::parse(start) else {
        return (size_of::<FileHeader64<LittleEndian>>() as u64).saturating_sub(size);
    };
    let endian = LittleEndian;
    let sections = u64::from(header.e_shnum.get(endian)) * u64::from(header.e_shentsize.get(endian));
    let mut end = header.e_shoff.get(endian).saturating_add(sections);
    let table = header
        .e_phoff
        .get(endian)
        .saturating_add(u64::from(header.e_phnum.get(endian)) * u64::from(header.e_phentsize.get(endian)));
    end = end.max(table);
    end = end.max(loaded(start).unwrap_or_default());
    end.saturating_sub(size)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn judged(bytes: &[u8]) -> String {
        let mut copy = tempfile::NamedTempFile::new().expect("a file");
        copy.write_all(bytes).expect("it can be written");
        match inspect(copy.path(), Path::new("libx.so")) {
            Ok(manifest) => format!("{manifest:?}"),
            Err(error) => format!("{} {}", error.code(), error.reason()),
        }
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
        bytes[4] = elf::ELFCLASS32.0;
        assert!(judged(&bytes).contains("32 bit"), "{}", judged(&bytes));
    }
}

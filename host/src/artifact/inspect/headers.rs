//! What do a file's first bytes say about it?
//!
//! For which machine it is, where the part ends that the loader reads, and how long it has to be. This is asked of files that may still be
//! written, so it needs no more than their start.

#[cfg(feature = "dev")]
use std::fs::File;
#[cfg(feature = "dev")]
use std::io;
#[cfg(feature = "dev")]
use std::os::unix::fs::FileExt;
#[cfg(feature = "dev")]
use std::path::Path;

use object::elf::{self, DataEncoding, FileClass, FileHeader64, Machine, ProgramHeader64};
use object::read::elf::FileHeader;
use object::{LittleEndian, ReadRef};

/// A plugin has about ten.
pub(super) const MOST_SEGMENTS: u16 = 1024;

/// How much of a file is looked at: its header and, in every library that a usual linker makes, its program headers.
pub(super) const START: u64 = 4096;

/// Where the part of a library ends that the system's loader reads, by its first bytes; `None` if they don't tell.
pub(crate) fn loaded(start: &[u8]) -> Option<u64> {
    let header = FileHeader64::<LittleEndian>::parse(start).ok()?;
    let segments = header.program_headers(LittleEndian, start).ok()?;
    let end = |segment: &ProgramHeader64<LittleEndian>| {
        segment.p_offset.get(LittleEndian).saturating_add(segment.p_filesz.get(LittleEndian))
    };
    segments.iter().map(end).max()
}

/// How many bytes a file lacks by its own headers; 0 if it is whole, or no library at all.
///
/// # Errors
///
/// If it can't be read.
#[cfg(feature = "dev")]
pub fn missing(path: &Path) -> io::Result<u64> {
    if !path.metadata()?.is_file() {
        return Ok(0);
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut start = vec![0; usize::try_from(size.min(START)).unwrap_or_default()];
    file.read_exact_at(&mut start, 0)?;
    // A file that has just been emptied, or has its first bytes, is one that is being written.
    let is_elf = elf::ELFMAG.starts_with(&start[..start.len().min(elf::ELFMAG.len())]);
    Ok(if is_elf { lacking(&start, size) } else { 0 })
}

/// A program header.
pub(super) type Segment = ProgramHeader64<LittleEndian>;

/// The program headers of a shared library; none of anything else.
pub(super) fn segments<'a, R: ReadRef<'a>>(bytes: R) -> Result<&'a [Segment], String> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|error| error.to_string())?;
    if header.e_type(LittleEndian) != elf::ET_DYN {
        return Ok(&[]);
    }
    let count = header.e_phnum(LittleEndian);
    if count > MOST_SEGMENTS {
        return Err(format!("it has {count} segments"));
    }
    header.program_headers(LittleEndian, bytes).map_err(|error| error.to_string())
}

/// How many bytes a library of `size` bytes lacks, by the headers at its `start`.
pub(super) fn lacking(start: &[u8], size: u64) -> u64 {
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

/// Whether it is for this machine; else both sides.
pub(super) fn arch(bytes: &[u8]) -> Result<(), String> {
    let ours = (elf::ELFCLASS64, if cfg!(target_endian = "little") { elf::ELFDATA2LSB } else { elf::ELFDATA2MSB }, MACHINE);
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let (class, data, machine) = (FileClass(byte(4)), DataEncoding(byte(5)), [byte(18), byte(19)]);
    let machine = if data == elf::ELFDATA2MSB { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let theirs = (class, data, Machine(machine));
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

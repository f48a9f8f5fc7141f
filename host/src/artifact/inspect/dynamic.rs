//! What does a library ask of the system's loader?
//!
//! Its dynamic section, read as the loader reads it: by address, through the segments that are loaded. The loader trusts that section
//! blindly, and an address in it that leads nowhere ends the process; so such addresses are looked for here.

use object::elf::{self, Dyn64, DynamicTag, Rela64};
use object::{LittleEndian, ReadRef};

use super::headers::Segment;

/// More than any linker writes, in bytes.
const LONGEST_SECTION: u64 = 64 << 10;
const LONGEST_STRING: u64 = 4096;

/// What is larger isn't read.
const LARGEST_TABLE: u64 = 64 << 20;

/// Code may point past its own ends, but not far.
const FAR: u64 = 1 << 30;

/// The kind of relocation that adds the address to which a library was loaded.
const RELATIVE: u32 = if cfg!(target_arch = "aarch64") { 1027 } else { 8 };

/// The kinds of relocations end here, so that a number beyond is none.
const KINDS: u32 = if cfg!(target_arch = "aarch64") { 1033 } else { 43 };

/// What each Rust library has in its `.init_array`: the C runtime's `frame_dummy`, and std's, which takes the arguments.
const USUAL_CONSTRUCTORS: u64 = 2;

/// What stands in a dynamic section.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dynamic {
    /// Libraries that are opened with it.
    pub(super) needed: Vec<String>,
    /// Where it says that they are looked for.
    pub(super) run_paths: Vec<String>,
    /// The name by which others need it.
    pub(super) name: Option<String>,
    /// How many functions run while it is opened, beside those that every Rust library has.
    pub(super) constructors: u64,
}

/// Reads the dynamic section of a library with these segments.
///
/// # Errors
///
/// What makes no sense in it.
pub(super) fn read<'a, R: ReadRef<'a>>(segments: &[Segment], bytes: R) -> Result<Dynamic, String> {
    let endian = LittleEndian;
    check(segments)?;
    let mut dynamics = segments.iter().filter(|segment| segment.p_type.get(endian) == elf::PT_DYNAMIC);
    let section = dynamics.next().ok_or("it has no dynamic section")?;
    if dynamics.next().is_some() {
        return Err("it has two dynamic sections".to_owned());
    }
    let (address, size) = (section.p_vaddr.get(endian), section.p_filesz.get(endian));
    if size > LONGEST_SECTION {
        return Err(format!("its dynamic section has {size} bytes"));
    }
    let place = place(segments, address, size).ok_or("its dynamic section isn't loaded")?;
    let entries = usize::try_from(size).unwrap_or_default() / size_of::<Dyn64<LittleEndian>>();
    let entries = bytes.read_slice_at::<Dyn64<LittleEndian>>(place, entries).map_err(|()| "its dynamic section can't be read")?;
    let end = entries.iter().position(|entry| entry.d_tag.get(endian) == elf::DT_NULL);
    let entries = &entries[..end.ok_or("its dynamic section has no end")?];
    let value = |tag: DynamicTag| {
        // Of several the loader takes the last.
        let entry = entries.iter().rev().find(|entry| entry.d_tag.get(endian) == tag)?;
        Some(entry.d_val.get(endian))
    };
    tables(segments, &value)?;
    for (table, size) in [(elf::DT_RELA, elf::DT_RELASZ), (elf::DT_JMPREL, elf::DT_PLTRELSZ)] {
        let relative = if table == elf::DT_RELA { value(elf::DT_RELACOUNT).unwrap_or_default() } else { 0 };
        if let (Some(address), Some(size)) = (value(table), value(size)) {
            let symbols = value(elf::DT_SYMTAB).unwrap_or_default();
            relocations(segments, bytes, address, size, relative, symbols)?;
        }
    }
    let (strings, length) = (value(elf::DT_STRTAB).ok_or("it has no strings")?, value(elf::DT_STRSZ).unwrap_or_default());
    let string = |offset: u64| -> Result<String, String> {
        let wrong = || "a string of its dynamic section can't be read".to_owned();
        let left = length.checked_sub(offset).filter(|left| *left > 0).ok_or_else(wrong)?.min(LONGEST_STRING);
        let place = strings.checked_add(offset).and_then(|address| self::place(segments, address, left)).ok_or_else(wrong)?;
        let end = place.checked_add(left).ok_or_else(wrong)?;
        let text = bytes.read_bytes_at_until(place..end, 0).map_err(|()| wrong())?;
        Ok(String::from_utf8_lossy(text).into_owned())
    };
    let mut found = Dynamic::default();
    for entry in entries {
        let offset = entry.d_val.get(endian);
        match entry.d_tag.get(endian) {
            elf::DT_NEEDED => found.needed.push(string(offset)?),
            elf::DT_RPATH | elf::DT_RUNPATH => found.run_paths.push(string(offset)?),
            elf::DT_SONAME => found.name = Some(string(offset)?),
            _ => {}
        }
    }
    let constructors = value(elf::DT_INIT_ARRAYSZ).unwrap_or_default() / size_of::<u64>() as u64;
    found.constructors = constructors.saturating_sub(USUAL_CONSTRUCTORS);
    Ok(found)
}

/// Whether the loader can map these segments.
fn check(segments: &[Segment]) -> Result<(), String> {
    let endian = LittleEndian;
    let mut loaded_to = None;
    for segment in loads(segments) {
        let (address, held, size) = (segment.p_vaddr.get(endian), segment.p_filesz.get(endian), segment.p_memsz.get(endian));
        let (offset, align) = (segment.p_offset.get(endian), segment.p_align.get(endian).max(1));
        let end =
            address.checked_add(size).filter(|_| held <= size).ok_or("a loaded segment is larger in the file than in memory")?;
        if !align.is_power_of_two() || !address.wrapping_sub(offset).is_multiple_of(align) {
            return Err("a loaded segment isn't aligned as it says".to_owned());
        }
        if loaded_to.is_some_and(|before| address < before) {
            return Err("its loaded segments overlap or are out of order".to_owned());
        }
        loaded_to = Some(end);
    }
    loaded_to.map(drop).ok_or_else(|| "nothing of it is loaded".to_owned())
}

/// Whether the tables that the loader walks are where they are said to be.
fn tables(segments: &[Segment], value: &dyn Fn(DynamicTag) -> Option<u64>) -> Result<(), String> {
    let lies = |address: DynamicTag, size: u64| value(address).is_none_or(|address| place(segments, address, size).is_some());
    let sized = |address: DynamicTag, size: DynamicTag, entry: u64| {
        let size = value(size).unwrap_or_default();
        size.is_multiple_of(entry) && lies(address, size)
    };
    let is = |tag: DynamicTag, expected: u64| value(tag).is_none_or(|value| value == expected);
    for (holds, what) in [
        (sized(elf::DT_STRTAB, elf::DT_STRSZ, 1), "strings"),
        (lies(elf::DT_SYMTAB, 24) && is(elf::DT_SYMENT, 24) && value(elf::DT_SYMTAB).is_some(), "symbols"),
        (sized(elf::DT_RELA, elf::DT_RELASZ, 24) && is(elf::DT_RELAENT, 24), "relocations"),
        (sized(elf::DT_JMPREL, elf::DT_PLTRELSZ, 24) && is(elf::DT_PLTREL, elf::DT_RELA.0 as u64), "relocations of functions"),
        (sized(elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ, 8) && lies(elf::DT_INIT, 1), "constructors"),
        (sized(elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ, 8) && lies(elf::DT_FINI, 1), "destructors"),
        (lies(elf::DT_HASH, 8) && lies(elf::DT_GNU_HASH, 16), "hash of symbols"),
        (lies(elf::DT_VERSYM, 2) && lies(elf::DT_VERNEED, 16) && lies(elf::DT_VERDEF, 20), "versions of symbols"),
    ] {
        if !holds {
            return Err(format!("its dynamic section leads nowhere: the {what} aren't where it says"));
        }
    }
    Ok(())
}

/// Whether each relocation changes what may be written, is of a kind that there is, and leads to a symbol or near the library. The first
/// so many have to be relative: the loader takes that for granted, and ends the process where one isn't.
fn relocations<'a, R: ReadRef<'a>>(
    segments: &[Segment],
    bytes: R,
    address: u64,
    size: u64,
    relative: u64,
    symbols: u64,
) -> Result<(), String> {
    let endian = LittleEndian;
    if size > LARGEST_TABLE {
        return Ok(());
    }
    let count = usize::try_from(size).unwrap_or_default() / size_of::<Rela64<LittleEndian>>();
    let place = place(segments, address, size).ok_or("its relocations aren't loaded")?;
    let table = bytes.read_slice_at::<Rela64<LittleEndian>>(place, count).map_err(|()| "its relocations can't be read")?;
    if relative > table.len() as u64 {
        return Err("it counts more relocations than it has".to_owned());
    }
    let spans =
        |segment: &Segment| (segment.p_vaddr.get(endian), segment.p_vaddr.get(endian).saturating_add(segment.p_memsz.get(endian)));
    let written: Vec<_> = loads(segments).filter(|segment| segment.p_flags.get(endian).contains(elf::PF_W)).map(spans).collect();
    let end = loads(segments).map(spans).map(|(_, end)| end).max().unwrap_or_default();
    // Most symbols are asked for many times; the highest is enough.
    let mut highest = 0;
    for (index, relocation) in table.iter().enumerate() {
        let (at, info) = (relocation.r_offset.get(endian), relocation.r_info.get(endian));
        let (kind, symbol, addend) = (info as u32, info >> 32, relocation.r_addend.get(endian));
        let fits = written.iter().any(|(start, end)| *start <= at && at.checked_add(8).is_some_and(|last| last <= *end));
        let is_relative = kind == RELATIVE;
        let leads = !is_relative
            || (symbol == 0 && addend.checked_add(FAR as i64).is_some_and(|above| (above as u64) < end.saturating_add(2 * FAR)));
        if !fits || kind >= KINDS || !leads || (!is_relative && (index as u64) < relative) {
            return Err(format!("its relocation {index} makes no sense"));
        }
        highest = highest.max(symbol);
    }
    let last = symbols.checked_add(highest * 24).and_then(|symbol| self::place(segments, symbol, 24));
    last.map(drop).ok_or_else(|| "a relocation leads to a symbol that isn't there".to_owned())
}

/// Where in the file those bytes stand that are loaded to `address`.
fn place(segments: &[Segment], address: u64, size: u64) -> Option<u64> {
    let endian = LittleEndian;
    loads(segments).find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr.get(endian))?;
        let fits = within.checked_add(size)? <= segment.p_filesz.get(endian);
        fits.then(|| segment.p_offset.get(endian).checked_add(within))?
    })
}

fn loads(segments: &[Segment]) -> impl Iterator<Item = &Segment> {
    segments.iter().filter(|segment| segment.p_type.get(LittleEndian) == elf::PT_LOAD)
}

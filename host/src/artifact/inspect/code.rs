//! Do two artifacts run the same?
//!
//! Two builds may differ in what no processor ever sees: debug information, symbol names, the build id that hashes them. What runs is what the
//! sections hold that are loaded, and where they are loaded to. The file's own header is left out: it says where the section headers
//! stand, which moves with the debug information.

use std::fs::File;
use std::os::unix::fs::FileExt;

use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use object::{LittleEndian, pod};

use super::headers::MOST_SEGMENTS;

/// A library has some tens.
const MOST_SECTIONS: u16 = 4096;

/// How much is read at a time, in bytes.
const PIECE: u64 = 256 << 10;

const BUILD_ID: &[u8] = b".note.gnu.build-id\0";

type Section = SectionHeader64<LittleEndian>;

/// blake3 of what runs, in hex; `None` if the file has no section headers, or none that make sense.
pub(crate) fn code(file: &File) -> Option<String> {
    let size = file.metadata().ok()?.len();
    digest(size, &|at, size| {
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    })
}

/// The same, of bytes wherever they are. `read` is asked for at most some hundred thousand at a time.
pub(crate) fn digest(size: u64, read: &dyn Fn(u64, u64) -> Option<Vec<u8>>) -> Option<String> {
    let endian = LittleEndian;
    let start = read(0, size_of::<FileHeader64<LittleEndian>>() as u64)?;
    let header = FileHeader64::<LittleEndian>::parse(start.as_slice()).ok()?;
    let (sections, segments) = (header.e_shnum(endian), header.e_phnum(endian));
    let is_usual = usize::from(header.e_shentsize(endian)) == size_of::<Section>()
        && usize::from(header.e_phentsize(endian)) == size_of::<ProgramHeader64<LittleEndian>>();
    if !is_usual || sections > MOST_SECTIONS || segments > MOST_SEGMENTS {
        return None;
    }
    let table = read(header.e_shoff(endian), u64::from(sections) * size_of::<Section>() as u64)?;
    let (sections, _) = pod::slice_from_bytes::<Section>(&table, usize::from(sections)).ok()?;
    let names = sections.get(usize::from(header.e_shstrndx(endian).0))?;
    let loaded = || sections.iter().filter(|section| section.sh_flags(endian).contains(elf::SHF_ALLOC));
    let holds = |section: &Section| if section.sh_type(endian) == elf::SHT_NOBITS { 0 } else { section.sh_size(endian) };
    // Sections that overlap would make one read the file again and again.
    let held = loaded().try_fold(0_u64, |sum, section| sum.checked_add(holds(section)))?;
    if held == 0 || held > size {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    let entries = u64::from(segments) * size_of::<ProgramHeader64<LittleEndian>>() as u64;
    hasher.update(&read(header.e_phoff(endian), entries)?);
    for section in loaded() {
        let about =
            [section.sh_addr(endian), section.sh_size(endian), section.sh_flags(endian).0, u64::from(section.sh_type(endian).0)];
        for number in about {
            hasher.update(&number.to_le_bytes());
        }
        let name = names.sh_offset(endian).checked_add(u64::from(section.sh_name(endian)))?;
        if read(name, BUILD_ID.len() as u64).is_some_and(|name| name == BUILD_ID) {
            continue;
        }
        let (mut at, mut left) = (section.sh_offset(endian), holds(section));
        while left > 0 {
            let piece = read(at, left.min(PIECE))?;
            hasher.update(&piece);
            (at, left) = (at.checked_add(piece.len() as u64)?, left - piece.len() as u64);
        }
    }
    Some(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::inspect::tests::sample;

    fn code_of(bytes: &[u8]) -> Option<String> {
        digest(bytes.len() as u64, &|at, size| {
            let at = usize::try_from(at).ok()?;
            bytes.get(at..at.checked_add(usize::try_from(size).ok()?)?).map(<[u8]>::to_vec)
        })
    }

    /// Where a text stands in a file.
    fn place(bytes: &[u8], text: &[u8]) -> usize {
        bytes.windows(text.len()).position(|window| window == text).expect("it stands there")
    }

    #[test]
    fn what_is_loaded_counts_and_what_isnt_doesnt() {
        let plain = sample("plain.so");
        let code = code_of(&plain).expect("it has sections");
        let with = |place: usize| {
            let mut bytes = plain.clone();
            bytes[place] ^= 1;
            code_of(&bytes).expect("it has sections")
        };
        // The note of the build id: its header, then 20 bytes.
        let build_id = place(&plain, b"GNU\0") + 4;
        let comment = place(&plain, b"GCC: (");
        assert_eq!([with(build_id), with(comment)], [code.clone(), code.clone()]);
        for text in [&b"midair\0"[..], b"abi=1", b"\x55\x48", b"unwind"] {
            if plain.windows(text.len()).any(|window| window == text) {
                assert_ne!(with(place(&plain, text)), code, "{text:?}");
            }
        }
        let mut longer = plain.clone();
        longer.extend([0; 100]);
        assert_eq!(code_of(&longer), Some(code));
        assert_eq!(code_of(&sample("no_sections.so")), None);
        assert_eq!(code_of(b"no library"), None);
    }

    #[test]
    fn sections_that_overlap_are_not_read_again_and_again() {
        let mut plain = sample("plain.so");
        let table = usize::try_from(u64::from_le_bytes(plain[40..48].try_into().expect("eight bytes"))).expect("small");
        let whole = (plain.len() as u64).to_le_bytes();
        // Two sections, each with the whole file.
        for section in [1, 2] {
            let at = table + section * 64;
            plain[at + 24..at + 32].fill(0);
            plain[at + 32..at + 40].copy_from_slice(&whole);
        }
        assert_eq!(code_of(&plain), None);
    }
}

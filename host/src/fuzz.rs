//! What must hold of whatever bytes somebody hands in?
//!
//! The bodies that a fuzzer runs, and that the tests run over the same corpus and some thousands of changes to it. Not part of any build
//! that is used: `cfg(midair_fuzz)` or a test.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use midair_abi::manifest::Manifest;

use crate::artifact::inspect::{Rules, digest, judge, loaded};
use crate::report::error::Code;
use crate::swap::recovery::RecoveryRecord;
use crate::sys::fatal::Evidence;

/// Judges any bytes: that ends, without a panic, in a manifest that names a plugin plainly, or in a code that inspecting has.
///
/// # Panics
///
/// If it doesn't.
pub fn inspect(bytes: &[u8]) {
    let _ = loaded(bytes);
    let code = digest(bytes.len() as u64, &|at, size| {
        assert!(size < 1 << 20, "it reads {size} bytes at once");
        let at = usize::try_from(at).ok()?;
        bytes.get(at..at.checked_add(usize::try_from(size).ok()?)?).map(<[u8]>::to_vec)
    });
    assert!(code.is_none_or(|code| code.len() == 64));
    for run_paths in [false, true] {
        let rules = Rules { run_paths, libraries: Some(&[]) };
        match judge(bytes, "fuzzed", rules) {
            Ok(inspected) => {
                is_coherent(&inspected.manifest);
                assert!(run_paths || !inspected.remarks.iter().any(|remark| remark.contains("looked for")), "{inspected:?}");
            }
            Err(error) => {
                let codes = [Code::Elf, Code::Arch, Code::Trunc, Code::Deps, Code::Abi];
                assert!(codes.contains(&error.code()), "{error:?}");
                assert!(error.reason().len() < 64 << 10, "{error:?}");
            }
        }
    }
}

/// Reads any bytes as a manifest.
///
/// # Panics
///
/// If what it reads makes no sense.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        is_coherent(&manifest);
    }
}

/// Reads any bytes as what a host left for its next start: what is read is written and read back the same, and whatever it says, a host that
/// dies each time is soon not started with it any more, and nothing that was held is let go by a death.
///
/// # Panics
///
/// If it isn't so.
pub fn marks(bytes: &[u8]) {
    let Ok(mut mark) = RecoveryRecord::parse(bytes) else { return };
    let is_known =
        |mark: &RecoveryRecord| mark.text().map(|text| RecoveryRecord::parse(&text)).is_ok_and(|again| again.as_ref() == Ok(mark));
    assert!(is_known(&mark), "{mark:?}");
    mark.source = PathBuf::from(OsStr::from_bytes(bytes));
    assert!(is_known(&mark), "{mark:?}");
    for death in 0.. {
        let before = mark.clone();
        let blamed = before.pending.iter().chain(before.candidate.iter().filter(|it| before.pending.as_ref() != Some(it)));
        let blamed: Vec<&String> = blamed.collect();
        // The code that was started crashed.
        let digest = blamed.first().map(|digest| (*digest).clone()).unwrap_or_default();
        let told = mark.after_death(&Evidence::Code { signal: 6, digest });
        assert_eq!(told.is_empty(), blamed.is_empty(), "somebody is blamed");
        assert!(told.iter().all(|death| blamed.contains(&&death.digest)), "who served or was about to is who is blamed");
        assert_eq!((&mark.committed, &mark.fallback, &mark.source), (&before.committed, &before.fallback, &before.source));
        assert_eq!((&mark.pending, &mark.candidate), (&None, &None));
        assert!(before.held.iter().all(|held| mark.held(&held.digest).is_some()), "{before:?} became {mark:?}");
        assert!(told.iter().all(|told| told.is_held == mark.held(&told.digest).is_some() || before.held(&told.digest).is_some()));
        assert!(mark.deaths >= before.deaths && is_known(&mark), "{mark:?}");
        // The next start, as a host does it.
        match mark.start().map(|(digest, _)| digest.to_owned()) {
            Some(started) => mark.pending = Some(started),
            None => break,
        }
        assert!(death < 9, "a loop of crashes: {mark:?}");
    }
}

/// Tells any bytes as a story of files, events and looks: in the end every change is found, and none that isn't there.
///
/// # Panics
///
/// If it isn't so.
#[cfg(feature = "dev")]
pub fn watcher(bytes: &[u8]) {
    crate::dev::watch::model::tell(bytes);
}

fn is_coherent(manifest: &Manifest) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(!manifest.name.is_empty() && manifest.name.chars().all(is_plain), "{manifest:?}");
    let fields = [&manifest.version, &manifest.api, &manifest.rustc, &manifest.target, &manifest.panic, &manifest.border];
    assert!(fields.into_iter().chain(&manifest.requires).all(|field| !field.contains('\n')), "{manifest:?}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Marsaglia's xorshift, so that a failure comes again.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % (end.max(1) as u64)).expect("below a usize")
        }
    }

    /// The files of a corpus, each as it is and then changed in many ways.
    fn over(corpus: &str, times: usize, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(corpus);
        let files = fs::read_dir(&folder).expect("a corpus").flatten().map(|entry| fs::read(entry.path()).expect("a file"));
        let mut files: Vec<_> = files.collect();
        files.sort();
        assert!(files.len() > 3, "{} has files", folder.display());
        files.iter().for_each(|file| body(file));
        let mut random = Random(0x6d69_6461_6972);
        for round in 0..times {
            let mut bytes = files[random.below(files.len())].clone();
            for _ in 0..=random.below(4) {
                change(&mut bytes, &mut random);
            }
            let ran = std::panic::catch_unwind(|| body(&bytes));
            assert!(ran.is_ok(), "round {round}: {:02x?}", &bytes[..bytes.len().min(1024)]);
        }
    }

    fn change(bytes: &mut Vec<u8>, random: &mut Random) {
        // What matters most stands at the start.
        let reach = if random.below(2) == 0 { bytes.len().min(1024) } else { bytes.len() };
        let place = random.below(reach);
        let odd = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x7fff_ffff, 0xffff_ffff, u64::MAX / 2, u64::MAX - 7, u64::MAX];
        match (random.below(6), bytes.get_mut(place)) {
            (0, _) => bytes.truncate(place),
            (1, Some(byte)) => *byte ^= 1 << random.below(8),
            (2, Some(byte)) => *byte = random.below(256) as u8,
            (3, Some(_)) => {
                let number = odd[random.below(odd.len())].to_le_bytes();
                let size = [2, 4, 8][random.below(3)].min(bytes.len() - place);
                bytes[place..place + size].copy_from_slice(&number[..size]);
            }
            (4, Some(_)) => {
                let end = bytes.len().min(place + random.below(64));
                let to = random.below(bytes.len()).min(bytes.len() - (end - place));
                bytes.copy_within(place..end, to);
            }
            _ => bytes.extend(std::iter::repeat_n(random.below(256) as u8, random.below(64))),
        }
    }

    #[test]
    fn inspecting_ends_whatever_the_bytes_are() {
        over("inspect", 20_000, super::inspect);
    }

    #[test]
    fn what_is_known_is_read_back_and_no_death_lets_go_of_what_is_held() {
        over("marks", 20_000, super::marks);
    }

    #[test]
    #[cfg(feature = "dev")]
    fn g16_every_change_is_found_whatever_the_system_says_of_it() {
        over("watcher", 50_000, super::watcher);
        let mut random = Random(0x7363_656e_6573);
        for _ in 0..50_000 {
            let story: Vec<u8> = (0..random.below(120)).map(|_| random.below(256) as u8).collect();
            let ran = std::panic::catch_unwind(|| super::watcher(&story));
            assert!(ran.is_ok(), "{story:?}");
        }
    }

    #[test]
    fn reading_a_manifest_ends_whatever_the_bytes_are() {
        over("manifest", 20_000, super::manifest);
    }
}

//! What does the file beside an artifact say that its bytes are?
//!
//! `libshop.so.blake3` beside `libshop.so`, as `b3sum libshop.so > libshop.so.blake3` writes it. It tells a file that was cut off or
//! damaged on its way from a whole one. It doesn't tell who made it: whoever can write the one can write the other.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longer ones than this aren't read to their end: the digest is their first word.
const LONGEST: u64 = 4096;

/// Where the digest of an artifact stands, if somebody put it there.
#[must_use]
pub fn checksum_path(artifact: &Path) -> PathBuf {
    let mut name = OsString::from(artifact);
    name.push(".blake3");
    name.into()
}

/// The digest at `path`, in lower case; `None` if there is no such file.
///
/// # Errors
///
/// Why it can't be had, in a few words.
pub(super) fn read(path: &Path) -> Result<Option<String>, String> {
    let told = |error: io::Error| format!("it can't be read: {error}");
    // Looked at before it is opened, and not waited for: it may be a pipe.
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(told(error)),
        Ok(about) if !about.is_file() => return Err("it is no regular file".to_owned()),
        Ok(_) => {}
    }
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut text = Vec::new();
    let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    opened.and_then(|file| file.take(LONGEST).read_to_end(&mut text)).map_err(told)?;
    parse(&text).map(Some).ok_or_else(|| "it doesn't begin with 64 hexadecimal digits, as b3sum prints them".to_owned())
}

/// The first word, if it is a digest. A name with a line end in it makes b3sum begin its line with a backslash.
fn parse(text: &[u8]) -> Option<String> {
    let word = text.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    let word = std::str::from_utf8(word.strip_prefix(b"\\").unwrap_or(word)).ok()?;
    (word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| word.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_digest_and_anything_else_is_told() {
        let digest = blake3::hash(b"x").to_hex().to_string();
        for good in [
            digest.clone(),
            digest.to_uppercase(),
            format!("{digest}  libshop.so\n"),
            format!("\n  {digest}\tx"),
            format!("\\{digest}  a\\nb"),
        ] {
            assert_eq!(parse(good.as_bytes()).as_deref(), Some(digest.as_str()), "{good:?}");
        }
        for bad in ["", " \n", &digest[1..], &format!("{digest}0"), &format!("BLAKE3 (libshop.so) = {digest}"), "\\", "\u{ff}"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(checksum_path(Path::new("/a/libshop.so")), Path::new("/a/libshop.so.blake3"));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("libx.so.blake3");
        assert_eq!(read(&path), Ok(None));
        let made = rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0);
        made.expect("a pipe");
        assert_eq!(read(&path), Err("it is no regular file".to_owned()));
    }
}

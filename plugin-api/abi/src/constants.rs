//! Which numbers and words mean the same on both sides?
//!
//! Layouts are compared type by type, and say nothing of what a kind of 2 means. So every constant that crosses is listed here. The list lies by
//! name and value in a plugin's file, in a note behind its [`manifest`](crate::manifest), and is held against the host's before anything
//! opens the file.
//!
//! The rule is that of the types: what both sides know is the same, and one of the two knows all that the other does. That one is newer, or no
//! older. A list rather than a hash of it, since only a list can say which constant differs, and asks for no order.

use std::collections::BTreeMap;

use crate::logs::{Callsite, Logs, Parent, Site, Value};
use crate::store::{Kind, Lasts};
use crate::{Handler, Host, Identity, Op, Outcome, SocketOp, meta};

/// The note's type.
pub const NOTE_TYPE: u32 = 2;

enum Constant {
    Number(u64),
    Word(&'static str),
}

macro_rules! constants {
    (numbers { $($number:path,)* } words { $($word:path,)* }) => {
        &[
            $((stringify!($number), Constant::Number($number as u64)),)*
            $((stringify!($word), Constant::Word($word)),)*
        ]
    };
}

/// All of them. A test reads this crate's sources and fails if one is missing.
const ALL: &[(&str, Constant)] = constants! {
    numbers {
        Outcome::DONE, Outcome::ERROR, Outcome::PANIC, Outcome::PENDING, Outcome::REVOKED, Outcome::CONFLICT, Outcome::NOT_A_NUMBER,
        Outcome::CHUNK, Outcome::FILE, Outcome::TOO_LARGE,
        Handler::ROUTE, Handler::TASK, Handler::EVERY, Handler::MESSAGE,
        Handler::SOCKET_OPEN, Handler::SOCKET_MESSAGE, Handler::SOCKET_CLOSE, Handler::SOCKET_PINNED,
        Identity::DEV, Identity::CANDIDATE, Identity::PROBE, Identity::TRIAL,
        Host::UNTIL_RETIRE, Host::AT_ONCE,
        Op::HAS_EXPECTED, Op::HAS_AFTER,
        Kind::Get, Kind::Scan, Kind::Put, Kind::Remove, Kind::Add, Kind::Count,
        Lasts::EVER, Lasts::AS_BEFORE,
        SocketOp::SEND, SocketOp::CLOSE, SocketOp::JOIN, SocketOp::LEAVE, SocketOp::SEND_ALL, SocketOp::COUNT, SocketOp::STATE,
        SocketOp::PUT_STATE, SocketOp::RECEIVE, SocketOp::TEXT, SocketOp::SKIP,
        Callsite::EVENT, Callsite::SPAN,
        Site::NEVER, Site::SOMETIMES, Site::ALWAYS,
        Value::SIGNED, Value::UNSIGNED, Value::FLOAT, Value::BOOL, Value::STRING, Value::TEXT, Value::ERROR, Value::CAUSE,
        Parent::CURRENT, Parent::NONE, Parent::SPAN,
        Logs::ENTER, Logs::EXIT, Logs::HOLD, Logs::LET_GO,
    }
    words {
        meta::METHOD, meta::PATH, meta::NAME, meta::BODY, meta::STREAM, meta::BODY_LIMIT, meta::PERIOD, meta::OVERLAP, meta::SKIP, meta::QUEUE,
        meta::PARALLEL, meta::AT_ONCE,
        Outcome::LOCATION, Outcome::FRAMES, Outcome::KEY, Handler::BEAT, Handler::DUE,
        SocketOp::ID, SocketOp::EVENT, SocketOp::EVENT_TEXT, SocketOp::EVENT_BINARY, SocketOp::EVENT_CLOSE, SocketOp::CODE,
    }
};

/// How long the note's text is: notes end at multiples of four.
pub(crate) const SIZE: usize = write(&mut []).next_multiple_of(4);

/// The note's text: lines of `name=value`, padded with zeros.
pub(crate) const TEXT: [u8; SIZE] = {
    let mut text = [0; SIZE];
    write(&mut text);
    text
};

/// Writes the list, as far as there is room; how long it is.
const fn write(into: &mut [u8]) -> usize {
    let (mut at, mut next) = (0, 0);
    while next < ALL.len() {
        let (name, value) = &ALL[next];
        at = put(into, at, name.as_bytes());
        at = put(into, at, b"=");
        match value {
            Constant::Number(number) => at = put_number(into, at, *number),
            Constant::Word(word) => at = put(into, at, word.as_bytes()),
        }
        at = put(into, at, b"\n");
        next += 1;
    }
    at
}

const fn put(into: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let mut byte = 0;
    while byte < bytes.len() {
        if at + byte < into.len() {
            into[at + byte] = bytes[byte];
        }
        byte += 1;
    }
    at + bytes.len()
}

const fn put_number(into: &mut [u8], mut at: usize, number: u64) -> usize {
    let mut unit = 1;
    while number / unit >= 10 {
        unit *= 10;
    }
    while unit > 0 {
        at = put(into, at, &[b'0' + (number / unit % 10) as u8]);
        unit /= 10;
    }
    at
}

/// Holds the list of a plugin against this side's, which is the host's.
///
/// # Errors
///
/// The first constant that differs, with both values, and how many more do; or one that each side lacks.
pub fn compare(list: &[u8]) -> Result<(), String> {
    agree(&TEXT, list)
}

fn agree(ours: &[u8], theirs: &[u8]) -> Result<(), String> {
    let (ours, theirs) = (read(ours)?, read(theirs)?);
    let differ = theirs.iter().filter_map(|(name, value)| Some((name, value, ours.get(name).filter(|own| *own != value)?)));
    let mut differ = differ.map(|(name, theirs, ours)| format!("`{name}` is {theirs} in the plugin, {ours} in the host"));
    if let Some(first) = differ.next() {
        return Err(match differ.count() {
            0 => first,
            more => format!("{first}, and {more} more of the border's constants differ"),
        });
    }
    let lacks = |side: &BTreeMap<&str, &str>, other: &BTreeMap<&str, &str>| -> Option<String> {
        Some((*other.keys().find(|name| !side.contains_key(*name))?).to_owned())
    };
    match (lacks(&ours, &theirs), lacks(&theirs, &ours)) {
        (Some(host), Some(plugin)) => Err(format!(
            "the plugin has the constant `{host}`, which the host lacks, and the host has `{plugin}`, which the plugin lacks"
        )),
        _ => Ok(()),
    }
}

/// By name. What isn't a line of a list is passed over.
fn read(list: &[u8]) -> Result<BTreeMap<&str, &str>, String> {
    let text = std::str::from_utf8(list).map_err(|_| "the list of its constants isn't UTF-8".to_owned())?;
    Ok(text.trim_end_matches('\0').lines().filter_map(|line| line.split_once('=')).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Not in the list: the host compares versions and target by themselves, and the rest is where things are found.
    const OTHERS: [&str; 5] = ["ABI_VERSION", "NOTE_TYPE", "SOURCES", "TARGET", "VERSION"];

    /// The constants of a source file by the names that they have in the list: numbers and words, and the variants of enums that cross.
    fn constants(source: &str) -> Vec<String> {
        let (mut scope, mut is_enum, mut names) = (String::new(), false, Vec::new());
        let lines: Vec<&str> = source.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if line.starts_with("#[cfg(test)]") {
                break;
            }
            let opens =
                ["impl ", "pub mod ", "pub enum "].iter().find_map(|word| line.strip_prefix(word)).filter(|_| line.ends_with('{'));
            if let Some(opened) = opens {
                scope = opened.trim_end_matches([' ', '{']).to_owned() + "::";
                is_enum =
                    line.starts_with("pub enum ") && lines[..at].iter().rev().take(3).any(|line| line.starts_with("#[repr(u"));
            } else if *line == "}" {
                (scope, is_enum) = (String::new(), false);
            }
            let line = line.trim();
            let constant = ["pub const ", "pub(crate) const "].iter().find_map(|word| line.strip_prefix(word));
            if let Some((name, rest)) = constant.and_then(|rest| rest.split_once(": ")) {
                let kind = rest.split(" =").next().unwrap_or_default();
                if ["u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize", "&str"].contains(&kind) {
                    names.push(format!("{scope}{name}"));
                }
            } else if let Some((name, _)) = line.split_once(" = ").filter(|_| is_enum) {
                names.push(format!("{scope}{name}"));
            }
        }
        names
    }

    fn all_constants(folder: &Path, names: &mut BTreeSet<String>) {
        for path in fs::read_dir(folder).expect("a folder of sources").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                all_constants(&path, names);
            } else if !path.ends_with("constants.rs") {
                names.extend(constants(&fs::read_to_string(&path).expect("a source file")));
            }
        }
    }

    #[test]
    fn every_constant_of_this_crate_is_in_the_list() {
        let mut names = BTreeSet::new();
        all_constants(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
        names.retain(|name| !OTHERS.contains(&name.as_str()));
        let listed: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert!(names.len() > 70, "the pattern finds them");
        assert_eq!(names.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "add them to ALL");
        assert_eq!(listed.difference(&names).collect::<Vec<_>>(), Vec::<&String>::new(), "they are no constants of this crate");
        assert_eq!(listed.len(), ALL.len(), "each is there once");
    }

    #[test]
    fn a_constant_is_found_wherever_it_stands() {
        let source = "pub const A: u32 = 1;\nimpl Outcome {\n    pub const B: u64 = 2;\n    pub const fn c(d: u32) -> u32 {\n}\n\
                      pub mod meta {\n    pub(crate) const E: &str = \"e\";\n}\n#[repr(u32)]\npub enum Kind {\n    F = 1,\n}\n\
                      pub enum Own {\n    G = 1,\n}\npub const H: Span = Span::EMPTY;\n#[cfg(test)]\nconst I: u32 = 1;\n";
        assert_eq!(constants(source), ["A", "Outcome::B", "meta::E", "Kind::F"]);
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let list = read(&TEXT).expect("a list");
        assert_eq!(list.len(), ALL.len());
        let words =
            ["Outcome::DONE", "Outcome::TOO_LARGE", "Handler::SOCKET_OPEN", "Lasts::AS_BEFORE", "Kind::Count", "meta::PERIOD"];
        assert_eq!(words.map(|name| list[name]), ["0", "9", "20", "18446744073709551615", "6", "period_ns"]);
        assert_eq!((SIZE % 4, compare(&TEXT)), (0, Ok(())));
    }

    #[test]
    fn what_both_know_is_the_same_and_one_of_them_knows_all() {
        let host = b"Outcome::DONE=0\nOutcome::ERROR=1\nmeta::PATH=path\n\0\0";
        for (list, reason) in [
            (&host[..], ""),
            (b"meta::PATH=path\nOutcome::DONE=0\nOutcome::ERROR=1\n", ""),
            (b"Outcome::DONE=0\nOutcome::ERROR=1\n", ""),
            (b"", ""),
            (b"Outcome::DONE=0\nOutcome::ERROR=1\nmeta::PATH=path\nOutcome::PANIC=2\nno line\n", ""),
            (b"Outcome::ERROR=2\n", "`Outcome::ERROR` is 2 in the plugin, 1 in the host"),
            (b"meta::PATH=pfad\n", "`meta::PATH` is pfad in the plugin, path in the host"),
            (
                b"Outcome::DONE=1\nOutcome::ERROR=0\n",
                "`Outcome::DONE` is 1 in the plugin, 0 in the host, and 1 more of the border's constants differ",
            ),
            (
                b"Outcome::DONE=0\nOutcome::FAILED=1\n",
                "the plugin has the constant `Outcome::FAILED`, which the host lacks, and the host has `Outcome::ERROR`, which the plugin lacks",
            ),
            (b"\xff", "the list of its constants isn't UTF-8"),
        ] {
            assert_eq!(agree(host, list).err().unwrap_or_default(), reason, "{}", String::from_utf8_lossy(list));
        }
    }
}

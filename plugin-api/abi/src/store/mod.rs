//! What does a table remember?
//!
//! The semantics of host-held state, in one place for hosts and for unit tests of handlers: values with revisions and forms, writes that
//! are all or nothing. [`run`] says what operations do to any [`Rows`](run::Rows); [`Memory`] keeps rows in the process, a host may keep them
//! elsewhere. No plugin code runs inside.
//!
//! A value bears the schema number of its writer. Beside it may lie older forms of the same value, which newer code wrote so that the code
//! before can go on reading: a reader gets the newest form that isn't newer than its own schema.

mod integer;
mod memory;
pub mod run;
mod value;

use std::fmt;
use std::time::Duration;

pub use memory::{Memory, clock};
pub use value::{Found, Tally, Value, forms, pack_form};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Answers with the row, or none.
    Get = 1,
    /// Answers with the rows whose key starts with `key` and comes after `after`, in order of their keys, at most `limit`.
    Scan = 2,
    /// Writes the value; answers with its revision.
    Put = 3,
    /// Removes the value; `number` is 1 if there was one.
    Remove = 4,
    /// Adds `number` to an integer, 0 where there is none; answers with the sum.
    Add = 5,
    /// `number` is how many keys start with `key`.
    Count = 6,
}

impl TryFrom<u32> for Kind {
    type Error = u32;

    fn try_from(kind: u32) -> Result<Self, u32> {
        Ok(match kind {
            1 => Kind::Get,
            2 => Kind::Scan,
            3 => Kind::Put,
            4 => Kind::Remove,
            5 => Kind::Add,
            6 => Kind::Count,
            other => return Err(other),
        })
    }
}

/// How long a value that is written lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lasts {
    /// Until it is removed.
    #[default]
    Ever,
    /// As long as what it replaces would have.
    AsBefore,
    /// So many milliseconds from the moment at which it is written.
    For(u64),
}

impl Lasts {
    /// For ever, as it crosses.
    pub(crate) const EVER: u64 = 0;
    /// As long as before, as it crosses. What lies between is a time.
    pub(crate) const AS_BEFORE: u64 = u64::MAX;

    /// For this time; less than a millisecond is one.
    #[must_use]
    pub fn during(time: Duration) -> Self {
        Self::For(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, u64::MAX - 2))
    }
}

/// As it crosses.
impl From<Lasts> for u64 {
    fn from(lasts: Lasts) -> u64 {
        match lasts {
            Lasts::Ever => Lasts::EVER,
            Lasts::AsBefore => Lasts::AS_BEFORE,
            Lasts::For(milliseconds) => milliseconds.clamp(1, u64::MAX - 1),
        }
    }
}

impl From<u64> for Lasts {
    fn from(lasts: u64) -> Lasts {
        match lasts {
            Lasts::EVER => Lasts::Ever,
            Lasts::AS_BEFORE => Lasts::AsBefore,
            milliseconds => Lasts::For(milliseconds),
        }
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Op<'a> {
    /// What it does.
    pub kind: Kind,
    /// The table's full name, `plugin/table`.
    pub table: &'a str,
    /// The key, or the prefix of a scan or count.
    pub key: &'a str,
    /// Where a scan goes on.
    pub after: Option<&'a str>,
    /// How many rows a scan gives at most.
    pub limit: usize,
    /// A put or remove goes through only if the value has this revision; 0 means that there is none.
    pub expected: Option<u64>,
    /// The schema number of whoever writes or reads; a reader with 0 gets values as they are.
    pub schema: u32,
    /// What to add.
    pub number: i64,
    /// How long what is written lasts.
    pub lasts: Lasts,
    /// The value to put.
    pub bytes: &'a [u8],
    /// Older forms of it, packed by [`pack_form`].
    pub older: &'a [u8],
}

impl<'a> Op<'a> {
    /// An operation on one key; the other fields are at rest.
    #[must_use]
    pub fn new(kind: Kind, table: &'a str, key: &'a str) -> Self {
        let (after, limit, expected) = (None, usize::MAX, None);
        Self { kind, table, key, after, limit, expected, schema: 0, number: 0, lasts: Lasts::Ever, bytes: &[], older: &[] }
    }

    /// Whether it changes anything.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Put | Kind::Remove | Kind::Add)
    }
}

/// One row of an answer. A write answers with one row, a read with as many as it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: String,
    /// The bytes of the form that the reader can read, else the value's own; empty for writes.
    pub bytes: Vec<u8>,
    /// The value's revision, after a write the new one.
    pub revision: u64,
    /// A sum, a count, or whether something was removed.
    pub number: i64,
    /// The schema number of these bytes.
    pub schema: u32,
    /// When the value ends, in milliseconds since 1970, 0 for never; it doesn't cross to plugins.
    pub ends: u64,
}

/// Why a store didn't do it. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Operation `index` expected another revision than the one that is there.
    Conflict {
        /// Its place among the operations.
        index: usize,
        /// The revision that is there, 0 for none.
        revision: u64,
    },
    /// Operation `index` adds to something that is no integer, or beyond its range.
    NotANumber {
        /// Its place among the operations.
        index: usize,
    },
    /// The generation that asked was rejected, so its services are gone.
    Revoked,
    /// Something is larger than the store takes: which, its size and the limit.
    TooLarge(String),
    /// The backend failed.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Conflict { revision: 0, .. } => f.write_str("the value is gone"),
            Refusal::Conflict { revision, .. } => write!(f, "the value has changed since: it is at revision {revision}"),
            Refusal::NotANumber { .. } => f.write_str("what is there is no integer, or the sum is out of range"),
            Refusal::Revoked => f.write_str("this generation was rejected, its services are gone"),
            Refusal::TooLarge(what) => f.write_str(what),
            Refusal::Failed(reason) => write!(f, "the store failed: {reason}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The answer to some operations.
pub type Answer = Result<Vec<Row>, Refusal>;

/// How large a key and a value may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a key.
    pub key: usize,
    /// Of a value, and of each of its older forms.
    pub value: usize,
}

impl Default for Limits {
    /// 1 KiB and 16 MiB.
    fn default() -> Self {
        Self { key: 1 << 10, value: 16 << 20 }
    }
}

impl Limits {
    /// Whether what is to be written fits.
    ///
    /// # Errors
    ///
    /// What is too large: table, key, size and limit.
    pub fn check(&self, ops: &[Op<'_>]) -> Result<(), Refusal> {
        for op in ops.iter().filter(|op| op.is_write()) {
            let refuse = |what: &str, size: usize, limit: usize| {
                let table = op.table.rsplit_once('/').map_or(op.table, |(_, table)| table);
                let (mut key, mut rest) = (String::new(), "");
                for (count, letter) in op.key.chars().enumerate() {
                    if count == 40 {
                        rest = "..";
                        break;
                    }
                    key.push(letter);
                }
                let text =
                    format!("{table}[{key:?}{rest}]: {what} has {size} bytes, and at most {limit} are taken; nothing was written");
                Err(Refusal::TooLarge(text))
            };
            if op.key.len() > self.key {
                return refuse("the key", op.key.len(), self.key);
            }
            let largest = forms(op.older).map(|(_, bytes)| bytes.len()).chain([op.bytes.len()]).max().unwrap_or_default();
            if largest > self.value {
                return refuse("the value", largest, self.value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use super::*;

    fn put<'a>(key: &'a str, bytes: &'a [u8]) -> Op<'a> {
        Op { bytes, ..Op::new(Kind::Put, "t", key) }
    }

    fn keys(store: &Memory, op: Op<'_>) -> Vec<String> {
        store.apply(&[op]).expect("a read").into_iter().map(|row| row.key).collect()
    }

    #[test]
    fn a_batch_with_a_conflict_changes_nothing() {
        let store = Memory::default();
        store.apply(&[put("a", b"1")]).expect("a put");
        let stale = Op { expected: Some(99), ..put("b", b"2") };
        let refusal = store.apply(&[put("a", b"9"), put("c", b"3"), Op::new(Kind::Remove, "t", "a"), stale]);
        assert_eq!(refusal, Err(Refusal::Conflict { index: 3, revision: 0 }));
        assert_eq!(keys(&store, Op::new(Kind::Scan, "t", "")), ["a"]);
        assert_eq!(store.apply(&[Op::new(Kind::Get, "t", "a")]).expect("a read")[0].bytes, b"1");
    }

    #[test]
    fn a_value_that_came_back_has_another_revision() {
        let store = Memory::default();
        let first = store.apply(&[put("a", b"1")]).expect("a put")[0].revision;
        store.apply(&[Op::new(Kind::Remove, "t", "a"), put("a", b"1")]).expect("a batch");
        let again = Op { expected: Some(first), ..put("a", b"2") };
        assert!(matches!(store.apply(&[again]), Err(Refusal::Conflict { .. })));
    }

    #[test]
    fn scans_page_by_prefix() {
        let store = Memory::default();
        for key in ["a1", "b1", "b2", "b3", "c1"] {
            store.apply(&[put(key, b"")]).expect("a put");
        }
        let scan = |after, limit| Op { after, limit, ..Op::new(Kind::Scan, "t", "b") };
        assert_eq!(keys(&store, scan(None, 2)), ["b1", "b2"]);
        assert_eq!(keys(&store, scan(Some("b2"), 9)), ["b3"]);
        assert_eq!(keys(&store, scan(Some("a"), 9)), ["b1", "b2", "b3"]);
        assert_eq!(store.apply(&[Op::new(Kind::Count, "t", "b")]).expect("a count")[0].number, 3);
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes there, and has nothing unsafe")]
    fn keys_are_spread_over_a_table_with_few_looks() {
        let check = |keys: &[String], most: usize| {
            let sorted: std::collections::BTreeSet<String> = keys.iter().cloned().collect();
            let ends = sorted.first().cloned().zip(sorted.last().cloned());
            let mut looks = 0;
            let next = |after: &str| {
                looks += 1;
                Ok(sorted.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)).next().cloned())
            };
            let found = run::spread(ends, most, next).expect("nothing fails");
            assert_eq!(found.iter().collect::<std::collections::BTreeSet<_>>().len(), found.len(), "each once");
            (found, looks)
        };
        let keys: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        assert_eq!(check(&keys, 5).0, ["000", "099", "040", "020", "060"]);
        assert_eq!(check(&[], 4).0, Vec::<String>::new());
        assert_eq!(check(&keys[..1], 4).0, ["000"]);
        assert_eq!(check(&keys[..2], 4).0, ["000", "001"]);
        for keys in [
            keys,
            (0..100).map(|n| format!("user-{}-é", n * n * n)).collect(),
            (0..100).map(|n| "x".repeat(n)).collect(),
            (0..26u8).map(|n| format!("{}\u{10ffff}{n}", char::from(b'a' + n))).collect(),
        ] {
            let (found, looks) = check(&keys, 1_000);
            assert!(found.len() >= keys.len() * 9 / 10, "{} of {} with {looks} looks", found.len(), keys.len());
            assert!(looks < keys.len() * 60, "{looks} looks for {}", keys.len());
        }
    }

    #[test]
    fn adding_counts_from_zero_and_refuses_what_is_no_number() {
        let store = Memory::default();
        let add = |number| Op { number, ..Op::new(Kind::Add, "t", "n") };
        assert_eq!(store.apply(&[add(2), add(3)]).expect("sums")[1].number, 5);
        assert_eq!(store.apply(&[add(i64::MAX)]), Err(Refusal::NotANumber { index: 0 }));
        store.apply(&[put("n", b"\xa1x")]).expect("a put");
        assert_eq!(store.apply(&[add(1)]), Err(Refusal::NotANumber { index: 0 }));
    }

    #[test]
    fn what_has_ended_is_not_read_scanned_or_counted_and_is_swept() {
        let now = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1_000));
        let clock = std::sync::Arc::clone(&now);
        let store = Memory::new(Limits::default(), move || clock.load(std::sync::atomic::Ordering::Relaxed));
        let until = |key, lasts| Op { lasts, ..put(key, b"1") };
        store.apply(&[until("a", Lasts::For(10)), until("b", Lasts::For(20)), put("c", b"1")]).expect("puts");
        let count = || store.apply(&[Op::new(Kind::Count, "t", "")]).expect("a count")[0].number;
        assert_eq!((keys(&store, Op::new(Kind::Scan, "t", "")).len(), count()), (3, 3));
        now.store(1_010, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((keys(&store, Op::new(Kind::Scan, "t", "")), count()), (vec!["b".to_owned(), "c".to_owned()], 2));
        assert_eq!(store.apply(&[Op::new(Kind::Get, "t", "a")]), Ok(Vec::new()));
        let anew = Op { expected: Some(0), ..put("a", b"2") };
        store.apply(&[anew]).expect("there is none");
        store.apply(&[until("b", Lasts::AsBefore)]).expect("a put");
        now.store(1_030, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((count(), store.tally("t").values), (2, 3), "it is there and isn't");
        assert_eq!((store.sweep(10), store.sweep(10), store.tally("t").values), (1, 0, 2));
    }

    #[test]
    fn what_is_too_large_is_named_and_nothing_of_its_batch_is_written() {
        let store = Memory::new(Limits { key: 4, value: 3 }, clock);
        for (op, words) in
            [(put("a", b"1234"), "t[\"a\"]: the value has 4 bytes, and at most 3"), (put("long!", b""), "the key has 5 bytes")]
        {
            let refusal = store.apply(&[put("b", b"1"), op]).expect_err("too large");
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
        assert_eq!(store.tallies(), []);
    }
}

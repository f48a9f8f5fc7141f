//! What does a table remember?
//!
//! The semantics of host-held state, in one place for hosts and for unit tests of handlers: values with revisions, writes that are all or
//! nothing, and [`Memory`], which keeps them in the process. No plugin code runs inside.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

/// A value as it is kept: neither side's Rust types, so that any generation may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Unique in the store and growing: no two writes bear the same, so compare-and-set can't be fooled by a value that came back.
    pub revision: u64,
    /// The schema number of the code that wrote it.
    pub schema: u32,
    /// MessagePack with named fields.
    pub bytes: Vec<u8>,
}

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
    /// The writer's schema number.
    pub schema: u32,
    /// What to add.
    pub number: i64,
    /// The value to put.
    pub bytes: &'a [u8],
}

impl<'a> Op<'a> {
    /// An operation on one key; the other fields are at rest.
    #[must_use]
    pub fn new(kind: Kind, table: &'a str, key: &'a str) -> Self {
        Self { kind, table, key, after: None, limit: usize::MAX, expected: None, schema: 0, number: 0, bytes: &[] }
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
    /// The value's bytes; empty for writes.
    pub bytes: Vec<u8>,
    /// The value's revision, after a write the new one.
    pub revision: u64,
    /// A sum, a count, or whether something was removed.
    pub number: i64,
    /// The schema number of the value's writer.
    pub schema: u32,
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
            Refusal::Failed(reason) => write!(f, "the store failed: {reason}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The answer to some operations.
pub type Answer = Result<Vec<Row>, Refusal>;

type Table = BTreeMap<String, Value>;

/// A store in the process's memory.
///
/// One lock for all tables keeps a batch over several of them all or nothing; it is held for map operations only, never across foreign code.
#[derive(Debug, Default)]
pub struct Memory(RwLock<Tables>);

#[derive(Debug, Default)]
struct Tables {
    tables: BTreeMap<String, Table>,
    revision: u64,
}

impl Memory {
    /// Does all of `ops`, in order, or none.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the first operation that can't be done.
    pub fn apply(&self, ops: &[Op<'_>]) -> Answer {
        if ops.iter().any(Op::is_write) {
            let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
            tables.write(ops)
        } else {
            let tables = self.0.read().unwrap_or_else(PoisonError::into_inner);
            Ok(ops.iter().flat_map(|op| tables.read(op)).collect())
        }
    }

    /// Does all of each group, in order, or none of it: as if each were applied alone, with nobody in between.
    pub fn apply_each(&self, groups: &[Vec<Op<'_>>]) -> Vec<Answer> {
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        groups.iter().map(|ops| tables.write(ops)).collect()
    }

    /// At most `most` keys of a table, spread evenly over it, in an order in which those that come first are spread evenly too: the first
    /// and the last key, the one in the middle, those between, and so on.
    #[must_use]
    pub fn sample(&self, table: &str, most: usize) -> Vec<String> {
        let keys: Vec<String> = {
            let tables = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let Some(table) = tables.tables.get(table) else { return Vec::new() };
            let step = table.len().div_ceil(most.max(1)).max(1);
            let last = table.last_key_value().map(|(key, _)| key).filter(|_| (table.len() - 1) % step != 0);
            table.keys().step_by(step).chain(last).cloned().collect()
        };
        let bits = usize::BITS - keys.len().leading_zeros();
        let mut places: Vec<usize> = (0..keys.len()).collect();
        // Counting with the bits in reverse (van der Corput) halves the widest gap again and again.
        places.sort_by_key(|place| if place + 1 == keys.len() { 0 } else { place.reverse_bits() >> (usize::BITS - bits) });
        places.into_iter().map(|place| keys[place].clone()).collect()
    }

    /// What an integer becomes when `number` is added; `None` if it is no integer, or out of range.
    #[must_use]
    pub fn sum(there: Option<&Row>, number: i64) -> Option<i64> {
        there.map_or(Some(0), |row| integer(&row.bytes))?.checked_add(number)
    }
}

fn integer(bytes: &[u8]) -> Option<i64> {
    rmp_serde::from_slice(bytes).ok()
}

impl Row {
    fn of((key, value): (&String, &Value)) -> Self {
        Self { key: key.clone(), bytes: value.bytes.clone(), revision: value.revision, number: 0, schema: value.schema }
    }
}

impl Tables {
    fn read(&self, op: &Op<'_>) -> Vec<Row> {
        let table = self.tables.get(op.table);
        let from = match op.after {
            Some(after) if after >= op.key => Bound::Excluded(after),
            _ => Bound::Included(op.key),
        };
        let within = |table: &'_ Table| {
            let range = table.range::<str, _>((from, Bound::Unbounded));
            range.take_while(|(key, _)| key.starts_with(op.key)).take(op.limit).map(Row::of).collect()
        };
        match op.kind {
            Kind::Get => table.and_then(|table| table.get_key_value(op.key)).map(Row::of).into_iter().collect(),
            Kind::Scan => table.map(within).unwrap_or_default(),
            Kind::Count => {
                let keys = |table: &Table| {
                    table
                        .range::<str, _>((Bound::Included(op.key), Bound::Unbounded))
                        .take_while(|(key, _)| key.starts_with(op.key))
                        .count()
                };
                let number = table.map_or(0, |table| if op.key.is_empty() { table.len() } else { keys(table) });
                vec![Row { number: i64::try_from(number).unwrap_or(i64::MAX), ..Row::default() }]
            }
            Kind::Put | Kind::Remove | Kind::Add => Vec::new(),
        }
    }

    /// Remembers what each write replaced, so that a refusal can put it back.
    fn write(&mut self, ops: &[Op<'_>]) -> Answer {
        let mut rows = Vec::with_capacity(ops.len());
        let mut undo: Vec<(&str, &str, Option<Value>)> = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            if !op.is_write() {
                rows.extend(self.read(op));
                continue;
            }
            match self.write_one(index, op) {
                Ok((row, before)) => {
                    rows.push(row);
                    undo.push((op.table, op.key, before));
                }
                Err(refusal) => {
                    for (table, key, before) in undo.into_iter().rev() {
                        let table = self.tables.entry(table.to_owned()).or_default();
                        match before {
                            Some(value) => table.insert(key.to_owned(), value),
                            None => table.remove(key),
                        };
                    }
                    return Err(refusal);
                }
            }
        }
        Ok(rows)
    }

    fn write_one(&mut self, index: usize, op: &Op<'_>) -> Result<(Row, Option<Value>), Refusal> {
        let before = self.tables.get(op.table).and_then(|table| table.get(op.key));
        let revision = before.map_or(0, |value| value.revision);
        if op.expected.is_some_and(|expected| expected != revision) {
            return Err(Refusal::Conflict { index, revision });
        }
        let (bytes, number) = match op.kind {
            Kind::Remove => (None, i64::from(before.is_some())),
            Kind::Add => {
                let now = before.map_or(Some(0), |value| integer(&value.bytes));
                let sum = now.and_then(|now| now.checked_add(op.number)).ok_or(Refusal::NotANumber { index })?;
                (Some(rmp_serde::to_vec(&sum).map_err(|error| Refusal::Failed(error.to_string()))?), sum)
            }
            Kind::Get | Kind::Scan | Kind::Put | Kind::Count => (Some(op.bytes.to_vec()), 0),
        };
        self.revision += 1;
        let row = Row { key: op.key.to_owned(), bytes: Vec::new(), revision: self.revision, number, schema: op.schema };
        let before = match bytes {
            Some(bytes) => {
                let value = Value { revision: self.revision, schema: op.schema, bytes };
                self.tables.entry(op.table.to_owned()).or_default().insert(op.key.to_owned(), value)
            }
            None => self.tables.get_mut(op.table).and_then(|table| table.remove(op.key)),
        };
        Ok((row, before))
    }
}

#[cfg(test)]
mod tests {
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
    fn a_sample_is_spread_over_the_keys() {
        let store = Memory::default();
        let keys: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        for key in &keys {
            store.apply(&[put(key, b"")]).expect("a put");
        }
        assert_eq!(store.sample("t", 4), ["000", "099", "050", "025", "075"]);
        let all = store.sample("t", 1_000);
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
        assert_eq!(all[..4], ["000", "099", "064", "032"]);
        assert_eq!(store.sample("none", 4), Vec::<String>::new());
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
}

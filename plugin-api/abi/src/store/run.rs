//! What do operations do to rows, wherever they lie?

use std::ops::Bound;

use super::{Answer, Found, Kind, Lasts, Op, Refusal, Row, Value, integer};

/// Rows to read, as they are at one moment.
pub trait Look {
    /// Shows the value at `key`, if there is one.
    ///
    /// # Errors
    ///
    /// The backend's.
    fn get(&self, table: &str, key: &str, see: &mut dyn FnMut(Found<'_>)) -> Result<(), Refusal>;

    /// Shows the values from a key on, in order of their keys, until `see` has enough and says `false`.
    ///
    /// # Errors
    ///
    /// The backend's.
    fn walk(&self, table: &str, from: Bound<&str>, see: &mut dyn FnMut(&str, Found<'_>) -> bool) -> Result<(), Refusal>;

    /// How many values of a table haven't ended by `now`.
    ///
    /// # Errors
    ///
    /// The backend's.
    fn count(&self, table: &str, now: u64) -> Result<u64, Refusal>;
}

/// Rows to write.
pub trait Rows: Look {
    /// Puts a value, or removes it; what was there.
    ///
    /// # Errors
    ///
    /// The backend's.
    fn put(&mut self, table: &str, key: &str, value: Option<Value>) -> Result<Option<Value>, Refusal>;

    /// A revision that no write has borne.
    fn stamp(&mut self) -> u64;
}

fn row(key: &str, found: &Found<'_>, reader: u32) -> Row {
    let (schema, bytes) = found.form(reader);
    Row { key: key.to_owned(), bytes: bytes.to_vec(), revision: found.revision, number: 0, schema, ends: found.ends }
}

/// What a read answers at a moment.
///
/// # Errors
///
/// The backend's.
pub fn read(rows: &impl Look, op: &Op<'_>, now: u64) -> Answer {
    page(rows, op, now, usize::MAX)
}

/// The same, but a scan ends with the value that makes it `most` bytes or more.
///
/// # Errors
///
/// The backend's.
pub fn page(rows: &impl Look, op: &Op<'_>, now: u64, most: usize) -> Answer {
    let (mut found, mut size) = (Vec::new(), 0);
    match op.kind {
        Kind::Get => rows.get(op.table, op.key, &mut |value| {
            if !value.is_over(now) {
                found.push(row(op.key, &value, op.schema));
            }
        })?,
        Kind::Scan if op.limit == 0 => {}
        Kind::Scan => {
            let from = match op.after {
                Some(after) if after >= op.key => Bound::Excluded(after),
                _ => Bound::Included(op.key),
            };
            rows.walk(op.table, from, &mut |key, value| {
                let is_within = key.starts_with(op.key);
                if is_within && !value.is_over(now) {
                    size += value.bytes.len();
                    found.push(row(key, &value, op.schema));
                }
                is_within && found.len() < op.limit && size < most
            })?;
        }
        Kind::Count => {
            let mut number = 0;
            if op.key.is_empty() {
                number = rows.count(op.table, now)?;
            } else {
                rows.walk(op.table, Bound::Included(op.key), &mut |key, value| {
                    let is_within = key.starts_with(op.key);
                    number += u64::from(is_within && !value.is_over(now));
                    is_within
                })?;
            }
            found.push(Row { number: i64::try_from(number).unwrap_or(i64::MAX), ..Row::default() });
        }
        Kind::Put | Kind::Remove | Kind::Add => {}
    }
    Ok(found)
}

/// Does all of `ops`, in order, or none: remembers what each write replaced, so that a refusal can put it back.
///
/// # Errors
///
/// A [`Refusal`] that names the first operation that can't be done. After one of the backend's own, rows may be half written.
pub fn write(rows: &mut impl Rows, ops: &[Op<'_>], now: u64) -> Answer {
    let mut answer = Vec::with_capacity(ops.len());
    let mut undo: Vec<(&str, &str, Option<Value>)> = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        let done = if op.is_write() {
            write_one(rows, index, op, now).map(|(row, before)| {
                undo.push((op.table, op.key, before));
                answer.push(row);
            })
        } else {
            read(rows, op, now).map(|found| answer.extend(found))
        };
        if let Err(refusal) = done {
            for (table, key, before) in undo.into_iter().rev() {
                rows.put(table, key, before)?;
            }
            return Err(refusal);
        }
    }
    Ok(answer)
}

fn write_one(rows: &mut impl Rows, index: usize, op: &Op<'_>, now: u64) -> Result<(Row, Option<Value>), Refusal> {
    let (mut revision, mut ends, mut there) = (0, 0, None);
    rows.get(op.table, op.key, &mut |value| {
        if !value.is_over(now) {
            (revision, ends) = (value.revision, value.ends);
            there = Some(if op.kind == Kind::Add { value.bytes.to_vec() } else { Vec::new() });
        }
    })?;
    if op.expected.is_some_and(|expected| expected != revision) {
        return Err(Refusal::Conflict { index, revision });
    }
    let (bytes, number) = match op.kind {
        Kind::Remove => (None, i64::from(there.is_some())),
        Kind::Add => {
            let sum = sum(there.as_deref(), op.number).ok_or(Refusal::NotANumber { index })?;
            (Some(integer::write(sum)), sum)
        }
        Kind::Get | Kind::Scan | Kind::Put | Kind::Count => (Some(op.bytes.to_vec()), 0),
    };
    let ends = match op.lasts {
        Lasts::AsBefore => ends,
        _ if op.kind == Kind::Add => ends,
        Lasts::Ever => 0,
        Lasts::For(milliseconds) => now.saturating_add(milliseconds),
    };
    let revision = rows.stamp();
    let value = bytes.map(|bytes| Value { revision, schema: op.schema, ends, older: op.older.to_vec(), bytes });
    let before = rows.put(op.table, op.key, value)?;
    Ok((Row { key: op.key.to_owned(), bytes: Vec::new(), revision, number, schema: op.schema, ends }, before))
}

/// What an integer becomes when `number` is added; `None` if it is no integer, or out of range.
#[must_use]
pub fn sum(there: Option<&[u8]>, number: i64) -> Option<i64> {
    there.map_or(Some(0), integer::read)?.checked_add(number)
}

/// What some writes would answer now, without writing. A row's revision is 0, as none was given yet.
///
/// # Errors
///
/// As for [`write`](write()); `look` does the reads.
pub fn foresee(ops: &[Op<'_>], look: impl Fn(&Op<'_>) -> Answer) -> Answer {
    let mut rows = Vec::with_capacity(ops.len());
    for (index, op) in ops.iter().enumerate() {
        if !op.is_write() {
            rows.extend(look(op)?);
            continue;
        }
        let there = look(&Op::new(Kind::Get, op.table, op.key))?;
        let revision = there.first().map_or(0, |row| row.revision);
        if op.expected.is_some_and(|expected| expected != revision) {
            return Err(Refusal::Conflict { index, revision });
        }
        let number = match op.kind {
            Kind::Remove => i64::from(!there.is_empty()),
            Kind::Add => sum(there.first().map(|row| &*row.bytes), op.number).ok_or(Refusal::NotANumber { index })?,
            Kind::Get | Kind::Scan | Kind::Put | Kind::Count => 0,
        };
        rows.push(Row { key: op.key.to_owned(), number, schema: op.schema, ..Row::default() });
    }
    Ok(rows)
}

/// At most `most` keys of a table, spread over it: the first and the last, then ever narrower gaps are halved, so that those that come
/// first are spread too. It looks at no more than some places for each key, so that a table may be of any size.
///
/// `next` gives the first key behind one.
///
/// # Errors
///
/// What `next` says.
pub fn spread(
    ends: Option<(String, String)>,
    most: usize,
    mut next: impl FnMut(&str) -> Result<Option<String>, Refusal>,
) -> Result<Vec<String>, Refusal> {
    /// Halvings of a gap in which nothing was found before it counts as empty.
    const TRIES: u32 = 24;
    let Some((first, last)) = ends else { return Ok(Vec::new()) };
    let mut keys = vec![first.clone()];
    if last != first {
        keys.push(last.clone());
    }
    let mut gaps = std::collections::VecDeque::from([(first, last, 0)]);
    while let Some((low, high, tries)) = gaps.pop_front() {
        if keys.len() >= most {
            break;
        }
        let Some(middle) = between(&low, &high).filter(|_| tries < TRIES) else { continue };
        let found = next(&middle)?.filter(|found| *found < high);
        // Up to the middle, itself included, there may be more, and above what was found.
        let below = middle + "\0";
        match found {
            Some(found) => {
                keys.push(found.clone());
                gaps.push_back((low, below, 0));
                gaps.push_back((found, high, 0));
            }
            None => gaps.push_front((low, below, tries + 1)),
        }
    }
    keys.truncate(most);
    Ok(keys)
}

/// A text about half way between two; `None` if there is none, or none that is worth a look.
fn between(low: &str, high: &str) -> Option<String> {
    let mut middle = String::new();
    let (mut lows, mut highs) = (low.chars(), high.chars());
    loop {
        let (a, b) = (lows.next().map_or(0, |letter| letter as u32 + 1), highs.next().map_or(0, |letter| letter as u32 + 1));
        if a == b {
            middle.push(char::from_u32(a.checked_sub(1)?)?);
            continue;
        }
        if b < a {
            return None;
        }
        if b - a > 1 {
            // Not every number is a letter: the gap of the surrogates counts as its lower end.
            let half = a + (b - a) / 2 - 1;
            middle.push(char::from_u32(half).unwrap_or('\u{d7ff}'));
            return Some(middle).filter(|middle| middle.as_str() > low && middle.as_str() < high);
        }
        // Neighbours: half way between what follows the lower one and the end of all that begins with it.
        middle.push(char::from_u32(a.checked_sub(1)?).unwrap_or('\0'));
        let rest = lows.next().map_or(0, |letter| letter as u32 + 1);
        let top = 0x80.max(rest + 2);
        middle.push(char::from_u32(rest + (top - rest) / 2).unwrap_or('\u{d7ff}'));
        return Some(middle).filter(|middle| middle.as_str() > low && middle.as_str() < high);
    }
}

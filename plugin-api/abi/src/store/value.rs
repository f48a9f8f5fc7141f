//! What is a value, and which of its forms does somebody read?

use std::collections::BTreeMap;

/// A value as it is kept: neither side's Rust types, so that any generation may read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Unique in the store and growing: no two writes bear the same, so compare-and-set can't be fooled by a value that came back.
    pub revision: u64,
    /// The schema number of the code that wrote it.
    pub schema: u32,
    /// When it ends, in milliseconds since 1970; 0 for never.
    pub ends: u64,
    /// Older forms of it, packed by [`pack_form`].
    pub older: Vec<u8>,
    /// MessagePack with named fields.
    pub bytes: Vec<u8>,
}

/// A [`Value`] where it lies.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "they are documented at `Value`")]
pub struct Found<'a> {
    pub revision: u64,
    pub schema: u32,
    pub ends: u64,
    pub older: &'a [u8],
    pub bytes: &'a [u8],
}

impl Value {
    /// A look at it.
    #[must_use]
    pub fn found(&self) -> Found<'_> {
        let Self { revision, schema, ends, ref older, ref bytes } = *self;
        Found { revision, schema, ends, older, bytes }
    }
}

impl<'a> Found<'a> {
    /// A copy.
    #[must_use]
    pub fn value(&self) -> Value {
        let Self { revision, schema, ends, older, bytes } = *self;
        Value { revision, schema, ends, older: older.to_vec(), bytes: bytes.to_vec() }
    }

    /// Whether it has ended at this moment.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        self.ends != 0 && self.ends <= now
    }

    /// The newest form that isn't newer than the reader's schema, with its own number; else, and for a reader with 0, the value itself.
    #[must_use]
    pub fn form(&self, reader: u32) -> (u32, &'a [u8]) {
        let whole = (self.schema, self.bytes);
        if reader == 0 || self.schema <= reader {
            return whole;
        }
        forms(self.older).filter(|(schema, _)| *schema <= reader).max_by_key(|(schema, _)| *schema).unwrap_or(whole)
    }

    fn oldest(&self) -> u32 {
        forms(self.older).map(|(schema, _)| schema).chain([self.schema]).min().unwrap_or_default()
    }

    fn len(&self) -> u64 {
        (self.bytes.len() + self.older.len()) as u64
    }
}

/// Adds a form to packed ones: its schema number and length, both little-endian, and its bytes.
pub fn pack_form(packed: &mut Vec<u8>, schema: u32, bytes: &[u8]) {
    let Ok(length) = u32::try_from(bytes.len()) else { return };
    packed.extend_from_slice(&schema.to_le_bytes());
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(bytes);
}

/// The forms in what [`pack_form`] made, with their schema numbers; whatever else it may be, the iterator ends.
pub fn forms(mut packed: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (schema, rest) = packed.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        packed = rest;
        Some((u32::from_le_bytes(*schema), bytes))
    })
}

/// What a table holds, in numbers that are kept up with each write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many values.
    pub values: u64,
    /// Their bytes, older forms included, keys not.
    pub bytes: u64,
    /// How many values have this oldest form and this newest one.
    pub forms: BTreeMap<(u32, u32), u64>,
}

impl Tally {
    /// One value more.
    pub fn add(&mut self, value: &Found<'_>) {
        self.values += 1;
        self.bytes += value.len();
        *self.forms.entry((value.oldest(), value.schema)).or_default() += 1;
    }

    /// One value less.
    pub fn remove(&mut self, value: &Found<'_>) {
        self.values = self.values.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(value.len());
        let forms = (value.oldest(), value.schema);
        if let Some(count) = self.forms.get_mut(&forms) {
            *count -= 1;
            if *count == 0 {
                self.forms.remove(&forms);
            }
        }
    }

    /// How many values have no form that code can read which reads these schema numbers.
    #[must_use]
    pub fn unreadable(&self, oldest: u32, newest: u32) -> u64 {
        self.forms.iter().filter(|((first, last), _)| *first > newest || *last < oldest).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_the_newest_form_that_is_not_newer_than_its_own() {
        let mut older = Vec::new();
        pack_form(&mut older, 1, b"one");
        pack_form(&mut older, 3, b"three");
        let value = Value { schema: 4, older, bytes: b"four".to_vec(), ..Value::default() };
        let form = |reader| value.found().form(reader);
        assert_eq!([form(0), form(9), form(4)], [(4, &b"four"[..]); 3]);
        assert_eq!([form(3), form(2), form(1)], [(3, &b"three"[..]), (1, b"one"), (1, b"one")]);
        let alone = Value { older: Vec::new(), ..value };
        assert_eq!(alone.found().form(1), (4, &b"four"[..]), "it says what it is");
    }

    #[test]
    fn what_is_no_packed_form_ends() {
        for packed in [&b"\x01"[..], b"\x01\0\0\0\xff\xff\xff\xffab", b"\x01\0\0\0\0\0\0"] {
            assert_eq!(forms(packed).count(), 0);
        }
    }

    #[test]
    fn a_tally_knows_what_which_code_can_read() {
        let mut older = Vec::new();
        pack_form(&mut older, 1, b"x");
        let of = |schema, older: &[u8]| Value { schema, older: older.to_vec(), bytes: b"ab".to_vec(), ..Value::default() };
        let (one, two, both) = (of(1, &[]), of(2, &[]), of(2, &older));
        let mut tally = Tally::default();
        [&one, &two, &two, &both].iter().for_each(|value| tally.add(&value.found()));
        assert_eq!((tally.values, tally.bytes), (4, 8 + 9));
        assert_eq!([tally.unreadable(1, 1), tally.unreadable(1, 2), tally.unreadable(2, 2)], [2, 0, 1]);
        tally.remove(&two.found());
        assert_eq!((tally.values, tally.unreadable(1, 1)), (3, 1));
    }
}

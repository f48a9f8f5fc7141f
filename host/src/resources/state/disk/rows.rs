//! How do values lie in the file's tables?

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::mpsc::Sender;

use midair_abi::store::run::{self, Look, Rows};
use midair_abi::store::{Answer, Found, Op, Refusal, Tally, Value};
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::resources::state::write::Write;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) type Key = (&'static str, &'static str);

/// By table and key: revision, end, schema and length of the older forms, little-endian; the older forms; the value.
pub(super) const VALUES: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("values");
/// When which value ends.
pub(super) const ENDS: TableDefinition<'_, (u64, &str, &str), ()> = TableDefinition::new("ends");
/// What each table holds.
pub(super) const TALLIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tallies");
/// `format`, and the last `revision`.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("midair");

/// The version of all this.
pub(super) const FORMAT: u64 = 1;

/// Behind every key: no text has this character twice at its start and then more.
pub(super) const LAST: &str = "\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}";

/// What waits for the writer.
pub(super) enum Order {
    /// Each group all or nothing.
    Do(Vec<Vec<Write>>, Box<dyn FnOnce(Vec<Answer>) + Send>),
    /// Values that have ended go, so many at most; how many did.
    Sweep(usize, Sender<usize>),
}

/// What became of an order.
pub(super) enum Done {
    Did(Vec<Answer>),
    Swept(usize),
}

pub(super) fn failed(error: impl Into<redb::Error>) -> Refusal {
    Refusal::Failed(format!("{}; nothing was written", error.into()))
}

/// What was written last, at one moment.
pub(super) struct Past(pub(super) ReadTransaction);

impl Past {
    pub(super) fn tally(&self, table: &str) -> Result<Tally> {
        let tallies = self.0.open_table(TALLIES).map_err(failed)?;
        Ok(tallies.get(table).map_err(failed)?.map(|tally| read_tally(tally.value())).unwrap_or_default())
    }
}

fn get(values: &impl ReadableTable<Key, &'static [u8]>, table: &str, key: &str, see: &mut dyn FnMut(Found<'_>)) -> Result<()> {
    if let Some(value) = values.get((table, key)).map_err(failed)? {
        see(found(value.value())?);
    }
    Ok(())
}

fn walk(
    values: &impl ReadableTable<Key, &'static [u8]>,
    table: &str,
    from: Bound<&str>,
    see: &mut dyn FnMut(&str, Found<'_>) -> bool,
) -> Result<()> {
    let from = match from {
        Bound::Included(key) => Bound::Included((table, key)),
        Bound::Excluded(key) => Bound::Excluded((table, key)),
        Bound::Unbounded => Bound::Included((table, "")),
    };
    for entry in values.range::<(&str, &str)>((from, Bound::Unbounded)).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let (other, key) = key.value();
        if other != table || !see(key, found(value.value())?) {
            break;
        }
    }
    Ok(())
}

fn count_over(ends: &impl ReadableTable<(u64, &'static str, &'static str), ()>, table: &str, now: u64) -> Result<u64> {
    let mut over = 0;
    for entry in ends.range(..=(now, LAST, LAST)).map_err(failed)? {
        over += u64::from(entry.map_err(failed)?.0.value().1 == table);
    }
    Ok(over)
}

impl Look for Past {
    fn get(&self, table: &str, key: &str, see: &mut dyn FnMut(Found<'_>)) -> Result<()> {
        get(&self.0.open_table(VALUES).map_err(failed)?, table, key, see)
    }

    fn walk(&self, table: &str, from: Bound<&str>, see: &mut dyn FnMut(&str, Found<'_>) -> bool) -> Result<()> {
        walk(&self.0.open_table(VALUES).map_err(failed)?, table, from, see)
    }

    fn count(&self, table: &str, now: u64) -> Result<u64> {
        let over = count_over(&self.0.open_table(ENDS).map_err(failed)?, table, now)?;
        Ok(self.tally(table)?.values.saturating_sub(over))
    }
}

/// A transaction's tables.
pub(super) struct Open<'t> {
    values: Table<'t, Key, &'static [u8]>,
    ends: Table<'t, (u64, &'static str, &'static str), ()>,
    tallies: Table<'t, &'static str, &'static [u8]>,
    meta: Table<'t, &'static str, u64>,
    /// Those of the tables that were touched.
    touched: BTreeMap<String, Tally>,
    revision: u64,
    /// The disk failed: nothing of this transaction counts.
    broken: Option<Refusal>,
}

impl<'t> Open<'t> {
    pub(super) fn of(transaction: &'t WriteTransaction) -> Result<Self> {
        let meta = transaction.open_table(META).map_err(failed)?;
        let revision = meta.get("revision").map_err(failed)?.map_or(0, |revision| revision.value());
        Ok(Self {
            values: transaction.open_table(VALUES).map_err(failed)?,
            ends: transaction.open_table(ENDS).map_err(failed)?,
            tallies: transaction.open_table(TALLIES).map_err(failed)?,
            meta,
            touched: BTreeMap::new(),
            revision,
            broken: None,
        })
    }

    pub(super) fn order(&mut self, order: &Order, now: u64) -> Result<Done> {
        match order {
            Order::Do(groups, _) => {
                let mut answers = Vec::with_capacity(groups.len());
                for group in groups {
                    let ops: Vec<Op<'_>> = group.iter().map(Write::op).collect();
                    answers.push(run::write(self, &ops, now));
                    if let Some(broken) = self.broken.take() {
                        return Err(broken);
                    }
                }
                Ok(Done::Did(answers))
            }
            Order::Sweep(most, _) => {
                let mut over = Vec::new();
                for entry in self.ends.range(..=(now, LAST, LAST)).map_err(failed)?.take(*most) {
                    let entry = entry.map_err(failed)?.0;
                    let (_, table, key) = entry.value();
                    over.push((table.to_owned(), key.to_owned()));
                }
                for (table, key) in &over {
                    self.change(table, key, None)?;
                }
                Ok(Done::Swept(over.len()))
            }
        }
    }

    pub(super) fn close(mut self) -> Result<()> {
        for (table, tally) in &self.touched {
            self.tallies.insert(table.as_str(), written_tally(tally).as_slice()).map_err(failed)?;
        }
        self.meta.insert("revision", self.revision).map_err(failed)?;
        Ok(())
    }

    fn tally(&mut self, table: &str) -> Result<&mut Tally> {
        if !self.touched.contains_key(table) {
            let there = self.tallies.get(table).map_err(failed)?.map(|tally| read_tally(tally.value())).unwrap_or_default();
            self.touched.insert(table.to_owned(), there);
        }
        self.touched.get_mut(table).ok_or(Refusal::Revoked)
    }

    fn change(&mut self, table: &str, key: &str, value: Option<Value>) -> Result<Option<Value>> {
        let before = match &value {
            Some(value) => self.values.insert((table, key), written(value).as_slice()).map_err(failed)?,
            None => self.values.remove((table, key)).map_err(failed)?,
        };
        let before = before.map(|before| found(before.value()).map(|found| found.value())).transpose()?;
        if let Some(before) = &before {
            self.tally(table)?.remove(&before.found());
            if before.ends != 0 {
                self.ends.remove((before.ends, table, key)).map_err(failed)?;
            }
        }
        if let Some(value) = &value {
            self.tally(table)?.add(&value.found());
            if value.ends != 0 {
                self.ends.insert((value.ends, table, key), ()).map_err(failed)?;
            }
        }
        Ok(before)
    }
}

impl Look for Open<'_> {
    fn get(&self, table: &str, key: &str, see: &mut dyn FnMut(Found<'_>)) -> Result<()> {
        get(&self.values, table, key, see)
    }

    fn walk(&self, table: &str, from: Bound<&str>, see: &mut dyn FnMut(&str, Found<'_>) -> bool) -> Result<()> {
        walk(&self.values, table, from, see)
    }

    fn count(&self, table: &str, now: u64) -> Result<u64> {
        let there =
            || Ok(self.tallies.get(table).map_err(failed)?.map(|tally| read_tally(tally.value()).values).unwrap_or_default());
        let values = self.touched.get(table).map_or_else(there, |tally| Ok(tally.values))?;
        Ok(values.saturating_sub(count_over(&self.ends, table, now)?))
    }
}

impl Rows for Open<'_> {
    fn put(&mut self, table: &str, key: &str, value: Option<Value>) -> Result<Option<Value>> {
        self.change(table, key, value).inspect_err(|refusal| self.broken = Some(refusal.clone()))
    }

    fn stamp(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }
}

fn written(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + value.older.len() + value.bytes.len());
    bytes.extend_from_slice(&value.revision.to_le_bytes());
    bytes.extend_from_slice(&value.ends.to_le_bytes());
    bytes.extend_from_slice(&value.schema.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(value.older.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&value.older);
    bytes.extend_from_slice(&value.bytes);
    bytes
}

fn found(bytes: &[u8]) -> Result<Found<'_>> {
    let parse = || {
        let (revision, rest) = bytes.split_first_chunk::<8>()?;
        let (ends, rest) = rest.split_first_chunk::<8>()?;
        let (schema, rest) = rest.split_first_chunk::<4>()?;
        let (older, rest) = rest.split_first_chunk::<4>()?;
        let (older, bytes) = rest.split_at_checked(u32::from_le_bytes(*older) as usize)?;
        let (revision, ends, schema) = (u64::from_le_bytes(*revision), u64::from_le_bytes(*ends), u32::from_le_bytes(*schema));
        Some(Found { revision, schema, ends, older, bytes })
    };
    parse().ok_or_else(|| Refusal::Failed("a value in its file is damaged".to_owned()))
}

type TallyForm = (u64, u64, Vec<((u32, u32), u64)>);

fn written_tally(tally: &Tally) -> Vec<u8> {
    let forms = tally.forms.iter().map(|(forms, count)| (*forms, *count)).collect();
    let form: TallyForm = (tally.values, tally.bytes, forms);
    serde_json::to_vec(&form).unwrap_or_default()
}

pub(super) fn read_tally(bytes: &[u8]) -> Tally {
    let (values, bytes, forms): TallyForm = serde_json::from_slice(bytes).unwrap_or_default();
    Tally { values, bytes, forms: forms.into_iter().collect() }
}

//! How are values kept in the process?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use super::run::{self, Look, Rows};
use super::{Answer, Found, Limits, Op, Refusal, Tally, Value};

/// Milliseconds since 1970, as the system has it.
#[must_use]
pub fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A store in the process's memory.
///
/// One lock for all tables keeps a batch over several of them all or nothing; it is held for map operations only, never across foreign code.
pub struct Memory {
    tables: RwLock<Tables>,
    limits: Limits,
    now: Box<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct Tables {
    tables: BTreeMap<String, Table>,
    /// When which value ends.
    ends: BTreeSet<(u64, String, String)>,
    revision: u64,
}

#[derive(Default)]
struct Table {
    values: BTreeMap<String, Value>,
    tally: Tally,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Limits::default(), clock)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Memory {
    /// A store with these limits, in which it is as late as `now` says, in milliseconds since 1970.
    #[must_use]
    pub fn new(limits: Limits, now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { tables: RwLock::default(), limits, now: Box::new(now) }
    }

    /// Does all of `ops`, in order, or none.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the first operation that can't be done.
    pub fn apply(&self, ops: &[Op<'_>]) -> Answer {
        let now = (self.now)();
        if ops.iter().any(Op::is_write) {
            self.limits.check(ops)?;
            run::write(&mut *self.tables.write().unwrap_or_else(PoisonError::into_inner), ops, now)
        } else {
            let tables = self.read();
            if let [op] = ops {
                return run::read(&*tables, op, now);
            }
            let mut rows = Vec::new();
            for op in ops {
                rows.extend(run::read(&*tables, op, now)?);
            }
            Ok(rows)
        }
    }

    /// Does all of each group, in order, or none of it: as if each were applied alone, with nobody in between.
    pub fn apply_each(&self, groups: &[Vec<Op<'_>>]) -> Vec<Answer> {
        let (mut tables, now) = (self.tables.write().unwrap_or_else(PoisonError::into_inner), (self.now)());
        groups.iter().map(|ops| self.limits.check(ops).and_then(|()| run::write(&mut *tables, ops, now))).collect()
    }

    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A scan that ends with the value that makes it `most` bytes or more.
    ///
    /// # Errors
    ///
    /// None, as yet.
    pub fn page(&self, op: &Op<'_>, most: usize) -> Answer {
        run::page(&*self.read(), op, (self.now)(), most)
    }

    /// The first and the last key of a table, whether their values have ended or not.
    #[must_use]
    pub fn ends(&self, table: &str) -> Option<(String, String)> {
        let tables = self.read();
        let values = &tables.tables.get(table)?.values;
        Some((values.first_key_value()?.0.clone(), values.last_key_value()?.0.clone()))
    }

    /// All tables that hold something, with what they hold.
    #[must_use]
    pub fn tallies(&self) -> Vec<(String, Tally)> {
        let tables = self.read();
        tables
            .tables
            .iter()
            .map(|(name, table)| (name.clone(), table.tally.clone()))
            .filter(|(_, tally)| tally.values > 0)
            .collect()
    }

    /// What a table holds.
    #[must_use]
    pub fn tally(&self, table: &str) -> Tally {
        self.read().tables.get(table).map(|table| table.tally.clone()).unwrap_or_default()
    }

    /// Removes at most `most` values that have ended; how many it did.
    pub fn sweep(&self, most: usize) -> usize {
        let now = (self.now)();
        if self.read().ends.first().is_none_or(|(ends, ..)| *ends > now) {
            return 0;
        }
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let over: Vec<_> = tables.ends.iter().take_while(|(ends, ..)| *ends <= now).take(most).cloned().collect();
        for (_, table, key) in &over {
            tables.change(table, key, None);
        }
        over.len()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn change(&mut self, table: &str, key: &str, value: Option<Value>) -> Option<Value> {
        if let Some(value) = value.as_ref().filter(|value| value.ends != 0) {
            self.ends.insert((value.ends, table.to_owned(), key.to_owned()));
        }
        let ends = value.as_ref().map_or(0, |value| value.ends);
        if value.is_some() && !self.tables.contains_key(table) {
            self.tables.insert(table.to_owned(), Table::default());
        }
        let held = self.tables.get_mut(table)?;
        let before = match value {
            Some(value) => {
                held.tally.add(&value.found());
                match held.values.get_mut(key) {
                    Some(there) => Some(std::mem::replace(there, value)),
                    None => held.values.insert(key.to_owned(), value),
                }
            }
            None => held.values.remove(key),
        };
        if let Some(before) = &before {
            held.tally.remove(&before.found());
            if before.ends != 0 && before.ends != ends {
                self.ends.remove(&(before.ends, table.to_owned(), key.to_owned()));
            }
        }
        before
    }
}

impl Look for Tables {
    fn get(&self, table: &str, key: &str, see: &mut dyn FnMut(Found<'_>)) -> Result<(), Refusal> {
        if let Some(value) = self.tables.get(table).and_then(|table| table.values.get(key)) {
            see(value.found());
        }
        Ok(())
    }

    fn walk(&self, table: &str, from: Bound<&str>, see: &mut dyn FnMut(&str, Found<'_>) -> bool) -> Result<(), Refusal> {
        let Some(table) = self.tables.get(table) else { return Ok(()) };
        for (key, value) in table.values.range::<str, _>((from, Bound::Unbounded)) {
            if !see(key, value.found()) {
                break;
            }
        }
        Ok(())
    }

    fn count(&self, table: &str, now: u64) -> Result<u64, Refusal> {
        let over = self.ends.iter().take_while(|(ends, ..)| *ends <= now).filter(|(_, other, _)| other == table).count() as u64;
        Ok(self.tables.get(table).map_or(0, |table| table.tally.values).saturating_sub(over))
    }
}

impl Rows for Tables {
    fn put(&mut self, table: &str, key: &str, value: Option<Value>) -> Result<Option<Value>, Refusal> {
        Ok(self.change(table, key, value))
    }

    fn stamp(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }
}

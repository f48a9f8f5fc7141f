//! What does a plugin remember, when its code is replaced?
//!
//! Tables, cells and counters live in the host as bytes with a revision and the schema number of their writer. Two generations may use
//! them at once; a swap touches none of them.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::store::{Kind, Op, Refusal, Row};

/// A value's version: no two writes bear the same.
pub type Revision = u64;

/// The schema number that this crate's plugins write.
const SCHEMA: u32 = 1;

/// Host-held values of `T` by key. Made by [`Ctx::table`].
pub struct Table<T> {
    ctx: Ctx,
    name: String,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { ctx: self.ctx.clone(), name: self.name.clone(), of: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    pub(crate) fn new(ctx: Ctx, name: String) -> Self {
        Self { ctx, name, of: PhantomData }
    }

    /// The value at `key`.
    ///
    /// # Errors
    ///
    /// If what is there can't be read as a `T`: names the key, the path within the value and what was expected.
    pub fn get(&self, key: &str) -> Operation<impl Future<Output = Result<Option<T>>> + Send> {
        Operation::new(async move { Ok(self.entry(key).await?.map(|(value, _)| value)) })
    }

    /// The value at `key` with its revision, to be handed to [`compare_and_set`](Self::compare_and_set).
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn entry(&self, key: &str) -> Operation<impl Future<Output = Result<Option<(T, Revision)>>> + Send> {
        Operation::new(async move {
            let rows = self.ctx.submit(&[Op::new(Kind::Get, &self.name, key)]).await?;
            rows.first().map(|row| Ok((self.decode(row)?, row.revision))).transpose()
        })
    }

    /// Writes the value at `key`, whatever was there.
    ///
    /// # Errors
    ///
    /// If the value can't be encoded or the store fails.
    pub fn put(&self, key: &str, value: &T) -> Operation<impl Future<Output = Result<Revision>> + Send> {
        let bytes = encode(value);
        Operation::new(async move {
            let rows = self.ctx.submit(&[Op { schema: SCHEMA, bytes: &bytes?, ..Op::new(Kind::Put, &self.name, key) }]).await?;
            Ok(revision(&rows))
        })
    }

    /// Writes the value at `key` if there is none; whether it did.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub fn insert(&self, key: &str, value: &T) -> Operation<impl Future<Output = Result<bool>> + Send> {
        let bytes = encode(value);
        Operation::new(async move { Ok(self.set(key, 0, &bytes?).await?.is_some()) })
    }

    /// Writes the value at `key` if the one that is there has this revision; its new revision, or `None` if it has changed since.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub fn compare_and_set(
        &self,
        key: &str,
        expected: Revision,
        value: &T,
    ) -> Operation<impl Future<Output = Result<Option<Revision>>> + Send> {
        let bytes = encode(value);
        Operation::new(async move { self.set(key, expected, &bytes?).await })
    }

    /// Removes the value at `key`; whether there was one.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn remove(&self, key: &str) -> Operation<impl Future<Output = Result<bool>> + Send> {
        Operation::new(async move {
            let rows = self.ctx.submit(&[Op::new(Kind::Remove, &self.name, key)]).await?;
            Ok(rows.first().is_some_and(|row| row.number == 1))
        })
    }

    /// Changes the value at `key` in place; what it became, or `None` if there was none. `change` runs again if another writer came
    /// between reading and writing, so no change is lost and it should do nothing else.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get) and [`put`](Self::put).
    pub fn update(
        &self,
        key: &str,
        mut change: impl FnMut(&mut T) + Send,
    ) -> Operation<impl Future<Output = Result<Option<T>>> + Send>
    where
        T: Send,
    {
        Operation::new(async move {
            loop {
                let Some((mut value, revision)) = self.entry(key).await? else { return Ok(None) };
                change(&mut value);
                if self.set(key, revision, &encode(&value)?).await?.is_some() {
                    return Ok(Some(value));
                }
            }
        })
    }

    /// All values whose key starts with `prefix`, in order of their keys.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn scan(&self, prefix: &str) -> Operation<impl Future<Output = Result<Vec<(String, T)>>> + Send> {
        Operation::new(async move { self.rows(&Op::new(Kind::Scan, &self.name, prefix)).await })
    }

    /// At most `limit` values after the key `after`, in order of their keys. Give the last key of a page to get the next.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn page(&self, after: Option<&str>, limit: usize) -> Operation<impl Future<Output = Result<Vec<(String, T)>>> + Send> {
        Operation::new(async move { self.rows(&Op { after, limit, ..Op::new(Kind::Scan, &self.name, "") }).await })
    }

    /// How many values there are.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn count(&self) -> Operation<impl Future<Output = Result<usize>> + Send> {
        Operation::new(async move {
            let rows = self.ctx.submit(&[Op::new(Kind::Count, &self.name, "")]).await?;
            Ok(rows.first().map_or(0, |row| usize::try_from(row.number).unwrap_or_default()))
        })
    }

    async fn rows(&self, op: &Op<'_>) -> Result<Vec<(String, T)>> {
        let rows = self.ctx.submit(std::slice::from_ref(op)).await?;
        rows.into_iter().map(|row| Ok((self.decode(&row)?, row.key)).map(|(value, key)| (key, value))).collect()
    }

    async fn set(&self, key: &str, expected: Revision, bytes: &[u8]) -> Result<Option<Revision>> {
        let op = Op { schema: SCHEMA, expected: Some(expected), bytes, ..Op::new(Kind::Put, &self.name, key) };
        match self.ctx.submit(&[op]).await {
            Ok(rows) => Ok(Some(revision(&rows))),
            Err(Refusal::Conflict { .. }) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn decode(&self, row: &Row) -> Result<T> {
        let table = self.name.rsplit_once('/').map_or(self.name.as_str(), |(_, table)| table);
        decode(&row.bytes).map_err(|misfit| Error::internal(format!("{table}[{:?}] {misfit}", row.key)))
    }
}

/// A host-held single value. Made by [`Ctx::cell`].
pub struct Cell<T> {
    table: Table<T>,
    name: String,
}

impl<T: Serialize + DeserializeOwned> Cell<T> {
    pub(crate) fn new(table: Table<T>, name: &str) -> Self {
        Self { table, name: name.to_owned() }
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// As for [`Table::get`].
    pub fn get(&self) -> Operation<impl Future<Output = Result<Option<T>>> + Send> {
        self.table.get(&self.name)
    }

    /// Writes the value, whatever was there.
    ///
    /// # Errors
    ///
    /// As for [`Table::put`].
    pub fn set(&self, value: &T) -> Operation<impl Future<Output = Result<Revision>> + Send> {
        self.table.put(&self.name, value)
    }

    /// Changes the value in place; what it became, or `None` if there was none. See [`Table::update`].
    ///
    /// # Errors
    ///
    /// As for [`Table::update`].
    pub fn update(&self, change: impl FnMut(&mut T) + Send) -> Operation<impl Future<Output = Result<Option<T>>> + Send>
    where
        T: Send,
    {
        self.table.update(&self.name, change)
    }
}

/// A host-held integer that starts at 0. Made by [`Ctx::counter`].
pub struct Counter {
    ctx: Ctx,
    table: String,
    name: String,
}

impl Counter {
    pub(crate) fn new(ctx: Ctx, table: String, name: &str) -> Self {
        Self { ctx, table, name: name.to_owned() }
    }

    /// Adds, and gives the sum. No addition is lost, however many come at once.
    ///
    /// # Errors
    ///
    /// If the sum is out of the range of an `i64`.
    pub fn add(&self, number: i64) -> Operation<impl Future<Output = Result<i64>> + Send> {
        Operation::new(async move {
            let rows = self.ctx.submit(&[Op { number, schema: SCHEMA, ..Op::new(Kind::Add, &self.table, &self.name) }]).await?;
            Ok(rows.first().map_or(0, |row| row.number))
        })
    }

    /// The sum so far.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn get(&self) -> Operation<impl Future<Output = Result<i64>> + Send> {
        Operation::new(async move {
            let rows = self.ctx.submit(&[Op::new(Kind::Get, &self.table, &self.name)]).await?;
            let sum = rows.first().map_or(Ok(0), |row| decode(&row.bytes));
            sum.map_err(|misfit| Error::internal(format!("the counter {:?} {misfit}", self.name)))
        })
    }
}

/// Writes that happen all or not at all. Made by [`Ctx::batch`].
#[must_use = "nothing is written before `commit`"]
pub struct Batch {
    ctx: Ctx,
    writes: Vec<Write>,
}

struct Write {
    kind: Kind,
    table: String,
    key: String,
    expected: Option<Revision>,
    bytes: Result<Vec<u8>>,
    number: i64,
}

impl Batch {
    pub(crate) fn new(ctx: Ctx) -> Self {
        Self { ctx, writes: Vec::new() }
    }

    /// Writes a value, whatever is there.
    pub fn put<T: Serialize>(self, table: &Table<T>, key: &str, value: &T) -> Self {
        self.with(Kind::Put, &table.name, key, None, encode(value), 0)
    }

    /// Writes a value; the batch goes through only if the one that is there has this revision, 0 for none.
    pub fn put_if<T: Serialize>(self, table: &Table<T>, key: &str, expected: Revision, value: &T) -> Self {
        self.with(Kind::Put, &table.name, key, Some(expected), encode(value), 0)
    }

    /// Removes a value.
    pub fn remove<T>(self, table: &Table<T>, key: &str) -> Self {
        self.with(Kind::Remove, &table.name, key, None, Ok(Vec::new()), 0)
    }

    /// Adds to a counter.
    pub fn add(self, counter: &Counter, number: i64) -> Self {
        self.with(Kind::Add, &counter.table, &counter.name, None, Ok(Vec::new()), number)
    }

    /// Does it all; `false` if a revision didn't fit, and then nothing was done.
    ///
    /// # Errors
    ///
    /// If a value can't be encoded or a counter leaves its range; nothing was done.
    pub fn commit(self) -> Operation<impl Future<Output = Result<bool>> + Send> {
        Operation::new(async move {
            let Batch { ctx, writes } = self;
            let bytes = |write: &mut Write| std::mem::replace(&mut write.bytes, Ok(Vec::new()));
            let mut writes = writes;
            let values = writes.iter_mut().map(bytes).collect::<Result<Vec<_>>>()?;
            let op = |(write, bytes)| {
                let Write { kind, table, key, expected, number, .. }: &Write = write;
                Op { expected: *expected, number: *number, schema: SCHEMA, bytes, ..Op::new(*kind, table, key) }
            };
            let ops: Vec<Op<'_>> = writes.iter().zip(values.iter().map(Vec::as_slice)).map(op).collect();
            match ctx.submit(&ops).await {
                Ok(_) => Ok(true),
                Err(Refusal::Conflict { .. }) => Ok(false),
                Err(refusal) => Err(refusal.into()),
            }
        })
    }

    fn with(mut self, kind: Kind, table: &str, key: &str, expected: Option<Revision>, bytes: Result<Vec<u8>>, number: i64) -> Self {
        self.writes.push(Write { kind, table: table.to_owned(), key: key.to_owned(), expected, bytes, number });
        self
    }
}

fn revision(rows: &[Row]) -> Revision {
    rows.first().map_or(0, |row| row.revision)
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|error| Error::internal(format!("a value can't be stored: {error}")))
}

/// Reads a value; the text of a failure goes on after the value's name: `.clicks: invalid type: ..`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let at = if path == "." { String::new() } else { format!("at `{path}` ") };
        let expectation = expectation::<T>(bytes).unwrap_or_else(|| error.inner().to_string());
        format!("{at}can't be read as `{}`: {expectation}", std::any::type_name::<T>())
    })
}

/// What serde expected and found. MessagePack's reader only says which marker it didn't like, so a value that can't be read is read once
/// more through a form that says what it holds.
fn expectation<T: DeserializeOwned>(bytes: &[u8]) -> Option<String> {
    let value: serde_json::Value = rmp_serde::from_slice(bytes).ok()?;
    serde_json::from_value::<T>(value).err().map(|error| error.to_string())
}

//! What does a plugin remember, when its code is replaced?
//!
//! Tables, cells and counters live in the host as bytes with a revision and the schema number of their writer. Two generations may use
//! them at once; a swap touches none of them.

mod batch;
mod history;
mod single;

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use midair_abi::store::{Kind, Lasts, Op, Refusal, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::glue::operation::Operation;
use crate::handler::plugin::TableDecl;
use crate::host::ctx::Ctx;

pub use batch::Batch;
pub(crate) use history::History;
pub use single::{Cell, Counter};

/// A value's version: no two writes bear the same.
pub type Revision = u64;

/// The schema number of what has no history.
const SCHEMA: u32 = 1;

/// The tables with a history of the plugin that this library is. Each loaded library has a copy of its own, and is built once.
static HISTORIES: OnceLock<Vec<(String, Arc<History>)>> = OnceLock::new();

/// Keeps the histories of a plugin that is built, for its handlers' tables.
pub(crate) fn remember(tables: &[TableDecl]) {
    let told = tables.iter().filter(|table| !table.history.is_plain());
    let _ = HISTORIES.set(told.map(|table| (table.name.clone(), Arc::clone(&table.history))).collect());
}

/// The history of a table of this library's plugin.
pub(crate) fn remembered(name: &str) -> Option<Arc<History>> {
    let told = HISTORIES.get()?;
    told.iter().find(|(table, _)| table == name).map(|(_, history)| Arc::clone(history))
}

/// Host-held values of `T` by key. Made by [`Ctx::table`].
pub struct Table<T> {
    ctx: Ctx,
    name: String,
    whose: Whose,
    of: PhantomData<fn() -> T>,
}

/// Whose table it is.
#[derive(Clone)]
enum Whose {
    /// The plugin's own, with one form.
    Plain,
    /// The plugin's own, with several forms.
    Told(Arc<History>),
    /// Another plugin's: values are read as they are.
    Foreign,
}

/// A value in bytes, with its older forms.
struct Encoded {
    bytes: Vec<u8>,
    older: Vec<u8>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { ctx: self.ctx.clone(), name: self.name.clone(), whose: self.whose.clone(), of: PhantomData }
    }
}

impl<T> Table<T> {
    /// The number of the form that this code writes.
    fn schema(&self) -> u32 {
        match &self.whose {
            Whose::Plain | Whose::Foreign => SCHEMA,
            Whose::Told(history) => history.range().1,
        }
    }

    /// The number of the newest form that this code reads; 0 for whatever is there.
    fn reads(&self) -> u32 {
        if matches!(self.whose, Whose::Foreign) { 0 } else { self.schema() }
    }

    /// `key` as messages have it.
    fn place(&self, key: &str) -> String {
        let table = self.name.rsplit_once('/').map_or(self.name.as_str(), |(_, table)| table);
        format!("{table}[{key:?}]")
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    pub(crate) fn new(ctx: Ctx, name: String, history: Option<Arc<History>>) -> Self {
        Self { ctx, name, whose: history.map_or(Whose::Plain, Whose::Told), of: PhantomData }
    }

    pub(crate) fn foreign(ctx: Ctx, name: String) -> Self {
        Self { ctx, name, whose: Whose::Foreign, of: PhantomData }
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
            let rows = self.ctx.submit(&[Op { schema: self.reads(), ..Op::new(Kind::Get, &self.name, key) }]).await?;
            rows.first().map(|row| Ok((self.decode(row)?, row.revision))).transpose()
        })
    }

    /// Writes the value at `key`, whatever was there.
    ///
    /// # Errors
    ///
    /// If the value can't be encoded or the store fails.
    pub fn put(&self, key: &str, value: &T) -> Operation<impl Future<Output = Result<Revision>> + Send> {
        self.write(key, value, Lasts::Ever)
    }

    /// Writes the value at `key`, whatever was there, for so long: then it is gone, as if it had been removed. A later
    /// [`put`](Self::put) lets it stay, an [`update`](Self::update) leaves its end as it is.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub fn put_for(&self, key: &str, value: &T, time: Duration) -> Operation<impl Future<Output = Result<Revision>> + Send> {
        self.write(key, value, Lasts::during(time))
    }

    /// Writes the value at `key` if there is none; whether it did.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub fn insert(&self, key: &str, value: &T) -> Operation<impl Future<Output = Result<bool>> + Send> {
        let encoded = self.encode(value);
        Operation::new(async move { Ok(self.set(key, 0, &encoded?, Lasts::Ever).await?.is_some()) })
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
        let encoded = self.encode(value);
        Operation::new(async move { self.set(key, expected, &encoded?, Lasts::Ever).await })
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
                if self.set(key, revision, &self.encode(&value)?, Lasts::AsBefore).await?.is_some() {
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
        Operation::new(async move { self.rows(Op::new(Kind::Scan, &self.name, prefix)).await })
    }

    /// At most `limit` values after the key `after`, in order of their keys. Give the last key of a page to get the next.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn page(&self, after: Option<&str>, limit: usize) -> Operation<impl Future<Output = Result<Vec<(String, T)>>> + Send> {
        Operation::new(async move { self.rows(Op { after, limit, ..Op::new(Kind::Scan, &self.name, "") }).await })
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

    async fn rows(&self, op: Op<'_>) -> Result<Vec<(String, T)>> {
        let rows = self.ctx.submit(&[Op { schema: self.reads(), ..op }]).await?;
        rows.into_iter().map(|row| Ok((self.decode(&row)?, row.key)).map(|(value, key)| (key, value))).collect()
    }

    fn write(&self, key: &str, value: &T, lasts: Lasts) -> Operation<impl Future<Output = Result<Revision>> + Send> {
        let encoded = self.encode(value);
        Operation::new(async move {
            let rows = self.ctx.submit(&[self.op(key, &encoded?, lasts)]).await?;
            Ok(revision(&rows))
        })
    }

    async fn set(&self, key: &str, expected: Revision, encoded: &Encoded, lasts: Lasts) -> Result<Option<Revision>> {
        let op = Op { expected: Some(expected), ..self.op(key, encoded, lasts) };
        match self.ctx.submit(&[op]).await {
            Ok(rows) => Ok(Some(revision(&rows))),
            Err(Refusal::Conflict { .. }) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn op<'a>(&'a self, key: &'a str, Encoded { bytes, older }: &'a Encoded, lasts: Lasts) -> Op<'a> {
        Op { schema: self.schema(), bytes, older, lasts, ..Op::new(Kind::Put, &self.name, key) }
    }

    /// With the older forms, where this code may have to go back.
    fn encode(&self, value: &T) -> Result<Encoded> {
        let bytes = encode(value)?;
        let older = match &self.whose {
            Whose::Told(history) if self.ctx.may_go_back() => {
                history.lower(&bytes).map_err(|misfit| Error::internal(format!("a value's older form {misfit}")))?
            }
            _ => Vec::new(),
        };
        Ok(Encoded { bytes, older })
    }

    fn decode(&self, row: &Row) -> Result<T> {
        let read = match &self.whose {
            Whose::Foreign => decode(&row.bytes),
            Whose::Plain => read(None, row.schema, &row.bytes),
            Whose::Told(history) => read(Some(history), row.schema, &row.bytes),
        };
        read.map_err(|misfit| Error::internal(format!("{} {misfit}", self.place(&row.key))))
    }
}

fn revision(rows: &[Row]) -> Revision {
    rows.first().map_or(0, |row| row.revision)
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    encode_bytes(value).map_err(|reason| Error::internal(format!("a value {reason}")))
}

fn encode_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(value).map_err(|error| format!("can't be stored: {error}"))
}

/// Reads a value that was written with this schema, as a table with this history does.
pub(crate) fn read<T: DeserializeOwned>(history: Option<&History>, schema: u32, bytes: &[u8]) -> Result<T, String> {
    decode(&raise(history, schema, bytes)?)
}

fn raise<'a>(history: Option<&History>, schema: u32, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    match history {
        Some(history) => history.raise(schema, bytes),
        // What was never numbered counts as the first form.
        None if schema <= SCHEMA => Ok(Cow::Borrowed(bytes)),
        None => Err(history::unknown(schema, SCHEMA, SCHEMA)),
    }
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

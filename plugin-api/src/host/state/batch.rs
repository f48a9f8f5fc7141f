//! How are several writes one?

use std::time::Duration;

use midair_abi::store::{Kind, Lasts, Op, Refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Counter, Encoded, Revision, SCHEMA, Table};
use crate::error::Result;
use crate::glue::operation::Operation;
use crate::host::ctx::Ctx;

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
    schema: u32,
    lasts: Lasts,
    encoded: Result<Encoded>,
    number: i64,
}

impl Batch {
    pub(crate) fn new(ctx: Ctx) -> Self {
        Self { ctx, writes: Vec::new() }
    }

    /// Writes a value, whatever is there.
    pub fn put<T: Serialize + DeserializeOwned>(self, table: &Table<T>, key: &str, value: &T) -> Self {
        self.value(table, key, None, value, Lasts::Ever)
    }

    /// Writes a value for so long, whatever is there; see [`Table::put_for`].
    pub fn put_for<T: Serialize + DeserializeOwned>(self, table: &Table<T>, key: &str, value: &T, time: Duration) -> Self {
        self.value(table, key, None, value, Lasts::during(time))
    }

    /// Writes a value; the batch goes through only if the one that is there has this revision, 0 for none.
    pub fn put_if<T: Serialize + DeserializeOwned>(self, table: &Table<T>, key: &str, expected: Revision, value: &T) -> Self {
        self.value(table, key, Some(expected), value, Lasts::Ever)
    }

    /// Removes a value.
    pub fn remove<T>(self, table: &Table<T>, key: &str) -> Self {
        self.with(Write::new(Kind::Remove, &table.name, key))
    }

    /// Adds to a counter.
    pub fn add(self, counter: &Counter, number: i64) -> Self {
        self.with(Write { number, ..Write::new(Kind::Add, &counter.table, &counter.name) })
    }

    /// Does it all; `false` if a revision didn't fit, and then nothing was done.
    ///
    /// # Errors
    ///
    /// If a value can't be encoded or a counter leaves its range; nothing was done.
    pub fn commit(self) -> Operation<impl Future<Output = Result<bool>> + Send> {
        Operation::new(async move {
            let Batch { ctx, writes } = self;
            let unpack = |mut write: Write| {
                let encoded = std::mem::replace(&mut write.encoded, Ok(Encoded::NOTHING))?;
                Ok((write, encoded))
            };
            let writes = writes.into_iter().map(unpack).collect::<Result<Vec<_>>>()?;
            let ops: Vec<Op<'_>> = writes.iter().map(|(write, encoded)| write.op(encoded)).collect();
            match ctx.submit(&ops).await {
                Ok(_) => Ok(true),
                Err(Refusal::Conflict { .. }) => Ok(false),
                Err(refusal) => Err(refusal.into()),
            }
        })
    }

    fn value<T: Serialize + DeserializeOwned>(
        self,
        table: &Table<T>,
        key: &str,
        expected: Option<Revision>,
        value: &T,
        lasts: Lasts,
    ) -> Self {
        let (schema, encoded) = (table.schema(), table.encode(value));
        self.with(Write { expected, schema, lasts, encoded, ..Write::new(Kind::Put, &table.name, key) })
    }

    fn with(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }
}

impl Write {
    fn new(kind: Kind, table: &str, key: &str) -> Self {
        let (table, key, encoded) = (table.to_owned(), key.to_owned(), Ok(Encoded::NOTHING));
        Self { kind, table, key, expected: None, schema: SCHEMA, lasts: Lasts::Ever, encoded, number: 0 }
    }

    fn op<'a>(&'a self, Encoded { bytes, older }: &'a Encoded) -> Op<'a> {
        let Self { kind, ref table, ref key, expected, number, schema, lasts, .. } = *self;
        Op { expected, number, schema, lasts, bytes, older, ..Op::new(kind, table, key) }
    }
}

impl Encoded {
    const NOTHING: Encoded = Encoded { bytes: Vec::new(), older: Vec::new() };
}

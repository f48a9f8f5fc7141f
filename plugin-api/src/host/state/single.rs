//! What does a plugin remember that is one value, or one number?

use midair_abi::store::{Kind, Op};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Revision, SCHEMA, Table, decode};
use crate::error::{Error, Result};
use crate::glue::operation::Operation;
use crate::host::ctx::Ctx;

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
    pub(super) table: String,
    pub(super) name: String,
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

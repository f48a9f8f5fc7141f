//! What is an operation that outlives its call?

use midair_abi::store::{Kind, Lasts, Op};

use crate::mutation::{self, Bug};

/// An operation that owns what it needs.
pub(crate) struct Write {
    kind: Kind,
    table: String,
    key: String,
    after: Option<String>,
    limit: usize,
    expected: Option<u64>,
    schema: u32,
    number: i64,
    lasts: Lasts,
    bytes: Vec<u8>,
    older: Vec<u8>,
}

impl Write {
    /// A copy of an operation.
    #[must_use]
    pub(crate) fn of(op: &Op<'_>) -> Self {
        let Op { kind, table, key, after, limit, expected, schema, number, lasts, bytes, older } = *op;
        let lasts = if mutation::is(Bug::TtlIgnored) { Lasts::Ever } else { lasts };
        let (table, key, after) = (table.to_owned(), key.to_owned(), after.map(str::to_owned));
        Self { kind, table, key, after, limit, expected, schema, number, lasts, bytes: bytes.to_vec(), older: older.to_vec() }
    }

    /// The operation.
    #[must_use]
    pub(crate) fn op(&self) -> Op<'_> {
        let Self { kind, ref table, ref key, ref after, limit, expected, schema, number, lasts, ref bytes, ref older } = *self;
        Op { kind, table, key, after: after.as_deref(), limit, expected, schema, number, lasts, bytes, older }
    }

    /// What it writes to, for people.
    #[must_use]
    pub(crate) fn place(&self) -> String {
        format!("{}[{:?}]", self.table, self.key)
    }
}

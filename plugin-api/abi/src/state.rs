//! What does the state take and give?

use abi_stable::StableAbi;

use crate::memory::Span;
use crate::store;

/// One operation on the state; see [`store::Op`](crate::store::Op), whose fields these are.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
#[allow(missing_docs, reason = "they are documented at `store::Op`")]
pub struct Op {
    pub kind: u32,
    pub schema: u32,
    pub expected: u64,
    pub flags: u32,
    pub number: i64,
    pub limit: u64,
    pub lasts: u64,
    pub table: Span,
    pub key: Span,
    pub after: Span,
    pub bytes: Span,
    pub older: Span,
}

/// One row of an answer; see [`store::Row`](crate::store::Row).
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
#[allow(missing_docs, reason = "they are documented at `store::Row`")]
pub struct Row {
    pub key: Span,
    pub bytes: Span,
    pub revision: u64,
    pub number: i64,
    pub schema: u32,
}

impl Row {
    pub(crate) fn copied(&self) -> store::Row {
        // SAFETY: the spans of a row live in what the outcome's owner owns, through which alone rows are reached.
        let key = unsafe { self.key.text() }.to_owned();
        // SAFETY: as above.
        let bytes = unsafe { self.bytes.bytes() }.to_vec();
        store::Row { key, bytes, revision: self.revision, number: self.number, schema: self.schema, ends: 0 }
    }
}

impl Op {
    /// A flag: `expected` counts.
    pub(crate) const HAS_EXPECTED: u32 = 1;
    /// A flag: `after` counts.
    pub(crate) const HAS_AFTER: u32 = 2;

    /// The spans of an operation; the caller sees to it that it outlives them.
    #[must_use]
    pub fn of(op: &store::Op<'_>) -> Self {
        Self {
            kind: op.kind as u32,
            schema: op.schema,
            expected: op.expected.unwrap_or_default(),
            flags: op.expected.map_or(0, |_| Self::HAS_EXPECTED) | op.after.map_or(0, |_| Self::HAS_AFTER),
            number: op.number,
            limit: op.limit as u64,
            lasts: op.lasts.into(),
            table: Span::of(op.table.as_bytes()),
            key: Span::of(op.key.as_bytes()),
            after: Span::of(op.after.unwrap_or_default().as_bytes()),
            bytes: Span::of(op.bytes),
            older: Span::of(op.older),
        }
    }

    /// The operation.
    ///
    /// # Errors
    ///
    /// The kind, if this side doesn't know it.
    ///
    /// # Safety
    ///
    /// What it was made of must be alive and unchanged for `'a`.
    pub unsafe fn read<'a>(&self) -> Result<store::Op<'a>, u32> {
        let kind = store::Kind::try_from(self.kind)?;
        // SAFETY: passed on to the caller.
        let [table, key, after] = [self.table, self.key, self.after].map(|span| unsafe { span.text::<'a>() });
        // SAFETY: passed on to the caller.
        let [bytes, older] = [self.bytes, self.older].map(|span| unsafe { span.bytes::<'a>() });
        let expected = (self.flags & Self::HAS_EXPECTED != 0).then_some(self.expected);
        let after = (self.flags & Self::HAS_AFTER != 0).then_some(after);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let (schema, number, lasts) = (self.schema, self.number, self.lasts.into());
        Ok(store::Op { kind, table, key, after, limit, expected, schema, number, lasts, bytes, older })
    }
}

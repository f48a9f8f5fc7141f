//! What do plugins remember, wherever it lies?
//!
//! One way to the values for all backends. What operations do is said by `midair_plugin::store`; here is where they do it. Reads are answered
//! at once and wait for no write. No plugin code runs inside.

use midair_plugin::store::{Answer, Kind, Limits, Memory, Op, Row, Tally, clock, run};

/// The state of all plugins.
pub(crate) struct State(Backend);

enum Backend {
    Memory(Memory),
}

/// What became of some operations.
pub(crate) enum Applied {
    /// They are done, or refused.
    Now(Answer),
}

impl State {
    /// In the process's memory: it ends with it.
    #[must_use]
    pub(crate) fn in_memory(limits: Limits) -> Self {
        Self(Backend::Memory(Memory::new(limits, clock)))
    }

    /// Does all of `ops`, in order, or none.
    pub(crate) fn apply(&self, ops: &[Op<'_>]) -> Applied {
        match &self.0 {
            Backend::Memory(memory) => Applied::Now(memory.apply(ops)),
        }
    }

    /// What a read answers.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub(crate) fn look(&self, op: &Op<'_>) -> Answer {
        match &self.0 {
            Backend::Memory(memory) => memory.apply(std::slice::from_ref(op)),
        }
    }

    /// The values behind the key `after`, as a reader of `schema` gets them: at most `rows`, and no more once they have `bytes`.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub(crate) fn page(&self, table: &str, after: Option<&str>, schema: u32, rows: usize, bytes: usize) -> Answer {
        let op = Op { after, limit: rows, schema, ..Op::new(Kind::Scan, table, "") };
        match &self.0 {
            Backend::Memory(memory) => memory.page(&op, bytes),
        }
    }

    /// The value at `key`, as a reader of `schema` gets it.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub(crate) fn row(&self, table: &str, key: &str, schema: u32) -> Result<Option<Row>, midair_plugin::store::Refusal> {
        Ok(self.look(&Op { schema, ..Op::new(Kind::Get, table, key) })?.into_iter().next())
    }

    /// Does all of each group, in order, or none of it, with nobody in between; `done` hears what became of each.
    pub(crate) fn apply_each(&self, groups: &[Vec<Op<'_>>], done: impl FnOnce(Vec<Answer>) + Send + 'static) {
        match &self.0 {
            Backend::Memory(memory) => done(memory.apply_each(groups)),
        }
    }

    /// What writes would answer now; they are not done. Revisions are 0, as none were given.
    ///
    /// # Errors
    ///
    /// The refusal that they would meet.
    pub(crate) fn foresee(&self, ops: &[Op<'_>]) -> Answer {
        self.limits().check(ops)?;
        run::foresee(ops, |op| self.look(op))
    }

    /// Keys that are spread over a table, at most `most`.
    #[must_use]
    pub(crate) fn spread(&self, table: &str, most: usize) -> Vec<String> {
        let next = |after: &str| {
            let rows = self.page(table, Some(after), 0, 1, 0)?;
            Ok(rows.into_iter().next().map(|row| row.key))
        };
        run::spread(self.ends(table), most, next).unwrap_or_default()
    }

    fn ends(&self, table: &str) -> Option<(String, String)> {
        match &self.0 {
            Backend::Memory(memory) => memory.ends(table),
        }
    }

    fn limits(&self) -> &Limits {
        match &self.0 {
            Backend::Memory(memory) => memory.limits(),
        }
    }

    /// What a table holds.
    #[must_use]
    pub(crate) fn tally(&self, table: &str) -> Tally {
        match &self.0 {
            Backend::Memory(memory) => memory.tally(table),
        }
    }
}

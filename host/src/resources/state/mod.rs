//! What do plugins remember, wherever it lies?
//!
//! One way to the values for all backends. What operations do is said by `midair_abi::store`; here is where they do it. Reads are answered
//! at once and wait for no write. No plugin code runs inside.

mod applied;
#[cfg(feature = "redb")]
mod disk;
pub(crate) mod expiry;
#[cfg(feature = "http")]
pub(crate) mod export;
mod gate;
#[cfg(feature = "redb")]
mod later;
mod write;

use std::path::Path;
use std::time::Duration;

use midair_abi::store::{Answer, Kind, Limits, Memory, Op, Refusal, Row, Tally, clock, run};

use crate::report::error::Result;
#[cfg(not(feature = "redb"))]
use crate::report::error::{Code, Error};

pub(crate) use self::applied::Applied;
#[cfg(feature = "redb")]
use self::disk::Disk;
pub(crate) use self::gate::Gate;
pub(crate) use self::write::Write;

/// The state of all plugins.
pub(crate) struct State(Backend);

enum Backend {
    Memory(Memory),
    #[cfg(feature = "redb")]
    Disk(Disk),
}

impl State {
    /// In the process's memory: it ends with it.
    #[must_use]
    pub(crate) fn in_memory(limits: Limits) -> Self {
        Self(Backend::Memory(Memory::new(limits, clock)))
    }

    /// In a file, or in memory where there is none.
    ///
    /// # Errors
    ///
    /// Fatal: what is wrong with the file, in which nothing was changed.
    pub(crate) fn open(file: Option<&Path>, limits: Limits) -> Result<Self> {
        let Some(file) = file else { return Ok(Self::in_memory(limits)) };
        #[cfg(feature = "redb")]
        return Ok(Self(Backend::Disk(Disk::open(file, limits)?)));
        #[cfg(not(feature = "redb"))]
        Err(Error::fatal(
            Code::Usage,
            file.display().to_string(),
            "this host was built without the feature `redb`, so it keeps no state in files",
        )
        .help("build it with that feature"))
    }

    /// Does all of `ops`, in order, or none.
    pub(crate) fn apply(&self, ops: &[Op<'_>]) -> Applied {
        match &self.0 {
            Backend::Memory(memory) => Applied::Now(memory.apply(ops)),
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.apply(ops),
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
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.look(op),
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
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.page(&op, bytes),
        }
    }

    /// The value at `key`, as a reader of `schema` gets it.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub(crate) fn row(&self, table: &str, key: &str, schema: u32) -> Result<Option<Row>, Refusal> {
        Ok(self.look(&Op { schema, ..Op::new(Kind::Get, table, key) })?.into_iter().next())
    }

    /// Does all of each group, in order, or none of it, with nobody in between, and before whatever is asked for later; `done` hears what became
    /// of each, maybe later and elsewhere. Waits for no disk.
    pub(crate) fn apply_each(&self, groups: &[Vec<Op<'_>>], done: impl FnOnce(Vec<Answer>) + Send + 'static) {
        match &self.0 {
            Backend::Memory(memory) => done(memory.apply_each(groups)),
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => {
                disk.apply_each(groups, done);
            }
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
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.ends(table),
        }
    }

    fn limits(&self) -> &Limits {
        match &self.0 {
            Backend::Memory(memory) => memory.limits(),
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.limits(),
        }
    }

    /// What a table holds.
    #[must_use]
    pub(crate) fn tally(&self, table: &str) -> Tally {
        match &self.0 {
            Backend::Memory(memory) => memory.tally(table),
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.tally(table),
        }
    }

    /// All tables that hold something, by their full names, with what they hold.
    #[cfg(feature = "http")]
    #[must_use]
    pub(crate) fn tallies(&self) -> Vec<(String, Tally)> {
        match &self.0 {
            Backend::Memory(memory) => memory.tallies(),
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.tallies(),
        }
    }

    /// Removes values that have ended, at most so many; how many it did.
    pub(crate) fn sweep(&self, most: usize) -> usize {
        match &self.0 {
            Backend::Memory(memory) => memory.sweep(most),
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.sweep(most),
        }
    }

    /// Closes the file after what was asked for before, so that the next to open it has nothing to mend; whether that was so in time. What is
    /// asked for after it is refused.
    #[cfg_attr(not(feature = "redb"), expect(unused_variables, reason = "memory has nothing to close"))]
    pub(crate) fn close(&self, deadline: Duration) -> bool {
        match &self.0 {
            Backend::Memory(_) => true,
            #[cfg(feature = "redb")]
            Backend::Disk(disk) => disk.close(deadline),
        }
    }
}

#[cfg(test)]
mod tests;

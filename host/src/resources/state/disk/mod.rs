//! How are values kept on the disk?
//!
//! In one file, by redb. A thread of its own writes: it takes all writes that wait, does them in one transaction, and answers when the disk has
//! them. Reads see the last transaction and wait for none. After a failure of the disk the file is opened anew, so that what comes next may
//! succeed.

mod draft;
#[cfg(test)]
mod failing;
mod file;
mod rows;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use midair_abi::store::{Answer, Limits, Op, Refusal, Tally, run};
use parking_lot::{RwLock, RwLockReadGuard};
use redb::{CommitError, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError};

use self::file::{Opener, check, make, refused};
use self::rows::{Done, ENDS, Key, LAST, Open, Order, Past, VALUES, failed};
#[cfg(feature = "http")]
use self::rows::{TALLIES, read_tally};
use super::applied::Applied;
use super::later::pending;
use super::write::Write;
#[cfg(midair_seeded)]
use crate::mutation::{self, Bug};
use crate::report::error::Result;

/// How many orders are one transaction at most.
const TOGETHER: usize = 512;

/// Values in a file.
pub(super) struct Disk {
    base: Arc<Base>,
    mail: Sender<Mail>,
    limits: Limits,
}

struct Base {
    open: Opener,
    /// Locked for writing only to open it anew, or to close it.
    database: RwLock<File>,
    now: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether it was said that it can't be opened, and it couldn't since.
    is_told: AtomicBool,
}

enum File {
    Open(Database),
    /// It couldn't be opened; whoever needs it tries again.
    Failed,
    /// For good.
    Closed,
}

enum Mail {
    Order(Order),
    /// The file is to be closed after what was ordered; whether it could be.
    Close(Sender<bool>),
}

impl Disk {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    ///
    /// Fatal: what is wrong with the file. Nothing in it was changed then.
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Self> {
        make(path)?;
        check(path)?;
        let file = path.to_owned();
        let open = move || draft::open(&file);
        Self::with(Box::new(open), limits, midair_abi::store::clock).map_err(|error| refused(path, error))
    }

    /// One for tests, with a clock.
    #[cfg(test)]
    pub(super) fn timed(path: &Path, limits: Limits, now: impl Fn() -> u64 + Send + Sync + 'static) -> Result<Self> {
        make(path)?;
        let file = path.to_owned();
        Self::with(Box::new(move || draft::open(&file)), limits, now).map_err(|error| refused(path, error))
    }

    /// One for tests, whose disk is full after so many more writes.
    #[cfg(test)]
    pub(super) fn failing(path: &Path, limits: Limits) -> Result<(Self, Arc<AtomicU64>)> {
        make(path)?;
        let room = Arc::new(AtomicU64::new(u64::MAX));
        let disk =
            Self::with(failing::open(path, &room), limits, midair_abi::store::clock).map_err(|error| refused(path, error))?;
        Ok((disk, room))
    }

    fn with(open: Opener, limits: Limits, now: impl Fn() -> u64 + Send + Sync + 'static) -> Result<Self, DatabaseError> {
        let database = open()?;
        let base = Arc::new(Base {
            open,
            database: RwLock::new(File::Open(database)),
            now: Box::new(now),
            is_told: AtomicBool::new(false),
        });
        let (mail, waiting) = channel();
        let writer = Arc::clone(&base);
        let thread = std::thread::Builder::new().name("midair-state".to_owned()).spawn(move || writer.write(&waiting));
        thread.map_err(|error| DatabaseError::Storage(StorageError::Io(error)))?;
        Ok(Self { base, mail, limits })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn look(&self, op: &Op<'_>) -> Answer {
        self.page(op, usize::MAX)
    }

    pub(super) fn page(&self, op: &Op<'_>, bytes: usize) -> Answer {
        let now = (self.base.now)();
        self.base.see(|past| run::page(past, op, now, bytes))
    }

    pub(super) fn apply(&self, ops: &[Op<'_>]) -> Applied {
        if !ops.iter().any(Op::is_write) {
            let now = (self.base.now)();
            return Applied::Now(self.base.see(|past| {
                let mut rows = Vec::new();
                for op in ops {
                    rows.extend(run::read(past, op, now)?);
                }
                Ok(rows)
            }));
        }
        if let Err(refusal) = self.limits.check(ops) {
            return Applied::Now(Err(refusal));
        }
        #[cfg(midair_seeded)]
        if mutation::is(Bug::BatchInTwo) && ops.len() > 1 {
            let first = self.apply(&ops[..1]).wait();
            return first.map_or_else(|refusal| Applied::Now(Err(refusal)), |_| self.apply(&ops[1..]));
        }
        let (promise, later) = pending();
        let keep = move |answers: Vec<Answer>| promise.keep(answers.into_iter().next());
        self.order(Order::Do(vec![ops.iter().map(Write::of).collect()], Box::new(keep)));
        Applied::Later(later)
    }

    pub(super) fn apply_each(&self, groups: &[Vec<Op<'_>>], done: impl FnOnce(Vec<Answer>) + Send + 'static) {
        let groups = groups.iter().map(|ops| ops.iter().map(Write::of).collect()).collect();
        self.order(Order::Do(groups, Box::new(done)));
    }

    /// Without a writer the order is dropped, and with it what would have been told.
    fn order(&self, order: Order) {
        let _ = self.mail.send(Mail::Order(order));
    }

    pub(super) fn sweep(&self, most: usize) -> usize {
        let now = (self.base.now)();
        // A transaction only where there is something to do.
        let due = self.base.see(|past| {
            let ends = past.0.open_table(ENDS).map_err(failed)?;
            let first = ends.first().map_err(failed)?.map(|(end, _)| end.value().0);
            Ok(first.is_some_and(|ends| ends <= now))
        });
        if !due.unwrap_or_default() {
            return 0;
        }
        let (told, swept) = channel();
        self.order(Order::Sweep(most, told));
        swept.recv().unwrap_or_default()
    }

    /// Has what was ordered done and the file closed; whether both was so in time.
    pub(super) fn close(&self, deadline: Duration) -> bool {
        let (told, closed) = channel();
        // Without a writer nobody answers.
        let _ = self.mail.send(Mail::Close(told));
        closed.recv_timeout(deadline).unwrap_or_default()
    }

    pub(super) fn ends(&self, table: &str) -> Option<(String, String)> {
        self.base
            .see(|past| {
                let values = past.0.open_table(VALUES).map_err(failed)?;
                let mut range = values.range((table, "")..=(table, LAST)).map_err(failed)?;
                let key = |entry: Option<std::result::Result<(redb::AccessGuard<'_, Key>, _), StorageError>>| match entry {
                    Some(Ok((key, _))) => Ok(Some(key.value().1.to_owned())),
                    Some(Err(error)) => Err(failed(error)),
                    None => Ok(None),
                };
                let first = key(range.next())?;
                let last = key(range.next_back())?.or_else(|| first.clone());
                Ok(first.zip(last))
            })
            .ok()
            .flatten()
    }

    pub(super) fn tally(&self, table: &str) -> Tally {
        self.base.see(|past| past.tally(table)).unwrap_or_default()
    }

    #[cfg(feature = "http")]
    pub(super) fn tallies(&self) -> Vec<(String, Tally)> {
        let all = self.base.see(|past| {
            let tallies = past.0.open_table(TALLIES).map_err(failed)?;
            let mut all = Vec::new();
            for entry in tallies.iter().map_err(failed)? {
                let (name, tally) = entry.map_err(failed)?;
                all.push((name.value().to_owned(), read_tally(tally.value())));
            }
            Ok(all)
        });
        all.unwrap_or_default().into_iter().filter(|(_, tally): &(String, Tally)| tally.values > 0).collect()
    }
}

impl Base {
    /// Reads from what was written last.
    fn see<T>(&self, look: impl FnOnce(&Past) -> std::result::Result<T, Refusal>) -> std::result::Result<T, Refusal> {
        match &*self.opened() {
            File::Open(database) => look(&Past(database.begin_read().map_err(failed)?)),
            file => Err(file.refusal()),
        }
    }

    /// The writer's thread, until nobody can order any more or the file is closed.
    fn write(&self, mail: &Receiver<Mail>) {
        while let Ok(first) = mail.recv() {
            let mut closing = None;
            let order = |mail| match mail {
                Mail::Order(order) => Some(order),
                Mail::Close(told) => {
                    closing = Some(told);
                    None
                }
            };
            let orders: Vec<Order> = std::iter::once(first).chain(mail.try_iter().take(TOGETHER - 1)).filter_map(order).collect();
            if !orders.is_empty() {
                self.fulfil(orders);
            }
            if let Some(told) = closing {
                // Whoever asked may wait no longer.
                let _ = told.send(self.close());
                return;
            }
        }
    }

    /// Does what is ordered, and answers.
    fn fulfil(&self, orders: Vec<Order>) {
        let mut failure = None;
        let outcome = match catch_unwind(AssertUnwindSafe(|| self.commit(&orders))) {
            Ok(outcome) => outcome,
            Err(_) => Err(Refusal::Failed("it broke; standard error has the panic".to_owned())),
        };
        let outcome = outcome.unwrap_or_else(|refusal| {
            failure = Some(refusal);
            Vec::new()
        });
        if failure.is_some() {
            self.renew();
        }
        let mut outcome = outcome.into_iter();
        for order in orders {
            let done = outcome.next();
            match order {
                Order::Do(groups, told) => told(match (done, &failure) {
                    (Some(Done::Did(answers)), _) => answers,
                    (_, failure) => {
                        let refusal = failure.clone().unwrap_or_else(|| Refusal::Failed("it wasn't done".to_owned()));
                        groups.iter().map(|_| Err(refusal.clone())).collect()
                    }
                }),
                Order::Sweep(_, told) => {
                    let swept = if let Some(Done::Swept(swept)) = done { swept } else { 0 };
                    // Whoever asked may be gone.
                    let _ = told.send(swept);
                }
            }
        }
    }

    /// One transaction.
    fn commit(&self, orders: &[Order]) -> std::result::Result<Vec<Done>, Refusal> {
        let file = self.opened();
        let File::Open(database) = &*file else { return Err(file.refusal()) };
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        let done = {
            let mut open = Open::of(&transaction)?;
            let now = (self.now)();
            let done = orders.iter().map(|order| open.order(order, now)).collect::<std::result::Result<Vec<_>, _>>()?;
            open.close()?;
            done
        };
        let doubtful = |error: CommitError| {
            let error = redb::Error::from(error);
            Refusal::Failed(format!("{error}; all of it was written or nothing, and which of both can't be said"))
        };
        transaction.commit().map_err(doubtful)?;
        Ok(done)
    }

    /// The database; opened, if that failed before.
    fn opened(&self) -> RwLockReadGuard<'_, File> {
        let file = self.database.read();
        if !matches!(*file, File::Failed) {
            return file;
        }
        drop(file);
        self.renew();
        self.database.read()
    }

    /// After a failure redb refuses whatever comes: the file is closed and opened anew, which takes it back to what was written last.
    fn renew(&self) {
        let mut file = self.database.write();
        if matches!(*file, File::Closed) {
            return;
        }
        *file = File::Failed;
        match (self.open)() {
            Ok(database) => {
                *file = File::Open(database);
                if self.is_told.swap(false, Ordering::Relaxed) {
                    tracing::warn!("the state's file is open again");
                }
            }
            // Whoever needs it comes here: once is enough.
            Err(error) if !self.is_told.swap(true, Ordering::Relaxed) => {
                tracing::error!(%error, "the state's file can't be opened again; who needs it next tries once more");
            }
            Err(_) => {}
        }
    }

    /// Closes the file; whether the next to open it has nothing to mend.
    fn close(&self) -> bool {
        match std::mem::replace(&mut *self.database.write(), File::Closed) {
            File::Open(database) => match catch_unwind(AssertUnwindSafe(|| database.close())) {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the state's file can't be closed as it should be");
                    false
                }
                Err(_) => false,
            },
            File::Failed => false,
            File::Closed => true,
        }
    }
}

impl File {
    fn refusal(&self) -> Refusal {
        let why = if matches!(self, Self::Closed) { "is closed, as the host ends" } else { "can't be opened" };
        Refusal::Failed(format!("its file {why}; nothing was written"))
    }
}

//! How are values kept on the disk?
//!
//! In one file, by redb. A thread of its own writes: it takes all writes that wait, does them in one transaction, and answers when the disk has
//! them. Reads see the last transaction and wait for none. After a failure of the disk the file is opened anew, so that what comes next may
//! succeed.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use midair_plugin::store::run::{self, Look, Rows};
use midair_plugin::store::{Answer, Found, Limits, Op, Refusal, Tally, Value};
use parking_lot::RwLock;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable, StorageError,
    Table, TableDefinition, WriteTransaction,
};

use super::{Applied, Write, pending};
use crate::error::{Code, Error, Result};

type Key = (&'static str, &'static str);

/// By table and key: revision, end, schema and length of the older forms, little-endian; the older forms; the value.
const VALUES: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("values");
/// When which value ends.
const ENDS: TableDefinition<'_, (u64, &str, &str), ()> = TableDefinition::new("ends");
/// What each table holds.
const TALLIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tallies");
/// `format`, and the last `revision`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("midair");

/// The version of all this.
const FORMAT: u64 = 1;

/// How many orders are one transaction at most.
const TOGETHER: usize = 512;

/// Opens the database; again after a failure of the disk.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// Values in a file.
pub(super) struct Disk {
    base: Arc<Base>,
    orders: Sender<Order>,
    limits: Limits,
}

struct Base {
    open: Opener,
    /// `None` while it can't be opened. Locked for writing only to open it anew.
    database: RwLock<Option<Database>>,
    now: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What waits for the writer.
enum Order {
    /// Each group all or nothing.
    Do(Vec<Vec<Write>>, Box<dyn FnOnce(Vec<Answer>) + Send>),
    /// Values that have ended go, so many at most; how many did.
    Sweep(usize, Sender<usize>),
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
        let open = move || opened(|| Builder::new().open(&file));
        Self::with(Box::new(open), limits, midair_plugin::store::clock).map_err(|error| refused(path, error))
    }

    fn with(open: Opener, limits: Limits, now: impl Fn() -> u64 + Send + Sync + 'static) -> Result<Self, DatabaseError> {
        let database = open()?;
        let base = Arc::new(Base { open, database: RwLock::new(Some(database)), now: Box::new(now) });
        let (orders, waiting) = channel();
        let writer = Arc::clone(&base);
        let thread = std::thread::Builder::new().name("midair-state".to_owned()).spawn(move || writer.write(&waiting));
        thread.map_err(|error| DatabaseError::Storage(StorageError::Io(error)))?;
        Ok(Self { base, orders, limits })
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
        let _ = self.orders.send(order);
    }

    pub(super) fn sweep(&self, most: usize) -> usize {
        let (told, swept) = channel();
        self.order(Order::Sweep(most, told));
        swept.recv().unwrap_or_default()
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

/// Behind every key: no text has this character twice at its start and then more.
const LAST: &str = "\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}";

impl Base {
    /// Reads from what was written last.
    fn see<T>(&self, look: impl FnOnce(&Past) -> std::result::Result<T, Refusal>) -> std::result::Result<T, Refusal> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| Refusal::Failed("its file can't be opened".to_owned()))?;
        look(&Past(database.begin_read().map_err(failed)?))
    }

    /// The writer's thread, until nobody can order any more.
    fn write(&self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            let orders: Vec<Order> = std::iter::once(first).chain(orders.try_iter().take(TOGETHER - 1)).collect();
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
    }

    /// One transaction.
    fn commit(&self, orders: &[Order]) -> std::result::Result<Vec<Done>, Refusal> {
        let database = self.database.read();
        let Some(database) = database.as_ref() else {
            return Err(Refusal::Failed("its file can't be opened".to_owned()));
        };
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        let done = {
            let mut open = Open::of(&transaction)?;
            let now = (self.now)();
            let done = orders.iter().map(|order| open.order(order, now)).collect::<std::result::Result<Vec<_>, _>>()?;
            open.close()?;
            done
        };
        transaction.commit().map_err(failed)?;
        Ok(done)
    }

    /// After a failure redb refuses whatever comes: the file is closed and opened anew, which takes it back to what was written last.
    fn renew(&self) {
        let mut database = self.database.write();
        *database = None;
        match (self.open)() {
            Ok(opened) => *database = Some(opened),
            Err(error) => tracing::error!(%error, "the state's file can't be opened again; the next write tries once more"),
        }
    }
}

/// What became of an order.
enum Done {
    Did(Vec<Answer>),
    Swept(usize),
}

fn failed(error: impl Into<redb::Error>) -> Refusal {
    Refusal::Failed(format!("{}; nothing was written", error.into()))
}

/// What was written last, at one moment.
struct Past(ReadTransaction);

impl Past {
    fn tally(&self, table: &str) -> std::result::Result<Tally, Refusal> {
        let tallies = self.0.open_table(TALLIES).map_err(failed)?;
        Ok(tallies.get(table).map_err(failed)?.map(|tally| read_tally(tally.value())).unwrap_or_default())
    }
}

fn get(values: &impl ReadableTable<Key, &'static [u8]>, table: &str, key: &str, see: &mut dyn FnMut(Found<'_>)) -> std::result::Result<(), Refusal> {
    if let Some(value) = values.get((table, key)).map_err(failed)? {
        see(found(value.value())?);
    }
    Ok(())
}

fn walk(
    values: &impl ReadableTable<Key, &'static [u8]>,
    table: &str,
    from: Bound<&str>,
    see: &mut dyn FnMut(&str, Found<'_>) -> bool,
) -> std::result::Result<(), Refusal> {
    let from = match from {
        Bound::Included(key) => Bound::Included((table, key)),
        Bound::Excluded(key) => Bound::Excluded((table, key)),
        Bound::Unbounded => Bound::Included((table, "")),
    };
    for entry in values.range::<(&str, &str)>((from, Bound::Unbounded)).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let (other, key) = key.value();
        if other != table || !see(key, found(value.value())?) {
            break;
        }
    }
    Ok(())
}

fn count_over(ends: &impl ReadableTable<(u64, &'static str, &'static str), ()>, table: &str, now: u64) -> std::result::Result<u64, Refusal> {
    let mut over = 0;
    for entry in ends.range(..=(now, LAST, LAST)).map_err(failed)? {
        over += u64::from(entry.map_err(failed)?.0.value().1 == table);
    }
    Ok(over)
}

impl Look for Past {
    fn get(&self, table: &str, key: &str, see: &mut dyn FnMut(Found<'_>)) -> std::result::Result<(), Refusal> {
        get(&self.0.open_table(VALUES).map_err(failed)?, table, key, see)
    }

    fn walk(&self, table: &str, from: Bound<&str>, see: &mut dyn FnMut(&str, Found<'_>) -> bool) -> std::result::Result<(), Refusal> {
        walk(&self.0.open_table(VALUES).map_err(failed)?, table, from, see)
    }

    fn count(&self, table: &str, now: u64) -> std::result::Result<u64, Refusal> {
        let over = count_over(&self.0.open_table(ENDS).map_err(failed)?, table, now)?;
        Ok(self.tally(table)?.values.saturating_sub(over))
    }
}

/// A transaction's tables.
struct Open<'t> {
    values: Table<'t, Key, &'static [u8]>,
    ends: Table<'t, (u64, &'static str, &'static str), ()>,
    tallies: Table<'t, &'static str, &'static [u8]>,
    meta: Table<'t, &'static str, u64>,
    /// Those of the tables that were touched.
    touched: BTreeMap<String, Tally>,
    revision: u64,
    /// The disk failed: nothing of this transaction counts.
    broken: Option<Refusal>,
}

impl<'t> Open<'t> {
    fn of(transaction: &'t WriteTransaction) -> std::result::Result<Self, Refusal> {
        let meta = transaction.open_table(META).map_err(failed)?;
        let revision = meta.get("revision").map_err(failed)?.map_or(0, |revision| revision.value());
        Ok(Self {
            values: transaction.open_table(VALUES).map_err(failed)?,
            ends: transaction.open_table(ENDS).map_err(failed)?,
            tallies: transaction.open_table(TALLIES).map_err(failed)?,
            meta,
            touched: BTreeMap::new(),
            revision,
            broken: None,
        })
    }

    fn order(&mut self, order: &Order, now: u64) -> std::result::Result<Done, Refusal> {
        match order {
            Order::Do(groups, _) => {
                let mut answers = Vec::with_capacity(groups.len());
                for group in groups {
                    let ops: Vec<Op<'_>> = group.iter().map(Write::op).collect();
                    answers.push(run::write(self, &ops, now));
                    if let Some(broken) = self.broken.take() {
                        return Err(broken);
                    }
                }
                Ok(Done::Did(answers))
            }
            Order::Sweep(most, _) => {
                let mut over = Vec::new();
                for entry in self.ends.range(..=(now, LAST, LAST)).map_err(failed)?.take(*most) {
                    let entry = entry.map_err(failed)?.0;
                    let (_, table, key) = entry.value();
                    over.push((table.to_owned(), key.to_owned()));
                }
                for (table, key) in &over {
                    self.change(table, key, None)?;
                }
                Ok(Done::Swept(over.len()))
            }
        }
    }

    fn close(mut self) -> std::result::Result<(), Refusal> {
        for (table, tally) in &self.touched {
            self.tallies.insert(table.as_str(), written_tally(tally).as_slice()).map_err(failed)?;
        }
        self.meta.insert("revision", self.revision).map_err(failed)?;
        Ok(())
    }

    fn tally(&mut self, table: &str) -> std::result::Result<&mut Tally, Refusal> {
        if !self.touched.contains_key(table) {
            let there = self.tallies.get(table).map_err(failed)?.map(|tally| read_tally(tally.value())).unwrap_or_default();
            self.touched.insert(table.to_owned(), there);
        }
        self.touched.get_mut(table).ok_or(Refusal::Revoked)
    }

    fn change(&mut self, table: &str, key: &str, value: Option<Value>) -> std::result::Result<Option<Value>, Refusal> {
        let before = match &value {
            Some(value) => self.values.insert((table, key), written(value).as_slice()).map_err(failed)?,
            None => self.values.remove((table, key)).map_err(failed)?,
        };
        let before = before.map(|before| found(before.value()).map(|found| found.value())).transpose()?;
        if let Some(before) = &before {
            self.tally(table)?.remove(&before.found());
            if before.ends != 0 {
                self.ends.remove((before.ends, table, key)).map_err(failed)?;
            }
        }
        if let Some(value) = &value {
            self.tally(table)?.add(&value.found());
            if value.ends != 0 {
                self.ends.insert((value.ends, table, key), ()).map_err(failed)?;
            }
        }
        Ok(before)
    }
}

impl Look for Open<'_> {
    fn get(&self, table: &str, key: &str, see: &mut dyn FnMut(Found<'_>)) -> std::result::Result<(), Refusal> {
        get(&self.values, table, key, see)
    }

    fn walk(&self, table: &str, from: Bound<&str>, see: &mut dyn FnMut(&str, Found<'_>) -> bool) -> std::result::Result<(), Refusal> {
        walk(&self.values, table, from, see)
    }

    fn count(&self, table: &str, now: u64) -> std::result::Result<u64, Refusal> {
        let there = || Ok(self.tallies.get(table).map_err(failed)?.map(|tally| read_tally(tally.value()).values).unwrap_or_default());
        let values = self.touched.get(table).map_or_else(there, |tally| Ok(tally.values))?;
        Ok(values.saturating_sub(count_over(&self.ends, table, now)?))
    }
}

impl Rows for Open<'_> {
    fn put(&mut self, table: &str, key: &str, value: Option<Value>) -> std::result::Result<Option<Value>, Refusal> {
        self.change(table, key, value).inspect_err(|refusal| self.broken = Some(refusal.clone()))
    }

    fn stamp(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }
}

fn written(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + value.older.len() + value.bytes.len());
    bytes.extend_from_slice(&value.revision.to_le_bytes());
    bytes.extend_from_slice(&value.ends.to_le_bytes());
    bytes.extend_from_slice(&value.schema.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(value.older.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&value.older);
    bytes.extend_from_slice(&value.bytes);
    bytes
}

fn found(bytes: &[u8]) -> std::result::Result<Found<'_>, Refusal> {
    let parse = || {
        let (revision, rest) = bytes.split_first_chunk::<8>()?;
        let (ends, rest) = rest.split_first_chunk::<8>()?;
        let (schema, rest) = rest.split_first_chunk::<4>()?;
        let (older, rest) = rest.split_first_chunk::<4>()?;
        let (older, bytes) = rest.split_at_checked(u32::from_le_bytes(*older) as usize)?;
        let (revision, ends, schema) = (u64::from_le_bytes(*revision), u64::from_le_bytes(*ends), u32::from_le_bytes(*schema));
        Some(Found { revision, schema, ends, older, bytes })
    };
    parse().ok_or_else(|| Refusal::Failed("a value in its file is damaged".to_owned()))
}

type TallyForm = (u64, u64, Vec<((u32, u32), u64)>);

fn written_tally(tally: &Tally) -> Vec<u8> {
    let forms = tally.forms.iter().map(|(forms, count)| (*forms, *count)).collect();
    let form: TallyForm = (tally.values, tally.bytes, forms);
    serde_json::to_vec(&form).unwrap_or_default()
}

fn read_tally(bytes: &[u8]) -> Tally {
    let (values, bytes, forms): TallyForm = serde_json::from_slice(bytes).unwrap_or_default();
    Tally { values, bytes, forms: forms.into_iter().collect() }
}

/// Makes the file if there is none: whole, under another name, and then linked to its own, so that nobody finds half of it.
fn make(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let cant = |error: &dyn std::fmt::Display| {
        Error::fatal(Code::State, path.display().to_string(), format!("the state's file can't be made: {error}"))
            .help("its folder has to be there, and writable for this user; or name another file with --state")
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let fill = || {
        let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        options.map_err(|error| cant(&error))?;
        let fresh = || -> std::result::Result<(), redb::Error> {
            let database = Builder::new().create(&draft)?;
            let transaction = database.begin_write()?;
            {
                transaction.open_table(META)?.insert("format", FORMAT)?;
                transaction.open_table(VALUES)?;
                transaction.open_table(ENDS)?;
                transaction.open_table(TALLIES)?;
            }
            transaction.commit()?;
            Ok(())
        };
        fresh().map_err(|error| cant(&error))?;
        match fs::hard_link(&draft, path) {
            // Another host was quicker; which of them may have it is decided by its lock.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(cant(&error)),
            _ => Ok(()),
        }
    };
    let filled = fill();
    // If it stays, it is in nobody's way.
    let _ = fs::remove_file(&draft);
    filled
}

/// Reads without writing what can be told of the file: redb changes one that it opens to write.
fn check(path: &Path) -> Result<()> {
    let readable = match opened(|| Builder::new().open_read_only(path)) {
        Ok(readable) => readable,
        // It wasn't closed, as after a kill: only whoever writes can open it.
        Err(DatabaseError::RepairAborted) => return Ok(()),
        Err(error) => return Err(refused(path, error)),
    };
    let format = |readable: &ReadOnlyDatabase| -> std::result::Result<Option<u64>, redb::Error> {
        Ok(readable.begin_read()?.open_table(META)?.get("format")?.map(|format| format.value()))
    };
    match format(&readable) {
        Ok(Some(FORMAT)) => Ok(()),
        Ok(Some(other)) => {
            let reason = format!("it is of version {other} of midair's format, and this midair reads version {FORMAT}; nothing in it was changed");
            Err(Error::fatal(Code::State, path.display().to_string(), reason)
                .help("start the midair that wrote it, or name another file with --state"))
        }
        Ok(None) | Err(redb::Error::TableDoesNotExist(_)) => {
            let reason = "it is a database, but not one of midair's; nothing in it was changed";
            Err(Error::fatal(Code::State, path.display().to_string(), reason).help("name another file with --state"))
        }
        Err(error) => {
            let reason = format!("it can't be read: {error}; nothing in it was changed");
            Err(Error::fatal(Code::State, path.display().to_string(), reason).help(DAMAGED))
        }
    }
}

const DAMAGED: &str = "put a copy of it in its place; to begin without what it holds, move it away";

/// Whatever a damaged file leads redb to, this process goes on.
fn opened<T>(open: impl FnOnce() -> std::result::Result<T, DatabaseError>) -> std::result::Result<T, DatabaseError> {
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(DatabaseError::Storage(StorageError::Corrupted("it broke what reads it".to_owned()))))
}

fn refused(path: &Path, error: DatabaseError) -> Error {
    let (reason, help) = match &error {
        DatabaseError::DatabaseAlreadyOpen => {
            ("another process has it open".to_owned(), "end that host first, or name another file with --state")
        }
        DatabaseError::UpgradeRequired(version) => (
            format!("it was written by another version of redb, whose format is {version}"),
            "start the midair that wrote it, or name another file with --state",
        ),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
            (format!("it isn't a state file, or what was one: {error}"), DAMAGED)
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            ("it is cut off".to_owned(), DAMAGED)
        }
        DatabaseError::Storage(StorageError::Corrupted(how)) => (format!("it is cut off or damaged: {how}"), DAMAGED),
        other => (format!("it can't be opened: {other}"), "see that this user may read and write it, or name another file with --state"),
    };
    Error::fatal(Code::State, path.display().to_string(), format!("{reason}; nothing in it was changed")).help(help)
}

//! How is a file opened that may turn out to be damaged?
//!
//! redb mends a file that wasn't closed, and finds some damage only then. So what it writes while it opens one is held in memory, and put
//! into the file when it has found it whole. The first block, which says where all else is, is put last.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend};

use super::file::opened;

const BLOCK: usize = 4096;

/// Opens the file; if it can't be used, it is as it was.
pub(super) fn open(path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let draft = Draft(Arc::new(Inner { file: FileBackend::new(file)?, held: Mutex::default() }));
    let len = draft.0.file.len()?;
    *draft.0.held.lock() = Some(Held { len, blocks: BTreeMap::new() });
    let inner = Arc::clone(&draft.0);
    let database = opened(|| Builder::new().create_with_backend(draft))?;
    inner.settle()?;
    Ok(database)
}

#[derive(Debug)]
struct Draft(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: FileBackend,
    /// What isn't in the file yet; `None` once all is.
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    len: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Inner {
    /// Puts into the file what was held.
    fn settle(&self) -> io::Result<()> {
        let mut held = self.held.lock();
        let Some(Held { len, blocks }) = &*held else { return Ok(()) };
        self.file.set_len(*len)?;
        for (number, block) in blocks.iter().rev() {
            let start = number * BLOCK as u64;
            let part = usize::try_from(len.saturating_sub(start)).unwrap_or(usize::MAX).min(BLOCK);
            if *number == 0 {
                self.file.sync_data()?;
            }
            self.file.write(start, &block[..part])?;
        }
        self.file.sync_data()?;
        *held = None;
        Ok(())
    }

    /// What the file has, and zeros behind its end.
    fn padded(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.file.len()?.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        out[there..].fill(0);
        if there == 0 { Ok(()) } else { self.file.read(offset, &mut out[..there]) }
    }
}

/// The blocks of a range: number, where it begins in the block and in the range, and how much.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % BLOCK as u64) as usize;
        let part = (BLOCK - within).min(len - done);
        done += part;
        Some((at / BLOCK as u64, within, done - part, part))
    })
}

impl StorageBackend for Draft {
    fn len(&self) -> io::Result<u64> {
        self.0.held.lock().as_ref().map_or_else(|| self.0.file.len(), |held| Ok(held.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let held = self.0.held.lock();
        let Some(held) = &*held else {
            drop(held);
            return self.0.file.read(offset, out);
        };
        if offset.saturating_add(out.len() as u64) > held.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.padded(offset, out)?;
        for (number, within, at, part) in parts(offset, out.len()) {
            if let Some(block) = held.blocks.get(&number) {
                out[at..at + part].copy_from_slice(&block[within..within + part]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut held = self.0.held.lock();
        let Some(held) = &mut *held else { return self.0.file.set_len(len) };
        held.len = len;
        held.blocks.retain(|number, _| number * BLOCK as u64 <= len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.held.lock().is_some() { Ok(()) } else { self.0.file.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut held = self.0.held.lock();
        let Some(held) = &mut *held else { return self.0.file.write(offset, data) };
        for (number, within, at, part) in parts(offset, data.len()) {
            let block = match held.blocks.entry(number) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(none) => {
                    let mut block = vec![0; BLOCK];
                    self.0.padded(number * BLOCK as u64, &mut block)?;
                    none.insert(block)
                }
            };
            block[within..within + part].copy_from_slice(&data[at..at + part]);
        }
        held.len = held.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

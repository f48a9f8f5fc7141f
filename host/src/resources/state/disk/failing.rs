//! What if the disk is full?

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{Builder, StorageBackend};

use super::file::Opener;

/// Opens a file whose disk has `room` for so many more writes.
pub(super) fn open(path: &Path, room: &Arc<AtomicU64>) -> Opener {
    let (path, room) = (path.to_owned(), Arc::clone(room));
    Box::new(move || {
        let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
        Builder::new().create_with_backend(Failing { inner: FileBackend::new(file)?, room: Arc::clone(&room) })
    })
}

/// A disk that gets full.
#[derive(Debug)]
struct Failing {
    inner: FileBackend,
    room: Arc<AtomicU64>,
}

impl Failing {
    fn take(&self) -> io::Result<()> {
        let one_less = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(1) };
        let taken = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        taken.map(drop).map_err(|_| io::Error::from_raw_os_error(28))
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.take()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.take()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.take()?;
        self.inner.write(offset, data)
    }
}

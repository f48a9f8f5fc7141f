//! How does a verified file become code in this process?
//!
//! The only caller of dlopen. A library that was opened is never closed: nothing proves that no pointer leads into it any more.

use std::path::Path;

use abi_stable::library::{AbiHeaderRef, LibHeader};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use midair_plugin::abi::{ROOT_SYMBOL, RootRef};

use crate::error::{Code, Error, Result, Stage};
use crate::layout;

#[cfg(midair_seeded)]
static HANDLES: parking_lot::Mutex<Vec<(usize, Handle)>> = parking_lot::Mutex::new(Vec::new());

/// A library that was opened and has a root whose types aren't known yet.
pub(crate) struct Opened {
    header: &'static LibHeader,
    name: String,
}

/// An opened plugin library whose types at the border are the host's. Dropping it leaves it mapped.
pub(crate) struct Library {
    root: RootRef,
    address: usize,
}

impl Opened {
    /// Opens `path` and finds its root. Constructors of the library run inside.
    ///
    /// # Errors
    ///
    /// `E_DEPS` if the loader refuses it, `E_SYM` if it has no root. It stays mapped.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rejected = |code, reason: &str| Error::rejected(code, Stage::Load, name.clone(), reason);
        // SAFETY: the file is the host's private copy, which nobody else writes, and was inspected; its constructors run with the trust
        // that a plugin has anyway. NOW makes unresolved symbols an error here rather than an abort later.
        let handle = unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| {
            rejected(Code::Deps, "the system's loader refuses it")
                .caused_by(error)
                .help("see that the libraries which it needs are installed")
        })?;
        // A library with live pointers into it must not be unmapped, and no caller can prove that there are none.
        let handle = std::mem::ManuallyDrop::new(handle);
        // SAFETY: the symbol is a static of type `LibHeader`, which begins with the header that the reference leads to; whether it really
        // does is checked by `upgrade` through its magic string.
        let header = unsafe { handle.get::<AbiHeaderRef>(ROOT_SYMBOL) }.map(|symbol| *symbol).map_err(|error| {
            rejected(Code::Sym, "it exports no plugin root")
                .caused_by(error)
                .help("write `midair_plugin::export!(plugin);` at the top of the plugin's lib.rs")
        })?;
        let header = header
            .upgrade()
            .map_err(|error| rejected(Code::Sym, "its root isn't one that this host can read").caused_by(error.to_string()))?;
        #[cfg(midair_seeded)]
        HANDLES.lock().push((std::ptr::from_ref(header) as usize, std::mem::ManuallyDrop::into_inner(handle)));
        Ok(Self { header, name })
    }

    /// Compares the layout of the root's types with the host's.
    ///
    /// # Errors
    ///
    /// `E_LAYOUT` naming the type and field that differ.
    pub(crate) fn check(self) -> Result<Library> {
        let Self { header, name } = self;
        let rejected = |code, reason: String| Error::rejected(code, Stage::Check, name.clone(), reason);
        layout::check(header).map_err(|difference| {
            rejected(Code::Layout, difference).help("build plugin and host against the same version of midair-plugin")
        })?;
        // SAFETY: the layout was compared just above and is that of `RootRef`.
        let root = unsafe { header.unchecked_layout::<RootRef>() }
            .map_err(|error| rejected(Code::Sym, "its root can't be made".to_owned()).caused_by(error.to_string()))?;
        Ok(Library { root, address: std::ptr::from_ref(header) as usize })
    }
}

impl Library {
    /// The root's functions.
    #[must_use]
    pub(crate) fn root(&self) -> RootRef {
        self.root
    }

    /// Closes it, for a bug that does so.
    #[cfg(midair_seeded)]
    pub(crate) fn unmap(&self) {
        HANDLES.lock().retain(|(address, _)| *address != self.address);
    }

    /// Where it lies; a second library at an address that was seen before would be the loader's cached old one.
    #[must_use]
    pub(crate) fn address(&self) -> usize {
        self.address
    }
}

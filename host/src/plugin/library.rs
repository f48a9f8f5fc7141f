//! How does a verified file become code in this process?
//!
//! The only caller of dlopen. A library that was opened is never closed: nothing proves that no pointer leads into it any more.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use abi_stable::library::{AbiHeaderRef, LibHeader};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use midair_abi::{ROOT_SYMBOL, RootRef};

use crate::artifact::inspect::same_border;
use crate::plugin::layout;
use crate::plugin::symbolize::Module;
use crate::report::error::{Code, Error, Result, Stage};
use crate::resources::logs::{Logs, Source};
use crate::sys::native_resources::Census;

#[cfg(midair_seeded)]
static HANDLES: parking_lot::Mutex<Vec<(usize, Handle)>> = parking_lot::Mutex::new(Vec::new());

/// A library that was opened and has a root whose types aren't known yet.
pub(crate) struct Opened {
    header: &'static LibHeader,
    name: String,
    module: Module,
    text: Range<u64>,
}

/// An opened plugin library whose types at the border are the host's. Dropping it leaves it mapped.
pub(crate) struct Library {
    root: RootRef,
    address: usize,
    module: Arc<Module>,
    census: Arc<Census>,
    logs: OnceLock<Arc<Source>>,
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
        let (memory, text) = place(header);
        Ok(Self { header, name, module: Module::new(path.to_owned(), memory), text })
    }

    /// Where its code lies in memory.
    #[must_use]
    pub(crate) fn text(&self) -> Range<u64> {
        self.text.clone()
    }

    /// Compares the layout of the root's types with the host's, and has the library counted from here on.
    ///
    /// # Errors
    ///
    /// `E_LAYOUT` naming the type and field that differ.
    pub(crate) fn check(self) -> Result<Library> {
        let Self { header, name, module, .. } = self;
        let rejected = |code, reason: String| Error::rejected(code, Stage::Check, name.clone(), reason);
        layout::check(header).map_err(|difference| {
            // Its root's layout is abi_stable's own and doesn't say of which midair-abi it is.
            rejected(Code::Layout, difference).help(same_border(""))
        })?;
        // SAFETY: the layout was compared just above and is that of `RootRef`.
        let root = unsafe { header.unchecked_layout::<RootRef>() }
            .map_err(|error| rejected(Code::Sym, "its root can't be made".to_owned()).caused_by(error.to_string()))?;
        let census = Census::attach(root);
        Ok(Library { root, address: std::ptr::from_ref(header) as usize, module: Arc::new(module), census, logs: OnceLock::new() })
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

    /// Its file, and where that lies in memory.
    #[must_use]
    pub(crate) fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// What it has in the process.
    #[must_use]
    pub(crate) fn census(&self) -> &Arc<Census> {
        &self.census
    }

    /// Lets it log as this generation of the plugin, from before its first function is called.
    pub(crate) fn log_to(&self, logs: &Arc<Logs>, plugin: &str, generation: u64) {
        self.logs.get_or_init(|| logs.attach(self.root, plugin, generation));
    }

    /// Its way into the log, if it has one.
    #[must_use]
    pub(crate) fn logs(&self) -> Option<&Arc<Source>> {
        self.logs.get()
    }
}

impl Drop for Library {
    /// Everything that could call it was dropped before, so what waits for that may go.
    fn drop(&mut self) {
        self.logs.get().into_iter().for_each(|logs| logs.close());
        self.census.close();
    }
}

/// Where the library lies that has this header, from where its file's address 0 is, and where its code does. It takes the loader's lock, so it
/// is asked once, here, where that was taken anyway.
fn place(header: &LibHeader) -> (Range<u64>, Range<u64>) {
    struct Search {
        address: u64,
        found: Option<(Range<u64>, Range<u64>)>,
    }
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
        // SAFETY: the loader describes one library, valid during this call.
        let info = unsafe { &*info };
        // SAFETY: what is passed below, borrowed by nobody else meanwhile.
        let search = unsafe { &mut *search.cast::<Search>() };
        // SAFETY: the loader says how many there are.
        let segments = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let loaded = || segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD);
        let code = || loaded().filter(|segment| segment.p_flags & libc::PF_X != 0);
        let end = |segment: &libc::Elf64_Phdr| info.dlpi_addr + segment.p_vaddr + segment.p_memsz;
        let memory = info.dlpi_addr..loaded().map(end).max().unwrap_or_default();
        if memory.contains(&search.address) {
            let start = code().map(|segment| info.dlpi_addr + segment.p_vaddr).min().unwrap_or_default();
            search.found = Some((memory, start..code().map(end).max().unwrap_or_default()));
        }
        search.found.is_some().into()
    }
    let mut search = Search { address: std::ptr::from_ref(header) as u64, found: None };
    // SAFETY: the data outlives the call and is of the type that `look` reads.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found.unwrap_or_default()
}

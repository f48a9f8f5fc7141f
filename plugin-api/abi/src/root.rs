//! Where does the host find the root?
//!
//! The one place that meets abi_stable's loader: `export!` needs its header as a constant in the plugin's crate, whose author must not
//! need to depend on abi_stable.

use abi_stable::library::CheckTypeLayout;
pub use abi_stable::library::{LibHeader, RootModuleResult};
use abi_stable::prefix_type::{PrefixRefTrait, PrefixTypeTrait};

use crate::{Root, RootRef};

/// The header behind the exported symbol.
#[must_use]
pub const fn header(module: extern "C" fn() -> RootModuleResult) -> LibHeader {
    // SAFETY: `module` is made by `export!` from `root::module` below, whose result comes from a `RootRef`.
    unsafe { LibHeader::from_constructor::<RootRef>(module, CheckTypeLayout::Yes) }
}

/// The root as abi_stable passes it on. Called once per loaded library.
#[must_use]
pub fn module(root: Root) -> RootModuleResult {
    let root: RootRef = root.leak_into_prefix();
    // SAFETY: the host reads it back as a `RootRef`, after checking that this is what the layout says.
    RootModuleResult::ROk(unsafe { root.to_prefix_ref().cast() })
}

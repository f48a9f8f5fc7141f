//! How does a cdylib become a plugin?

/// Makes the crate a plugin: `export!(plugin)` with a function `fn plugin() -> Plugin`.
///
/// Write it once, at the top of a crate with `crate-type = ["cdylib"]`. It emits the exported root, which the host finds by name, the
/// manifest, which the host reads before it runs anything, and the hidden names by which the host knows of the plugin's threads.
///
/// ```
/// use midair_plugin::Plugin;
///
/// midair_plugin::export!(plugin);
///
/// fn plugin() -> Plugin {
///     Plugin::new().get("/", |_, _| "hello")
/// }
/// # fn main() {}
/// ```
///
/// A plugin that is built against a newer midair than its host may ask for what that host lacks. What it can't do without it says, by names of
/// `midair_abi::manifest::FEATURES`, and a host that lacks one refuses the plugin instead of failing in the middle of its work:
///
/// ```
/// # use midair_plugin::Plugin;
/// midair_plugin::export!(plugin, requires = ["sockets", "jobs"]);
/// # fn plugin() -> Plugin { Plugin::new() }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:path $(, requires = [$($feature:literal),* $(,)?])?) => {
        const _: () = {
            // Assembly is an item, and in a block only a module holds those.
            mod census {
                $crate::census!();
            }

            #[used]
            #[unsafe(link_section = ".note.midair")]
            static NOTE: $crate::__export::Note = $crate::__export::note(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), &[$($($feature),*)?]);

            extern "C" fn manifest() -> $crate::__export::Span {
                $crate::__export::Span::of(NOTE.text())
            }

            extern "C" fn build() -> $crate::__export::Built {
                $crate::__export::build($plugin)
            }

            extern "C" fn module() -> $crate::__export::RootModuleResult {
                $crate::__export::module($crate::__export::root(manifest, build))
            }

            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::__export::LibHeader = $crate::__export::header(module);
        };
    };
}

/// What `export!` names in the plugin's crate, whose author depends on no more than this one.
pub mod expanded {
    pub use midair_abi::manifest::Note;
    pub use midair_abi::root::{LibHeader, RootModuleResult, header, module};
    pub use midair_abi::{Built, Span};

    pub use crate::glue::census::{create_key, create_thread, delete_key, set_value, thread_atexit, value};
    pub use crate::glue::shim::{build, note, root};
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_symbol_that_export_writes_is_the_one_that_abi_stable_looks_for() {
        let name = midair_abi::ROOT_SYMBOL.strip_suffix(b"\0").expect("it ends with a zero");
        let name = std::str::from_utf8(name).expect("text");
        assert!(include_str!("export.rs").contains(&format!("export_name = \"{name}\"")), "export! must write {name}");
    }
}

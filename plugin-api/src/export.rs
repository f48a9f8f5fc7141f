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
#[macro_export]
macro_rules! export {
    ($plugin:path) => {
        const _: () = {
            // Assembly is an item, and in a block only a module holds those.
            mod census {
                $crate::census!();
            }

            #[used]
            #[unsafe(link_section = ".note.midair")]
            static NOTE: $crate::manifest::Note = $crate::manifest::Note::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

            extern "C" fn manifest() -> $crate::abi::Span {
                $crate::abi::Span::of(NOTE.text())
            }

            extern "C" fn build() -> $crate::abi::Built {
                $crate::shim::build($plugin)
            }

            extern "C" fn module() -> $crate::root::RootModuleResult {
                $crate::root::module($crate::shim::root(manifest, build))
            }

            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::root::LibHeader = $crate::root::header(module);
        };
    };
}

//! A cdylib that is no plugin.
#![expect(unsafe_code, reason = "an exported symbol")]

/// What it exports.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> u32 {
    42
}

//! What does a plugin of the tests do otherwise without being built again?
//!
//! Each example of this package is a plugin, and most can do several things. Which of them is written into a copy of the artifact: twenty
//! versions of a plugin cost twenty copies of a file and no compiler. `midair_tests::fixture` writes it, and the plugin's name along with it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// What stands before the variant, once in each artifact.
const MARK: &[u8] = b"midair-variant:";
const SIZE: usize = 256;

/// Data that is loaded, so that another variant is other code to midair; atomic, so that no compiler takes its first value for granted.
static SLOT: [AtomicU8; SIZE] = slot();

const fn slot() -> [AtomicU8; SIZE] {
    let mut slot = [const { AtomicU8::new(0) }; SIZE];
    let mut at = 0;
    while at < MARK.len() {
        slot[at] = AtomicU8::new(MARK[at]);
        at += 1;
    }
    slot
}

/// The variant that was written into this artifact; none is empty.
pub fn variant() -> &'static str {
    static READ: OnceLock<String> = OnceLock::new();
    READ.get_or_init(|| {
        let bytes = SLOT[MARK.len()..].iter().map(|byte| byte.load(Ordering::Relaxed));
        let written: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&written).into_owned()
    })
}

/// The variant's word at this place; a path is one if there is no space in it.
pub fn word(at: usize) -> &'static str {
    variant().split(' ').nth(at).unwrap_or_default()
}

//! The same as `exchanging`, with an allocator of its own. It keeps a header before each block, so that memory that is freed on the wrong side
//! is noticed at once: by whoever frees it.
#![expect(unsafe_code, reason = "an allocator")]

mod exchanging;

use std::alloc::{GlobalAlloc, Layout, System};

struct Marked;

#[global_allocator]
static GLOBAL: Marked = Marked;

const MARK: u64 = 0x006d_6964_6169_7221;

/// With the header, which stands right before the block.
fn widened(layout: Layout) -> (Layout, usize) {
    let (wide, offset) = Layout::new::<u64>().extend(layout).expect("small enough");
    (wide.pad_to_align(), offset)
}

// SAFETY: blocks are the system's, from `offset` on, which keeps what the layout asks for.
unsafe impl GlobalAlloc for Marked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (wide, offset) = widened(layout);
        // SAFETY: the header makes it larger than nothing.
        let start = unsafe { System.alloc(wide) };
        if start.is_null() {
            return start;
        }
        // SAFETY: within what was allocated.
        let block = unsafe { start.add(offset) };
        // SAFETY: `offset` is at least the header's size.
        let header = unsafe { block.sub(8) };
        // SAFETY: within what was allocated, and nobody's yet.
        unsafe { header.cast::<u64>().write_unaligned(MARK) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (wide, offset) = widened(layout);
        // SAFETY: a block of ours has a header; one of another side has something there, which is what this is for.
        let header = unsafe { block.sub(8) }.cast::<u64>();
        // SAFETY: as above.
        if unsafe { header.read_unaligned() } != MARK {
            std::process::abort();
        }
        // SAFETY: it is our header, and who frees the block is the last to use it.
        unsafe { header.write_unaligned(0) };
        // SAFETY: where `alloc` had it from the system.
        let start = unsafe { block.sub(offset) };
        // SAFETY: as it was allocated.
        unsafe { System.dealloc(start, wide) }
    }
}

//! The modules' allocator: hands out memory from front to back, and takes back only what was handed out last.
//!
//! The gateway throws a module's whole memory away after each call, so that freeing would be work for nothing.
//! It starts in the room that the linker leaves between the data and the end of the last page, where the standard
//! allocator would ask for a page more on its first allocation: a fresh sandbox for each call feels that.

use std::{
    alloc::{GlobalAlloc, Layout},
    arch::wasm32::{memory_grow, memory_size},
    ptr::null_mut,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

const PAGE_BYTES: usize = 64 * 1024;

#[global_allocator]
static ALLOCATOR: Bump = Bump { next: AtomicUsize::new(0) };

struct Bump {
    /// The first byte that is free; zero before the first allocation.
    // INVARIANT: never lower than `__heap_base` once set, and everything from here up belongs to nobody.
    next: AtomicUsize,
}

#[expect(unsafe_code, reason = "a symbol of the linker can be declared in no other way")]
// SAFETY: the linker defines `__heap_base` in every module; only its address is used.
unsafe extern "C" {
    safe static __heap_base: u8;
}

impl Bump {
    fn next(&self) -> usize {
        match self.next.load(Relaxed) {
            0 => &raw const __heap_base as usize,
            next => next,
        }
    }

    /// Makes the memory reach to `end`, and remembers it as the first free byte; false if there is no more memory.
    fn advance_to(&self, end: usize) -> bool {
        let pages = end.div_ceil(PAGE_BYTES);
        let missing = pages.saturating_sub(memory_size::<0>());
        if missing > 0 && memory_grow::<0>(missing) == usize::MAX {
            return false;
        }
        self.next.store(end, Relaxed);
        true
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe to implement; this one saves each call a page and the freeing"
)]
// SAFETY: blocks lie one behind the other above `__heap_base`, each aligned as asked and inside the memory, so no two
// overlap; only the last one is ever taken back or extended. There are no threads: the target has none.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(start) = self.next().checked_next_multiple_of(layout.align()) else { return null_mut() };
        let Some(end) = start.checked_add(layout.size()) else { return null_mut() };
        if self.advance_to(end) { start as *mut u8 } else { null_mut() }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if block as usize + layout.size() == self.next() {
            self.next.store(block as usize, Relaxed);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if block as usize + layout.size() == self.next() {
            let Some(end) = (block as usize).checked_add(new_size) else { return null_mut() };
            return if self.advance_to(end) { block } else { null_mut() };
        }
        if new_size <= layout.size() {
            return block;
        }
        // SAFETY: the caller guarantees that `new_size` is a valid size at this alignment.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least `layout.size()` long, and a new block overlaps no other.
            unsafe { block.copy_to_nonoverlapping(moved, layout.size()) };
        }
        moved
    }
}

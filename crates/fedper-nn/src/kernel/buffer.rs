//! Memory that starts at a cache line, so that no vector load of a full row crosses two; large buffers in large pages.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const LINE: usize = 64;
const LARGE_PAGE: usize = 2 << 20;

/// A fixed number of `f32`, zero at first, aligned to 64 bytes.
pub(crate) struct Buffer {
    values: NonNull<f32>,
    len: usize,
}

// SAFETY: a buffer owns its memory, like a `Box<[f32]>`.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self { values: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout is not of size 0.
        let pointer = unsafe { alloc_large_or_zeroed(layout) };
        match NonNull::new(pointer.cast()) {
            Some(values) => Self { values, len },
            None => handle_alloc_error(layout),
        }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len * size_of::<f32>();
        let align = if bytes >= LARGE_PAGE { LARGE_PAGE } else { LINE };
        Layout::from_size_align(bytes, align).expect("a buffer of at most isize::MAX bytes")
    }
}

/// # Safety
/// The layout must not be of size 0.
unsafe fn alloc_large_or_zeroed(layout: Layout) -> *mut u8 {
    #[cfg(target_os = "linux")]
    if layout.align() == LARGE_PAGE {
        // SAFETY: the layout is not of size 0; the advice covers whole pages of it, and every byte is written before
        // anyone reads it.
        unsafe {
            let pointer = std::alloc::alloc(layout);
            if !pointer.is_null() {
                // Before it is touched. Where the kernel does not follow the advice, nothing is lost.
                libc::madvise(pointer.cast(), layout.size() / LARGE_PAGE * LARGE_PAGE, libc::MADV_HUGEPAGE);
                pointer.write_bytes(0, layout.size());
            }
            return pointer;
        }
    }
    // SAFETY: passed on to the caller.
    unsafe { alloc_zeroed(layout) }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated with this layout, and nobody else has it.
            unsafe { dealloc(self.values.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` values have been allocated and set to zero, or there are none.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 15, 16, 17, 1000, 524_287, 524_288, 700_001] {
            let mut buffer = Buffer::zeros(len);
            assert_eq!(buffer.len(), len);
            assert!(len == 0 || (buffer.as_ptr() as usize).is_multiple_of(LINE));
            assert!(buffer.iter().all(|&v| v == 0.0));
            buffer.fill(1.0);
            assert_eq!(buffer.iter().sum::<f32>(), len as f32);
        }
        assert!(Buffer::default().is_empty());
    }
}

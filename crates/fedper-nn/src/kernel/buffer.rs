//! Memory that starts at a cache line, so that no vector load of a full row crosses two; large buffers in large pages.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const LINE: usize = 64;
const LARGE_PAGE: usize = 2 << 20;

/// What a [`Buffer`] holds.
///
/// # Safety
/// All bits zero must be a value, and values must need no more than a cache line's alignment and no `Drop`.
pub(crate) unsafe trait Value: Copy {}
// SAFETY: 0.0 is all bits zero.
unsafe impl Value for f32 {}
// SAFETY: so is 0.
unsafe impl Value for u16 {}

/// A fixed number of values, zero at first, aligned to 64 bytes.
pub(crate) struct Buffer<T: Value = f32> {
    values: NonNull<T>,
    len: usize,
}

// SAFETY: a buffer owns its memory, like a `Box<[T]>`.
unsafe impl<T: Value + Send> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Value + Sync> Sync for Buffer<T> {}

impl<T: Value> Buffer<T> {
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
        // A size that wrapped would be one of less memory than `len` says.
        let layout = len.checked_mul(size_of::<T>()).and_then(|bytes| {
            let align = if bytes >= LARGE_PAGE { LARGE_PAGE } else { LINE };
            Layout::from_size_align(bytes, align).ok()
        });
        layout.expect("a buffer of at most isize::MAX bytes")
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

impl<T: Value> Default for Buffer<T> {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl<T: Value> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated with this layout, and nobody else has it.
            unsafe { dealloc(self.values.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
}

impl<T: Value> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values have been allocated and set to zero, or there are none.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), self.len) }
    }
}

impl<T: Value> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
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
        assert!(Buffer::<u16>::default().is_empty());
    }

    #[test]
    fn a_size_that_overflows_is_no_smaller_one() {
        for len in [1 << 62, (1 << 62) + 1, usize::MAX, usize::MAX / 2 + 1] {
            assert!(std::panic::catch_unwind(|| Buffer::<f32>::zeros(len)).is_err(), "{len}");
        }
        assert!(std::panic::catch_unwind(|| Buffer::<u16>::zeros((1 << 63) + 1)).is_err());
    }
}

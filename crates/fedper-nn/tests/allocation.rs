//! A warm step allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fedper_core::seed::{Purpose, SERVER, named};
use fedper_nn::{Architecture, Batch, InputShape, Model, Network, Precision, Sgd, Stem};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator; counting touches a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: passed on to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_step_allocates_nothing() {
    let sgd = Sgd { lr: 0.01, momentum: 0.9, weight_decay: 1e-4 };
    let input = InputShape { channels: 3, height: 32, width: 32 };
    for model in Model::ALL {
        let arch = Architecture::new(model, Stem::Imagenet, input, 10).unwrap();
        let params = arch.init(|name| named(0, Purpose::Init, SERVER, 0, name));
        // Kernels take samples by the dozen or the sixteen, and what is left over otherwise.
        for (precision, samples) in
            Precision::ALL.into_iter().flat_map(|precision| [3, 10, 16, 20, 33].map(|n| (precision, n)))
        {
            let mut network = Network::with_precision(&arch, samples, precision).unwrap();
            network.load(&params).unwrap();
            let (images, labels) = (vec![0.5; samples * input.numel()], vec![1; samples]);
            let mut step = || {
                let before = COUNT.with(Cell::get);
                let batch = Batch { images: &images, labels: &labels };
                network.train_step(batch, &sgd).unwrap();
                network.train_step_clipped(batch, &sgd, 1.0).unwrap();
                network.tilt(0.1, Some(&params), Some(&params)).unwrap();
                network.train_step(batch, &sgd).unwrap();
                network.train_step_clipped(batch, &sgd, 1.0).unwrap();
                network.untilt();
                network.evaluate(batch).unwrap();
                COUNT.with(Cell::get) - before
            };
            step();
            assert_eq!(step(), 0, "{model} {precision}, {samples} samples");
        }
    }
    // The counter does count.
    let before = COUNT.with(Cell::get);
    drop(std::hint::black_box(vec![1u8; 100]));
    assert!(COUNT.with(Cell::get) > before);
}

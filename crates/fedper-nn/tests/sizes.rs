//! Sizes that no machine has are errors, whichever of the factors is too large, and change nothing.

use std::sync::Arc;

use fedper_core::params::{Layout, Params, ParamsError, Spec};
use fedper_nn::{Architecture, Block, InputShape, Model, Network, NnError, Op, Precision, Stem};

/// Powers of two, and what is just beside them: products of these wrap to something small.
const LARGE: [usize; 8] =
    [1 << 31, 1 << 40, 1 << 56, 1 << 58, (1 << 58) + 1, 1 << 60, usize::MAX / 2 + 1, usize::MAX];

#[test]
fn a_batch_that_fits_no_memory_is_an_error() {
    let input = InputShape { channels: 3, height: 32, width: 32 };
    for model in Model::ALL {
        for stem in [Stem::Imagenet, Stem::Cifar] {
            let arch = Architecture::new(model, stem, input, 10).unwrap();
            for precision in Precision::ALL {
                for batch in LARGE.into_iter().skip(1) {
                    match Network::with_precision(&arch, batch, precision) {
                        Err(NnError::Memory { batch: said, .. }) => assert_eq!(said, batch),
                        Err(other) => panic!("{model} {batch}: {other}"),
                        Ok(_) => panic!("{model} {batch}: there is no such memory"),
                    }
                    assert!(Network::fits(&arch, batch).is_err());
                }
            }
            assert!(Network::fits(&arch, 20).is_ok());
        }
    }
}

#[test]
fn an_image_that_fits_no_memory_is_an_error() {
    for large in LARGE {
        for shape in
            [[large, 32, 32], [3, large, 32], [3, 32, large], [3, large, large], [large, large, large]]
        {
            let [channels, height, width] = shape;
            let input = InputShape { channels, height, width };
            assert!(input.numel() >= large);
            for model in Model::ALL {
                // Where it can be described, it cannot be built.
                let built = Architecture::new(model, Stem::Cifar, input, 10).and_then(|arch| {
                    assert!(
                        arch.multiply_adds() > 0 && arch.min_train_batch() > 0 && !arch.summary().is_empty()
                    );
                    Network::new(&arch, 1 << 30)
                });
                assert!(built.is_err(), "{model} {shape:?}");
            }
        }
        for model in Model::ALL {
            let input = InputShape { channels: 3, height: 32, width: 32 };
            let built = Architecture::new(model, Stem::Cifar, input, large)
                .and_then(|arch| Network::new(&arch, 1 << 30));
            assert!(built.is_err(), "{model} {large} classes");
        }
    }
}

#[test]
fn operations_of_impossible_sizes_are_errors() {
    let input = InputShape { channels: 2, height: 8, width: 8 };
    let of = |op: Op| {
        let ops = vec![op, Op::GlobalAvgPool, Op::Flatten];
        Architecture::from_blocks("odd", input, 2, vec![Block { name: "all".into(), ops }])
    };
    let conv = |out_channels, kernel, stride, padding, groups| Op::Conv2d {
        name: "conv".into(),
        in_channels: 2,
        out_channels,
        kernel,
        stride,
        padding,
        groups,
        bias: true,
    };
    assert!(of(conv(2, [3, 3], 1, 1, 1)).is_ok());
    for large in LARGE {
        assert!(of(conv(large, [3, 3], 1, 1, 1)).is_err(), "{large} channels");
        assert!(of(conv(2, [large, 3], 1, 1, 1)).is_err(), "a kernel of {large}");
        assert!(of(conv(2, [3, 3], 1, large, 1)).is_err(), "padding {large}");
        assert!(of(conv(2, [large, large], 1, large, 1)).is_err(), "a kernel of {large} and as much padding");
        assert!(of(conv(2, [3, 3], 1, 1, large)).is_err(), "{large} groups");
        assert!(
            of(Op::MaxPool { kernel: 2, stride: 2, padding: large }).is_err(),
            "a pool's padding {large}"
        );
        // A stride may be any: one window is left.
        assert!(of(conv(2, [3, 3], large, 1, 1)).is_ok(), "stride {large}");
        let ops = vec![Op::Flatten, Op::Linear { name: "fc".into(), in_features: 128, out_features: large }];
        let wide = Architecture::from_blocks("wide", input, large, vec![Block { name: "all".into(), ops }]);
        assert!(wide.and_then(|arch| Network::new(&arch, 1 << 30)).is_err(), "{large} features");
    }
}

#[test]
fn parameters_whose_number_overflows_are_errors() {
    for large in LARGE.into_iter().skip(3) {
        for shape in [vec![large, large], vec![large, 16], vec![large, large, large, large]] {
            let spec = Spec::trainable("w", shape);
            assert!(spec.numel() >= large);
            assert_eq!(Layout::new(vec![spec]).unwrap_err(), ParamsError::TooLarge("w".into()));
        }
    }
    // Nor may their sum.
    let quarter = |name: &str| Spec::trainable(name, [1 << 60]);
    let sum = Layout::new(vec![quarter("a"), quarter("b")]);
    assert_eq!(sum.unwrap_err(), ParamsError::TooLarge("b".into()));
    // Where one extent is 0 there is nothing, whatever the others are.
    assert_eq!(Layout::new(vec![Spec::trainable("none", [usize::MAX, usize::MAX, 0])]).unwrap().numel(), 0);
    // What could be addressed and is not there.
    let layout: Arc<Layout> = Layout::new(vec![Spec::trainable("w", [1 << 58])]).unwrap();
    assert_eq!(Params::try_zeros(layout).unwrap_err(), ParamsError::Memory(1 << 58));
    let layout = Layout::new(vec![Spec::trainable("w", [3])]).unwrap();
    assert_eq!(Params::try_zeros(layout.clone()), Ok(Params::zeros(layout)));
}

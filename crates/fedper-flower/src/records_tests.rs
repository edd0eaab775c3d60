use fedper_core::params::Spec;
use fedper_core::parts::Parts;
use fedper_core::split::Split;
use proptest::prelude::*;

use super::*;

fn base(shapes: &[Vec<usize>], bits: u32) -> Shared {
    let specs =
        shapes.iter().enumerate().map(|(i, shape)| Spec::trainable(format!("p{i}.weight"), shape.clone()));
    let layout = Layout::new(specs.collect()).unwrap();
    let values = (0..layout.numel()).map(|i| f32::from_bits(bits.wrapping_mul(2 * i as u32 + 1)));
    let params = Params::from_values(layout.clone(), values.collect()).unwrap();
    Parts::of(Split::all_base(&layout)).adopt_state(params).unwrap()
}

fn back(content: &Content) -> Content {
    let packed = content.pack();
    assert_eq!(packed.tree.deepest_first().len(), packed.objects.len());
    Content::unpack(packed.tree.id, packed.objects).unwrap()
}

#[test]
fn large_arrays_travel_in_chunks_and_equal_chunks_once() {
    // Three chunks; zeros, so that two of them are equal but for the header in the first.
    let layout = Layout::new(vec![Spec::trainable("w", [1_310_720, 2]), Spec::trainable("v", [3])]).unwrap();
    let base = Parts::of(Split::all_base(&layout)).adopt_state(Params::zeros(layout.clone())).unwrap();
    let record = ArrayRecord::of(&base);
    assert_eq!(record.objects.len(), 3 + 1 + 1 + 1 + 1);
    assert_eq!(record.to_params(&layout).unwrap(), *base.params());
}

#[test]
fn an_empty_base_is_a_record_without_arrays() {
    let base = base(&[], 0);
    let content = back(&Content { arrays: Some(ArrayRecord::of(&base)), ..Content::default() });
    assert_eq!(content.arrays.unwrap().to_params(base.params().layout()).unwrap(), *base.params());
}

#[test]
fn a_flat_base_is_one_array_for_one_layout() {
    let ours = base(&[vec![2, 2], vec![3], vec![]], 0x3f80_0000);
    let layout = ours.params().layout();
    let record = ArrayRecord::flat(&ours);
    // A chunk, an array, the record; by name there would be seven.
    assert_eq!((record.objects.len(), record.is_flat()), (3, true));
    assert!(!ArrayRecord::of(&ours).is_flat());
    assert_eq!(record.to_params(layout).unwrap(), *ours.params());
    // As many values, in other shapes.
    let other = ArrayRecord::flat(&base(&[vec![4], vec![3], vec![]], 1));
    let error = other.to_params(layout).unwrap_err().to_string();
    assert!(error.starts_with("array `flat-") && error.contains("other parameters"), "{error}");
    // The right name over something else.
    for (shape, expected) in [([7], "has shape [7], expected [8]"), ([9], "has shape [9]")] {
        let wrong = vec![0.5; shape[0]];
        let record = ArrayRecord::make([(flat_name(layout), &shape[..], &wrong[..])].into_iter());
        let error = record.to_params(layout).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_does_not_fit_the_base_is_named() {
    let ours = base(&[vec![2, 2], vec![3]], 0x3f80_0000);
    let layout = ours.params().layout();
    let error =
        |shapes: &[Vec<usize>]| ArrayRecord::of(&base(shapes, 1)).to_params(layout).unwrap_err().to_string();
    assert_eq!(error(&[vec![2, 2]]), "array `p1.weight`: is missing");
    assert_eq!(error(&[vec![2, 2], vec![3], vec![1]]), "array `p2.weight`: is not a part of the base");
    assert_eq!(error(&[vec![4], vec![3]]), "array `p0.weight`: has shape [4], expected [2, 2]");
}

#[test]
fn a_chunk_named_a_million_times_costs_no_memory() {
    let base = base(&[vec![70_000]], 3);
    let layout = base.params().layout();
    let mut record = ArrayRecord::of(&base);
    let array = &record.root.children[0];
    let chunk = array.children[0].id;
    let body = serde_json::json!({
        "dtype": "float32", "shape": [70_000], "stype": "numpy.ndarray", "arraychunk_ids": vec![0; 1_000_000],
    });
    let id = record.objects.make(Kind::Array, &[chunk], body.to_string().as_bytes());
    let names = serde_json::json!({ "p0.weight": id.to_string() });
    record.root.id = record.objects.make(Kind::ArrayRecord, &[id], names.to_string().as_bytes());
    let error = record.to_params(layout).unwrap_err().to_string();
    assert!(error.contains("where at most 345536 is allowed"), "{error}");
}

proptest! {
    #[test]
    fn contents_come_back_as_they_went(
        shapes in prop::collection::vec(prop::collection::vec(0usize..4, 0..4), 0..4),
        bits: u32,
        ints in prop::collection::vec(any::<i64>(), 0..4),
        floats in prop::collection::vec(any::<i32>().prop_map(f64::from), 1..4),
        text in "[a-z]{0,5}",
        flag: bool,
    ) {
        let base = base(&shapes, bits);
        let mut metrics = Values::default();
        metrics.set_int("num-examples", ints.first().copied().unwrap_or(0));
        metrics.set_ints("ints", ints.clone());
        metrics.set_floats("floats", floats.clone());
        let mut config = Values::default();
        config.set_text("text", text.clone());
        config.set_bool("flag", flag);
        config.set_float("float", floats[0]);
        config.set_texts("texts", vec![text.clone(); ints.len()]);
        let arrays = if flag { ArrayRecord::flat(&base) } else { ArrayRecord::of(&base) };
        let content = back(&Content {
            arrays: Some(arrays),
            metrics: Some(metrics.clone()),
            config: Some(config.clone()),
        });
        prop_assert_eq!(&content.arrays.unwrap().to_params(base.params().layout()).unwrap(), base.params());
        let found = content.metrics.unwrap();
        prop_assert_eq!(found.ints("ints"), Some(ints));
        prop_assert_eq!(found, metrics);
        let found = content.config.unwrap();
        prop_assert_eq!((found.text("text"), found.bool("flag")), (Some(text.as_str()), Some(flag)));
        prop_assert_eq!(found, config);
    }
}

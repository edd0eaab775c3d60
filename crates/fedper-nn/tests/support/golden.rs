//! Golden files: what PyTorch computed in float64, and how far its own float32 is from that. `../golden/reference.py`
//! writes them and documents them.

use std::path::PathBuf;

use safetensors::SafeTensors;
use serde_json::Value;

use super::formula;

/// Where golden files lie, for tests of any crate of the workspace.
pub(crate) fn path(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fedper-nn/tests/golden")).join(file)
}

/// How far PyTorch's float32 is from its float64: the largest over several ways it computes the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distances {
    /// In its default, contiguous memory layout.
    pub(crate) contiguous: f64,
    /// In this and in the channels-last layout.
    pub(crate) all: f64,
}

/// One golden file.
pub(crate) struct Golden {
    bytes: Vec<u8>,
    scalars: Value,
}

impl Golden {
    pub(crate) fn open(file: &str) -> Self {
        let path = path(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let json = &metadata.metadata().as_ref().expect("golden files have metadata")["golden"];
        let scalars = serde_json::from_str(json).unwrap();
        Self { bytes, scalars }
    }

    /// One of the scalars beside the tensors, such as `case`.
    pub(crate) fn scalar(&self, name: &str) -> &Value {
        &self.scalars[name]
    }

    /// The names of all tensors that begin with `prefix`, in order, without it.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let mut names: Vec<String> =
            tensors.names().iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The kept entries of `name`.
    pub(crate) fn get(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// The only value of `name`.
    pub(crate) fn value(&self, name: &str) -> f64 {
        let values = self.get(name);
        assert_eq!(values.len(), 1, "{name}");
        f64::from(values[0])
    }

    pub(crate) fn distances(&self, name: &str) -> Distances {
        let values = &self.scalars["distances"][name];
        let at = |i: usize| values[i].as_f64().unwrap_or_else(|| panic!("no distance for {name}"));
        Distances { contiguous: at(0), all: at(1) }
    }

    /// How far `found`, all values of a tensor, are from the kept entries of `prefix` + `name`; `name` chose them.
    pub(crate) fn distance(&self, prefix: &str, name: &str, found: &[f32]) -> f64 {
        let want = self.get(&format!("{prefix}{name}"));
        let kept = formula::entries(name, found.len(), want.len());
        assert_eq!(kept.len(), want.len(), "{prefix}{name}: too few values");
        distance(&kept.iter().map(|&i| found[i]).collect::<Vec<_>>(), &want)
    }
}

/// Norm of the difference over norm; the norm of `found` itself where zero is expected, give or take the rounding of
/// float64: the gradient of a bias that batch norm takes away again is such a zero.
pub(crate) fn distance(found: &[f32], want: &[f32]) -> f64 {
    assert_eq!(found.len(), want.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(want).map(|(&f, &w)| f64::from(f) - f64::from(w)));
    let size = norm(&mut want.iter().map(|&w| f64::from(w)));
    if size > 1e-12 { difference / size } else { difference }
}

//! Named parameters of a network: a shared [`Layout`] and a flat array of values.
//!
//! Names are the field's (torchvision's for ResNet, timm's for MobileNet-v1), values are in PyTorch's memory order
//! (a convolution's weight is `[out, in / groups, kernel_h, kernel_w]`, row-major), so published weights load unchanged.
//! Parameters are matched by name and shape, never by position.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What training does with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Changed by the optimizer.
    Trainable,
    /// Changed by the forward pass in train mode: batch norm's running statistics.
    Buffer,
}

/// Name, shape and kind of one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// The field's name for it, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// What training does with it.
    pub kind: Kind,
}

impl Spec {
    /// A parameter that the optimizer changes.
    pub fn trainable(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), kind: Kind::Trainable }
    }

    /// A running statistic.
    pub fn buffer(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), kind: Kind::Buffer }
    }

    /// How many values it holds; `usize::MAX` if that is more than there are numbers for, which no [`Layout`] takes.
    pub fn numel(&self) -> usize {
        if self.shape.contains(&0) {
            0
        } else {
            self.shape.iter().fold(1, |n: usize, &side| n.saturating_mul(side))
        }
    }
}

/// What can be wrong with a set of named parameters.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParamsError {
    /// Two parameters share a name.
    #[error("two parameters are named `{0}`")]
    Duplicate(String),
    /// A name that the other side does not have.
    #[error("there is no parameter named `{0}`")]
    Unknown(String),
    /// A name that the other side should have had.
    #[error("the parameter `{0}` is missing")]
    Missing(String),
    /// The same name with another shape.
    #[error("parameter `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Whose.
        name: String,
        /// What the layout says.
        expected: Vec<usize>,
        /// What came.
        found: Vec<usize>,
    },
    /// So many values, with those before it, that nothing could address them.
    #[error("parameter `{0}` has more values than fit into any memory")]
    TooLarge(String),
    /// So many values that there is no memory for them.
    #[error("no memory for {0} values")]
    Memory(usize),
    /// A flat array of the wrong length.
    #[error("{found} values for a layout of {expected}")]
    Length {
        /// What the layout says.
        expected: usize,
        /// What came.
        found: usize,
    },
}

/// An ordered map of parameter specs, and where each one's values lie in a flat array.
///
/// Made once per network and shared by every device's [`Params`], so that a device costs its values and no more.
#[derive(Debug)]
pub struct Layout {
    specs: Vec<Spec>,
    starts: Vec<usize>,
    index: HashMap<String, usize>,
}

impl Layout {
    /// The layout of `specs`, in their order.
    ///
    /// # Errors
    /// [`ParamsError::Duplicate`] if a name occurs twice, [`ParamsError::TooLarge`] if the values' bytes could not be
    /// counted.
    pub fn new(specs: Vec<Spec>) -> Result<Arc<Self>, ParamsError> {
        let mut starts = Vec::with_capacity(specs.len() + 1);
        let mut index = HashMap::with_capacity(specs.len());
        let mut end = 0usize;
        starts.push(0);
        for (i, spec) in specs.iter().enumerate() {
            if index.insert(spec.name.clone(), i).is_some() {
                return Err(ParamsError::Duplicate(spec.name.clone()));
            }
            end = end
                .checked_add(spec.numel())
                .filter(|&end| end <= isize::MAX as usize / size_of::<f32>())
                .ok_or_else(|| ParamsError::TooLarge(spec.name.clone()))?;
            starts.push(end);
        }
        Ok(Arc::new(Self { specs, starts, index }))
    }

    /// The parameters in order.
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there is no parameter at all.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// How many values all parameters hold together.
    pub fn numel(&self) -> usize {
        self.starts[self.specs.len()]
    }

    /// The position of `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Where the values of the parameter at `position` lie in the flat array.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn range(&self, position: usize) -> Range<usize> {
        self.starts[position]..self.starts[position + 1]
    }

    /// A fingerprint of names, shapes and kinds (FNV-1a, 64 bits): two sides that agree on it agree on the layout.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = crate::seed::Fnv1a::new();
        for spec in &self.specs {
            hash.write(spec.name.as_bytes());
            hash.write(&[0, spec.kind as u8]);
            hash.write(&(spec.shape.len() as u64).to_le_bytes());
            for &extent in &spec.shape {
                hash.write(&(extent as u64).to_le_bytes());
            }
        }
        hash.finish()
    }
}

impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        self.specs == other.specs
    }
}

impl Eq for Layout {}

/// Values for every parameter of a [`Layout`].
#[derive(Clone, Debug)]
pub struct Params {
    layout: Arc<Layout>,
    values: Vec<f32>,
}

impl PartialEq for Params {
    /// Same layout, and the same bits in every value.
    fn eq(&self, other: &Self) -> bool {
        self.layout == other.layout
            && self.values.iter().zip(&other.values).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

impl Params {
    /// All zero.
    pub fn zeros(layout: Arc<Layout>) -> Self {
        let values = vec![0.0; layout.numel()];
        Self { layout, values }
    }

    /// All zero, for a layout that may be of any size.
    ///
    /// # Errors
    /// [`ParamsError::Memory`] if there is no memory for them.
    pub fn try_zeros(layout: Arc<Layout>) -> Result<Self, ParamsError> {
        let mut values = Vec::new();
        values.try_reserve_exact(layout.numel()).map_err(|_| ParamsError::Memory(layout.numel()))?;
        values.resize(layout.numel(), 0.0);
        Ok(Self { layout, values })
    }

    /// These values, in the layout's order.
    ///
    /// # Errors
    /// [`ParamsError::Length`] if there are more or fewer values than the layout holds.
    pub fn from_values(layout: Arc<Layout>, values: Vec<f32>) -> Result<Self, ParamsError> {
        if values.len() != layout.numel() {
            return Err(ParamsError::Length { expected: layout.numel(), found: values.len() });
        }
        Ok(Self { layout, values })
    }

    /// Names, shapes and kinds.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// All values, in the layout's order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, in the layout's order.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The same parameters with `of` each value of these and of `other`.
    ///
    /// # Panics
    /// If `other` is laid out otherwise.
    #[must_use]
    pub fn zip(mut self, other: &Self, of: impl Fn(f32, f32) -> f32) -> Self {
        assert!(self.layout == other.layout, "parameters of different layouts");
        self.values.iter_mut().zip(&other.values).for_each(|(a, &b)| *a = of(*a, b));
        self
    }

    /// All values, in the layout's order.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The values of the parameter at `position` in the layout.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn at(&self, position: usize) -> &[f32] {
        &self.values[self.layout.range(position)]
    }

    /// The values of the parameter at `position` in the layout.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn at_mut(&mut self, position: usize) -> &mut [f32] {
        let range = self.layout.range(position);
        &mut self.values[range]
    }

    /// The values of `name`.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.layout.position(name).map(|i| self.at(i))
    }

    /// Every parameter with its values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Spec, &[f32])> {
        self.layout.specs().iter().enumerate().map(|(i, spec)| (spec, self.at(i)))
    }

    /// Replaces the values of one parameter, matched by name and shape.
    ///
    /// # Errors
    /// [`ParamsError::Unknown`] or [`ParamsError::Shape`]; nothing is changed then.
    pub fn set(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<(), ParamsError> {
        let position = self.layout.position(name).ok_or_else(|| ParamsError::Unknown(name.to_owned()))?;
        let expected = &self.layout.specs()[position].shape;
        if expected != shape || values.len() != self.layout.range(position).len() {
            return Err(ParamsError::Shape {
                name: name.to_owned(),
                expected: expected.clone(),
                found: shape.to_vec(),
            });
        }
        self.at_mut(position).copy_from_slice(values);
        Ok(())
    }

    /// All values as little-endian bytes, in the layout's order.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4 * self.values.len()];
        for (chunk, value) in bytes.chunks_exact_mut(4).zip(&self.values) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Values from little-endian bytes, in the layout's order.
    ///
    /// # Errors
    /// [`ParamsError::Length`] if there are more or fewer than the layout holds.
    pub fn from_le_bytes(layout: Arc<Layout>, bytes: &[u8]) -> Result<Self, ParamsError> {
        if bytes.len() != 4 * layout.numel() {
            return Err(ParamsError::Length { expected: layout.numel(), found: bytes.len() / 4 });
        }
        let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
        Ok(Self { values: values.collect(), layout })
    }

    /// The first parameter that holds a value that is not finite.
    pub fn first_non_finite(&self) -> Option<&str> {
        self.iter()
            .find(|(_, values)| values.iter().any(|v| !v.is_finite()))
            .map(|(spec, _)| spec.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Arc<Layout> {
        Layout::new(vec![
            Spec::trainable("conv.weight", [2, 3]),
            Spec::buffer("bn.running_mean", [2]),
            Spec::trainable("fc.bias", [1]),
        ])
        .unwrap()
    }

    #[test]
    fn values_lie_in_the_order_of_the_specs() {
        let params = Params::from_values(layout(), (0..9).map(|v| v as f32).collect()).unwrap();
        assert_eq!(params.get("conv.weight"), Some(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]));
        assert_eq!(params.get("bn.running_mean"), Some(&[6.0, 7.0][..]));
        assert_eq!(params.get("fc.bias"), Some(&[8.0][..]));
        assert_eq!(params.get("fc.weight"), None);
    }

    #[test]
    fn a_wrong_name_shape_or_length_is_an_error_and_changes_nothing() {
        let mut params = Params::zeros(layout());
        assert_eq!(params.set("fc", &[1], &[1.0]), Err(ParamsError::Unknown("fc".into())));
        assert!(matches!(params.set("conv.weight", &[3, 2], &[1.0; 6]), Err(ParamsError::Shape { .. })));
        assert!(params.values().iter().all(|&v| v == 0.0));
        assert_eq!(
            Params::from_values(layout(), vec![0.0; 8]).unwrap_err(),
            ParamsError::Length { expected: 9, found: 8 }
        );
        let params = Params::from_values(layout(), (0..9).map(|v| v as f32).collect()).unwrap();
        assert_eq!(Params::from_le_bytes(layout(), &params.to_le_bytes()), Ok(params));
        assert!(Params::from_le_bytes(layout(), &[0; 35]).is_err());
        let twice = vec![Spec::trainable("a", [1]), Spec::buffer("a", [2])];
        assert_eq!(Layout::new(twice).unwrap_err(), ParamsError::Duplicate("a".into()));
    }

    #[test]
    fn the_fingerprint_depends_on_names_shapes_and_kinds() {
        let print = |specs: Vec<Spec>| Layout::new(specs).unwrap().fingerprint();
        let one = print(vec![Spec::trainable("a", [2, 3])]);
        assert_eq!(one, print(vec![Spec::trainable("a", [2, 3])]));
        assert_ne!(one, print(vec![Spec::trainable("b", [2, 3])]));
        assert_ne!(one, print(vec![Spec::trainable("a", [3, 2])]));
        assert_ne!(one, print(vec![Spec::buffer("a", [2, 3])]));
    }
}

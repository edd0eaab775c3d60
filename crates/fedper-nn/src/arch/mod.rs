//! Networks as data: blocks of operations, their parameters, and which block each parameter belongs to.
//!
//! An engine is built from this list ([`crate::Network`] is one), and so can a second one be.

mod build;
mod init;
mod models;
mod op;
mod work;

use std::sync::Arc;

use fedper_core::params::{Layout, Spec};

pub use models::{Model, Norm, Stem};
use op::Init;
pub use op::{Block, InputShape, Op};
pub(crate) use op::{MOST, Shape};

use crate::NnError;

/// A network: what comes in, what is done with it, block by block, and how many classes come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// The model's name.
    pub name: String,
    /// The size of one image.
    pub input: InputShape,
    /// How many classes the last block tells apart.
    pub classes: usize,
    /// From the input to the logits.
    pub blocks: Vec<Block>,
}

/// One row of [`Architecture::summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    /// The block's name.
    pub name: String,
    /// Channels, height and width of its output.
    pub output: (usize, usize, usize),
    /// How many values the optimizer changes.
    pub trainable: usize,
    /// How many running statistics there are.
    pub buffers: usize,
}

impl Architecture {
    /// One of the built-in models for this input and this many classes. `stem` is how `resnet34` and `mobilenet_v1`
    /// begin; `cnn` and `mlp` have no stem and ignore it.
    ///
    /// # Errors
    /// [`NnError::Architecture`] if the input is too small for the model, or has no pixel or no class.
    pub fn new(model: Model, stem: Stem, input: InputShape, classes: usize) -> Result<Self, NnError> {
        Self::with_norm(model, stem, Norm::Batch, input, classes)
    }

    /// As [`Architecture::new`], with another norm in `resnet34` and `mobilenet_v1`. Parameters keep their names.
    ///
    /// # Errors
    /// As [`Architecture::new`], and if the model has no norm or its channels cannot be grouped so.
    pub fn with_norm(
        model: Model,
        stem: Stem,
        norm: Norm,
        input: InputShape,
        classes: usize,
    ) -> Result<Self, NnError> {
        let error = |reason: String| NnError::Architecture {
            architecture: model.to_string(),
            place: "input".to_owned(),
            reason,
        };
        let blocks = models::blocks(model, stem, norm, input, classes).map_err(error)?;
        Self::from_blocks(model.to_string(), input, classes, blocks)
    }

    /// A network of your own.
    ///
    /// # Errors
    /// [`NnError::Architecture`] if the blocks do not fit each other, or do not end in `classes` values per image.
    pub fn from_blocks(
        name: impl Into<String>,
        input: InputShape,
        classes: usize,
        blocks: Vec<Block>,
    ) -> Result<Self, NnError> {
        let architecture = Self { name: name.into(), input, classes, blocks };
        architecture.validate()?;
        Ok(architecture)
    }

    /// Checks that the blocks fit each other, that they end in one logit per class, and that no two parameters share
    /// a name. [`Architecture::new`] and [`Architecture::from_blocks`] have done so.
    ///
    /// # Errors
    /// [`NnError::Architecture`] with the block and the reason.
    pub fn validate(&self) -> Result<(), NnError> {
        let error = |place: &str, reason: String| NnError::Architecture {
            architecture: self.name.clone(),
            place: place.to_owned(),
            reason,
        };
        if self.input.numel() == 0 || self.classes == 0 {
            return Err(error("input", format!("{} values and {} classes", self.input, self.classes)));
        }
        let mut shape = self.input_shape().checked().map_err(|reason| error("input", reason))?;
        for block in &self.blocks {
            for op in &block.ops {
                shape = shape.after(op).map_err(|reason| match op.name() {
                    Some(name) => error(&format!("block `{}`, `{name}`", block.name), reason),
                    None => error(&format!("block `{}`", block.name), reason),
                })?;
            }
        }
        if shape.positions() != 1 || shape.channels != self.classes {
            let reason =
                format!("ends in {} values per image, expected {} classes", shape.numel(), self.classes);
            return Err(error("last block", reason));
        }
        Layout::new(self.specs()).map_err(|e| error("parameters", e.to_string()))?;
        Ok(())
    }

    /// All parameters in network order, running statistics included. PyTorch's `num_batches_tracked` is no parameter
    /// here: nothing reads it.
    ///
    /// # Panics
    /// If two parameters share a name, which [`Architecture::validate`] excludes.
    pub fn layout(&self) -> Arc<Layout> {
        Layout::new(self.specs()).expect("validated: names are unique")
    }

    /// Which block the parameter belongs to.
    pub fn block_of(&self, parameter: &str) -> Option<usize> {
        self.blocks.iter().position(|block| block_specs(block).iter().any(|spec| spec.name == parameter))
    }

    /// The names of all parameters of the last `k_p` blocks, running statistics included: FedPer's personalization
    /// layers (arXiv:1912.00818, section 3).
    ///
    /// # Errors
    /// [`NnError::PersonalLayers`] if there are fewer blocks.
    pub fn personal_names(&self, k_p: usize) -> Result<Vec<String>, NnError> {
        let maximum = self.blocks.len();
        let first = maximum.checked_sub(k_p).ok_or_else(|| NnError::PersonalLayers {
            architecture: self.name.clone(),
            asked: k_p,
            maximum,
        })?;
        Ok(self.blocks[first..].iter().flat_map(block_specs).map(|spec| spec.name).collect())
    }

    /// What each block makes and holds.
    ///
    /// # Panics
    /// If the blocks do not fit each other, which [`Architecture::validate`] excludes.
    pub fn summary(&self) -> Vec<BlockSummary> {
        let mut shape = self.input_shape();
        let numel = |specs: &[Spec], kind| specs.iter().filter(|s| s.kind == kind).map(Spec::numel).sum();
        self.blocks
            .iter()
            .map(|block| {
                for op in &block.ops {
                    shape = shape.after(op).expect("validated: shapes meet");
                }
                let specs = block_specs(block);
                BlockSummary {
                    name: block.name.clone(),
                    output: match shape.flat {
                        true => (shape.numel(), 1, 1),
                        false => (shape.channels, shape.height, shape.width),
                    },
                    trainable: numel(&specs, fedper_core::params::Kind::Trainable),
                    buffers: numel(&specs, fedper_core::params::Kind::Buffer),
                }
            })
            .collect()
    }

    /// The smallest batch it can be trained on: 2 if some batch norm sees a single position per image, whose variance
    /// over a batch of one would be nothing (PyTorch refuses such a batch too), else 1.
    pub fn min_train_batch(&self) -> usize {
        fn single(ops: &[Op], mut shape: Shape) -> bool {
            ops.iter().any(|op| {
                let here = match op {
                    Op::BatchNorm2d { .. } => shape.positions() == 1,
                    Op::Residual { main, shortcut } => single(main, shape) || single(shortcut, shape),
                    _ => false,
                };
                shape = shape.after(op).expect("validated: shapes meet");
                here
            })
        }
        let ops: Vec<Op> = self.blocks.iter().flat_map(|block| block.ops.clone()).collect();
        1 + usize::from(single(&ops, self.input_shape()))
    }

    pub(crate) fn input_shape(&self) -> Shape {
        Shape::new(self.input.channels, self.input.height, self.input.width)
    }

    fn specs(&self) -> Vec<Spec> {
        self.blocks.iter().flat_map(block_specs).collect()
    }
}

fn block_specs(block: &Block) -> Vec<Spec> {
    block.ops.iter().flat_map(Op::parameters).map(|(spec, _)| spec).collect()
}

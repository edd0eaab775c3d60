//! One resident network: parameters, velocities and every buffer that a step needs.

mod compile;
mod demand;
mod gradients;
mod plan;
mod run;
mod training;

use std::sync::Arc;

use fedper_core::params::{Layout, Params, ParamsError};

use crate::arch::Architecture;
use crate::kernel::Kernels;
use crate::kernel::buffer::Buffer;
use crate::kernel::elementwise::Sgd;
use crate::layer::input::{block_rows, unblock_rows};
use crate::layer::loss::{StepMetrics, cross_entropy, cross_entropy_gradient};
use crate::layer::{Mode, Pass, Scratch};
use crate::parameter::{Array, Parameter, Sink};
use crate::{NnError, Precision};
use compile::Program;
pub use plan::Planned;
use run::Memory;

/// Samples to train on or to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Normalised pixels, `[batch][height][width][channels]`.
    pub images: &'a [f32],
    /// Classes, `[batch]`.
    pub labels: &'a [u32],
}

/// A network in memory, ready to train and to evaluate, on one thread.
///
/// A worker keeps one and loads device after device into it. What carries over from one use to the next is the loaded
/// parameters, the velocities until [`Network::reset_momentum`], what [`Network::freeze`] names until it names something
/// else, and [`Network::tilt`] until [`Network::untilt`]. After [`Network::new`] nothing allocates.
///
/// ```
/// use fedper_core::seed::{Purpose, SERVER, named};
/// use fedper_nn::{Architecture, Batch, InputShape, Model, Network, Sgd, Stem};
///
/// let input = InputShape { channels: 1, height: 4, width: 4 };
/// let arch = Architecture::new(Model::Mlp, Stem::Cifar, input, 3)?;
/// let mut params = arch.init(|name| named(0, Purpose::Init, SERVER, 0, name));
/// let mut network = Network::new(&arch, 2)?;
/// network.load(&params)?;
///
/// let batch = Batch { images: &[0.5; 2 * 16], labels: &[0, 2] };
/// let sgd = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
/// let before = network.train_step(batch, &sgd)?.loss_sum;
/// assert!(network.evaluate(batch)?.loss_sum < before);
/// network.store(&mut params)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Network {
    program: Program,
    memory: Memory,
    layout: Arc<Layout>,
    classes: usize,
    max_batch: usize,
    /// The first node that training changes.
    first_trained: usize,
    /// Whether steps have a correction to their gradients.
    tilted: bool,
}

impl Network {
    /// A network with all parameters zero, and memory for batches of up to `max_batch` samples.
    ///
    /// # Errors
    /// [`NnError::Architecture`] if the blocks do not fit each other, [`NnError::BatchSize`] if `max_batch` is 0,
    /// [`NnError::Memory`] if there is no such memory.
    pub fn new(arch: &Architecture, max_batch: usize) -> Result<Self, NnError> {
        Self::with_precision(arch, max_batch, Precision::Fp32)
    }

    /// As [`Network::new`], with convolutions in `precision`.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn with_precision(
        arch: &Architecture,
        max_batch: usize,
        precision: Precision,
    ) -> Result<Self, NnError> {
        Self::compiled(arch, max_batch, Kernels::here(precision))
    }

    /// As [`Network::new`], computed in the plainest way there is: no layer does a part of another's work, and none takes
    /// another way than a matrix product for each tap. For comparison: it is slow, and differs by rounding.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn plain(arch: &Architecture, max_batch: usize) -> Result<Self, NnError> {
        Self::compiled(arch, max_batch, Kernels::plain())
    }

    fn compiled(arch: &Architecture, max_batch: usize, kernels: Kernels) -> Result<Self, NnError> {
        if max_batch == 0 {
            return Err(NnError::BatchSize { maximum: usize::MAX, found: 0 });
        }
        Self::fits(arch, max_batch)?;
        let program = compile::compile(arch, max_batch, kernels)?;
        let mut scratch = Scratch::default();
        for node in &program.nodes {
            let input_gradient = node.plan.targets[0].buffer.is_some();
            node.layer.reserve(&mut scratch, max_batch, input_gradient);
        }
        let of_node = program.nodes.iter().map(|node| Buffer::zeros(node.to.extent.capacity(max_batch)));
        let slots = std::iter::once(Buffer::default()).chain(of_node).collect();
        let gradients = program.buffers.iter().map(|&len| Buffer::zeros(len)).collect();
        let logits = Buffer::zeros(max_batch * arch.classes);
        let memory = Memory { slots, gradients, image: arch.input.numel(), logits, scratch };
        Ok(Self {
            program,
            memory,
            layout: arch.layout(),
            classes: arch.classes,
            max_batch,
            first_trained: 0,
            tilted: false,
        })
    }

    /// Whether there could be memory for it, as far as that is known without taking any.
    ///
    /// # Errors
    /// [`NnError::Architecture`] if the blocks do not fit each other, [`NnError::Memory`] if there is no such memory.
    pub fn fits(arch: &Architecture, max_batch: usize) -> Result<(), NnError> {
        arch.validate()?;
        demand::check(arch, max_batch)
    }

    /// How a network's convolutions and linear layers compute a batch of so many samples on this machine, in order.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn plan(arch: &Architecture, samples: usize, precision: Precision) -> Result<Vec<Planned>, NnError> {
        Self::fits(arch, samples.max(1))?;
        Ok(compile::compile(arch, samples.max(1), Kernels::here(precision))?.plan)
    }

    /// Names, shapes and kinds of the network's parameters.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The largest batch there is memory for.
    pub fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// Takes over all parameters and running statistics, matched by name and shape. Velocities stay, and so does what is
    /// frozen and how steps are tilted.
    ///
    /// # Errors
    /// [`ParamsError::Missing`], [`ParamsError::Unknown`] or [`ParamsError::Shape`] if `params` does not hold exactly
    /// this network's parameters, in whatever order; nothing is changed then.
    pub fn load(&mut self, params: &Params) -> Result<(), ParamsError> {
        self.check(params.layout())?;
        self.load_array(params, Array::Values);
        Ok(())
    }

    fn load_array(&mut self, params: &Params, array: Array) {
        self.each(|parameter| parameter.load(params, array));
    }

    /// Calls `visit` with each parameter and running statistic, always in the same order.
    fn each(&mut self, mut visit: impl FnMut(&mut Parameter)) {
        for node in &mut self.program.nodes {
            node.layer.parameters_mut(&mut visit);
        }
    }

    /// Writes all parameters and running statistics, matched by name and shape.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn store(&self, params: &mut Params) -> Result<(), ParamsError> {
        self.check(params.layout())?;
        for node in &self.program.nodes {
            node.layer.parameters(&mut |parameter| parameter.store(params));
        }
        Ok(())
    }

    /// Sets all velocities to zero, as at the start of a round.
    pub fn reset_momentum(&mut self) {
        self.each(|parameter| parameter.velocity.fill(0.0));
    }

    /// One step of SGD on the mean loss of a batch, in train mode. The metrics are those before the step.
    ///
    /// Between two calls of [`Network::reset_momentum`], momentum, weight decay and tilt must stay what they are: a step without
    /// momentum leaves velocities alone, and one without weight decay leaves alone what can have no gradient.
    ///
    /// # Errors
    /// [`NnError::BatchSize`], [`NnError::ImageLength`], [`NnError::Label`] or [`NnError::SingleValue`]; nothing is
    /// changed then.
    pub fn train_step(&mut self, batch: Batch<'_>, sgd: &Sgd) -> Result<StepMetrics, NnError> {
        match self.tilted {
            true => self.step_kept(batch, sgd, None),
            false => self.forward_backward(batch, Sink::Step(sgd), self.first_trained),
        }
    }

    /// The gradient of the mean loss of a batch, in train mode, written to the trainable parameters of `out`; buffers
    /// of `out` become 0. It is of the loss alone: neither tilted nor clipped, and of frozen parameters too. Changes nothing in the network but the running statistics.
    ///
    /// # Errors
    /// As [`Network::train_step`], and [`NnError::Params`] if `out` does not hold exactly this network's parameters.
    pub fn gradients(&mut self, batch: Batch<'_>, out: &mut Params) -> Result<StepMetrics, NnError> {
        self.check(out.layout())?;
        let metrics = self.forward_backward(batch, Sink::Keep, 0)?;
        for node in &self.program.nodes {
            node.layer.parameters(&mut |parameter| parameter.store_gradient(out));
        }
        Ok(metrics)
    }

    /// Loss and accuracy on a batch, in eval mode.
    ///
    /// # Errors
    /// [`NnError::BatchSize`], [`NnError::ImageLength`] or [`NnError::Label`].
    pub fn evaluate(&mut self, batch: Batch<'_>) -> Result<StepMetrics, NnError> {
        self.check_batch(batch)?;
        let samples = batch.labels.len();
        self.forward(batch.images, samples, Mode::Eval);
        let classes = self.classes;
        Ok(cross_entropy(self.read_logits(samples), batch.labels, classes))
    }

    /// The logits of images, in eval mode.
    ///
    /// # Shapes
    /// `images` `[samples][height][width][channels]`, result `[samples][classes]`.
    ///
    /// # Errors
    /// [`NnError::BatchSize`] or [`NnError::ImageLength`].
    pub fn logits(&mut self, images: &[f32], samples: usize) -> Result<&[f32], NnError> {
        self.check_images(images, samples)?;
        self.forward(images, samples, Mode::Eval);
        Ok(self.read_logits(samples))
    }

    /// The logits of images, in train mode: batch norms use the batch's statistics and move their running ones.
    ///
    /// # Shapes
    /// As [`Network::logits`].
    ///
    /// # Errors
    /// [`NnError::BatchSize`], [`NnError::ImageLength`] or [`NnError::SingleValue`].
    pub fn train_logits(&mut self, images: &[f32], samples: usize) -> Result<&[f32], NnError> {
        self.logits_in(Mode::Train, images, samples)
    }

    fn logits_in(&mut self, mode: Mode, images: &[f32], samples: usize) -> Result<&[f32], NnError> {
        self.check_images(images, samples)?;
        self.check_single(samples)?;
        self.forward(images, samples, mode);
        Ok(self.read_logits(samples))
    }

    fn forward(&mut self, images: &[f32], samples: usize, mode: Mode) {
        run::forward(&mut self.program.nodes, &mut self.memory, images, Pass { samples, mode });
    }

    /// A train-mode pass forward, and back down to node `first`.
    fn forward_backward(
        &mut self,
        batch: Batch<'_>,
        sink: Sink<'_>,
        first: usize,
    ) -> Result<StepMetrics, NnError> {
        self.check_batch(batch)?;
        let samples = batch.labels.len();
        self.check_single(samples)?;
        let pass = Pass { samples, mode: Mode::Train };
        self.forward(batch.images, samples, pass.mode);
        self.read_logits(samples);
        let Self { program, memory, classes, .. } = self;
        let logits = &mut memory.logits[..samples * *classes];
        let metrics = cross_entropy_gradient(logits, batch.labels, *classes);
        block_rows(logits, &mut memory.gradients[program.logits_gradient], samples, *classes);
        run::backward(&mut program.nodes, first, memory, batch.images, pass, sink);
        Ok(metrics)
    }

    /// Copies the logits of the last forward pass out of their blocks.
    fn read_logits(&mut self, samples: usize) -> &[f32] {
        let Memory { slots, logits, .. } = &mut self.memory;
        let logits = &mut logits[..samples * self.classes];
        unblock_rows(&slots[slots.len() - 1], logits, samples, self.classes);
        logits
    }

    fn check(&self, layout: &Arc<Layout>) -> Result<(), ParamsError> {
        if Arc::ptr_eq(layout, &self.layout) {
            return Ok(());
        }
        for spec in self.layout.specs() {
            let position =
                layout.position(&spec.name).ok_or_else(|| ParamsError::Missing(spec.name.clone()))?;
            let found = &layout.specs()[position].shape;
            if *found != spec.shape {
                return Err(ParamsError::Shape {
                    name: spec.name.clone(),
                    expected: spec.shape.clone(),
                    found: found.clone(),
                });
            }
        }
        match layout.specs().iter().find(|spec| self.layout.position(&spec.name).is_none()) {
            Some(spec) => Err(ParamsError::Unknown(spec.name.clone())),
            None => Ok(()),
        }
    }

    /// As [`Network::check`], but parameters may be missing.
    fn check_part(&self, layout: &Layout) -> Result<(), ParamsError> {
        for spec in layout.specs() {
            let position =
                self.layout.position(&spec.name).ok_or_else(|| ParamsError::Unknown(spec.name.clone()))?;
            let expected = &self.layout.specs()[position].shape;
            if *expected != spec.shape {
                return Err(ParamsError::Shape {
                    name: spec.name.clone(),
                    expected: expected.clone(),
                    found: spec.shape.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_images(&self, images: &[f32], samples: usize) -> Result<(), NnError> {
        if samples == 0 || samples > self.max_batch {
            return Err(NnError::BatchSize { maximum: self.max_batch, found: samples });
        }
        let per_sample = self.memory.image;
        if images.len() != samples * per_sample {
            return Err(NnError::ImageLength { samples, per_sample, found: images.len() });
        }
        Ok(())
    }

    fn check_batch(&self, batch: Batch<'_>) -> Result<(), NnError> {
        self.check_images(batch.images, batch.labels.len())?;
        match batch.labels.iter().position(|&label| label as usize >= self.classes) {
            Some(sample) => {
                Err(NnError::Label { sample, label: batch.labels[sample], classes: self.classes })
            }
            None => Ok(()),
        }
    }

    fn check_single(&self, samples: usize) -> Result<(), NnError> {
        match &self.program.single {
            Some(layer) if samples == 1 => Err(NnError::SingleValue { layer: layer.clone() }),
            _ => Ok(()),
        }
    }
}

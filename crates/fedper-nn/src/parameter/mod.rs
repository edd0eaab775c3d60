//! A layer's parameters: their values in the order in which the layer works on them, their velocities, and what becomes of
//! their gradients.

mod order;

use std::mem::take;

use fedper_core::params::{Kind, Params};

pub(crate) use self::order::{Order, Panel, Panels};
use crate::kernel::buffer::Buffer;
use crate::kernel::elementwise::{Sgd, sgd, sgd_plain};

/// What a layer does with a gradient as soon as it has it, so that training never stores a whole network's gradient unless
/// it must.
#[derive(Clone, Copy)]
pub(crate) enum Sink<'a> {
    /// Change the parameter.
    Step(&'a Sgd),
    /// Keep it with the parameter, for a step that needs to know all gradients first.
    Keep,
}

/// An array that a parameter has in the layer's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Array {
    Values,
    /// What a tilt pulls the values toward.
    Toward,
    /// What a tilt adds to the gradient.
    Add,
}

/// What is added to a gradient before the step that uses it. Its arrays have no memory until they are first needed.
#[derive(Default)]
struct Tilt {
    pull: f32,
    toward: Buffer,
    add: Buffer,
    /// Whether the arrays are in use.
    pulls: bool,
    adds: bool,
}

impl Tilt {
    /// `gradient += pull * (values - toward) + add`.
    fn correct(&self, values: &[f32], gradient: &mut [f32]) {
        if self.pulls {
            for ((g, w), toward) in gradient.iter_mut().zip(values).zip(&self.toward[..]) {
                *g += self.pull * (w - toward);
            }
        }
        if self.adds {
            gradient.iter_mut().zip(&self.add[..]).for_each(|(g, add)| *g += add);
        }
    }
}

/// Whatever has parameters: it hands each of them to `visit`, always in the same order. Loading, storing, steps, norms and
/// freezing are loops over these, so what is not visited does not train.
pub(crate) trait Parameters {
    fn parameters(&self, visit: &mut dyn FnMut(&Parameter));
    fn parameters_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter));
}

/// `parameters!(Conv: weight, bias)` says in which fields a layer has its parameters.
macro_rules! parameters {
    ($of:ty: $($field:ident),*) => {
        impl $crate::parameter::Parameters for $of {
            #[allow(unused_variables, reason = "a layer may have none")]
            fn parameters(&self, visit: &mut dyn FnMut(&$crate::parameter::Parameter)) {
                $($crate::parameter::Parameters::parameters(&self.$field, visit);)*
            }

            #[allow(unused_variables, reason = "a layer may have none")]
            fn parameters_mut(&mut self, visit: &mut dyn FnMut(&mut $crate::parameter::Parameter)) {
                $($crate::parameter::Parameters::parameters_mut(&mut self.$field, visit);)*
            }
        }
    };
}
pub(crate) use parameters;

impl<P: Parameters> Parameters for Option<P> {
    fn parameters(&self, visit: &mut dyn FnMut(&Parameter)) {
        self.iter().for_each(|inner| inner.parameters(visit));
    }

    fn parameters_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.iter_mut().for_each(|inner| inner.parameters_mut(visit));
    }
}

/// A parameter with its velocity, or a running statistic, which has none.
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) values: Buffer,
    pub(crate) velocity: Buffer,
    /// The kept gradient; without memory until one is kept.
    gradient: Buffer,
    tilt: Tilt,
    order: Order,
    /// Whether nothing changes it.
    pub(crate) frozen: bool,
}

impl Parameters for Parameter {
    fn parameters(&self, visit: &mut dyn FnMut(&Parameter)) {
        visit(self);
    }

    fn parameters_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        visit(self);
    }
}

impl Parameter {
    /// One that training changes, of `len` values that lie in `order`.
    pub(crate) fn new(name: String, len: usize, order: Order) -> Self {
        Self { velocity: Buffer::zeros(len), ..Self::statistic(name, len).ordered(order) }
    }

    /// A running statistic of so many channels.
    pub(crate) fn statistic(name: String, channels: usize) -> Self {
        Self {
            name,
            kind: Kind::Buffer,
            values: Buffer::zeros(channels),
            velocity: Buffer::default(),
            gradient: Buffer::default(),
            tilt: Tilt::default(),
            order: Order::Torch,
            frozen: false,
        }
    }

    fn ordered(self, order: Order) -> Self {
        Self { kind: Kind::Trainable, order, ..self }
    }

    /// Whether training changes it.
    pub(crate) fn trains(&self) -> bool {
        self.kind == Kind::Trainable && !self.frozen
    }

    /// One SGD step on the values from `start` on.
    pub(crate) fn step(&mut self, optimizer: &Sgd, start: usize, gradient: &[f32]) {
        if self.frozen {
            return;
        }
        let range = start..start + gradient.len();
        let Sgd { lr, momentum, weight_decay } = *optimizer;
        let values = &mut self.values[range.clone()];
        match momentum == 0.0 {
            // The velocity would be neither read nor kept.
            true => sgd_plain(values, gradient, lr, weight_decay),
            false => sgd(values, &mut self.velocity[range], gradient, lr, momentum, weight_decay),
        }
    }

    fn keep(&mut self, start: usize, gradient: &[f32]) {
        if self.gradient.len() != self.values.len() {
            self.gradient = Buffer::zeros(self.values.len());
        }
        self.gradient[start..start + gradient.len()].copy_from_slice(gradient);
    }

    /// Uses up a part of the gradient, from `start` on.
    pub(crate) fn take(&mut self, start: usize, gradient: &[f32], sink: Sink<'_>) {
        match sink {
            Sink::Step(optimizer) => self.step(optimizer, start, gradient),
            Sink::Keep => self.keep(start, gradient),
        }
    }

    /// The sum of squares of the kept gradient; 0 if nothing changes it.
    pub(crate) fn squares(&self) -> f64 {
        /// Sums side by side, in an order that no instruction set changes.
        const LANES: usize = 16;
        if !self.trains() {
            return 0.0;
        }
        let mut sums = [0.0; LANES];
        for values in self.gradient.chunks(LANES) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        sums.iter().sum()
    }

    /// One SGD step with the kept gradient times `factor`, tilted after that.
    pub(crate) fn step_kept(&mut self, optimizer: &Sgd, factor: f32) {
        if !self.trains() {
            return;
        }
        let mut gradient = take(&mut self.gradient);
        if factor != 1.0 {
            gradient.iter_mut().for_each(|value| *value *= factor);
        }
        self.tilt.correct(&self.values, &mut gradient);
        self.step(optimizer, 0, &gradient);
        self.gradient = gradient;
    }

    /// From now on steps are tilted by the arrays that are loaded after this call, and by nothing until then.
    pub(crate) fn tilt(&mut self, pull: f32) {
        (self.tilt.pull, self.tilt.pulls, self.tilt.adds) = (pull, false, false);
    }

    /// Takes over an array. A tilt may leave parameters out, and never has one for a running statistic.
    pub(crate) fn load(&mut self, params: &Params, array: Array) {
        let (to, used) = match array {
            Array::Values => (&mut self.values, None),
            Array::Toward | Array::Add if self.kind == Kind::Buffer => return,
            Array::Toward => (&mut self.tilt.toward, Some(&mut self.tilt.pulls)),
            Array::Add => (&mut self.tilt.add, Some(&mut self.tilt.adds)),
        };
        let Some(from) = params.get(&self.name) else {
            assert!(array != Array::Values, "checked against the layout");
            return;
        };
        if to.len() != self.velocity.len() && array != Array::Values {
            *to = Buffer::zeros(self.velocity.len());
        }
        self.order.each(to.len(), |own, torch| to[own] = from[torch]);
        if let Some(used) = used {
            *used = true;
        }
    }

    pub(crate) fn store(&self, params: &mut Params) {
        let to = of(params, &self.name);
        self.order.each(self.values.len(), |own, torch| to[torch] = self.values[own]);
    }

    /// Writes the kept gradient, which a running statistic does not have.
    pub(crate) fn store_gradient(&self, params: &mut Params) {
        let to = of(params, &self.name);
        match self.kind {
            Kind::Buffer => to.fill(0.0),
            Kind::Trainable => {
                self.order.each(self.gradient.len(), |own, torch| to[torch] = self.gradient[own])
            }
        }
    }
}

/// The values of a parameter that is known to be there.
fn of<'a>(params: &'a mut Params, name: &str) -> &'a mut [f32] {
    let position = params.layout().position(name).expect("checked against the layout");
    params.at_mut(position)
}

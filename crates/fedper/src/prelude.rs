//! All that a program needs that brings along samples, shards, a network or a method of its own: `use fedper::prelude::*`.

pub use fedper_core::params::{Kind, Layout, Params, Spec};
pub use fedper_core::parts::{Begin, Bundle, Fold, Like, Parts, Slot};
pub use fedper_core::round::DeviceId;
pub use fedper_core::split::{Kept, Shared, Split};
pub use fedper_core::strategy::{
    About, FedAvg, FedPer, Folded, LearnError, Learner, LocalRound, Pass, ServerRound, Strategy, Tilt,
    Trained,
};
pub use fedper_data::{Dataset, Images, Scheme, Shard};
pub use fedper_nn::{Architecture, Block, InputShape, Op};

pub use crate::builder::Builder;
pub use crate::error::Error;
pub use crate::experiment::Experiment;
pub use crate::outcome::{Device, Run};
pub use crate::rundir::records::{DeviceRecord, RoundRecord, Summary};
pub use crate::simulator::Observer;

//! The domain of personalised federated learning, and nothing else.
//!
//! No tensor library, socket, file, clock, thread or global random source: time and randomness arrive as arguments, and
//! training arrives as the [`strategy::Learner`] trait. So what is decided here is the same in a simulation and on a network.
//!
//! Who imports whom: `params <- split <- round <- {strategy, aggregate} <- coordinator`; [`seed`], [`metrics`], [`schedule`]
//! and [`plateau`] stand alone.

pub mod aggregate;
pub mod coordinator;
pub mod metrics;
pub mod params;
pub mod plateau;
pub mod round;
pub mod schedule;
pub mod seed;
pub mod split;
pub mod strategy;

//! The domain of personalised federated learning, and nothing else.
//!
//! No tensor library, socket, file, clock, thread or global random source: time and randomness arrive as arguments,
//! training as the [`strategy::Learner`] trait, and further cores as [`cores::Cores`]. So what is decided here is the same in a simulation and on a network.
//!
//! Who imports whom: `params <- split <- parts <- {round, strategy} <- folding <- coordinator`; [`aggregate`] adds up, [`seed`], [`cores`],
//! [`metrics`], [`schedule`] and [`plateau`] stand alone.

pub mod aggregate;
pub mod coordinator;
pub mod cores;
pub mod folding;
pub mod metrics;
pub mod params;
pub mod parts;
pub mod plateau;
pub mod round;
pub mod schedule;
pub mod seed;
pub mod split;
pub mod strategy;

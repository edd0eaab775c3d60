//! A federation over a network, on Flower's SuperLink: [`server::run`] runs the rounds that the simulator runs, [`client::run`]
//! hosts devices that train as simulated ones do. `fedper-flower` carries the messages.
//!
//! # Messages
//!
//! A question has the type `query`, `train` or `evaluate`, what the method sends under `arrays` (but for `query`), and a `config`:
//!
//! | key | what |
//! |---|---|
//! | `server-round` | 1 for the first round; a device of this program reads it off the message's group, see below |
//! | `fedper-federation` | a name that is kept until the federation ends: what devices keep belongs to it |
//! | `fedper-algorithm` | such as `fedper` |
//! | `fedper-config` | the experiment, as in `config.toml` |
//! | `fedper-devices` | which of the node's devices are asked |
//! | `fedper-counted` | of each of them, the last round that counted; 0 if none has |
//! | `fedper-test-locally` | whether they test their network between training and answer |
//! | `fedper-image-shape` | of a `query`: height, width and channels of the federation's images |
//! | `fedper-classes` | of a `query`: the classes' names, where all devices must have the same (`fit.rs`) |
//!
//! An answer to `train` has what the device sends under `arrays` and under `metrics` `num-examples` and `train_loss`; an answer
//! to `evaluate` `num-examples`, `accuracy` and `loss`. These are Flower's own conventions: Python's `FedAvg` asks and
//! answers so. Where the question names devices, lists tell what each of them measured ([`answer`]); a node that hosts
//! several answers with the mean of their bases, weighted by their samples.
//!
//! Every object costs a call, so a node that says it can ([`answer`]) gets less of them: the base as one array, and a
//! `config` that stays the same from round to round. The SuperLink has that already, and with it all but the message itself
//! where a base is trained on that was evaluated before.

use std::sync::atomic::{AtomicBool, Ordering};

pub mod answer;
pub mod client;
pub mod error;
mod fit;
mod host;
mod join;
pub mod limits;
mod question;
mod roster;
pub mod server;
mod session;
pub mod settings;
pub mod store;

pub use error::Error;

/// Sets a flag at the end of a block, whatever ends it.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What somebody else has written, as a part of a line: nothing in it moves a terminal's cursor or begins another line.
fn one_line(text: &str) -> String {
    const MOST: usize = 1000;
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MOST).map(plain).collect::<String>().trim().to_owned()
}

/// Where a server or a client says what happens, a line at a time.
pub type Tell<'a> = &'a (dyn Fn(&str) + Sync);

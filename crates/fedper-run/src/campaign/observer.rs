//! What a run tells as it goes on.

use fedper_core::params::Params;
use fedper_core::round::DeviceId;

use crate::rundir::records::{DeviceRecord, RoundRecord};

/// What a run tells as it goes on. All methods do nothing unless overridden.
pub trait Observer {
    /// The run begins: in all it will train a device `trainings` times, of which `done` times before it was interrupted.
    fn begin(&mut self, trainings: u64, done: u64) {
        let _ = (trainings, done);
    }

    /// A device of `algorithm` has trained on `samples` samples, or failed (0 samples).
    fn trained(&mut self, algorithm: &str, round: u32, samples: u64) {
        let _ = (algorithm, round, samples);
    }

    /// The round's average is there, and a device is about to be tested with it.
    fn evaluating(&mut self, algorithm: &str, round: u32, device: DeviceId) {
        let _ = (algorithm, round, device);
    }

    /// A device's training came to nothing.
    fn failure(&mut self, algorithm: &str, round: u32, device: DeviceId, reason: &str) {
        let _ = (algorithm, round, device, reason);
    }

    /// The accuracy of `algorithm` has stopped rising, so `round` was its last; the run trains a device `fewer` times less.
    fn plateau(&mut self, algorithm: &str, round: u32, fewer: u64) {
        let _ = (algorithm, round, fewer);
    }

    /// A round of `algorithm` came to nothing, so it was its last; the run trains a device `fewer` times less.
    fn ended(&mut self, algorithm: &str, reason: &str, fewer: u64) {
        let _ = (algorithm, reason, fewer);
    }

    /// All rounds are over, and `count` devices that were held out of them are about to train.
    fn new_devices(&mut self, count: u64) {
        let _ = count;
    }

    /// A round is over and durable, and devices were tested after it: these, in order.
    fn evaluated(&mut self, algorithm: &str, round: u32, devices: &[DeviceRecord]) {
        let _ = (algorithm, round, devices);
    }

    /// A round is over and durable, and this lasts on the server: the base under bare names, and what else a method remembers
    /// there under that slot's prefix.
    fn base(&mut self, algorithm: &str, round: u32, state: &Params) {
        let _ = (algorithm, round, state);
    }

    /// A round is over and durable; called after [`Observer::evaluated`] and [`Observer::base`].
    fn round(&mut self, record: &RoundRecord) {
        let _ = record;
    }
}

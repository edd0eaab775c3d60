//! `partition.json`, a device at a time: neither the file nor the partition is ever whole in memory.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use fedper_core::round::DeviceId;
use fedper_data::class_counts;
use fedper_records::DevicePartition;
use fedper_records::files::replace_with;
use serde::Serialize;

use crate::error::Error;
use crate::experiment::Experiment;

/// How many samples all devices hold together; one that two hold counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleTotals {
    /// Training samples.
    pub train: u64,
    /// Test samples.
    pub test: u64,
}

/// Writes the partition of `experiment` to `path`.
pub(super) fn write(path: &Path, experiment: &Experiment) -> Result<SampleTotals, Error> {
    let mut totals = SampleTotals::default();
    let text = |out: &mut dyn Write| {
        totals = to_json(out, experiment)?;
        Ok(())
    };
    replace_with(path, text).map_err(Error::file("write", path))?;
    Ok(totals)
}

/// The totals, if the file at `path` says what [`write()`] would write now.
pub(super) fn verify(path: &Path, experiment: &Experiment) -> Result<Option<SampleTotals>, Error> {
    let stored = File::open(path).map_err(Error::file("read", path))?;
    let mut comparison = Comparison { stored: BufReader::new(stored), chunk: Vec::new() };
    let compared = to_json(&mut BufWriter::new(&mut comparison), experiment);
    let totals = match compared {
        Ok(totals) => totals,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let rest = comparison.stored.read(&mut [0]).map_err(Error::file("read", path))?;
    Ok((rest == 0).then_some(totals))
}

/// A writer that only looks whether what is written is what is stored; [`io::ErrorKind::InvalidData`] if not.
struct Comparison<R> {
    stored: R,
    chunk: Vec<u8>,
}

impl<R: Read> Write for Comparison<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.clear();
        (&mut self.stored).take(bytes.len() as u64).read_to_end(&mut self.chunk)?;
        if self.chunk == bytes { Ok(bytes.len()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON with a line for each device: readable, and small enough for many. A `PartitionRecord` reads it.
fn to_json(out: &mut dyn Write, experiment: &Experiment) -> io::Result<SampleTotals> {
    fn text(value: &impl Serialize) -> String {
        serde_json::to_string(value).expect("plain data")
    }
    let (dataset, partition) = (&experiment.dataset, &experiment.partition);
    let mut totals = SampleTotals::default();
    write!(
        out,
        "{{\n\"dataset\": {},\n\"classes\": {},\n\"devices\": [\n",
        text(&dataset.name),
        text(&dataset.classes)
    )?;
    for (device, shard) in partition.shards().enumerate() {
        let shard = shard.into_owned();
        totals.train += shard.train.len() as u64;
        totals.test += shard.test.len() as u64;
        let record = DevicePartition {
            device: device as u64,
            train_classes: class_counts(dataset, &shard.train),
            test_classes: class_counts(dataset, &shard.test),
            train: shard.train,
            test: shard.test,
            labels: experiment.own_order(DeviceId(device as u64)),
        };
        out.write_all(text(&record).as_bytes())?;
        out.write_all(if device + 1 < partition.len() { b",\n" } else { b"\n" })?;
    }
    out.write_all(b"]\n}\n")?;
    out.flush()?;
    Ok(totals)
}

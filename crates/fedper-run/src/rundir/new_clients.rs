//! What held-out devices came to, for `summary.json`.

use std::collections::BTreeMap;

use fedper_core::metrics::{Spread, Worst};

use fedper_records::{NewClientRecord, NewClientSummary, NewClients};

use crate::config::{Config, NewClientLayers};

/// Puts the records together. A device whose training diverged has fewer of them, and does not count.
pub(super) fn summarise(config: &Config, records: &[NewClientRecord]) -> NewClients {
    let mut found: BTreeMap<&str, BTreeMap<u32, BTreeMap<u64, &NewClientRecord>>> = BTreeMap::new();
    for record in records {
        let epochs = found.entry(&record.algorithm).or_default();
        epochs.entry(record.epoch).or_default().insert(record.device, record);
    }
    let summary = |by_epoch: BTreeMap<u32, BTreeMap<u64, &NewClientRecord>>| {
        let (&epochs, last) = by_epoch.last_key_value().expect("an entry for each record");
        let spread = |devices: &BTreeMap<u64, &NewClientRecord>| {
            let through = devices.values().filter(|record| last.contains_key(&record.device));
            let values: Vec<(f64, f64)> = through.map(|r| (r.accuracy, r.samples as f64)).collect();
            Spread::of(&values, Worst::Low)
        };
        NewClientSummary {
            epochs,
            accuracy: spread(last),
            by_epoch: by_epoch.values().filter_map(|devices| Some(spread(devices)?.mean)).collect(),
            devices: last.iter().map(|(&device, record)| (device, record.accuracy)).collect(),
        }
    };
    NewClients {
        devices: (config.training_clients()..config.clients).collect(),
        epochs: config.new_client_epochs.unwrap_or(1),
        layers: match config.new_client_layers {
            Some(NewClientLayers::All) => "all",
            Some(NewClientLayers::Personal) | None => "personal",
        }
        .to_owned(),
        algorithms: found.into_iter().map(|(name, epochs)| (name.to_owned(), summary(epochs))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn a_device_that_diverged_does_not_count() {
        let settings = Settings { clients: Some(9), new_clients: Some(2), ..Settings::default() };
        let config = Config::resolve(&settings).unwrap();
        let record = |device, epoch, accuracy| NewClientRecord {
            algorithm: "fedper".to_owned(),
            device,
            epoch,
            samples: 10,
            accuracy,
            loss: 1.0,
        };
        let records = [record(7, 0, 0.1), record(7, 1, 0.5), record(8, 0, 0.3)];
        let summary = summarise(&config, &records);
        assert_eq!((&summary.devices[..], summary.epochs, &summary.layers[..]), (&[7, 8][..], 1, "personal"));
        let fedper = &summary.algorithms["fedper"];
        assert_eq!((fedper.epochs, &fedper.by_epoch[..]), (1, &[0.1, 0.5][..]));
        assert_eq!(fedper.devices, BTreeMap::from([(7, 0.5)]));
        assert_eq!(fedper.accuracy.unwrap().mean, 0.5);
    }
}

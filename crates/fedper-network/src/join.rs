//! What a device says when it joins, and what it refuses before it trains.

use fedper_core::round::DeviceId;
use fedper_flower::records::Values;

use super::answer::Claim;
use super::fit::{self, Images, Wanted};
use super::host::{Host, Reply};
use super::limits::MOST_FEDERATIONS;
use super::question::Question;
use super::settings::FEDERATION;
use fedper_run::error::Error;

impl Host<'_> {
    /// Answers a `query`: what this node hosts, and what it has images of, or why it takes no part.
    pub(super) fn present(&self, config: &Values, prepared: Result<(), String>) -> Result<Reply, Error> {
        let devices = self.own.devices.clone().map(|devices| devices.map(DeviceId).collect());
        let mut claim = Claim { devices, compact: true, ..Claim::default() };
        let mut reason = prepared.err();
        if let (None, Some(prepared)) = (&reason, &self.prepared) {
            let images = Images::of(&prepared.experiment);
            reason = Wanted::read(config).check(&images).err();
            if reason.is_none() {
                reason = self.changed(config.text(FEDERATION), &images)?;
            }
            claim.images = Some(images);
        }
        claim.refusal.clone_from(&reason);
        let content = claim.to_content();
        Ok(match reason {
            Some(reason) => Reply::NoPart(content, reason),
            None => Reply::Content(content),
        })
    }

    /// Says if this device has trained in this federation on images of other classes than it has now. A server asks a node
    /// what it has when that comes online, and does not notice when it is started anew soon after.
    fn changed(&self, federation: Option<&str>, images: &Images) -> Result<Option<String>, Error> {
        let trained = federation.map(|name| self.store.classes(name)).transpose()?.flatten();
        let Some(trained) = trained.filter(|trained| *trained != images.classes) else { return Ok(None) };
        Ok(Some(format!(
            "this device has trained on the classes {}, and its images are now of {}: put the folders back \
             as they were, or begin anew with another --state",
            fit::list(&trained),
            fit::list(&images.classes)
        )))
    }

    /// Says why this device keeps nothing for the question's federation, if it does not.
    pub(super) fn unknown(&self, question: &Question) -> Result<Option<String>, Error> {
        let images = Images::of(&self.prepared.as_ref().expect("prepared before").experiment);
        if let Some(reason) = self.changed(Some(&question.federation), &images)? {
            return Ok(Some(reason));
        }
        if self.store.classes(&question.federation)?.is_some() {
            return Ok(None);
        }
        if self.store.count_federations()? >= MOST_FEDERATIONS {
            return Ok(Some(format!(
                "this device remembers {MOST_FEDERATIONS} federations, and no more: begin with another --state"
            )));
        }
        self.store.set_classes(&question.federation, &images.classes)?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use fedper_flower::message::Incoming;
    use fedper_flower::object::{ObjectId, Tree};
    use fedper_flower::proto::Metadata;
    use fedper_flower::records::Content;

    use super::*;
    use crate::limits::DeviceLimits;
    use crate::settings::{CONFIG, Own};
    use crate::store::Store;
    use fedper_run::config::Settings;

    fn photos(folder: &Path, classes: &[&str], each: u32) {
        let _ = std::fs::remove_dir_all(folder);
        for (part, class) in ["train", "test"].iter().flat_map(|part| classes.iter().map(move |c| (part, c)))
        {
            let folder = folder.join(part).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for i in 0..each {
                let image = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * y + i) as u8]));
                image.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }

    /// Asks a device with the images in `folder` what it hosts; returns its answer, and what it says on its own side.
    fn query(folder: &Path, store: &Store, limits: DeviceLimits, config: &Values) -> (Claim, Option<String>) {
        let own = Own {
            devices: None,
            of: None,
            dataset: Some("folder".into()),
            data_dir: Some(folder.to_owned()),
            own_data: true,
            skip_broken: false,
            init: None,
            fallback: Settings::default(),
            limits,
        };
        let message = Incoming {
            metadata: Metadata { message_type: "query".into(), ..Metadata::default() },
            error: None,
            tree: Tree::leaf(ObjectId::of(b"query")),
        };
        let stop = AtomicBool::new(false);
        let mut host = Host::new(&own, store, 1, &stop, &|_| ());
        let content = Content { config: Some(config.clone()), ..Content::default() };
        match host.answer(&message, &content).unwrap() {
            Reply::Content(content) => (Claim::of(&content), None),
            Reply::NoPart(content, reason) => (Claim::of(&content), Some(reason)),
            Reply::Refusal(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn a_device_says_what_it_has_or_why_it_takes_no_part() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("photos");
        let store = Store::open(&place.path().join("state")).unwrap();
        let asked = |wanted: Wanted, model: &str| {
            let mut config = Values::default();
            config
                .set_text(CONFIG, format!("model = '{model}'\nclients = 3\nbatch_size = 4\nstem = 'cifar'"));
            config.set_text(FEDERATION, "f");
            wanted.write(&mut config);
            config
        };
        let free = Wanted { classes: None, shape: None };
        let limits = DeviceLimits::default();
        photos(&folder, &["cat", "dog"], 3);
        let (claim, said) = query(&folder, &store, limits, &asked(free.clone(), "mlp"));
        let images = Images { classes: vec!["cat".into(), "dog".into()], shape: [8, 8, 1] };
        assert_eq!((claim.images.as_ref(), claim.refusal, said), (Some(&images), None, None));

        let other = Wanted { classes: Some(vec!["cat".into(), "owl".into()]), shape: None };
        let larger = Wanted { classes: None, shape: Some([9, 9, 1]) };
        let few = DeviceLimits { classes: 1, ..limits };
        let refused = |limits, config: Values, expected: &str| {
            let (claim, said) = query(&folder, &store, limits, &config);
            let reason = said.expect(expected);
            assert!(reason.contains(expected), "{reason}");
            assert_eq!((claim.refusal, claim.devices), (Some(reason), Some(Vec::new())));
        };
        refused(limits, asked(other, "mlp"), "classes are cat, dog, the federation's are cat, owl");
        refused(limits, asked(larger, "mlp"), "8x8 grey, the federation's are 9x9");
        refused(few, asked(free.clone(), "mlp"), "--max-classes");
        // Its own layers know a cat and an owl.
        store.set_classes("f", &["cat", "owl"].map(ToOwned::to_owned)).unwrap();
        refused(limits, asked(free.clone(), "mlp"), "has trained on the classes cat, owl");
        store.set_classes("f", &images.classes).unwrap();
        assert_eq!(query(&folder, &store, limits, &asked(free.clone(), "mlp")).1, None);
        // One image, and a network that normalises over a batch.
        photos(&folder, &["cat"], 1);
        refused(limits, asked(free, "mobilenet_v1"), "this device has 1 training sample, and");
    }
}

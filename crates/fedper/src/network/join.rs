//! What a device says when it joins, and what it refuses before it trains.

use fedper_core::round::DeviceId;
use fedper_flower::records::Values;

use super::answer::Claim;
use super::fit::{self, Images, Wanted};
use super::host::{Host, Question, Reply};
use super::limits::MOST_FEDERATIONS;
use super::settings::FEDERATION;
use crate::error::Error;

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

    /// Says if this device has trained its own layers in this federation on images of other classes than it has now.
    fn changed(&self, federation: Option<&str>, images: &Images) -> Result<Option<String>, Error> {
        let trained = federation.map(|name| self.store.classes(name)).transpose()?.flatten();
        let Some(trained) = trained.filter(|trained| *trained != images.classes) else { return Ok(None) };
        Ok(Some(format!(
            "this device has trained its own layers on the classes {}, and its images are now of {}: put the folders back \
             as they were, or begin anew with another --state",
            fit::list(&trained),
            fit::list(&images.classes)
        )))
    }

    /// Says why this device keeps nothing for the question's federation, if it does not.
    pub(super) fn unknown(&self, question: &Question) -> Result<Option<String>, Error> {
        if question.split.personal().is_empty() {
            return Ok(None);
        }
        let images = Images::of(&self.prepared.as_ref().expect("prepared before").experiment);
        if let Some(reason) = self.changed(Some(&question.federation), &images)? {
            return Ok(Some(reason));
        }
        if self.store.classes(&question.federation)?.is_some() {
            return Ok(None);
        }
        if self.store.federations()?.len() >= MOST_FEDERATIONS {
            return Ok(Some(format!(
                "this device keeps personal layers of {MOST_FEDERATIONS} federations: begin with another --state"
            )));
        }
        self.store.set_classes(&question.federation, &images.classes)?;
        Ok(None)
    }
}

//! A node: registers with a SuperLink, is asked, answers.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::error::{FlowerError, Malformed};
use crate::identity::Identity;
use crate::message::{Incoming, Outgoing};
use crate::object::{ObjectId, Objects, Tree};
use crate::proto::{self, Body, Node};
use crate::retry::{Link, Polling, in_parallel};

/// Flower's code for "with node authentication, only the operator registers nodes".
const REGISTRATION_DISABLED: u32 = 2001;

const HEARTBEAT: &str = "fleet/send-node-heartbeat";

/// A node's side of the Fleet interface.
pub struct Fleet {
    link: Link,
    identity: Identity,
    interval: Duration,
}

impl Fleet {
    /// A node that tells every `interval` (10 s to 30 min) that it is there; after two missed it counts as offline.
    pub fn new(link: Link, identity: Identity, interval: Duration) -> Self {
        Self { link, identity, interval }
    }

    /// The way to the SuperLink.
    pub fn link(&self) -> &Link {
        &self.link
    }

    fn call<R: Body>(&self, path: &str, request: &impl prost::Message) -> Result<R, FlowerError> {
        self.link.call(path, &|| self.identity.headers(SystemTime::now()).to_vec(), request)
    }

    fn call_briefly<R: Body>(&self, path: &str, request: &impl prost::Message) -> Result<R, FlowerError> {
        self.link.call_briefly(path, &|| self.identity.headers(SystemTime::now()).to_vec(), request)
    }

    /// Becomes a node that is online, and returns its id. `known` is the id that this key had before, if it had one.
    ///
    /// # Errors
    /// If the SuperLink refuses the key: with node authentication the operator registers it first.
    pub fn join(&self, known: Option<u64>) -> Result<u64, FlowerError> {
        // A node that was killed is still online for a while, and cannot be activated again; a heartbeat is enough.
        if let Some(node) = known
            && self
                .call(HEARTBEAT, &self.sign_of_life(node))
                .is_ok_and(|answer: proto::Success| answer.success)
        {
            return Ok(node);
        }
        let public_key = self.identity.public_pem().to_vec();
        let request = proto::RegisterNodeRequest { public_key: public_key.clone() };
        let registered: Result<proto::NodeId, _> = self.call("fleet/register-node", &request);
        let by_operator = match registered {
            Ok(_) => false,
            Err(error @ FlowerError::Status { status: 401, .. }) => return Err(error),
            // Registered before, by itself or by the operator.
            Err(error @ FlowerError::Status { status: 400..=499, .. }) => {
                error.code() == Some(REGISTRATION_DISABLED)
            }
            Err(error) => return Err(error),
        };
        let request =
            proto::ActivateNodeRequest { public_key, heartbeat_interval: self.interval.as_secs_f64() };
        match self.call::<proto::NodeId>("fleet/activate-node", &request) {
            Err(FlowerError::Status { status: 400..=499, .. }) if by_operator && known.is_none() => {
                Err(FlowerError::Key(format!(
                    "this node's key is not registered with the SuperLink, whose operator does that with \
                     `flwr supernode register` for the public key:\n{}",
                    self.identity.public_openssh()
                )))
            }
            result => Ok(result?.node_id),
        }
    }

    /// Tells that `node` is there; false if the SuperLink does not know it.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached. It is not waited for: another heartbeat follows.
    pub fn heartbeat(&self, node: u64) -> Result<bool, FlowerError> {
        let answer: proto::Success = self.call_briefly(HEARTBEAT, &self.sign_of_life(node))?;
        Ok(answer.success)
    }

    fn sign_of_life(&self, node: u64) -> proto::SendNodeHeartbeatRequest {
        proto::SendNodeHeartbeatRequest {
            node: Some(Node { node_id: node }),
            heartbeat_interval: self.interval.as_secs_f64(),
        }
    }

    /// How often [`Fleet::heartbeat`] is due.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The next message for `node`, if there is one. It is delivered once.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or sends something else.
    pub fn pull(&self, node: u64) -> Result<Option<Incoming>, FlowerError> {
        let request = proto::PullMessagesRequest { node: Some(Node { node_id: node }) };
        let answer: proto::PullMessagesResponse = self.call("fleet/pull-messages", &request)?;
        let message = answer.messages_list.into_iter().next();
        match (message, answer.message_object_trees.first()) {
            (Some(message), Some(tree)) => Ok(Some(Incoming::new(message, tree)?)),
            (None, _) => Ok(None),
            _ => Err(Malformed::Body { what: "a message", why: "it came without its objects".into() }.into()),
        }
    }

    /// The objects of a message, of at most `most` bytes in all. What follows from those of the `last` message is not fetched
    /// (see [`Objects::derive`]). Waits while they are still on their way.
    ///
    /// # Errors
    /// [`FlowerError::Gone`] if they will not come, [`Malformed`] if they are not what they should be.
    pub fn fetch(
        &self,
        node: u64,
        message: &Incoming,
        last: Option<(&Tree, &Objects)>,
        most: u64,
    ) -> Result<Objects, FlowerError> {
        let mut there = Objects::default();
        if let Some((tree, objects)) = last {
            there.derive(&message.tree, tree, objects);
        }
        let mut wanted = message.tree.deepest_first();
        wanted.retain(|&id| there.bytes(id).is_none());
        let bytes = there.total_bytes();
        let objects = Mutex::new((there, bytes));
        in_parallel(&wanted, |&id| {
            let bytes = self.fetch_object(node, message, id)?;
            let mut guard = objects.lock().expect("no panic while it is held");
            guard.1 += bytes.len() as u64;
            if guard.1 > most {
                return Err(Malformed::TooLarge { what: "a message", found: guard.1, most }.into());
            }
            Ok(guard.0.take(id, bytes)?)
        })?;
        Ok(objects.into_inner().expect("no panic while it was held").0)
    }

    fn fetch_object(&self, node: u64, message: &Incoming, id: ObjectId) -> Result<Vec<u8>, FlowerError> {
        let request = proto::PullObjectRequest {
            node: Some(Node { node_id: node }),
            run_id: message.metadata.run_id,
            object_id: id.to_string(),
        };
        let mut polling = Polling::new(Duration::from_secs(1));
        loop {
            let answer: proto::PullObjectResponse =
                polling.ask(|| self.call("fleet/pull-object", &request))?;
            if !answer.object_found || message.has_expired() || polling.waited() > UNDER_WAY {
                return Err(FlowerError::Gone(id.to_string()));
            }
            if answer.object_available {
                return Ok(answer.object_content);
            }
            self.link.sleep(polling.pause());
            if self.link.is_stopped() {
                return Err(FlowerError::Interrupted);
            }
        }
    }

    /// Sends an answer, which took `seconds` to make. Sending it twice is the same as sending it once. False if the
    /// SuperLink has no use for it any more: another one has come, or it came too late.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or the run is over ([`FlowerError::is_run_over`]).
    pub fn push(&self, node: u64, answer: &Outgoing, seconds: f64) -> Result<bool, FlowerError> {
        let request = proto::PushMessagesRequest {
            node: Some(Node { node_id: node }),
            messages_list: vec![answer.message.clone()],
            message_object_trees: vec![answer.tree.clone()],
            clientapp_runtime_list: vec![seconds],
        };
        let pushed: proto::PushMessagesResponse = self.call("fleet/push-messages", &request)?;
        let run_id = answer.message.metadata.as_ref().map_or(0, |metadata| metadata.run_id);
        let stored = push_objects(answer, &pushed.objects_to_push, |id, content| {
            let request = proto::PushObjectRequest {
                node: Some(Node { node_id: node }),
                run_id,
                object_id: id.to_owned(),
                object_content: content,
                session_id: pushed.session_id.clone(),
            };
            let answer: proto::PushObjectResponse = self.call("fleet/push-object", &request)?;
            Ok(answer.stored)
        })?;
        Ok(stored && !pushed.objects_to_push.is_empty())
    }

    /// The message is dealt with; the SuperLink may forget its objects. Not insisted on: if this fails, they are kept until
    /// their run ends.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or the run is over.
    pub fn confirm(&self, node: u64, message: &Incoming) -> Result<(), FlowerError> {
        let request = proto::ConfirmMessageReceivedRequest {
            node: Some(Node { node_id: node }),
            run_id: message.metadata.run_id,
            message_object_id: message.tree.id.to_string(),
        };
        self.call_briefly::<proto::Empty>("fleet/confirm-message-received", &request).map(drop)
    }

    /// Goes offline. What was not collected of its answers yet is lost with that.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached.
    pub fn leave(&self, node: u64) -> Result<(), FlowerError> {
        let headers = || self.identity.headers(SystemTime::now()).to_vec();
        let request = proto::NodeId { node_id: node };
        self.link.once::<proto::Empty>("fleet/deactivate-node", &headers, &request).map(drop)
    }
}

/// The SuperLink forgets who was sending an object when none has come for 180 s. After a while longer it never comes.
const UNDER_WAY: Duration = Duration::from_secs(200);

/// A body that fills a line for a while, in bytes.
const LARGE: usize = 1 << 20;

/// Pushes those objects of `message` that the SuperLink asks for; false if one was not stored. Large ones go one after
/// another: side by side they share the line, and the SuperLink takes longer over them.
pub(crate) fn push_objects(
    message: &Outgoing,
    wanted: &[String],
    push: impl Fn(&str, Vec<u8>) -> Result<bool, FlowerError> + Sync,
) -> Result<bool, FlowerError> {
    let line = Mutex::new(());
    let stored = in_parallel(wanted, |id| {
        let bytes = id.parse().ok().and_then(|id| message.objects.bytes(id));
        let bytes = bytes.ok_or_else(|| Malformed::Missing(id.clone()))?;
        let _turn = (bytes.len() > LARGE).then(|| line.lock().expect("no panic while it is held"));
        push(id, bytes.to_vec())
    })?;
    Ok(stored.into_iter().all(|stored| stored))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::transport::{Call, Reply, Transport};

    /// Refuses to register and to activate a node, with Flower's codes.
    struct Refusing(u32);

    impl Transport for Refusing {
        fn call(&self, call: Call<'_>) -> Result<Reply, FlowerError> {
            let code = if call.path == "fleet/register-node" { self.0 } else { 2004 };
            let body = format!("{{\"code\":{code},\"detail\":\"no\"}}").into_bytes();
            Ok(Reply { status: 412, body })
        }
    }

    fn join(code: u32) -> FlowerError {
        let link = Link::new(Box::new(Refusing(code)), Duration::ZERO, Arc::default());
        Fleet::new(link, Identity::generate().unwrap(), Duration::from_secs(10)).join(None).unwrap_err()
    }

    #[test]
    fn a_key_that_is_in_use_is_not_one_that_the_operator_forgot() {
        // Killed between its activation and noting its number: online as far as the SuperLink knows, for a while.
        let error = join(23);
        assert_eq!(error.code(), Some(2004), "{error}");
        assert!(join(REGISTRATION_DISABLED).to_string().contains("not registered"));
    }
}

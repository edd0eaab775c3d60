//! The app that drives a run: starts it, asks nodes, collects their answers.

use std::collections::BTreeSet;

use crate::error::{FlowerError, Malformed};
use crate::message::{Incoming, Outgoing, now};
use crate::object::{ObjectId, Objects};
use crate::proto::{self, Body, Metadata, Node};
use crate::retry::{Link, in_parallel};

/// What a run is called: no code, only a description. The program that drives it is this one.
const PYPROJECT: &str = "[project]\nname = \"fedper\"\nversion = \"0.1.0\"\n\n[tool.flwr.app]\npublisher = \"fedper\"\n\n\
    [tool.flwr.app.components]\nserverapp = \"fedper:server\"\nclientapp = \"fedper:client\"\n";

/// The number of the SuperLink itself among the nodes.
const SUPERLINK: u64 = 1;

/// The driving app's side of the Control and Runtime interfaces.
pub struct Runtime {
    link: Link,
    fab: Vec<u8>,
}

/// A run that this program drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Flower's number for it.
    pub id: u64,
    /// The task of driving it.
    pub task: u64,
    /// Proves that the task is this program's. Whoever has it can drive the run.
    pub token: String,
}

/// An answer, or why a message of a node cannot be taken for one.
pub type Answer = Result<Incoming, Malformed>;

impl Runtime {
    /// Over `link`. `fab` is the bundle with the app of Python nodes, as `flwr build` makes it, if there are any.
    pub fn new(link: Link, fab: Option<Vec<u8>>) -> Self {
        let fab = fab.unwrap_or_else(|| zip("pyproject.toml", PYPROJECT.as_bytes()));
        Self { link, fab }
    }

    /// The way to the SuperLink.
    pub fn link(&self) -> &Link {
        &self.link
    }

    fn call<R: Body>(
        &self,
        run: Option<&Run>,
        path: &str,
        request: &impl prost::Message,
    ) -> Result<R, FlowerError> {
        let headers = || run.iter().map(|run| ("flwr-task-token", run.token.clone())).collect();
        self.link.call(path, &headers, request)
    }

    /// Starts a run and takes on the task of driving it.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or does not leave driving to others (`--isolation process`).
    pub fn start(&self) -> Result<Run, FlowerError> {
        let content = self.fab.clone();
        let hash_str = ObjectId::of(&content).to_string();
        // Left over from a program that was killed before it could take it on.
        if let Some(run) = self.acquire(&hash_str)? {
            return Ok(run);
        }
        let fab = proto::Fab { hash_str: hash_str.clone(), content };
        let started: proto::StartRunResponse =
            self.call(None, "control/start-run", &proto::StartRunRequest { fab: Some(fab) })?;
        if started.run_id.is_none() {
            let note = started.note.unwrap_or_default();
            return Err(FlowerError::Key(format!("the SuperLink starts no run: {note}")));
        }
        for _ in 0..100 {
            if let Some(run) = self.acquire(&hash_str)? {
                return Ok(run);
            }
            self.link.sleep(std::time::Duration::from_millis(100));
        }
        Err(FlowerError::Key(
            "the SuperLink does not hand out the task of driving the run: start it with --isolation process"
                .into(),
        ))
    }

    fn acquire(&self, fab: &str) -> Result<Option<Run>, FlowerError> {
        let request = proto::AcquireTaskRequest { supported_task_types: vec!["flwr-serverapp".into()] };
        let answer: proto::AcquireTaskResponse = self.call(None, "runtime/acquire-task", &request)?;
        let Some(task) = answer.task.filter(|_| !answer.token.is_empty()) else { return Ok(None) };
        let run = Run { id: task.run_id, task: task.task_id, token: answer.token };
        if task.fab_hash.is_some_and(|found| found != fab) {
            self.finish(&run, "failed", "this SuperLink's runs are driven by fedper server")?;
            return Ok(None);
        }
        self.heartbeat(&run)?;
        self.call::<proto::PullTaskInputResponse>(Some(&run), "runtime/pull-task-input", &proto::Empty {})?;
        Ok(Some(run))
    }

    /// Tells that the run is still driven; false if the SuperLink has given it up.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or has forgotten the task.
    pub fn heartbeat(&self, run: &Run) -> Result<bool, FlowerError> {
        let headers = || vec![("flwr-task-token", run.token.clone())];
        let path = "runtime/send-task-heartbeat";
        let answer: proto::Success = self.link.call_briefly(path, &headers, &proto::Empty {})?;
        Ok(answer.success)
    }

    /// The nodes that are online.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or the run is over.
    pub fn nodes(&self, run: &Run) -> Result<BTreeSet<u64>, FlowerError> {
        let answer: proto::GetNodesResponse = self.call(Some(run), "runtime/get-nodes", &proto::Empty {})?;
        Ok(answer.nodes.into_iter().map(|node| node.node_id).collect())
    }

    /// The metadata of a question to `node`, valid for `ttl` seconds.
    pub fn question(&self, run: &Run, node: u64, kind: &str, group: &str, ttl: f64) -> Metadata {
        Metadata {
            run_id: run.id,
            src_node_id: SUPERLINK,
            dst_node_id: node,
            group_id: group.to_owned(),
            ttl,
            message_type: kind.to_owned(),
            created_at: now(),
            src_task_id: Some(run.task),
            ..Metadata::default()
        }
    }

    /// Sends a question. False if the node is not there any more.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or the run is over.
    pub fn push(&self, run: &Run, question: &Outgoing) -> Result<bool, FlowerError> {
        let request = proto::PushAppMessagesRequest {
            messages_list: vec![question.message.clone()],
            message_object_trees: vec![question.tree.clone()],
        };
        let pushed: proto::PushAppMessagesResponse =
            self.call(Some(run), "runtime/push-messages", &request)?;
        if pushed.message_ids.first().is_none_or(String::is_empty) {
            return Ok(false);
        }
        crate::fleet::push_objects(question, &pushed.objects_to_push, |id, content| {
            let request = proto::PushObjectRequest {
                node: Some(Node { node_id: SUPERLINK }),
                run_id: run.id,
                object_id: id.to_owned(),
                object_content: content,
                session_id: pushed.session_id.clone(),
            };
            let answer: proto::PushObjectResponse = self.call(Some(run), "runtime/push-object", &request)?;
            Ok(answer.stored)
        })
    }

    /// The answers that have come to these questions, each once. What cannot be read comes with the question's id.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or the run is over.
    pub fn pull(&self, run: &Run, questions: Vec<String>) -> Result<Vec<(String, Answer)>, FlowerError> {
        let request = proto::PullAppMessagesRequest { message_ids: questions };
        let answer: proto::PullAppMessagesResponse =
            self.call(Some(run), "runtime/pull-messages", &request)?;
        let pairs = answer.messages_list.into_iter().zip(&answer.message_object_trees);
        Ok(pairs
            .map(|(message, tree)| {
                let question =
                    message.metadata.as_ref().map_or(String::new(), |m| m.reply_to_message_id.clone());
                (question, Incoming::new(message, tree))
            })
            .collect())
    }

    /// Fetches what is there of an answer's objects, and returns those that are still on their way. They are sent in about
    /// this order, so where the first is not there yet no other is asked for. `objects` may hold at most `most` bytes.
    ///
    /// # Errors
    /// [`FlowerError::Gone`] if one will not come, [`Malformed`] if one is not what it should be.
    pub fn fetch(
        &self,
        run: &Run,
        wanted: &[ObjectId],
        objects: &mut Objects,
        most: u64,
    ) -> Result<Vec<ObjectId>, FlowerError> {
        let budget = std::sync::atomic::AtomicU64::new(most.saturating_sub(objects.total_bytes()));
        let get = |id: ObjectId| {
            let request = proto::PullObjectRequest {
                node: Some(Node { node_id: SUPERLINK }),
                run_id: run.id,
                object_id: id.to_string(),
            };
            let answer: proto::PullObjectResponse = self.call(Some(run), "runtime/pull-object", &request)?;
            if !answer.object_found {
                return Err(FlowerError::Gone(id.to_string()));
            }
            if !answer.object_available {
                return Ok(None);
            }
            let size = answer.object_content.len() as u64;
            let spend = |left: u64| left.checked_sub(size);
            use std::sync::atomic::Ordering::Relaxed;
            if budget.fetch_update(Relaxed, Relaxed, spend).is_err() {
                return Err(Malformed::TooLarge { what: "a message", found: most + 1, most }.into());
            }
            Ok(Some(answer.object_content))
        };
        let Some((&first, rest)) = wanted.split_first() else { return Ok(Vec::new()) };
        let Some(bytes) = get(first)? else { return Ok(wanted.to_vec()) };
        objects.take(first, bytes)?;
        let objects = std::sync::Mutex::new(objects);
        let came = in_parallel(rest, |&id| {
            let Some(bytes) = get(id)? else { return Ok(false) };
            objects.lock().expect("no panic while it is held").take(id, bytes)?;
            Ok(true)
        })?;
        Ok(rest.iter().zip(came).filter(|(_, came)| !came).map(|(&id, _)| id).collect())
    }

    /// The answer is dealt with; the SuperLink may forget its objects. Not insisted on, as a node's confirmation is not.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or the run is over.
    pub fn confirm(&self, run: &Run, answer: &Incoming) -> Result<(), FlowerError> {
        let request = proto::ConfirmMessageReceivedRequest {
            node: Some(Node { node_id: SUPERLINK }),
            run_id: run.id,
            message_object_id: answer.tree.id.to_string(),
        };
        let headers = || vec![("flwr-task-token", run.token.clone())];
        let path = "runtime/confirm-message-received";
        self.link.call_briefly::<proto::Empty>(path, &headers, &request).map(drop)
    }

    /// Ends the run: `status` is `completed`, `failed` or `stopped`.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached, or has forgotten the task.
    pub fn finish(&self, run: &Run, status: &str, details: &str) -> Result<(), FlowerError> {
        let request = proto::PushTaskOutputRequest {
            context: None,
            sub_status: status.to_owned(),
            details: details.to_owned(),
        };
        let headers = || vec![("flwr-task-token", run.token.clone())];
        self.link.once::<proto::Empty>("runtime/push-task-output", &headers, &request).map(drop)
    }
}

/// A zip archive that holds one file, uncompressed.
fn zip(name: &str, content: &[u8]) -> Vec<u8> {
    let crc = !content.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    });
    let length = content.len() as u32;
    // Version, flags, method, time, date (1980-01-01), checksum, lengths, length of the name, no extra field.
    let mut about = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
    for word in [crc, length, length] {
        about.extend_from_slice(&word.to_le_bytes());
    }
    about.extend_from_slice(&(name.len() as u16).to_le_bytes());
    about.extend_from_slice(&[0, 0]);
    let mut out = b"PK\x03\x04".to_vec();
    out.extend_from_slice(&about);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(content);
    let directory = out.len() as u32;
    out.extend_from_slice(b"PK\x01\x02\x14\x00");
    out.extend_from_slice(&about);
    // No comment, first disk, no attributes, at offset 0.
    out.extend_from_slice(&[0; 14]);
    out.extend_from_slice(name.as_bytes());
    let size = out.len() as u32 - directory;
    out.extend_from_slice(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&directory.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_by_hand() {
        let bytes = zip("a.txt", b"123456789");
        // The checksum of "123456789" is the one in every description of CRC-32.
        assert_eq!(bytes[14..18], 0xcbf4_3926u32.to_le_bytes());
        assert_eq!(&bytes[30..44], b"a.txt123456789");
        // The end record tells where the directory begins, and that it has one entry.
        let end = bytes.len() - 22;
        assert_eq!(&bytes[end..end + 4], b"PK\x05\x06");
        assert_eq!(&bytes[44..48], b"PK\x01\x02");
        assert_eq!(bytes[end + 16..end + 20], 44u32.to_le_bytes());
        assert_eq!(bytes[end + 12..end + 16], (end as u32 - 44).to_le_bytes());
    }
}
